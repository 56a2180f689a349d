"""The guide of batch jobs: its commands are valid, its example runs, and its files exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np

from holistic_cam_plugin.__main__ import build_parser, main
from holistic_cam_plugin.models import images
from tests.batch.batch_tools import QUICK, make_pictures

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "batch.md"
TEXT = GUIDE.read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_every_command_is_understood():
    lines = [line for block in blocks("bash") for line in block.splitlines() if " batch " in line]
    assert len(lines) == 7
    for line in lines:
        line = line.replace("$SLURM_ARRAY_TASK_ID", "3")
        command = ["batch", *shlex.split(line.partition(" batch ")[2], comments=True)]
        assert str(build_parser().parse_args(command).output).startswith("maps")


def test_the_offline_command_makes_the_files_and_the_example_reads_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = make_pictures(tmp_path / "photos", 2)
    [command] = [line for block in blocks("bash") for line in block.splitlines() if "digits" in line]
    assert main([*shlex.split(command, comments=True)[1:], *QUICK, "--workers", "0"]) == 0
    assert main(["report", "maps"]) == 0
    assert "index.html" in capsys.readouterr().out
    for file in re.findall(r"^\| `(.*?)`", TEXT, flags=re.MULTILINE):
        for name in names:
            assert (tmp_path / "maps" / file.replace("NAME", name)).is_file(), file
    [example] = blocks("python")
    left: dict = {}
    exec(example, left)
    assert left["saliency_map"].shape == (224, 224)
    assert left["saliency_map"].dtype == np.float16
    assert len(left["table"]) == 2


def test_the_formats_are_those_that_are_read():
    named = re.search(r"^(.*) files are read", TEXT, flags=re.MULTILINE).group(1)
    assert tuple(re.split(", | and ", named)) == images.FORMATS
