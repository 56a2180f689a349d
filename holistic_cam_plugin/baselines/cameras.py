"""CAMERAS, the method that Holistic-CAM extends, as a configuration of `HolisticCAM`.

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
    """CAMERAS (Jalwana et al., CVPR 2021): a pyramid of images with raw gradients and without a mask.

    Args:
        model, target_layers, args, kwargs: as in `HolisticCAM`, with other defaults: sizes of 224, 324 ... 924 px
            and bicubic interpolation.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> with CAMERAS(model, target_layers=[model[0]], sizes=[32, 48]) as cam:
        ...     cam(torch.rand(2, 3, 32, 32)).shape
        (2, 32, 32)
    """

    def __init__(self, model: nn.Module, target_layers: Sequence[nn.Module], *args: Any, **kwargs: Any) -> None:
        own: dict[str, Any] = {
            "weighting": "gradient",
            "fsd": False,
            "sizes": range(224, 1000, 100),
            "interpolation": "bicubic",
        }
        super().__init__(model, target_layers, *args, **(own | kwargs))
