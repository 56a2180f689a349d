"""The order in which a map ranks the pixels, and the share of pixels that it leaves without an order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from holistic_cam_plugin.metrics.inputs import check_maps

__all__ = ["rank_pixels", "tied_pixels"]


def rank_pixels(cams: Any) -> NDArray[np.int32]:
    """Rank the pixels of each map in descending order; equal pixels are ranked row by row.

    Args:
        cams: maps `(B, H, W)`, finite.

    Returns:
        `(B, H, W)`, a permutation of 0 to H * W - 1 for each map; 0 is the most relevant pixel.

    Raises:
        TypeError, ValueError: `cams` is not a batch of finite maps.

    Example:
        >>> rank_pixels([[[0.1, 0.9], [0.5, 0.5]]])
        array([[[3, 0],
                [1, 2]]], dtype=int32)
    """
    maps = check_maps(cams)
    flat = maps.reshape(len(maps), -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    ranks = np.empty(flat.shape, dtype=np.int32)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1], dtype=np.int32)[None], axis=1)
    return ranks.reshape(maps.shape)


def tied_pixels(cams: Any) -> NDArray[np.float64]:
    """Share of each map's pixels whose value occurs more than once; their order is arbitrary.

    Args:
        cams: maps `(B, H, W)`, finite.

    Returns:
        `(B,)`, in [0, 1].

    Raises:
        TypeError, ValueError: `cams` is not a batch of finite maps.

    Example:
        >>> tied_pixels([[[0.1, 0.9], [0.5, 0.5]]])
        array([0.5])
    """
    counts = (np.unique(saliency_map, return_counts=True)[1] for saliency_map in check_maps(cams))
    return np.array([count[count > 1].sum() / count.sum() for count in counts], dtype=np.float64)
