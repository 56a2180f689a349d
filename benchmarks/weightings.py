"""Candidates for the weights, the mask and the fusion, all of them made of one pyramid an image.

A candidate is one line of `CANDIDATES`. The older ones each vary one thing of one setting ("square, box 31, power 3").
Decide on `--half tuned`, then report once on `--half reported` with table1. For the bundled digits, tuned scenes are
made of the digits and photographs that the model was trained on. `--candidates "S*"` are those of the study of maps
that show the object.

  python -m benchmarks.weightings --model squeezenet1_0 --weights squeezenet1_0.pth --images photos --grid --half tuned

--figure draws Fig. 4 instead: what weights add to the activations of the untouched image. Their plain sum, one weight a
channel (the mean of its gradient, as in Grad-CAM), one weight an element (the positive gradient weight, eq. 8).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.candidates import Candidate, Mask, Pyramid, Weigh, candidate_maps, mean_of_maps, raw_gradients
from benchmarks.harness.data import load
from benchmarks.harness.figures import save_panels
from benchmarks.harness.measures import COLUMNS, METRICS, check_metrics, evaluation
from benchmarks.harness.models import load_model
from benchmarks.harness.report import print_report
from benchmarks.harness.runner import Evaluate, command, prepared, run
from holistic_cam_plugin.errors import UsageError, near_matches
from holistic_cam_plugin.method.gated import gated_weights
from holistic_cam_plugin.method.pge import positive_gradient_weights
from holistic_cam_plugin.method.variation import gradient_variation, largest_magnitude

__all__ = ["CANDIDATES", "CENTRE", "CHOSEN", "FIGURE", "STUDY"]

Map = NDArray[np.float32]


def ones(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    """No weights: the plain sum of the activations."""
    return torch.ones_like(activations)


def gated(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    """The deprecated gate."""
    return gated_weights(gradients)


def channel_means(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    """One weight a channel, as in Grad-CAM."""
    return gradients.mean(dim=(-2, -1), keepdim=True).expand_as(gradients)


def relu(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    """The positive gradients as they are."""
    return gradients.clamp(min=0)


def raw_where_constant(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    """Positive gradients as far as a channel's gradient varies over the positions, raw ones as far as it does not."""
    variation = _by_channel(gradients)
    return variation * gradients.clamp(min=0) + (1 - variation) * gradients


def gated_by_channel(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    """The gate of every channel by itself."""
    return _mixed(gradients, _by_channel(gradients), _power(gradients, 2))


def gated_over_all_positions(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    """The gate over all the positions, those that the gradient does not reach included."""
    scaled = gradients / largest_magnitude(gradients)
    constant = scaled.mean(dim=(-2, -1)).square().sum() * scaled[0, 0].numel()
    return _mixed(gradients, (1 - constant / scaled.square().sum()).nan_to_num(0), _power(gradients, 2))


def gated_pge(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    """The paper's positive gradients behind the gate."""
    return _mixed(gradients, gradient_variation(gradients), positive_gradient_weights(activations, gradients, eps))


def gated_power(power: int) -> Weigh:
    """Another power of the positive gradients behind the gate."""
    return lambda activations, gradients, eps: _mixed(
        gradients, gradient_variation(gradients), _power(gradients, power)
    )


def rms(k: float) -> Weigh:
    """PGE without S, and with an eps that follows the gradient: k times its mean square."""

    def weigh(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
        square = gradients.square()
        mean = square.mean(dim=tuple(range(1, gradients.ndim)), keepdim=True)
        tiny = torch.finfo(square.dtype).tiny
        return gradients.clamp(min=0) * square / (2 * square + k * mean).clamp(min=tiny)

    return weigh


def by_positions(pyramid: Pyramid) -> list[float]:
    """Gradients shrink with the number of positions; its root makes up for half of it."""
    return [gradients[0].numel() ** 0.5 for gradients in pyramid.gradients]


def equal_norms(pyramid: Pyramid) -> list[float]:
    """Every scale's gradient has the same norm."""
    return [1 / (float(gradients.norm()) or 1.0) for gradients in pyramid.gradients]


def constancy(factor: float) -> Callable[[Pyramid], float]:
    """A multiple of what of the base scale's gradient does not vary over the positions: all of it in deep layers."""
    return lambda pyramid: factor * (1 - float(gradient_variation(pyramid.gradients[0][None])))


def share(evidence: Map, against: Map, power: float) -> Map:
    """The evidence times a power of its share in all the evidence, for and against."""
    total = np.maximum(evidence + against, np.finfo(np.float32).tiny)
    return np.asarray(evidence * (evidence / total) ** power, dtype=np.float32)


def difference(evidence: Map, against: Map, factor: float) -> Map:
    """The evidence for the class minus a part of that against it."""
    return np.maximum(evidence - np.float32(factor) * against, 0)


def equal_gradients(pyramid: Pyramid) -> list[float]:
    """Scales whose gradients are small count as much as the others."""
    return [1 / (float(gradients.abs().mean()) or 1.0) for gradients in pyramid.gradients]


def by_probability(pyramid: Pyramid) -> list[float]:
    """Scales count as the model is sure of the class in them."""
    return pyramid.probabilities()


def _by_channel(gradients: Tensor) -> Tensor:
    """The variation of each channel's gradient, `(1, C, 1, 1)`."""
    return gradient_variation(gradients.transpose(0, 1)).view(1, -1, 1, 1)


def _mixed(gradients: Tensor, variation: Tensor, positive: Tensor) -> Tensor:
    share = torch.nan_to_num(gradients.abs().double().sum() / positive.double().sum(), posinf=0.0)
    return (positive * share).float() * variation + gradients * (1 - variation)


def _power(gradients: Tensor, power: int) -> Tensor:
    return (gradients / largest_magnitude(gradients)).clamp(min=0) ** power


PGE = positive_gradient_weights
TIGHT = Mask(box=31, power=3.0)
OWN = Mask(blur=1, own=True)
CENTRE = "square, box 31, power 3"
CHOSEN = "power 4"  # what `HolisticCAM(weighting="gated")` is, by what this study showed
CANDIDATES = {
    "pge, paper's mask": Candidate(PGE),
    "gradient, paper's mask": Candidate(raw_gradients),
    "gated, paper's mask": Candidate(gated),
    CENTRE: Candidate(gated, TIGHT),
    "pge": Candidate(PGE, TIGHT),
    "gradient": Candidate(raw_gradients, TIGHT),
    "linear": Candidate(gated_power(1), TIGHT),
    "cube": Candidate(gated_power(3), TIGHT),
    "pge behind the gate": Candidate(gated_pge, TIGHT),
    "gate by channel": Candidate(gated_by_channel, TIGHT),
    "gate over all positions": Candidate(gated_over_all_positions, TIGHT),
    "box 61": Candidate(gated, Mask(box=61, power=3.0)),
    "box 91": Candidate(gated, Mask(box=91, power=3.0)),
    "power 0.5": Candidate(gated, Mask(box=31, power=0.5)),
    "power 1": Candidate(gated, Mask(box=31, power=1.0)),
    "power 2": Candidate(gated, Mask(box=31, power=2.0)),
    CHOSEN: Candidate(gated, Mask(box=31, power=4.0)),
    "blur 27": Candidate(gated, Mask(27, 31, 3.0)),
    "blur 75": Candidate(gated, Mask(75, 31, 3.0)),
    "mask of gradients": Candidate(gated, TIGHT, base=raw_gradients),
    "mask of pge": Candidate(gated, TIGHT, base=PGE),
    "scales of equal gradients": Candidate(gated, TIGHT, shares=equal_gradients),
    "scales by probability": Candidate(gated, TIGHT, shares=by_probability),
    # Those of the study of maps that show the object. All but the first are free of the logits' scale.
    "pge, split signs": Candidate(PGE, split=True),
    "S relu": Candidate(relu, split=True),
    "S relu, no mask": Candidate(relu, None, split=True),
    "S relu, half mask": Candidate(relu, Mask(power=0.5), split=True),
    "S relu, own mask": Candidate(relu, OWN, split=True),
    "S relu, own mask, positions": Candidate(relu, OWN, split=True, shares=by_positions),
    "S relu, own mask, equal norms": Candidate(relu, OWN, split=True, shares=equal_norms),
    "S relu, mean of maps": Candidate(relu, Mask(power=0.5), split=True, fusion=mean_of_maps),
    "S rms 1": Candidate(rms(1), split=True),
    "S rms 10": Candidate(rms(10), split=True),
    "S rms 100": Candidate(rms(100), split=True),
    "S rms 10, mean of maps": Candidate(rms(10), Mask(power=0.5), split=True, fusion=mean_of_maps),
    "S minus 1/2, own mask": Candidate(relu, OWN, split=True, against=0.5, outweighed=difference),
    "S relu, mask with a floor": Candidate(relu, Mask(floor=0.25), split=True),
    "S relu, fading mask": Candidate(relu, Mask(fades=True), split=True),
    "S channels raw where constant": Candidate(raw_where_constant, split=True),
    "S deep share": Candidate(relu, split=True, against=constancy(1), outweighed=share),
    "S deep share squared": Candidate(relu, split=True, against=constancy(2), outweighed=share),
    "S share, own mask": Candidate(relu, OWN, split=True, against=1, outweighed=share),
    "S share squared, own mask": Candidate(relu, OWN, split=True, against=2, outweighed=share),
    "S deep share, own mask, positions": Candidate(
        relu, OWN, split=True, against=constancy(1), outweighed=share, shares=by_positions
    ),
    "S deep share squared, own mask, positions": Candidate(
        relu, OWN, split=True, against=constancy(2), outweighed=share, shares=by_positions
    ),
    "S deep share squared, own mask, positions, three scales": Candidate(
        relu, OWN, split=True, against=constancy(2), outweighed=share, shares=by_positions, scales=3
    ),
}
STUDY = ["pge, paper's mask", CHOSEN, "pge, split signs", *(name for name in CANDIDATES if name.startswith("S "))]
FIGURE = {
    "activation sum": Candidate(ones, None, scales=1),
    "channel-wise": Candidate(channel_means, None, scales=1),
    "element-wise": Candidate(PGE, None, scales=1),
}


def make(arguments: argparse.Namespace) -> Evaluate:
    """The evaluation of one image, with the model loaded."""
    return evaluation(arguments, candidate_maps, {name: CANDIDATES[name] for name in arguments.candidates})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment, or draw one PNG an image into the folder `weightings`."""
    parser = experiment_parser(__doc__)
    parser.add_argument("--metrics", nargs="+", default=["ins", "del", "epg"], help=", ".join(METRICS))
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), metavar="NAME", help="; ".join(CANDIDATES))
    parser.add_argument("--figure", action="store_true", help="draw Fig. 4, of 4 images if --samples names no number")
    arguments = parser.parse_args(argv)
    check_metrics(arguments.metrics)
    if arguments.candidates == ["S*"]:
        arguments.candidates = STUDY
    for name in arguments.candidates:
        if name not in CANDIDATES:
            raise UsageError(f"no candidate {name!r}{near_matches(name, CANDIDATES)}; known: {'; '.join(CANDIDATES)}")
    if arguments.figure:
        _draw(arguments)
        return
    path = run(make, arguments, prepared(arguments), COLUMNS, "weightings")
    print_report([path], arguments.model, reference=arguments.candidates[0])


def _draw(arguments: argparse.Namespace) -> None:
    """One row of panels a layer."""
    if arguments.samples is None:
        arguments.samples = 4
    tasks = prepared(arguments)
    classifier = load_model(arguments)
    options = classifier.found.at(arguments.layers).options
    for task in tasks:
        image = load(task.sample, classifier).image
        target = ClassifierOutputTarget(task.sample.label)
        maps = candidate_maps(classifier.model, arguments.layers, FIGURE, image, target, options)
        picture = classifier.preprocessing.shown(image)
        rows = [(layer, picture, [(name, maps[layer, name]) for name in FIGURE]) for layer in arguments.layers]
        path = arguments.output / "weightings" / f"{task.sample.name.replace('/', '_')}.png"
        save_panels(path, rows)
        print(path)


if __name__ == "__main__":
    command(main)
