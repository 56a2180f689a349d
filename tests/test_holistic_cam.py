from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from holistic_cam_plugin import CAMERAS, HolisticCAM, fundamental_scale_denoising, fuse, min_max_normalize

# Before the wrap only rounding differs; the wrap quantises to 8 bits.
TOLERANCE = {False: 1e-4, True: 1 / 255}
SMALL = {"num_scales": 3, "max_size": 150}


def modules(net, names):
    return [net.get_submodule(name) for name in names]


def classes(*categories):
    return [ClassifierOutputTarget(category) for category in categories]


@pytest.mark.parametrize("fsd", [False, True])
@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
def test_the_class_equals_the_literal_method(any_net, images, reference, layer, fsd):
    expected = reference(any_net, [layer], images, fsd=fsd, **SMALL)
    maps = HolisticCAM(any_net, modules(any_net, [layer]), fsd=fsd, **SMALL)(images)
    np.testing.assert_allclose(maps, expected, atol=TOLERANCE[fsd])
    assert maps.std() > 0.01


@pytest.mark.parametrize("fsd", [False, True])
def test_the_papers_own_pyramid(net, images, reference, fsd):
    expected = reference(net, ["layer3"], images, [1, 2], fsd=fsd)
    maps = HolisticCAM(net, [net.layer3], fsd=fsd)(images, classes(1, 2))
    np.testing.assert_allclose(maps, expected, atol=TOLERANCE[fsd])


@pytest.mark.parametrize(
    ("name", "sizes", "options"),
    [
        ("fast", [64, 97, 177], {}),
        ("fast", [64, 177], {"tiles": True}),
        ("fast", [64, 96, 160], {"multiple_of": 32}),
        ("paper", None, {"num_scales": 2}),
    ],
)
def test_a_pyramid_by_name_is_one_by_its_sizes(net, images, name, sizes, options):
    by_name = HolisticCAM(net, [net.layer2], sizes=name, **options)
    by_sizes = HolisticCAM(net, [net.layer2], sizes=sizes, **options)
    assert np.array_equal(by_name(images), by_sizes(images))
    with pytest.raises(ValueError, match="sizes must be one of fast, paper, or shorter sides in pixels, got 'quick'"):
        HolisticCAM(net, [net.layer2], sizes="quick")


@pytest.mark.parametrize("fsd", [False, True])
@pytest.mark.parametrize("shape", [(32, 32), (64, 90), (101, 57), (33, 112)])
def test_any_shape(any_net, make_images, reference, shape, fsd):
    images = make_images(1, *shape)
    expected = reference(any_net, ["layer2"], images, fsd=fsd, **SMALL)
    maps = HolisticCAM(any_net, [any_net.layer2], fsd=fsd, **SMALL)(images)
    np.testing.assert_allclose(maps, expected, atol=TOLERANCE[fsd])


@pytest.mark.parametrize("fsd", [False, True])
@pytest.mark.parametrize("weights", ["pge", "positive", "gradient"])
@pytest.mark.parametrize(
    "options",
    [
        {"num_scales": 1},
        {"eps": 0.0, **SMALL},
        {"eps": 0.1, **SMALL},
        {"interpolation": "bicubic", **SMALL},
        {"sizes": [64, 100]},
        {"sizes": [96, 64, 40]},
    ],
    ids=str,
)
def test_every_option(any_net, images, reference, options, weights, fsd):
    expected = reference(any_net, ["layer2"], images, weights=weights, fsd=fsd, **options)
    maps = HolisticCAM(any_net, [any_net.layer2], weighting=weights, fsd=fsd, **options)(images)
    np.testing.assert_allclose(maps, expected, atol=TOLERANCE[fsd])


@pytest.mark.parametrize("fsd", [False, True])
@pytest.mark.parametrize("layers", [("layer1", "layer2", "layer3"), ("layer3", "layer1")])
def test_several_layers_give_the_mean_of_their_maps(any_net, images, reference, layers, fsd):
    expected = reference(any_net, layers, images, fsd=fsd, **SMALL)
    maps = HolisticCAM(any_net, modules(any_net, layers), fsd=fsd, **SMALL)(images)
    np.testing.assert_allclose(maps, expected, atol=TOLERANCE[fsd])


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_every_batch_size(net, make_images, reference, batch_size):
    images = make_images(5)
    expected = reference(net, ["layer2"], images, fsd=False, **SMALL)
    maps = HolisticCAM(net, [net.layer2], fsd=False, batch_size=batch_size, **SMALL)(images)
    np.testing.assert_allclose(maps, expected, atol=1e-4)


def test_cameras_is_raw_gradients_at_its_own_sizes(net, images, reference, seen):
    cam = CAMERAS(net, [net.layer3])
    shapes = seen(net)
    maps = cam(images[:1])
    assert sorted(shape[-2:] for shape in shapes[1:]) == [(s, s) for s in range(224, 1000, 100)]
    options = {"sizes": range(224, 1000, 100), "weights": "gradient", "fsd": False, "interpolation": "bicubic"}
    np.testing.assert_allclose(maps, reference(net, ["layer3"], images[:1], **options), atol=1e-4)


def test_every_argument_of_cameras_can_be_given(net, images):
    cam = CAMERAS(net, [net.layer2], None, weighting="pge", sizes=[64, 80], fsd=True, interpolation="bilinear")
    assert np.array_equal(cam(images), HolisticCAM(net, [net.layer2], sizes=[64, 80])(images))


def test_explicit_kernels_reach_the_mask(net, images):
    default = HolisticCAM(net, [net.layer2], **SMALL)(images)
    same = HolisticCAM(net, [net.layer2], blur_size=15, ksize=27, **SMALL)(images)  # 51 and 91 at 64 px
    other = HolisticCAM(net, [net.layer2], blur_size=3, ksize=5, **SMALL)(images)
    assert np.array_equal(default, same)
    assert np.abs(default - other).max() > 0.01


def test_the_class_is_decided_once_on_the_original_image(net, images, reference):
    """The net sees its best class change with the scale: every scale must still explain the first."""
    predicted = net(images).argmax(dim=1).tolist()

    def contrary(_, inputs, output):
        return output if inputs[0].shape[-1] == 64 else -output

    net.register_forward_hook(contrary)
    cam = HolisticCAM(net, [net.layer2], sizes=[96, 64], fsd=False)
    assert np.array_equal(cam(images), cam(images, classes(*predicted)))


def test_outputs_are_those_of_the_original_images(net, images):
    for sizes in ([64, 80], [80, 96]):
        cam = HolisticCAM(net, [net.layer2], sizes=sizes, batch_size=1)
        cam(images)
        np.testing.assert_allclose(cam.outputs.numpy(), net(images).detach().numpy(), atol=1e-6)
        assert cam.outputs.grad_fn is None


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"num_scales": 0}, ValueError, "num_scales must be at least 1"),
        ({"max_size": 2.5}, TypeError, "max_size must be an integer"),
        ({"sizes": []}, ValueError, "sizes is empty"),
        ({"eps": -1}, ValueError, "eps must be 0 or between .*, got -1"),
        ({"blur_size": 50}, ValueError, "blur_size must be odd and from 1 to 255"),
        ({"ksize": 90}, ValueError, "ksize must be odd and from 1 to 32767"),
        ({"ksize": True}, TypeError, "ksize must be an odd integer or None"),
        ({"interpolation": "nearest"}, ValueError, "interpolation must be one of bilinear, bicubic"),
        (
            {"weighting": "raw"},
            ValueError,
            "weighting must be one of 'pge', 'positive', 'gradient', got 'raw'",
        ),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"batch_size": None}, TypeError, "batch_size must be an integer"),
    ],
)
def test_parameters_are_checked_when_given_and_when_set_later(net, images, seen, options, error, match):
    with pytest.raises(error, match=match):
        HolisticCAM(net, [net.layer2], **options)
    cam = HolisticCAM(net, [net.layer2])
    for name, value in options.items():
        setattr(cam, name, value)
    shapes = seen(net)
    with pytest.raises(error, match=match):
        cam(images)
    assert shapes == []


def test_unknown_parameters_are_refused_and_ours_are_keywords_only(net):
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_scale'"):
        HolisticCAM(net, [net.layer2], num_scale=3)
    with pytest.raises(TypeError, match="positional arguments"):
        HolisticCAM(net, [net.layer2], None, False, True, None, True, 7)


@pytest.mark.parametrize("weighting", ["pge", "positive", "gradient"])
def test_intermediates_are_what_the_map_is_made_of(net, images, weighting):
    cam = HolisticCAM(net, [net.layer1, net.layer3], weighting=weighting, batch_size=2, **SMALL)
    targets = [[ClassifierOutputTarget(1), ClassifierOutputTarget(2)], [ClassifierOutputTarget(0)]]
    maps = cam.compute_cam_per_layer(images, targets)
    for layer_maps, steps in zip(maps, cam.intermediates(images, targets), strict=True):
        assert len(steps) == 3
        for saliency_map, step in zip(layer_maps[:, 0], steps, strict=True):
            assert len(step.activations) == len(step.weights) == SMALL["num_scales"]
            np.testing.assert_array_equal(step.fused, fuse(step.activations, step.weights, (64, 64)).numpy())
            np.testing.assert_array_equal(step.base, fuse(step.activations[:1], step.weights[:1], (64, 64)).numpy())
            np.testing.assert_array_equal(min_max_normalize(step.fused * step.mask), saliency_map)
            np.testing.assert_array_equal(step.saliency_map, saliency_map)
            if weighting == "pge":
                expected = fundamental_scale_denoising(step.fused, step.base)
                np.testing.assert_array_equal(step.fused * step.mask, expected)


def test_intermediates_with_raw_gradients_hold_them(net, images):
    ((step, _),) = HolisticCAM(net, [net.layer2], weighting="gradient", fsd=False, **SMALL).intermediates(images)
    assert step.base is None
    assert step.mask is None
    activations = net.layer2(net.layer1(images[:1])).detach().requires_grad_()
    (gradients,) = torch.autograd.grad(net.head(net.layer3(activations)).max(), activations)
    torch.testing.assert_close(step.activations[0], activations.detach()[0])
    torch.testing.assert_close(step.weights[0], gradients[0])


def test_numpy_scalars_are_numbers_too(net, images):
    plain = HolisticCAM(net, [net.layer2], sizes=[64, 80], eps=2.0**-10, batch_size=2, fsd=True)(images)
    scalars = {"eps": np.float32(2**-10), "batch_size": np.int64(2), "fsd": np.True_, "tiles": np.False_}
    assert np.array_equal(HolisticCAM(net, [net.layer2], sizes=list(np.array([64, 80])), **scalars)(images), plain)
    plain = HolisticCAM(net, [net.layer2], num_scales=5, max_size=100)(images)
    assert np.array_equal(HolisticCAM(net, [net.layer2], num_scales=np.uint8(5), max_size=np.int8(100))(images), plain)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda cam: pickle.loads(pickle.dumps(cam))])
def test_a_copy_made_inside_the_with_block(net, images, copied):
    net.train()
    with HolisticCAM(net, [net.layer2], **SMALL) as cam:
        twin = copied(cam)
        expected = cam(images)
    assert net.training
    assert twin.model is not net
    assert np.array_equal(twin(images), expected)
    del twin
    gc.collect()
    assert net.training


def test_the_repr_is_short_and_names_what_is_not_the_default(net):
    cam = HolisticCAM(net, [net.layer1, net.layer3[0]], weighting="positive", sizes=[64, 80])
    assert repr(cam) == "HolisticCAM(Staged, [layer1, layer3.0], sizes=[64, 80], weighting='positive')"
    assert repr(HolisticCAM(net, [net.layer2])) == "HolisticCAM(Staged, [layer2])"
    assert repr(CAMERAS(net, [net.layer2])).startswith("CAMERAS(Staged, [layer2], sizes=range(224, 1000, 100), ")


def test_the_repr_of_the_intermediate_results_gives_shapes(net, images):
    ((results, _),) = HolisticCAM(net, [net.layer2], **SMALL).intermediates(images)
    assert len(repr(results)) < 300
    assert repr(results).startswith("Intermediates(activations=[(8, 16, 16), ")
    assert "saliency_map=(64, 64)" in repr(results)
