"""The registry of methods: names, and maps that are those of the class, with no hook left on the model."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_grad_cam
from pytorch_grad_cam import FinerCAM, GradCAM, GradCAMPlusPlus, RefineCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from holistic_cam_plugin import CAMERAS, HolisticCAM
from holistic_cam_plugin.baselines.stage_refine_cam import StageRefineCAM
from holistic_cam_plugin.methods import METHODS, Method, compute_maps, display_name
from holistic_cam_plugin.names import find_method

TARGETS = [[ClassifierOutputTarget(2)], [ClassifierOutputTarget(0), ClassifierOutputTarget(5)]]
NAMES = ["CAM", "CAMERAS", "FinerCAM", "SESS"]
FLAT = [ClassifierOutputTarget(2), ClassifierOutputTarget(0), ClassifierOutputTarget(5)]


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_every_method_of_pytorch_grad_cam_has_a_name():
    exported = {value for value in vars(pytorch_grad_cam).values() if isinstance(value, type)}
    methods = {value for value in exported if issubclass(value, BaseCAM)} - {BaseCAM}
    assert methods <= set(METHODS.values())
    assert {METHODS[name] for name in ("finercam", "cameras")} == {FinerCAM, CAMERAS}
    assert issubclass(METHODS["refinecam"], StageRefineCAM)


@pytest.mark.parametrize("name", ["Grad-CAM++", "gradcam++", "gradcamplusplus", "Grad_CAM plusplus"])
def test_spellings_of_a_name(name):
    assert find_method(name) == "gradcamplusplus"
    assert display_name(find_method(name)) == "Grad-CAM++"


def test_wrong_names_get_near_matches():
    with pytest.raises(ValueError, match=r"unknown method 'gradcm'; did you mean gradcam"):
        find_method("gradcm")
    with pytest.raises(ValueError, match="known methods: ablationcam"):
        find_method("zzz")


@pytest.mark.parametrize("method", ["gradcam", "layercam", "refinecam", "finercam", "sess", "ablationcam"])
def test_maps_are_those_of_the_class_for_each_image_layer_and_target(net, images, method):
    found = compute_maps(Method(method, {}), net, [net.layer1, net.layer3], images, TARGETS)
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
    found = compute_maps(
        Method("refinecam", {}), net, [net.get_submodule(name) for name in order], images[:1], TARGETS[:1]
    )
    for name, maps in zip(order, found, strict=True):
        np.testing.assert_allclose(maps, RefineCAM(net, chains[name])(images[:1], TARGETS[0]), atol=1e-6)
        plain = GradCAMPlusPlus(net, [net.get_submodule(name)])(images[:1], TARGETS[0])
        assert (np.abs(maps - plain).max() > 0.1) == (name != "layer3")


def test_refinecam_says_which_method_it_refines():
    assert display_name("refinecam") == "RefineCAM (Grad-CAM++)"


@pytest.mark.parametrize("aug_smooth", [False, True])
@pytest.mark.parametrize(("method", "cam_class"), [("holisticcam", HolisticCAM), ("cameras", CAMERAS)])
def test_sizes_and_smoothing_reach_the_pyramids(net, images, method, cam_class, aug_smooth):
    found = compute_maps(
        Method(method, {"sizes": [64, 80]}), net, [net.layer2, net.layer3], images, TARGETS, aug_smooth=aug_smooth
    )
    for layer, maps in zip((net.layer2, net.layer3), found, strict=True):
        expected = cam_class(net, [layer], sizes=[64, 80])(images, TARGETS, aug_smooth)
        np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("method", ["gradcam", "refinecam", "finercam", "sess", "holisticcam"])
def test_no_hook_is_left(net, images, method):
    compute_maps(Method(method, {}), net, [net.layer2, net.layer3], images[:1], TARGETS[:1])
    assert hooks(net) == 0


@pytest.mark.parametrize("method", ["gradcam", "refinecam", "finercam", "sess", "holisticcam"])
def test_no_hook_is_left_by_an_error_and_an_index_error_is_not_swallowed(net, images, method):
    with pytest.raises(IndexError) as error:
        compute_maps(Method(method, {}), net, [net.layer2], images[:1], [[ClassifierOutputTarget(1000)]])
    assert hooks(net) == 0  # also while somebody holds the error, and so the object
    del error


def test_each_layer_is_hooked_alone(net, images, monkeypatch):
    counts = []

    class Counting(GradCAM):
        def forward(self, *arguments, **options):
            counts.append(hooks(net))
            return super().forward(*arguments, **options)

    monkeypatch.setitem(METHODS, "counting", Counting)
    compute_maps(Method("counting", {}), net, [net.layer1, net.layer2, net.layer3], images, TARGETS)
    assert counts == [2] * 9  # pytorch-grad-cam sets two per layer


def test_methods_without_augmentation_say_so(net, images):
    with pytest.raises(ValueError, match=r"FinerCAM has no test-time augmentation \(aug_smooth\)"):
        compute_maps(Method("finercam", {}), net, [net.layer2], images, TARGETS, aug_smooth=True)


def test_augmentation_reaches_the_methods_of_pytorch_grad_cam(net, images):
    [maps] = compute_maps(
        Method("gradcam", {}), net, [net.layer2], images[:1], TARGETS[:1], aug_smooth=True, eigen_smooth=True
    )
    expected = GradCAM(net, [net.layer2])(images[:1], TARGETS[0], aug_smooth=True, eigen_smooth=True)
    np.testing.assert_allclose(maps, expected, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_competing_methods(name):
    assert display_name(find_method(name)) == name


def test_the_name_of_a_method_tells_its_weighting():
    assert Method("gradcam", {}).name == "Grad-CAM"
    assert Method("holisticcam", {"weighting": "pge"}).name == "Holistic-CAM"
    assert Method("holisticcam", {"weighting": "positive"}).name == "Holistic-CAM positive"
    assert Method("classholisticcam", {}).name == "Class Holistic-CAM"
