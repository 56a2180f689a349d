"""Signals as exceptions: the first one ends the run, and no later one spoils its end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from holistic_cam_plugin.cli.stopping import raise_signals
from holistic_cam_plugin.errors import RESUME, Stopped
from tests.batch.batch_tools import QUICK, make_pictures

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_is_raised_and_the_later_ones_are_ignored(handlers, number):
    with pytest.raises(Stopped, match=f"^stopped by {number.name}$") as stop, raise_signals():
        signal.raise_signal(number)
    assert stop.value.number == number
    for later in NUMBERS:
        signal.raise_signal(later)


def test_without_a_signal_all_is_as_before(handlers):
    with raise_signals():
        assert signal.getsignal(signal.SIGINT) != handlers[signal.SIGINT]
    with pytest.raises(ValueError, match="of the body"), raise_signals():
        raise ValueError("of the body")
    assert {number: signal.getsignal(number) for number in NUMBERS} == handlers


@pytest.mark.campaign
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process on Windows")
def test_impatient_ctrl_c_gets_one_line(tmp_path):
    make_pictures(tmp_path / "in", 30)
    command = ("batch", str(tmp_path / "in"), "--output", str(tmp_path / "output"), *QUICK)
    process = subprocess.Popen(
        [sys.executable, "-m", "holistic_cam_plugin", *command], stderr=subprocess.PIPE, text=True
    )
    try:
        while not (tmp_path / "output" / "maps").exists():
            assert process.poll() is None
            time.sleep(0.01)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.returncode == 130
    said = process.stderr.read()
    assert f"stopped by SIGINT: {RESUME}" in said
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
