"""The troubleshooting page quotes messages of the package word for word, and its remedies run."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path

import pytest
import torch

import holistic_cam_plugin
from holistic_cam_plugin.demo import load_demo_model

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "guides" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = [re.sub(r"\s*^> ", " ", some, flags=re.M).strip() for some in re.findall(r"(?:^> .*\n)+", TEXT, re.M)]
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
SMALL = holistic_cam_plugin.HolisticCAM.__init__.__kwdefaults__ | {"num_scales": 2, "max_size": 64}


def read_string(node):
    """Return a string of the source, with `…` for fields of f-strings."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


@pytest.fixture(scope="module")
def source():
    files = (ROOT / "holistic_cam_plugin").rglob("*.py")
    return "\n".join(
        read_string(node) for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def test_there_is_something_quoted():
    assert len(QUOTED) >= 13


@pytest.mark.parametrize("message", QUOTED)
def test_every_quoted_message_is_in_the_source(message, source):
    for fragment in re.split(r"…|(?<=[:;.]) ", message):
        assert fragment.strip(" ()") in source, fragment


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_every_remedy_runs(snippet, monkeypatch):
    monkeypatch.setattr(holistic_cam_plugin.HolisticCAM.__init__, "__kwdefaults__", SMALL)
    names = {
        "torch": torch,
        "ClassHolisticCAM": holistic_cam_plugin.ClassHolisticCAM,
        "HolisticCAM": holistic_cam_plugin.HolisticCAM,
        "model": load_demo_model(),
        "input_tensor": torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
        "targets": [lambda output: output[3]],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noise is no evidence for a digit
        exec(snippet, names)

    assert names["maps"].shape == (1, 64, 64)
