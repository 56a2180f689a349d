"""What CONTRIBUTING.md promises is there: a name, an option or a column that goes, or comes, has to be told."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest

import holistic_cam_plugin
from holistic_cam_plugin import metrics
from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch.outputs import encode_maps
from holistic_cam_plugin.batch.tables import ERRORS, MANIFEST
from holistic_cam_plugin.explain import Explanation
from holistic_cam_plugin.methods import Method

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def promised():
    section = PAGE.split("## What is stable")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(.*?)` \| (.*) \|$", section, re.MULTILINE)
    return {what: re.findall(r"`(.*?)`", names) for what, names in rows}


PROMISED = promised()


def arrays():
    scores = np.ones(1, np.float32)
    found = Explanation([Method("gradcam", {})], ["layer4"], [0], 0, scores, scores, [np.zeros((1, 1, 2, 2))], [0.0])
    return np.load(io.BytesIO(encode_maps(found, "float16"))).files


FOUND = {
    "holistic_cam_plugin": lambda: holistic_cam_plugin.__all__,
    "holistic_cam_plugin.metrics": lambda: metrics.__all__,
    "manifest.csv": lambda: MANIFEST,
    "errors.csv": lambda: ERRORS,
    "maps/NAME.npz": arrays,
}
COMMANDS = ("holistic-cam", "holistic-cam batch", "holistic-cam report", "holistic-cam app")


def told(names, found):
    left, added = sorted(set(names) - set(found)), sorted(set(found) - set(names))
    return f"promised in CONTRIBUTING.md, but gone: {left}; new, to be added there: {added}"


def test_the_page_promises_these():
    assert set(PROMISED) == {*FOUND, *COMMANDS}
    assert all(len(names) == len(set(names)) for names in PROMISED.values())


@pytest.mark.parametrize("what", FOUND)
def test_names_are_as_promised(what):
    found = FOUND[what]()
    assert set(PROMISED[what]) == set(found), told(PROMISED[what], found)


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_as_promised(command, capsys):
    with pytest.raises(SystemExit):
        main([*command.split()[1:], "--help"])
    shown = re.findall(r"^  (?:-h, )?(--[a-z-]+)(?:(?: .*?)?, (--[a-z-]+))?", capsys.readouterr().out, re.MULTILINE)
    found = {option for options in shown for option in options if option} - {"--help"}
    assert set(PROMISED[command]) == found, told(PROMISED[command], found)
