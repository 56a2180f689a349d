from __future__ import annotations

import configparser
import re
from pathlib import Path

import holistic_cam_plugin


def test_the_opencv_wheel_is_the_one_that_grad_cam_declares():
    """Two OpenCV wheels overwrite one another's cv2 folder."""
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg")
    requirements = re.findall(r"^([\w-]+)", config["options"]["install_requires"], re.MULTILINE)
    assert "grad-cam" in requirements
    assert [name for name in requirements if name.startswith("opencv")] == ["opencv-python-headless"]


def test_every_public_name_exists_and_is_documented():
    for name in holistic_cam_plugin.__all__:
        assert getattr(holistic_cam_plugin, name).__doc__
