"""`holistic-cam [IMAGE ...]`: one figure per image, or that of the bundled demo."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from holistic_cam_plugin import __version__
from holistic_cam_plugin.cli.arguments import (
    Parser,
    add_colormap_option,
    add_method_options,
    add_model_options,
    check_model_files,
    parse_dpi,
    parse_output,
)
from holistic_cam_plugin.cli.hints import check_image, tell_offline
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.names import DEFAULT_METHODS, DEFAULT_MODEL, DIGITS, LITE0, SCALES

__all__ = ["add_explain_command"]

FORMATS = ("png", "pdf", "svg")

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
  holistic-cam photo.jpg --model resnet50 vgg16 --methods gradcam classholisticcam --format pdf
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
    add_model_options(parser, f"{DEFAULT_MODEL}; the demo without images", several=True)
    add("--list-layers", action="store_true", help="list the layers that can be explained, and their shapes")
    add_method_options(parser, DEFAULT_METHODS, "the last layer of each of the model's last stages")
    add("--aug-smooth", action="store_true", help="mean over test-time augmentations")
    add("--eigen-smooth", action="store_true", help="first principal component of the weighted activations")
    add("--output", type=parse_output, default=Path("output"), metavar="DIR", help="folder (default: output)")
    add(
        "--scale", choices=SCALES, default="linear",
        help="of the colours; sqrt and rank show sparse maps (default: linear)",
    )  # fmt: skip
    add_colormap_option(parser)
    add("--format", choices=FORMATS, default="png", help="of the figures (default: png)")
    add("--dpi", type=parse_dpi, metavar="N", help="pixels per inch of the figures (default: 130)")
    add("--save-array", action="store_true", help="also write every map as a .npy file, float32, (H, W), in [0, 1]")
    parser.set_defaults(run=_run)


def _run(arguments: Namespace) -> int:
    arguments.images = list(dict.fromkeys(arguments.images + arguments.more_images))
    for image in arguments.images:
        check_image(image)
    if not arguments.images and not arguments.list_layers:
        _check_demo(arguments)
    models = arguments.model or [DEFAULT_MODEL]
    arguments.weights = _spread("weights", arguments.weights, len(models))
    arguments.labels = _spread("labels", arguments.labels, len(models))
    check_model_files(models, arguments.weights, arguments.labels)
    if arguments.list_layers:
        from holistic_cam_plugin.cli.layers import list_layers

        list_layers(arguments)
    else:
        if arguments.images:
            tell_offline(models, arguments.weights)
        from holistic_cam_plugin.cli.figures import explain_demo, explain_images

        (explain_images if arguments.images else explain_demo)(arguments)
    return 0


def _check_demo(arguments: Namespace) -> None:
    """Raise UsageError for an option that the demo does not take."""
    given = {name: getattr(arguments, name) for name in ("weights", "labels", "text", "target")}
    given["model"] = arguments.model not in (None, [DIGITS], [LITE0])
    for name, value in given.items():
        if value:
            raise UsageError(f"--{name} needs an image: holistic-cam IMAGE --{name} ... (without images: the demo)")


def _spread(option: str, files: list[Path] | None, count: int) -> list[Path | None]:
    """One file per model, or None for each."""
    if files is None:
        return [None] * count
    if len(files) != count:
        raise UsageError(f"--{option} names {len(files)} files for {count} models: name one per model")
    return list(files)
