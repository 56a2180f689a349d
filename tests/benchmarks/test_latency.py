"""The latency benchmark: procedures, table and memory."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import latency
from benchmarks.harness.procedures import BFLOAT16, PROCEDURES, Setting
from benchmarks.latency import main, measure_peak_memory, time_round
from benchmarks.latency_report import COLUMNS, HOLISTIC
from holistic_cam_plugin import CAMERAS
from holistic_cam_plugin.errors import UsageError

SIZES = [64, 80]


@pytest.fixture
def setting(net, images):
    return Setting(net, "layer2", images, SIZES, [4, 1, 0, 2])


def test_the_transcription_of_cameras_is_ours(setting):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    expected = CAMERAS(setting.model, [setting.module], sizes=SIZES)(setting.images, [ClassifierOutputTarget(4)] * 2)
    for found, ours in zip(PROCEDURES["CAMERAS procedure"](setting), expected, strict=True):
        low, high = found.min(), found.max()
        np.testing.assert_allclose(((found - low) / (high - low))[0].numpy(), ours, atol=1e-4)


def test_procedures_leave_no_gradients_and_no_hooks(setting):
    for procedure in PROCEDURES.values():
        procedure(setting)
        assert all(parameter.grad is None for parameter in setting.model.parameters())
        assert not setting.module._forward_hooks


def test_a_round_times_every_procedure_in_every_layer_and_the_floors_once(setting):
    settings = [setting, setting._replace(layer="layer1")]
    rows = time_round(settings, ["floor, NCHW", HOLISTIC, "Grad-CAM"], ["float32", "bfloat16"])
    found = [(row["layer"], row["precision"], row["procedure"], row["measure"]) for row in rows]
    holistic = [(HOLISTIC, "seconds"), (HOLISTIC, "fusion seconds")]
    expected = [("-", "float32", "floor, NCHW", "seconds")]
    expected += [("layer2", "float32", *pair) for pair in [*holistic, ("Grad-CAM", "seconds")]]
    expected += [("layer1", "float32", *pair) for pair in [*holistic, ("Grad-CAM", "seconds")]]
    expected += [("-", "bfloat16", "floor, NCHW", "seconds")]
    expected += [(layer, "bfloat16", *pair) for layer in ("layer2", "layer1") for pair in holistic]
    assert found == expected
    assert set(BFLOAT16) <= set(PROCEDURES)
    seconds = {row["measure"]: row["value"] for row in rows[1:3]}
    assert 0 < seconds["fusion seconds"] < seconds["seconds"]


ALLOCATING = """
import numpy as np, torch
from types import SimpleNamespace
from benchmarks.latency import measure_peak_memory
from benchmarks.harness.procedures import PROCEDURES

def allocate(_):
    for _ in range(3):
        np.ones(100_000_000, np.uint8)

PROCEDURES["allocate"] = allocate
print(measure_peak_memory(SimpleNamespace(images=torch.zeros(1)), "allocate")["bytes"])
"""


@pytest.mark.campaign
def test_peak_memory_is_what_the_procedure_takes_at_once():
    assert int(run_in_fresh_process(ALLOCATING)) == pytest.approx(100e6, rel=0.1)


def run_in_fresh_process(code: str) -> str:
    """Return what the code prints. In this process, memory freed by earlier tests would be reused and not counted."""
    root = Path(__file__).parents[2]
    return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout


@pytest.mark.campaign
def test_the_command_writes_prints_and_adds_rounds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(latency, "SIZES", SIZES)
    monkeypatch.setattr(latency, "SIDE", 64)
    options = [
        "--model",
        "resnet18",
        "--layers",
        "layer3",
        "--batch-sizes",
        "1",
        "2",
        "--rounds",
        "1",
        "--device",
        "cpu",
    ]
    options += ["--procedures", *BFLOAT16, "--no-memory", "--output", str(tmp_path)]
    main(options)
    main(options)
    with (tmp_path / "latency.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    for batch in ("1", "2"):
        own = [r for r in rows if r["batch"] == batch and r["procedure"] == HOLISTIC and r["measure"] == "seconds"]
        assert len({row["round"] for row in own}) == 2
    printed = capsys.readouterr().out
    assert "**resnet18, batch 2**" in printed
    assert "| Holistic-CAM / floor |" in printed


@pytest.mark.campaign
def test_one_procedure_of_a_fresh_process(tmp_path):
    options = ["--model", "resnet18", "--layers", "layer3", "--device", "cpu", "--memory", HOLISTIC]
    options += ["--output", str(tmp_path)]
    code = f"from benchmarks import latency; latency.SIZES = {SIZES}; latency.main({options})"
    assert json.loads(run_in_fresh_process(code))["bytes"] > 1e6


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--procedures", "Grad"], "no procedure 'Grad'; known: floor, NCHW;"),
        (["--model", "resnet18"], "resnet18 needs --layers; defaults exist for resnet50, vgg16, squeezenet1_0, "),
    ],
)
def test_what_the_user_can_correct(tmp_path, options, match):
    with pytest.raises(UsageError, match=match):
        main([*options, "--output", str(tmp_path), "--device", "cpu"])


def test_peak_memory_of_a_cpu_needs_linux(setting, monkeypatch, tmp_path):
    monkeypatch.setattr(latency, "STATUS", tmp_path / "none")
    with pytest.raises(UsageError, match="which this system does not have: use --no-memory"):
        measure_peak_memory(setting, HOLISTIC)


def test_bfloat16_agrees(setting):
    (row,) = latency._correlate([setting], ["bfloat16"])
    assert row["value"] > 0.9
    assert torch.is_grad_enabled()
