"""`holistic-cam` without images: the figure of the bundled demo."""

from __future__ import annotations

import io
from argparse import Namespace
from itertools import product

from PIL import Image

from holistic_cam_plugin.cli.outputs import prepare_folder, write_file
from holistic_cam_plugin.cli.printing import say
from holistic_cam_plugin.cli.task import (
    Task,
    compute_maps,
    create_task,
    describe_predicted,
    name_figure,
    write_arrays,
)
from holistic_cam_plugin.demo import PHOTOS, load_demo_photo
from holistic_cam_plugin.display.panels import Panel, arrange_panels
from holistic_cam_plugin.display.photo_maps import build_photo_rows, describe_class
from holistic_cam_plugin.display.photographs import UNSEEN
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.explain import Explanation
from holistic_cam_plugin.models.classifier import load_classifier
from holistic_cam_plugin.names import LITE0

__all__ = ["explain_photographs"]

_LAYER = "blocks.4"  # half as deep as the network
_PANEL = 240  # pixels


def explain_photographs(arguments: Namespace) -> None:
    """Make one figure of the bundled photographs: one row per class and layer, one column per method.

    Raises:
        UsageError: an option is invalid.
        OutputError: a file cannot be written.
    """
    if arguments.format != "png" or arguments.dpi:
        raise UsageError("--format and --dpi need an image: the figure of the demo is a PNG")
    classifier = load_classifier(LITE0, None, None, arguments.device)
    tasks = {}
    for name, targets in PHOTOS.items():
        own = {"target": targets, "layers": arguments.layers or [_LAYER]}
        tasks[name] = create_task(classifier, Namespace(**(vars(arguments) | own)))
    arrays = (array for name, task in tasks.items() for array in task.name_arrays(f"demo_{name}"))
    prepare_folder(arguments.output, [name_figure("demo", arguments), *arrays])
    rows, lines = [], []
    for name, task in tasks.items():
        photo = load_demo_photo(name)
        _, explanation = compute_maps(task, photo)
        write_arrays(task, explanation, f"demo_{name}")
        rows += _build_rows(task, explanation, photo)
        lines.append(f"  {name}.jpg: predicted {describe_predicted(classifier, explanation)}")
    buffer = io.BytesIO()
    arrange_panels(rows, UNSEEN).save(buffer, "PNG")
    path = write_file(arguments.output, name_figure("demo", arguments), buffer.getvalue())
    say("\n".join([str(path), *lines]))


def _build_rows(task: Task, explanation: Explanation, photo: Image.Image) -> list[list[Panel]]:
    """The rows of a photograph in the figure of the demo."""
    classes = task.request.classifier.classes
    labels = [
        describe_class(classes[target], float(explanation.probabilities[target])) for target in explanation.targets
    ]
    pairs = list(product(range(len(labels)), range(len(explanation.layers))))
    return build_photo_rows(
        photo,
        task.request.classifier.preprocessing.find_crop(*photo.size),
        [labels[m] for m, _ in pairs],
        [method.name for method in explanation.methods],
        [[maps[n, m] for maps in explanation.maps] for m, n in pairs],
        (_PANEL, _PANEL),
        notes=[explanation.layers[n] for _, n in pairs],
        scale=task.arguments.scale,
        colormap=task.arguments.colormap,
        opacity=0.6,
    )
