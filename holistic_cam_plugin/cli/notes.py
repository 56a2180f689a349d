"""Notes on standard error: what was assumed, what the maps cost, and which image is explained."""

from __future__ import annotations

import math
import sys

from holistic_cam_plugin.cli.printing import complain
from holistic_cam_plugin.explain import Request
from holistic_cam_plugin.method.pyramid import pyramid_sizes
from holistic_cam_plugin.methods import has_pyramid
from holistic_cam_plugin.models.classifier import Classifier
from holistic_cam_plugin.models.preprocessing import ASSUMED, TELL_ASSUMED
from holistic_cam_plugin.names import FAST, PAPER

__all__ = ["tell_assumed", "tell_image", "tell_pyramid"]


def tell_assumed(classifier: Classifier) -> None:
    """Print a line if nobody describes the model's preprocessing."""
    if classifier.preprocessing.source == ASSUMED:
        complain(
            f"holistic-cam: {classifier.name}: {TELL_ASSUMED}; --model package.module:function may return the model "
            "and its preprocessing"
        )


def tell_pyramid(request: Request) -> None:
    """Print what the default pyramid is and what the paper's would cost, if a method has one."""
    if not any(has_pyramid(method.key) for method in request.methods):
        return
    needed = request.found.options
    options = {"multiple_of": needed.get("multiple_of", 1), "tiles": needed.get("tiles", False)}
    height, width = request.found.size
    fast, paper = (pyramid_sizes(height, width, sizes=name, **options) for name in (FAST, PAPER))
    sides = ", ".join(str(min(scale)) for scale in fast)
    times = sum(map(math.prod, paper)) / sum(map(math.prod, fast))
    complain(
        f"holistic-cam: {len(fast)} scales ({sides} px); --sizes {PAPER} has {len(paper)} and takes about "
        f"{times:.0f} times as long"
    )


def tell_image(name: str, number: int, count: int) -> None:
    """Print which image is explained, where no terminal shows a progress bar."""
    if not sys.stderr.isatty():
        complain(f"holistic-cam: {name} ({number} of {count}) ...")
