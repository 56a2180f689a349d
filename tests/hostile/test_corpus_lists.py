"""Lists as unlucky users have them through `holistic-cam batch`: a line that says why, or every good row explained."""

from __future__ import annotations

import pytest

from tests.batch.batch_tools import make_pictures, rows
from tests.hostile.corpus import make_good, one_colour_png
from tests.hostile.outcome import assert_explained, assert_told, batch, snapshot

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero"),
]

PROGRAM = "holistic-cam batch"

HUGE = "x" * 200_000
# The list, and the exit codes that it may have. Two good pictures are there: "picture 0.jpg", "deeper/picture 1.jpg".
LISTS = {
    "empty": (b"", (2,)),
    "a header alone": (b"file,target\n", (2,)),
    "no column file": (b"path,target\npicture 0.jpg,1\n", (2,)),
    "column in capitals": (b"FILE\npicture 0.jpg\n", (0, 2)),
    "a byte-order mark": (b"\xef\xbb\xbffile\npicture 0.jpg\ndeeper/picture 1.jpg\n", (0,)),
    "UTF-16": ("file\npicture 0.jpg\n".encode("utf-16"), (2,)),
    "not UTF-8": (b"file\npicture 0.jpg\nb\xe4r.jpg\n", (1, 2)),
    "NULs": (b"file\npicture 0.jpg\na\0b.jpg\n", (1, 2)),
    "NUL bytes alone": (bytes(1000), (2,)),
    "a row without a file": (b"target,file\n1,picture 0.jpg\n1\n", (2,)),
    "an empty file": (b"file,target\npicture 0.jpg,1\n,1\n", (2,)),
    "empty rows": (b"file\n\n\npicture 0.jpg\n\n\n", (0,)),
    "too many values": (b"file,target\npicture 0.jpg,1,2,3\n", (0, 2)),
    "two columns file": (b"file,file\npicture 0.jpg,deeper/picture 1.jpg\n", (2,)),
    "two columns target": (b"file,target,target\npicture 0.jpg,1,2\n", (2,)),
    "a file that is not there": (b"file\npicture 0.jpg\nnowhere.jpg\n", (1,)),
    "a folder": (b"file\npicture 0.jpg\ndeeper\n", (1,)),
    "the root": (b"file\n.\n", (2,)),
    "above the root": (b"file\npicture 0.jpg\n../secret.jpg\n", (2,)),
    "above the root on a detour": (b"file\ndeeper/../../secret.jpg\n", (2,)),
    "an absolute path elsewhere": (b"file\n/etc/passwd\n", (2,)),
    "a trailing slash": (b"file\npicture 0.jpg/\n", (0, 1, 2)),
    "backslashes": (b"file\npicture 0.jpg\ndeeper\\picture 1.jpg\n", (1,)),
    "spaces around": (b"file\npicture 0.jpg\n  picture 0.jpg\n", (0, 1)),
    "an unknown class": (b"file,target\npicture 0.jpg,cat\n", (2,)),
    "a class out of range": (b"file,target\npicture 0.jpg,10\n", (2,)),
    "class -1": (b"file,target\npicture 0.jpg,-1\n", (2,)),
    "class --5": (b"file,target\npicture 0.jpg,--5\n", (2,)),
    "class -": (b"file,target\npicture 0.jpg,-\n", (2,)),
    "a class of 5,000 digits": (b"file,target\npicture 0.jpg," + b"9" * 5000 + b"\n", (2,)),
    "a class in other digits": ("file,target\npicture 0.jpg,٣\n".encode(), (0, 2)),
    "a class with a superscript": ("file,target\npicture 0.jpg,²\n".encode(), (2,)),
    "a class as a float": (b"file,target\npicture 0.jpg,1.0\n", (2,)),
    "a class nan": (b"file,target\npicture 0.jpg,nan\n", (2,)),
    "duplicates": (b"file,target\npicture 0.jpg,1\npicture 0.jpg,1\n./picture 0.jpg,digit 1\n", (0,)),
    "an open quote": (b'file,target\n"picture 0.jpg,1\ndeeper/picture 1.jpg,2\n', (1, 2)),
    "a quote within": (b'file\npicture 0.jpg\npic"ture 0.jpg\n', (1, 2)),
    "text behind a quote": (b'file,target\n"picture 0.jpg"x,1\n', (1, 2)),
    "a carriage return in a name": (b'file\npicture 0.jpg\n"a\rb.jpg"\n', (1, 2)),
    "a newline in a name": (b'file\npicture 0.jpg\n"a\nb.jpg"\n', (1, 2)),
    "empty lines in a name": (b'file\npicture 0.jpg\n"a\n\n\nb.jpg"\n', (1, 2)),
    "old Mac line endings": (b"file\rpicture 0.jpg\rdeeper/picture 1.jpg\r", (0, 2)),
    "a name of 200,000 letters": (f"file\npicture 0.jpg\n{HUGE}\n".encode(), (1, 2)),
    "a name of 5,000 letters": (f"file\npicture 0.jpg\n{HUGE[:5000]}\n".encode(), (1, 2)),
    "semicolons": (b"file;target\npicture 0.jpg;1\n", (2,)),
    "tabs": (b"file\ttarget\npicture 0.jpg\t1\n", (2,)),
    "a surrogate": (b"file\npicture 0.jpg\n\xed\xb3\xbf.jpg\n", (1, 2)),
    "a picture": (None, (2,)),
}


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """Two pictures, and a third one that no list may reach."""
    folder = tmp_path_factory.mktemp("lists")
    make_pictures(folder / "root", 2)
    make_good(folder / "secret.jpg")
    return folder


@pytest.mark.parametrize("title", LISTS)
def test_a_list(listed, tmp_path, title):
    data, codes = LISTS[title]
    path = tmp_path / "list.csv"
    path.write_bytes(one_colour_png(100) if data is None else data)
    before = snapshot(tmp_path, tmp_path / "output")
    outcomes = [batch(path, tmp_path / "output", "--root", listed / "root") for _ in range(2)]
    assert snapshot(tmp_path, tmp_path / "output") == before
    for outcome in outcomes:
        if outcome.code == 2:
            assert_told(outcome, PROGRAM)
            assert len(outcome.err) < 1000, "a line that nobody reads"
        assert_explained(outcome, codes)
    assert outcomes[0].code == outcomes[1].code
    if outcomes[0].code != 2:
        explained = {row["file"] for row in rows(tmp_path / "output")}
        assert (outcomes[0].code == 1) == bool(rows(tmp_path / "output", "errors.csv"))
        assert "picture 0.jpg" in explained or b'"picture 0.jpg' in data or b"jpg/" in data
        assert explained <= {"picture 0.jpg", "deeper/picture 1.jpg"}


def test_a_list_through_a_linked_root(listed, tmp_path):
    (tmp_path / "link").symlink_to(listed / "root")
    path = tmp_path / "list.csv"
    path.write_text(f"file\n{tmp_path / 'link' / 'picture 0.jpg'}\n")
    assert_explained(batch(path, tmp_path / "output", "--root", tmp_path / "link"))
