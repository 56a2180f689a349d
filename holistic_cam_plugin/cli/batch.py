"""`holistic-cam batch`: the maps of a data set, in one process or many."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from holistic_cam_plugin.batch.explaining import Explainer
from holistic_cam_plugin.batch.inputs import Inputs, check_input, find_inputs
from holistic_cam_plugin.batch.job import Tally, run, unfinished
from holistic_cam_plugin.batch.manifest import ERRORS, MANIFEST, merge, recorded, remove
from holistic_cam_plugin.batch.parameters import claimed, digest, package_versions, weights_checksum
from holistic_cam_plugin.batch.plan import Plan, without_clashes
from holistic_cam_plugin.batch.ranks import Ranks, joined_ranks, rank_device
from holistic_cam_plugin.batch.store import checksum, remove_parts
from holistic_cam_plugin.batch.writing import OutputError, writing
from holistic_cam_plugin.classifiers.classes import class_indices
from holistic_cam_plugin.classifiers.models import chosen_device, demo_classifier, load_classifier
from holistic_cam_plugin.cli.batch_arguments import BUNDLED, batch_arguments
from holistic_cam_plugin.cli.printing import complain, say
from holistic_cam_plugin.cli.stopping import Stopped, stoppable
from holistic_cam_plugin.errors import UsageError

__all__ = ["batch"]

SOME_FAILED, USAGE, OUTPUT = 1, 2, 3


def batch(argv: Sequence[str]) -> int:
    """Run `holistic-cam batch`; the exit code is as its help says."""
    arguments = batch_arguments(argv)
    try:
        with stoppable():
            return _batch(arguments)
    except UsageError as error:
        _say(f"error: {error}")
        return USAGE
    except OutputError as error:
        _say(f"stopped: {error}")
        return OUTPUT
    except Stopped as stop:
        _say(f"{stop}: what is done is safe, and the same command goes on from there")
        return 128 + stop.number


def _batch(arguments: Namespace) -> int:
    device = chosen_device(rank_device(arguments.device))
    with joined_ranks(device, _lost) as ranks, ExitStack() as held:
        explainers: list[Explainer] = []  # the first rank needs its own already to prepare

        def prepare() -> tuple[Plan, dict[str, Any]]:
            check_input(arguments.input, arguments.imagefolder, arguments.root, arguments.output)
            explainers.append(_explainer(arguments, str(device)))
            return _prepared(arguments, explainers[0], held)

        plan, parameters = ranks.from_first(prepare)
        explainer = explainers[0] if explainers else _explainer(arguments, str(device))
        torch.set_num_threads(parameters["threads"])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        tally = _worked(plan, explainer, ranks)
        words = ranks.gathered(tally._asdict())
        if not words:
            return 0  # one rank that ends in an error would end the others: the first one answers for all
        with writing(plan.folder):
            merge(plan.folder, ERRORS)
            # An image that fails now, but did not before, has no map any more.
            merge(plan.folder, MANIFEST, without={rows[0]["file"] for rows in recorded(plan.folder, ERRORS)})
        return _summary(plan, [Tally(**word) for word in words])


def _explainer(arguments: Namespace, device: str) -> Explainer:
    """The model, and what is done with it; UsageError for what can't be done."""
    if arguments.model == BUNDLED:
        if arguments.weights or arguments.labels:
            raise UsageError(f"--model {BUNDLED} has weights and class names of its own: leave out --weights, --labels")
        classifier = demo_classifier(device)
    else:
        classifier = load_classifier(arguments.model, arguments.weights, arguments.labels, device)
    found = classifier.found.at(classifier.stages[-1:] if arguments.layers is None else arguments.layers)
    return Explainer(classifier, found, arguments.methods, arguments.sizes, arguments.amp)


def _prepared(arguments: Namespace, explainer: Explainer, held: ExitStack) -> tuple[Plan, dict[str, Any]]:
    """The list of images, and the folder: locked as long as `held` is open, and tidied up after a kill."""
    classifier = explainer.classifier
    target = None if arguments.target is None else tuple(class_indices(arguments.target, classifier.classes))
    inputs = find_inputs(
        arguments.input, classifier.classes, arguments.imagefolder, arguments.root, skipped=arguments.output
    )
    if target is not None:
        inputs = inputs._replace(jobs=[job if job.targets else job._replace(targets=target) for job in inputs.jobs])
    inputs = inputs._replace(jobs=without_clashes(inputs.jobs, arguments.overlays))
    batch_size = arguments.batch_size or (1 if classifier.device.type == "cpu" else 8)
    wanted = _parameters(arguments, explainer, inputs, target, batch_size)
    parameters = held.enter_context(claimed(arguments.output, wanted, torch.get_num_threads()))
    columns = {
        "model": classifier.name,
        "versions": " ".join(f"{name}={version}" for name, version in package_versions(arguments.model).items()),
    }
    plan = Plan(
        arguments.output.absolute(), inputs._replace(root=inputs.root.absolute()), digest(parameters), batch_size,
        not arguments.no_crop, arguments.dtype, arguments.overlays, arguments.workers, columns,
    )  # fmt: skip
    with writing(plan.folder):
        remove_parts(plan.folder)
        merge(plan.folder, MANIFEST)
        remove(plan.folder, ERRORS)  # every failure is tried again
    return plan, parameters


def _parameters(
    arguments: Namespace, explainer: Explainer, inputs: Inputs, target: Sequence[int] | None, batch_size: int
) -> dict[str, object]:
    """What the maps depend on, and where the images are."""
    classifier = explainer.classifier
    targets = "folders" if arguments.imagefolder else "predicted, or the CSV's"
    return {
        "input": str(inputs.root.absolute()),
        "model": classifier.name,
        "weights": weights_checksum(classifier.model),
        "classes": checksum("\n".join(classifier.classes).encode()),
        "layers": list(explainer.layers),
        "methods": list(explainer.methods),
        "sizes": explainer.sizes,
        "target": targets if target is None else list(target),
        "preprocessing": classifier.preprocessing.to_json(),
        "crop": not arguments.no_crop,
        "dtype": arguments.dtype,
        "amp": arguments.amp,
        "batch_size": batch_size,
        "device": classifier.device.type,
        "threads": arguments.threads,
        "versions": package_versions(arguments.model),
    }


def _worked(plan: Plan, explainer: Explainer, ranks: Ranks) -> Tally:
    """This rank's share; the first rank shows how far it is."""
    # On a terminal often, in a log file once a minute.
    bar = partial(tqdm, unit="image", disable=ranks.rank > 0, mininterval=0.1 if sys.stderr.isatty() else 60)
    share = f"rank 0 of {ranks.world}" if ranks.world > 1 else "images"
    todo = unfinished(plan, explainer, ranks.rank, ranks.world, partial(bar, desc="checking", leave=False))
    total = sum(map(len, plan.batches(ranks.rank, ranks.world)))
    with bar(desc=share, total=total, initial=total - len(todo)) as progress:
        return run(plan, explainer, ranks.rank, ranks.world, todo, progress.update)


def _summary(plan: Plan, tallies: Sequence[Tally]) -> int:
    """Print it; the exit code."""
    counts = [(tally.explained, tally.failed, tally.kept) for tally in tallies]
    explained, failed, kept = map(sum, zip(*counts, strict=True))
    seconds = max(tally.seconds for tally in tallies)
    processor = sum(tally.processor for tally in tallies) / max(1, explained)
    summary = (
        f"{explained} images explained in {seconds:.1f} s, {explained / max(1e-9, seconds):.2f} images/s, "
        f"{processor:.3f} s of CPU time an image\n"
        f"of the time: {_shares(tallies)}\n"
        f"{kept} were done already\n{failed} failed"
        + (f", listed in {plan.folder / 'errors.csv'}" if failed else "")
        + f"\n{plan.folder / 'manifest.csv'}"
    )
    try:
        say(summary)
    except OSError as error:
        raise OutputError(f"all is done and in {plan.folder}, but the summary can't be written: {error}") from error
    return SOME_FAILED if failed else 0


def _shares(tallies: Sequence[Tally]) -> str:
    """Where the time of all ranks went; what no stage took (other methods, start and end) is the rest."""
    total = sum(tally.seconds for tally in tallies)
    names = dict.fromkeys(name for tally in tallies for name in tally.stages)
    spent = {name: sum(tally.stages.get(name, 0.0) for tally in tallies) for name in names}
    spent["rest"] = total - sum(spent.values())
    return ", ".join(f"{name} {seconds / max(1e-9, total):.1%}" for name, seconds in spent.items())


def _lost(reason: str) -> None:
    _say(f"stopped: {reason}")
    os._exit(OUTPUT)  # called in a thread, whatever the others wait for: a restart goes on as after a kill


def _say(message: str) -> None:
    complain(f"holistic-cam batch: {message}")
