from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from holistic_cam_plugin import pyramid_sizes, resize_image
from holistic_cam_plugin.checks import check_images


def test_the_papers_example():
    assert [h for h, _ in pyramid_sizes(224, 224)] == [224, 366, 509, 652, 795, 938, 1081]


@pytest.mark.parametrize(("num_scales", "max_size"), [(1, 1000), (2, 100), (7, 1000), (10, 333)])
def test_square_sizes_follow_equation_9(num_scales, max_size):
    sizes = pyramid_sizes(96, 96, num_scales, max_size)
    assert sizes == [(int(96 + Fraction(max_size, num_scales) * t),) * 2 for t in range(num_scales)]


@settings(deadline=None)
@given(st.integers(32, 600), st.integers(32, 600), st.integers(1, 12), st.integers(1, 1500))
def test_the_base_scale_is_the_input_and_the_aspect_is_kept(height, width, num_scales, max_size):
    sizes = pyramid_sizes(height, width, num_scales, max_size)
    assert len(sizes) == num_scales
    assert sizes[0] == (height, width)
    for h, w in sizes:
        factor = Fraction(min(h, w) + 1, min(height, width))
        assert h <= height * factor
        assert w <= width * factor
        assert (h > w) == (height > width) or h == w  # the longer side stays the longer one


def test_no_rounding_error_moves_a_truncation():
    # 49 * (1 + 1/49 * ...) in floats falls short of whole numbers; every size must be exact.
    for side in range(32, 400):
        assert [h for h, _ in pyramid_sizes(side, side, 7, 700)] == [side + 100 * t for t in range(7)]


def test_the_longer_side_is_truncated_too():
    assert pyramid_sizes(100, 151, sizes=[100, 133]) == [(100, 151), (133, 200)]  # 151 * 1.33 = 200.83


def test_explicit_sizes_are_shorter_sides_also_smaller_ones_and_ranges():
    assert pyramid_sizes(64, 128, sizes=(64, 32)) == [(64, 128), (32, 64)]
    assert pyramid_sizes(64, 64, sizes=range(224, 1000, 100))[-1] == (924, 924)
    assert pyramid_sizes(300, 1, sizes=[1]) == [(300, 1)]
    assert pyramid_sizes(1, 100, sizes=[1]) == [(1, 100)]


def test_the_papers_pyramid_has_a_name():
    assert pyramid_sizes(224, 320, 4, 500, sizes="paper") == pyramid_sizes(224, 320, 4, 500)


def test_the_fast_pyramid_of_the_usual_images():
    assert pyramid_sizes(224, 224, sizes="fast") == [(224, 224), (353, 353), (609, 609)]
    assert pyramid_sizes(192, 288, sizes="fast") == [(192, 288), (289, 449), (513, 769)]
    assert pyramid_sizes(64, 96, sizes="fast") == [(64, 96), (97, 153), (177, 265)]
    assert pyramid_sizes(224, 224, sizes="fast", tiles=True) == [(224, 224), (609, 609)]
    assert len(pyramid_sizes(224, 224, tiles=True)) == 7


@settings(deadline=None)
@given(st.integers(60, 3000), st.integers(60, 3000))
def test_grids_of_the_fast_pyramid_begin_and_end_at_the_border_in_proportion_of_any_image(height, width):
    own, *others = pyramid_sizes(height, width, sizes="fast")
    assert own == (height, width)
    shorter = min(height, width)
    stride = 32 if shorter >= 160 else 16 if shorter >= 80 else 8
    for size, factor in zip(others, (353 / 224, 609 / 224), strict=True):
        for side, whole in zip(size, (height, width), strict=True):
            assert side % stride == 1
            assert abs(side - whole * factor) <= stride / 2 + 1


@pytest.mark.parametrize("side", [1, 2, 3, 7, 16, 28, 32])
def test_the_fast_pyramid_of_tiny_images_grows(side):
    (own,), (second,), (third,) = ({*size} for size in pyramid_sizes(side, side, sizes="fast"))
    assert own == side < second <= third


def test_a_convolution_with_stride_lies_at_the_border_of_fast_sizes():
    layer = torch.nn.Sequential(*(torch.nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False) for _ in range(5)))
    for convolution in layer:
        torch.nn.init.dirac_(convolution.weight)
    columns = torch.arange(609.0).expand(1, 1, 609, 609)
    assert layer(columns)[0, 0, 0].tolist() == [32.0 * k for k in range(20)]  # of pixels 0 to 608


def test_the_fast_pyramid_has_multiples_and_depths_too():
    assert pyramid_sizes(224, 448, sizes="fast", multiple_of=32) == [(224, 448), (352, 704), (608, 1216)]
    assert pyramid_sizes(64, 96, sizes="fast", depth=8) == [(8, 64, 96), (12, 97, 153), (21, 177, 265)]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"num_scales": 0}, ValueError, "num_scales must be at least 1, got 0"),
        ({"num_scales": 2.0}, TypeError, "num_scales must be an integer, got 2.0"),
        ({"num_scales": True}, TypeError, "num_scales must be an integer, got True"),
        ({"max_size": -5}, ValueError, "max_size must be at least 1, got -5"),
        ({"max_size": "1000"}, TypeError, "max_size must be an integer"),
        ({"height": 0}, ValueError, "height must be at least 1"),
        ({"width": 1.5}, TypeError, "width must be an integer"),
        ({"sizes": []}, ValueError, "sizes is empty"),
        ({"sizes": 224}, TypeError, "sizes must be a sequence of shorter sides in pixels"),
        ({"sizes": b"fast"}, TypeError, "sizes must be a sequence"),
        ({"sizes": "224"}, ValueError, "sizes must be one of fast, paper, or shorter sides in pixels, got '224'"),
        ({"sizes": "Fast"}, ValueError, "sizes must be one of fast, paper, or shorter sides in pixels, got 'Fast'"),
        ({"sizes": [224, 0]}, ValueError, "every item of sizes must be at least 1"),
        ({"sizes": [224, 300.5]}, TypeError, "every item of sizes must be an integer, got 300.5"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        pyramid_sizes(**({"height": 64, "width": 64} | arguments))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(50, 70), (9, 5)])
def test_resizing_has_half_pixel_centres_and_no_antialiasing(make_images, size, interpolation):
    images = make_images(2, 20, 28)
    expected = F.interpolate(images, size=size, mode=interpolation, align_corners=False, antialias=False)
    assert torch.equal(resize_image(images, size, interpolation), expected)


def test_at_its_own_size_the_image_is_untouched(make_images):
    images = make_images(1, 20, 28)
    assert resize_image(images, (20, 28), "bicubic") is images


def test_half_precision_is_resized_in_float32_and_given_back_as_it_came(make_images):
    images = make_images(1, 20, 20).bfloat16()
    resized = resize_image(images, (30, 30))
    assert resized.dtype == torch.bfloat16
    assert torch.equal(resized, resize_image(images.float(), (30, 30)).bfloat16())


def test_unknown_interpolation_is_refused(make_images):
    with pytest.raises(ValueError, match="interpolation must be one of bilinear, bicubic, got 'nearest'"):
        resize_image(make_images(), (9, 9), "nearest")


@pytest.mark.parametrize(
    ("images", "error", "match"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "floating-point tensor .* got dtype torch.uint8"),
        ([[0.0]], TypeError, "got a list"),
        (torch.zeros(3, 8, 8), ValueError, r"must be a batch \(B, C, H, W\) of images, got shape \(3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), ValueError, "must be a batch"),
        (torch.zeros(1, 3, 4, 8, 8), ValueError, r"must be a batch \(B, C, H, W\) of images, got"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images, error, match):
    with pytest.raises(error, match=match):
        check_images(images, torch.device("cpu"))


def test_images_above_max_size_follow_the_formula_too():
    assert pyramid_sizes(2000, 3000) == [(2000 + 1000 * t // 7, (14000 + 1000 * t) * 3000 // 14000) for t in range(7)]


def test_the_depth_of_volumes_grows_by_the_factor_of_the_shorter_side():
    assert pyramid_sizes(112, 140, sizes=[112, 168], depth=16) == [(16, 112, 140), (24, 168, 210)]
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        pyramid_sizes(112, 112, depth=0)


def literally_nearest(side, step):
    return min(range(step, side + 2 * step, step), key=lambda multiple: (abs(multiple - side), -multiple))


def literally_rounded(height, width, num_scales, max_size, step):
    """Eq. 9, truncated, then the nearest of all multiples, the larger one of two."""
    sizes = []
    for t in range(1, num_scales + 1):
        factor = (min(height, width) + Fraction(max_size, num_scales) * (t - 1)) / min(height, width)
        truncated = [int(side * factor) for side in (height, width)]
        sizes.append(
            tuple(min(range(step, s + 2 * step, step), key=lambda m, s=s: (abs(m - s), -m)) for s in truncated)
        )
    return sizes


@pytest.mark.parametrize("step", [1, 14, 16, 32])
@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (4, 7), (9, 2)])
@pytest.mark.parametrize(("num_scales", "max_size"), [(7, 1000), (3, 50)])
def test_sides_are_rounded_to_multiples(step, rows, columns, num_scales, max_size):
    height, width = rows * step, columns * step
    sizes = pyramid_sizes(height, width, num_scales, max_size, multiple_of=step)
    assert sizes == literally_rounded(height, width, num_scales, max_size, step)
    assert sizes[0] == (height, width)


def test_explicit_sizes_are_rounded_too_to_one_multiple_at_least():
    assert pyramid_sizes(64, 96, sizes=[64, 70, 80, 81, 5], multiple_of=32) == [
        (64, 96),
        (64, 96),  # 105
        (96, 128),  # 80 and 120 lie half way, or nearer
        (96, 128),
        (32, 32),
    ]
    assert pyramid_sizes(32, 32, sizes=[48], depth=9, multiple_of=16) == [(13, 48, 48)]  # the depth keeps the formula


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (
            {"height": 60, "multiple_of": 14},
            ValueError,
            "60x56 px, which are no multiples of multiple_of=14: crop",
        ),
        ({"multiple_of": 0}, ValueError, "multiple_of must be at least 1, got 0"),
        ({"multiple_of": 14.0}, TypeError, "multiple_of must be an integer, got 14.0"),
    ],
)
def test_what_can_be_no_multiple_is_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        pyramid_sizes(**({"height": 56, "width": 56} | arguments))
