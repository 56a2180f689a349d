"""The command line answers before it imports what takes seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

import holistic_cam_plugin

HEAVY = ("cv2", "matplotlib", "numpy", "PIL", "pytorch_grad_cam", "sklearn", "torch", "torchvision")
RUN = f"""
import sys
from holistic_cam_plugin.__main__ import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print("imported", *(set({HEAVY}) & set(sys.modules)))
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("--help", 0, "--sizes PX"),
        ("batch --help", 0, "--overlays"),
        ("report --help", 0, "--masks"),
        ("app --help", 0, "--port"),
        ("--version", 0, holistic_cam_plugin.__version__),
        ("--no-such-option", 2, "unrecognized arguments"),
        ("photo.jpg --methods gradcm", 2, "did you mean gradcam"),
        ("missing.jpg", 2, "missing.jpg does not exist"),
        ("batch missing --output maps", 2, "missing does not exist"),
        ("batch . --output maps --labels none.txt", 2, "none.txt does not exist"),
        ("report missing", 2, "is not an output folder"),
        ("bach photos", 2, "bach is neither a command nor a file; did you mean batch?"),
    ],
)
def test_nothing_heavy_is_imported(tmp_path, command, code, words):
    done = subprocess.run(
        [sys.executable, "-c", RUN, *command.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "imported"


def test_the_module_can_be_run(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "holistic_cam_plugin", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: holistic-cam")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "holistic_cam_plugin" in imported
    assert not imported & set(HEAVY)
