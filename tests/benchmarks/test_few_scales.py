"""The study of cheaper pyramids: candidates are compared with the class, windows with means made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks import few_scales
from benchmarks.few_scales import CANDIDATES, Candidate, Crops, explain_candidates
from benchmarks.harness import views
from benchmarks.harness.views import WHOLE, Eye, Window, cover_square, find_square, fuse_views, mask_class, sum_maps
from holistic_cam_plugin import ClassHolisticCAM
from tests.conftest import min_max

SIDE = 224


@pytest.fixture
def scene(subject):
    model, image, target = subject
    return model, F.interpolate(image, size=(SIDE, SIDE), mode="bilinear"), target


@pytest.fixture
def eye(scene):
    model, image, target = scene
    return Eye(model, [model[0], model[1]], image, target)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("seven scales", {"sizes": "paper"}),
        ("353, 609", {}),
        ("366, 652", {"sizes": [224, 366, 652]}),
        ("577", {"sizes": [224, 577]}),
        ("225, 353, 577", {"sizes": [225, 353, 577], "fuse_base": True}),
        ("353, 577 and 225 in the mask", {"sizes": [225, 353, 577]}),
        ("353, 609, mask of these", {"sizes": [353, 609], "fuse_base": True}),
    ],
)
def test_scales_that_the_class_has(scene, name, options, monkeypatch):
    monkeypatch.setattr("holistic_cam_plugin.evidence.COARSE", SIDE)
    model, image, target = scene
    found = explain_candidates(model, ["0", "1"], {name: CANDIDATES[name]}, image, target)
    for layer in ("0", "1"):
        cam = ClassHolisticCAM(model, [model.get_submodule(layer)], mask_layer=model[1], **options)
        np.testing.assert_allclose(found[layer, name], cam(image, [target])[0], atol=1e-5)


def test_no_candidate_is_another_one_under_a_new_name():
    assert len(set(CANDIDATES.values())) == len(CANDIDATES)


def test_the_pixels_of_the_passes_are_counted():
    assert CANDIDATES["1 + 4"].count_pixels() == 5
    assert Candidate((448,)).count_pixels() == 5
    assert Candidate((448,), base=112).count_pixels() == 5.25
    assert Candidate((448,), base=None, crops=Crops(112, 2)).count_pixels() == 6


def test_sizes_are_in_proportion_and_keep_their_remainder():
    assert [few_scales.scale_side(side, 448) for side in (224, 366, 353, 609)] == [448, 732, 705, 1217]


def test_the_square_holds_what_is_above_the_level():
    mask = np.zeros((100, 200), np.float32)
    mask[40:80, 100:120] = 1
    mask[0, 0] = 0.2
    square = find_square(mask, 0.35, 1.0, 0.1)
    assert square == pytest.approx((0.4, 0.35, 0.8, 0.75), abs=0.02)
    assert find_square(mask, 0.35, 1.0, 0.6) == pytest.approx((0.3, 0.25, 0.9, 0.85), abs=0.02)
    assert find_square(np.ones((8, 8), np.float32), 0.35, 1.2, 0.1) == WHOLE
    mask[40:80, 100:120], mask[:20, :20] = 0, 1
    assert find_square(mask, 0.35, 2.0, 0.1)[:2] == (0, 0)  # inside of the image


def test_windows_cover_the_square():
    quarters = cover_square(Window(0.2, 0.4, 0.8, 1.0), 2, 2 / 3)
    assert quarters[0] == pytest.approx((0.2, 0.4, 0.6, 0.8))
    assert quarters[3] == pytest.approx((0.4, 0.6, 0.8, 1.0))
    assert cover_square(WHOLE, 1, 1.0) == [WHOLE]


def test_a_single_window_is_fused_in_its_place(scene, eye):
    model, image, target = scene
    window = Window(0.25, 0.5, 0.75, 1.0)
    found = fuse_views([eye.look(96, window)], 0, (SIDE, SIDE))
    crop = image[..., 56:168, 112:224]
    cam = ClassHolisticCAM(model, [model[0]], sizes=[96], fsd=False)
    own = cam.intermediates(F.interpolate(crop, size=(96, 96), mode="bilinear"), [target])[0][0]
    expected = np.zeros((SIDE, SIDE))
    expected[56:168, 112:224] = F.interpolate(torch.from_numpy(own.fused)[None, None], size=(112, 112))[0, 0]
    assert found.any()
    assert not np.delete(found, slice(56, 168), axis=0).any()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95


def test_where_views_overlap_their_means_are_multiplied(eye):
    whole, part = eye.look(224), eye.look(96, Window(0.0, 0.0, 0.5, 0.5))
    side = views.COARSE

    def resized(view, maps, extent):
        return F.interpolate(maps[None], size=(extent, extent), mode="bilinear")[0]

    most = max(view.activations[0][0].numel() for view in (whole, part))
    means = []
    for stack in ("activations", "gradients"):
        canvas, count = torch.zeros(5, side, side), torch.zeros(side, side)
        for view, extent in ((whole, side), (part, side // 2)):
            maps = getattr(view, stack)[0]
            if stack == "gradients":
                maps = maps.clamp(min=0) * (maps[0].numel() / most)
            canvas[:, :extent, :extent] += resized(view, maps, extent)
            count[:extent, :extent] += 1
        means.append(canvas / count)
    expected = (means[0] * means[1]).sum(dim=0)
    np.testing.assert_allclose(fuse_views([whole, part], 0, (side, side)), expected, rtol=1e-4, atol=1e-5)


def test_the_mean_of_products_of_one_view_is_its_map(eye):
    view = eye.look(96)
    alone, mean = fuse_views([view], 1, (112, 112)), sum_maps([view], 1, (112, 112))
    np.testing.assert_allclose(min_max(mean), min_max(alone), atol=1e-5)


def test_the_mask_of_windows_is_nearly_that_of_the_whole(eye):
    halves = [eye.look(224), eye.look(224, Window(0.0, 0.0, 1.0, 1.0 - 1e-9))]
    whole = mask_class([halves[0], halves[0]], (SIDE, SIDE))
    assert whole.max() == 1
    assert np.corrcoef(whole.ravel(), mask_class(halves, (SIDE, SIDE)).ravel())[0, 1] > 0.98


def test_the_command_compares_with_the_first_candidate(common, rows, capsys):
    some = ["seven scales", "353, 609", "1 + 4"]
    few_scales.main([*common, "--metrics", "epg", "--samples", "1", "--half", "tuned", "--candidates", *some])
    assert len(rows("few_scales")) == 2 * len(some)
    assert f"{some[0]} minus the other" in capsys.readouterr().out
