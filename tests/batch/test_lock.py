"""One run at a time uses a folder; the others are told which one."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys

import pytest

from holistic_cam_plugin.batch.parameters import claim_folder
from holistic_cam_plugin.errors import UsageError
from tests.batch.batch_tools import start_holder

PARAMETERS = {"threads": None, "layers": ["a"]}
BUSY = r"another run is using .* \(process {} on {}\): wait until it ends, or choose another --output"


def claim(folder, **changed):
    """Claim the folder and release it; return its parameters."""
    with claim_folder(folder, {**PARAMETERS, **changed}, 3) as parameters:
        return parameters


def busy(process=None):
    return BUSY.format(process or os.getpid(), socket.gethostname())


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with claim_folder(tmp_path, PARAMETERS, 1), pytest.raises(UsageError, match=busy()):
        claim(tmp_path)
    claim(tmp_path)


def test_nothing_but_the_lock_is_left(tmp_path):
    claim(tmp_path)
    with pytest.raises(UsageError, match="other parameters"):
        claim(tmp_path, layers=["b"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "parameters.json"]


def test_the_moment_before_the_holder_is_named(tmp_path):
    with claim_folder(tmp_path, PARAMETERS, 1):
        (tmp_path / ".lock-holder").write_text("")
        with pytest.raises(UsageError, match=r"is using [^(]*: wait"):
            claim(tmp_path)
        (tmp_path / ".lock-holder").unlink()
        with pytest.raises(UsageError, match=r"is using [^(]*: wait"):
            claim(tmp_path)


def test_the_lock_comes_before_the_parameters(tmp_path):
    with claim_folder(tmp_path, PARAMETERS, 1):
        (tmp_path / "parameters.json").write_text("{")
        with pytest.raises(UsageError, match=busy()):
            claim(tmp_path)
        (tmp_path / "parameters.json").unlink()
        with pytest.raises(UsageError, match=busy()):
            claim(tmp_path)
        assert not (tmp_path / "parameters.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no fork and no SIGKILL on Windows")
def test_a_killed_run_leaves_no_lock_although_a_child_lives_on(tmp_path):
    process, child = start_holder(tmp_path)
    try:
        with pytest.raises(UsageError, match=busy(process.pid)):
            claim(tmp_path, threads=1)
        process.kill()
        process.join(60)
        os.kill(child, 0)  # it is alive
        with claim_folder(tmp_path, {"threads": 1}, 1):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


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
    with pytest.raises(UsageError, match=r"cannot use the output folder .*: \[Errno 5\]"):
        claim(tmp_path)
