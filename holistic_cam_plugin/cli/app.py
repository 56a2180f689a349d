"""`holistic-cam app`: the explorer in the browser."""

from __future__ import annotations

import argparse
import importlib.util
import os
from typing import Any

from holistic_cam_plugin.app.addresses import is_local
from holistic_cam_plugin.app.folder import make_temporary_folder
from holistic_cam_plugin.cli.arguments import Parser, add_model_options
from holistic_cam_plugin.cli.hints import tell_offline
from holistic_cam_plugin.cli.printing import complain, say
from holistic_cam_plugin.errors import Stopped, UsageError
from holistic_cam_plugin.names import DIGITS

__all__ = ["add_app_command"]

_DESCRIPTION = """\
A page in the browser: drop a picture, see its best classes, choose classes, layers and methods, look at the maps side
by side, compare two with a slider, and download the figure, the arrays and a Python script. Only this machine can reach
the page, and it loads nothing from elsewhere. Ctrl-C ends it.
"""
_EPILOG = """\
examples:
  holistic-cam app                                            (the bundled model, offline)
  holistic-cam app --model resnet50
  holistic-cam app --model resnet18 --weights resnet18.pth --labels classes.txt --port 8000
  holistic-cam app --model hf/openai/clip-vit-base-patch32 --text "a dog" "a cat"
"""


def add_app_command(commands: Any) -> None:
    """Add `app` to the subparsers."""
    parser: Parser = commands.add_parser("app", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add_model_options(parser, DIGITS)
    add("--amp", action="store_true", help="run Holistic-CAM's model in bfloat16: faster, slightly other maps")
    add(
        "--host", default="127.0.0.1", metavar="ADDRESS",
        help="address to listen on; 0.0.0.0 lets other machines in (default: 127.0.0.1)",
    )  # fmt: skip
    add("--port", type=_parse_port, metavar="N", help="default: the first free one from 7860")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if importlib.util.find_spec("gradio") is None:
        raise UsageError('the explorer needs Gradio: pip install "holistic-cam-plugin[app]"')
    if arguments.model is None and (arguments.weights or arguments.labels or arguments.text):
        raise UsageError("--weights, --labels and --text belong to a model: name it with --model")
    tell_offline([arguments.model or DIGITS], [arguments.weights])
    with make_temporary_folder() as folder:
        # Read when Gradio is imported.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder)}
        from holistic_cam_plugin.app.server import serve
        from holistic_cam_plugin.app.snippet import Source

        def tell(url: str) -> None:
            if not is_local(arguments.host):
                complain(
                    f"holistic-cam app: warning: --host {arguments.host} lets other machines in, without a password"
                )
            say(f"{url} (Ctrl-C ends it)")

        model = arguments.model or DIGITS
        source = Source(model, arguments.weights, arguments.labels, arguments.device, arguments.amp, arguments.text)
        try:
            serve(source, arguments.host, arguments.port, folder, tell)
        except Stopped as stop:  # the usual end needs no message
            return 128 + (stop.number or 0)
    return 0


def _parse_port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 65535, got {text!r}")
    return int(text)
