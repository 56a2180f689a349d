"""Terminal output in any encoding, and on a full device."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holistic_cam_plugin.__main__ import main
from tests.batch.batch_tools import QUICK, make_pictures, rows

pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero")
ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")
needs_full_device = pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures in a folder whose name no ASCII terminal has, one of them empty."""
    folder = tmp_path_factory.mktemp("hölle 像")
    make_pictures(folder / "in", 1)
    (folder / "in" / "empty.jpg").touch()
    return folder


@pytest.fixture
def run(monkeypatch):
    """Run the command line in this process, on a terminal of some encoding; exit code, and what was said."""

    def _run(*arguments, encoding="ascii", out=None):
        streams = [io.BytesIO(), io.BytesIO()]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out or io.TextIOWrapper(streams[0], encoding))
            patch.setattr(sys, "stderr", io.TextIOWrapper(streams[1], encoding, "backslashreplace"))
            code = main([str(argument) for argument in arguments])
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            return code, *(stream.getvalue() for stream in streams)

    return _run


def batch(folder, output):
    return "batch", folder / "in", "--output", output, *QUICK, "--workers", "0"


def test_characters_that_the_terminal_cannot_show_are_escaped(folder, run):
    code, out, _ = run(*batch(folder, folder / "out"))
    assert code == 1
    assert rb"h\xf6lle \u50cf" in out
    code, out, err = run("report", folder / "out")
    assert (code, err) == (0, b"")
    assert rb"h\xf6lle \u50cf" in out
    code, out, err = run(*batch(folder, folder / "in"))
    assert (code, out, err.count(b"\n")) == (2, b"", 1)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are UTF-8 on this system")
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_folders_whose_names_are_no_utf_8(folder, run, encoding):
    output = folder / os.fsdecode(b"out \xff")
    code, out, _ = run(*batch(folder, output), encoding=encoding)
    assert code == 1
    assert rb"out \udcff" in out
    code, out, err = run("report", output, encoding=encoding)
    assert (code, err) == (0, b"")
    assert rb"out \udcff" in out
    assert rb"out \udcff" in (output / "report" / "index.html").read_bytes()


@needs_full_device
def test_a_summary_for_which_there_is_no_room(folder, run):
    output = folder / "full"
    code, _, err = run(*batch(folder, output), out=FULL.open("w"))
    assert code == 3
    assert b"holistic-cam batch: stopped: all is done and in" in err
    assert b"but standard output cannot be written: No space left on device\n" in err
    assert err.count(b"holistic-cam") == 1
    assert len(rows(output)) == 1
    code, _, err = run("report", output, out=FULL.open("w"))
    assert (code, err.count(b"\n")) == (3, 1)
    assert b"index.html is written, but standard output cannot be written: No space left on device\n" in err
    assert (output / "report" / "index.html").is_file()


@pytest.mark.campaign
@needs_full_device
@pytest.mark.parametrize("code", [3, 2])
def test_python_adds_no_words_of_its_own_at_its_end(folder, run, code):
    """In a process that ends as Python ends: a report that is written, and a folder that has none."""
    output = folder / f"end {code}"
    run(*batch(folder, output))
    command = [sys.executable, "-m", "holistic_cam_plugin", "report", str(output if code == 3 else folder)]
    with FULL.open("wb") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=full if code == 2 else subprocess.PIPE)
    assert done.returncode == code
    assert (done.stderr or b"\n").count(b"\n") == 1
