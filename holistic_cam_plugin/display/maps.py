"""One map for the eye: its scale of display, its colours over the picture, and how much of the picture it covers."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pytorch_grad_cam.utils.image import show_cam_on_image
from scipy.stats import rankdata

__all__ = ["COLORMAPS", "SCALES", "coverage", "displayed", "overlaid", "percent"]

Map = NDArray[np.floating]

# The library's default first; the others, but for turbo, are perceptually uniform.
COLORMAPS = {
    "jet": cv2.COLORMAP_JET,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "turbo": cv2.COLORMAP_TURBO,
}

SCALES = {"linear": "linear", "sqrt": "square root", "rank": "rank among the pixels above 0"}

# Of a map's peak: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, section 3.2, take
# the pixels above it for the object.
_OBJECT = 0.2


def displayed(saliency_map: Map, scale: str = "linear") -> NDArray[np.float32]:
    """The map as it is shown: `(H, W)`, float32, in [0, 1], the same order of pixels in every scale.

    Args:
        saliency_map: `(H, W)`, in [0, 1].
        scale: a key of `SCALES`. `"linear"`: the map; `"sqrt"`: its square root; `"rank"`: of the pixels above 0, the
            share that is not above this one.

    Raises:
        ValueError: no such scale.
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
    if scale == "sqrt":
        return np.sqrt(saliency_map).astype(np.float32)
    if scale == "rank":
        ranked = np.zeros(saliency_map.shape, np.float32)
        above = saliency_map > 0
        if above.any():
            ranked[above] = rankdata(saliency_map[above], method="max") / np.count_nonzero(above)
        return ranked
    return saliency_map.astype(np.float32)


def coverage(saliency_map: Map) -> float:
    """The share of the pixels at 20 % of the map's peak or more, in [0, 1]; 0 of a map without evidence.

    It is the threshold by which Zhou et al. (CVPR 2016, section 3.2) turn a map into an object's region.
    """
    peak = saliency_map.max()
    return float((saliency_map >= _OBJECT * peak).mean()) if peak > 0 else 0.0


def percent(share: float) -> str:
    """A share for a label: `0.04 %`, `2.3 %`, `31 %`."""
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.2g} %"


def overlaid(
    picture: NDArray[np.float32], saliency_map: Map, scale: str = "linear", colormap: str = "jet", opacity: float = 0.5
) -> NDArray[np.uint8]:
    """The map over the picture, `(H, W, 3)`, RGB, as the library draws it.

    Args:
        picture: `(H, W, 3)`, RGB, float32, in [0, 1].
        saliency_map: `(H, W)`, in [0, 1].
        scale: a key of `SCALES`.
        colormap: a key of `COLORMAPS`.
        opacity: of the map, in [0, 1]: 0 is the picture, 1 the map alone.

    Raises:
        ValueError: no such scale or colormap.
    """
    if colormap not in COLORMAPS:
        raise ValueError(f"colormap must be one of {', '.join(COLORMAPS)}, got {colormap!r}")
    values = displayed(saliency_map, scale)
    if opacity == 0:  # of a black picture the library would divide 0 by 0
        return (255 * picture).astype(np.uint8)
    shown: NDArray[np.uint8] = show_cam_on_image(
        picture, values, use_rgb=True, colormap=COLORMAPS[colormap], image_weight=1 - opacity
    )
    return shown
