"""The work of `holistic-cam batch`."""

from __future__ import annotations

import hashlib
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from holistic_cam_plugin.batch.engine import BatchExplainer
from holistic_cam_plugin.batch.inputs import Inputs, check_input, find_inputs
from holistic_cam_plugin.batch.parameters import open_output, read_package_versions
from holistic_cam_plugin.batch.ray_data import explain_on_ray, load_ray
from holistic_cam_plugin.batch.run import PART, ExplainRows, Tally, explain_rows, find_unfinished, run
from holistic_cam_plugin.batch.tables import find_failure, write_tables
from holistic_cam_plugin.cli.notes import tell_assumed, tell_pyramid
from holistic_cam_plugin.cli.printing import complain, say
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.explain import Request
from holistic_cam_plugin.models.classes import find_classes
from holistic_cam_plugin.models.weights import hash_weights
from holistic_cam_plugin.names import DEFAULT_MODEL, FAST

__all__ = ["run_job"]


def run_job(arguments: Namespace) -> int:
    """Make the maps that are missing; returns the exit code."""
    if arguments.ray is not None:
        load_ray()
    is_default = arguments.sizes is None
    arguments.sizes = arguments.sizes or FAST
    explainer = _create_explainer(arguments)
    check_input(arguments.input, arguments.imagefolder, arguments.root, arguments.output)
    classifier = explainer.request.classifier
    tell_assumed(classifier)
    if is_default:
        tell_pyramid(explainer.request)
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
        failure = find_failure(record) if tally.failed else ""
    return _print_summary(folder, tally, done, failure)


def _create_explainer(arguments: Namespace) -> BatchExplainer:
    try:
        return BatchExplainer(
            arguments.model or DEFAULT_MODEL, weights=arguments.weights, labels=arguments.labels,
            layers=arguments.layers, methods=arguments.methods, sizes=arguments.sizes, text=arguments.text,
            target=arguments.target,
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


def _print_summary(folder: Path, tally: Tally, done: int, failure: str) -> int:
    """Print the summary, with the most frequent failure; returns the exit code."""
    seconds = max(1e-9, tally.seconds)
    waits = tally.waits | {"rest": seconds - sum(tally.waits.values())}
    listed = f", listed in {folder / 'errors.csv'}; most often: {failure}" if tally.failed else ""
    summary = (
        f"{tally.explained} images explained in {tally.seconds:.1f} s, {tally.explained / seconds:.2f} images/s, "
        f"{tally.processor / max(1, tally.explained):.3f} s of CPU time per image in this process\n"
        f"of the time: {', '.join(f'{name} {share / seconds:.1%}' for name, share in waits.items())}\n"
        f"{done} were done already\n{tally.failed} failed{listed}\n{folder / 'manifest.csv'}"
    )
    say(summary, f"all is done and in {folder}, but ")
    return 1 if tally.failed else 0
