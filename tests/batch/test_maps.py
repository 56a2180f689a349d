"""A batch run stores the maps that the class computes for each image alone."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchvision import transforms

from holistic_cam_plugin import ClassHolisticCAM, HolisticCAM
from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch.record import read_record
from holistic_cam_plugin.demo import load_demo_model
from holistic_cam_plugin.display import overlay_map
from tests.batch.batch_tools import QUICK, make_picture, make_pictures, rows, tree

pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero")


@pytest.fixture
def run(tmp_path, capsys):
    """Run `holistic-cam batch` in this process; return the exit code, standard output and standard error."""

    def _run(source, *options, output=tmp_path / "output"):
        try:
            code = main(["batch", str(source), "--output", str(output), *QUICK, "--workers", "0", *map(str, options)])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return _run


def model_input(path, side=224, crop=True):
    steps = [transforms.Resize(side), transforms.CenterCrop(side)] if crop else [transforms.Resize(side)]
    preset = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    with Image.open(path) as image:
        return preset(image.convert("RGB"))[None]


def stored(output, name):
    with np.load(output / "maps" / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def test_maps_scores_and_rows(run, tmp_path):
    names = make_pictures(tmp_path / "in", 5, size=(60, 40))
    code, out, _ = run(
        tmp_path / "in", "--layers", "layer2", "layer4", "--methods", "holisticcam", "layercam",
        "--target", 3, "digit 7", "--batch-size", 2, "--dtype", "float32",
    )  # fmt: skip
    assert code == 0
    assert "5 images explained" in out
    output, model = tmp_path / "output", load_demo_model()
    table = pd.read_csv(output / "manifest.csv")
    assert len(table) == 5 * 2 * 2 * 2
    for name in names:
        x, file = model_input(tmp_path / "in" / name), stored(output, name)
        assert file["maps"].shape == (2, 2, 2, 224, 224)
        assert file["maps"].dtype == np.float32
        assert [file[key].tolist() for key in ("methods", "layers", "targets")] == [
            ["holisticcam", "layercam"], ["layer2", "layer4"], [3, 7]
        ]  # fmt: skip
        logits = model(x)[0].detach()
        assert np.allclose(file["scores"], logits[[3, 7]], atol=1e-4)
        for m, cam_class in enumerate((HolisticCAM, LayerCAM)):
            for n, layer in enumerate(("layer2", "layer4")):
                options = {"sizes": [64]} if m == 0 else {}
                for t, target in enumerate((3, 7)):
                    cam = cam_class(model, [getattr(model, layer)], **options)
                    expected = cam(x, [ClassifierOutputTarget(target)])[0]
                    assert np.abs(file["maps"][m, n, t] - expected).max() < 1e-3
        mine = table[(table["file"] == name) & (table["target"] == 7)]
        assert mine["predicted"].eq(int(logits.argmax())).all()
        assert np.allclose(mine["probability"], float(logits.softmax(0)[7]), atol=1e-4)
        assert mine["class"].eq("digit 7").all()
        assert mine["predicted_class"].eq(f"digit {int(logits.argmax())}").all()
        assert mine[["width", "height"]].eq([224, 224]).all(axis=None)
        for _, row in table[table["file"] == name].iterrows():
            m, n, t = (file[f"{key}s"].tolist().index(row[key]) for key in ("method", "layer", "target"))
            saliency_map = file["maps"][m, n, t]
            assert row["coverage"] == pytest.approx((saliency_map >= 0.2 * saliency_map.max()).mean(), abs=1e-5)
        assert mine["bytes"].eq((tmp_path / "in" / name).stat().st_size).all()
    assert table["seconds"].gt(0).all()
    assert table["versions"].str.contains(f"torch={torch.__version__.split('+')[0]}").all()
    assert table["parameters"].nunique() == table["model"].nunique() == 1
    assert list(pd.read_csv(output / "errors.csv").columns) == ["file", "reason", "parameters"]


def test_each_image_has_the_targets_of_its_row(run, tmp_path):
    make_pictures(tmp_path, 3)
    (tmp_path / "list.csv").write_text("file,target\npicture 0.jpg,4\npicture 0.jpg,digit 1\npicture 2.jpg,\n")
    assert run(tmp_path / "list.csv", "--batch-size", 2)[0] == 0
    assert stored(tmp_path / "output", "picture 0.jpg")["targets"].tolist() == [4, 1]
    with torch.no_grad():
        best = int(load_demo_model()(model_input(tmp_path / "picture 2.jpg")).argmax())
    assert stored(tmp_path / "output", "picture 2.jpg")["targets"].tolist() == [best]
    assert [row["target"] for row in rows(tmp_path / "output")] == ["4", "1", str(best)]


def test_class_folders_are_labels_and_targets(run, tmp_path):
    for digit in range(10):
        make_picture(tmp_path / "in" / f"digit {digit}" / "x.jpg", digit)
    assert run(tmp_path / "in", "--imagefolder")[0] == 0
    table = rows(tmp_path / "output")
    assert [row["target"] for row in table] == [row["label"] for row in table] == list("0123456789")
    for row in table:
        with torch.no_grad():
            probabilities = load_demo_model()(model_input(tmp_path / "in" / row["file"]))[0].softmax(0)
        assert float(row["label_probability"]) == pytest.approx(float(probabilities[int(row["label"])]), abs=1e-4)
    assert run(tmp_path / "in", "--imagefolder", "--target", "3", output=tmp_path / "three")[0] == 0
    table = rows(tmp_path / "three")
    assert {row["target"] for row in table} == {"3"}
    assert [row["label"] for row in table] == list("0123456789")


def test_columns_reach_the_record_and_a_new_mask_needs_no_new_map(run, tmp_path, capsys):
    make_pictures(tmp_path, 3)
    path = tmp_path / "list.csv"
    path.write_text(
        "file, Label ,mask,left,top,right,bottom,note\npicture 0.jpg,digit 5,m/0.png,1,2,3,4,x\n"
        "picture 0.jpg,5,,5,6,7,8,y\npicture 2.jpg,,,,,,,z\n"
    )
    code, _, err = run(path)
    assert code == 0
    assert f"holistic-cam batch: {path}: unused columns: note\n" in err
    path.write_text("file,label,mask\npicture 0.jpg,5,m/new.png\npicture 2.jpg,,\n")
    for expected in (
        {"picture 0.jpg": (5, 5, "m/0.png", [[1, 2, 3, 4], [5, 6, 7, 8]]), "picture 2.jpg": (None, None, None, None)},
        {"picture 0.jpg": (5, 5, "m/new.png", None), "picture 2.jpg": (None, None, None, None)},
    ):
        with read_record(tmp_path / "output") as record:
            images = {row["file"]: row for row in record.connection.execute("SELECT * FROM images")}
            targets = dict(record.connection.execute("SELECT file, target FROM maps").fetchall())
        for name, (label, target, mask, boxes) in expected.items():
            assert images[name]["label"] == label
            assert targets[name] == (images[name]["predicted"] if target is None else target)
            assert images[name]["mask"] == mask
            assert json.loads(images[name]["boxes"] or "null") == boxes
        assert "0 images explained" in run(path)[1]


def test_another_label_or_target_is_explained_again(run, tmp_path):
    make_pictures(tmp_path, 1)
    path = tmp_path / "list.csv"
    for text, target in (("file\npicture 0.jpg\n", None), ("file,label\npicture 0.jpg,3\n", 3)):
        path.write_text(text)
        assert "1 images explained" in run(path)[1]
        assert target in (None, stored(tmp_path / "output", "picture 0.jpg")["targets"].item())
    path.write_text("file,label,target\npicture 0.jpg,3,4\n")
    assert "1 images explained" in run(path)[1]
    assert [(row["target"], row["label"]) for row in rows(tmp_path / "output")] == [("4", "3")]


def test_whole_images_of_one_size_share_a_batch(run, tmp_path, monkeypatch):
    shapes = []

    def seen(request, prediction, targets):
        shapes.append(tuple(prediction.images.shape))
        return explain(request, prediction, targets)

    from holistic_cam_plugin.explain import explain

    monkeypatch.setattr("holistic_cam_plugin.batch.failures.explain", seen)
    for seed, size in enumerate([(40, 40), (60, 40), (40, 40), (60, 40)]):
        make_picture(tmp_path / "in" / f"{seed}.png", seed, size)
    assert run(tmp_path / "in", "--no-crop", "--batch-size", 4)[0] == 0
    assert shapes == [(2, 3, 224, 224), (2, 3, 224, 336)]
    model = load_demo_model()
    cam = ClassHolisticCAM(model, [model.layer4], sizes=[64])
    for seed in range(4):
        expected = cam(model_input(tmp_path / "in" / f"{seed}.png", crop=False))[0]
        assert np.abs(stored(tmp_path / "output", f"{seed}.png")["maps"][0, 0, 0] - expected).max() < 1e-3


def test_workers_and_half_precision_change_little(run, tmp_path):
    make_pictures(tmp_path / "in", 3)
    outputs = [tmp_path / name for name in ("plain", "workers", "amp")]
    for output, options in zip(outputs, [(), ("--workers", 2), ("--amp", "--dtype", "float32")], strict=True):
        assert run(tmp_path / "in", *options, output=output)[0] == 0
    assert tree(outputs[0]) == tree(outputs[1])
    plain, amp = (stored(output, "picture 0.jpg")["maps"] for output in (outputs[0], outputs[2]))
    assert plain.dtype == np.float16
    assert 0 < np.abs(plain.astype(np.float32) - amp).mean() < 0.1
    for name, options in (("float32", ()), ("bfloat16", ("--amp",))):
        assert run(tmp_path / "in", "--methods", "gradcam", "cameras", *options, output=tmp_path / name)[0] == 0
    plain, amp = (stored(tmp_path / name, "picture 0.jpg")["maps"] for name in ("float32", "bfloat16"))
    np.testing.assert_array_equal(plain[0], amp[0])  # of a method without a pyramid
    assert np.abs(plain[1] - amp[1]).max() > 0


def test_a_pyramid_by_name(run, tmp_path):
    make_pictures(tmp_path / "in", 1)
    for name, sizes in (("named", ("fast",)), ("told", ("224", "353", "609"))):
        assert run(tmp_path / "in", "--sizes", *sizes, output=tmp_path / name)[0] == 0
    maps = [stored(tmp_path / name, "picture 0.jpg")["maps"] for name in ("named", "told")]
    np.testing.assert_array_equal(*maps)
    assert "give one name, or numbers" in run(tmp_path / "in", "--sizes", "fast", "64", output=tmp_path / "x")[2]


def test_overlays_are_those_of_grad_cam(run, tmp_path):
    make_pictures(tmp_path / "in", 1)
    assert run(tmp_path / "in", "--overlays", "--methods", "holisticcam", "gradcam", "--dtype", "float32")[0] == 0
    with Image.open(tmp_path / "output" / "overlays" / "picture 0.jpg.jpg") as image:
        sheet = np.asarray(image).astype(float)
    assert sheet.shape == (224, 3 * 224, 3)
    picture = (model_input(tmp_path / "in" / "picture 0.jpg")[0].permute(1, 2, 0).numpy() + 1) / 2
    maps = stored(tmp_path / "output", "picture 0.jpg")["maps"]
    parts = [picture * 255, *(overlay_map(picture, maps[m, 0, 0]) for m in (0, 1))]
    assert np.abs(sheet - np.hstack(parts)).mean() < 4  # JPEG


def test_overlays_that_are_missing_empty_or_damaged_are_made_again(run, tmp_path):
    make_pictures(tmp_path / "in", 4)
    run(tmp_path / "in")
    assert "4 images explained" in run(tmp_path / "in", "--overlays")[1]
    whole = tree(tmp_path / "output")
    missing, empty, damaged = (tmp_path / "output" / "overlays" / f"picture {n}.jpg.jpg" for n in (0, 2, "3"))
    damaged = damaged.parent / "deeper" / damaged.name
    missing.unlink()
    empty.write_bytes(b"")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert "0 images explained" in run(tmp_path / "in")[1]
    assert "3 images explained" in run(tmp_path / "in", "--overlays")[1]
    assert tree(tmp_path / "output") == whole


def test_parameters_are_written_down(run, tmp_path):
    make_pictures(tmp_path / "in", 1)
    run(tmp_path / "in")
    with read_record(tmp_path / "output") as record:
        parameters = record.parameters
        assert record.classes == [f"digit {digit}" for digit in range(10)]
    assert parameters["layers"] == ["layer4"]
    assert parameters["sizes"] == [64]
    assert len(parameters["weights"]) == 64
    assert parameters["versions"]["torch"].startswith(torch.__version__.split("+")[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch-size", "0"), "argument --batch-size: must be at least 1, got 0"),
        (("--workers", "x"), "argument --workers: must be a whole number, got 'x'"),
        (("--shard", "0/3"), "argument --shard: must be I/N with I from 1 to N, such as 1/4, got '0/3'"),
        (("--shard", "4/3"), "argument --shard: must be I/N with I from 1 to N, such as 1/4, got '4/3'"),
        (("--shard", "1"), "argument --shard: must be I/N with I from 1 to N, such as 1/4, got '1'"),
        (("--device", "gpu"), "the device 'gpu' cannot be used"),
        (("--workers", "100000"), "argument --workers: 100000 are too many for the"),
        (("--methods", "gradcm"), "did you mean"),
        (("--layers", "layer9"), "the model has no layer 'layer9'"),
        (("--weights", "x.pth"), "--model digits has weights of its own"),
        (("--target", "digit 77"), "did you mean digit 7"),
        (("--model", "resnet5"), "did you mean resnet50"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, options, message):
    make_pictures(tmp_path / "in", 1)
    code, out, err = run(tmp_path / "in", *options)
    assert (code, out) == (2, "")
    assert err.startswith("holistic-cam batch: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "output").exists()


def test_what_a_method_refuses_is_one_line(run, tmp_path, monkeypatch):
    def refusing(*_, **__):
        raise RuntimeError("no gradient")

    monkeypatch.setattr("holistic_cam_plugin.explain.compute_maps", refusing)
    make_pictures(tmp_path / "in", 1)
    code, _, err = run(tmp_path / "in")
    assert code == 2
    assert "error: Class Holistic-CAM cannot explain layer4: no gradient" in err


def test_local_weights_of_a_torchvision_model(run, tmp_path):
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    torch.save(squeezenet1_1(weights=None, num_classes=3).state_dict(), tmp_path / "three.pth")
    make_pictures(tmp_path / "in", 1)
    options = ("--model", "squeezenet1_1", "--weights", tmp_path / "three.pth", "--methods", "gradcam")
    assert run(tmp_path / "in", *options)[0] == 0
    assert rows(tmp_path / "output")[0]["class"].startswith("class ")
