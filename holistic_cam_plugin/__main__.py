"""The command line: `holistic-cam` and `python -m holistic_cam_plugin`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from holistic_cam_plugin.batch.writing import OutputError
from holistic_cam_plugin.cli.app import app
from holistic_cam_plugin.cli.arguments import parsed
from holistic_cam_plugin.cli.batch import batch
from holistic_cam_plugin.cli.explain import explain_demo, explain_images
from holistic_cam_plugin.cli.layers import list_layers
from holistic_cam_plugin.cli.printing import complain
from holistic_cam_plugin.cli.report import report
from holistic_cam_plugin.cli.stopping import Stopped, stoppable
from holistic_cam_plugin.errors import UsageError

__all__ = ["main"]

COMMANDS = {"app": app, "batch": batch, "report": report}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0, or as the help says after one line on what went wrong."""
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it logs of a damaged picture it raises, too
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        return COMMANDS[argv[0]](argv[1:])
    arguments = parsed(argv)
    try:
        with stoppable():
            if arguments.list_layers:
                list_layers(arguments)
            elif arguments.images:
                explain_images(arguments)
            else:
                explain_demo(arguments)
    except UsageError as error:
        complain(f"holistic-cam: error: {error}")
        return 2
    except OutputError as error:
        complain(f"holistic-cam: stopped: {error}")
        return 3
    except Stopped as stop:
        complain(f"holistic-cam: {stop}")
        return 128 + stop.number
    return 0


if __name__ == "__main__":
    sys.exit(main())
