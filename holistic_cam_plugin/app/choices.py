"""What is to be computed, from what a person chose on the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from holistic_cam_plugin.baselines.by_name import METHODS, display_name
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.method.pyramid import NAMED

__all__ = [
    "DEFAULT_SCALES",
    "METHOD_NAMES",
    "MOST_SCALES",
    "WEIGHTINGS",
    "Choice",
    "Column",
    "chosen",
    "class_names",
    "columns",
]

HOLISTIC_CAM = "holisticcam"

# Columns of their own on the command line, a choice of weighting here.
_VARIANTS = ("holisticcampositive", "holisticcamgated")

METHOD_NAMES = {method: display_name(method) for method in METHODS if method not in _VARIANTS}

WEIGHTINGS = {
    "positive": "positive gradients",
    "pge": "PGE, the paper's",
    "gradient": "raw gradients",
}

DEFAULT_SCALES = 7
# A pyramid is as large as its memory and time: 1500 px take 45 times those of 224 px.
MOST_SCALES = 12
_LARGEST = 1500
# The page holds all the pictures at once.
_MOST_MAPS = 96


class Column(NamedTuple):
    """A method with its options: one column of maps."""

    method: str  # key of METHODS
    options: dict[str, Any]  # of HolisticCAM, where they are not its defaults; of other methods none

    @property
    def label(self) -> str:
        """Above the column; what is unusual on a second line."""
        weighting = self.options.get("weighting", "pge")
        name = METHOD_NAMES[self.method] + ("" if weighting == "pge" else f" {weighting}")
        unusual = []
        if "sizes" in self.options:
            sizes = self.options["sizes"]
            unusual.append(f"{sizes} sizes" if isinstance(sizes, str) else " ".join(map(str, sizes)) + " px")
        if "num_scales" in self.options:
            unusual.append(f"{self.options['num_scales']} scale" + "s" * (self.options["num_scales"] > 1))
        if "fsd" in self.options:
            unusual.append("no mask")
        if "amp" in self.options:
            unusual.append("bfloat16")
        return "\n".join(filter(None, [name, ", ".join(unusual)]))


class Choice(NamedTuple):
    """The maps to compute: all the classes, in all the layers, by all the columns."""

    targets: list[int]
    layers: list[str]
    columns: list[Column]

    @property
    def number(self) -> int:
        """How many."""
        return len(self.targets) * len(self.layers) * len(self.columns)


def chosen(targets: Sequence[int], layers: Sequence[str], columns: Sequence[Column]) -> Choice:
    """The choice.

    Raises:
        UsageError: nothing is chosen of one of them, or too much.
    """
    for what, some in (("class", targets), ("layer", layers), ("method", columns)):
        if not some:
            raise UsageError(f"choose a {what} to explain" if what == "class" else f"choose a {what}")
    choice = Choice(list(targets), list(layers), list(columns))
    if choice.number > _MOST_MAPS:
        raise UsageError(f"{choice.number} maps are more than a page can show: choose at most {_MOST_MAPS}")
    return choice


def columns(
    methods: Sequence[str], weightings: Sequence[str], num_scales: int, sizes: str, fsd: bool, amp: bool = False
) -> list[Column]:
    """One column a method, and of Holistic-CAM one a weighting.

    Args:
        methods: keys of `METHOD_NAMES`.
        weightings: keys of `WEIGHTINGS`.
        num_scales: of the pyramid.
        sizes: its shorter sides in pixels instead, `"224 366 509"`, or the name of such; empty for none.
        fsd: with the mask.
        amp: the model in bfloat16.

    Raises:
        UsageError: sizes that can't be meant, or Holistic-CAM without a weighting.
    """
    pyramid: dict[str, Any] = {}
    if sizes.strip():
        pyramid["sizes"] = _sizes(sizes)
    elif num_scales != DEFAULT_SCALES:
        pyramid["num_scales"] = int(num_scales)
    others = ({} if fsd else {"fsd": False}) | ({"amp": True} if amp else {})
    if HOLISTIC_CAM in methods and not weightings:
        raise UsageError(f"choose a weighting for {METHOD_NAMES[HOLISTIC_CAM]}")
    found = []
    for method in methods:
        if method == HOLISTIC_CAM:
            found += [Column(method, {"weighting": weighting} | pyramid | others) for weighting in weightings]
        else:
            found.append(Column(method, {}))
    return found


def class_names(classes: Sequence[str]) -> list[str]:
    """A name of its own for each class: one that several share gets the class's index."""
    return [name if classes.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(classes)]


def _sizes(text: str) -> list[int] | str:
    if (name := text.strip().lower()) in NAMED:
        return name
    words = re.split(r"[\s,]+", text.strip())
    if not all(word.isdecimal() and 1 <= int(word) <= _LARGEST for word in words) or len(words) > MOST_SCALES:
        raise UsageError(
            f"sizes are at most {MOST_SCALES} whole numbers from 1 to {_LARGEST} px, such as 224 366 509, or "
            f"{', '.join(NAMED)}; got {text!r}"
        )
    return [int(word) for word in words]
