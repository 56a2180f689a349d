"""DiFull: Layer-CAM's values are those of the quarter's image; methods that leak, and unsupported methods."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from benchmarks import difull
from benchmarks.harness.arguments import make_parser
from benchmarks.harness.data import load
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import choose_tasks
from holistic_cam_plugin.errors import UsageError

SIZE = 32  # of the fixture's images
IMAGES = 6


@pytest.fixture
def common(common, tmp_path):
    """Remove the broken image, which would be in most grids."""
    labels = tmp_path / "images" / "labels.csv"
    labels.write_text("".join(line for line in labels.read_text().splitlines(True) if "broken" not in line))
    return common


def explain_quarter(model, layer: str, image: torch.Tensor, label: int, quarter: int) -> np.ndarray:
    """Compute Layer-CAM of one image in its quarter of an empty grid; the other quarters have no gradient."""
    found = []
    hook = model.get_submodule(layer).register_forward_hook(lambda _, __, output: found.append(output))
    score = model(image)[0, label]
    hook.remove()
    (gradient,) = torch.autograd.grad(score, found[0])
    cam = (gradient.relu() * found[0])[0].sum(dim=0).relu().detach().numpy()
    row, column = divmod(quarter, 2)
    height, width = cam.shape
    grid = np.zeros((2 * height, 2 * width), np.float32)
    grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = cam
    return cv2.resize(grid, (2 * SIZE, 2 * SIZE))


def average_over_ties(cam: np.ndarray, region: np.ndarray) -> float:
    noise = np.random.default_rng(0).random((20, cam.size)) * 1e-9 * cam.max()
    return float(np.mean([average_precision_score(region.ravel(), cam.ravel() + own) for own in noise]))


def test_layer_cam_s_values_are_those_of_the_quarter_s_image_by_itself(common, rows):
    difull.main([*common, "--methods", "Layer-CAM"])
    found = {(row["image"], row["layer"]): row for row in rows("difull")}
    assert len(found) == IMAGES * 2
    arguments = make_parser(None).parse_args([*common, "--grid"])
    classifier = load_model(arguments)
    for task in choose_tasks(arguments):
        image, (row, column) = load(task.sample, classifier).image, divmod(task.grid.quarter, 2)
        quarter = np.zeros((2 * SIZE, 2 * SIZE), dtype=bool)
        quarter[row * SIZE :, column * SIZE :][:SIZE, :SIZE] = True
        for layer in ("0", "1"):
            own = found[task.sample.name, layer]
            cam = explain_quarter(classifier.model, layer, image, task.sample.label, task.grid.quarter)
            assert float(own["epg"]) == pytest.approx(cam[quarter].sum() / cam.sum(), abs=1e-4)
            assert float(own["ap"]) == pytest.approx(average_over_ties(cam, quarter), abs=1e-3)
            assert own["class_index"] == str(task.sample.label)


def test_methods_that_leak_into_the_other_quarters(common, rows, capsys):
    methods = ["Eigen-CAM", "Layer-CAM", "RefineCAM", "Relevance-CAM", "CAMERAS", "Holistic-CAM", "Grad-CAM+LPW"]
    difull.main([*common, "--methods", *methods, "Uniform", "Gaussian"])
    found = rows("difull")
    assert len(found) == IMAGES * (2 * len(methods) + 2)
    energy = {name: np.array([float(row["epg"]) for row in found if row["method"] == name]) for name in methods}
    for name in ("Layer-CAM", "CAMERAS", "Holistic-CAM"):  # weights of single elements: but for half a cell
        assert energy[name].min() > 0.8, name
    assert energy["Eigen-CAM"].mean() < 0.5  # no gradient: all the quarters
    for row in found:
        if row["layer"] == "-":
            assert float(row["epg"]) == pytest.approx(0.25)
            assert float(row["ap"]) == pytest.approx(0.25, abs=0.002)
    assert "| Holistic-CAM | " in capsys.readouterr().out


def test_a_torn_table_is_completed_to_the_same_bytes(common, output):
    command = [*common, "--methods", "Grad-CAM", "Uniform"]
    difull.main(command)
    path = output / "difull.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    difull.main(command)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", ["SESS", "SESS+LPW"])
def test_methods_that_cut_the_grid_are_rejected(common, output, name):
    with pytest.raises(UsageError, match=rf"DiFull cannot measure {name.replace('+', '.')}, which"):
        difull.main([*common, "--methods", "Grad-CAM", name])
    assert not output.exists()
