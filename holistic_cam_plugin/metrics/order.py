"""The order in which a map ranks the pixels, and how much of it the map leaves open."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from holistic_cam_plugin.metrics.scoring import check_maps

__all__ = ["relevance_ranks", "tied_pixels"]


def relevance_ranks(cams: Any) -> NDArray[np.int32]:
    """Every pixel's place in descending order of its map; equal pixels follow row by row, always in the same order.

    Args:
        cams: maps `(B, H, W)`, finite.

    Returns:
        `(B, H, W)`, a permutation of 0 .. H * W - 1 in each map; 0 is the most relevant pixel.

    Raises:
        ValueError: no batch of finite maps.
    """
    maps = check_maps(cams)
    flat = maps.reshape(len(maps), -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    ranks = np.empty(flat.shape, dtype=np.int32)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1], dtype=np.int32)[None], axis=1)
    return ranks.reshape(maps.shape)


def tied_pixels(cams: Any) -> NDArray[np.float64]:
    """Share of each map's pixels whose value occurs more than once: there the metrics' order is not the map's.

    Args:
        cams: maps `(B, H, W)`, finite.

    Returns:
        `(B,)` in [0, 1].

    Raises:
        ValueError: no batch of finite maps.
    """
    counts = (np.unique(saliency_map, return_counts=True)[1] for saliency_map in check_maps(cams))
    return np.array([count[count > 1].sum() / count.sum() for count in counts], dtype=np.float64)
