"""`holistic-cam batch`: the maps of a data set, computed by one process or several."""

from __future__ import annotations

import argparse
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from holistic_cam_plugin.batch import RESUME
from holistic_cam_plugin.batch.inputs import Inputs, check_input, find_inputs
from holistic_cam_plugin.batch.manifest import ERRORS, MANIFEST, merge, read_records, remove
from holistic_cam_plugin.batch.parameters import (
    MAX_THREADS,
    claim_folder,
    hash_parameters,
    hash_weights,
    read_package_versions,
)
from holistic_cam_plugin.batch.plan import Plan, mark_clashes
from holistic_cam_plugin.batch.ranks import Ranks, choose_rank_device, join_ranks
from holistic_cam_plugin.batch.run import Tally, find_unfinished, run
from holistic_cam_plugin.batch.store import hash_bytes
from holistic_cam_plugin.batch.writing import convert_write_errors
from holistic_cam_plugin.cli.arguments import (
    Parser,
    add_method_options,
    add_model_options,
    parse_output,
    parse_positive,
    select_methods,
)
from holistic_cam_plugin.cli.printing import complain, say, tell_assumed
from holistic_cam_plugin.errors import Stopped, UsageError
from holistic_cam_plugin.explain import Request
from holistic_cam_plugin.files import remove_parts
from holistic_cam_plugin.models.classes import find_classes
from holistic_cam_plugin.models.classifier import choose_device, load_classifier

__all__ = ["add_batch_command"]

_DESCRIPTION = """\
The maps of many images, in a folder. The command can be killed at any moment: run it again, and it resumes and ends
with the same bytes. A map is written whole or not at all.

  DIR/maps/NAME.npz      maps (methods, layers, targets, H, W) in [0, 1], and methods, layers, targets, scores
  DIR/overlays/NAME.jpg  with --overlays
  DIR/manifest.csv       one row per map; during the run, manifest-RANK.csv
  DIR/errors.csv         the images that could not be explained, and why
  DIR/parameters.json    what the maps depend on; a restart with different parameters is refused

Several processes share the images: torchrun --nproc-per-node N -m holistic_cam_plugin batch INPUT ...
"""
_EPILOG = """\
exit code: 0 all explained; 1 some failed, see errors.csv; 2 a mistake in the command; 3 stopped by a full disk or the
like; 130 or 143 stopped by Ctrl-C or SIGTERM. (torchrun itself turns all but 0 into 1.)

examples:
  holistic-cam batch photos --output maps
  holistic-cam batch val --imagefolder --model resnet18 --weights resnet18.pth --layers layer3 layer4 --output maps
  holistic-cam batch list.csv --root photos --overlays --device cuda --batch-size 16 --amp --output maps
  holistic-cam batch photos --model digits --output maps      (the bundled model, offline)
"""


def add_batch_command(commands: Any) -> None:
    """Add `batch` to the subparsers."""
    parser: Parser = commands.add_parser("batch", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add(
        "input", type=Path, metavar="INPUT",
        help="a folder, with all its folders, or a CSV with the columns file and, optionally, target",
    )  # fmt: skip
    add("--output", type=parse_output, required=True, metavar="DIR", help="a new folder, or that of a run to resume")
    add("--imagefolder", action="store_true", help="the folders directly in INPUT are the classes to explain")
    add("--root", type=Path, metavar="DIR", help="folder of the CSV's files (default: the CSV's folder)")
    add_model_options(parser, "resnet50")
    add_method_options(parser, ["classholisticcam"], "the last layer of the model's last stage")
    add("--no-crop", action="store_true", help="explain the whole image, its shorter side resized, not only its centre")
    add("--dtype", choices=("float16", "float32"), default="float16", help="of the stored maps (default: float16)")
    add("--overlays", action="store_true", help="also write the maps over the pictures, as JPEG")
    add("--batch-size", type=parse_positive, metavar="N", help="images per batch (default: 1, on a GPU 8)")
    add(
        "--workers", type=_parse_workers, default=min(2, os.cpu_count() or 1), metavar="N",
        help="threads of each process that read images ahead (default: 2)",
    )  # fmt: skip
    add(
        "--threads", type=_parse_threads, metavar="N",
        help="PyTorch's threads on a CPU; the last bits of a map depend on it (default: PyTorch's; in a restart, the "
        "folder's)",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(arguments: Namespace) -> int:
    if arguments.imagefolder and arguments.target:
        raise UsageError("--imagefolder and --target both name the classes to explain: give one of them")
    try:
        return _run_job(arguments)
    except Stopped as stop:
        raise Stopped(stop.number, f": {RESUME}") from stop


def _run_job(arguments: Namespace) -> int:
    device = choose_device(choose_rank_device(arguments.device))
    with join_ranks(device, _end_process) as ranks, ExitStack() as held:
        requests: list[Request] = []  # of the first rank, which needs its own to prepare

        def prepare() -> tuple[Plan, dict[str, Any]]:
            check_input(arguments.input, arguments.imagefolder, arguments.root, arguments.output)
            requests.append(_create_request(arguments, str(device)))
            tell_assumed(requests[0].classifier)
            return _prepare(arguments, requests[0], held)

        plan, parameters = ranks.broadcast(prepare)
        request = requests[0] if requests else _create_request(arguments, str(device))
        torch.set_num_threads(parameters["threads"])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        gathered = ranks.gather(_explain_share(plan, request, ranks)._asdict())
        if not gathered:
            return 0  # a rank that ends in an error would end the others: the first one answers for all
        with convert_write_errors(plan.folder):
            merge(plan.folder, ERRORS)
            # An image that fails now, but did not before, no longer has a map.
            merge(plan.folder, MANIFEST, without={rows[0]["file"] for rows in read_records(plan.folder, ERRORS)})
        return _print_summary(plan, [Tally(**tally) for tally in gathered])


def _create_request(arguments: Namespace, device: str) -> Request:
    classifier = load_classifier(arguments.model, arguments.weights, arguments.labels, device, text=arguments.text)
    layers = classifier.default_layers[-1:] if arguments.layers is None else arguments.layers
    return Request(classifier, classifier.at(layers), select_methods(arguments))


def _prepare(arguments: Namespace, request: Request, held: ExitStack) -> tuple[Plan, dict[str, Any]]:
    """List the images, lock the folder until `held` is closed, and tidy it up after a kill."""
    classifier = request.classifier
    target = None if arguments.target is None else tuple(find_classes(arguments.target, classifier.classes))
    inputs = find_inputs(
        arguments.input, classifier.classes, arguments.imagefolder, arguments.root, skipped=arguments.output
    )
    if target is not None:
        inputs = inputs._replace(jobs=[job if job.targets else job._replace(targets=target) for job in inputs.jobs])
    inputs = inputs._replace(jobs=mark_clashes(inputs.jobs, arguments.overlays))
    batch_size = arguments.batch_size or (1 if classifier.device.type == "cpu" else 8)
    wanted = _collect_parameters(arguments, request, inputs, target, batch_size)
    parameters = held.enter_context(claim_folder(arguments.output, wanted, torch.get_num_threads()))
    columns = {
        "model": classifier.name,
        "versions": " ".join(f"{name}={version}" for name, version in read_package_versions(arguments.model).items()),
    }
    plan = Plan(
        arguments.output.absolute(), inputs._replace(root=inputs.root.absolute()), hash_parameters(parameters),
        batch_size, not arguments.no_crop, arguments.dtype, arguments.overlays, arguments.workers, columns,
    )  # fmt: skip
    with convert_write_errors(plan.folder):
        remove_parts(plan.folder)
        merge(plan.folder, MANIFEST)
        remove(plan.folder, ERRORS)  # every failure is tried again
    return plan, parameters


def _collect_parameters(
    arguments: Namespace, request: Request, inputs: Inputs, target: Sequence[int] | None, batch_size: int
) -> dict[str, object]:
    """What the maps depend on, and where the images are."""
    classifier = request.classifier
    targets = "folders" if arguments.imagefolder else "predicted, or the CSV's"
    return {
        "input": str(inputs.root.absolute()),
        "model": classifier.name,
        "weights": hash_weights(classifier.model),
        "classes": hash_bytes("\n".join(classifier.classes).encode()),
        "layers": list(request.layers),
        "methods": [method.key for method in request.methods],
        "sizes": arguments.sizes,
        "target": targets if target is None else list(target),
        "preprocessing": classifier.preprocessing.to_json(),
        "crop": not arguments.no_crop,
        "dtype": arguments.dtype,
        "amp": arguments.amp,
        "batch_size": batch_size,
        "device": classifier.device.type,
        "threads": arguments.threads,
        "versions": read_package_versions(arguments.model),
    } | ({} if arguments.text is None else {"text": arguments.text})


def _explain_share(plan: Plan, request: Request, ranks: Ranks) -> Tally:
    """Explain this rank's images; the first rank shows its progress."""
    # Often on a terminal, once a minute in a log file.
    bar = partial(tqdm, unit="image", disable=ranks.rank > 0, mininterval=0.1 if sys.stderr.isatty() else 60)
    share = f"rank 0 of {ranks.world}" if ranks.world > 1 else "images"
    todo = find_unfinished(plan, request, ranks.rank, ranks.world, partial(bar, desc="checking", leave=False))
    total = sum(map(len, plan.batches(ranks.rank, ranks.world)))
    with bar(desc=share, total=total, initial=total - len(todo)) as progress:
        return run(plan, request, ranks.rank, ranks.world, todo, progress.update)


def _print_summary(plan: Plan, tallies: Sequence[Tally]) -> int:
    """Print the summary; returns the exit code."""
    counts = [(tally.explained, tally.failed, tally.kept) for tally in tallies]
    explained, failed, kept = map(sum, zip(*counts, strict=True))
    seconds = max(tally.seconds for tally in tallies)
    processor = sum(tally.processor for tally in tallies) / max(1, explained)
    summary = (
        f"{explained} images explained in {seconds:.1f} s, {explained / max(1e-9, seconds):.2f} images/s, "
        f"{processor:.3f} s of CPU time per image\n"
        f"of the time: {_format_shares(tallies)}\n"
        f"{kept} were done already\n{failed} failed"
        + (f", listed in {plan.folder / 'errors.csv'}" if failed else "")
        + f"\n{plan.folder / 'manifest.csv'}"
    )
    say(summary, f"all is done and in {plan.folder}, but ")
    return 1 if failed else 0


def _format_shares(tallies: Sequence[Tally]) -> str:
    """How the ranks spent their time."""
    total = sum(tally.seconds for tally in tallies)
    names = dict.fromkeys(name for tally in tallies for name in tally.waits)
    spent = {name: sum(tally.waits.get(name, 0.0) for tally in tallies) for name in names}
    spent["rest"] = total - sum(spent.values())
    return ", ".join(f"{name} {seconds / max(1e-9, total):.1%}" for name, seconds in spent.items())


def _end_process(reason: str) -> None:
    """End the process from another thread, whatever this rank waits for."""
    complain(f"holistic-cam batch: stopped: {reason}")
    os._exit(3)


def _parse_workers(text: str) -> int:
    """Parse a number of threads that this machine supports."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}")
    if int(text) > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text} are too many for the {os.cpu_count()} cores of this machine")
    return int(text)


def _parse_threads(text: str) -> int:
    parse_positive(text)
    return _parse_workers(text)
