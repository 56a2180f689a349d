"""The tutorials' networks, cases and figure, after a few steps of training."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.tutorials import __main__ as tutorials
from benchmarks.tutorials import models as tutorial_models
from benchmarks.tutorials.models import draw_samples
from benchmarks.tutorials.quality import find_digits, mean_iou

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "models.md"


@pytest.mark.campaign
def test_the_whole(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tutorial_models, "_BOX_SCORE", 0.0)  # after two steps no box has a score
    drawn = {}
    draw = tutorials.draw
    monkeypatch.setattr(tutorials, "draw", lambda path, rows: (drawn.update(rows), draw(path, rows)))
    small = ["--scenes", "4", "--held-out", "2", "--size", "96", "--steps", "2", "--sizes", "96", "128", "--output"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such networks may hold no evidence
        tutorials.main([*small, str(tmp_path)])
    assert (tmp_path / "tutorials.png").stat().st_size > 10_000
    assert list(drawn) == ["segmentation", "detection", "ViT"]
    for _, picture, _, maps in drawn.values():
        assert picture.shape == (96, 96, 3)
        assert len(maps) == 6
        for cam in maps.values():
            assert cam.shape == (96, 96)
            assert np.isfinite(cam).all()
    assert len(re.findall(r"finds [\d.]+% of the digits of 2 held-out scenes", capsys.readouterr().out)) == 3


@pytest.fixture(scope="module")
def samples():
    return draw_samples("held-out", 3, 96)


def test_masks_lie_in_the_boxes_and_name_both_digits(samples):
    for mask, labels, boxes in zip(samples.masks, samples.labels, samples.boxes, strict=True):
        assert mask.unique().tolist() == sorted([0, *(labels + 1).tolist()])
        for label, (x0, y0, x1, y1) in zip(labels, boxes.int().tolist(), strict=True):
            inside = mask[y0:y1, x0:x1] == label + 1
            assert inside.sum() == (mask == label + 1).sum()
            assert inside.any(dim=0).all()
            assert inside.any(dim=1).all()


def test_the_truth_is_found_and_nothing_else(samples):
    """Networks that know the scenes are right in the first digit and wrong in the second."""

    def detector(images):
        labels = samples.labels + torch.tensor([1, 2])
        boxes = zip(labels, samples.boxes, strict=True)
        return [{"labels": ls, "boxes": bs, "scores": torch.ones(2)} for ls, bs in boxes]

    def segmenter(images):
        masks = samples.masks.where(samples.masks != samples.labels[:, 1, None, None] + 1, 0)
        return {"out": torch.nn.functional.one_hot(masks, 11).permute(0, 3, 1, 2)}

    def classifier(images):
        return torch.zeros(3, 10).scatter(1, samples.labels[:, :1], 1.0).scatter(1, choose_wrong(samples.labels), 0.5)

    for model in (detector, segmenter, classifier):
        assert find_digits(model, samples).tolist() == [[True, False]] * 3, model.__name__
    assert 0 < mean_iou(segmenter, samples) < 1


def choose_wrong(labels):
    others = [next(k for k in range(10) if k not in some) for some in labels.tolist()]
    return torch.tensor(others)[:, None]


def test_every_scale_of_the_detector_has_its_own_size():
    model = tutorial_models.build_detector(tutorial_models.load_demo_model()).eval()
    seen = []
    model.backbone.register_forward_hook(lambda module, images, output: seen.append(images[0].shape[-1]))
    with torch.no_grad():
        for size in (96, 160):
            model(torch.zeros(1, 3, size, size))
    assert seen == [96, 160]


def test_the_figure_of_the_guide_exists():
    figure = ROOT / "benchmarks" / "results" / "tutorials.jpg"
    assert 0 < figure.stat().st_size <= 150_000
    (named,) = re.findall(r"\]\((\S*tutorials\S*\.jpg)\)", GUIDE.read_text(encoding="utf-8"))
    assert (GUIDE.parent / named).resolve() == figure
