"""What is published: its metadata, its files, how to cite it."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import holistic_cam_plugin

ROOT = Path(__file__).parents[1]
PACKAGE = "holistic_cam_plugin"
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg")
# What is installed beside the modules.
DATA = {
    f"{PACKAGE}/{path}"
    for path in (
        *("py.typed", "app/page.css", "app/page.js", "demo/demo.png", "demo/digits_resnet.pt"),
        *("demo/photos/cat.jpg", "demo/photos/tripod.jpg", "demo/photos/README.md"),
        *("report/templates/report.css", "report/templates/report.html", "report/templates/report.js"),
    )
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of an sdist and of the wheel made of it; the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("built")
    left_out = shutil.ignore_patterns(".git", ".*_cache", ".hypothesis", "__pycache__", "build", "*.egg-info", "output")
    shutil.copytree(ROOT, folder / "source", ignore=left_out)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(folder / "source")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def modules():
    return {str(path.relative_to(ROOT)) for path in (ROOT / PACKAGE).rglob("*.py")}


def test_the_wheel_has_the_package_its_data_and_its_licence(built):
    [wheel] = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if name.startswith(f"{PACKAGE}/")} == modules() | DATA
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {PACKAGE}


def test_the_sdist_has_all_that_the_tests_and_the_readers_need(built):
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    pages = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "setup.cfg", "pyproject.toml"}
    pages |= {"SECURITY.md", "docs/index.md"}
    assert modules() | DATA | pages <= names
    assert {"tests/conftest.py", "tests/batch/batch_tools.py", "benchmarks/results/demo.jpg", "docs/conf.py"} <= names
    assert not [name for name in names if name.endswith(".pyc")]


def test_the_metadata_name_the_licence_and_known_classifiers(built):
    [wheel] = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    [path] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(archive.read(path).decode())
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE"]
    # Where there is an expression, licence classifiers are refused.
    assert not [name for name in metadata.get_all("Classifier") if name.startswith("License")]
    for label, _, url in (entry.partition(", ") for entry in metadata.get_all("Project-URL")):
        assert len(label) <= 32  # the limit of the package index
        assert url.startswith("https://")


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == CONFIG["metadata"]["version"]
    assert citation["license"] == CONFIG["metadata"]["license_expression"]
    for work in (citation, *citation["references"]):
        assert {"title", "type", "authors"} <= work.keys()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [paper] = [work for work in citation["references"] if work["type"] == "conference-paper"]
    assert paper["title"] in readme
    assert paper["collection-title"] in readme


def test_the_changelog_has_the_form_of_keep_a_changelog():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "https://keepachangelog.com/" in text
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] in ("Unreleased", "[Unreleased]")
    assert all(re.fullmatch(r"\[?\d+\.\d+\.\d+\]? - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    kinds = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
    for version in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        sections = re.findall(r"^### (.*)$", version, re.MULTILINE)
        assert len(sections) == len(set(sections))
        assert set(sections) <= set(kinds)


def test_the_opencv_wheel_is_the_one_that_grad_cam_declares():
    """Two OpenCV wheels overwrite one another's cv2 folder."""
    requirements = re.findall(r"^([\w-]+)", CONFIG["options"]["install_requires"], re.MULTILINE)
    assert "grad-cam" in requirements
    assert [name for name in requirements if name.startswith("opencv")] == ["opencv-python-headless"]


def test_every_public_name_exists_and_is_documented():
    for name in holistic_cam_plugin.__all__:
        assert getattr(holistic_cam_plugin, name).__doc__


def test_the_version_is_that_of_the_metadata():
    assert holistic_cam_plugin.__version__ == CONFIG["metadata"]["version"]


def bounds(section, option):
    return dict(re.findall(r"^([\w-]+) >= ([\d.]+)$", CONFIG[section][option], re.MULTILINE))


def test_the_table_of_tested_versions_has_every_requirement_and_its_bound():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Tested versions")[1]
    table = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    lowest = {name: low for name, low, _ in table}
    required = bounds("options", "install_requires")
    optional = bounds("options.extras_require", "test")
    assert lowest.pop("Python")
    assert lowest == required | {name: optional[name] for name in ("timm", "transformers")}
    for name, low, newest in table:
        assert tuple(map(int, low.split("."))) <= tuple(map(int, newest.split("."))), name
