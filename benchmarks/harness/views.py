"""What a model sees of an image at several sizes, or in windows of it, and maps made of these views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin import class_evidence, fuse, low_pass_wrap
from holistic_cam_plugin.method.signs import split_signs
from holistic_cam_plugin.passes.capture import Capture

__all__ = ["WHOLE", "Eye", "View", "Window", "cover_square", "find_square", "fuse_views", "mask_class", "sum_maps"]

Map = NDArray[np.float32]

COARSE = 112  # pixels of a canvas on which windows are fused, channel by channel


class Window(NamedTuple):
    """A part of the image: its sides as shares of the image's."""

    top: float
    left: float
    bottom: float
    right: float

    def on(self, size: Sequence[int]) -> tuple[slice, slice]:
        """The window in pixels of an image or a map of this size."""
        rows, columns = (round(v * size[0]) for v in self[::2]), (round(v * size[1]) for v in self[1::2])
        return slice(*rows), slice(*columns)


WHOLE = Window(0, 0, 1, 1)


class View(NamedTuple):
    """Activations and gradients of each layer, `(C, h, w)`, of a window at one size, and the class's score there."""

    window: Window
    activations: list[Tensor]
    gradients: list[Tensor]
    score: float


class Eye:
    """Looks at one image through the model; every view is computed once."""

    def __init__(
        self, model: nn.Module, layers: Sequence[nn.Module], image: Tensor, target: ClassifierOutputTarget
    ) -> None:
        self.size: tuple[int, int] = (image.shape[-2], image.shape[-1])
        self._image = image
        self._capture = Capture(model, layers)
        self._target = target
        self._views: dict[tuple[int, Window], View] = {}

    def look(self, side: int, window: Window = WHOLE) -> View:
        """The window, resized bilinearly to `side` x `side` pixels."""
        if (side, window) not in self._views:
            self._views[side, window] = self._run(side, window)
        return self._views[side, window]

    def _run(self, side: int, window: Window) -> View:
        rows, columns = window.on(self.size)
        part = self._image[..., rows, columns]
        resized = F.interpolate(part, size=(side, side), mode="bilinear", align_corners=False)
        with torch.enable_grad():
            score = self._target(self._capture(resized, channels_last=True)[0])
            activations, gradients = self._capture.activations_and_gradients(score)
        self._capture.clear()
        activations, gradients = ([maps[0].detach() for maps in stack] for stack in (activations, gradients))
        return View(window, activations, gradients, float(score.detach()))


def fuse_views(views: Sequence[View], layer: int, size: tuple[int, int], shares: Sequence[float] | None = None) -> Map:
    """Product of the means, weights W = relu(G) times the number of positions; where no view is, zero.

    Windows are fused on a canvas of `COARSE` pixels, as means over the views that cover a pixel.

    Args:
        shares: of the views in the means; None: equal shares.
    """
    most = max(view.activations[layer][0].numel() for view in views)
    scaled = [view.gradients[layer] * (view.activations[layer][0].numel() / most) for view in views]
    weights = [torch.where(view.activations[layer] < 0, g.clamp(max=0), g.clamp(min=0))
               for view, g in zip(views, scaled, strict=True)]  # fmt: skip
    activations, weights = split_signs([view.activations[layer] for view in views], weights)
    if all(view.window == WHOLE for view in views) and shares is None:
        return np.asarray(fuse(activations, weights, size).numpy())
    if len(views) == 1:
        return _paste(fuse(activations, weights, _extent(views[0].window, size)), views[0].window, size)
    windows = [view.window for view in views]
    means = [_mean(stack, windows, shares or [1.0] * len(views)) for stack in (activations, weights)]
    return _enlarge((means[0] * means[1]).sum(dim=0), size)


def sum_maps(views: Sequence[View], layer: int, size: tuple[int, int]) -> Map:
    """Each view's own map, averaged over the views that cover a pixel: a mean of products."""
    maps = [_enlarge(torch.from_numpy(fuse_views([view._replace(window=WHOLE)], layer, (COARSE, COARSE))),
                     _extent(view.window, (COARSE, COARSE))) for view in views]  # fmt: skip
    counted = [view.activations[layer][0].numel() for view in views]
    stack = [torch.from_numpy(m)[None] * n for m, n in zip(maps, counted, strict=True)]
    return _enlarge(_mean(stack, [view.window for view in views], [1.0] * len(views))[0], size)


def mask_class(views: Sequence[View], size: tuple[int, int]) -> Map:
    """The class mask of these views of the last layer, with contrast 1; largest value 1."""
    activations, gradients = ([getattr(view, name)[-1] for view in views] for name in ("activations", "gradients"))
    if all(view.window == WHOLE for view in views):
        evidence = class_evidence(activations, gradients, size, 1)
    else:
        windows, ones = [view.window for view in views], [1.0] * len(views)
        stacks = activations, gradients, [x.abs() for x in activations], [x.abs() for x in gradients]
        a, g, aa, gg = (_mean(stack, windows, ones, COARSE // 2) for stack in stacks)
        net = (a * g).sum(dim=0).clamp(min=0)
        evidence = _enlarge(net * (net / (aa * gg).sum(dim=0).clamp(min=1e-37)).clamp(max=1), size)
    wrap = low_pass_wrap(evidence)
    return np.asarray(wrap / (wrap.max() or 1.0), dtype=np.float32)


def find_square(mask: Map, level: float, grow: float, smallest: float) -> Window:
    """The square that holds the mask: the 2nd to 98th percentile of where it is above `level` times its maximum.

    Args:
        grow: factor of its side.
        smallest: share of the mask's shorter side that it has at least.
    """
    spans = [np.percentile(places, [2, 98]) + np.array([0, 1]) for places in np.nonzero(mask > level * mask.max())]
    sides = [(high - low) / length for (low, high), length in zip(spans, mask.shape, strict=True)]
    side = min(max(max(sides) * grow, smallest), 1.0)
    centres = [(low + high) / 2 / length for (low, high), length in zip(spans, mask.shape, strict=True)]
    top, left = (min(max(centre - side / 2, 0.0), 1 - side) for centre in centres)
    return Window(top, left, top + side, left + side)


def cover_square(square: Window, count: int, share: float) -> list[Window]:
    """`count` x `count` windows that cover the square, each with this share of its side."""
    side = square.bottom - square.top
    step = side * (1 - share) / max(count - 1, 1)
    corners = [(square.top + i * step, square.left + j * step) for i in range(count) for j in range(count)]
    return [Window(top, left, top + share * side, left + share * side) for top, left in corners]


def _mean(stack: Sequence[Tensor], windows: Sequence[Window], shares: Sequence[float], side: int = COARSE) -> Tensor:
    """Mean over the tensors that cover a pixel, each resized to its window, `(C, side, side)`."""
    total, count = torch.zeros(len(stack[0]), side, side), torch.zeros(side, side)
    for maps, window, share in zip(stack, windows, shares, strict=True):
        place = window.on(total.shape[1:])
        extent = _extent(window, (side, side))
        total[:, place[0], place[1]] += share * F.interpolate(maps[None], size=extent, mode="bilinear")[0]
        count[place] += share
    return total / count.clamp(min=1e-6)


def _extent(window: Window, size: tuple[int, int]) -> tuple[int, int]:
    rows, columns = window.on(size)
    return rows.stop - rows.start, columns.stop - columns.start


def _paste(part: Tensor, window: Window, size: tuple[int, int]) -> Map:
    canvas = part.new_zeros(size)
    canvas[window.on(size)] = part
    return np.asarray(canvas.numpy())


def _enlarge(maps: Tensor, size: tuple[int, int]) -> Map:
    return np.asarray(F.interpolate(maps[None, None], size=size, mode="bilinear", align_corners=False)[0, 0].numpy())
