"""Fig. 1, 7 and 8: methods x layers over chosen images, or with --ablation the four variants of Table 2.

--names picks images by their name (a part of it); else --samples of them are taken. --sheet puts them all into one
small picture, a block of rows a layer, a row an image:

  python -m benchmarks.gallery --images benchmarks/photos --squash --samples 8 --sheet gallery.jpg \\
      --methods Grad-CAM Layer-CAM RefineCAM CAMERAS Relevance-CAM Holistic-CAM
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.candidates import candidate_maps
from benchmarks.harness.data import load
from benchmarks.harness.figures import PanelRow, save_panels, save_sheet
from benchmarks.harness.methods import NO_LAYER, maps_by_method
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import Task, command, prepared
from benchmarks.table2 import VARIANTS
from holistic_cam_plugin.classifiers.models import Classifier
from holistic_cam_plugin.errors import UsageError

SUFFIXES = (".jpg", ".jpeg", ".png")
SMALLEST = 24  # pixels of a sheet's cell


def main(argv: Sequence[str] | None = None) -> None:
    """Draw one PNG an image into the folder `gallery`, or all of them into one sheet."""
    arguments = _parser().parse_args(argv)
    if arguments.sheet and arguments.sheet.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--sheet {arguments.sheet} must end in one of {', '.join(SUFFIXES)}")
    if arguments.cell < SMALLEST:
        raise UsageError(f"--cell {arguments.cell} is too small for the titles: take at least {SMALLEST} pixels")
    if arguments.samples is None and not arguments.names:
        arguments.samples = 4
    tasks = sorted(prepared(arguments), key=lambda task: task.sample.name)
    if arguments.names:
        tasks = [task for task in tasks if any(part in task.sample.name for part in arguments.names)]
    if not tasks:
        raise UsageError(f"no image's name holds any of {', '.join(arguments.names)}")
    classifier = load_model(arguments)
    rows: list[PanelRow] = []
    for task in tasks:
        own = _rows(task, classifier, arguments)
        rows += own
        if not arguments.sheet:
            kind = "ablation" if arguments.ablation else "gallery"
            path = arguments.output / kind / f"{task.sample.name.replace('/', '_')}.png"
            save_panels(path, own)
            print(path)
    if arguments.sheet:
        rows.sort(key=lambda row: arguments.layers.index(row[0]))  # the images keep their order within a layer
        save_sheet(arguments.sheet, rows, arguments.cell)
        print(arguments.sheet)


def _parser() -> argparse.ArgumentParser:
    parser = experiment_parser(__doc__)
    add = parser.add_argument
    add("--ablation", action="store_true", help="positive gradient enhancement (P) x denoising (F)")
    add("--names", nargs="+", metavar="PART", help="images whose name holds one of these")
    add("--sheet", type=Path, metavar="FILE", help="all the images in one JPEG or PNG, layer by layer")
    add("--cell", type=int, default=96, metavar="PX", help="side of a picture in the sheet (96)")
    return parser


def _rows(task: Task, classifier: Classifier, arguments: argparse.Namespace) -> list[PanelRow]:
    """One row a layer: the picture and its maps."""
    model, target = classifier.model, ClassifierOutputTarget(task.sample.label)
    image, options = load(task.sample, classifier).image, classifier.found.at(arguments.layers).options
    if arguments.ablation:
        maps = candidate_maps(model, arguments.layers, VARIANTS, image, target, options)
    else:
        maps = maps_by_method(model, arguments.layers, arguments.methods, image, target, options)
    picture = classifier.preprocessing.shown(image)
    return [
        (layer, picture, [("image", None), *((name, cam) for (where, name), cam in maps.items() if where == layer)])
        for layer in dict.fromkeys(layer for layer, _ in maps if layer != NO_LAYER)
    ]


if __name__ == "__main__":
    command(main)
