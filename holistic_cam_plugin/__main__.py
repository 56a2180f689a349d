"""The command line: `holistic-cam` and `python -m holistic_cam_plugin`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from holistic_cam_plugin.cli.app import app
from holistic_cam_plugin.cli.arguments import parsed
from holistic_cam_plugin.cli.batch import batch
from holistic_cam_plugin.cli.explain import explain_demo, explain_images, list_layers
from holistic_cam_plugin.cli.report import report
from holistic_cam_plugin.errors import UsageError

__all__ = ["main"]

COMMANDS = {"app": app, "batch": batch, "report": report}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0, or 2 after a one-line message on what to correct.

    `batch` has others besides, which its help lists.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        return COMMANDS[argv[0]](argv[1:])
    arguments = parsed(argv)
    try:
        if arguments.list_layers:
            list_layers(arguments)
        elif arguments.images:
            explain_images(arguments)
        else:
            explain_demo(arguments)
    except UsageError as error:
        print(f"holistic-cam: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
