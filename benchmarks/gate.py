"""The open choices of the gated weights and of their mask, each varied around one setting ("square", box 31, power 3).

Decide on `--half tuned`, then report once on `--half reported` with table1. For the bundled digits, tuned scenes
are made of the digits and photographs that the model was trained on.

  python -m benchmarks.gate --model squeezenet1_0 --weights squeezenet1_0.pth --images photos --grid --half tuned
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.measures import COLUMNS, METRICS, check_metrics, evaluation
from benchmarks.harness.methods import Explained
from benchmarks.harness.report import print_report
from benchmarks.harness.runner import Evaluate, command, prepared, run
from benchmarks.stages import EPS, Stages, kernel_sizes, pyramid_stages
from holistic_cam_plugin import fundamental_scale_denoising, fuse, min_max_normalize
from holistic_cam_plugin.method.weighting import WEIGHTINGS, gradient_variation, largest_magnitude
from holistic_cam_plugin.passes.targets import Target

Map = NDArray[np.float32]
Weigh = Callable[[Tensor, Tensor, float], Tensor]


class Candidate(NamedTuple):
    """One setting.

    Attributes:
        weigh: weights of one scale.
        base: those of the base scale's map that becomes the mask; None: the same.
        blur, box, power: of the mask, kernels in pixels at 224 px.
        shares: the weight of each scale in the mean, from its probability and the mean magnitude of its gradient.
    """

    weigh: Weigh
    base: Weigh | None = None
    blur: int = 51
    box: int = 31
    power: float = 3.0
    shares: Callable[[float, float], float] | None = None


def _by_channel(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    """The gate of every channel by itself."""
    return _mixed(gradients, gradient_variation(gradients.transpose(0, 1)).view(1, -1, 1, 1), _power(gradients, 2))


def _all_positions(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    """The gate over all the positions, those that the gradient does not reach included."""
    scaled = gradients / largest_magnitude(gradients)
    constant = scaled.mean(dim=(-2, -1)).square().sum() * scaled[0, 0].numel()
    return _mixed(gradients, (1 - constant / scaled.square().sum()).nan_to_num(0), _power(gradients, 2))


def _gated_pge(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    """The paper's positive gradients behind the gate."""
    return _mixed(gradients, gradient_variation(gradients), PGE(activations, gradients, eps))


def _gated_power(power: int) -> Weigh:
    """Another power of the positive gradients behind the gate."""
    return lambda activations, gradients, eps: _mixed(
        gradients, gradient_variation(gradients), _power(gradients, power)
    )


def _mixed(gradients: Tensor, variation: Tensor, positive: Tensor) -> Tensor:
    share = torch.nan_to_num(gradients.abs().double().sum() / positive.double().sum(), posinf=0.0)
    return (positive * share).float() * variation + gradients * (1 - variation)


def _power(gradients: Tensor, power: int) -> Tensor:
    return (gradients / largest_magnitude(gradients)).clamp(min=0) ** power


PGE, GRADIENT, GATED = WEIGHTINGS["pge"].weigh, WEIGHTINGS["gradient"].weigh, WEIGHTINGS["gated"].weigh
CENTRE = "square, box 31, power 3"
CHOSEN = "power 4"  # what `HolisticCAM(weights="gated")` is, by what this study showed
CANDIDATES = {
    "pge, paper's mask": Candidate(PGE, box=91, power=1.0),
    "gradient, paper's mask": Candidate(GRADIENT, box=91, power=1.0),
    "gated, paper's mask": Candidate(GATED, box=91, power=1.0),
    CENTRE: Candidate(GATED),
    "pge": Candidate(PGE),
    "gradient": Candidate(GRADIENT),
    "linear": Candidate(_gated_power(1)),
    "cube": Candidate(_gated_power(3)),
    "pge behind the gate": Candidate(_gated_pge),
    "gate by channel": Candidate(_by_channel),
    "gate over all positions": Candidate(_all_positions),
    "box 61": Candidate(GATED, box=61),
    "box 91": Candidate(GATED, box=91),
    "power 0.5": Candidate(GATED, power=0.5),
    "power 1": Candidate(GATED, power=1.0),
    "power 2": Candidate(GATED, power=2.0),
    CHOSEN: Candidate(GATED, power=4.0),
    "blur 27": Candidate(GATED, blur=27),
    "blur 75": Candidate(GATED, blur=75),
    "mask of gradients": Candidate(GATED, base=GRADIENT),
    "mask of pge": Candidate(GATED, base=PGE),
    "scales of equal gradients": Candidate(GATED, shares=lambda probability, magnitude: 1 / magnitude),
    "scales by probability": Candidate(GATED, shares=lambda probability, magnitude: probability),
}


def candidates(
    model: nn.Module, layers: Sequence[str], names: Sequence[str], image: Tensor, target: Target
) -> Explained:
    """The maps of these candidates in every layer, by layer and candidate."""
    stages = pyramid_stages(model, layers, image, target)
    found: Explained = {}
    for layer in layers:
        maps = _Maps(stages, layer)
        for name in names:
            found[layer, name] = maps.of(CANDIDATES[name])
    return found


class _Maps:
    """Candidates' maps of one layer; what they share is computed once."""

    def __init__(self, stages: Stages, layer: str) -> None:
        self.stages, self.activations, self.gradients = stages, stages.activations[layer], stages.gradients[layer]
        self.primaries: dict[tuple[object, object], Map] = {}
        self.bases: dict[object, Map] = {}

    def of(self, candidate: Candidate) -> Map:
        """The candidate's map, `(H, W)` in [0, 1]."""
        kernels = kernel_sizes(self.stages.size, candidate.blur, candidate.box)
        primary = self.primary(candidate.weigh, candidate.shares)
        base = self.base(candidate.base or candidate.weigh)
        return min_max_normalize(fundamental_scale_denoising(primary, base, *kernels, power=candidate.power))

    def primary(self, weigh: Weigh, shares: Callable[[float, float], float] | None) -> Map:
        """The fused map."""
        if (weigh, shares) not in self.primaries:
            weights = [self.weights(weigh, scale) for scale in range(len(self.activations))]
            if shares is not None:
                magnitudes = [float(g.abs().mean()) or 1.0 for g in self.gradients]
                parts = [shares(p, m) for p, m in zip(self.stages.probabilities, magnitudes, strict=True)]
                weights = [w * (part / max(parts)) for w, part in zip(weights, parts, strict=True)]
            self.primaries[weigh, shares] = fuse(self.activations, weights, self.stages.size).cpu().numpy()
        return self.primaries[weigh, shares]

    def base(self, weigh: Weigh) -> Map:
        """The base scale's map."""
        if weigh not in self.bases:
            weights = self.weights(weigh, 0)
            self.bases[weigh] = fuse(self.activations[:1], [weights], self.stages.size).cpu().numpy()
        return self.bases[weigh]

    def weights(self, weigh: Weigh, scale: int) -> Tensor:
        """Weights of one scale, `(C, h, w)`."""
        return weigh(self.activations[scale][None], self.gradients[scale][None], EPS)[0]


def make(arguments: argparse.Namespace) -> Evaluate:
    """The evaluation of one image, with the model loaded."""
    return evaluation(arguments, candidates, arguments.candidates)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    parser = experiment_parser(__doc__)
    parser.add_argument("--metrics", nargs="+", default=["ins", "del", "epg"], help=", ".join(METRICS))
    parser.add_argument(
        "--candidates", nargs="+", default=list(CANDIDATES), choices=CANDIDATES, metavar="NAME", help="which (all)"
    )
    arguments = parser.parse_args(argv)
    check_metrics(arguments.metrics)
    path = run(make, arguments, prepared(arguments), COLUMNS, "gate")
    print_report([path], arguments.model, reference=CENTRE)


if __name__ == "__main__":
    command(main)
