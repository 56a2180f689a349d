"""Arguments of the command line; the names that users of the library's `cam.py` know are kept."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holistic_cam_plugin.baselines.by_name import DEFAULT_METHODS, METHODS, method_key
from holistic_cam_plugin.cli.printing import complain
from holistic_cam_plugin.display import COLORMAPS, SCALES
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.method.pyramid import NAMED

__all__ = ["MODELS", "Parser", "method_argument", "parsed", "positive"]

MODELS = "any classifier of torchvision, timm/NAME, hf/OWNER/NAME, hf/./FOLDER, or package.module:function"

LONGEST_LINE = 2000  # letters; whatever was given is quoted

_DESCRIPTION = """\
See what a vision model looks at: Holistic-CAM beside other class-activation maps, one row a layer (shallow to deep),
one column a method. Without images it runs the bundled demo, offline. Three commands have a help of their own:

  holistic-cam app                         a page in the browser, to look and to compare
  holistic-cam batch INPUT --output DIR    the maps of a folder of images; can be killed and goes on
  holistic-cam report DIR                  one HTML page of what a batch has made
"""
_EPILOG = """\
exit code: 0; 2 a mistake in the command, told in one line; 3 the output can't be written; 130 or 143 stopped by Ctrl-C
or SIGTERM.

examples:
  holistic-cam
  holistic-cam photo.jpg
  holistic-cam photo.jpg --model vgg16 --layers features.16 features.30 --methods gradcam holisticcam
  holistic-cam cat.jpg dog.jpg --model resnet18 --weights resnet18.pth --target 281 "golden retriever"
  holistic-cam photo.jpg --model timm/convnext_tiny.in12k_ft_in1k
  holistic-cam photo.jpg --model hf/google/vit-base-patch16-224
  holistic-cam photo.jpg --model hf/./my_finetuned_folder
  holistic-cam photo.jpg --model my_package.models:make_model --weights mine.safetensors
  holistic-cam --model resnet50 --list-layers
"""


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; exits with code 2 after a one-line message if they can't be understood."""
    parser = Parser(
        prog="holistic-cam",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("images", nargs="*", type=Path, metavar="IMAGE", help="photos to explain; one figure each")
    add("--image-path", dest="more_images", nargs="+", type=Path, default=[], metavar="IMAGE", help="the same")
    add("--model", metavar="NAME", help=f"{MODELS} (default: resnet50)")
    parser.add_model_files()
    parser.add_pyramid()
    add("--layers", nargs="+", metavar="NAME", help="target layers by module name (default: the model's stages)")
    add(
        "--list-layers",
        action="store_true",
        help="show the layers' names and what each returns at the model's own image size",
    )
    add(
        "--target",
        nargs="+",
        metavar="CLASS",
        help="class index or class name, one or several (default: the predicted class)",
    )
    add(
        "--methods",
        "--method",
        nargs="+",
        type=method_argument,
        default=list(DEFAULT_METHODS),
        metavar="NAME",
        help=f"any of {', '.join(METHODS)}",
    )
    add("--device", metavar="NAME", help="such as cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    add("--aug-smooth", action="store_true", help="mean over test-time augmentations")
    add("--eigen-smooth", action="store_true", help="first principal component of the weighted activations")
    add("--output-dir", type=Path, default=Path("output"), metavar="DIR", help="default: output")
    add(
        "--scale",
        choices=SCALES,
        default="linear",
        help="of the colours; sqrt and rank show sparse maps (default: linear)",
    )
    add("--colormap", choices=COLORMAPS, default="jet", help="default: jet, as in the library; viridis has no bands")
    add("--save-array", action="store_true", help="also write every map as a .npy file, float32, (H, W), in [0, 1]")
    arguments = parser.parse_args(argv)
    arguments.images += arguments.more_images
    if not arguments.images and not arguments.list_layers:
        for name in ("model", "weights", "labels", "target"):
            if getattr(arguments, name) is not None:
                parser.error(f"--{name} needs an image: holistic-cam IMAGE --{name} ... (without images: the demo)")
    return arguments


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and shows its texts as they are laid out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def add_model_files(self) -> None:
        """The files that go with `--model`."""
        add = self.add_argument
        add(
            "--weights",
            type=Path,
            metavar="FILE",
            help="a local state dict or .safetensors file (default: the model's own)",
        )
        add("--labels", type=Path, metavar="FILE", help="class names, one a line, for weights of other classes")

    def add_pyramid(self) -> None:
        """Options of the methods that have a pyramid: holisticcam and cameras."""
        add = self.add_argument
        add(
            "--sizes", nargs="+", type=_size, metavar="PX",
            help=f"shorter sides of the pyramid of holisticcam and cameras, or a name: {', '.join(NAMED)} (default: "
            "the methods' own)",
        )  # fmt: skip
        add("--amp", action="store_true", help="their model in bfloat16: faster, slightly other maps")

    def parse_args(self, *arguments: Any) -> argparse.Namespace:  # type: ignore[override]
        found: argparse.Namespace = super().parse_args(*arguments)
        sizes = getattr(found, "sizes", None)
        if sizes and any(isinstance(size, str) for size in sizes):
            if len(sizes) > 1:
                self.error(f"--sizes {' '.join(map(str, sizes))}: a name stands alone")
            (found.sizes,) = sizes
        return found

    def error(self, message: str) -> None:  # type: ignore[override]
        line = " ".join(message.split())
        complain(f"{self.prog}: error: {line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + '…'}")
        self.exit(2)


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}")
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def _size(text: str) -> int | str:
    return text if text in NAMED else positive(text)


def method_argument(name: str) -> str:
    """The key of a method, for argparse."""
    try:
        return method_key(name)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
