from __future__ import annotations

from functools import partial

import pytest
import torch
from pytorch_grad_cam.utils import reshape_transforms as fixed

from holistic_cam_plugin import swin_reshape_transform, vit_reshape_transform


def tokens(height: int, width: int, prefix: int = 0, channels: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens of a random map, and the map."""
    maps = torch.rand(2, channels, height, width)
    before = torch.full((2, prefix, channels), 9.0)
    return torch.cat([before, maps.flatten(2).transpose(1, 2)], dim=1), maps


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize(
    ("size", "patch"),
    [((224, 224), 16), ((224, 224), 32), ((1081, 1081), 16), ((224, 336), 14), ((509, 763), 16), ((96, 64), 8)],
)
@pytest.mark.parametrize("padded", [False, True])
def test_vit_tokens_of_any_size_and_prefix(size, patch, prefix, padded):
    grid = [-(-side // patch) if padded else side // patch for side in size]
    given, maps = tokens(*grid, prefix)
    assert torch.equal(vit_reshape_transform(given, image_size=size), maps)
    explicit = partial(vit_reshape_transform, patch_size=patch, prefix_tokens=prefix)
    assert torch.equal(explicit(given, image_size=size), maps)


def test_without_the_images_size_the_grid_is_square():
    given, maps = tokens(14, 14, 1)
    assert torch.equal(vit_reshape_transform(given), maps)
    assert torch.equal(vit_reshape_transform(given), fixed.vit_reshape_transform(given))
    given, maps = tokens(7, 7)
    assert torch.equal(swin_reshape_transform(given), maps)
    assert torch.equal(swin_reshape_transform(given), fixed.swinT_reshape_transform(given))


def test_few_patches_with_many_tokens_before_them_need_the_patch_size():
    given, maps = tokens(2, 2, 8)
    exact = partial(vit_reshape_transform, patch_size=32, prefix_tokens=8)
    assert torch.equal(exact(given, image_size=(64, 64)), maps)


@pytest.mark.parametrize("size", [(224, 224), (366, 366), (224, 336), (509, 763)])
def test_swin_features_of_any_size(size):
    grid = [-(-side // 32) for side in size]
    given, maps = tokens(*grid)
    assert torch.equal(swin_reshape_transform(given, image_size=size), maps)
    assert torch.equal(swin_reshape_transform(maps.permute(0, 2, 3, 1)), maps)


@pytest.mark.parametrize(
    ("transform", "given", "match"),
    [
        (vit_reshape_transform, torch.zeros(1, 5, 6, 7), r"tokens must be \(B, N, C\), got shape \(1, 5, 6, 7\)"),
        (vit_reshape_transform, torch.zeros(1, 165, 7), "165 tokens fit no grid of an image of 224x224 px: pass"),
        (swin_reshape_transform, torch.zeros(1, 7), r"\(B, h, w, C\) or \(B, N, C\), got shape \(1, 7\)"),
        (swin_reshape_transform, torch.zeros(1, 53, 7), "53 tokens fit no grid of an image of 224x224 px"),
    ],
)
def test_tokens_that_fit_no_grid(transform, given, match):
    with pytest.raises(ValueError, match=match):
        transform(given, image_size=(224, 224))


def test_tokens_that_fit_no_square_grid():
    with pytest.raises(ValueError, match="fit no grid of a square image"):
        vit_reshape_transform(torch.zeros(1, 60, 3))
