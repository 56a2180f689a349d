"""`holistic-cam batch`: the maps of a data set."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from holistic_cam_plugin.batch.engine import BatchExplainer
from holistic_cam_plugin.batch.inputs import Inputs, check_input, find_inputs
from holistic_cam_plugin.batch.parameters import open_output, read_package_versions
from holistic_cam_plugin.batch.ray_data import explain_on_ray, load_ray
from holistic_cam_plugin.batch.run import PART, ExplainRows, Tally, explain_rows, find_unfinished, run
from holistic_cam_plugin.batch.tables import write_tables
from holistic_cam_plugin.cli.arguments import (
    Parser,
    add_method_options,
    add_model_options,
    parse_output,
    parse_positive,
)
from holistic_cam_plugin.cli.printing import complain, say, tell_assumed
from holistic_cam_plugin.errors import RESUME, Stopped, UsageError
from holistic_cam_plugin.explain import Request
from holistic_cam_plugin.models.classes import find_classes
from holistic_cam_plugin.models.weights import hash_weights

__all__ = ["add_batch_command"]

# More threads are useless, and some systems crash.
MAX_WORKERS = max(256, 4 * (os.cpu_count() or 1))

_DESCRIPTION = """\
The maps of many images, in a folder. The command can be killed at any moment: run it again, and it makes what is
missing. A map is written whole or not at all.

  DIR/maps/NAME.npz      maps (methods, layers, targets, H, W) in [0, 1], and methods, layers, targets, scores
  DIR/overlays/NAME.jpg  with --overlays
  DIR/record.sqlite      the images, their maps and what they depend on; a restart with other parameters is refused
  DIR/manifest.csv       at the end, one row per map; manifest.parquet, too, if pyarrow is installed
  DIR/errors.csv         the images that could not be explained, and why
"""
_EPILOG = """\
exit code: 0 all explained; 1 some failed, see errors.csv; 2 a mistake in the command; 3 stopped by a full disk or the
like; 130 or 143 stopped by Ctrl-C or SIGTERM.

examples:
  holistic-cam batch photos --output maps
  holistic-cam batch val --imagefolder --model resnet18 --weights resnet18.pth --layers layer3 layer4 --output maps
  holistic-cam batch list.csv --root photos --overlays --device cuda --batch-size 16 --amp --output maps
  holistic-cam batch photos --output maps --ray               (a process per GPU or core; pip install "...[ray]")
  holistic-cam batch photos --model digits --output maps      (the bundled model, offline)
"""


def add_batch_command(commands: Any) -> None:
    """Add `batch` to the subparsers."""
    parser: Parser = commands.add_parser("batch", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add(
        "input", type=Path, metavar="INPUT",
        help="a folder, with all its folders, or a CSV with a column file and, optionally, target, label, mask, and "
        "left, top, right, bottom",
    )  # fmt: skip
    add("--output", type=parse_output, required=True, metavar="DIR", help="a new folder, or that of a run to resume")
    add("--imagefolder", action="store_true", help="the folders directly in INPUT are the labels, which are explained")
    add("--root", type=Path, metavar="DIR", help="folder of the CSV's files (default: the CSV's folder)")
    add_model_options(parser, "resnet50")
    add_method_options(parser, ["classholisticcam"], "the last layer of the model's last stage")
    add("--no-crop", action="store_true", help="explain the whole image, its shorter side resized, not only its centre")
    add("--dtype", choices=("float16", "float32"), default="float16", help="of the stored maps (default: float16)")
    add("--overlays", action="store_true", help="also write the maps over the pictures, as JPEG")
    add("--batch-size", type=parse_positive, metavar="N", help="images per batch (default: 1, on a GPU 8)")
    add(
        "--workers", type=_parse_workers, default=min(2, os.cpu_count() or 1), metavar="N",
        help="threads that read images ahead (default: 2)",
    )  # fmt: skip
    add(
        "--verify", action="store_true",
        help="read all archives of earlier runs: those that are damaged are made again, not only missing or torn ones",
    )  # fmt: skip
    add(
        "--shard", type=_parse_shard, metavar="I/N",
        help="every N-th image, the I-th first, such as $SLURM_ARRAY_TASK_ID/8; each I needs an --output of its own",
    )  # fmt: skip
    add(
        "--ray", nargs="?", const="", metavar="ADDRESS",
        help="explain on Ray, with an actor per GPU or core: on a cluster, such as auto or 10.0.0.1:6379, or on this "
        "machine (default). All of them must see INPUT under the same path",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(arguments: Namespace) -> int:
    try:
        return _run_job(arguments)
    except Stopped as stop:
        raise Stopped(stop.number, f": {RESUME}") from stop


def _run_job(arguments: Namespace) -> int:
    if arguments.ray is not None:
        load_ray()
    explainer = _create_explainer(arguments)
    check_input(arguments.input, arguments.imagefolder, arguments.root, arguments.output)
    classifier = explainer.request.classifier
    tell_assumed(classifier)
    folder, inputs = arguments.output.absolute(), _find_inputs(arguments, classifier.classes)
    explainer.root = inputs.root
    batch_size = arguments.batch_size or (1 if classifier.device.type == "cpu" else 8)
    explainer.padded_size = batch_size
    parameters = _collect_parameters(arguments, explainer.request, inputs, batch_size)
    # Often on a terminal, once a minute in a log file.
    bar = partial(tqdm, unit="image", mininterval=0.1 if sys.stderr.isatty() else 60)
    with open_output(folder, parameters, classifier.classes) as record:
        jobs = find_unfinished(
            inputs, folder, record, overlays=arguments.overlays, verify=arguments.verify,
            progress=partial(bar, desc="checking", leave=False, delay=1),
        )  # fmt: skip
        done = len(inputs.jobs) - len(jobs)
        with bar(desc="images", total=len(inputs.jobs), initial=done) as progress:
            explain: ExplainRows = partial(explain_rows, workers=arguments.workers)
            if arguments.ray is not None:
                explain = partial(explain_on_ray, address=arguments.ray)
            tally = run(explainer, jobs, folder, record, batch_size, progress.update, explain)
        write_tables(folder, record, PART)
    return _print_summary(folder, tally, done)


def _create_explainer(arguments: Namespace) -> BatchExplainer:
    try:
        return BatchExplainer(
            arguments.model or "resnet50", weights=arguments.weights, labels=arguments.labels, layers=arguments.layers,
            methods=arguments.methods, sizes=arguments.sizes, text=arguments.text, target=arguments.target,
            crop=not arguments.no_crop, dtype=arguments.dtype, overlays=arguments.overlays, device=arguments.device,
            amp=arguments.amp,
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise UsageError(error) from error


def _find_inputs(arguments: Namespace, classes: Sequence[str]) -> Inputs:
    """List the images of this run, with the targets of the command line."""
    inputs = find_inputs(arguments.input, classes, arguments.imagefolder, arguments.root, skipped=arguments.output)
    if inputs.unused:
        complain(f"holistic-cam batch: {arguments.input}: unused columns: {', '.join(inputs.unused)[:200]}")
    target = () if arguments.target is None else tuple(find_classes(arguments.target, classes))
    index, count = arguments.shard or (1, 1)
    jobs = [job._replace(targets=job.targets or target) for job in inputs.jobs[index - 1 :: count]]
    return inputs._replace(root=inputs.root.absolute(), jobs=jobs)


def _collect_parameters(arguments: Namespace, request: Request, inputs: Inputs, batch_size: int) -> dict[str, object]:
    """What the maps depend on, and where the images are."""
    classifier = request.classifier
    target = "the table's or the folder's, or else predicted"
    return {
        "input": str(inputs.root),
        "model": classifier.name,
        "weights": hash_weights(classifier.model),
        "classes": hashlib.sha256("\n".join(classifier.classes).encode()).hexdigest(),
        "layers": list(request.layers),
        "methods": [method.key for method in request.methods],
        "sizes": arguments.sizes,
        "target": find_classes(arguments.target, classifier.classes) if arguments.target else target,
        "preprocessing": classifier.preprocessing.to_json(),
        "crop": not arguments.no_crop,
        "dtype": arguments.dtype,
        "amp": arguments.amp,
        "batch_size": batch_size,
        "device": classifier.device.type,
        "versions": read_package_versions(arguments.model),
    } | ({} if arguments.text is None else {"text": arguments.text})


def _print_summary(folder: Path, tally: Tally, done: int) -> int:
    """Print the summary; returns the exit code."""
    seconds = max(1e-9, tally.seconds)
    waits = tally.waits | {"rest": seconds - sum(tally.waits.values())}
    listed = f", listed in {folder / 'errors.csv'}" if tally.failed else ""
    summary = (
        f"{tally.explained} images explained in {tally.seconds:.1f} s, {tally.explained / seconds:.2f} images/s, "
        f"{tally.processor / max(1, tally.explained):.3f} s of CPU time per image in this process\n"
        f"of the time: {', '.join(f'{name} {share / seconds:.1%}' for name, share in waits.items())}\n"
        f"{done} were done already\n{tally.failed} failed{listed}\n{folder / 'manifest.csv'}"
    )
    say(summary, f"all is done and in {folder}, but ")
    return 1 if tally.failed else 0


def _parse_workers(text: str) -> int:
    """Parse a number of threads that this machine supports."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}")
    if int(text) > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"{text} are too many for the {os.cpu_count()} cores of this machine")
    return int(text)


def _parse_shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 1 to N, such as 1/4, got {text!r}")
    return int(index), int(count)
