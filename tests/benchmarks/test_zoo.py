"""The benchmark of models: its oracle on nets that are right and wrong by construction, its processes and tables."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness.table_file import read_rows
from benchmarks.zoo import __main__ as zoo
from benchmarks.zoo import judge as judging
from benchmarks.zoo.judge import COLUMNS, FAR, MIXED, Verdict, choose_other_size, judge, measure_end
from benchmarks.zoo.models import LIBRARIES, build_model, initial_statistics, list_names
from benchmarks.zoo.oracle import Change, measure_changes
from benchmarks.zoo.processes import judge_apart
from benchmarks.zoo.table import make_table
from holistic_cam_plugin import Explainable, explainable, vit_reshape_transform
from holistic_cam_plugin.errors import UsageError

SIZE = (64, 96)
GRID = (8, 12)


class Patches(nn.Module):
    """Tokens of 8x8 px, in the order of a permutation, that a linear layer mixes with nobody."""

    def __init__(self, order: Tensor | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.order = order
        self.layer = nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        if self.order is not None:
            tokens = tokens[:, self.order]
        return self.head(F.relu(self.layer(tokens)).mean(dim=1))


class Attention(nn.Module):
    """A layer that returns attention `(B, heads, N, N)` between all positions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.queries, self.keys = nn.Linear(16, 16), nn.Linear(16, 16)
        self.layer = nn.Conv2d(2, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        queries, keys = (f(tokens).unflatten(2, (2, 8)).transpose(1, 2) for f in (self.queries, self.keys))
        return self.layer(queries @ keys.transpose(2, 3)).mean(dim=(2, 3))


class CNN(nn.Module):
    """Two stages, the second of which a global pooling follows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shallow = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.deep(self.shallow(images)).mean(dim=(2, 3)))


def reshape(tokens: Tensor, image_size: tuple[int, ...]) -> Tensor:
    return vit_reshape_transform(tokens, image_size, patch_size=8, prefix_tokens=0)


@pytest.mark.parametrize("size", [SIZE, (96, 64)])
def test_the_oracle_finds_the_places_of_a_cnn(size):
    model = CNN()
    changes = measure_changes(model, [model.shallow, model.deep], None, size)
    assert max(change.distance for change in changes) < FAR / 2


def test_the_oracle_finds_the_places_of_tokens_row_by_row():
    model = Patches()
    assert measure_changes(model, [model.layer], reshape, SIZE)[0].distance < FAR / 2


@pytest.mark.parametrize(
    "order",
    [
        torch.randperm(96, generator=torch.Generator().manual_seed(0)),
        torch.arange(96).view(GRID).T.flatten(),  # column by column
        torch.arange(96).view(4, 2, 6, 2).permute(1, 3, 0, 2).flatten(),  # the units of Hiera
        torch.arange(96).flip(0),
    ],
    ids=["random", "columns", "units", "reversed"],
)
def test_the_oracle_refuses_other_orders_of_the_tokens(order):
    model = Patches(order)
    (change,) = measure_changes(model, [model.layer], reshape, SIZE)
    assert change.distance > FAR
    assert change.contrast > MIXED


def test_the_oracle_refuses_an_attention_matrix():
    model = Attention()
    (change,) = measure_changes(model, [model.layer], None, (64, 64))
    assert change.distance > FAR
    assert change.contrast > MIXED


def test_the_oracle_refuses_maps_that_nothing_changes():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(4), nn.Threshold(1e9, 1))
    assert measure_changes(model, [model[2]], None, SIZE)[0].distance == float("inf")


def test_the_oracle_takes_videos():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(3, 4, 3, 2, 1), nn.ReLU())
    assert measure_changes(model, [model[1]], None, (4, 32, 48))[0].distance < FAR / 2


def test_the_oracle_refuses_a_layer_that_returns_no_maps():
    model = Patches()
    with pytest.raises(TypeError, match="Linear returns no maps"):
        measure_changes(model, [model.layer], None, SIZE)


def test_the_end_is_the_part_of_the_modules_that_have_finished():
    model = CNN()
    picture = torch.rand(1, 3, 32, 32)
    assert measure_end(model, [model.shallow], picture) == pytest.approx(1 / 3)
    assert measure_end(model, [model.deep, model.shallow], picture) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("step", "expected"), [(1, (258, 325)), (32, (288, 352))])
def test_the_other_size_is_larger_by_multiples(step, expected):
    assert choose_other_size((224, 224), step) == expected
    assert choose_other_size((8, 224, 224), step) == (8, *expected)


def judge_net(monkeypatch: pytest.MonkeyPatch, model: nn.Module) -> Verdict:
    monkeypatch.setattr(judging, "build_model", lambda library, name: (name, model.eval()))
    return judge("timm", "toy")


def test_a_cnn_is_right(monkeypatch):
    verdict = judge_net(monkeypatch, CNN())
    assert (verdict.outcome, verdict.reason, verdict.step) == ("right", "", "")
    assert verdict.layers == "shallow deep"
    assert verdict.multiple_of == "1"
    assert max(map(float, [*verdict.distances.split(), *verdict.other_distances.split()])) < FAR
    assert int(verdict.passes) > 2
    assert float(verdict.map) >= 0


def test_a_layer_that_lies_elsewhere_is_wrong(monkeypatch):
    found = [Change(0.01, 0.6), Change(0.4, 0.6)]
    monkeypatch.setattr(judging, "measure_changes", lambda model, layers, *_: found[-len(layers) :])
    verdict = judge_net(monkeypatch, CNN())
    assert verdict.outcome == "wrong"
    assert verdict.reason.startswith("deep lies 0.40 of the side away at 224x224 px; deep lies")


def test_a_layer_that_changes_everywhere_alike_is_unclear(monkeypatch):
    found = [Change(0.01, 0.6), Change(0.4, 0.02)]
    monkeypatch.setattr(judging, "measure_changes", lambda model, layers, *_: found[-len(layers) :])
    verdict = judge_net(monkeypatch, CNN())
    assert verdict.outcome == "unclear"
    assert verdict.reason.startswith("deep changes everywhere alike at 224x224 px; deep changes")


def test_the_oracle_tells_mixed_positions_from_scrambled_ones():
    class Mixed(Patches):
        def forward(self, images: Tensor) -> Tensor:
            tokens = self.patches(images).flatten(2).transpose(1, 2)
            return self.layer(tokens.mean(dim=1, keepdim=True) + 1e-3 * tokens).mean(dim=1)

    model = Mixed()
    (change,) = measure_changes(model, [model.layer], reshape, SIZE)
    assert change.contrast < MIXED


def test_a_model_that_goes_on_after_the_last_layer_is_wrong(monkeypatch):
    monkeypatch.setattr(judging, "measure_end", lambda *_: 0.17)
    verdict = judge_net(monkeypatch, CNN())
    assert (verdict.outcome, verdict.reason) == ("wrong", "the last layer finishes after 0.17 of the modules")


def test_a_model_that_goes_on_is_unclear_if_explainable_warns(monkeypatch):
    def warn(model: nn.Module) -> Explainable:
        warnings.warn("the rest is not in the map", stacklevel=2)
        return explainable(model)

    monkeypatch.setattr(judging, "measure_end", lambda *_: 0.17)
    monkeypatch.setattr(judging, "explainable", warn)
    verdict = judge_net(monkeypatch, CNN())
    assert verdict.outcome == "unclear"
    assert verdict.notes.startswith("explainable warns: the rest is not in the map")


def test_a_large_model_runs_at_its_own_size_only(monkeypatch):
    monkeypatch.setattr(judging, "LARGE", 10)
    verdict = judge_net(monkeypatch, CNN())
    assert (verdict.outcome, verdict.other_size, verdict.other_distances) == ("right", "", "")


def test_a_detector_is_refused_in_one_line(monkeypatch):
    class Detector(CNN):
        def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
            return [{"boxes": super().forward(images)}]

    verdict = judge_net(monkeypatch, Detector())
    assert (verdict.outcome, verdict.step) == ("refused", "explainable")
    assert verdict.reason.startswith("TypeError: ")


def test_a_model_that_needs_another_library_is_not_built(monkeypatch):
    def build(library: str, name: str) -> tuple[str, nn.Module]:
        raise ImportError("\nit needs natten\n")

    monkeypatch.setattr(judging, "build_model", build)
    verdict = judge("timm", "toy")
    assert (verdict.outcome, verdict.reason) == ("not built", "ImportError: it needs natten")


@pytest.mark.parametrize(
    ("error", "text"), [(ValueError("two\nlines"), "ValueError: two lines"), (KeyError("pool"), "KeyError: 'pool'")]
)
def test_other_errors_are_failures(monkeypatch, capsys, error, text):
    def fail(model: nn.Module) -> None:
        raise error

    monkeypatch.setattr(judging, "explainable", fail)
    verdict = judge_net(monkeypatch, CNN())
    assert (verdict.outcome, verdict.reason) == ("failed", text)
    assert "Traceback" in capsys.readouterr().err


def test_a_size_that_the_model_does_not_take_is_a_failure(monkeypatch):
    def measure(
        model: nn.Module, layers: list[nn.Module], reshape: object, size: tuple[int, int], _: object
    ) -> list[float]:
        if size[0] != size[1]:
            raise RuntimeError("not square")
        return [Change(0.0, 0.8)] * len(layers)

    monkeypatch.setattr(judging, "measure_changes", measure)
    verdict = judge_net(monkeypatch, CNN())
    assert (verdict.outcome, verdict.step) == ("failed", "places at another size")


def crash(library: str, name: str) -> Verdict:
    os._exit(1)


def hang(library: str, name: str) -> Verdict:
    time.sleep(1000)
    raise AssertionError


def reserve(library: str, name: str) -> Verdict:
    with pytest.raises(RuntimeError, match="allocate memory"):
        torch.empty(2**40, dtype=torch.uint8)
    return Verdict(name, outcome="right")


@pytest.mark.parametrize(
    ("own", "seconds", "outcome", "reason"),
    [
        (crash, 500, "failed", "the process died"),
        (hang, 0.1, "failed", "it took more than 0.1 seconds"),
        (reserve, 500, "right", ""),
    ],
)
def test_a_process_that_dies_or_hangs_is_a_row(own: Callable[..., Verdict], seconds, outcome, reason):
    verdict = judge_apart("timm", "toy", seconds, 16, own)
    assert (verdict.name, verdict.outcome, verdict.reason) == ("toy", outcome, reason)


def test_a_killed_run_goes_on_where_it_was(monkeypatch, tmp_path, capsys):
    asked = []

    def judge_some(library, names, *_):
        for name in names:
            asked.append(name)
            if len(asked) == 3:
                raise KeyboardInterrupt
            yield Verdict(name, name, "right")

    monkeypatch.setattr(zoo, "judge_all", judge_some)
    monkeypatch.setattr(zoo, "list_names", lambda library: ["a", "b", "c", "d"])
    command = ["--library", "timm", "--output", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        zoo.main(command)
    zoo.main(command)
    assert asked == ["a", "b", "c", "c", "d"]
    assert [row["name"] for row in read_rows(tmp_path / "timm.csv")] == ["a", "b", "c", "d"]
    zoo.main(command)
    assert len(asked) == 5
    assert "| 4 | 4 | 0 | 0 | 0 | 0 | 0 |" in capsys.readouterr().out


def test_rows_of_other_versions_are_not_mixed(monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, "judge_all", lambda library, names, *_: iter(()))
    zoo.main(["--library", "timm", "--output", str(tmp_path)])
    monkeypatch.setattr(zoo, "list_versions", lambda library: {"torch": "1", "torchvision": "1", "timm": "0"})
    with pytest.raises(UsageError, match="other values of timm, torch, torchvision"):
        zoo.main(["--library", "timm", "--output", str(tmp_path)])


def test_an_unknown_model_is_told(tmp_path):
    with pytest.raises(UsageError, match="timm has no nonsense; known: beit"):
        zoo.main(["--library", "timm", "--only", "nonsense", "--output", str(tmp_path)])


def test_a_model_of_timm_from_end_to_end(tmp_path, capsys):
    zoo.main(["--library", "timm", "--only", "byobnet", "--output", str(tmp_path)])
    (row,) = read_rows(tmp_path / "timm.csv")
    assert (row["name"], row["outcome"], row["reason"]) == ("byobnet", "right", "")
    assert "| timm 1.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("library", "name"),
    [("transformers", "ResNetForImageClassification"), ("torchvision", "fcn_resnet50"), ("timm", "convnext")],
)
def test_weights_are_random_but_neither_zero_nor_without_statistics(library, name):
    own, model = build_model(library, name)
    assert own
    assert not model.training
    assert all(parameter.any() for parameter in model.parameters() if parameter.ndim > 1)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.momentum is not None for norm in norms)
    again = build_model(library, name)[1].state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())


def test_statistics_are_those_of_the_start_in_the_body_only():
    _, model = build_model("timm", "byobnet")
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    with initial_statistics(model):
        assert not norm.running_mean.any()
    assert before.any()
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_names_are_unique(library):
    names = list_names(library)
    assert len(names) == len(set(names)) > 40


def write_table(folder: Path, name: str, rows: list[Verdict]) -> Path:
    path = folder / f"{name}.csv"
    with zoo.TableFile(path, COLUMNS, {name: "1.2"}) as table:
        for row in rows:
            table.append([asdict(row)])
    assert json.loads(path.with_suffix(".json").read_text()) == {name: "1.2"}
    return path


def test_the_tables(tmp_path):
    good = Verdict("b", "b_tiny", "right", size="224x224", multiple_of="1", layers="x y", distances="0.01 0.02")
    good.other_distances, good.passes, good.explainable, good.map = "0.03 0.01", "11", "1.5", "2.5"
    bad = Verdict("a", "", "refused", "explainable", "ValueError: a | b")
    first, second = write_table(tmp_path, "timm", [good, bad]), write_table(tmp_path, "transformers", [good])
    assert make_table([first, second], "summary").splitlines() == [
        "| library | models | right | unclear | refused | wrong | failed | not built |",
        "|---|---|---|---|---|---|---|---|",
        "| timm 1.2 | 2 | 1 | 0 | 1 | 0 | 0 | 0 |",
        "| transformers 1.2 | 1 | 1 | 0 | 0 | 0 | 0 | 0 |",
    ]
    assert make_table([first, second], "exceptions").splitlines()[2:] == [
        "| timm | a | refused | ValueError: a \\| b |",
    ]
    assert make_table([first], "models").splitlines()[2:] == [
        "| a | refused |  |  |  |  |  |  |  |",
        "| b_tiny | right | 224x224 | any | `x` `y` | 0.03 | 11 | 1.5 | 2.5 |",
    ]
