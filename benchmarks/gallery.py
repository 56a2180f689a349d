"""Fig. 1, 7 and 8: methods x layers over chosen images, or with --ablation the four variants of Table 2.

--names picks images by their name (a part of it); else --samples of them are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.candidates import candidate_maps
from benchmarks.harness.data import load
from benchmarks.harness.figures import save_panels
from benchmarks.harness.methods import NO_LAYER, maps_by_method
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import command, prepared
from benchmarks.table2 import VARIANTS
from holistic_cam_plugin.classifiers.images import shown


def main(argv: Sequence[str] | None = None) -> None:
    """Draw one PNG an image into the folder `gallery`."""
    parser = experiment_parser(__doc__)
    parser.add_argument("--ablation", action="store_true", help="positive gradient enhancement (P) x denoising (F)")
    parser.add_argument("--names", nargs="+", metavar="PART", help="images whose name holds one of these")
    arguments = parser.parse_args(argv)
    if arguments.samples is None and not arguments.names:
        arguments.samples = 4
    tasks = prepared(arguments)
    classifier = load_model(arguments)
    explain = partial(maps_by_method, classifier.model, arguments.layers, arguments.methods)
    if arguments.ablation:
        explain = partial(candidate_maps, classifier.model, arguments.layers, VARIANTS)
    for task in tasks:
        if arguments.names and not any(part in task.sample.name for part in arguments.names):
            continue
        image = load(task.sample, classifier).image
        maps = explain(image, ClassifierOutputTarget(task.sample.label))
        picture = shown(image, classifier)
        rows = [
            (layer, picture, [("image", None), *((m, cam) for (where, m), cam in maps.items() if where == layer)])
            for layer in dict.fromkeys(layer for layer, _ in maps if layer != NO_LAYER)
        ]
        kind = "ablation" if arguments.ablation else "gallery"
        path = arguments.output / kind / f"{task.sample.name.replace('/', '_')}.png"
        save_panels(path, rows)
        print(path)


if __name__ == "__main__":
    command(main)
