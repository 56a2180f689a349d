"""The explorer as a person starts it: a process of its own, on a free port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["Running", "free_port", "running"]

ROOT = Path(__file__).parents[2]

# To end after Ctrl-C, in seconds: generous, for a machine that other programs use.
PATIENCE = 120


class Running(NamedTuple):
    url: str
    port: int
    process: subprocess.Popen
    temporary: Path  # where its temporary folder is

    def interrupted(self) -> tuple[int, str]:
        """Exit code and standard error after Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err


@contextmanager
def running(folder: Path, *arguments: str, temporary: Path) -> Iterator[Running]:
    """The explorer, started in the folder; killed in the end if it is still there."""
    port = free_port()
    command = [sys.executable, "-m", "holistic_cam_plugin", "app", "--port", str(port), "--device", "cpu", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        if not line.startswith("http"):
            pytest.fail(f"the explorer did not start: {process.communicate(timeout=PATIENCE)[1]}")
        yield Running(line.split()[0], port, process, temporary)
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
