"""Class Holistic-CAM: the literal method, what it is for, and wherever `GradCAM` was used."""

from __future__ import annotations

import copy
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from pytorch_grad_cam import SESS, FinerCAM, GradCAM, RefineCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, SemanticSegmentationTarget
from torch import nn
from torch.nn import functional as F

from holistic_cam_plugin import ClassHolisticCAM, HolisticCAM, class_evidence, explainable, fundamental_scale_denoising
from tests.conftest import min_max

SMALL = {"sizes": [64, 96, 140]}
TARGETS = [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]
LITERAL = {"weights": "positive", "mask_layer": "layer3", "contrast": 1, "fuse_base": False, "by_positions": True}


@pytest.fixture
def any_net(any_net, images):
    return let_speak(any_net, images)


@pytest.fixture
def net(net, images):
    return let_speak(net, images)


def let_speak(net, images):
    """In random nets, nothing may speak for a class: let the usual features speak for all classes."""
    with torch.no_grad():
        features = net.layer3(net.layer2(net.layer1(images))).mean(dim=(0, 2, 3))
        net.head[-1].weight += features / features.norm()
    return net


@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
def test_it_is_the_literal_method(any_net, images, reference, layer):
    expected = reference(any_net, [layer], images, **SMALL, **LITERAL)
    found = ClassHolisticCAM(any_net, [any_net.get_submodule(layer)], **SMALL)(images)
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, [64, 97, 177]),
        ({"tiles": True}, [64, 177]),
        ({"num_scales": 2}, [64, 564]),
        ({"num_scales": 1}, [64]),
        ({"max_size": 70}, [64, 74, 84, 94, 104, 114, 124]),
        ({"sizes": "paper", "num_scales": 2, "max_size": 100}, [64, 114]),
        ({"sizes": [64, 80], "num_scales": 3}, [64, 80]),
    ],
)
def test_the_pyramid_is_fast_unless_another_is_asked_for(net, images, options, sizes):
    ((record, *_),) = ClassHolisticCAM(net, [net.layer1], **options).intermediates(images)
    expected = HolisticCAM(net, [net.layer1], sizes=sizes, tiles=options.get("tiles", False)).intermediates(images)
    assert [a.shape for a in record.activations] == [a.shape for a in expected[0][0].activations]


PARTS = {
    "mask": {"mask_layer": "layer3"},
    "contrast": {"mask_layer": "layer3", "contrast": 2},
    "without the base scale": {"fuse_base": False},
    "positions": {"by_positions": True, "weights": "positive"},
}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_the_literal_one(any_net, images, reference, part):
    options = dict(PARTS[part])
    expected = reference(any_net, ["layer2"], images, **SMALL, **options)
    options["weighting"] = options.pop("weights", "pge")
    if "mask_layer" in options:
        options["mask_layer"] = any_net.layer3
    found = HolisticCAM(any_net, [any_net.layer2], **SMALL, **options)(images)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    plain = HolisticCAM(any_net, [any_net.layer2], **SMALL, weighting=options["weighting"])(images)
    assert np.abs(found - plain).max() > 0.01


def test_several_layers_share_the_mask(any_net, images, reference):
    layers = ["layer1", "layer3"]
    expected = reference(any_net, layers, images, **SMALL, **LITERAL)
    found = ClassHolisticCAM(any_net, [any_net.layer1, any_net.layer3], **SMALL)(images)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_the_results_of_every_step(net, images):
    """The mask is the low-pass wrap of the mask layer's evidence, and the map their product."""
    cam = ClassHolisticCAM(net, [net.layer1], **SMALL)
    ((record, _),) = cam.intermediates(images, TARGETS)
    deep = HolisticCAM(net, [net.layer3], **SMALL, weighting="gradient", fsd=False).intermediates(images, TARGETS)[0][0]
    evidence = class_evidence(deep.activations, deep.weights, (64, 64), 1)
    np.testing.assert_allclose(record.base, evidence, rtol=1e-4, atol=1e-6 * evidence.max())
    expected = min_max(fundamental_scale_denoising(record.fused, record.base))
    np.testing.assert_allclose(record.saliency_map, expected, atol=1e-5)


class TwoHalves(nn.Module):
    """Class 0 is red, class 1 is green; both are seen by every layer."""

    def __init__(self):
        super().__init__()
        self.early = nn.Conv2d(3, 2, 3, padding=1, bias=False)
        self.late = nn.Conv2d(2, 3, 1, bias=False)
        with torch.no_grad():
            self.early.weight.copy_(torch.eye(2, 3)[:, :, None, None].expand(2, 3, 3, 3) / 9)
            self.late.weight.copy_(torch.eye(3, 2)[:, :, None, None])

    def forward(self, x):
        features = F.max_pool2d(self.late(F.max_pool2d(self.early(x).relu(), 2)).relu(), 2)
        return features.mean(dim=(2, 3)) @ torch.tensor([[1.0, -0.8], [-0.8, 1.0], [1.0, 1.0]])


@pytest.mark.parametrize("layer", ["early", "late"])
def test_the_other_class_is_dark(layer):
    model = TwoHalves()
    image = torch.zeros(1, 3, 128, 128)
    image[:, 0, 32:96, 8:56], image[:, 1, 32:96, 72:120] = 1, 1
    halves = np.s_[:, :64], np.s_[:, 64:]
    for category in (0, 1):
        target = [ClassifierOutputTarget(category)]
        found = ClassHolisticCAM(model, [model.get_submodule(layer)], sizes=[128, 192])(image, target)[0]
        assert found[halves[category]].sum() > 50 * found[halves[1 - category]].sum()


@pytest.mark.parametrize("factor", [1e-3, 10, 1e3])
@pytest.mark.parametrize("layer", ["layer1", "layer3"])
def test_the_scale_of_the_logits_is_of_no_matter(any_net, images, layer, factor):
    cam = ClassHolisticCAM(any_net, [any_net.get_submodule(layer)], **SMALL)
    expected = cam(images, TARGETS)
    with torch.no_grad():
        any_net.head[-1].weight *= factor
        any_net.head[-1].bias *= factor
    np.testing.assert_allclose(cam(images, TARGETS), expected, atol=1e-4)


class Shifted(nn.Module):
    """Adds the same function of the image to all logits, which changes no probability."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.shift = nn.Conv2d(10, 1, 1)

    def forward(self, x):
        features = self.model.layer3(self.model.layer2(self.model.layer1(x)))
        return self.model.head(features) + self.shift(features).mean(dim=(1, 2, 3))[:, None]


def test_what_is_added_to_all_logits_matters(net, images):
    """The logit is explained, not the probability; the docstring says so."""
    shifted = Shifted(net).eval()
    with torch.no_grad():
        shifted.shift.weight.mul_(5)
        torch.testing.assert_close(shifted(images).softmax(1), net(images).softmax(1))
    one, other = (ClassHolisticCAM(model, [net.layer1], **SMALL)(images, TARGETS) for model in (net, shifted))
    assert np.abs(one - other).max() > 0.05
    assert "added to all logits" in " ".join(ClassHolisticCAM.__doc__.split())


def test_a_constant_added_to_all_logits_is_of_no_matter(net, images):
    cam = ClassHolisticCAM(net, [net.layer1], **SMALL)
    expected = cam(images, TARGETS)
    with torch.no_grad():
        net.head[-1].bias += 7
    assert np.array_equal(cam(images, TARGETS), expected)


# The mask layer


def test_the_layer_is_found_at_the_first_call_and_kept(net, images, seen):
    cam = ClassHolisticCAM(net, [net.layer1], **SMALL)
    shapes = seen(net)
    first = cam(images[:1])
    searched = len(shapes)
    again = cam(images[:1])
    assert np.array_equal(first, again)
    assert len(shapes) - searched == len(SMALL["sizes"])
    given = ClassHolisticCAM(net, [net.layer1], mask_layer=net.layer3, **SMALL)(images[:1])
    np.testing.assert_allclose(first, given, atol=1e-6)


def test_it_is_searched_again_in_another_model(make_net, images):
    net, other = (let_speak(make_net(name), images) for name in ("plain", "residual"))
    cam = ClassHolisticCAM(net, [net.layer1], **SMALL)
    cam(images)
    cam.model, cam.target_layers = other, [other.layer1]
    np.testing.assert_allclose(cam(images), ClassHolisticCAM(other, [other.layer1], **SMALL)(images), atol=1e-6)


def test_a_mask_layer_before_a_target_layer_is_told(net, images):
    cam = HolisticCAM(net, [net.layer1, net.layer3], mask_layer=net.layer2, **SMALL)
    with pytest.warns(UserWarning, match="a target layer comes after the mask layer: the layer is masked by its own"):
        found = cam.compute_cam_per_layer(images, TARGETS)
    own = HolisticCAM(net, [net.layer3], **SMALL)(images, TARGETS)
    np.testing.assert_allclose(found[1][:, 0], own, atol=1e-6)
    masked = HolisticCAM(net, [net.layer1], mask_layer=net.layer2, **SMALL)(images, TARGETS)
    np.testing.assert_allclose(found[0][:, 0], masked, atol=1e-6)


def test_a_container_and_its_last_part_are_the_same_layer(net, images):
    """No warning, although the container finishes after its part."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = HolisticCAM(net, [net.layer3], mask_layer=net.layer3[-1], **SMALL)(images, TARGETS)
    expected = HolisticCAM(net, [net.layer3], mask_layer=net.layer3, **SMALL)(images, TARGETS)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_class_that_nothing_speaks_for_has_the_own_mask(net, images):
    with torch.no_grad():
        net.head[-1].weight[1] = -net.head[-1].weight[1].abs()  # no channel speaks for class 1
    cam = ClassHolisticCAM(net, [net.layer1], **SMALL)
    with pytest.warns(UserWarning, match="nothing in the mask layer speaks for the class"):
        found = cam(images, TARGETS)
    own = ClassHolisticCAM(net, [net.layer1], mask_layer=None, **SMALL)(images, TARGETS)
    np.testing.assert_allclose(found[0], own[0], atol=1e-6)
    assert np.abs(found[1] - own[1]).max() > 0.01


def test_without_a_layer_with_positions_the_own_mask_is_told():
    model = nn.Sequential(nn.Conv2d(3, 4, 64), nn.Flatten(), nn.Linear(4, 3))
    cam = ClassHolisticCAM(model, [model[0]], num_scales=1)
    with pytest.warns(UserWarning, match="no layer for the class mask was found"):
        cam(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("mask_layer", "error", "message"),
    [
        ("layer3", TypeError, "mask_layer must be a module of the model, 'deepest' or None, got 'layer3'"),
        (3, TypeError, "mask_layer must be a module"),
        (nn.Conv2d(3, 3, 1), ValueError, "the mask layer of type Conv2d is not part of the model"),
    ],
)
def test_wrong_mask_layers_are_refused(net, images, mask_layer, error, message):
    with pytest.raises(error, match=message):
        HolisticCAM(net, [net.layer1], mask_layer=mask_layer)
    cam = HolisticCAM(net, [net.layer1])
    cam.mask_layer = mask_layer
    with pytest.raises(error, match=message):
        cam(images)


@pytest.mark.parametrize("name", ["fuse_base", "by_positions"])
def test_switches_are_switches(net, name):
    with pytest.raises(TypeError, match=f"{name} must be"):
        HolisticCAM(net, [net.layer1], **{name: "no"})


def test_a_mask_layer_that_the_score_does_not_depend_on_is_named(net, images):
    net.unused = nn.Conv2d(3, 4, 1)
    with pytest.raises(ValueError, match=r"mask layer 'unused' \(Conv2d\) did not run"):
        HolisticCAM(net, [net.layer1], mask_layer=net.unused)(images)


# Wherever GradCAM was used


def test_the_constructor_and_the_call_are_gradcams(net, images):
    for cam_class in (GradCAM, ClassHolisticCAM):
        with cam_class(model=net, target_layers=[net.layer2]) as cam:
            maps = cam(input_tensor=images, targets=TARGETS)
        assert maps.shape == (2, 64, 64)
        assert maps.dtype == np.float32
        assert maps.min() == 0
        assert maps.max() <= 1
        assert isinstance(cam.outputs, torch.Tensor)


def test_several_targets_of_an_image_are_those_of_each_alone(net, images):
    together = ClassHolisticCAM(net, [net.layer1], **SMALL)(images, [TARGETS, TARGETS[::-1]])
    cam = ClassHolisticCAM(net, [net.layer1], **SMALL)
    alone = [cam(images[image : image + 1], [TARGETS[k]]) for image, k in ((0, 0), (0, 1), (1, 1), (1, 0))]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batches_are_as_single_images(any_net, make_images, batch_size):
    images = make_images(3)
    found = ClassHolisticCAM(any_net, [any_net.layer2], batch_size=batch_size, **SMALL)(images)
    single = [ClassHolisticCAM(any_net, [any_net.layer2], **SMALL)(image[None])[0] for image in images]
    np.testing.assert_allclose(found, single, atol=1e-5)


def test_smoothing(net, images):
    cam = ClassHolisticCAM(net, [net.layer2], **SMALL)
    plain = cam(images, TARGETS)
    for options in ({"aug_smooth": True}, {"eigen_smooth": True}, {"aug_smooth": True, "eigen_smooth": True}):
        smooth = cam(images, TARGETS, **options)
        assert smooth.shape == plain.shape
        assert np.isfinite(smooth).all()
        assert np.abs(smooth - plain).max() > 1e-3


@pytest.mark.parametrize(
    "meta",
    [
        partial(SESS, base_method=ClassHolisticCAM, scales=[64, 96], batch_size=2),
        partial(RefineCAM, base_method=ClassHolisticCAM),
        partial(FinerCAM, base_method=ClassHolisticCAM),
    ],
    ids=["SESS", "RefineCAM", "FinerCAM"],
)
def test_meta_methods(net, images, meta):
    layers = [net.layer2, net.layer3] if meta.func is RefineCAM else [net.layer2]
    targets = [TARGETS[0]]
    found = meta(net, layers)(images[:1], targets if meta.func is not FinerCAM else None)
    assert found.shape == (1, 64, 64)
    assert np.isfinite(found).all()
    assert found.max() > 0


def test_it_changes_nothing(any_net, images):
    any_net.train()
    before = {name: tensor.clone() for name, tensor in any_net.state_dict().items()}
    with torch.no_grad():
        ClassHolisticCAM(any_net, [any_net.layer1], **SMALL)(images)
    assert all(module.training for module in any_net.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in any_net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in any_net.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in any_net.state_dict().items())


def test_a_copy_has_the_same_maps(net, images):
    cam = ClassHolisticCAM(net, [net.layer1], **SMALL)
    expected = cam(images)
    assert np.array_equal(copy.deepcopy(cam)(images), expected)


def test_tiles(net, images):
    """A pyramid of windows of the image's own size: at the base scale alone the same as without."""
    plain, tiled = (ClassHolisticCAM(net, [net.layer1], num_scales=1, tiles=tiles)(images) for tiles in (False, True))
    np.testing.assert_allclose(tiled, plain, atol=1e-6)
    found = ClassHolisticCAM(net, [net.layer1], tiles=True, **SMALL)(images)
    assert np.isfinite(found).all()
    assert found.max() == 1


def test_volumes():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv3d(4, 6, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 3),
    ).eval()  # fmt: skip
    with torch.no_grad():
        model[-1].weight.abs_()
    volumes = torch.rand(2, 2, 8, 32, 32)
    found = ClassHolisticCAM(model, [model[0]], sizes=[32, 48])(volumes, TARGETS)
    given = ClassHolisticCAM(model, [model[0]], sizes=[32, 48], mask_layer=model[3])(volumes, TARGETS)
    assert found.shape == (2, 8, 32, 32)
    assert found.max() == 1
    np.testing.assert_allclose(found, given, atol=1e-6)


def test_segmentation(images):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1, stride=2), nn.ReLU(),
        nn.Conv2d(8, 4, 1), nn.Upsample(scale_factor=4, mode="bilinear"),
    ).eval()  # fmt: skip
    mask = np.zeros((64, 64), np.float32)
    mask[:, :32] = 1
    targets = [SemanticSegmentationTarget(1, mask)] * 2
    found = ClassHolisticCAM(model, [model[0]], **SMALL)(images, targets)
    given = ClassHolisticCAM(model, [model[0]], mask_layer=model[3], **SMALL)(images, targets)  # not the scores
    np.testing.assert_allclose(found, given, atol=1e-6)


def test_the_base_scale_alone_is_fused(net, images):
    one = ClassHolisticCAM(net, [net.layer1], num_scales=1)(images)
    with_base = ClassHolisticCAM(net, [net.layer1], num_scales=1, fuse_base=True)(images)
    assert np.array_equal(one, with_base)


def test_explainable_brings_the_mask_layer(net, images):
    found = explainable(net, size=(64, 64))
    assert found.options["mask_layer"] is found.target_layers[-1]
    assert found.at(["layer1"]).options["mask_layer"] is found.target_layers[-1]
    maps = ClassHolisticCAM(found.model, found.target_layers[:1], **found.options, **SMALL)(images)
    np.testing.assert_allclose(maps, ClassHolisticCAM(net, found.target_layers[:1], **SMALL)(images), atol=1e-6)


def test_its_name_tells_what_differs_from_the_paper(net):
    text = repr(ClassHolisticCAM(net, [net.layer1], mask_layer=net.layer3))
    assert text.startswith("ClassHolisticCAM(Staged, [layer1], ")
    assert "mask_layer=layer3" in text
    assert "contrast=1.0" in text


# What one call leaves to the next


def test_a_search_in_vain_is_made_again(net, images):
    cam = ClassHolisticCAM(net, [net.layer1], **SMALL)
    weights = net.head[-1].weight.detach().clone()
    nn.init.zeros_(net.head[-1].weight)
    with pytest.warns(UserWarning, match="no layer for the class mask was found"):
        cam(images, TARGETS)
    with torch.no_grad():
        net.head[-1].weight.copy_(weights)
    expected = ClassHolisticCAM(net, [net.layer1], **SMALL)(images, TARGETS)
    np.testing.assert_allclose(cam(images, TARGETS), expected, atol=1e-6)


class TwoHeads(nn.Module):
    """Class 0 has a convolution of its own, and so has class 1."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())
        self.first, self.second = (nn.Sequential(nn.Conv2d(6, 4, 3), nn.ReLU()) for _ in range(2))

    def forward(self, x):
        x = self.trunk(x)
        return torch.stack([self.first(x).mean(dim=(1, 2, 3)), self.second(x).mean(dim=(1, 2, 3))], dim=1)


def test_another_target_may_need_another_layer(images):
    torch.manual_seed(1)
    model = TwoHeads().eval()
    cam = ClassHolisticCAM(model, [model.trunk], **SMALL)
    first, second = ([ClassifierOutputTarget(k)] * 2 for k in (0, 1))
    cam(images, first)
    with pytest.warns(UserWarning, match="nothing in the mask layer speaks for the class"):
        cam(images, second)  # the layer is the other head's
    expected = ClassHolisticCAM(model, [model.trunk], mask_layer=model.second, **SMALL)(images, second)
    np.testing.assert_allclose(cam(images, second), expected, atol=1e-6)


def test_a_layer_that_has_left_the_model_is_searched_again(net, images):
    cam = ClassHolisticCAM(net, [net.layer1], **SMALL)
    expected = cam(images)
    net.layer3 = nn.Sequential(*net.layer3)
    np.testing.assert_allclose(cam(images), expected, atol=1e-6)


def test_the_recorder_of_the_target_layers_stays_theirs(net, images):
    cam = ClassHolisticCAM(net, [net.layer1], **SMALL)
    cam(images)
    cam.activations_and_grads(images)
    assert len(cam.activations_and_grads.activations) == 1
    with pytest.raises(ZeroDivisionError):
        cam(images, [lambda output: 1 / 0] * 2)
    cam.activations_and_grads(images)
    assert len(cam.activations_and_grads.activations) == 1


def test_a_spot_that_the_median_filter_erases_is_told():
    model = TwoHalves()
    image = torch.zeros(1, 3, 224, 224)
    image[:, 0, 100:112, 100:112] = 1
    target = [ClassifierOutputTarget(0)]
    cam = ClassHolisticCAM(model, [model.early], sizes=[224, 300])
    with pytest.warns(UserWarning, match="smaller than half of the median filter's window: pass a smaller blur_size"):
        cam(image, target)
    found = ClassHolisticCAM(model, [model.early], sizes=[224, 300], blur_size=3)(image, target)
    assert found[0, 96:116, 96:116].sum() > 0.9 * found.sum()


def test_tools_find_the_class():
    assert {HolisticCAM, ClassHolisticCAM} <= set(BaseCAM.__subclasses__())


def test_warnings_point_at_the_users_line(net, images):
    with pytest.warns(UserWarning, match="a target layer comes after") as told:
        HolisticCAM(net, [net.layer3], mask_layer=net.layer2, **SMALL)(images)
    model = nn.Sequential(nn.Conv2d(3, 4, 64), nn.Flatten(), nn.Linear(4, 3))
    with pytest.warns(UserWarning, match="no layer for the class mask") as more:
        ClassHolisticCAM(model, [model[0]], num_scales=1)(torch.rand(1, 3, 64, 64))
    assert {told[0].filename, more[0].filename} == {__file__}


@pytest.mark.parametrize("height", [224, 300])
def test_the_mask_of_a_large_map_is_sampled_finely_enough(net, make_images, height):
    images = make_images(1, height, 224)
    options = {"sizes": [224, 336], "mask_layer": net.layer3}
    ((record,),) = ClassHolisticCAM(net, [net.layer1], **options).intermediates(images, TARGETS[:1])
    deep = HolisticCAM(net, [net.layer3], sizes=[224, 336], weighting="gradient", fsd=False)
    ((exact,),) = deep.intermediates(images, TARGETS[:1])
    evidence = class_evidence(exact.activations, exact.weights, (height, 224), 1)
    expected = min_max(fundamental_scale_denoising(record.fused, evidence))
    np.testing.assert_allclose(record.saliency_map, expected, atol=0.03)
    assert np.abs(record.saliency_map - expected).mean() < 2e-3
