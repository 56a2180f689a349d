"""What becomes of one model: built with random weights, explained, and judged by the oracle."""

from __future__ import annotations

import math
import textwrap
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.by_hand import Wiring, wire_by_hand, wire_found
from benchmarks.zoo.models import build_model, initial_statistics
from benchmarks.zoo.oracle import PLACES, Change, make_pictures, measure_changes
from holistic_cam_plugin import ClassHolisticCAM, explainable

__all__ = ["COLUMNS", "FAILED", "FAR", "MIXED", "OUTCOMES", "RIGHT", "WRONG", "Verdict", "judge", "measure_end"]

OUTCOMES = ("right", "unclear", "refused", "wrong", "failed", "not built")
RIGHT, UNCLEAR, REFUSED, WRONG, FAILED, NOT_BUILT = OUTCOMES
# From this distance on, a layer does not follow the patch; below this contrast, its maps change everywhere alike.
FAR, MIXED = 0.2, 0.25
# Part of the modules with parameters that have finished with the last layer.
LATE = 1 / 2
# Shorter sides of the pyramid, in proportion to the first.
PYRAMID = (224, 353)
# Height and width of the other size that is tried, in sides of the model's own.
OTHER = (1.15, 1.45)
# With more parameters, a model runs at its own size only.
LARGE = 150_000_000
_LONGEST = 500  # characters of an error's text


@dataclass
class Verdict:
    """One row of the table; columns that were not reached are empty.

    Attributes:
        name: the module of timm, the class of transformers, or the model of torchvision.
        model: the model's name.
        outcome: one of `OUTCOMES`.
        step: where it was refused or failed.
        reason: the error's text, or what is wrong.
        notes: the refusal of `explainable`, if the model was wired by hand, and warnings.
        size, multiple_of, layers: what `explainable` found.
        distances, other_distances: of the oracle, for each layer, at the model's size and at `other_size`.
        end: part of the modules with parameters that have finished when the last layer finishes.
        passes: forward passes of `explainable`.
        forward, explainable, map: seconds.
    """

    name: str
    model: str = ""
    outcome: str = ""
    step: str = ""
    reason: str = ""
    notes: str = ""
    size: str = ""
    multiple_of: str = ""
    layers: str = ""
    distances: str = ""
    other_size: str = ""
    other_distances: str = ""
    end: str = ""
    passes: str = ""
    forward: str = ""
    explainable: str = ""
    map: str = ""


COLUMNS = tuple(field.name for field in fields(Verdict))


def judge(library: str, name: str) -> Verdict:
    """Build a model, explain it and judge the maps; every error becomes an outcome."""
    verdict = Verdict(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", module=r"holistic_cam_plugin|benchmarks\.zoo")
        try:
            verdict.step = "build"
            verdict.model, model = build_model(library, name)
            findings = _explain(verdict, model)
            verdict.outcome = next((kind for kind in (WRONG, UNCLEAR) if kind in findings.values()), RIGHT)
            verdict.reason = "; ".join(findings)
        except Exception as error:
            verdict.outcome = _choose_outcome(verdict.step, error)
            verdict.reason = textwrap.shorten(f"{type(error).__name__}: {error}", _LONGEST)
            if verdict.outcome == FAILED:
                traceback.print_exc()
        else:
            verdict.step = ""
    said = dict.fromkeys(str(warning.message) for warning in caught)
    verdict.notes = "; ".join([*([verdict.notes] if verdict.notes else []), *said])
    return verdict


def _choose_outcome(step: str, error: Exception) -> str:
    if step == "build":
        return NOT_BUILT
    refused = step in ("explainable", "map") and isinstance(error, (TypeError, ValueError))
    return REFUSED if refused and "\n" not in str(error) else FAILED


def _explain(verdict: Verdict, model: nn.Module) -> dict[str, str]:
    """Explain a model; returns what is wrong or unclear, and which of them it is."""
    wiring = _wire(verdict, model)
    verdict.size, verdict.multiple_of = _join(wiring.size), str(wiring.multiple_of)
    verdict.layers = " ".join(wiring.names)
    large = sum(parameter.numel() for parameter in model.parameters()) > LARGE
    findings = _check_places(verdict, wiring, large)
    picture = make_pictures(wiring.size)[0]
    end = measure_end(wiring.model, wiring.layers[: wiring.targets], picture)
    verdict.end = f"{end:.2f}"
    if end < LATE and verdict.passes:  # chosen by `explainable`
        findings[f"the last layer finishes after {end:.2f} of the modules"] = UNCLEAR if verdict.notes else WRONG
    verdict.step = "map"
    output, verdict.forward = _time(lambda: _run(wiring.model, picture))
    side = min(wiring.size[-2:])
    sizes = [side] if large or len(wiring.size) == 3 else [side, side * PYRAMID[1] // PYRAMID[0]]
    cam = ClassHolisticCAM(wiring.model, wiring.layers[: wiring.targets], sizes=sizes, **wiring.options)
    targets = [wiring.choose_target(output[0])] if wiring.choose_target else None
    maps, verdict.map = _time(lambda: cam(picture, targets))
    low, high = float(maps.min()), float(maps.max())
    empty = low == high and verdict.passes  # of a box that was chosen at random, nothing may speak for it
    if maps.shape != (1, *wiring.size) or not 0 <= low <= high <= 1 or empty:
        findings[f"the map has the shape {maps.shape} and values from {low:.3g} to {high:.3g}"] = WRONG
    return findings


def _check_places(verdict: Verdict, wiring: Wiring, large: bool) -> dict[str, str]:
    """Ask the oracle at the model's own size and at another one."""
    verdict.step = "places"
    changes = _measure(wiring, wiring.size)
    verdict.distances = _format(changes)
    findings = _judge_changes(wiring, changes, wiring.size)
    if wiring.multiple_of is not None and not large:
        verdict.step = "places at another size"
        other = choose_other_size(wiring.size, wiring.multiple_of)
        verdict.other_size = _join(other)
        changes = _measure(wiring, other)
        verdict.other_distances = _format(changes)
        findings |= _judge_changes(wiring, changes, other)
    return findings


def _wire(verdict: Verdict, model: nn.Module) -> Wiring:
    """Run `explainable`; wire the models by hand that it refuses and the guides explain."""
    verdict.step = "explainable"
    calls: list[None] = []
    counting = model.register_forward_pre_hook(lambda *_: calls.append(None))
    try:
        with warnings.catch_warnings(record=True) as caught:
            found, verdict.explainable = _time(lambda: explainable(model))
        verdict.passes = str(len(calls))
        verdict.notes = "; ".join(f"explainable warns: {warning.message}" for warning in caught)
        return wire_found(found)
    except (TypeError, ValueError) as error:
        wiring = wire_by_hand(verdict.name, model)
        if wiring is None:
            raise
        verdict.notes = textwrap.shorten(f"explainable: {error}", _LONGEST)
        return wiring
    finally:
        counting.remove()


def _measure(wiring: Wiring, size: tuple[int, ...]) -> list[Change]:
    """Measure the changes; how positions are ordered does not depend on the weights, so other ones may show it."""
    places = PLACES if size == wiring.size else PLACES[:: len(PLACES) - 1]

    def measure(layers: list[nn.Module]) -> list[Change]:
        return measure_changes(wiring.model, layers, wiring.options.get("reshape_transform"), size, places)

    changes = measure(wiring.layers)
    far = [place for place, change in enumerate(changes) if not change.distance < FAR]
    if far:
        with initial_statistics(wiring.model):
            again = measure([wiring.layers[place] for place in far])
        for place, change in zip(far, again, strict=True):
            changes[place] = min(changes[place], change)
    return changes


def _judge_changes(wiring: Wiring, changes: list[Change], size: tuple[int, ...]) -> dict[str, str]:
    findings = {}
    for name, (distance, contrast) in zip(wiring.names, changes, strict=True):
        if contrast < MIXED and FAR <= distance < math.inf:
            findings[f"{name} changes everywhere alike at {_join(size)} px"] = UNCLEAR
        elif not distance < FAR:
            findings[f"{name} lies {distance:.2f} of the side away at {_join(size)} px"] = WRONG
    return findings


def measure_end(model: nn.Module, layers: list[nn.Module], picture: Tensor) -> float:
    """Measure which part of the modules with parameters has finished when the last of these layers finishes."""
    done: dict[nn.Module, bool] = {}

    def record(module: nn.Module, *_: object) -> None:
        done.setdefault(module, any(True for _ in module.parameters(recurse=False)))

    handles = [module.register_forward_hook(record) for module in model.modules()]
    try:
        _run(model, picture)
    finally:
        for handle in handles:
            handle.remove()
    order = list(done)
    last = max(order.index(layer) for layer in layers)
    return sum([*done.values()][: last + 1]) / sum(done.values())


def choose_other_size(size: tuple[int, ...], step: int) -> tuple[int, ...]:
    """Choose a larger size, with another aspect ratio, whose sides differ by multiples of `step`."""
    sides = [side + math.ceil(side * (factor - 1) / step) * step for side, factor in zip(size[-2:], OTHER, strict=True)]
    return (*size[:-2], *sides)


def _run(model: nn.Module, picture: Tensor) -> Any:
    with torch.no_grad():
        return model(picture)


def _time(run: Callable[[], Any]) -> tuple[Any, str]:
    start = time.perf_counter()
    result = run()
    return result, f"{time.perf_counter() - start:.2f}"


def _join(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _format(changes: list[Change]) -> str:
    return " ".join(f"{change.distance:.2f}" for change in changes)
