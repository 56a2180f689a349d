"""Options that several commands share, under the names of pytorch-grad-cam's `cam.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from holistic_cam_plugin.errors import UsageError, check_file
from holistic_cam_plugin.names import COLORMAP, COLORMAPS, DIGITS, FAST, LITE0, METHOD_KEYS, NAMED_SIZES, find_method

__all__ = [
    "Parser",
    "add_colormap_option",
    "add_method_options",
    "add_model_options",
    "check_model_files",
    "parse_dpi",
    "parse_output",
    "parse_positive",
]

LEAST_DPI, MOST_DPI = 20, 2400

# Figures, arrays and tables: a user who gives such a name expects a file.
_FILE_SUFFIXES = {
    ".csv", ".eps", ".gif", ".html", ".jpeg", ".jpg", ".npy", ".npz", ".pdf", ".png", ".svg", ".tif", ".tiff", ".webp",
}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """Takes no abbreviated options, keeps the layout of the help, and raises UsageError."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def parse_known_args(self, *arguments: Any) -> Any:  # type: ignore[override]
        """Refuse unknown arguments here: the parser of all commands does not know which command was meant."""
        found, unknown = super().parse_known_args(*arguments)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def add_model_options(parser: Parser, default: str, *, several: bool = False) -> None:
    """Add the options that choose the model, or several, and the device."""
    add = parser.add_argument
    number: dict[str, Any] = {"nargs": "+"} if several else {}
    add(
        "--model", metavar="NAME", **number,
        help="any classifier of torchvision, timm/NAME, hf/OWNER/NAME, hf/./FOLDER, open_clip/NAME, "
        f"package.module:function; {LITE0}, whose weights are a package; or {DIGITS}, the bundled model"
        f"{'; several are shown in one figure' if several else ''} (default: {default})",
    )  # fmt: skip
    add(
        "--weights", type=Path, metavar="FILE", **number,
        help="a local state dict or .safetensors file (default: the model's own weights)",
    )  # fmt: skip
    add(
        "--labels", type=Path, metavar="FILE", **number,
        help="class names, one per line, for weights with other classes",
    )  # fmt: skip
    add("--text", nargs="+", metavar="TEXT", help="the classes of a model of images and texts, such as CLIP")
    add("--device", metavar="NAME", help="such as cpu, cuda, cuda:1 or mps (default: a GPU if there is one)")


def add_method_options(parser: Parser, methods: Sequence[str], layers: str) -> None:
    """Add the options that choose targets, layers, methods and the pyramid.

    Args:
        methods: the default ones.
        layers: the default ones, in words.
    """
    add = parser.add_argument
    add("--target", nargs="+", metavar="CLASS", help="class indices or names (default: the predicted class)")
    add("--layers", nargs="+", metavar="NAME", help=f"target layers by module name (default: {layers})")
    add(
        "--methods", "--method", nargs="+", type=_parse_method, default=list(methods), metavar="NAME",
        help=f"any of {', '.join(METHOD_KEYS)} (default: {' '.join(methods)})",
    )  # fmt: skip
    add(
        "--sizes", nargs="+", type=_parse_size, action=_Sizes, metavar="PX",
        help="shorter sides of the pyramid of the holisticcam methods and cameras, or a name: "
        f"{', '.join(NAMED_SIZES)} (default: {FAST})",
    )  # fmt: skip
    add("--amp", action="store_true", help="run the model in bfloat16 for these methods: faster, slightly other maps")


def add_colormap_option(parser: Parser) -> None:
    """Add `--colormap`."""
    parser.add_argument(
        "--colormap", choices=COLORMAPS, default=COLORMAP,
        help=f"default: {COLORMAP}, without the bands of jet, which is pytorch-grad-cam's default",
    )  # fmt: skip


def check_model_files(models: Sequence[str], weights: Sequence[Path | None], labels: Sequence[Path | None]) -> None:
    """Raise UsageError if a file of the model options does not exist."""
    for path in labels:
        if path is not None:
            check_file(path)
    for model, path in zip(models, weights, strict=True):
        if path is not None and model not in (DIGITS, LITE0) and not model.startswith("hf/"):  # they take no weights
            check_file(path)


def parse_output(text: str) -> Path:
    """Parse a folder; the name of a file is an error."""
    path = Path(text)
    if path.suffix.lower() in _FILE_SUFFIXES and not path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder, got the file name {text!r}")
    return path


def parse_positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}")
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def parse_dpi(text: str) -> int:
    """Parse a resolution."""
    dpi = parse_positive(text)
    if not LEAST_DPI <= dpi <= MOST_DPI:
        raise argparse.ArgumentTypeError(f"must be from {LEAST_DPI} to {MOST_DPI}, got {text}")
    return dpi


def _parse_size(text: str) -> int | str:
    if text in NAMED_SIZES:
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be whole numbers, or {' or '.join(NAMED_SIZES)}, got {text!r}")
    return parse_positive(text)


class _Sizes(argparse.Action):
    def __call__(self, _: object, namespace: argparse.Namespace, values: Any, __: object = None) -> None:
        if any(isinstance(value, str) for value in values):
            if len(values) > 1:
                raise argparse.ArgumentError(self, f"{' '.join(map(str, values))}: give one name, or numbers")
            (values,) = values
        setattr(namespace, self.dest, values)


def _parse_method(name: str) -> str:
    try:
        return find_method(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
