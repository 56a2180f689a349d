"""The command line: `holistic-cam` and `python -m holistic_cam_plugin`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from holistic_cam_plugin.cli.app import add_app_command
from holistic_cam_plugin.cli.arguments import Parser
from holistic_cam_plugin.cli.batch import add_batch_command
from holistic_cam_plugin.cli.explain import add_explain_command
from holistic_cam_plugin.cli.hints import check_command
from holistic_cam_plugin.cli.printing import complain
from holistic_cam_plugin.cli.report import add_report_command
from holistic_cam_plugin.cli.stopping import raise_signals
from holistic_cam_plugin.errors import OutputError, Stopped, UsageError

__all__ = ["build_parser", "main"]

COMMANDS = {
    "explain": add_explain_command,
    "batch": add_batch_command,
    "report": add_report_command,
    "app": add_app_command,
}
LONGEST_LINE = 2000  # characters: a message may quote an argument of any length


def build_parser() -> Parser:
    """Build the parser of all commands; its result has the function `run`."""
    parser = Parser(prog="holistic-cam")
    subparsers = parser.add_subparsers(required=True)
    for add_command in COMMANDS.values():
        add_command(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, by default `explain`; report an error in one line and by the exit code, which is returned."""
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # it logs what it raises anyway
    argv = list(sys.argv[1:] if argv is None else argv)
    word = argv[0] if argv else "-"
    if word not in COMMANDS:
        argv.insert(0, "explain")
    try:
        with raise_signals():
            if word not in COMMANDS:
                check_command(word, COMMANDS)
            arguments = build_parser().parse_args(argv)
            code: int = arguments.run(arguments)
            return code
    except UsageError as error:
        code, message = 2, f"error: {error}"
    except OutputError as error:
        code, message = 3, f"stopped: {error}"
    except Stopped as stop:
        code, message = 128 + (stop.number or 0), str(stop)
    program = "holistic-cam" if argv[0] == "explain" else f"holistic-cam {argv[0]}"
    complain(f"{program}: {message if len(message) <= LONGEST_LINE else message[:LONGEST_LINE] + '…'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
