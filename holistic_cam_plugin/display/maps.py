"""Rendering of one map: its display scale, its overlay, and the share of the picture that it covers."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pytorch_grad_cam.utils.image import show_cam_on_image
from scipy.stats import rankdata

from holistic_cam_plugin.names import COLORMAP, COLORMAPS, SCALES

__all__ = ["apply_scale", "coverage", "find_colormap", "format_percent", "overlay_map"]

Map = NDArray[np.floating]

# Share of the peak by which a map is segmented into object and background: Zhou et al., "Learning Deep Features for
# Discriminative Localization", CVPR 2016, section 3.2.
_OBJECT = 0.2


def apply_scale(saliency_map: Map, scale: str = "linear") -> NDArray[np.float32]:
    """Apply a display scale, which preserves the order of the pixels.

    Args:
        saliency_map: `(H, W)`, in [0, 1].
        scale: a key of `SCALES`. `"linear"`: unchanged; `"sqrt"`: the square root; `"rank"`: the share of the pixels
            above 0 whose value is not higher.

    Returns:
        `(H, W)`, float32, in [0, 1].

    Raises:
        ValueError: `scale` is unknown.

    Example:
        >>> apply_scale(np.array([[0.0, 0.01], [0.25, 1.0]]), scale="sqrt")
        array([[0. , 0.1],
               [0.5, 1. ]], dtype=float32)
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
    """Share of the pixels at 20 % of the map's peak or above, in [0, 1]; 0 for a map of zeros.

    Example:
        >>> coverage(np.array([[0.0, 0.1], [0.2, 1.0]]))
        0.5
    """
    peak = saliency_map.max()
    return float((saliency_map >= _OBJECT * peak).mean()) if peak > 0 else 0.0


def format_percent(share: float) -> str:
    """Format a share in [0, 1] with two significant digits.

    Example:
        >>> format_percent(0.31), format_percent(0.023), format_percent(0.0004)
        ('31 %', '2.3 %', '0.04 %')
    """
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.2g} %"


def overlay_map(
    picture: NDArray[np.float32],
    saliency_map: Map,
    scale: str = "linear",
    colormap: str = COLORMAP,
    opacity: float = 0.5,
) -> NDArray[np.uint8]:
    """Draw a map over a picture, as pytorch-grad-cam's `show_cam_on_image` does.

    Args:
        picture: `(H, W, 3)`, RGB, float32, in [0, 1].
        saliency_map: `(H, W)`, in [0, 1].
        scale: a key of `SCALES`.
        colormap: one of `COLORMAPS`.
        opacity: of the map, in [0, 1].

    Returns:
        `(H, W, 3)`, RGB, uint8.

    Raises:
        ValueError: `scale` or `colormap` is unknown.
    """
    code = find_colormap(colormap)
    values = apply_scale(saliency_map, scale)
    if opacity == 0:  # show_cam_on_image divides 0 by 0 for a black picture
        return (255 * picture).astype(np.uint8)
    shown: NDArray[np.uint8] = show_cam_on_image(picture, values, use_rgb=True, colormap=code, image_weight=1 - opacity)
    return shown


def find_colormap(name: str) -> int:
    """OpenCV's code of a colormap.

    Raises:
        ValueError: `name` is unknown.
    """
    if name not in COLORMAPS:
        raise ValueError(f"colormap must be one of {', '.join(COLORMAPS)}, got {name!r}")
    code: int = getattr(cv2, f"COLORMAP_{name.upper()}")
    return code
