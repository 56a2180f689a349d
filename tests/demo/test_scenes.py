"""The bundled scenes and model: what they promise, and what Holistic-CAM shows on them."""

from __future__ import annotations

import warnings
from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks.train_digits import main, measure_accuracy, train
from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.demo import (
    CLASSES,
    SCENE_SIZE,
    load_demo_image,
    load_demo_model,
    make_demo_scene,
    make_scene,
    preprocess,
    split_digits,
    split_photos,
)
from holistic_cam_plugin.demo.strokes import draw_curve, draw_digit, draw_half_digit

SHALLOW = ("layer1", "layer2")
SMALL = 112  # px; with HALF, the paper's pyramid at half its size: the same enlargement in a quarter of the time
HALF = {"max_size": 500}
SPLITS = ("train", "held-out")


@pytest.fixture(scope="module")
def model():
    return load_demo_model()


def energy(saliency_map, box):
    x0, y0, x1, y1 = box
    return saliency_map[y0:y1, x0:x1].sum() / max(saliency_map.sum(), 1e-12)


# --- scenes ---


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("digits", [1, 2])
def test_a_seed_gives_one_scene(split, digits):
    first, again = (make_scene(3, split, 128, digits) for _ in range(2))
    assert first.labels == again.labels
    assert first.boxes == again.boxes
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, make_scene(4, split, 128, digits).image)


def test_seeds_are_what_numpy_takes():
    from_generator = make_scene(np.random.default_rng([1, 2]), "train", 112)
    assert np.array_equal(from_generator.image, make_scene([1, 2], "train", 112).image)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("digits", [1, 2])
@pytest.mark.parametrize("size", [96, 112, 224, 300])
def test_scenes_are_as_promised(split, digits, size):
    for seed in range(12):
        scene = make_scene(seed, split, size, digits)
        for image in (scene.image, scene.backdrop):
            assert image.shape == (3, size, size)
            assert image.dtype == np.float32
            assert image.flags.c_contiguous
            assert 0 <= image.min() < image.max() <= 1
        assert len(scene.labels) == len(scene.boxes) == len(set(scene.labels)) == digits
        assert all(label in range(CLASSES) for label in scene.labels)
        # The digits alone differ from the backdrop: inside the boxes, up to all four edges of each, and nowhere else.
        changed = np.abs(scene.image - scene.backdrop).max(axis=0) > 0
        strokes = np.zeros_like(changed)
        for x0, y0, x1, y1 in scene.boxes:
            assert 0 <= x0 < x1 <= size
            assert 0 <= y0 < y1 <= size
            assert not strokes[y0:y1, x0:x1].any()  # the boxes do not overlap
            strokes[y0:y1, x0:x1] = True
            inside = changed[y0:y1, x0:x1]
            assert inside.mean() > 0.1
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        assert not changed[~strokes].any()
        # Every changed pixel is a stroke of one digit: that in whose box it lies.
        assert np.array_equal(np.sum(scene.masks, axis=0), changed)
        for mask, (x0, y0, x1, y1) in zip(scene.masks, scene.boxes, strict=True):
            assert mask.dtype == bool
            assert np.array_equal(mask[y0:y1, x0:x1], changed[y0:y1, x0:x1])


def test_all_classes_and_both_photographs_occur():
    scenes = [make_scene(seed, "train", 112) for seed in range(200)]
    assert {scene.labels[0] for scene in scenes} == set(range(CLASSES))
    heights = [y1 - y0 for scene in scenes for _, y0, _, y1 in scene.boxes]
    assert min(heights) < 35
    assert max(heights) > 60


def test_splits_are_disjoint():
    (train_digits, train_labels), (held_out, held_out_labels) = (split_digits(split) for split in SPLITS)
    assert len(train_digits) + len(held_out) == 1797
    assert not {digit.tobytes() for digit in train_digits} & {digit.tobytes() for digit in held_out}
    assert np.bincount(train_labels, minlength=CLASSES).min() > 100
    assert np.bincount(held_out_labels, minlength=CLASSES).min() > 20
    for train_part, held_out_part in zip(*map(split_photos, SPLITS), strict=True):
        assert not np.shares_memory(train_part, held_out_part)
        assert train_part.shape[1] + held_out_part.shape[1] == 640


@pytest.mark.parametrize("size", [0, 95])
def test_a_scene_too_small_for_two_digits_is_refused(size):
    with pytest.raises(ValueError, match=f"size must be at least 96 px, got {size}"):
        make_scene(0, "train", size)


def test_digits_of_given_colours():
    red, blue = (0.9, 0.1, 0.0), (0.0, 0.2, 1.0)
    scene = make_scene(3, "train", 128, 2, [red, blue])
    plain = make_scene(3, "train", 128, 2)
    assert scene.labels == plain.labels
    assert scene.boxes == plain.boxes
    assert np.array_equal(scene.backdrop, plain.backdrop)
    for mask, colour in zip(scene.masks, (red, blue), strict=True):
        strokes = scene.image[:, mask]
        assert np.abs(strokes - np.array(colour)[:, None]).max(axis=0).min() < 0.2  # opacity is 0.8 or more
        assert np.corrcoef(strokes.mean(axis=1), colour)[0, 1] > 0.9
    with pytest.raises(ValueError, match="2 digits need as many colours, got 1"):
        make_scene(3, "train", 128, 2, [red])


@pytest.mark.parametrize("digits", [0, 3])
def test_other_numbers_of_digits_are_refused(digits):
    with pytest.raises(ValueError, match=f"digits must be 1 or 2, got {digits}"):
        make_scene(0, "train", digits=digits)


@pytest.mark.parametrize("source", [split_digits, split_photos, lambda split: make_scene(0, split)])
def test_an_unknown_split_is_refused(source):
    with pytest.raises(ValueError, match='split must be "train" or "held-out", got \'test\''):
        source("test")


@pytest.mark.parametrize("shape", ["whole", "half", "draw_curve"])
def test_strokes_are_tight_masks(shape):
    rng = np.random.default_rng(0)
    for _ in range(50):
        match shape:
            case "whole":
                mask = draw_digit(rng, "train", int(rng.integers(CLASSES)), 40)
                assert 28 <= mask.shape[0] <= 58
            case "half":
                mask = draw_half_digit(rng, "train", 40)
            case "draw_curve":
                mask = draw_curve(rng, 40)
                assert mask.shape[1] > mask.shape[0]  # lies, so that it is no 1
        assert mask.dtype == np.float32
        assert 0 <= mask.min() <= mask.max() <= 1
        assert mask.max() > 0.5
        assert all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))


def test_preprocessing_of_pictures_and_arrays():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    from_picture = preprocess(Image.fromarray(pixels))
    values = pixels.transpose(2, 0, 1).astype(np.float32) / 255
    assert from_picture.shape == (1, 3, 30, 40)
    assert from_picture.dtype == torch.float32
    torch.testing.assert_close(from_picture[0], torch.from_numpy(values) * 2 - 1)
    torch.testing.assert_close(preprocess(np.stack([values, values])), from_picture.expand(2, -1, -1, -1))
    assert 0 <= values.min() <= values.max() <= 1  # the caller's array is not changed


# --- the bundled picture and model ---


def test_the_picture_is_its_scene(model):
    scene = make_demo_scene()
    picture = load_demo_image()
    assert picture.mode == "RGB"
    assert picture.size == (SCENE_SIZE, SCENE_SIZE)
    values = np.asarray(picture, np.float32).transpose(2, 0, 1) / 255
    # OpenCV's versions may round a resized photograph differently.
    assert np.abs(values - scene.image).mean() < 1 / 255
    with torch.inference_mode():
        scores = model(preprocess(picture)).softmax(dim=1)[0]
    assert int(scores.argmax()) in scene.labels
    assert scores.max() > 0.8


def test_the_weights_are_small():
    weights = resources.files("holistic_cam_plugin.demo").joinpath("digits_resnet.pt").read_bytes()
    assert len(weights) <= 1.1e6


def test_the_model_has_a_resnets_stages(model):
    assert not model.training
    assert sum(parameter.numel() for parameter in model.parameters()) <= 250_000
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    watched, shapes = load_demo_model(), {}
    for name in ("layer1", "layer2", "layer3", "layer4"):
        hook = lambda _m, _i, output, name=name: shapes.__setitem__(name, output.shape[-2:])  # noqa: E731
        watched.get_submodule(name).register_forward_hook(hook)
    assert model(torch.zeros(2, 3, 64, 100)).shape == (2, CLASSES)  # any size, any shape
    watched(torch.zeros(1, 3, 224, 224))
    assert {name: 224 // shape[0] for name, shape in shapes.items()} == {
        "layer1": 4,
        "layer2": 8,
        "layer3": 16,
        "layer4": 32,
    }


@pytest.mark.campaign
def test_the_model_names_held_out_digits(model):
    assert measure_accuracy(model, 960) >= 0.97


# --- the script that made it ---


def test_training_is_reproducible():
    first, again = (train(2, seed=1).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(train(2, seed=2).state_dict()["fc.weight"], first["fc.weight"])


def test_the_script_writes_weights_and_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.train_digits._EVALUATION", 48)
    main(["--steps", "2", "--output", str(tmp_path / "weights.pt")])
    output = capsys.readouterr().out
    assert "held-out accuracy" in output
    assert "on 48 scenes" in output
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert weights.keys() == load_demo_model().state_dict().keys()
    main(["--image", "--output", str(tmp_path / "picture.png")])
    with Image.open(tmp_path / "picture.png") as picture:
        assert np.abs(np.asarray(picture, np.int16) - np.asarray(load_demo_image(), np.int16)).mean() < 1


# --- what Holistic-CAM shows on them ---


def maps_of(method, model, layers, image, label):
    """One map a layer, `(H, W)`."""
    modules = [model.get_submodule(layer) for layer in layers]
    targets = [ClassifierOutputTarget(label)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="a saliency map is constant")
        if method is HolisticCAM:
            return [each[0, 0] for each in HolisticCAM(model, modules, **HALF).compute_cam_per_layer(image, targets)]
        return [method(model, [module])(image, targets)[0] for module in modules]


@pytest.fixture(scope="module")
def shares(model):
    """Mean energy in the box by layer and method, over 100 held-out scenes."""
    methods = (GradCAM, GradCAMPlusPlus, LayerCAM, HolisticCAM)
    found = {(layer, method): [] for layer in SHALLOW for method in methods}
    for seed in range(100):
        scene = make_scene([7, seed], "held-out", SMALL)
        for method in methods:
            maps = maps_of(method, model, SHALLOW, preprocess(scene.image), scene.labels[0])
            for layer, saliency_map in zip(SHALLOW, maps, strict=True):
                found[layer, method].append(energy(saliency_map, scene.boxes[0]))
    return {key: np.mean(values) for key, values in found.items()}


# Not at layer1 against Layer-CAM: see benchmarks/results/digits/README.md.
@pytest.mark.campaign
@pytest.mark.parametrize(
    ("layer", "other"),
    [
        ("layer1", GradCAM),
        ("layer1", GradCAMPlusPlus),
        ("layer2", GradCAM),
        ("layer2", GradCAMPlusPlus),
        ("layer2", LayerCAM),
    ],
)
def test_more_energy_in_the_box_than_other_methods_at_shallow_layers(shares, layer, other):
    assert shares[layer, HolisticCAM] > shares[layer, other]


@pytest.mark.campaign
def test_each_class_goes_to_its_own_digit(model):
    layers = ("layer1", "layer2", "layer3", "layer4")
    own, other = ({layer: [] for layer in layers} for _ in range(2))
    for seed in range(50):
        scene = make_scene([8, seed], "held-out", SMALL, digits=2)
        for digit, label in enumerate(scene.labels):
            maps = maps_of(HolisticCAM, model, layers, preprocess(scene.image), label)
            for layer, saliency_map in zip(layers, maps, strict=True):
                own[layer].append(energy(saliency_map, scene.boxes[digit]))
                other[layer].append(energy(saliency_map, scene.boxes[1 - digit]))
    for layer in layers:
        assert np.mean(own[layer]) > np.mean(other[layer]), layer
        assert np.mean(np.greater(own[layer], other[layer])) > 0.5, layer
