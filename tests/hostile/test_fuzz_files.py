"""Files of a batch job, changed at random with a fixed seed: a line and a documented exit code, and all is made again.

`HOSTILE_SECONDS` is how long to go on, in all.
"""

from __future__ import annotations

import os
import random
import shutil
import time

import pytest

from holistic_cam_plugin.__main__ import main
from tests.batch.batch_tools import QUICK, make_pictures, tree

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero"),
]

FILES = ("manifest.csv", "errors.csv", "list.csv", "record.sqlite", "overlay", "maps")
SECONDS = float(os.environ.get("HOSTILE_SECONDS", "8")) / len(FILES)
AT_LEAST = 3  # on the slowest machine
COUNT = 3
INSERTED = (b'"', b",", b"\n", b"\n\n", b"\r", b"\0", b"\xff", b"-", b"9" * 5000)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Pictures, a list of them, and the files of a whole job."""
    folder = tmp_path_factory.mktemp("job")
    names = make_pictures(folder, COUNT)
    names.append("line\n\nend.jpg")
    shutil.copy(folder / names[0], folder / names[-1])
    (folder / "empty.jpg").touch()
    lines = [f'"{name}",{number}\n' for number, name in enumerate(names)]
    (folder / "list.csv").write_text("file,target\n" + "".join(lines) + "empty.jpg,\npicture 0.jpg,digit 7\n")
    assert main(command(folder, folder / "whole")) == 1
    return folder


def command(folder, output):
    options = (*QUICK, "--workers", "0", "--overlays", "--dtype", "float32", "--verify")
    return ["batch", str(folder / "list.csv"), "--output", str(output), *options]


def mutated(data, chance):
    """The bytes with one to three changes: flips, deletions, insertions, a copied part, a cut."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        place, length = chance.randrange(len(data) + 1), chance.choice((1, 1, 1, 2, 7, 40))
        end = place + length
        data = chance.choice(
            (
                data[:place] + bytes(byte ^ (1 << chance.randrange(8)) for byte in data[place:end]) + data[end:],
                data[:place] + data[end:],
                data[:place] + chance.choice(INSERTED) + data[place:],
                data[:place] + bytes(length) + data[end:],
                data[:place] + data[place:end] * 2 + data[end:],
                data[:place],
            )
        )
    return data


def said(capsys):
    """What the command line said of its own, without bars of progress."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return [part for part in err.replace("\r", "\n").split("\n") if part.startswith("holistic-cam")]


@pytest.mark.parametrize("name", FILES)
def test_changed_files(job, tmp_path, capsys, name):
    whole = tree(job / "whole")
    chance = random.Random(name)
    output, tried, end = tmp_path / "output", 0, time.monotonic() + SECONDS
    listed = (job / "list.csv").read_bytes()
    while tried < AT_LEAST or time.monotonic() < end:
        shutil.copytree(job / "whole", output)
        path = place(job, output, name)
        before = path.read_bytes()
        after = mutated(before, chance)
        path.write_bytes(after)
        try:
            code = main(command(job, output))
            words = said(capsys)
            assert code in (0, 1, 2, 3), (tried, after)
            assert len(words) == (code > 1), (tried, words)
            if name == "list.csv":
                assert code != 2 or path.name in words[0], (tried, words)
                path.write_bytes(before)
            elif name == "record.sqlite":  # it has no checksums: what is read may be wrong
                if code > 1:
                    assert path.name in words[0] or "holds maps made with other parameters" in words[0], (tried, words)
                continue
            elif name == "overlay":  # a JPEG has no checksum
                continue
            assert main(command(job, output)) == 1, (tried, after)
            assert said(capsys) == []
            left = tree(output)
            assert left == whole, (tried, after)
        finally:
            (job / "list.csv").write_bytes(listed)
            shutil.rmtree(output)
            tried += 1


def place(job, output, name):
    """The file to change."""
    if name == "list.csv":
        return job / name
    if name == "overlay":
        return output / "overlays" / "picture 0.jpg.jpg"
    return output / "maps" / "picture 0.jpg.npz" if name == "maps" else output / name
