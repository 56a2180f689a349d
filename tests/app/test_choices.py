"""What is computed for a choice on the page."""

from __future__ import annotations

import pytest

from holistic_cam_plugin.app.choices import METHOD_NAMES, check_choice, label_method, name_classes, select_methods
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.methods import Method


def test_one_column_per_method_and_weighting():
    found = select_methods(["gradcam", "holisticcam", "cameras"], ["positive", "pge"], "number", 7, "", True)
    assert found == [
        Method("gradcam", {}),
        Method("holisticcam", {"weighting": "positive", "num_scales": 7}),
        Method("holisticcam", {"weighting": "pge", "num_scales": 7}),
        Method("cameras", {}),
    ]
    assert [label_method(method) for method in found] == [
        "Grad-CAM",
        "Holistic-CAM positive\n7 scales",
        "Holistic-CAM\n7 scales",
        "CAMERAS",
    ]


def test_the_class_mask_has_the_options_of_the_pyramid_and_no_weighting():
    (column,) = select_methods(["classholisticcam"], ["positive"], "number", 3, "", False, amp=True)
    assert column.options == {"num_scales": 3, "fsd": False, "amp": True}
    assert label_method(column) == "Class Holistic-CAM\n3 scales, no mask, bfloat16"
    assert select_methods(["classholisticcam"], [], "number", 7, "", True) == [
        Method("classholisticcam", {"num_scales": 7})
    ]


def test_unusual_options_are_in_the_label():
    (column,) = select_methods(["holisticcam"], ["positive"], "number", 3, " ", False)
    assert column.options == {"weighting": "positive", "num_scales": 3, "fsd": False}
    assert label_method(column) == "Holistic-CAM positive\n3 scales, no mask"
    (column,) = select_methods(["holisticcam"], ["gradient"], "number", 1, "", True)
    assert label_method(column) == "Holistic-CAM gradient\n1 scale"


def test_the_pyramid_says_which_of_its_values_counts():
    (column,) = select_methods(["holisticcam"], ["pge"], "number", 3, "224, 366 509", True)
    assert column.options == {"weighting": "pge", "num_scales": 3}
    (column,) = select_methods(["holisticcam"], ["pge"], "fast", 3, "nonsense", True)
    assert column.options == {"weighting": "pge", "sizes": "fast"}
    (column,) = select_methods(["holisticcam"], ["pge"], "sizes", 3, "224, 366 509", True)
    assert column.options == {"weighting": "pge", "sizes": [224, 366, 509]}
    assert label_method(column) == "Holistic-CAM\n224 366 509 px"


def test_sizes_by_name():
    (column,) = select_methods(["holisticcam"], ["positive"], "fast", 7, "", True)
    assert column.options == {"weighting": "positive", "sizes": "fast"}
    assert label_method(column).endswith("fast sizes")


def test_bfloat16():
    ours, theirs = select_methods(["holisticcam", "gradcam"], ["positive"], "number", 7, "", True, amp=True)
    assert ours.options == {"weighting": "positive", "num_scales": 7, "amp": True}
    assert label_method(ours).endswith("bfloat16")
    assert theirs.options == {}


@pytest.mark.parametrize(
    "sizes", ["224 many", "0", "-224", "224 1501", "100000000000", " ".join(["64"] * 13), "224.5", "", "224 x", "fast"]
)
def test_sizes_that_would_never_end_are_refused(sizes):
    with pytest.raises(UsageError, match="sizes must be at most 12 whole numbers from 1 to 1500 px"):
        select_methods(["holisticcam"], ["pge"], "sizes", 7, sizes, True)


def test_every_choice_is_needed():
    column = Method("gradcam", {})
    for choice, what in (
        (([], ["layer1"], [column]), "class to explain"),
        (([0], [], [column]), "layer"),
        (([0], ["a"], []), "method"),
    ):
        with pytest.raises(UsageError, match=f"choose a {what}$"):
            check_choice(*choice)
    with pytest.raises(UsageError, match="choose a weighting for Holistic-CAM"):
        select_methods(["gradcam", "holisticcam"], [], "number", 7, "", True)


def test_more_than_a_page_holds_is_refused():
    with pytest.raises(UsageError, match=r"97 maps .* at most 96"):
        check_choice([0], [f"layer{n}" for n in range(97)], [Method("gradcam", {})])


def test_names():
    assert name_classes(["crane", "hen", "crane"]) == ["crane (0)", "hen", "crane (2)"]
    assert METHOD_NAMES["holisticcam"] == "Holistic-CAM"
    assert METHOD_NAMES["classholisticcam"] == "Class Holistic-CAM"
