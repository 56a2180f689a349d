"""A study of weights, masks and fusions: all candidates are computed from the same passes through the model.

A candidate is one line of `CANDIDATES`. Decide with `--half tuned`, then report once with `--half reported` and table1.
The tuned scenes of digits are made of digits and photographs that the bundled model was trained on.

  python -m benchmarks.weightings --model squeezenet1_0 --weights squeezenet1_0.pth --images photos --grid --half tuned

--figure draws Fig. 4 instead: the sum of the original image's activations without weights, with one weight per channel
(the mean of its gradient, as in Grad-CAM) and with one weight per element (positive gradient weights, eq. 8).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from benchmarks.harness.candidates import Candidate, Mask, Pyramid, Size, Weigh, explain_candidates
from benchmarks.harness.data import load
from benchmarks.harness.figures import save_panels
from benchmarks.harness.measures import make_evaluate
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import Evaluate, choose_tasks, run_main
from benchmarks.harness.study import check_study, make_study_parser, run_study
from benchmarks.harness.variation import gradient_variation
from holistic_cam_plugin import fuse
from holistic_cam_plugin.method.pge import positive_gradient_weights

__all__ = ["CANDIDATES", "FIGURE"]

Map = NDArray[np.float32]


def relu(activations: Tensor, gradients: Tensor) -> Tensor:
    """The positive gradients, unchanged."""
    return gradients.clamp(min=0)


def raw_where_constant(activations: Tensor, gradients: Tensor) -> Tensor:
    """Positive gradients mixed with raw ones: the less a channel's gradient varies, the more of the raw gradient."""
    variation = gradient_variation(gradients.transpose(0, 1)).view(1, -1, 1, 1)
    return variation * gradients.clamp(min=0) + (1 - variation) * gradients


def rms(k: float) -> Weigh:
    """PGE without S, with an eps of k times the mean square of the gradient."""

    def weigh(activations: Tensor, gradients: Tensor) -> Tensor:
        square = gradients.square()
        mean = square.mean(dim=tuple(range(1, gradients.ndim)), keepdim=True)
        tiny = torch.finfo(square.dtype).tiny
        return gradients.clamp(min=0) * square / (2 * square + k * mean).clamp(min=tiny)

    return weigh


def mean_of_maps(activations: Sequence[Tensor], weights: Sequence[Tensor], size: Size) -> Tensor:
    """The mean of each scale's own map scaled to [0, 1], `(H, W)`, instead of the paper's product of means."""
    maps = [fuse([a], [w], size) for a, w in zip(activations, weights, strict=True)]
    tiny = torch.finfo(maps[0].dtype).tiny
    return torch.stack([(m - m.min()) / (m.max() - m.min()).clamp(min=tiny) for m in maps]).mean(dim=0)


def by_root(pyramid: Pyramid) -> list[float]:
    """The square root of each scale's number of positions; gradients shrink with that number."""
    return [gradients[0].numel() ** 0.5 for gradients in pyramid.gradients]


def equal_norms(pyramid: Pyramid) -> list[float]:
    """Weights that give each scale's gradient the same norm."""
    return [1 / (float(gradients.norm()) or 1.0) for gradients in pyramid.gradients]


def base_variation(pyramid: Pyramid) -> float:
    """How much the base scale's gradient varies over the positions: 0 in a layer that is pooled next."""
    return float(gradient_variation(pyramid.gradients[0][None]))


def constancy(factor: float) -> Callable[[Pyramid], float]:
    """`factor` times the part of the base scale's gradient that is constant: all of it in deep layers."""
    return lambda pyramid: factor * (1 - base_variation(pyramid))


def share(evidence: Map, against: Map, power: float) -> Map:
    """The evidence times a power of its share of all evidence, for and against the class."""
    total = np.maximum(evidence + against, np.finfo(np.float32).tiny)
    return np.asarray(evidence * (evidence / total) ** power, dtype=np.float32)


def difference(evidence: Map, against: Map, factor: float) -> Map:
    """The evidence for the class minus `factor` times the evidence against it."""
    return np.maximum(evidence - np.float32(factor) * against, 0)


PGE = positive_gradient_weights
OWN = Mask(blur=1, own=True)
# The paper's weights come first; all others do not depend on the scale of the logits.
CANDIDATES = {
    "pge, paper's mask": Candidate(PGE),
    "pge, split signs": Candidate(PGE, split=True),
    "S relu": Candidate(relu, split=True),
    "S relu, no mask": Candidate(relu, None, split=True),
    "S relu, half mask": Candidate(relu, Mask(power=0.5), split=True),
    "S relu, own mask": Candidate(relu, OWN, split=True),
    "S relu, own mask, positions": Candidate(relu, OWN, split=True, shares=by_root),
    "S relu, own mask, equal norms": Candidate(relu, OWN, split=True, shares=equal_norms),
    "S relu, mean of maps": Candidate(relu, Mask(power=0.5), split=True, fusion=mean_of_maps),
    "S rms 1": Candidate(rms(1), split=True),
    "S rms 10": Candidate(rms(10), split=True),
    "S rms 100": Candidate(rms(100), split=True),
    "S rms 10, mean of maps": Candidate(rms(10), Mask(power=0.5), split=True, fusion=mean_of_maps),
    "S minus 1/2, own mask": Candidate(relu, OWN, split=True, combine=difference, against=0.5),
    "S relu, mask with a floor": Candidate(relu, Mask(floor=0.25), split=True),
    "S relu, fading mask": Candidate(relu, Mask(power=base_variation), split=True),
    "S channels raw where constant": Candidate(raw_where_constant, split=True),
    "S deep share": Candidate(relu, split=True, combine=share, against=constancy(1)),
    "S deep share squared": Candidate(relu, split=True, combine=share, against=constancy(2)),
    "S share, own mask": Candidate(relu, OWN, split=True, combine=share, against=1),
    "S share squared, own mask": Candidate(relu, OWN, split=True, combine=share, against=2),
    "S deep share, own mask, positions": Candidate(
        relu, OWN, split=True, combine=share, against=constancy(1), shares=by_root
    ),
    "S deep share squared, own mask, positions": Candidate(
        relu, OWN, split=True, combine=share, against=constancy(2), shares=by_root
    ),
    "S deep share squared, own mask, positions, three scales": Candidate(
        relu, OWN, split=True, combine=share, against=constancy(2), shares=by_root, scales=range(3)
    ),
}
FIGURE = {
    "activation sum": Candidate(lambda a, g: torch.ones_like(a), None, scales=(0,)),
    "channel-wise": Candidate(lambda a, g: g.mean(dim=(-2, -1), keepdim=True).expand_as(g), None, scales=(0,)),
    "element-wise": Candidate(PGE, None, scales=(0,)),
}


def make(arguments: argparse.Namespace) -> Evaluate:
    """Load the model, and build the function that evaluates one image."""
    return make_evaluate(arguments, explain_candidates, {name: CANDIDATES[name] for name in arguments.candidates})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment, or draw one PNG per image into the folder `weightings`."""
    parser = make_study_parser(__doc__, CANDIDATES)
    parser.add_argument("--figure", action="store_true", help="draw Fig. 4, of 4 images unless --samples is given")
    arguments = parser.parse_args(argv)
    check_study(arguments, CANDIDATES)
    if arguments.figure:
        _draw(arguments)
        return
    run_study(make, arguments, "weightings")


def _draw(arguments: argparse.Namespace) -> None:
    """Draw one row of panels per layer."""
    if arguments.samples is None:
        arguments.samples = 4
    tasks = choose_tasks(arguments)
    classifier = load_model(arguments)
    options = classifier.at(arguments.layers).options
    for task in tasks:
        image = load(task.sample, classifier).image
        target = ClassifierOutputTarget(task.sample.label)
        maps = explain_candidates(classifier.model, arguments.layers, FIGURE, image, target, options)
        picture = classifier.preprocessing.denormalize(image)
        rows = [(layer, picture, [(name, maps[layer, name]) for name in FIGURE]) for layer in arguments.layers]
        path = arguments.output / "weightings" / f"{task.sample.name.replace('/', '_')}.png"
        save_panels(path, rows)
        print(path)


if __name__ == "__main__":
    run_main(main)
