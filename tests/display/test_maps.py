"""Display scales, overlays and coverage of a map."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pytorch_grad_cam.utils.image import show_cam_on_image

from holistic_cam_plugin.display import apply_scale, coverage, format_percent, overlay_map
from holistic_cam_plugin.names import COLORMAPS, SCALES


@pytest.fixture
def sparse():
    """A point with a faint halo on zeros."""
    saliency_map = np.zeros((20, 30), np.float32)
    saliency_map[5:9, 5:9] = np.linspace(0.01, 0.1, 16).reshape(4, 4)
    saliency_map[6, 6] = 1
    return saliency_map


@pytest.fixture
def picture():
    return np.random.default_rng(0).random((20, 30, 3), np.float32)


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_keeps_the_order_and_the_range(sparse, scale):
    shown = apply_scale(sparse, scale)
    assert shown.dtype == np.float32
    assert shown.shape == sparse.shape
    assert (shown[sparse == 0] == 0).all()
    assert shown.max() == shown[6, 6] == 1
    order = np.argsort(sparse[sparse > 0])
    assert (np.diff(shown[sparse > 0][order]) > 0).all()


def test_scales(sparse):
    assert (apply_scale(sparse) == sparse).all()
    assert apply_scale(sparse, "sqrt")[8, 8] == pytest.approx(np.sqrt(0.1))
    ranks = apply_scale(sparse, "rank")
    assert sorted(ranks[ranks > 0]) == pytest.approx(np.arange(1, 17) / 16)
    assert (apply_scale(np.full((4, 4), 0.5, np.float32), "rank") == 1).all()  # equal pixels look equal


def test_a_map_without_evidence_stays_empty():
    for scale in SCALES:
        assert not apply_scale(np.zeros((4, 4), np.float32), scale).any()
    assert coverage(np.zeros((4, 4), np.float32)) == 0


def test_coverage_is_the_share_from_a_fifth_of_the_peak_on():
    saliency_map = np.array([[0, 0.19, 0.2, 1]])
    assert coverage(saliency_map) == 0.5
    assert coverage(saliency_map / 4) == 0.5
    assert coverage(np.ones((3, 3))) == 1


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.000412, "0.041 %"), (0.0234, "2.3 %"), (0.0996, "10 %"), (0.314, "31 %"), (1, "100 %")],
)
def test_format_percent(share, text):
    assert format_percent(share) == text


def test_the_overlay_is_pytorch_grad_cam_s(sparse, picture):
    assert (overlay_map(picture, sparse, colormap="jet") == show_cam_on_image(picture, sparse, use_rgb=True)).all()
    inferno = show_cam_on_image(picture, sparse, use_rgb=True, colormap=cv2.COLORMAP_INFERNO)
    assert (overlay_map(picture, sparse) == inferno).all()


def test_colours_and_opacity(sparse, picture):
    looks = [overlay_map(picture, sparse, "sqrt", colormap) for colormap in COLORMAPS]
    assert len({look.tobytes() for look in looks}) == len(COLORMAPS)
    assert (overlay_map(picture, sparse, opacity=0) == np.uint8(255 * picture)).all()
    assert not overlay_map(np.zeros_like(picture), sparse, opacity=0).any()
    alone = overlay_map(picture, sparse, opacity=1)
    assert (alone == overlay_map(np.zeros_like(picture), sparse, opacity=1)).all()


def test_unknown_names(sparse, picture):
    with pytest.raises(ValueError, match="scale must be one of linear, sqrt, rank, got 'log'"):
        apply_scale(sparse, "log")
    with pytest.raises(ValueError, match=r"colormap must be one of inferno, .*, got 'grey'"):
        overlay_map(picture, sparse, colormap="grey")
