"""`holistic-cam app`: the explorer in the browser."""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from holistic_cam_plugin.cli.arguments import MODELS, Parser
from holistic_cam_plugin.cli.batch_arguments import BUNDLED
from holistic_cam_plugin.cli.printing import complain, say
from holistic_cam_plugin.cli.stopping import Stopped, stoppable
from holistic_cam_plugin.errors import UsageError

__all__ = ["app"]

_DESCRIPTION = """\
A page in the browser: drop a picture, see its best classes, choose classes, layers and methods, look at the maps beside
one another, compare two by a swipe, and take the figure, the arrays and the lines of Python with you. It runs on this
machine alone, asks nothing of any other, and ends with Ctrl-C.
"""
_EPILOG = """\
examples:
  holistic-cam app                                            (the bundled model, offline)
  holistic-cam app --model resnet50
  holistic-cam app --model resnet18 --weights resnet18.pth --labels classes.txt --port 8000
"""


def app(argv: Sequence[str]) -> int:
    """Run `holistic-cam app`; the exit code is 2 after a line on what to correct, 130 after Ctrl-C."""
    arguments = _arguments(argv)
    try:
        with stoppable():
            _serve(arguments)
    except UsageError as error:
        complain(f"holistic-cam app: error: {error}")
        return 2
    except Stopped as stop:
        return 128 + stop.number
    return 0


def _serve(arguments: argparse.Namespace) -> None:
    if importlib.util.find_spec("gradio") is None:
        raise UsageError('the explorer needs Gradio: pip install "holistic-cam-plugin[app]"')
    bundled = arguments.model in (None, BUNDLED)
    if bundled and (arguments.weights or arguments.labels):
        raise UsageError("--weights and --labels go with a model: name it with --model")
    with tempfile.TemporaryDirectory(prefix="holistic-cam-", ignore_cleanup_errors=True) as folder:
        # Read when Gradio is imported.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
        from holistic_cam_plugin.app.server import serve
        from holistic_cam_plugin.app.snippet import Source

        name = None if bundled else arguments.model
        source = Source(name, arguments.weights, arguments.labels, arguments.device, arguments.amp)
        serve(source, arguments.host, arguments.port, Path(folder), lambda url: say(f"{url} (Ctrl-C ends it)"))


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="holistic-cam app", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add("--model", metavar="NAME", help=f"{MODELS} (default: {BUNDLED}, the bundled one)")
    parser.add_model_files()
    add("--device", metavar="NAME", help="such as cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    add("--amp", action="store_true", help="Holistic-CAM's model in bfloat16: faster, slightly other maps")
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="to listen at; 0.0.0.0 lets others in (default: 127.0.0.1)",
    )
    add("--port", type=_port, metavar="N", help="default: the first free one from 7860 on")
    return parser.parse_args(argv)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 65535, got {text!r}")
    return int(text)
