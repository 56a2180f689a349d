"""Programs in processes of their own, which start within milliseconds: they are forked from one with all imports."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

__all__ = ["PATIENCE", "context", "start", "wait_for"]

# In seconds, for waiting that would not end if the program hung. Machines may be slow: no test measures time.
PATIENCE = 600

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        "holistic_cam_plugin.cli.figures",
        "holistic_cam_plugin.cli.batch_job",
        "holistic_cam_plugin.__main__",
        "tests.batch.batch_tools",
        "tests.processes",
    ]
)


def start(function: Callable[..., int], *arguments: object, out: Path | str, err: Path | str = "") -> BaseProcess:
    """Call the function in a session of its own; its result is the exit code.

    Args:
        out: the file for standard output.
        err: the file for standard error; by default the same.
    """
    process = context.Process(target=_call, args=(function, arguments, str(out), str(err)))
    process.start()
    return process


def wait_for(condition: Callable[[], object], process: BaseProcess | subprocess.Popen) -> None:
    """Wait until the condition holds or the process has ended."""
    lives = process.is_alive if isinstance(process, BaseProcess) else lambda: process.poll() is None
    end = time.monotonic() + PATIENCE
    while not condition() and lives():
        assert time.monotonic() < end, "the process hangs"
        time.sleep(0.01)


def _call(function: Callable[..., int], arguments: tuple[object, ...], out: str, err: str) -> None:
    os.setsid()
    for number, path in ((1, out), (2, err or out)):  # also for what PyTorch's C++ prints
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    try:
        code = function(*arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    os._exit(code)
