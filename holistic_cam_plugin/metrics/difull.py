"""DiFull: a grid of four images of which, by construction, only one can influence the score.

    disconnected = DiFull(model, quarter=2)
    cam = LayerCAM(disconnected, [model.layer4], disconnected.reshape_transform)
    maps = cam(grids, targets)
    energy_pointing_game(maps, [disconnected.region(*grids.shape[-2:])] * len(grids))

The quarters of the grid pass through the model separately, and the score is read from one of them. The gradient is zero
in the others, so whatever a map shows there is an artefact of the method: weights per channel (Grad-CAM), activations
without gradients (Eigen-CAM), or interpolation across the border.

Paper: Rao et al., "Towards Better Understanding Attribution Methods", CVPR 2022. Its localisation score is the share of
the positive attributions inside the quarter; for saliency maps this is `energy_pointing_game`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from holistic_cam_plugin.checks import is_integer
from holistic_cam_plugin.passes.outputs import check_outputs

__all__ = ["DiFull"]


class DiFull(nn.Module):
    """A classifier of 2 x 2 grids of images that returns the scores of one quarter.

    Args:
        model: maps images `(B, C, H, W)` to a tensor with one row per image. Target layers are modules of this model.
        quarter: the quarter whose scores are returned: 0 upper left, 1 upper right, 2 lower left, 3 lower right. Can be
            changed later.
        reshape_transform: the model's own, applied to each quarter. It does not receive the image's size, so
            transformers need square quarters or a transform bound to one size.

    Raises:
        ValueError: `quarter` is not an integer from 0 to 3.

    Example:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> disconnected = DiFull(model, quarter=1)
        >>> disconnected(torch.rand(2, 3, 64, 64)).shape, disconnected.region(64, 64)
        (torch.Size([2, 3]), (32, 0, 64, 32))
    """

    def __init__(
        self, model: nn.Module, quarter: int = 0, reshape_transform: Callable[..., Tensor] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.quarter = quarter
        self._reshape_transform = reshape_transform

    @property
    def quarter(self) -> int:
        """The quarter whose scores are returned, 0 to 3 row by row."""
        return self._quarter

    @quarter.setter
    def quarter(self, quarter: int) -> None:
        if not is_integer(quarter) or not 0 <= quarter < 4:
            raise ValueError(f"quarter must be an integer from 0 to 3, got {quarter!r}")
        self._quarter = int(quarter)

    def forward(self, grids: Tensor) -> Tensor:
        """Return the model's output for the selected quarter, one row per grid.

        Args:
            grids: `(B, C, H, W)`; the middle row or column of an odd side is ignored.

        Raises:
            TypeError, ValueError: `grids` has another shape, or the output is not a tensor with one row per image.
        """
        if grids.ndim != 4 or min(grids.shape[-2:]) < 2 or 0 in grids.shape:
            raise ValueError(f"grids must be (B, C, H, W), at least 2 px per side, got shape {tuple(grids.shape)}")
        quarters = _split(grids)
        outputs: Tensor = check_outputs(self.model(quarters), len(quarters))
        return outputs[self.quarter :: 4]

    def reshape_transform(self, output: Tensor) -> Tensor:
        """Join a layer's maps of the quarters to maps of the grids; pass this method to the CAM method.

        Args:
            output: `(4 * B, C, h, w)`, after the model's own reshape transform.

        Returns:
            `(B, C, 2 * h, 2 * w)`.

        Raises:
            ValueError: `output` has another shape.
        """
        return _stitch(output if self._reshape_transform is None else self._reshape_transform(output))

    def region(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the box x_min, y_min, x_max, y_max of the quarter in a grid of this size in pixels."""
        row, column = divmod(self.quarter, 2)
        down, across = height // 2, width // 2
        left, top = column * (width - across), row * (height - down)
        return left, top, left + across, top + down


def _split(grids: Tensor) -> Tensor:
    """Split grids `(B, C, H, W)` into quarters `(4 * B, C, H // 2, W // 2)`, row by row and grid by grid."""
    height, width = (side // 2 for side in grids.shape[-2:])
    halves = grids[..., :height, :], grids[..., -height:, :]
    quarters = [half[..., columns] for half in halves for columns in (slice(width), slice(-width, None))]
    return torch.stack(quarters, dim=1).flatten(0, 1)


def _stitch(maps: Tensor) -> Tensor:
    """The inverse of `_split`."""
    if maps.ndim != 4 or len(maps) % 4:
        raise ValueError(
            f"target layers must return maps (4 * B, C, h, w) of the quarters, got shape {tuple(maps.shape)}; "
            "transformers need DiFull(model, quarter, reshape_transform)"
        )
    _, channels, height, width = maps.shape
    grid = maps.reshape(-1, 2, 2, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, channels, 2 * height, 2 * width)
