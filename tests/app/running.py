"""The explorer as a person starts it: a process of its own, on a free port."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import pytest

from holistic_cam_plugin.__main__ import main
from tests.processes import PATIENCE, start, wait_for

__all__ = ["Running", "free_port", "running"]


class Running(NamedTuple):
    url: str
    port: int
    process: BaseProcess
    temporary: Path  # where its temporary folder is
    err: Path

    def interrupted(self) -> tuple[int | None, str]:
        """Exit code and standard error after Ctrl-C."""
        os.kill(self.process.pid, signal.SIGINT)
        self.process.join(PATIENCE)
        return self.process.exitcode, self.err.read_text()


@contextmanager
def running(folder: Path, said: Path, *, temporary: Path, host: str = "127.0.0.1") -> Iterator[Running]:
    """The explorer, started in the folder; killed in the end if it is still there.

    Args:
        said: a folder for what it prints.
        temporary: where it makes its temporary folder.
    """
    port = free_port()
    out, err = said / f"out{port}.txt", said / f"err{port}.txt"
    command = ["app", "--host", host, "--port", str(port), "--device", "cpu"]
    process = start(_main_in, folder, temporary, command, out=out, err=err)
    try:
        wait_for(lambda: out.exists() and "\n" in out.read_text(), process)
        line = out.read_text()
        if not line.startswith("http"):
            pytest.fail(f"the explorer did not start: {err.read_text()}")
        yield Running(line.split()[0], port, process, temporary, err)
    finally:
        process.kill()
        process.join()


def _main_in(folder: Path, temporary: Path, arguments: list[str]) -> int:
    os.chdir(folder)
    tempfile.tempdir = str(temporary)
    return main(arguments)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
