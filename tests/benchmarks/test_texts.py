"""The tutorial of texts: its model, its measure and its figure."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.tutorials import texts
from benchmarks.tutorials.two_towers import (
    NUMERALS,
    PREPROCESSING,
    SIZE,
    TEXTS,
    TwoTowers,
    draw_coloured_digits,
    tokenize,
    train,
)
from holistic_cam_plugin import explainable
from holistic_cam_plugin.demo import make_scene

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "images_and_texts.md"


@pytest.fixture(scope="module")
def samples():
    return draw_coloured_digits("train", 24)


def test_the_texts_name_the_digits(samples):
    assert len(set(TEXTS)) == 30
    assert torch.equal(samples.images, draw_coloured_digits("train", 24).images)
    for image, labels, masks in zip(samples.images, samples.labels, samples.masks, strict=True):
        assert masks.shape == (2, SIZE, SIZE)
        assert not (masks[0] & masks[1]).any()
        numerals = {TEXTS[label].split()[2] for label in labels}
        assert len(numerals) == 2
        for label, mask in zip(labels, masks, strict=True):
            strongest = image[:, mask].mean(dim=1).argmax()
            assert TEXTS[label].split()[1] == ("red", "green", "blue")[strongest]


def test_the_digits_are_those_of_the_scene(samples):
    rng = np.random.default_rng([2, 5])
    rng.integers(3, size=2)
    rng.uniform(size=(2, 3))
    labels = make_scene(rng, "train", SIZE, 2).labels
    assert [TEXTS[label].split()[2] for label in samples.labels[5]] == [NUMERALS[label] for label in labels]


def test_a_few_steps_of_training(samples):
    model = train(samples, 30)
    assert not model.training
    logits = model.compare(model.encode_image(samples.images), model.encode_text(tokenize(TEXTS)))
    present = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, samples.labels, True)
    assert logits[present].mean() > logits[~present].mean() + 1
    found = explainable(model, PREPROCESSING, text=TEXTS, tokenizer=tokenize, size=(SIZE, SIZE))
    torch.testing.assert_close(found.model(samples.images), logits)
    assert found.layer_names[-1] == "head"
    assert found.options == {"mask_layer": model.head}


def test_the_measure():
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0, 0], masks[1, 1] = True, True
    right = masks.astype(np.float32)
    np.testing.assert_allclose(texts.measure_strokes(right, masks), 1)
    wrong = texts.measure_strokes(right[::-1], masks)
    assert (wrong < 0.5).all()
    outside = right + 9 * ~masks.any(axis=0)  # what lies beside the digits does not count
    np.testing.assert_allclose(texts.measure_strokes(outside, masks), 1)


@pytest.mark.campaign
def test_the_whole(tmp_path, capsys):
    small = ["--scenes", "40", "--held-out", "4", "--explained", "3", "--steps", "10", "--sizes", "128", "160"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such a network may hold no evidence
        texts.main([*small, "--output", str(tmp_path)])
    assert (tmp_path / "texts.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    assert len(re.findall(r"trunk\.layer[23] +\S*CAM +[\d.]+%   [\d.]+%", out)) == 6


def test_the_figure_of_the_readme_exists():
    figure = ROOT / "benchmarks" / "results" / "texts.jpg"
    assert 0 < figure.stat().st_size <= 150_000
    assert "](../../benchmarks/results/texts.jpg)" in GUIDE.read_text(encoding="utf-8")


def test_images_of_any_size():
    model = TwoTowers().eval()
    assert [model.encode_image(torch.rand(1, 3, side, side)).shape for side in (96, 128, 200)] == [(1, 64)] * 3
