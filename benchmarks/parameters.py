"""The appendix's study: how the result depends on blur_size x ksize, on the number of scales and on eps.

Each is varied with the others at their defaults. Kernel sizes are in pixels of a 224 px map, in proportion on others.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.candidates import Candidate, Mask, candidate_maps
from benchmarks.harness.measures import COLUMNS, METRICS, check_metrics, evaluation
from benchmarks.harness.methods import MapsByMethod
from benchmarks.harness.report import HEADINGS, means, print_report
from benchmarks.harness.runner import Evaluate, command, prepared, run
from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.method.low_pass_wrap import BLUR_SIZE_AT_224, KSIZE_AT_224
from holistic_cam_plugin.method.pge import positive_gradient_weights

BLURS = (3, 27, 51, 75)
BOXES = (3, 47, 91, 135)
SCALES = (1, 3, 5, 7, 9)
EPSILONS = (0.0, 1e-9, 1e-7, 1e-5, 1e-3)


def wrap_name(blur: int, box: int) -> str:
    """How a pair of kernel sizes is named in the table."""
    return f"blur_size={blur} ksize={box}"


SETTINGS = {
    **{
        wrap_name(blur, box): Candidate(positive_gradient_weights, Mask(blur, box), split=True)
        for blur, box in itertools.product(BLURS, BOXES)
    },
    **{f"eps={eps:g}": Candidate(positive_gradient_weights, split=True, eps=eps) for eps in EPSILONS},
}


def settings(
    model: nn.Module,
    layers: Sequence[str],
    image: Tensor,
    target: ClassifierOutputTarget,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> MapsByMethod:
    """The maps of every setting in every layer, by layer and setting."""
    found = candidate_maps(model, layers, SETTINGS, image, target, options)
    modules = [model.get_submodule(name) for name in layers]
    for scales in SCALES:
        maps = HolisticCAM(model, modules, num_scales=scales, **options).compute_cam_per_layer(image, [target])
        found |= {(layer, f"scales={scales}"): own[0, 0] for layer, own in zip(layers, maps, strict=True)}
    return {key: found[key] for layer in layers for key in found if key[0] == layer}


def make(arguments: argparse.Namespace) -> Evaluate:
    """The evaluation of one image, with the model loaded."""
    return evaluation(arguments, settings)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment; the heat maps are `parameters.png`."""
    parser = experiment_parser(__doc__, samples=12)
    parser.add_argument("--metrics", nargs="+", default=["ins", "del", "epg"], help=", ".join(METRICS))
    arguments = parser.parse_args(argv)
    check_metrics(arguments.metrics)
    path = run(make, arguments, prepared(arguments), COLUMNS, "parameters")
    print_report([path], arguments.model, reference=wrap_name(BLUR_SIZE_AT_224, KSIZE_AT_224))
    _heat_maps(means(path), arguments.layers).savefig(arguments.output / "parameters.png")


def _heat_maps(values: dict[tuple[str, str, str], float], layers: Sequence[str]) -> Figure:
    """One row a layer, one column a metric: its mean in percent over blur_size x ksize."""
    metrics = [metric for metric in ("over_all", "road", "epg") if any(key[2] == metric for key in values)]
    figure = Figure(figsize=(3.6 * len(metrics), 3.2 * len(layers)), dpi=130, layout="constrained")
    for cells, layer in zip(figure.subplots(len(layers), len(metrics), squeeze=False), layers, strict=True):
        for axes, metric in zip(cells, metrics, strict=True):
            grid = np.array([[100 * values[layer, wrap_name(b, k), metric] for k in BOXES] for b in BLURS])
            axes.imshow(grid)
            axes.set(title=f"{layer}: {HEADINGS[metric]}", xlabel="ksize", ylabel="blur_size")
            axes.set_xticks(range(len(BOXES)), BOXES)
            axes.set_yticks(range(len(BLURS)), BLURS)
            for (row, column), value in np.ndenumerate(grid):
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", color="white", fontsize="small")
    return figure


if __name__ == "__main__":
    command(main)
