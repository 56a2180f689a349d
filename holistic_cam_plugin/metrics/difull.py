"""DiFull: a grid of images in which, by construction, one quarter alone can influence the score.

    disconnected = DiFull(model, quarter=2)
    cam = LayerCAM(disconnected, [model.layer4], disconnected.reshape_transform)
    maps = cam(grids, targets)
    energy_pointing_game(maps, [disconnected.region(*grids.shape[-2:])] * len(grids))

The quarters go through the model separately and the score is read from one of them. The gradient is zero in the others:
all that a map shows there is the method's own, such as weights that hold for a whole channel (Grad-CAM), activations
without a gradient (Eigen-CAM), or half a cell of interpolation across the border.

Paper: Rao et al., "Towards Better Understanding Attribution Methods", CVPR 2022. Its localisation score is the share of
the positive attributions in the quarter, which of a saliency map is `energy_pointing_game`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from holistic_cam_plugin.metrics.scoring import is_integer
from holistic_cam_plugin.passes.outputs import check_outputs

__all__ = ["DiFull"]


class DiFull(nn.Module):
    """A classifier of 2x2 grids that sees the quarters one by one and gives the scores of one of them.

    Args:
        model: maps images `(B, C, H, W)` to a tensor with a row an image. Target layers are modules of it.
        quarter: whose scores are given: 0 upper left, 1 upper right, 2 lower left, 3 lower right. Can be set later.
        reshape_transform: the one that the model itself needs, applied to each quarter. It is not told the image's
            size: transformers need square quarters, or a transform that was.

    Raises:
        ValueError: no such quarter.
    """

    def __init__(
        self, model: nn.Module, quarter: int = 0, reshape_transform: Callable[..., Tensor] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.quarter = quarter
        self._of_quarters = reshape_transform

    @property
    def quarter(self) -> int:
        """The quarter whose scores are given, 0 to 3 row by row."""
        return self._quarter

    @quarter.setter
    def quarter(self, quarter: int) -> None:
        if not is_integer(quarter) or not 0 <= quarter < 4:
            raise ValueError(f"a grid's quarters are 0 to 3, row by row, got {quarter!r}")
        self._quarter = int(quarter)

    def forward(self, grids: Tensor) -> Tensor:
        """The scores of one quarter.

        Args:
            grids: `(B, C, H, W)`; an odd side's middle row or column belongs to no quarter.

        Returns:
            What the model gives for that quarter, a row a grid.

        Raises:
            TypeError, ValueError: grids of another shape, or outputs that are no tensor with a row an image.
        """
        if grids.ndim != 4 or min(grids.shape[-2:]) < 2 or 0 in grids.shape:
            raise ValueError(f"grids must be (B, C, H, W), at least 2 px a side, got shape {tuple(grids.shape)}")
        quarters = _split(grids)
        outputs: Tensor = check_outputs(self.model(quarters), len(quarters))
        return outputs[self.quarter :: 4]

    def reshape_transform(self, output: Tensor) -> Tensor:
        """What a layer returned for the quarters as one map of the grid: give it to the method.

        Args:
            output: of a target layer; `(4 * B, C, h, w)` unless the model has a reshape transform of its own.

        Returns:
            `(B, C, 2 * h, 2 * w)`.

        Raises:
            ValueError: no maps of four quarters a grid.
        """
        return _stitch(output if self._of_quarters is None else self._of_quarters(output))

    def region(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The quarter in a grid of this size in pixels: the box x_min, y_min, x_max, y_max."""
        row, column = divmod(self.quarter, 2)
        down, across = height // 2, width // 2
        left, top = column * (width - across), row * (height - down)
        return left, top, left + across, top + down


def _split(grids: Tensor) -> Tensor:
    """Grids `(B, C, H, W)` to `(4 * B, C, H // 2, W // 2)`: each grid's quarters row by row, one after the other."""
    height, width = (side // 2 for side in grids.shape[-2:])
    halves = grids[..., :height, :], grids[..., -height:, :]
    quarters = [half[..., columns] for half in halves for columns in (slice(width), slice(-width, None))]
    return torch.stack(quarters, dim=1).flatten(0, 1)


def _stitch(maps: Tensor) -> Tensor:
    """The reverse of `_split`."""
    if maps.ndim != 4 or len(maps) % 4:
        raise ValueError(
            f"a layer must give maps (4 * B, C, h, w) of the quarters, got shape {tuple(maps.shape)}; transformers "
            "need DiFull(model, quarter, reshape_transform)"
        )
    _, channels, height, width = maps.shape
    grid = maps.reshape(-1, 2, 2, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, channels, 2 * height, 2 * width)
