"""The sanity check detects a control that ignores the model."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from benchmarks import report, sanity
from benchmarks.harness.arguments import make_parser
from benchmarks.harness.data import load
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import choose_tasks
from benchmarks.harness.table_file import TableFile
from holistic_cam_plugin.metrics import EfficientMPRT, independent_randomization


def test_sanity_finds_a_control_that_ignores_the_model(common, rows, output, capsys):
    sanity.main([*common, "--methods", "Grad-CAM", "Gaussian", "--samples", "2"])
    table = rows("sanity")
    found = [row for row in table if row["kind"] != "eMPRT"]
    assert len(found) == 2 * 2 * 3 * 3  # images, kinds, modules with parameters, maps
    blind = [row for row in found if row["method"] == "Gaussian"]
    assert {(row["ssim"], row["spearman"]) for row in blind} == {("1", "1")}
    assert min(float(row["ssim"]) for row in found if row["method"] == "Grad-CAM") < 0.9
    rises = [row for row in table if row["kind"] == "eMPRT"]
    assert len(rises) == 2 * 3
    assert {row["emprt"] for row in rises if row["method"] == "Gaussian"} == {"0"}
    printed = capsys.readouterr().out
    assert "| method | 4 | 1.0 | 0.0 |" in printed
    assert "| method | eMPRT ↑ |" in printed
    assert len(list((output / "strips").glob("*.png"))) == 2 * 2 * 2


def test_emprt_is_the_median_over_random_models(common, rows):
    command = [*common, "--methods", "Grad-CAM", "--samples", "2", "--randomize", "4"]
    sanity.main(command)
    found = {(r["image"], r["layer"]): float(r["emprt"]) for r in rows("sanity") if r["kind"] == "eMPRT"}
    arguments = make_parser(None).parse_args([*common, "--samples", "2"])
    classifier = load_model(arguments)
    for task in choose_tasks(arguments):
        image, targets = load(task.sample, classifier).image, [ClassifierOutputTarget(task.sample.label)]
        for layer in ("0", "1"):

            def cam_of(model, layer=layer):
                return GradCAM(model, [model.get_submodule(layer)])

            cams = cam_of(classifier.model)(image, targets)
            rises = [EfficientMPRT(cam_of, seed=seed)(image, cams, targets, classifier.model)[0] for seed in range(5)]
            assert len(set(rises)) > 1
            assert found.pop((task.sample.name, layer)) == pytest.approx(np.median(rises), abs=1e-4)
    assert not found


def test_emprt_passes_over_random_models_with_a_dead_score(subject):
    model, image, target = subject
    with_relu = nn.Sequential(*model, nn.ReLU()).eval()
    alive = []
    for seed in range(20):
        ((_, randomized),) = independent_randomization(with_relu, [""], seed=seed)
        if randomized(image)[0, 2] > 0:
            alive.append(randomized)
    assert 0 < len(alive) < 20
    found = list(islice(sanity._find_models(with_relu, image, target, 0), len(alive)))
    for one, other in zip(found, alive, strict=True):
        assert torch.equal(one(image), other(image))
    maps = {("1", "M"): np.eye(4, dtype=np.float32)}
    assert np.isnan(sanity._compute_emprt(maps, [])).all()


def test_emprt_has_a_table_of_its_own(tmp_path):
    known = {"layer": "a", "kind": "eMPRT", "method": "M", "randomized": "all", "ssim": "", "spearman": ""}
    rows = [known | {"emprt": "0.5"}, known | {"emprt": "0.5"}, known | {"method": "N", "emprt": ""}]
    cascade = known | {"kind": "cascading", "randomized": "fc", "ssim": "1", "spearman": "1", "emprt": ""}
    table = "| method | eMPRT ↑ |\n|---|---|\n| M | 0.50 [0.50, 0.50] |\n| N | constant |"
    assert sanity.make_emprt_table([*rows, cascade]) == table
    assert sanity.make_similarity_table([*rows, cascade]).splitlines()[-1] == "| M | 1.00 (1.00) |"
    with TableFile(tmp_path / "sanity.csv", tuple(cascade), {}) as table_file:
        table_file.append([*rows, cascade])
    comment = "<!-- table: sanity.csv kind=eMPRT -->\n"
    assert report.rewrite_page(comment, tmp_path) == f"{comment}{table}\n"


def test_rows_are_labelled_by_what_differs():
    known = {"layer": "a", "kind": "cascading", "method": "M", "randomized": "fc", "ssim": "0.5", "spearman": ""}
    rows = [known, known | {"ssim": "0.7", "spearman": "0.25"}, known | {"kind": "independent"}]
    assert sanity.make_similarity_table(rows).splitlines() == [
        "| kind | fc |",
        "|---|---|",
        "| cascading | 0.25 (0.60) |",
        "| independent | constant |",
    ]
