"""`show`: from a photograph to maps over it that display themselves."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin import ClassHolisticCAM, HolisticCAM, explainable, show
from holistic_cam_plugin.demo import load_demo_image, load_demo_model, preprocess
from holistic_cam_plugin.display.photographs import place_map
from holistic_cam_plugin.models.preprocessing import Preprocessing
from tests.models.two_towers import make_clip, make_processor

QUICK = {"sizes": [64, 96]}


@pytest.fixture(scope="module")
def found():
    """The bundled model at 64 px."""
    return explainable(load_demo_model(), Preprocessing((0.5,) * 3, (0.5,) * 3, (64, 64), 72, "bilinear", "timm"))


@pytest.fixture
def photo():
    return load_demo_image().resize((150, 90))


def test_maps_are_those_of_the_class_on_the_crop(found, photo):
    shown = show(found, photo, [3, 9], layers=["layer2", "layer4"], **QUICK)
    at = found.at(["layer2", "layer4"])
    images = found.preprocessing(photo)
    targets = [[ClassifierOutputTarget(3), ClassifierOutputTarget(9)]]
    with ClassHolisticCAM(at.model, at.target_layers, **at.options | QUICK) as cam:
        expected = cam.compute_cam_per_layer(images, targets)
    assert np.array_equal(shown.crop_maps, np.stack(expected)[:, :, 0])
    assert (shown.layers, shown.targets, shown.maps.shape) == (["layer2", "layer4"], [3, 9], (2, 2, 90, 150))
    placed = place_map(expected[1][0, 0], found.preprocessing.find_crop(150, 90), (150, 90))
    assert np.array_equal(shown.maps[1, 0], placed, equal_nan=True)
    with torch.no_grad():
        assert shown.scores == pytest.approx(found.model(images)[0].numpy(), abs=1e-5)


def test_by_default_one_layer_of_the_middle_explains_the_predicted_class(found, photo):
    shown = show(found, photo, **QUICK)
    assert (shown.layers, shown.targets) == (["layer3"], [shown.scores.argmax()])
    assert repr(shown).startswith(f"PhotoMaps(150 x 90 px: class {shown.targets[0]}, ")


def test_the_picture_holds_the_photograph_at_its_own_size(found, photo):
    shown = show(found, photo, [1, 2], layers=["layer3", "layer4"], **QUICK)
    with Image.open(io.BytesIO(shown._repr_png_())) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert picture.format == "PNG"
    assert np.array_equal(pixels, np.asarray(shown.image))
    places = [(y, x) for y in range(30) for x in range(30)]
    assert any(np.array_equal(pixels[y : y + 90, x : x + 150], np.asarray(photo)) for y, x in places)
    assert 3 * 150 < picture.width < 3.4 * 150
    assert 2 * 90 < picture.height < 2 * 90 + 4 * 30


def test_a_notebook_displays_it_as_a_picture(found, photo):
    shown = show(found, photo, **QUICK)
    display, _ = DisplayFormatter().format(shown)
    assert display == {"image/png": shown._repr_png_(), "text/plain": repr(shown)}


@pytest.mark.parametrize("size", [(5000, 2500), (1200, 4800)], ids=str)
def test_the_picture_of_a_large_photograph_is_bounded(found, photo, size):
    shown = show(found, photo.resize(size), **QUICK)
    assert shown.maps.shape == (1, 1, *size[::-1])
    assert 1000 < max(shown.image.size) < 2200


def test_the_picture_is_saved_in_the_format_of_the_suffix(found, photo, tmp_path):
    shown = show(found, photo, **QUICK)
    shown.save(tmp_path / "maps.png")
    shown.save(tmp_path / "maps.jpg", quality=80)
    with Image.open(tmp_path / "maps.png") as saved:
        assert np.array_equal(np.asarray(saved), np.asarray(shown.image))
    with Image.open(tmp_path / "maps.jpg") as saved:
        assert saved.format == "JPEG"


def test_a_photograph_is_turned_as_its_exif_data_say(found, photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    shown = show(found, tmp_path / "turned.png", **QUICK)
    with Image.open(tmp_path / "turned.png") as opened:
        assert np.array_equal(show(found, opened, **QUICK).maps, shown.maps, equal_nan=True)
    assert np.array_equal(np.asarray(shown.photo), np.asarray(photo))
    assert np.array_equal(shown.maps, show(found, photo, **QUICK).maps, equal_nan=True)


def test_the_callers_picture_is_left_as_it_is(found, photo, tmp_path):
    photo.resize((4500, 4300)).save(tmp_path / "large.jpg")
    with Image.open(tmp_path / "large.jpg") as opened:
        assert show(found, opened, **QUICK).photo.size == opened.size == (4500, 4300)


def test_whether_something_was_cropped_away_is_told(photo):
    squash = explainable(
        load_demo_model(), Preprocessing((0.5,) * 3, (0.5,) * 3, (64, 64), (64, 64), "bilinear", "timm")
    )
    whole = show(squash, photo, **QUICK)
    assert not np.isnan(whole.maps).any()
    cropped = show(explainable(load_demo_model(), squash.preprocessing._replace(resize=72)), photo, **QUICK)
    assert np.isnan(cropped.maps[..., 0, 0]).all()
    assert cropped.image.height > whole.image.height  # a line says what is faded


@pytest.mark.parametrize("target", [9, np.int64(9), "9", "digit 9", "Digit 9", ["digit 9"], [9, "digit 9"]], ids=repr)
def test_a_target_is_an_index_or_a_name(target):
    shown = show("digits", load_demo_image(), target, **QUICK)
    assert shown.targets == [9]
    assert repr(shown) == "PhotoMaps(224 x 224 px: digit 9, 97 %; layers layer3)"


def test_other_methods(found, photo):
    maps = [show(found, photo, method=name).maps for name in ("gradcam++", "Layer-CAM")]
    maps.append(show(found, photo, method="holistic-cam", sizes=[64]).maps)
    assert all(np.nanmin(one) >= 0 and np.nanmax(one) > 0.9 for one in maps)
    with HolisticCAM(found.model, found.target_layers[2:3], sizes=[64]) as cam:
        expected = cam(found.preprocessing(photo))[0]
    assert np.array_equal(maps[2][0, 0], place_map(expected, found.preprocessing.find_crop(150, 90), (150, 90)), True)


@pytest.mark.parametrize("method", ["classholisticcam", "gradcam"])
def test_the_model_is_left_as_it_is(found, photo, method):
    model = load_demo_model().train()
    model.bn1.eval()
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    show(explainable(model, found.preprocessing), photo, method=method)
    assert model.training
    assert not model.bn1.training
    assert (model.conv1.weight.grad == 1).all()
    assert model.fc.weight.grad is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_in_bfloat16(found, photo):
    model = load_demo_model().to(torch.bfloat16)
    maps = show(explainable(model, found.preprocessing), photo, 9, **QUICK).crop_maps
    assert np.abs(maps - show(found, photo, 9, **QUICK).crop_maps).mean() < 0.05


def test_texts_are_the_classes_of_a_model_of_images_and_texts(photo):
    clip, processor = make_clip(), make_processor()
    with pytest.raises(TypeError, match="compares images with texts"):
        show(clip, photo)
    texts = ["a dog", "a cat"]
    shown = show(explainable(clip, processor, text=texts), photo, "a cat", sizes=[64])
    assert (shown.classes, shown.targets, shown.scores.shape) == (texts, [1], (2,))
    with pytest.raises(TypeError, match="text is an argument of explainable"):
        show(explainable(clip, processor, text=texts), photo, text=texts)


def test_an_assumed_preprocessing_is_told_where_show_is_called(photo):
    with pytest.warns(UserWarning, match=r"is assumed: pass show\(explainable\(model, processor\), photo\)") as told:
        show(load_demo_model(), photo, sizes=[224])
    assert {warning.filename for warning in told} == {__file__}


def test_nothing_is_printed_but_by_the_callers_progress(found, photo, capsys):
    steps = []

    def progress(loop):
        for step in loop:
            steps.append(step)
            yield step

    show(found, photo, progress=progress, **QUICK)
    assert len(steps) == 2
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"photo": "no-such.jpg"}, "no-such.jpg does not exist"),
        ({"photo": np.zeros((9, 9, 3), np.uint8)}, "photo must be a PIL image or a path, got a ndarray"),
        ({"photo": Image.new("RGB", (1, 100_000))}, "1 x 100000 px is too long and narrow"),
        ({"photo": Image.new("F", (90, 90))}, "mode F has 32 bits per value"),
        ({"target": 10}, "class 10 is out of range: the model has classes 0 to 9"),
        ({"target": -1}, "class -1 is out of range"),
        ({"target": "class 99"}, "the model has no class 'class 99'"),
        ({"target": []}, "target is empty"),
        ({"target": 1.5}, r"target must be the index or the name of a class, or a list of these, got 1\.5"),
        ({"target": True}, "target must be .*, got True"),
        ({"layers": "layer9"}, "the model has no layer 'layer9'; did you mean"),
        ({"layers": []}, "layers is empty"),
        ({"method": "gradcan"}, "unknown method 'gradcan'; did you mean"),
        ({"method": "gradcam", "sizes": [64]}, "Grad-CAM takes no options, got sizes"),
        ({"size": [64]}, "size"),
        ({"colormap": "grey"}, r"colormap must be one of .*, got 'grey'"),
        ({"scale": "log"}, r"scale must be one of .*, got 'log'"),
        ({"opacity": 50}, "opacity must be a number from 0 to 1, got 50"),
        ({"model": "resnet5"}, "torchvision has no classifier called 'resnet5'"),
        ({"model": lambda images: images}, "model"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)  # fmt: skip
def test_mistakes_are_told_in_one_line(found, photo, arguments, error):
    with pytest.raises((TypeError, ValueError), match=error) as raised:
        show(**{"model": found, "photo": photo} | arguments)
    assert "\n" not in str(raised.value)
    assert "--" not in str(raised.value)


def test_models_of_dense_outputs_are_refused(photo):
    model = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 3, 3, 2, 1)).eval()
    with pytest.raises(ValueError, match=r"a classifier returns \(1, classes\) .* \(1, 3, 28, 28\): call HolisticCAM"):
        show(model, photo)


def test_models_of_other_channels_are_refused(photo):
    model = load_demo_model()
    model.conv1 = nn.Conv2d(4, 24, 5, 2, 2, bias=False)
    with pytest.raises(ValueError, match="takes images with 4 channels, but a photograph has one or three"):
        show(model, photo)


def test_scores_that_are_not_finite_are_refused(photo):
    model = load_demo_model()
    found = explainable(model, Preprocessing((0.5,) * 3, (0.5,) * 3, (64, 64), 72, "bilinear", "timm"))
    model.fc.bias.data[3] = float("nan")
    with pytest.raises(ValueError, match="returns NaN or infinite scores"):
        show(found, photo)


def test_the_demo_image_is_seen_whole():
    shown = show("digits", load_demo_image(), layers="layer4", **QUICK)
    assert shown.crop == (0, 0, 224, 224)
    with torch.no_grad():
        assert shown.scores == pytest.approx(load_demo_model()(preprocess(load_demo_image()))[0].numpy(), abs=1e-4)
