"""The appendix's study of parameters: blur_size x ksize, the number of scales, and eps.

Each is varied with the others at their defaults. Kernel sizes are in pixels of a 224 px map, scaled for other sizes.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from benchmarks.harness.arguments import make_parser
from benchmarks.harness.candidates import Candidate, Mask, explain_candidates
from benchmarks.harness.measures import COLUMNS, METRICS, check_metrics, make_evaluate
from benchmarks.harness.methods import MapsByMethod
from benchmarks.harness.report import HEADINGS, print_report, read_means
from benchmarks.harness.runner import Evaluate, choose_tasks, run, run_main
from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.method.low_pass_wrap import BLUR_SIZE_AT_224, KSIZE_AT_224
from holistic_cam_plugin.method.pge import positive_gradient_weights
from holistic_cam_plugin.methods import pyramid_options

BLURS = (3, 27, 51, 75)
BOXES = (3, 47, 91, 135)
SCALES = (1, 3, 5, 7, 9)
EPSILONS = (0.0, 1e-9, 1e-7, 1e-5, 1e-3)


def name_kernels(blur: int, box: int) -> str:
    """Name a pair of kernel sizes as in the table."""
    return f"blur_size={blur} ksize={box}"


SETTINGS = {
    **{
        name_kernels(blur, box): Candidate(positive_gradient_weights, Mask(blur, box), split=True)
        for blur, box in itertools.product(BLURS, BOXES)
    },
    **{f"eps={eps:g}": Candidate(partial(positive_gradient_weights, eps=eps), split=True) for eps in EPSILONS},
}


def explain_settings(
    model: nn.Module,
    layers: Sequence[str],
    image: Tensor,
    target: ClassifierOutputTarget,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> MapsByMethod:
    """Compute the maps of every setting in every layer."""
    found = explain_candidates(model, layers, SETTINGS, image, target, options)
    modules, needed = [model.get_submodule(name) for name in layers], pyramid_options(HolisticCAM, options)
    for scales in SCALES:
        maps = HolisticCAM(model, modules, num_scales=scales, **needed).compute_cam_per_layer(image, [target])
        found |= {(layer, f"scales={scales}"): own[0, 0] for layer, own in zip(layers, maps, strict=True)}
    return {key: found[key] for layer in layers for key in found if key[0] == layer}


def make(arguments: argparse.Namespace) -> Evaluate:
    """Load the model, and build the function that evaluates one image."""
    return make_evaluate(arguments, explain_settings)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment, and draw the heat maps `parameters.png`."""
    parser = make_parser(__doc__, samples=12)
    parser.add_argument("--metrics", nargs="+", default=["ins", "del", "epg"], help=", ".join(METRICS))
    arguments = parser.parse_args(argv)
    check_metrics(arguments.metrics)
    path = run(make, arguments, choose_tasks(arguments), COLUMNS, "parameters")
    print_report([path], arguments.model, reference=name_kernels(BLUR_SIZE_AT_224, KSIZE_AT_224))
    _draw_heat_maps(read_means(path), arguments.layers).savefig(arguments.output / "parameters.png")


def _draw_heat_maps(values: dict[tuple[str, str, str], float], layers: Sequence[str]) -> Figure:
    """Draw a row per layer and a column per metric: its mean in percent over blur_size x ksize."""
    metrics = [metric for metric in ("over_all", "road", "epg") if any(key[2] == metric for key in values)]
    figure = Figure(figsize=(3.6 * len(metrics), 3.2 * len(layers)), dpi=130, layout="constrained")
    for cells, layer in zip(figure.subplots(len(layers), len(metrics), squeeze=False), layers, strict=True):
        for axes, metric in zip(cells, metrics, strict=True):
            grid = np.array([[100 * values[layer, name_kernels(b, k), metric] for k in BOXES] for b in BLURS])
            axes.imshow(grid)
            axes.set(title=f"{layer}: {HEADINGS[metric]}", xlabel="ksize", ylabel="blur_size")
            axes.set_xticks(range(len(BOXES)), BOXES)
            axes.set_yticks(range(len(BLURS)), BLURS)
            for (row, column), value in np.ndenumerate(grid):
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", color="white", fontsize="small")
    return figure


if __name__ == "__main__":
    run_main(main)
