"""Table 1, and features shared by all experiments: resumed runs, halves, invalid arguments, methods by name."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import FinerCAM, GradCAM, HiResCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy import ndimage

from benchmarks import table1
from benchmarks.harness import methods
from benchmarks.harness.table_file import read_rows
from benchmarks.methods.normgrad import NormGrad
from holistic_cam_plugin import CAMERAS, ClassHolisticCAM, HolisticCAM
from holistic_cam_plugin.demo import make_scene
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.metrics import (
    CenteredGaussian,
    add_mask,
    average_precision,
    best_iou,
    energy_pointing_game,
    lucidity,
)
from tests.processes import wait_for

IMAGES = 6  # of the fixture
FEW = ["--methods", "Grad-CAM", "Layer-CAM+LPW", "Gaussian"]


def test_table1_has_every_value_of_every_readable_image(common, rows, capsys):
    table1.main([*common, *FEW])
    found = rows("table1")
    captured = capsys.readouterr()
    assert len(found) == IMAGES * 5
    assert [row["layer"] for row in found[:5]] == ["0", "0", "1", "1", "-"]  # shallow to deep
    assert all(row[column] for row in found for column in row if column != "class_ap")  # of scenes of digits
    assert all(0 <= float(row[column]) <= 1 for row in found for column in ("ins", "del", "epg", "epg_top100", "tied"))
    assert "| Layer-CAM+LPW | " in captured.out
    assert "skipped 1 unreadable images" in captured.err


def test_table1_measures_localisation_on_grids(common, rows):
    table1.main([*common, "--methods", "Gaussian", "--metrics", "epg", "--grid"])
    found = rows("table1")
    assert found
    assert all(float(row["epg"]) == pytest.approx(0.25) for row in found)  # symmetric: a quarter for each tile


def test_on_the_scenes_of_digits_a_uniform_map_scores_the_true_boxs_share(rows, output):
    names = ["--methods", "Uniform", "Layer-CAM", "--layers", "layer2", "layer4"]
    table1.main(
        [
            "--model",
            "digits",
            "--images",
            "digits",
            "--metrics",
            "epg",
            "--samples",
            "2",
            *names,
            "--output",
            str(output),
        ]
    )
    found = rows("table1")
    assert len(found) == 2 * 3
    boxes = [make_scene((0, number), "held-out").boxes[0] for number in range(2)]
    shares = [(x1 - x0) * (y1 - y0) / 224**2 for x0, y0, x1, y1 in boxes]
    uniform = [float(row["epg"]) for row in found if row["method"] == "Uniform"]
    assert uniform == pytest.approx(shares, rel=1e-5)
    assert all(0 <= float(row["epg"]) <= 1 for row in found)
    assert {row["class_index"] for row in found} == {str(make_scene((0, n), "held-out").labels[0]) for n in range(2)}


def test_in_scenes_of_two_digits_the_others_are_told_apart(rows, output):
    """A uniform map is right as often as the digit has pixels among those of all digits."""
    names = ["--methods", "Uniform", "Layer-CAM", "--layers", "layer4", "--metrics", "class_ap", "--digits", "2"]
    table1.main(["--model", "digits", "--images", "digits", "--samples", "2", *names, "--output", str(output)])
    found = rows("table1")
    scenes = [make_scene((0, number), "held-out", digits=2) for number in range(2)]
    shares = [scene.masks[0].sum() / np.any(scene.masks, axis=0).sum() for scene in scenes]
    uniform = [float(row["class_ap"]) for row in found if row["method"] == "Uniform"]
    assert uniform == pytest.approx(shares, abs=5e-3)
    assert all(0 < float(row["class_ap"]) <= 1 for row in found)


def test_a_torn_table_is_completed_to_the_same_bytes(common, output):
    command = [*common, *FEW, "--metrics", "ins", "del", "epg"]
    table1.main(command)
    path = output / "table1.csv"
    whole = path.read_bytes()
    random.seed(0)
    for length in random.sample(range(len(whole)), 4):
        path.write_bytes(whole[:length])
        table1.main(command)
        assert path.read_bytes() == whole, length


@pytest.mark.campaign
def test_a_killed_run_goes_on_to_the_same_bytes(common, output, tmp_path):
    own = [*FEW, "--metrics", "ins", "del"]
    undisturbed = tmp_path / "undisturbed"
    command = [sys.executable, "-m", "benchmarks.table1", *common, *own, "--workers", "2"]
    path = output / "table1.csv"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: path.exists() and path.read_bytes().count(b"\n\n") >= 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    torn = path.read_bytes()
    table1.main([*common, *own])
    table1.main([*common[:-1], str(undisturbed), *own])
    whole = (undisturbed / "table1.csv").read_bytes()
    assert path.read_bytes() == whole
    assert whole.startswith(torn[: torn.rfind(b"\n\n")])


def test_a_table_is_not_continued_with_other_arguments(common):
    command = [*common, "--methods", "Gaussian", "--metrics", "epg", "--samples"]
    table1.main([*command, "3"])
    with pytest.raises(UsageError, match="other values of chosen, samples"):
        table1.main([*command, "2"])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--methods", "Grad-CAMM"], "did you mean Grad-CAM"),
        (["--metrics", "dice"], "no metric 'dice'; known: ins"),
        (["--model", "own_model:missing"], "has no attribute"),
        (["--model", "own_model:number"], "returned a int"),
        (["--layers", "9"], "no layer '9'"),
        (["--min-confidence", "1"], "lower --min-confidence"),
    ],
)
def test_invalid_arguments(common, extra, message):
    with pytest.raises(UsageError, match=message):
        table1.main([*common, *extra])


def test_the_two_halves_are_all_the_images_and_their_grids(common, tmp_path):
    values = {}
    for half in ("tuned", "reported", None):
        own = [] if half is None else ["--half", half]
        folder = ["--output", str(tmp_path / str(half))]
        table1.main([*common, *folder, *own, "--methods", "Grad-CAM", "--metrics", "epg", "--grid"])
        values[half] = {row["image"]: row["epg"] for row in read_rows(tmp_path / str(half) / "table1.csv")}
    assert values["tuned"]
    assert values["reported"]
    assert not values["tuned"].keys() & values["reported"].keys()
    assert values["tuned"] | values["reported"] == values[None]


def test_localisation_is_that_of_the_metrics(common, rows, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(IMAGES):
        mask = np.zeros((32, 32), np.uint8)
        mask[number : number + 12, 8:30] = 255
        Image.fromarray(mask).save(masks / f"{number}.png")
    table1.main([*common, "--methods", "Layer-CAM", "--metrics", "ap", "iou", "lucidity", "epg", "--masks", str(masks)])
    import own_model

    model = own_model.net()
    for row in rows("table1"):
        number = int(row["image"].removesuffix(".png"))
        pixels = torch.from_numpy(np.asarray(Image.open(tmp_path / "images" / row["image"]))).permute(2, 0, 1) / 255
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        image, target = ((pixels - mean) / std)[None], ClassifierOutputTarget(number)
        cams = LayerCAM(model, [model.get_submodule(row["layer"])])(image, [target])
        region = np.zeros((32, 32), bool)
        region[number : number + 12, 8:30] = True
        for column, metric in {"ap": average_precision, "iou": best_iou, "lucidity": lucidity}.items():
            assert float(row[column]) == pytest.approx(float(metric(cams, [region])[0]), rel=1e-4), column
        assert float(row["epg"]) == pytest.approx(float(energy_pointing_game(cams, [(4, 4, 20, 28)])[0]), rel=1e-4)


def test_methods_give_the_maps_of_their_classes(subject):
    model, image, target = subject
    classes: dict[str, Callable[..., object]] = {
        "Grad-CAM": GradCAM,
        "Grad-CAM+LPW": add_mask(GradCAM),
        "CAMERAS": CAMERAS,
        "Holistic-CAM": HolisticCAM,
        "Holistic-CAM positive": partial(HolisticCAM, weighting="positive"),
        "Class Holistic-CAM": ClassHolisticCAM,
        "Class Holistic-CAM (7 scales)": partial(ClassHolisticCAM, sizes="paper"),
        "HiResCAM": HiResCAM,
        "NormGrad": NormGrad,
        "FinerCAM": partial(FinerCAM, base_method=HolisticCAM),
    }
    names = [*classes, "Grad-CAM+class", "Gaussian", "Uniform", "Edges", "SESS", "RefineCAM"]
    found = methods.explain_methods(model, ["0", "1"], names, image, target)
    for (layer, name), cam in found.items():
        if name in classes:
            expected = classes[name](model, [model.get_submodule(layer)])(image, [target])[0]
            np.testing.assert_allclose(cam, expected, atol=1e-5)
    assert np.array_equal(found[methods.NO_LAYER, "Gaussian"], CenteredGaussian(model)(image)[0])
    assert np.array_equal(found[methods.NO_LAYER, "Uniform"], np.ones((32, 32)))
    edges = found[methods.NO_LAYER, "Edges"]
    grey = image[0].mean(dim=0).numpy()
    across, down = (ndimage.sobel(grey.astype(np.float64), axis=axis, mode="mirror") for axis in (1, 0))
    expected = np.hypot(across, down)
    np.testing.assert_allclose(edges, (expected - expected.min()) / np.ptp(expected), atol=1e-5)
    ((record,),) = ClassHolisticCAM(model, [model[0]]).intermediates(image, [target])
    masked = found["0", "Grad-CAM"] * record.mask
    expected = (masked - masked.min()) / np.ptp(masked)
    np.testing.assert_allclose(found["0", "Grad-CAM+class"], expected, atol=1e-5)
    assert len(found) == 2 * 13 + 3
    assert not any(module._forward_hooks for module in model.modules())
