"""CAMERAS, the method that Holistic-CAM builds on, as a setting of it.

Paper: Jalwana et al., "CAMERAS: Enhanced Resolution And Sanity preserving Class Activation Mapping for image saliency",
CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from holistic_cam_plugin.holistic_cam import HolisticCAM

__all__ = ["CAMERAS"]


class CAMERAS(HolisticCAM):
    """CAMERAS (Jalwana et al., CVPR 2021): the same pyramid with raw gradients and no mask, at its own sizes.

    Sizes 224, 324 ... 924 px and bicubic enlargement by default; every argument of `HolisticCAM` can be given.
    """

    def __init__(self, model: nn.Module, target_layers: Sequence[nn.Module], *args: Any, **kwargs: Any) -> None:
        own: dict[str, Any] = {
            "weighting": "gradient",
            "fsd": False,
            "sizes": range(224, 1000, 100),
            "interpolation": "bicubic",
        }
        super().__init__(model, target_layers, *args, **(own | kwargs))
