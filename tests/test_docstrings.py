"""The examples of docstrings run, and every public function and class, or a method of it, has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch
import torchvision

import holistic_cam_plugin
from holistic_cam_plugin import metrics

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Examples need not import these.
NAMES = {"np": np, "nn": torch.nn, "torch": torch, "torchvision": torchvision}
NAMES |= {name: getattr(holistic_cam_plugin, name) for name in holistic_cam_plugin.__all__}
EXTRAS = ("gradio", "zennit")
MODULES = [
    "holistic_cam_plugin",
    *(m.name for m in pkgutil.walk_packages(holistic_cam_plugin.__path__, "holistic_cam_plugin.")),
]
PUBLIC = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in (holistic_cam_plugin, metrics)
    for name in package.__all__
    if inspect.isclass(getattr(package, name)) or inspect.isfunction(getattr(package, name))
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if error.name not in EXTRAS:
            raise
        pytest.skip(f"{error.name} is not installed")
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    report: list[str] = []
    for example in doctest.DocTestFinder().find(module, extraglobs=NAMES):
        np.random.seed(0)
        torch.manual_seed(0)
        runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_an_example(name):
    assert any(docstring.examples for docstring in doctest.DocTestFinder().find(PUBLIC[name], name))
