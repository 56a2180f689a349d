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
from benchmarks.zoo.oracle import PLACES, make_pictures, measure_distances
from holistic_cam_plugin import ClassHolisticCAM, explainable

__all__ = ["COLUMNS", "FAILED", "FAR", "OUTCOMES", "REFUSED", "RIGHT", "WRONG", "Verdict", "judge", "measure_end"]

OUTCOMES = RIGHT, REFUSED, WRONG, FAILED, NOT_BUILT = "right", "refused", "wrong", "failed", "not built"
# Distance in sides of the picture, and part of the modules with parameters; the README shows the distribution.
FAR, LATE = 0.2, 1 / 2
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
        warnings.filterwarnings("always", module="holistic_cam_plugin")
        try:
            verdict.step = "build"
            verdict.model, model = build_model(library, name)
            problems = _explain(verdict, model)
            verdict.outcome, verdict.reason = (WRONG, "; ".join(problems)) if problems else (RIGHT, "")
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


def _explain(verdict: Verdict, model: nn.Module) -> list[str]:
    """Explain a model; returns what is wrong."""
    wiring = _wire(verdict, model)
    verdict.size, verdict.multiple_of = _join(wiring.size), str(wiring.multiple_of)
    verdict.layers = " ".join(wiring.names)
    large = sum(parameter.numel() for parameter in model.parameters()) > LARGE
    problems = _check_places(verdict, wiring, large)
    picture = make_pictures(wiring.size)[0]
    end = measure_end(wiring.model, wiring.layers[: wiring.targets], picture)
    verdict.end = f"{end:.2f}"
    if end < LATE and verdict.passes:  # chosen by `explainable`
        problems.append(f"the last layer finishes after {end:.2f} of the modules")
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
        problems.append(f"the map has the shape {maps.shape} and values from {low:.3g} to {high:.3g}")
    return problems


def _check_places(verdict: Verdict, wiring: Wiring, large: bool) -> list[str]:
    """Ask the oracle at the model's own size and at another one."""
    verdict.step = "places"
    distances = _measure(wiring, wiring.size)
    verdict.distances = _format(distances)
    problems = _list_far(wiring, distances, wiring.size)
    if wiring.multiple_of is not None and not large:
        verdict.step = "places at another size"
        other = choose_other_size(wiring.size, wiring.multiple_of)
        verdict.other_size = _join(other)
        distances = _measure(wiring, other)
        verdict.other_distances = _format(distances)
        problems += _list_far(wiring, distances, other)
    return problems


def _wire(verdict: Verdict, model: nn.Module) -> Wiring:
    """Run `explainable`; wire the models by hand that it refuses and the tutorials explain."""
    verdict.step = "explainable"
    calls: list[None] = []
    counting = model.register_forward_pre_hook(lambda *_: calls.append(None))
    try:
        found, verdict.explainable = _time(lambda: explainable(model))
        verdict.passes = str(len(calls))
        return wire_found(found)
    except (TypeError, ValueError) as error:
        wiring = wire_by_hand(verdict.name, model)
        if wiring is None:
            raise
        verdict.notes = textwrap.shorten(f"explainable: {error}", _LONGEST)
        return wiring
    finally:
        counting.remove()


def _measure(wiring: Wiring, size: tuple[int, ...]) -> list[float]:
    """Measure the distances; how positions are ordered does not depend on the weights, so other ones may show it."""
    places = PLACES if size == wiring.size else PLACES[:: len(PLACES) - 1]

    def measure(layers: list[nn.Module]) -> list[float]:
        return measure_distances(wiring.model, layers, wiring.options.get("reshape_transform"), size, places)

    distances = measure(wiring.layers)
    far = [place for place, distance in enumerate(distances) if not distance < FAR]
    if far:
        with initial_statistics(wiring.model):
            again = measure([wiring.layers[place] for place in far])
        for place, distance in zip(far, again, strict=True):
            distances[place] = min(distances[place], distance)
    return distances


def _list_far(wiring: Wiring, distances: list[float], size: tuple[int, ...]) -> list[str]:
    return [
        f"{name} lies {distance:.2f} of the side away at {_join(size)} px"
        for name, distance in zip(wiring.names, distances, strict=True)
        if not distance < FAR
    ]


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


def _format(distances: list[float]) -> str:
    return " ".join(f"{distance:.2f}" for distance in distances)
