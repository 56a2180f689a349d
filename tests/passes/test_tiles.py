from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.passes.tiles import common_cell, cover, cut, stitch


@pytest.mark.parametrize("cell", [1, 8, 16, 32])
@pytest.mark.parametrize("size", [(224, 224), (230, 366), (366, 366), (448, 510), (1081, 1621)])
def test_windows_cover_every_pixel_on_whole_cells(size, cell):
    covered = cover(size, (224, 224), cell)
    assert all(abs(new - old) <= cell / 2 or new == 224 for new, old in zip(covered.size, size, strict=True))
    seen = torch.zeros(covered.size)
    for y, x in covered.origins:
        assert y % cell == x % cell == 0
        assert 0 <= y <= covered.size[0] - 224
        assert 0 <= x <= covered.size[1] - 224
        seen[y : y + 224, x : x + 224] += 1
    assert seen.min() >= 1


@pytest.mark.parametrize("size", [366, 448, 795, 1081])
def test_neighbours_overlap_and_no_window_is_superfluous(size):
    covered = cover((size, 224), (224, 224), 1)
    starts = [y for y, _ in covered.origins]
    assert max(b - a for a, b in pairwise(starts)) <= 224 - 224 // 8
    assert (len(starts) - 1) * (224 - 28) + 224 < size + 224 - 28


def test_an_image_smaller_than_a_window_is_refused():
    with pytest.raises(ValueError, match=r"cannot cover 100x300 px with windows of the original 224x224 px"):
        cover((100, 300), (224, 224), 1)


@pytest.mark.parametrize(
    ("grids", "cell"),
    [([(14, 14)], 16), ([(28, 28), (7, 7)], 32), ([(14, 7)], 32), ([(27, 27)], 1), ([(2, 2)], 1), ([(16, 16)], 14)],
)
def test_the_common_stride_of_the_layers(grids, cell):
    assert common_cell(grids, (224, 224)) == cell


@pytest.mark.parametrize("size", [(64, 64), (96, 130), (203, 64)])
def test_windows_of_a_map_are_stitched_to_the_map(size):
    covered = cover(size, (64, 64), 8)
    image = torch.rand(1, 2, *covered.size)
    maps = F.avg_pool2d(cut(image, covered), 8)
    torch.testing.assert_close(stitch(maps, covered), F.avg_pool2d(image, 8))


def test_overlaps_are_averaged():
    covered = cover((96, 64), (64, 64), 8)
    assert covered.origins == [(0, 0), (32, 0)]
    maps = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    assert stitch(maps, covered)[0, 0, :, 0].tolist() == [1] * 4 + [2] * 4 + [3] * 4


class Pointwise(nn.Module):
    """Sees each patch by itself and sums: windows and the whole image give the same gradients."""

    def __init__(self, fixed: int | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fixed = fixed
        self.features = nn.Conv2d(3, 6, 8, stride=8)
        self.act = nn.ReLU()
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.fixed is not None and x.shape[-2:] != (self.fixed, self.fixed):
            raise RuntimeError(f"expected {self.fixed} px")
        return self.head(self.act(self.features(x)).square()).sum(dim=(2, 3))


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("sizes", [[64, 96, 128], [96, 64]])
def test_a_model_of_fixed_size_gives_the_maps_of_its_twin_that_takes_any(make_images, sizes, batch_size):
    images = make_images(2)
    targets = [ClassifierOutputTarget(1), ClassifierOutputTarget(3)]
    fixed, free = Pointwise(64).eval(), Pointwise(None).eval()
    options = {"sizes": sizes, "batch_size": batch_size}
    expected = HolisticCAM(free, [free.act], **options)(images, targets)
    maps = HolisticCAM(fixed, [fixed.act], tiles=True, **options)(images, targets)
    np.testing.assert_allclose(maps, expected, atol=1e-4)


def test_several_targets_and_layers_share_the_windows(make_images):
    images, model = make_images(2), Pointwise(64).eval()
    targets = [[ClassifierOutputTarget(1), ClassifierOutputTarget(2)], [ClassifierOutputTarget(0)]]
    layers = [model.act, model.features]
    together = HolisticCAM(model, layers, tiles=True, sizes=[64, 96], batch_size=2)(images, targets)
    flat = [(images[:1], targets[0][0]), (images[:1], targets[0][1]), (images[1:], targets[1][0])]
    for own, (image, target) in zip(together, flat, strict=True):
        expected = HolisticCAM(model, layers, tiles=True, sizes=[64, 96])(image, [target])[0]
        np.testing.assert_allclose(own, expected, atol=1e-5)


def test_the_class_is_decided_once_on_the_native_image(make_images):
    images, model = make_images(1), Pointwise(64).eval()
    category = int(model(images).argmax())
    maps = HolisticCAM(model, [model.act], tiles=True, sizes=[96, 128])(images)
    expected = HolisticCAM(model, [model.act], tiles=True, sizes=[96, 128])(images, [ClassifierOutputTarget(category)])
    assert np.array_equal(maps, expected)


def test_the_plain_error_names_tiles(make_images):
    model = Pointwise(64).eval()
    with pytest.raises(ValueError, match=r"not the pyramid's 921x921 px \(expected 64 px\)\. Pass tiles=True"):
        HolisticCAM(model, [model.act])(make_images(1))


def test_dense_outputs_and_volumes_have_no_tiles(make_images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()).eval()
    with pytest.raises(ValueError, match="needs one output per image: segmentation and detection need whole images"):
        HolisticCAM(model, [model[0]], tiles=True, sizes=[64, 96])(make_images(1), [lambda output: output[0].sum()])
    with pytest.raises(ValueError, match="tiles=True takes images only: for volumes pass num_scales=1"):
        HolisticCAM(model, [model[0]], tiles=True)(torch.rand(1, 3, 4, 16, 16))


def test_a_flattened_head_runs_the_pyramid(make_images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)).eval()
    images = make_images(2)
    maps = HolisticCAM(model, [model[1]], tiles=True, num_scales=3, max_size=150)(images)
    assert maps.shape == GradCAM(model, [model[1]])(images, None).shape
    assert np.isfinite(maps).all()
    assert maps.max() == 1
