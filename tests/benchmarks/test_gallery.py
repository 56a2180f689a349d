"""Galleries of chosen images, in one file each or in one sheet."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pytorch_grad_cam import GradCAM, LayerCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks import gallery
from benchmarks.harness.arguments import make_parser
from benchmarks.harness.data import find_samples, load
from benchmarks.harness.figures import GAP
from benchmarks.harness.grids import Grid, load_grid
from benchmarks.harness.models import load_model
from holistic_cam_plugin.errors import UsageError


def test_galleries_are_drawn(common, output):
    gallery.main([*common, "--names", "2.png", "--methods", "Grad-CAM", "Holistic-CAM"])
    gallery.main([*common, "--samples", "1", "--ablation"])
    assert [path.name for path in (output / "gallery").glob("*.png")] == ["2.png.png"]
    assert len(list((output / "ablation").glob("*.png"))) == 1


def test_a_sheet_has_pytorch_grad_cam_s_overlays_layer_by_layer(common, output, tmp_path):
    path, cell = tmp_path / "new" / "sheet.png", 24
    names = ["1.png", "3.png", "4.png"]
    own = ["--methods", "Grad-CAM", "Gaussian", "Layer-CAM", "--sheet", str(path), "--cell", str(cell)]
    gallery.main([*common, "--names", *reversed(names), *own])
    assert not output.exists()
    sheet, step, line = np.asarray(Image.open(path)), cell + GAP, cell // 6
    assert sheet.shape == (2 * line + 6 * step - GAP, 3 * step - GAP, 3)

    arguments = make_parser(None).parse_args(common)
    classifier = load_model(arguments)
    samples = {sample.name: sample for sample in find_samples(arguments)}
    for block, layer in enumerate(("0", "1")):
        top = block * (line + 3 * step)
        assert sheet[top : top + line].min() < 128  # a line of text
        for number, name in enumerate(names):
            image, targets = load(samples[name], classifier).image, [ClassifierOutputTarget(samples[name].label)]
            picture = classifier.preprocessing.denormalize(image)
            module = [classifier.model.get_submodule(layer)]
            cams = [cam_class(classifier.model, module)(image, targets)[0] for cam_class in (GradCAM, LayerCAM)]
            overlays = [np.uint8(255 * picture), *(show_cam_on_image(picture, cam, use_rgb=True) for cam in cams)]
            for column, overlay in enumerate(overlays):
                y, x = top + line + number * step, column * step
                small = Image.fromarray(overlay).resize((cell, cell), Image.Resampling.LANCZOS)
                drawn = sheet[y : y + cell, x : x + cell]
                np.testing.assert_allclose(drawn.astype(int), np.asarray(small).astype(int), atol=1)


def test_a_sheet_in_jpeg(common, tmp_path):
    path = tmp_path / "sheet.jpg"
    gallery.main([*common, "--samples", "1", "--ablation", "--sheet", str(path)])
    with Image.open(path) as sheet:
        assert (sheet.format, sheet.size) == ("JPEG", (5 * (96 + GAP) - GAP, 2 * 16 + 2 * (96 + GAP) - GAP))


def test_a_grid_is_explained_for_two_of_its_classes(common, output, tmp_path):
    names = ["1.png", "3.png", "4.png", "0.png"]
    path = tmp_path / "sheet.png"
    own = ["--names", *names, "--four", *names, "--methods", "Grad-CAM", "--sheet", str(path), "--cell", "64"]
    gallery.main([*common, *own])
    sheet, step, line = np.asarray(Image.open(path)), 64 + GAP, 64 // 6
    assert sheet.shape == (2 * line + 12 * step - GAP, 2 * step - GAP, 3)
    arguments = make_parser(None).parse_args(common)
    classifier = load_model(arguments)
    samples = {sample.name: sample for sample in find_samples(arguments)}
    grid = load_grid(Grid(tuple(samples[name] for name in names), 0), classifier).image
    for row, name in ((4, "1.png"), (5, "3.png")):
        target = [ClassifierOutputTarget(samples[name].label)]
        cam = GradCAM(classifier.model, [classifier.model.get_submodule("0")])(grid, target)[0]
        overlay = show_cam_on_image(classifier.preprocessing.denormalize(grid), cam, use_rgb=True)
        y = line + row * step
        np.testing.assert_allclose(sheet[y : y + 64, step:].astype(int), overlay.astype(int), atol=1)
    gallery.main([*common, "--names", *names, "--four", *names, "--methods", "Grad-CAM"])
    assert {"grid for 1.png.png", "grid for 3.png.png"} < {path.name for path in (output / "gallery").glob("*.png")}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--names", "0.png", "--four", "0.png", "1.png", "3.png", "4.png"], "--four 1.png: 0 of the chosen images"),
        (["--sheet", "a.txt"], "a.txt must end in one of .jpg"),
        (["--cell", "23"], "--cell 23 is too small"),
        (["--names", "zebra"], "no image's name contains any of zebra"),
    ],
)
def test_invalid_arguments(common, extra, message):
    with pytest.raises(UsageError, match=message):
        gallery.main([*common, *extra])
