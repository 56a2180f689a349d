"""The methods and options that can be chosen on the page, and what is computed for a choice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.method.pyramid import FAST_SIDES
from holistic_cam_plugin.methods import METHODS, Method, display_name
from holistic_cam_plugin.names import FAST

__all__ = [
    "CLASS_HOLISTIC_CAM",
    "DEFAULT_SCALES",
    "HOLISTIC_CAM",
    "METHOD_NAMES",
    "MOST_SCALES",
    "NUMBER",
    "PYRAMIDS",
    "SIZES",
    "WEIGHTINGS",
    "check_choice",
    "label_method",
    "name_classes",
    "select_methods",
]

HOLISTIC_CAM, CLASS_HOLISTIC_CAM = "holisticcam", "classholisticcam"

METHOD_NAMES = {method: display_name(method) for method in METHODS}

WEIGHTINGS = {
    "pge": "PGE, the paper's",
    "positive": "positive gradients",
    "gradient": "raw gradients",
}

# Where the scales of the pyramid come from.
NUMBER, SIZES = "number", "sizes"
PYRAMIDS = {FAST: f"fast: {len(FAST_SIDES)} scales", NUMBER: "the paper's", SIZES: "sizes of my own"}

DEFAULT_SCALES = 7
# Bounds of memory and time: an image of 1500 px takes 45 times those of one of 224 px.
MOST_SCALES = 12
_LARGEST = 1500
# The page holds all the pictures at once.
_MOST_MAPS = 96


def check_choice(targets: Sequence[int], layers: Sequence[str], methods: Sequence[Method]) -> None:
    """Raise UsageError if there is no class, layer or method, or if there are too many maps."""
    for what, chosen in (("class to explain", targets), ("layer", layers), ("method", methods)):
        if not chosen:
            raise UsageError(f"choose a {what}")
    if (number := len(targets) * len(layers) * len(methods)) > _MOST_MAPS:
        raise UsageError(f"{number} maps are more than the page can show: choose at most {_MOST_MAPS}")


def select_methods(
    methods: Sequence[str],
    weightings: Sequence[str],
    pyramid: str,
    num_scales: int,
    sizes: str,
    fsd: bool,
    amp: bool = False,
) -> list[Method]:
    """The methods with their options; the paper's Holistic-CAM once per weighting.

    Args:
        methods: keys of `METHOD_NAMES`.
        weightings: keys of `WEIGHTINGS`.
        pyramid: a key of `PYRAMIDS`, which of the next two it takes.
        num_scales: of the paper's pyramid.
        sizes: the pyramid's shorter sides in pixels, such as `"224 366 509"`.
        fsd: whether the maps of both Holistic-CAMs are masked.
        amp: whether their model runs in bfloat16.

    Raises:
        UsageError: invalid sizes, or Holistic-CAM without a weighting.
    """
    options: dict[str, Any] = {}
    if pyramid == NUMBER:
        options["num_scales"] = int(num_scales)
    else:
        options["sizes"] = _parse_sizes(sizes) if pyramid == SIZES else pyramid
    options |= ({} if fsd else {"fsd": False}) | ({"amp": True} if amp else {})
    if HOLISTIC_CAM in methods and not weightings:
        raise UsageError(f"choose a weighting for {METHOD_NAMES[HOLISTIC_CAM]}")
    found = []
    for method in methods:
        if method == HOLISTIC_CAM:
            found += [Method(method, {"weighting": weighting} | options) for weighting in weightings]
        else:
            found.append(Method(method, options if method == CLASS_HOLISTIC_CAM else {}))
    return found


def _parse_sizes(text: str) -> list[int]:
    words = re.split(r"[\s,]+", text.strip())
    if not all(word.isdecimal() and 1 <= int(word) <= _LARGEST for word in words) or len(words) > MOST_SCALES:
        raise UsageError(
            f"sizes must be at most {MOST_SCALES} whole numbers from 1 to {_LARGEST} px, such as 224 366 509; "
            f"got {text!r}"
        )
    return [int(word) for word in words]


def label_method(method: Method) -> str:
    """The method's name; on a second line, its options that are not the defaults."""
    options, unusual = method.options, []
    if "sizes" in options:
        sizes = options["sizes"]
        unusual.append(f"{sizes} sizes" if isinstance(sizes, str) else " ".join(map(str, sizes)) + " px")
    if "num_scales" in options:
        unusual.append(f"{options['num_scales']} scale" + "s" * (options["num_scales"] > 1))
    if "fsd" in options:
        unusual.append("no mask")
    if "amp" in options:
        unusual.append("bfloat16")
    return "\n".join(filter(None, [method.name, ", ".join(unusual)]))


def name_classes(classes: Sequence[str]) -> list[str]:
    """Make the names of the classes unique: one that several classes share gets the class index."""
    return [name if classes.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(classes)]
