"""Classes by index and by name."""

from __future__ import annotations

import pytest

from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.classes import find_classes
from tests.models.files import CLASSES


def test_indices_and_names_in_the_order_given():
    assert find_classes(["HEN", "0", "bee", "hen"], CLASSES) == [2, 0, 1, 2]


@pytest.mark.parametrize(
    ("target", "classes", "message"),
    [
        ("heen", CLASSES, "the model has no class 'heen'; did you mean hen?"),
        ("3", CLASSES, "class 3 is out of range: the model has classes 0 to 2"),
        ("-1", CLASSES, "class -1 is out of range"),
        ("--5", CLASSES, "the model has no class '--5'"),
        ("9" * 5000, CLASSES, "the model has no class '999"),
        ("hen", ("hen", "hen", "bee"), "2 classes are called 'hen': name one by its index, 0 or 1"),
    ],
)
def test_classes_that_can_not_be_meant(target, classes, message):
    with pytest.raises(UsageError) as error:
        find_classes([target], classes)
    assert message in str(error.value)
