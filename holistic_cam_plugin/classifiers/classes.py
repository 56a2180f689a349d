"""Classes by index or by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from holistic_cam_plugin.errors import UsageError, near_matches

__all__ = ["class_indices"]


def class_indices(targets: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The index of every class, given as an index or as a name (upper and lower case are the same).

    What is both is a name: that of classes that are numbers.

    Raises:
        UsageError: unknown (near matches are named), out of range, or a name that two classes share.
    """
    return [_class_index(target, classes) for target in targets]


def _class_index(target: str, classes: Sequence[str]) -> int:
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
