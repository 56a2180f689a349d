"""Every experiment, on a model that is not torchvision's; a killed run ends with an undisturbed one's table."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch.nn import functional as F

from benchmarks import gallery, gate, gradient_variance, parameters, sanity, scales, table1, table2, weighting
from benchmarks.harness import methods
from benchmarks.harness.table_file import read_rows
from benchmarks.stages import pyramid_stages
from holistic_cam_plugin import CAMERAS, HolisticCAM, kernel_size
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.metrics import CenteredGaussian, low_pass_wrapped

ROOT = Path(__file__).parents[2]

MODEL = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    stages = [(3, 5, 4), (5, 7, 2)]
    layers = [nn.Sequential(nn.Conv2d(i, o, 5, stride=s, padding=2), nn.ReLU()) for i, o, s in stages]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 6)).eval()

def number():
    return 3
"""
SIZE = 32
IMAGES = 6


@pytest.fixture
def common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments that name a model, images with a class and a box each, an unreadable one, and an output folder."""
    (tmp_path / "own_model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as in the tests' own process
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    lines = ["file,class_index,x0,y0,x1,y1"]
    for number in range(IMAGES):
        coarse = Image.fromarray(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8))
        coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(images / f"{number}.png")
        lines.append(f"{number}.png,{number},4,4,20,28")
    (images / "broken.png").write_bytes(b"no image")
    (images / "labels.csv").write_text("\n".join([*lines, "broken.png,0,1,1,9,9"]) + "\n")
    output = str(tmp_path / "output")
    model = ["--model", "own_model:net", "--size", str(SIZE), "--layers", "1", "0", "--device", "cpu"]
    return [*model, "--images", str(images), "--output", output]


def table(common: list[str], name: str) -> Path:
    return Path(common[-1]) / f"{name}.csv"


FEW = ["--methods", "Grad-CAM", "Layer-CAM+LPW", "Gaussian"]


def test_table1_has_every_value_of_every_readable_image(common: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    table1.main([*common, *FEW])
    rows = read_rows(table(common, "table1"))
    captured = capsys.readouterr()
    assert len(rows) == IMAGES * 5
    assert [row["layer"] for row in rows[:5]] == ["0", "0", "1", "1", "-"]  # shallow to deep
    assert all(row[column] for row in rows for column in row)
    assert all(0 <= float(row[column]) <= 1 for row in rows for column in ("ins", "del", "epg", "epg_top100", "tied"))
    assert "| Layer-CAM+LPW | " in captured.out
    assert "skipped 1 unreadable images" in captured.err


def test_table1_measures_localisation_on_grids(common: list[str]) -> None:
    table1.main([*common, "--methods", "Gaussian", "--metrics", "epg", "--grid"])
    rows = read_rows(table(common, "table1"))
    assert rows
    assert all(float(row["epg"]) == pytest.approx(0.25) for row in rows)  # symmetric: a quarter for each tile


def test_a_torn_table_is_completed_to_the_same_bytes(common: list[str]) -> None:
    command = [*common, *FEW, "--metrics", "ins", "del", "epg"]
    table1.main(command)
    path = table(common, "table1")
    whole = path.read_bytes()
    random.seed(0)
    for length in random.sample(range(len(whole)), 4):
        path.write_bytes(whole[:length])
        table1.main(command)
        assert path.read_bytes() == whole, length


def test_a_killed_run_goes_on_to_the_same_bytes(common: list[str], tmp_path: Path) -> None:
    own = [*FEW, "--metrics", "ins", "del"]
    undisturbed = tmp_path / "undisturbed"
    command = [sys.executable, "-m", "benchmarks.table1", *common, *own, "--workers", "2"]
    path = table(common, "table1")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (path.exists() and path.read_bytes().count(b"\n\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    torn = path.read_bytes()
    table1.main([*common, *own])
    table1.main([*common[:-1], str(undisturbed), *own])
    whole = (undisturbed / "table1.csv").read_bytes()
    assert path.read_bytes() == whole
    assert whole.startswith(torn[: torn.rfind(b"\n\n")])


def test_a_table_is_not_continued_with_other_arguments(common: list[str]) -> None:
    command = [*common, "--methods", "Gaussian", "--metrics", "epg", "--samples"]
    table1.main([*command, "3"])
    with pytest.raises(UsageError, match="other values of chosen, samples"):
        table1.main([*command, "2"])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--methods", "Grad-CAMM"], "did you mean Grad-CAM"),
        (["--metrics", "iou"], "no metric 'iou'; known: ins"),
        (["--model", "own_model:missing"], "has no attribute"),
        (["--model", "own_model:number"], "returned a int"),
        (["--layers", "9"], "no layer '9'"),
        (["--min-confidence", "1"], "lower --min-confidence"),
    ],
)
def test_arguments_that_can_not_work(common: list[str], extra: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        table1.main([*common, *extra])


def test_table2s_variants_are_the_classes_settings(common: list[str]) -> None:
    import own_model

    model, image, target = own_model.net(), torch.randn(1, 3, SIZE, SIZE), ClassifierOutputTarget(2)
    found = table2.variants(model, ["0", "1"], image, target)
    for name, (weights, fsd) in table2.VARIANTS.items():
        for layer in ("0", "1"):
            cam = HolisticCAM(model, [model.get_submodule(layer)], weighting=weights, fsd=fsd)(image, [target])[0]
            np.testing.assert_allclose(found[layer, name], cam, atol=1e-5)
    table2.main([*common, "--metrics", "epg", "--samples", "2"])
    assert len(read_rows(table(common, "table2"))) == 2 * 2 * 4


def test_the_two_halves_are_all_the_images_and_their_grids(common: list[str], tmp_path: Path) -> None:
    values = {}
    for half in ("tuned", "reported", None):
        own = [] if half is None else ["--half", half]
        output = ["--output", str(tmp_path / str(half))]
        table1.main([*common, *output, *own, "--methods", "Grad-CAM", "--metrics", "epg", "--grid"])
        values[half] = {row["image"]: row["epg"] for row in read_rows(tmp_path / str(half) / "table1.csv")}
    assert values["tuned"]
    assert values["reported"]
    assert not values["tuned"].keys() & values["reported"].keys()
    assert values["tuned"] | values["reported"] == values[None]


def test_the_gates_candidates(common: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    import own_model

    model, image, target = own_model.net(), torch.randn(1, 3, SIZE, SIZE), ClassifierOutputTarget(2)
    found = gate.candidates(model, ["0", "1"], list(gate.CANDIDATES), image, target)
    papers = {"blur_size": None, "ksize": kernel_size(SIZE, 91), "mask_power": 1}
    settings: dict[str, dict[str, object]] = {
        gate.CENTRE: {"weighting": "gated", "mask_power": 3},
        gate.CHOSEN: {"weighting": "gated"},
        "pge, paper's mask": {},
        "gradient, paper's mask": {"weighting": "gradient"},
        "gated, paper's mask": {"weighting": "gated", **papers},
        "pge": {"ksize": kernel_size(SIZE, 31), "mask_power": 3},
        "power 1": {"weighting": "gated", "mask_power": 1},
        "box 61": {"weighting": "gated", "mask_power": 3, "ksize": kernel_size(SIZE, 61)},
        "blur 27": {"weighting": "gated", "mask_power": 3, "blur_size": kernel_size(SIZE, 27)},
    }
    for name, own in settings.items():
        for layer in ("0", "1"):
            cam = HolisticCAM(model, [model.get_submodule(layer)], **own)(image, [target])[0]
            np.testing.assert_allclose(found[layer, name], cam, atol=1e-4, err_msg=name)
    maps = [found["0", name].tobytes() for name in gate.CANDIDATES]
    assert len(set(maps)) == len(maps)  # none is another one under a new name
    some = [gate.CENTRE, gate.CHOSEN, "cube"]
    gate.main([*common, "--metrics", "epg", "--samples", "4", "--half", "tuned", "--candidates", *some])
    assert len(read_rows(table(common, "gate"))) == 2 * 2 * len(some)
    assert f"{gate.CENTRE} minus the other" in capsys.readouterr().out


def test_methods_give_the_maps_of_their_classes(common: list[str]) -> None:
    import own_model

    model, image, target = own_model.net(), torch.randn(1, 3, SIZE, SIZE), ClassifierOutputTarget(2)
    classes: dict[str, Callable[..., object]] = {
        "Grad-CAM": GradCAM,
        "Grad-CAM+LPW": low_pass_wrapped(GradCAM),
        "CAMERAS": CAMERAS,
        "Holistic-CAM": HolisticCAM,
        "Holistic-CAM gated": partial(HolisticCAM, weighting="gated"),
    }
    found = methods.explained(model, ["0", "1"], [*classes, "Gaussian", "SESS", "RefineCAM"], image, target)
    for (layer, name), cam in found.items():
        if name in classes:
            expected = classes[name](model, [model.get_submodule(layer)])(image, [target])[0]
            np.testing.assert_allclose(cam, expected, atol=1e-5)
    assert np.array_equal(found[methods.NO_LAYER, "Gaussian"], CenteredGaussian(model)(image)[0])
    assert len(found) == 2 * 7 + 1
    assert not any(module._forward_hooks for module in model.modules())


def test_sanity_finds_a_control_that_ignores_the_model(common: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    sanity.main([*common, "--methods", "Grad-CAM", "Gaussian", "--samples", "2"])
    rows = read_rows(table(common, "sanity"))
    assert len(rows) == 2 * 2 * 3 * 3  # images, kinds, modules with parameters, maps
    blind = [row for row in rows if row["method"] == "Gaussian"]
    assert {(row["ssim"], row["spearman"]) for row in blind} == {("1", "1")}
    assert min(float(row["ssim"]) for row in rows if row["method"] == "Grad-CAM") < 0.9
    assert "| method | 4 | 1.0 | 0.0 |" in capsys.readouterr().out
    assert len(list((Path(common[-1]) / "strips").glob("*.png"))) == 2 * 2 * 2


def test_gradient_variance_of_known_gradients(common: list[str]) -> None:
    flat, wave = torch.full((4, 4), 3.0), torch.tensor([1.0, -1.0]).repeat(4, 2)
    raw, relative = gradient_variance.channel_variances(torch.stack([flat, wave, 0 * flat, flat + wave]))
    assert raw.tolist() == pytest.approx([0, 1, 1])
    assert relative.tolist() == pytest.approx([0, 1, 0.1])
    gradient_variance.main([*common, "--samples", "2"])
    assert len(read_rows(table(common, "gradient_variance"))) == 2 * 2
    assert (Path(common[-1]) / "gradient_variance.png").stat().st_size > 0


def test_scales_and_weightings_are_drawn(common: list[str]) -> None:
    import own_model

    scales.main([*common, "--samples", "1"])
    weighting.main([*common, "--samples", "1"])
    gallery.main([*common, "--names", "2.png", "--methods", "Grad-CAM", "Holistic-CAM"])
    gallery.main([*common, "--samples", "1", "--ablation"])
    rows = read_rows(table(common, "scales"))
    assert [row["width"] for row in rows] == ["32", "174", "317", "460", "603", "746", "889"]
    for folder in ("scales", "weighting", "gallery", "ablation"):
        assert len(list((Path(common[-1]) / folder).glob("*.png"))) == 1
    model, image = own_model.net(), torch.randn(1, 3, SIZE, SIZE)
    stages = pyramid_stages(model, ["1"], image, ClassifierOutputTarget(2), num_scales=1)
    cam = (model[:2](image) * model[4].weight[2][:, None, None]).sum(dim=1, keepdim=True)  # Grad-CAM's, by hand
    expected = F.interpolate(cam, size=(SIZE, SIZE), mode="bilinear")[0, 0].relu().detach()
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(weighting.weightings(stages, "1")["channel-wise"], expected, atol=1e-5)


def test_parameters_vary_one_thing_at_a_time(common: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "SCALES", (1, 7))
    parameters.main([*common, "--samples", "1", "--metrics", "ins", "del", "epg"])
    rows = list(csv.DictReader(table(common, "parameters").open()))
    found = {(row["layer"], row["method"]): row["over_all"] for row in rows}
    assert len(found) == 2 * (16 + 2 + 5)
    for layer in ("0", "1"):
        defaults = {found[layer, name] for name in ("blur_size=51 ksize=91", "scales=7", "eps=1e-05")}
        assert len(defaults) == 1
    assert (Path(common[-1]) / "parameters.png").stat().st_size > 0
