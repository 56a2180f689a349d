"""The README's Python examples run as they are written, and what it refers to exists."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

import holistic_cam_plugin
from holistic_cam_plugin.demo import load_demo_model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_snippets_run_in_order():
    snippets = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(snippets) >= 3
    torch.manual_seed(0)
    names = {
        "model": load_demo_model(),
        "input_tensor": torch.randn(1, 3, 64, 64),
        "picture": np.random.default_rng(0).random((64, 64, 3), dtype=np.float32),
    }
    for snippet in snippets:
        exec(snippet, names)
    assert names["maps"].shape == (1, 64, 64)
    assert names["overlay"].shape == (64, 64, 3)
    for score in ("over_all", "inside", "road", "drop"):
        assert names[score].shape == (1,), score


def test_links_and_names_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    stages = README[README.index("Each stage is a pure function") :].split("\n\n")[0]
    for name in re.findall(r"`(\w+)`", stages):
        assert hasattr(holistic_cam_plugin, name), name
