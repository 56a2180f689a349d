from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from holistic_cam_plugin import fuse, fuse_principal
from holistic_cam_plugin.method.blocks import are_coarse
from holistic_cam_plugin.method.resizing import CPU_BAND

# The package's attribute of this name is the function.
MODULE = importlib.import_module("holistic_cam_plugin.method.resizing")

Stacks = tuple[list[Tensor], list[Tensor]]


def stacks(channels: int, grids: list[tuple[int, int]], signed: bool = False) -> Stacks:
    generator = torch.Generator().manual_seed(channels + len(grids))
    activations = [torch.randn(channels, *grid, generator=generator) for grid in grids]
    weights = [torch.randn(channels, *grid, generator=generator) for grid in grids]
    return (activations, weights) if signed else ([a.relu() for a in activations], [w.relu() for w in weights])


def mean_products(activations: list[Tensor], weights: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Equations 10 and 11 on full tensors, float64: `(C, H, W)`."""

    def mean(stack: list[Tensor]) -> Tensor:
        resized = [F.interpolate(x[None].double(), size=size, mode="bilinear", align_corners=False)[0] for x in stack]
        return torch.stack(resized).mean(dim=0)

    return mean(activations) * mean(weights)


CASES = [
    pytest.param([(7, 7)], (64, 64), id="one scale"),
    pytest.param([(7, 7), (11, 11), (33, 33)], (64, 64), id="several scales"),
    pytest.param([(5, 9), (8, 15)], (45, 83), id="not square"),
    pytest.param([(9, 5), (15, 8)], (131, 71), id="upright, no multiple of the band"),
    pytest.param([(64, 64), (100, 90)], (40, 36), id="grids larger than the canvas"),
    pytest.param([(200, 3), (3, 200)], (60, 60), id="up and down at once"),
    pytest.param([(1, 1), (2, 1)], (57, 33), id="grids of one element"),
    pytest.param([(64, 64)], (64, 64), id="grid of the canvas's size"),
    pytest.param([(4, 4)], (1, 1), id="canvas of one pixel"),
]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("grids", "size"), CASES)
def test_the_product_of_the_means_summed_over_channels(grids, size, signed):
    activations, weights = stacks(9, grids, signed)
    expected = mean_products(activations, weights, size).sum(dim=0).relu()
    fused = fuse(activations, weights, size)
    assert fused.shape == size
    assert fused.dtype == torch.float32
    # Shrinking 200 rows to 60, interpolate itself is off by 5e-5 in float32.
    torch.testing.assert_close(fused.double(), expected, rtol=1e-4, atol=2e-4)


def test_a_product_of_means_is_no_mean_of_products():
    activations, weights = stacks(4, [(5, 5), (9, 9)])
    product_first = sum(mean_products([a], [w], (30, 30)) for a, w in zip(activations, weights, strict=True)) / 2
    difference = fuse(activations, weights, (30, 30)).double() - product_first.sum(dim=0)
    assert difference.abs().max() > 0.1


def test_nothing_positive_gives_zero():
    activations, weights = stacks(4, [(5, 5)])
    assert not fuse(activations, [-w for w in weights], (20, 20)).any()


@pytest.mark.parametrize("rows", [1, 4, 17])
def test_the_canvas_in_many_bands(monkeypatch, rows):
    activations, weights = stacks(7, [(6, 6), (10, 10)])
    monkeypatch.setattr(MODULE, "CPU_BAND", rows * 40 * 7)
    expected = mean_products(activations, weights, (29, 40)).sum(dim=0)
    torch.testing.assert_close(fuse(activations, weights, (29, 40)).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [fuse, fuse_principal])
def test_channels_that_lie_last_in_memory(function):
    activations, weights = stacks(7, [(6, 8), (10, 13)])
    last = [
        [x[None].contiguous(memory_format=torch.channels_last)[0] for x in stack] for stack in (activations, weights)
    ]
    assert torch.equal(function(*last, (29, 40)), function(activations, weights, (29, 40)))


def test_channels_that_are_zero_at_one_scale_only_count():
    activations, weights = stacks(4, [(5, 5), (9, 9)])
    activations[0][1] = 0
    weights[1][1] = 0
    activations[1][2] = weights[0][3] = weights[1][3] = 0  # channel 3 is silent, the others are not
    expected = mean_products(activations, weights, (30, 30)).sum(dim=0)
    torch.testing.assert_close(fuse(activations, weights, (30, 30)).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [fuse, fuse_principal])
@pytest.mark.parametrize("channels", [0, 3])
def test_no_channels_or_silent_channels_give_a_zero_map(function, channels):
    silent = [torch.zeros(channels, 4, 4)]
    assert torch.equal(function(silent, silent, (20, 30)), torch.zeros(20, 30))


@pytest.mark.parametrize("function", [fuse, fuse_principal])
def test_the_inputs_are_left_alone(function):
    activations, weights = stacks(3, [(4, 4), (6, 6)])
    before = [x.clone() for x in activations + weights]
    function(activations, weights, (20, 20))
    assert all(torch.equal(x, y) for x, y in zip(activations + weights, before, strict=True))


@pytest.mark.parametrize("function", [fuse, fuse_principal])
def test_autocast_does_not_lower_the_precision(function):
    activations, weights = stacks(5, [(6, 6), (9, 9)])
    expected = function(activations, weights, (40, 40))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(function(activations, weights, (40, 40)), expected)


def test_volumes_are_fused_trilinearly():
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3, 4, 6), (5, 2, 7, 9)]
    activations, weights = ([torch.randn(s, generator=generator) for s in shapes] for _ in range(2))
    size = (7, 10, 12)
    means = [
        torch.stack([F.interpolate(x[None], size, mode="trilinear", align_corners=False)[0] for x in stack]).mean(dim=0)
        for stack in (activations, weights)
    ]
    products = means[0] * means[1]
    torch.testing.assert_close(fuse(activations, weights, size), products.sum(dim=0).clamp(min=0), atol=1e-5, rtol=1e-4)
    expected = svd_projection(products).clip(min=0)
    projected = fuse_principal(activations, weights, size).numpy()
    np.testing.assert_allclose(projected / projected.max(), expected / expected.max(), atol=1e-4)


@pytest.mark.parametrize("function", [fuse, fuse_principal])
@pytest.mark.parametrize(
    ("activations", "weights"),
    [
        ([], []),
        ([(2, 3, 3)], []),
        ([(2, 3, 3)], [(2, 3, 4)]),
        ([(2, 3, 3), (3, 4, 4)], [(2, 3, 3), (3, 4, 4)]),
        ([(1, 2, 3, 3)], [(1, 2, 3, 3)]),
        ([(2, 9)], [(2, 9)]),
    ],
)
def test_stacks_that_do_not_belong_together_are_refused(function, activations, weights):
    with pytest.raises(ValueError, match=r"one \(C, h, w\) tensor per scale .* in the same shapes; got .* \(9, 9\)"):
        function([torch.ones(s) for s in activations], [torch.ones(s) for s in weights], (9, 9))


def svd_projection(products: Tensor) -> np.ndarray:
    """What pytorch-grad-cam's `get_2d_projection` does, with the sign that follows the sum over channels."""
    matrix = products.flatten(start_dim=1).T.numpy()
    centred = matrix - matrix.mean(axis=0)
    projection = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    projection *= np.sign(projection @ centred.sum(axis=1))
    return projection.reshape(products.shape[1:])


@pytest.mark.parametrize("unit", [1.0, 1e-25])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("grids", "size"), CASES[:5])
def test_the_first_principal_component_is_that_of_the_whole_matrix(grids, size, signed, unit):
    activations, weights = stacks(9, grids, signed)
    expected = np.maximum(svd_projection(mean_products(activations, weights, size)), 0)
    projected = fuse_principal(activations, [w * unit for w in weights], size).numpy()
    assert projected.dtype == np.float32
    np.testing.assert_allclose(projected / projected.max(), expected / expected.max(), atol=1e-4)


def test_the_principal_component_in_many_bands(monkeypatch):
    monkeypatch.setattr(MODULE, "CPU_BAND", 1)  # one row at a time
    activations, weights = stacks(5, [(6, 6), (9, 9)])
    expected = np.maximum(svd_projection(mean_products(activations, weights, (31, 40))), 0)
    projected = fuse_principal(activations, weights, (31, 40)).numpy()
    np.testing.assert_allclose(projected / projected.max(), expected / expected.max(), atol=1e-4)


class LargestTensor(TorchDispatchMode):
    """Remembers the elements of the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("function", [fuse, fuse_principal])
def test_memory_does_not_grow_with_channels_times_canvas(monkeypatch, function):
    assert CPU_BAND * 4 <= 2**24  # bytes of float32
    buffer, channels, side = 2**17, 64, 256
    monkeypatch.setattr(MODULE, "CPU_BAND", buffer)
    activations, weights = stacks(channels, [(14, 14), (20, 20)])
    with LargestTensor() as largest:
        function(activations, weights, (side, side))
    assert side * side <= largest.elements <= 2 * buffer < channels * side * side / 10


COARSE = [
    pytest.param([(3, 3)], (64, 64), id="one scale"),
    pytest.param([(2, 3), (5, 4)], (83, 45), id="not square"),
    pytest.param([(1, 1), (1, 2)], (57, 33), id="grids of one position"),
    pytest.param([(7, 7), (12, 12), (20, 20)], (112, 112), id="several scales"),
]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("grids", "size"), COARSE)
def test_coarse_grids_with_many_channels_are_fused_in_blocks_to_the_same_map(grids, size, signed):
    activations, weights = stacks(900, grids, signed)
    activations[0][:300] = 0  # channels that are left out
    assert are_coarse(activations, size)
    expected = mean_products(activations, weights, size).sum(dim=0).relu()
    torch.testing.assert_close(fuse(activations, weights, size).double(), expected, rtol=1e-4, atol=1e-4)


def test_fine_grids_and_volumes_are_not_fused_in_blocks():
    assert not are_coarse(stacks(64, [(56, 56), (90, 90)])[0], (224, 224))
    assert not are_coarse([torch.ones(2048, 2, 3, 3)], (8, 64, 64))
