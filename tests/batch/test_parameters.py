"""A folder belongs to one run at a time, and to one set of parameters."""

from __future__ import annotations

import errno
import os
import signal
import sys

import pytest

from holistic_cam_plugin.batch.parameters import claimed, digest
from holistic_cam_plugin.errors import UsageError
from tests.batch.batch_tools import holder

PARAMETERS = {"threads": None, "layers": ["a"]}
BUSY = "another run is at work in .*: wait for its end, or choose another --output"


def claim(folder, **changed):
    """What the folder's parameters are; the folder is free again."""
    with claimed(folder, {**PARAMETERS, **changed}, 3) as parameters:
        return parameters


def test_a_new_folder_takes_the_runs_parameters_and_an_old_one_gives_its_own(tmp_path):
    assert claim(tmp_path / "new") == {"threads": 3, "layers": ["a"]}
    assert claim(tmp_path / "new", threads=3) == {"threads": 3, "layers": ["a"]}
    with pytest.raises(UsageError, match=r"made with other parameters: layers \(a, now b\)"):
        claim(tmp_path / "new", layers=["b"])
    assert claim(tmp_path / "new") == {"threads": 3, "layers": ["a"]}  # a refused run does not keep the lock


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with claimed(tmp_path, PARAMETERS, 1), pytest.raises(UsageError, match=BUSY):
        claim(tmp_path)
    claim(tmp_path)


def test_the_lock_comes_before_the_parameters(tmp_path):
    with claimed(tmp_path, PARAMETERS, 1):
        (tmp_path / "parameters.json").write_text("{")
        with pytest.raises(UsageError, match=BUSY):
            claim(tmp_path)
        (tmp_path / "parameters.json").unlink()
        with pytest.raises(UsageError, match=BUSY):
            claim(tmp_path)
        assert not (tmp_path / "parameters.json").exists()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "it holds , no parameters"),
        ("null", "it holds None, no parameters"),
        ("{", "Expecting property name"),
        ("[" * 100_000, ""),
        ("\udcff", "'utf-8' codec can't decode"),
        ('{"layers": ["a"]}', "threads is None, not 1 to "),
        *(
            (f'{{"threads": {threads}, "layers": ["a"]}}', "threads is ")
            for threads in ("null", "-1", "0", '"2"', "1.0", "true", "1e400", "NaN", "[1]", "1" * 70, "100000")
        ),
    ],
)
def test_parameters_that_no_run_wrote_are_one_line(tmp_path, text, what):
    data = text.encode(errors="surrogateescape")
    (tmp_path / "parameters.json").write_bytes(data)
    with pytest.raises(
        UsageError, match=rf"parameters\.json can't be read: {what}.*Restore it, or choose another --out"
    ):
        claim(tmp_path)
    assert (tmp_path / "parameters.json").read_bytes() == data


def test_the_file_holds_just_the_parameters_after_a_restart(tmp_path):
    claim(tmp_path, input="/here")
    whole = (tmp_path / "parameters.json").read_bytes()
    (tmp_path / "parameters.json").write_bytes(whole.replace(b"\n", b"\r\n ").replace(b"here", b"there"))
    assert claim(tmp_path, input="/here")["threads"] == 3
    assert (tmp_path / "parameters.json").read_bytes() == whole


def test_a_digest_stands_for_all_that_the_maps_depend_on():
    assert digest({"input": "a", "threads": 1}) == digest({"input": "b", "threads": 1})
    assert digest({"input": "a", "threads": 1}) != digest({"input": "a", "threads": 2})


def test_a_folder_of_something_else_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"holds files, but no parameters\.json"):
        claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.skipif(sys.platform == "win32", reason="no fork and no SIGKILL on Windows")
def test_a_killed_run_leaves_no_lock_although_its_reading_processes_live_on(tmp_path):
    process, reader = holder(tmp_path)
    try:
        with pytest.raises(UsageError, match=BUSY):
            claim(tmp_path, threads=1)
        process.kill()
        process.join(60)
        os.kill(reader, 0)  # it lives
        with claimed(tmp_path, {"threads": 1}, 1):
            pass
    finally:
        os.kill(reader, signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="no fcntl on Windows")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_folders_without_locks_work_without_one(tmp_path, monkeypatch, number):
    def no_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", no_locks)
    assert claim(tmp_path) == {"threads": 3, "layers": ["a"]}
    assert claim(tmp_path) == {"threads": 3, "layers": ["a"]}


@pytest.mark.skipif(sys.platform == "win32", reason="no fcntl on Windows")
def test_other_trouble_with_the_lock_is_named(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", broken)
    with pytest.raises(UsageError, match=r"the output folder .* can't be used: \[Errno 5\]"):
        claim(tmp_path)
