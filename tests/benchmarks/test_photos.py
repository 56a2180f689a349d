"""The gallery's photographs are small and attributed, and predictions are those of their README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.harness.arguments import make_parser
from benchmarks.harness.data import find_samples, load
from benchmarks.harness.models import load_model

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "benchmarks" / "photos"
WEIGHTS = ROOT.parent / "shared" / "imagenet"
NETS = ("squeezenet1_0", "mobilenet_v2")


def read_rows(title: str) -> dict[str, list[str]]:
    """Read the README's table with this in its header, by file name."""
    found = {}
    text = (PHOTOS / "README.md").read_text(encoding="utf-8")
    for line in text[text.index(f"| {title} |") :].split("\n\n")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if name := re.fullmatch(r"`(\w+\.jpg)`", cells[0]):
            found[name[1]] = cells[1:]
    return found


def find_labelled(*extra: str):
    arguments = make_parser(None).parse_args(["--images", str(PHOTOS), "--squash", "--device", "cpu", *extra])
    return arguments, sorted(find_samples(arguments))


def test_photographs_are_small_labelled_and_attributed():
    files = {path.name for path in PHOTOS.glob("*.jpg")}
    assert len(files) == 8
    _, labelled = find_labelled()
    assert {sample.name for sample in labelled} == files
    attributions = read_rows("author")
    assert attributions.keys() == files
    for name, (_, author, licence, *_) in attributions.items():
        assert author, name
        assert re.search(r"CC0|CC BY 2.0|public domain", licence), name
        assert (PHOTOS / name).stat().st_size <= 40_000
        with Image.open(PHOTOS / name) as picture:
            assert (picture.format, min(picture.size) <= 320) == ("JPEG", True)


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="../shared/imagenet, with the weights, is absent")
@pytest.mark.parametrize("net", NETS)
def test_classifiers_see_them_as_the_readme_says(net):
    arguments, labelled = find_labelled("--model", net, "--weights", str(WEIGHTS / f"{net}.pth"))
    classifier = load_model(arguments)
    for sample in labelled:
        name, *seen, _ = read_rows("SqueezeNet 1.0")[sample.name]
        assert name == f"{sample.label}, {classifier.classes[sample.label]}"
        with torch.inference_mode():
            probabilities = classifier.model(load(sample, classifier).image)[0].softmax(0)
        place, share = re.fullmatch(r"(\d+), (\d+) %", seen[NETS.index(net)]).groups()
        assert int((probabilities > probabilities[sample.label]).sum()) + 1 == int(place)
        assert 100 * float(probabilities[sample.label]) == pytest.approx(int(share), abs=1)
