"""The recipes run, section by section, and return what their text says."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import holistic_cam_plugin
from holistic_cam_plugin.demo import load_demo_model, make_scene

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "recipes.md"
TEXT = PAGE.read_text(encoding="utf-8")
SMALL = holistic_cam_plugin.HolisticCAM.__init__.__kwdefaults__ | {"num_scales": 2, "max_size": 64}


def find_snippets(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def executed(monkeypatch):
    """Runs the snippets of a section in order, and returns their names."""
    monkeypatch.setattr(holistic_cam_plugin.HolisticCAM.__init__, "__kwdefaults__", SMALL)
    torch.manual_seed(0)

    def run(title, **names):
        names = {"torch": torch, "ClassHolisticCAM": holistic_cam_plugin.ClassHolisticCAM} | names
        for snippet in find_snippets(TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]):
            exec(snippet, names)
        return names

    return run


def test_every_snippet_is_short():
    assert max(len(snippet.splitlines()) for snippet in find_snippets(TEXT)) <= 12


def test_captum(executed):
    pytest.importorskip("captum")
    names = executed("captum", model=load_demo_model(), images=torch.randn(2, 3, 64, 64))
    assert names["maps"].shape == (2, 1, 64, 64)
    assert names["wrong"].shape == names["unstable"].shape == (2,)
    assert names["unstable"].min() > 0
    assert len(names["figure"].axes) > 0


def test_quantus(executed):
    pytest.importorskip("quantus", reason="the recipe needs quantus, which would overwrite cv2")
    images = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    names = executed("Quantus", model=load_demo_model(), images=images, classes=np.array([3, 5]))
    assert len(names["scores"]) == 2
    assert all(0 < score < 1 for score in names["scores"])


def test_monai(executed):
    data = pytest.importorskip("monai.data", reason="the recipe needs monai")
    affine = torch.diag(torch.tensor([3.0, 1.0, 1.0, 1.0]))
    scan = data.MetaTensor(torch.rand(1, 20, 40, 36), affine=affine)
    names = executed("MONAI", image=torch.randn(1, 1, 64, 64), scan=scan)
    assert names["maps"].shape == (1, 32, 64, 64)
    assert names["on_scan"].shape == scan.shape
    np.testing.assert_allclose(names["on_scan"].affine, affine, atol=1e-6)
    resized = torch.nn.functional.interpolate(torch.from_numpy(names["maps"])[None], size=scan.shape[1:])[0]
    assert np.corrcoef(names["on_scan"].as_tensor().ravel(), resized.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("classes", [2, 3])
def test_scikit_learn(executed, classes):
    labels = np.arange(12) % classes
    images = torch.randn(12, 3, 64, 64) + torch.from_numpy(labels)[:, None, None, None]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "nothing in the mask layer speaks")  # for the second of two classes
        names = executed("scikit-learn", model=load_demo_model(), images=images, labels=labels)
    assert names["decided"].shape == (12, 1 if classes == 2 else classes)
    assert names["maps"].shape == (1, 64, 64)
    assert names["maps"].max() == 1


def test_scikit_learn_with_a_scaler():
    """The scaler is merged into weights and intercept, as in the text."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    generator = np.random.default_rng(0)
    features, labels = generator.normal(3, 5, (30, 4)), np.arange(30) % 3
    scaler = preprocessing.StandardScaler().fit(features)
    classifier = linear_model.LogisticRegression().fit(scaler.transform(features), labels)
    weights = classifier.coef_ / scaler.scale_
    intercept = classifier.intercept_ - classifier.coef_ @ (scaler.mean_ / scaler.scale_)
    expected = classifier.decision_function(scaler.transform(features))
    np.testing.assert_allclose(features @ weights.T + intercept, expected)


def test_pil(executed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((280, 180)).save("photo.jpg")
    names = executed("PIL", model=load_demo_model())
    assert Image.open("seen.png").size == names["found"].size[::-1]
    assert Image.open("overlay.png").size == (280, 180)
    saliency_map = np.asarray(names["saliency_map"])
    assert saliency_map.shape == (180, 280)
    assert 0 <= saliency_map.min() < saliency_map.max() <= 1


def draw_digits(folder, count):
    """Save scenes of digits; return their paths and the labels of their first digits."""
    folder.mkdir()
    paths, labels = [], []
    for number in range(count):
        scene = make_scene(number, "held-out")
        paths.append(folder / f"{number}.png")
        Image.fromarray(np.uint8(255 * scene.image.transpose(1, 2, 0))).save(paths[-1])
        labels.append(scene.labels[0])
    return paths, labels


def test_ray_data(executed, tmp_path, monkeypatch):
    """In a process of its own, so that nothing of Ray stays behind."""
    pytest.importorskip("ray.data", reason="the recipe needs ray[data]")
    paths, _ = draw_digits(tmp_path / "photos", 3)
    (tmp_path / "photos" / "bad.png").write_bytes(b"no picture")
    (recipe,) = find_snippets(TEXT.split("\n## Ray Data\n")[1].split("\n## ")[0])
    init = "ray.init('local', num_cpus=2, include_dashboard=False, log_to_driver=False)"
    script = recipe.replace("import ray\n", f"import ray\n{init}\nphotos = {str(tmp_path / 'photos')!r}\n")
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(PAGE.parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr

    table = pd.read_parquet(tmp_path / "maps").set_index("path")
    assert len(table) == 4
    assert "its format is none of BMP," in table["error"][str(tmp_path / "photos" / "bad.png")]
    explain = holistic_cam_plugin.BatchExplainer("digits", methods=["classholisticcam", "gradcam"], device="cpu")
    expected = explain({"file": [str(path) for path in paths]})
    for path, archive, predicted in zip(paths, expected["archive"], expected["predicted"], strict=True):
        assert table["predicted"][str(path)] == predicted
        with np.load(io.BytesIO(table["archive"][str(path)])) as found, np.load(io.BytesIO(archive)) as wanted:
            np.testing.assert_allclose(found["maps"], wanted["maps"], atol=1e-3)  # float16


def test_hugging_face_datasets(executed, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the recipe needs datasets")
    paths, labels = draw_digits(tmp_path / "photos", 3)
    labels[0] = (labels[0] + 1) % 10
    columns = {"image": [str(path) for path in paths], "label": labels}
    dataset = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    names = executed("Hugging Face datasets", dataset=dataset)
    explained = names["explained"]
    assert explained["label"][:] == labels
    assert explained["error"][:] == [""] * 3
    expected = names["explain"]({"file": [str(path) for path in paths], "label": labels})
    for archive, wanted in zip(explained["archive"], expected["archive"], strict=True):
        with np.load(io.BytesIO(archive)) as found, np.load(io.BytesIO(wanted)) as known:
            np.testing.assert_allclose(found["maps"], known["maps"], atol=1e-3)  # float16
            np.testing.assert_array_equal(found["targets"], known["targets"])
    assert names["saliency_map"].shape == (explained[0]["height"], explained[0]["width"])
    assert names["wrong"].num_rows == sum(row["label"] != row["predicted"] for row in explained) >= 1
