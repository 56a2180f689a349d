"""Every method under its name, and its maps: those of its class, with no hook left on the model."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_grad_cam
from pytorch_grad_cam import FinerCAM, GradCAM, GradCAMPlusPlus, RefineCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from holistic_cam_plugin import CAMERAS, HolisticCAM
from holistic_cam_plugin.baselines.by_name import METHODS, display_name, layer_maps, method_key
from holistic_cam_plugin.baselines.normgrad import NormGrad
from holistic_cam_plugin.baselines.rise import RISE
from holistic_cam_plugin.baselines.stage_refine_cam import StageRefineCAM
from holistic_cam_plugin.errors import UsageError

TARGETS = [[ClassifierOutputTarget(2)], [ClassifierOutputTarget(0), ClassifierOutputTarget(5)]]
NAMES = ["RISE", "NormGrad", "MSG-CAM", "EMP", "I-GOS", "CAM", "CAMERAS"]
FLAT = [ClassifierOutputTarget(2), ClassifierOutputTarget(0), ClassifierOutputTarget(5)]


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_every_method_of_the_library_has_a_name():
    library = {value for value in vars(pytorch_grad_cam).values() if isinstance(value, type)}
    methods = {value for value in library if issubclass(value, BaseCAM)} - {BaseCAM}
    assert methods <= set(METHODS.values())
    assert {METHODS[name] for name in ("finercam", "cameras")} == {FinerCAM, CAMERAS}
    assert issubclass(METHODS["refinecam"], StageRefineCAM)


@pytest.mark.parametrize("name", ["Grad-CAM++", "gradcam++", "gradcamplusplus", "Grad_CAM plusplus"])
def test_names_as_people_write_them(name):
    assert method_key(name) == "gradcamplusplus"
    assert display_name(method_key(name)) == "Grad-CAM++"


def test_wrong_names_get_near_matches():
    with pytest.raises(UsageError, match=r"no method is called 'gradcm'; did you mean gradcam"):
        method_key("gradcm")
    with pytest.raises(UsageError, match="known: ablationcam"):
        method_key("zzz")


@pytest.mark.parametrize("method", ["gradcam", "layercam", "refinecam", "finercam", "sess", "ablationcam"])
def test_maps_are_those_of_the_class_for_each_image_layer_and_target(net, images, method):
    found = layer_maps(method, net, [net.layer1, net.layer3], images, TARGETS)
    for layer, maps in zip((net.layer1, net.layer3), found, strict=True):
        assert maps.dtype == np.float32
        assert maps.shape == (3, 64, 64)
        for saliency_map, image, target in zip(maps, (0, 1, 1), FLAT, strict=True):
            cam = METHODS[method](net, [layer])
            np.testing.assert_allclose(saliency_map, cam(images[image, None], [target])[0], atol=1e-6)
            del cam


@pytest.mark.parametrize("order", [["layer1", "layer2", "layer3"], ["layer3", "layer1"], ["layer1"], ["layer1.0"]])
def test_refinecam_takes_the_layers_from_the_explained_one_to_the_deepest(net, images, order):
    chains = {
        "layer1": [net.layer1, net.layer2, net.layer3],
        "layer1.0": [net.layer1[0], net.layer1, net.layer2, net.layer3],
        "layer2": [net.layer2, net.layer3],
        "layer3": [net.layer3],
    }
    found = layer_maps("refinecam", net, [net.get_submodule(name) for name in order], images[:1], TARGETS[:1])
    for name, maps in zip(order, found, strict=True):
        np.testing.assert_allclose(maps, RefineCAM(net, chains[name])(images[:1], TARGETS[0]), atol=1e-6)
        plain = GradCAMPlusPlus(net, [net.get_submodule(name)])(images[:1], TARGETS[0])
        assert (np.abs(maps - plain).max() > 0.1) == (name != "layer3")


def test_refinecam_says_which_method_it_refines():
    assert display_name("refinecam") == "RefineCAM (Grad-CAM++)"


@pytest.mark.parametrize("aug_smooth", [False, True])
@pytest.mark.parametrize(("method", "cam_class"), [("holisticcam", HolisticCAM), ("cameras", CAMERAS)])
def test_sizes_and_smoothing_reach_the_pyramids(net, images, method, cam_class, aug_smooth):
    found = layer_maps(method, net, [net.layer2, net.layer3], images, TARGETS, sizes=[64, 80], aug_smooth=aug_smooth)
    for layer, maps in zip((net.layer2, net.layer3), found, strict=True):
        expected = cam_class(net, [layer], sizes=[64, 80])(images, TARGETS, aug_smooth)
        np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("method", ["gradcam", "refinecam", "finercam", "sess", "holisticcam"])
def test_no_hook_is_left(net, images, method):
    layer_maps(method, net, [net.layer2, net.layer3], images[:1], TARGETS[:1])
    assert hooks(net) == 0


@pytest.mark.parametrize("method", ["gradcam", "refinecam", "finercam", "sess", "holisticcam"])
def test_no_hook_is_left_by_an_error_and_an_index_error_is_not_swallowed(net, images, method):
    with pytest.raises(IndexError) as error:
        layer_maps(method, net, [net.layer2], images[:1], [[ClassifierOutputTarget(1000)]])
    assert hooks(net) == 0  # also while somebody holds the error, and so the object
    del error


def test_each_layer_is_hooked_alone(net, images, monkeypatch):
    counts = []

    class Counting(GradCAM):
        def forward(self, *arguments, **options):
            counts.append(hooks(net))
            return super().forward(*arguments, **options)

    monkeypatch.setitem(METHODS, "counting", Counting)
    layer_maps("counting", net, [net.layer1, net.layer2, net.layer3], images, TARGETS)
    assert counts == [2] * 9  # the library sets two a layer


def test_methods_without_augmentation_say_so(net, images):
    with pytest.raises(UsageError, match="finercam has no test-time augmentation: leave out --aug-smooth or finercam"):
        layer_maps("finercam", net, [net.layer2], images, TARGETS, aug_smooth=True)


def test_augmentation_reaches_the_librarys_methods(net, images):
    [maps] = layer_maps("gradcam", net, [net.layer2], images[:1], TARGETS[:1], aug_smooth=True, eigen_smooth=True)
    expected = GradCAM(net, [net.layer2])(images[:1], TARGETS[0], aug_smooth=True, eigen_smooth=True)
    np.testing.assert_allclose(maps, expected, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_rivals(name):
    assert display_name(method_key(name)) == name


def test_maps_in_every_layer(net, images):
    maps = layer_maps("normgrad", net, [net.layer1, net.layer3], images, TARGETS)
    assert [one.shape for one in maps] == [(3, 64, 64)] * 2
    for layer, some in zip((net.layer1, net.layer3), maps, strict=True):
        expected = NormGrad(net, [layer])(images, [TARGETS[0][0], TARGETS[1][0]])
        np.testing.assert_allclose(some[:2], expected, atol=1e-5)


def test_methods_without_a_layer_run_once(net, images, seen, monkeypatch):
    class Quick(RISE):
        def __init__(self, model, target_layers=()):
            super().__init__(model, num_masks=8, batch_size=8)

    monkeypatch.setitem(METHODS, "rise", Quick)
    shapes = seen(net)
    maps = layer_maps("rise", net, [net.layer1, net.layer3], images, TARGETS)
    assert len(shapes) == 3  # one batch of masked copies a target
    assert [one.shape for one in maps] == [(3, 64, 64)] * 2
    np.testing.assert_array_equal(*maps)
    np.testing.assert_array_equal(maps[0][:1], Quick(net)(images[:1], TARGETS[0]))
