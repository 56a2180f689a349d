"""The documentation: Sphinx builds it without a warning, and its API reference has every public name."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import holistic_cam_plugin
from holistic_cam_plugin import baselines, integrations, metrics

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def list_public_names():
    """The full names in the `__all__` of the public modules, under the names by which users import them."""
    public = [holistic_cam_plugin.__name__, metrics.__name__]
    for package in (baselines, integrations):
        public += [module.name for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    for module in public:
        if module != "holistic_cam_plugin.baselines.cameras":  # of the package itself
            yield from (f"{module}.{name}" for name in importlib.import_module(module).__all__)


def list_documented_names():
    """The full names of the reference's directives."""
    for page in (DOCS / "api").glob("*.rst"):
        module = ""
        for kind, name in re.findall(r"^\.\. (?:py:)?(\w+):: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            if kind == "currentmodule":
                module = name
            elif kind == "automodule":
                yield from (f"{name}.{each}" for each in importlib.import_module(name).__all__)
            else:
                yield name if name.startswith("holistic_cam_plugin.") else f"{module}.{name}"


def test_the_reference_has_every_public_name_once():
    pytest.importorskip("zennit", reason="RelevanceCAM needs zennit")
    documented = list(list_documented_names())
    assert len(documented) == len(set(documented))
    assert set(documented) == set(list_public_names())


@pytest.mark.docs
def test_sphinx_builds_it_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="needs pip install '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    inventory = zlib.decompress((tmp_path / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    assert set(list_public_names()) <= set(re.findall(r"^(\S+) py:", inventory, re.MULTILINE))
    page = (tmp_path / "docs" / "method.html").read_text(encoding="utf-8")
    assert "<math" in page
    assert not re.search(r"<(script|link|img)[^>]*https?://", page)  # readable without a network
    assert "docs/index.html" in (tmp_path / "index.html").read_text(encoding="utf-8")
