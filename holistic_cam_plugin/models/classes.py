"""Find classes by index or by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from holistic_cam_plugin.errors import UsageError, near_matches

__all__ = ["find_classes"]


def find_classes(targets: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Find the index of each class, which is given as an index or as a name in upper or lower case.

    A number that is also the name of a class is taken as the name.

    Raises:
        UsageError: a class does not exist, or several classes have the name.
    """
    return [_find_class(target, classes) for target in targets]


def _find_class(target: str, classes: Sequence[str]) -> int:
    if target not in classes and re.fullmatch(r"-?\d{1,9}", target):
        index = int(target)
        if not 0 <= index < len(classes):
            raise UsageError(f"class {index} is out of range: the model has classes 0 to {len(classes) - 1}")
        return index
    found = [index for index, name in enumerate(classes) if name.lower() == target.lower()]
    if not found:
        raise UsageError(f"the model has no class {target!r:.200}{near_matches(target, classes)}")
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} classes are called {target!r}: name one by its index, {' or '.join(map(str, found))}"
        )
    return found[0]
