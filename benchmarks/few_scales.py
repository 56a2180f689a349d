"""A study of pyramids that cost a sixth of the paper's: few scales, other sizes, and windows around the class.

A candidate is one line of `CANDIDATES`. Decide with the tuned half of the photographs, then report once with table1 on
the reported half. The mask layer is the last of `--layers`, the model's deepest.

  python -m benchmarks.few_scales --model squeezenet1_0 --weights squeezenet1_0.pth --images photos --grid --half tuned
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from benchmarks.harness.measures import make_evaluate
from benchmarks.harness.methods import MapsByMethod
from benchmarks.harness.runner import Evaluate, run_main
from benchmarks.harness.study import check_study, make_study_parser, run_study
from benchmarks.harness.views import (
    WHOLE,
    Eye,
    View,
    cover_square,
    find_square,
    fuse_views,
    mask_class,
    sum_maps,
)
from holistic_cam_plugin import min_max_normalize, pyramid_sizes
from holistic_cam_plugin.method.pyramid import SIDE

__all__ = ["CANDIDATES", "Candidate", "Crops", "explain_candidates"]

STRIDE = 32
SEVEN = tuple(height for height, _ in pyramid_sizes(SIDE, SIDE)[1:])  # without the base scale

Map = NDArray[np.float32]


class Crops(NamedTuple):
    """Windows around the class that are enlarged.

    Attributes:
        side: to which each window is resized, in pixels.
        per_side: windows along each side of the square.
        share: of the square's side that a window has.
        level: of the mask's maximum, above which the square holds it.
        grow: factor of the square's side.
        alone: the map is made of the windows alone; outside of them it is zero.
        by_score: the windows' share in the means is the class's score in them, in units of the image's score.
    """

    side: int
    per_side: int = 1
    share: float = 1.0
    level: float = 0.35
    grow: float = 1.1
    alone: bool = False
    by_score: bool = False


class Candidate(NamedTuple):
    """Settings of a pyramid; sizes are sides in pixels for images of 224 px, and in proportion for others.

    Attributes:
        sizes: that are fused.
        base: another size, which counts in the mask only; None for none.
        crops: None for none. Their square is that of the mask of the sizes above.
        mean_of_products: in place of the product of means.
        fuse_base: the base size is fused, too.
    """

    sizes: tuple[int, ...] = ()
    base: int | None = SIDE
    crops: Crops | None = None
    mean_of_products: bool = False
    fuse_base: bool = False

    def count_pixels(self) -> float:
        """Pixels that the model sees, in images of 224 px. The original is one, as it decides the class."""
        sides = {SIDE, *self.sizes} | ({self.base} if self.base else set())
        total = sum(side * side for side in sides)
        if self.crops is not None:
            total += self.crops.side**2 * self.crops.per_side**2
        return total / SIDE**2

    def explain(self, eye: Eye, layers: int) -> list[Map]:
        """The maps of the layers, `(H, W)` in [0, 1]."""
        size = eye.size
        base = [] if self.base is None else [eye.look(scale_side(self.base, size[0]))]
        scales = [eye.look(scale_side(side, size[0])) for side in self.sizes]
        crops = self._look_closer(eye, [*base, *scales])
        mask = mask_class([*base, *scales, *crops], size)
        alone = self.crops is not None and self.crops.alone
        views = [*(base if self.fuse_base else []), *([] if alone else scales), *crops]
        shares = None
        if self.crops is not None and self.crops.by_score:
            best = max(view.score for view in [*base, *scales])
            shares = [1.0 if view.window == WHOLE else min(max(view.score / best, 0.01), 1.0) for view in views]
        fused = [
            sum_maps(views, layer, size) if self.mean_of_products else fuse_views(views, layer, size, shares)
            for layer in range(layers)
        ]
        return [min_max_normalize(primary_map.astype(np.float64) * mask) for primary_map in fused]

    def _look_closer(self, eye: Eye, views: Sequence[View]) -> list[View]:
        if self.crops is None:
            return []
        square = find_square(mask_class(views, eye.size), self.crops.level, self.crops.grow, 0.35)
        windows = cover_square(square, self.crops.per_side, self.crops.share)
        return [eye.look(scale_side(self.crops.side, eye.size[0]), window) for window in windows]


def scale_side(side: int, height: int) -> int:
    """The side for images of another height; those of 32 k + 1 pixels stay so."""
    if side % STRIDE == 1:
        return round((side - 1) * height / SIDE / STRIDE) * STRIDE + 1
    return side * height // SIDE


CANDIDATES = {
    "seven scales": Candidate(SEVEN),
    "seven scales, 32 k + 1": Candidate((353, 513, 641, 801, 929, 1089), base=225),
    # Scales alone.
    "224, 366, 509 without 224": Candidate((366, 509)),
    "366, 652": Candidate((366, 652)),
    "353, 577": Candidate((353, 577)),
    "353, 609": Candidate((353, 609)),
    "353, 641": Candidate((353, 641)),
    "321, 609": Candidate((321, 609)),
    "385, 577": Candidate((385, 577)),
    "577": Candidate((577,)),
    "289, 385, 513": Candidate((289, 385, 513)),
    "289, 417, 545": Candidate((289, 417, 545)),
    "257, 353, 577": Candidate((257, 353, 577)),
    "353, 577 and 225 in the mask": Candidate((353, 577), base=225),
    "353, 609 and 225 in the mask": Candidate((353, 609), base=225),
    "225, 353, 577": Candidate((353, 577), base=225, fuse_base=True),
    "353, 609, mask of these": Candidate((353, 609), base=None),
    "353, 609, mean of products": Candidate((353, 609), mean_of_products=True),
    # Windows.
    "1 + 4": Candidate(crops=Crops(224, 2, 2 / 3, 0.1, 1.2), fuse_base=True),
    "1 + 4, mean of products": Candidate(crops=Crops(224, 2, 2 / 3, 0.1, 1.2), fuse_base=True, mean_of_products=True),
    "1 + 9": Candidate(crops=Crops(224, 3, 0.4, 0.1, 1.2), fuse_base=True),
    "4 of 336 px alone": Candidate(crops=Crops(336, 2, 0.55, 0.1, 1.2, alone=True)),
    "353 and the square at 577": Candidate((353,), crops=Crops(577)),
    "353 and the square at 577 by score": Candidate((353,), crops=Crops(577, by_score=True)),
    "the square at 577 alone": Candidate((353,), crops=Crops(577, alone=True)),
    "the wider square at 577 alone": Candidate((353,), crops=Crops(577, level=0.25, alone=True)),
}


def explain_candidates(
    model: nn.Module,
    layers: Sequence[str],
    candidates: Mapping[str, Candidate],
    image: Tensor,
    target: ClassifierOutputTarget,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> MapsByMethod:
    """Compute the maps of all candidates in each layer; the last layer's evidence is the mask."""
    eye = Eye(model, [model.get_submodule(name) for name in layers], image, target)
    maps = {name: candidate.explain(eye, len(layers)) for name, candidate in candidates.items()}
    return {(layer, name): maps[name][place] for place, layer in enumerate(layers) for name in candidates}


def make(arguments: argparse.Namespace) -> Evaluate:
    """Load the model, and build the function that evaluates one image."""
    return make_evaluate(arguments, explain_candidates, {name: CANDIDATES[name] for name in arguments.candidates})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    arguments = make_study_parser(__doc__, CANDIDATES).parse_args(argv)
    check_study(arguments, CANDIDATES)
    run_study(make, arguments, "few_scales")


if __name__ == "__main__":
    run_main(main)
