"""Fig. 1, 7 and 8: methods x layers for chosen images, or with --ablation the four variants of Table 2.

--names chooses images by parts of their names, otherwise --samples images are drawn. --four adds a 2x2 grid of four of
them, explained for the first and for the second. --sheet writes all of them into one small picture, with a block of
rows per layer and a row per image:

  python -m benchmarks.gallery --images benchmarks/photos --squash --samples 8 --sheet gallery.jpg \\
      --methods Grad-CAM Layer-CAM RefineCAM CAMERAS Relevance-CAM Holistic-CAM
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks.harness.arguments import make_parser
from benchmarks.harness.candidates import explain_candidates
from benchmarks.harness.data import load
from benchmarks.harness.figures import PanelRow, save_panels, save_sheet
from benchmarks.harness.grids import Grid, load_grid
from benchmarks.harness.methods import NO_LAYER, explain_methods
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import Task, choose_tasks, run_main
from benchmarks.table2 import VARIANTS
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.classifier import Classifier

SUFFIXES = (".jpg", ".jpeg", ".png")
SMALLEST = 24  # side of a sheet's cell in pixels


def main(argv: Sequence[str] | None = None) -> None:
    """Draw one PNG per image into the folder `gallery`, or all images into one sheet."""
    arguments = _make_parser().parse_args(argv)
    if arguments.sheet and arguments.sheet.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--sheet {arguments.sheet} must end in one of {', '.join(SUFFIXES)}")
    if arguments.cell < SMALLEST:
        raise UsageError(f"--cell {arguments.cell} is too small for the titles: use at least {SMALLEST} pixels")
    if arguments.samples is None and not arguments.names:
        arguments.samples = 4
    tasks = sorted(choose_tasks(arguments), key=lambda task: task.sample.name)
    if arguments.names:
        tasks = [task for task in tasks if any(part in task.sample.name for part in arguments.names)]
    if not tasks:
        raise UsageError(f"no image's name contains any of {', '.join(arguments.names)}")
    tasks += _make_grid_tasks(tasks, arguments.four)
    classifier = load_model(arguments)
    rows: list[PanelRow] = []
    for task in tasks:
        own = _make_rows(task, classifier, arguments)
        rows += own
        if not arguments.sheet:
            kind = "ablation" if arguments.ablation else "gallery"
            name = task.sample.name if task.grid is None else f"grid for {task.sample.name}"
            path = arguments.output / kind / f"{name.replace('/', '_')}.png"
            save_panels(path, own)
            print(path)
    if arguments.sheet:
        rows.sort(key=lambda row: arguments.layers.index(row[0]))  # a stable sort keeps the order of the images
        save_sheet(arguments.sheet, rows, arguments.cell)
        print(arguments.sheet)


def _make_parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--ablation", action="store_true", help="positive gradient weights (P) x mask (F)")
    add("--names", nargs="+", metavar="PART", help="images whose names contain one of these")
    add("--four", nargs=4, metavar="PART", help="a grid of these four images, row by row")
    add("--sheet", type=Path, metavar="FILE", help="write all images into one JPEG or PNG, layer by layer")
    add("--cell", type=int, default=96, metavar="PX", help="side of a picture in the sheet (96)")
    return parser


def _make_grid_tasks(tasks: Sequence[Task], parts: Sequence[str] | None) -> list[Task]:
    """The grid of the images with these parts in their names, for the first and for the second of them."""
    if parts is None:
        return []
    tiles = []
    for part in parts:
        found = [task.sample for task in tasks if part in task.sample.name]
        if len(found) != 1:
            raise UsageError(f"--four {part}: {len(found)} of the chosen images have this in their names, not one")
        tiles += found
    return [Task(tiles[quarter], Grid(tuple(tiles), quarter)) for quarter in (0, 1)]


def _make_rows(task: Task, classifier: Classifier, arguments: argparse.Namespace) -> list[PanelRow]:
    """Compute one row per layer, with the picture and its maps."""
    model, target = classifier.model, ClassifierOutputTarget(task.sample.label)
    loaded = load(task.sample, classifier) if task.grid is None else load_grid(task.grid, classifier)
    image, options = loaded.image, classifier.at(arguments.layers).options
    if arguments.ablation:
        maps = explain_candidates(model, arguments.layers, VARIANTS, image, target, options)
    else:
        maps = explain_methods(model, arguments.layers, arguments.methods, image, target, options)
    picture = classifier.preprocessing.denormalize(image)
    return [
        (layer, picture, [("image", None), *((name, cam) for (where, name), cam in maps.items() if where == layer)])
        for layer in dict.fromkeys(layer for layer, _ in maps if layer != NO_LAYER)
    ]


if __name__ == "__main__":
    run_main(main)
