"""What came of a command: in this process, which is quick, or in one of its own with a bound on its memory."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from holistic_cam_plugin.__main__ import main
from tests.batch.batch_tools import QUICK
from tests.processes import PATIENCE, context

# What a user is told about a map; anything else on the terminal is noise.
WELCOME = (
    "a saliency map is constant",
    "the mask is zero everywhere",
    "nothing in the mask layer speaks for the class",
    "the mask of the class is zero everywhere",
)

_BAR = re.compile(r"(images|checking|pictures): +\d+(%\||image)|holistic-cam: .* \(\d+ of \d+\) \.\.\.$")


class Outcome(NamedTuple):
    """An exit code, what was printed, and the warnings that are none of a user's business."""

    code: int | None  # None: a traceback
    out: str
    err: str
    noise: tuple[str, ...] = ()

    def __str__(self) -> str:
        last = (self.err.strip().splitlines() or ["nothing on stderr"])[-1]
        return f"exit {self.code}: {last[:300]}" + (f"; noise: {self.noise}" if self.noise else "")


class Hang(BaseException):
    """Not an Exception: nothing on the way takes it for an error of its own."""


def run(*arguments: object, seconds: int = PATIENCE) -> Outcome:
    """The command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: int | None = None
    with (
        _deadline(seconds),
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # of what other tests of this process left to the collector
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except Hang:
            err.write(f"Traceback: still at work after {seconds} s\n")
        except BaseException:
            err.write(traceback.format_exc())
    noise = tuple(
        f"{w.category.__name__}: {str(w.message)[:120]}" for w in caught if not str(w.message).startswith(WELCOME)
    )
    return Outcome(code, out.getvalue(), err.getvalue(), noise)


def batch(source: Path, output: Path, *more: object, seconds: int = PATIENCE) -> Outcome:
    """A job of the bundled model at one small scale, in this process."""
    return run("batch", source, "--output", output, *QUICK, "--workers", "0", *more, seconds=seconds)


def run_bounded(
    *arguments: object, more_mib: int = 1536, seconds: int = PATIENCE, environment: Mapping[str, str] | None = None
) -> Outcome:
    """The command line in a process of its own, which may take this much memory on top of what it begins with."""
    texts = [Path(tempfile.mkstemp(prefix="hostile")[1]) for _ in range(2)]
    process = context.Process(target=_bounded, args=([str(a) for a in arguments], texts, more_mib, environment or {}))
    process.start()
    process.join(seconds)
    late = process.is_alive()
    if late:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    out, err = (path.read_bytes().decode(errors="backslashreplace") for path in texts)
    for path in texts:
        path.unlink()
    if late:
        return Outcome(None, out, f"{err}Traceback: still at work after {seconds} s\n")
    return Outcome(process.exitcode, out, err)


def _bounded(arguments: Sequence[str], texts: Sequence[Path], more_mib: int, environment: Mapping[str, str]) -> None:
    os.setsid()
    for number, path in enumerate(texts, start=1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    # As in a process that a user starts: the terminal is a file here.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # of the reading processes: the quickest
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = now + more_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def assert_told(outcome: Outcome, program: str, codes: Sequence[int] = (2,)) -> None:
    """A documented exit code, and one line of the program's that says why."""
    assert outcome.code in codes, outcome
    assert "Traceback" not in outcome.err, outcome
    # In a file the bar over the images is a line of its own, and so is each image.
    lines = [line for line in outcome.err.splitlines() if line and not _BAR.match(line)]
    assert len(lines) == 1, outcome
    assert lines[0].startswith(f"{program}: "), outcome
    assert not outcome.noise, outcome


def assert_explained(outcome: Outcome, codes: Sequence[int] = (0,)) -> None:
    """A documented exit code, and nothing on the terminal that is none of a user's business."""
    assert outcome.code in codes, outcome
    assert "Traceback" not in outcome.err, outcome
    assert not outcome.noise, outcome


def snapshot(folder: Path, without: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything in a folder but in one of its own: kind, size and content by name, links not followed."""
    skipped, found = os.fsencode(without), {}
    for where, folders, files in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if os.path.join(where, name) != skipped]
        for name in (*folders, *files):
            path = os.path.join(where, name)
            status = os.lstat(path)
            small = os.path.isfile(path) and not os.path.islink(path) and status.st_size < 2**20
            content = Path(os.fsdecode(path)).read_bytes() if small and os.access(path, os.R_OK) else b""
            found[path] = (status.st_mode, 0 if os.path.isdir(path) else status.st_size, content)
    return found
