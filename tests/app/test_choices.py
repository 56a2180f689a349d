"""From what is chosen on the page to what is computed."""

from __future__ import annotations

import pytest

from holistic_cam_plugin.app.choices import METHOD_NAMES, Column, chosen, class_names, columns
from holistic_cam_plugin.errors import UsageError


def test_one_column_a_method_and_a_weighting():
    found = columns(["gradcam", "holisticcam", "cameras"], ["positive", "pge"], 7, "", True)
    assert found == [
        Column("gradcam", {}),
        Column("holisticcam", {"weighting": "positive"}),
        Column("holisticcam", {"weighting": "pge"}),
        Column("cameras", {}),
    ]
    assert [column.label for column in found] == ["Grad-CAM", "Holistic-CAM positive", "Holistic-CAM", "CAMERAS"]


def test_what_is_unusual_is_said():
    (column,) = columns(["holisticcam"], ["positive"], 3, " ", False)
    assert column.options == {"weighting": "positive", "num_scales": 3, "fsd": False}
    assert column.label == "Holistic-CAM positive\n3 scales, no mask"
    (column,) = columns(["holisticcam"], ["gradient"], 1, "", True)
    assert column.label == "Holistic-CAM gradient\n1 scale"


def test_sizes_take_the_place_of_the_number():
    (column,) = columns(["holisticcam"], ["pge"], 3, "224, 366 509", True)
    assert column.options == {"weighting": "pge", "sizes": [224, 366, 509]}
    assert column.label == "Holistic-CAM\n224 366 509 px"


def test_sizes_by_name():
    (column,) = columns(["holisticcam"], ["positive"], 7, " Fast ", True)
    assert column.options == {"weighting": "positive", "sizes": "fast"}
    assert column.label.endswith("fast sizes")


def test_bfloat16():
    ours, theirs = columns(["holisticcam", "gradcam"], ["positive"], 7, "", True, amp=True)
    assert ours.options == {"weighting": "positive", "amp": True}
    assert ours.label.endswith("bfloat16")
    assert theirs.options == {}


@pytest.mark.parametrize("sizes", ["224 many", "0", "-224", "224 1501", "100000000000", " ".join(["64"] * 13), "224.5"])
def test_sizes_that_would_never_end_are_refused(sizes):
    with pytest.raises(UsageError, match="sizes are at most 12 whole numbers from 1 to 1500 px"):
        columns(["holisticcam"], ["pge"], 7, sizes, True)


def test_every_choice_is_needed():
    column = Column("gradcam", {})
    for choice, what in (
        (([], ["layer1"], [column]), "class"),
        (([0], [], [column]), "layer"),
        (([0], ["a"], []), "m"),
    ):
        with pytest.raises(UsageError, match=f"choose a {what}"):
            chosen(*choice)
    with pytest.raises(UsageError, match="choose a weighting for Holistic-CAM"):
        columns(["gradcam", "holisticcam"], [], 7, "", True)


def test_more_than_a_page_holds_is_refused():
    with pytest.raises(UsageError, match=r"97 maps .* at most 96"):
        chosen([0], [f"layer{n}" for n in range(97)], [Column("gradcam", {})])


def test_names():
    assert class_names(["crane", "hen", "crane"]) == ["crane (0)", "hen", "crane (2)"]
    assert METHOD_NAMES["holisticcam"] == "Holistic-CAM"
    assert not {"holisticcampositive", "holisticcamgated"} & METHOD_NAMES.keys()  # the weighting is chosen beside it
