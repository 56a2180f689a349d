"""Ranks of pixels, and ties."""

from __future__ import annotations

import numpy as np
import pytest

from holistic_cam_plugin.metrics import rank_pixels, tied_pixels


def test_descending_and_ties_row_by_row():
    ranks = rank_pixels(np.array([[[0.0, 0.5, 0.0], [1.0, 0.5, 0.0]]]))
    np.testing.assert_array_equal(ranks, [[[3, 1, 4], [0, 2, 5]]])


def test_every_map_has_its_own_permutation():
    maps = np.random.default_rng(0).random((2, 16, 16), dtype=np.float32)
    ranks = rank_pixels(maps)
    for rank, saliency_map in zip(ranks, maps, strict=True):
        assert sorted(rank.ravel()) == list(range(256))
        np.testing.assert_array_equal(
            saliency_map.ravel()[np.argsort(rank.ravel())], np.sort(saliency_map.ravel())[::-1]
        )


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_whole_numbers_do_not_wrap_around(dtype):
    np.testing.assert_array_equal(rank_pixels(np.array([[[0, 1]]], dtype=dtype)), [[[1, 0]]])


def test_share_of_ties():
    maps = np.array([[[1, 2], [3, 4]], [[1, 1], [3, 4]], [[0, 0], [0, 0]], [[1, 1], [2, 2]]], dtype=np.float32)
    np.testing.assert_array_equal(tied_pixels(maps), [0, 0.5, 1, 1])
