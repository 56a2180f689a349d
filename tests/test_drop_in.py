"""What pytorch-grad-cam and its users expect of a CAM class: signatures, attributes, meta-methods, metrics."""

from __future__ import annotations

import inspect
from functools import partial

import cv2
import numpy as np
import pytest
import torch
import ttach
from pytorch_grad_cam import FinerCAM, GradCAM
from pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.metrics.arcc import ARCC, Coherency
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.refine_cam import RefineCAM
from pytorch_grad_cam.sess import SESS
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, FinerWeightedTarget
from torch import nn
from torch.nn import functional as F

from holistic_cam_plugin import CAMERAS, HolisticCAM, min_max_normalize

SIZES = {"sizes": [64, 80, 96]}
# Of multiples of 16 px, the sides are those below.
ROUNDED = {"sizes": [64, 77, 100], "multiple_of": 16}
ROUNDED_SIDES = [64, 80, 96]
TARGETS = [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]


def sides(shapes: list[tuple[int, ...]]) -> list[int]:
    return sorted({shape[-1] for shape in shapes})


def arguments(function: object) -> list[tuple[str, object]]:
    return [
        (p.name, p.default) for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY
    ]


def test_tools_find_it_among_the_direct_subclasses():
    assert HolisticCAM in BaseCAM.__subclasses__()


def test_the_constructor_takes_the_librarys_arguments_in_the_librarys_order():
    assert arguments(HolisticCAM) == arguments(BaseCAM)


@pytest.mark.parametrize("name", ["__call__", "forward", "forward_augmentation_smoothing", "compute_cam_per_layer"])
def test_methods_take_the_librarys_arguments_in_the_librarys_order(name):
    ours, librarys = (arguments(getattr(owner, name)) for owner in (HolisticCAM, BaseCAM))
    assert [argument for argument, _ in ours] == [argument for argument, _ in librarys]


def test_the_call_has_the_librarys_defaults(net, images):
    assert arguments(HolisticCAM.__call__)[2:] == [("targets", None), ("aug_smooth", False), ("eigen_smooth", False)]
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    both = cam(images, TARGETS, True, True)
    assert np.array_equal(both, cam(input_tensor=images, targets=TARGETS, aug_smooth=True, eigen_smooth=True))
    assert not np.array_equal(both, cam(images, TARGETS, True))
    assert not np.array_equal(cam(images, TARGETS, False, True), cam(images, TARGETS))


def test_attributes_that_others_read(net, images):
    transform, tta = (lambda x: x), ttach.Compose([ttach.HorizontalFlip()])
    cam = HolisticCAM(net, [net.layer2], transform, True, False, tta, False)
    librarys = GradCAM(net, [net.layer2])
    assert vars(librarys).keys() - {"activations_and_grads"} <= vars(cam).keys()
    assert cam.model is net
    assert cam.target_layers == [net.layer2]
    assert cam.reshape_transform is transform
    assert cam.tta_transforms is tta
    assert (cam.compute_input_gradient, cam.uses_gradients, cam.detach) == (True, False, False)
    assert cam.device == torch.device("cpu")
    assert cam.outputs is None
    output = cam.activations_and_grads(images)
    output[:, 0].sum().backward()
    recorded = librarys.activations_and_grads
    recorded(images)[:, 0].sum().backward()
    for kind in ("activations", "gradients"):
        torch.testing.assert_close(getattr(cam.activations_and_grads, kind), getattr(recorded, kind))
    librarys.activations_and_grads.release()


def test_the_librarys_switches_do_not_change_the_maps(net, images):
    expected = HolisticCAM(net, [net.layer2], **SIZES)(images)
    cam = HolisticCAM(net, [net.layer2], compute_input_gradient=True, uses_gradients=False, detach=False, **SIZES)
    assert np.array_equal(cam(images), expected)


def test_target_layers_may_be_a_tuple_and_are_copied(net, images):
    layers = [net.layer2]
    cam = HolisticCAM(net, layers, **SIZES)
    layers.append(net.layer1)
    assert np.array_equal(cam(images), HolisticCAM(net, (net.layer2,), **SIZES)(images))


def test_batch_size_can_be_set_later(net, make_images, seen):
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    cam.batch_size = 2
    shapes = seen(net)
    cam(make_images(5))
    assert [(shape[0], shape[-1]) for shape in shapes] == [(n, s) for n in (2, 2, 1) for s in (64, 96, 80)]


def test_progress_wraps_the_iteration_over_the_scales(net, images):
    given = []

    def progress(scales):
        given.append(list(scales))
        return iter(scales)

    plain = HolisticCAM(net, [net.layer2], batch_size=2, **SIZES)(images)
    assert np.array_equal(HolisticCAM(net, [net.layer2], batch_size=2, progress=progress, **SIZES)(images), plain)
    assert given == [[(96, 96), (80, 80), (64, 64)]]  # the largest first


def test_the_librarys_recorder_can_be_swapped_in(net, images):
    """As tools do for transformers: a recorder with another transform, made outside."""
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    plain = cam(images)
    recorder = ActivationsAndGradients(net, [net.layer2], lambda x: x.flip(-1))
    cam.activations_and_grads = recorder
    assert not net.layer2._forward_hooks  # its hooks would see every forward
    assert cam.activations_and_grads.reshape_transform is recorder.reshape_transform
    flipped = cam(images)
    assert not np.array_equal(flipped, plain)
    np.testing.assert_allclose(flipped, plain[..., ::-1], atol=1 / 255)


def test_a_recorder_of_another_object_can_be_swapped_in(net, images):
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    other = HolisticCAM(net, [net.layer2], lambda x: x.flip(-1), **SIZES)
    cam.activations_and_grads = other.activations_and_grads
    assert cam.activations_and_grads is other.activations_and_grads
    assert np.array_equal(cam(images), other(images))


@pytest.mark.parametrize("targets", [None, TARGETS])
def test_sess_runs_the_pyramid_on_its_patches(net, images, seen, targets):
    shapes = seen(net)
    with SESS(net, [net.layer2], base_method=HolisticCAM, scales=[64, 90], sizes=[64, 80]) as sess:
        maps = sess(images, targets)
    assert sides(shapes) == [64, 80]
    assert maps.shape == (2, 64, 64)
    assert np.isfinite(maps).all()
    assert np.ptp(maps) > 0.5


def test_sess_on_one_patch_is_the_plain_map(net, images):
    sess = SESS(net, [net.layer2], base_method=partial(HolisticCAM, num_scales=2), scales=[64], smooth=False)
    expected = HolisticCAM(net, [net.layer2], num_scales=2)(images, TARGETS)
    np.testing.assert_allclose(sess(images, TARGETS), expected, atol=1e-6)


def test_refine_cam_multiplies_full_pyramids(net, images, seen):
    refine = RefineCAM(net, [net.layer1, net.layer3], base_method=HolisticCAM, **SIZES)
    shapes = seen(net)
    maps = refine(images, TARGETS)
    assert sides(shapes) == [64, 80, 96]
    single = [HolisticCAM(net, [layer], **SIZES)(images, TARGETS) for layer in (net.layer1, net.layer3)]
    np.testing.assert_allclose(maps, scale_cam_image(single[0] * single[1]), atol=1e-5)
    assert refine(images, TARGETS, True).shape == (2, 64, 64)  # lands in aug_smooth


@pytest.mark.parametrize("eigen_smooth", [False, True])
def test_finer_cam_runs_the_pyramid_with_its_own_targets(net, images, seen, eigen_smooth):
    shapes = seen(net)
    with FinerCAM(net, [net.layer2, net.layer3], base_method=HolisticCAM) as finer:
        maps = finer(images, eigen_smooth=eigen_smooth)
    assert sides(shapes) == [64, 206, 349, 492, 635, 778, 921]
    order = net(images).sort(dim=1, descending=True).indices.tolist()
    targets = [FinerWeightedTarget(best, others[:3], 1) for best, *others in order]
    cam = HolisticCAM(net, [net.layer2, net.layer3])
    assert np.array_equal(maps, cam(images, targets, eigen_smooth=eigen_smooth))
    assert not np.array_equal(maps, cam(images, eigen_smooth=eigen_smooth))
    assert finer.base_cam.activations_and_grads.activations == []


class Finer(nn.Module):
    """A model whose one output is FinerCAM's score: the best class against the three next, by their probabilities."""

    def __init__(self, net, best, others):
        super().__init__()
        self.net, self.best, self.others = net, best, others

    def forward(self, x):
        scores = self.net(x)
        probabilities = scores.softmax(dim=-1)[:, self.others]
        gaps = scores[:, [self.best]] - scores[:, self.others]
        return (probabilities * gaps).sum(dim=1, keepdim=True) / probabilities.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("weighting", ["pge", "positive"])
def test_sess_passes_our_parameters_on(any_net, images, reference, seen, weighting):
    """The map of every window, weighed by the class's probability in it, at its place."""
    sess = SESS(
        any_net,
        [any_net.layer2],
        base_method=HolisticCAM,
        scales=[64, 96],
        pool="max",
        smooth=False,
        weighting=weighting,
        **ROUNDED,
    )
    shapes = seen(any_net)
    maps = sess(images[:1], TARGETS[:1])
    assert sides(shapes) == ROUNDED_SIDES
    enlarged = F.interpolate(images[:1], size=(96, 96), mode="bilinear", antialias=True)
    windows = [(images[:1], 0, 0, 64)] + [
        (enlarged[..., top : top + 64, left : left + 64], top, left, 96) for top in (0, 32) for left in (0, 32)
    ]
    probabilities = np.array([any_net(window)[0].softmax(dim=0)[1].item() for window, *_ in windows])
    expected = np.zeros((64, 64))
    for (window, top, left, side), weight in zip(windows, probabilities / probabilities.max(), strict=True):
        pasted = np.zeros((side, side))
        literal = reference(any_net, ["layer2"], window, [1], sizes=ROUNDED_SIDES, weights=weighting)
        pasted[top : top + 64, left : left + 64] = literal[0] * weight
        expected = np.maximum(expected, cv2.resize(pasted, (64, 64)))
    np.testing.assert_allclose(maps[0], scale_cam_image(expected[None])[0], atol=2 / 255)
    assert maps.std() > 0.05


@pytest.mark.parametrize("weighting", ["pge", "positive"])
def test_refine_cam_passes_our_parameters_on(any_net, images, reference, seen, weighting):
    layers = ["layer1", "layer3"]
    modules = [any_net.get_submodule(layer) for layer in layers]
    refine = RefineCAM(any_net, modules, base_method=HolisticCAM, weighting=weighting, **ROUNDED)
    shapes = seen(any_net)
    maps = refine(images, TARGETS)
    assert sides(shapes) == ROUNDED_SIDES
    first, second = (
        reference(any_net, [layer], images, [1, 2], sizes=ROUNDED_SIDES, weights=weighting) for layer in layers
    )
    product = first * second
    peaks = product.max(axis=(1, 2), keepdims=True)
    # A product of faint maps is scaled up, and the wrap's 8 bits with it.
    np.testing.assert_allclose(maps, scale_cam_image(product), atol=3 / 255 / peaks.min())
    assert maps.std() > 0.01


@pytest.mark.parametrize("weighting", ["pge", "positive"])
def test_finer_cam_takes_our_parameters_by_partial(any_net, images, reference, seen, weighting):
    base_method = partial(HolisticCAM, weighting=weighting, **ROUNDED)
    shapes = seen(any_net)
    with FinerCAM(any_net, [any_net.layer2], base_method=base_method) as finer:
        maps = finer(images)
    assert sides(shapes) == ROUNDED_SIDES
    order = any_net(images).sort(dim=1, descending=True).indices.tolist()
    for one, image, (best, *others) in zip(maps, images.split(1), order, strict=True):
        model = Finer(any_net, best, others[:3])
        expected = reference(model, ["net.layer2"], image, [0], sizes=ROUNDED_SIDES, weights=weighting)
        np.testing.assert_allclose(one, expected[0], atol=2 / 255)
    assert maps.std() > 0.01


def test_the_object_inside_gives_the_unnormalised_maps_of_finer_cam(net, images):
    """SESS and RefineCAM have none: they multiply maps in [0, 1]. `attribute` explains classes by index."""
    cam = HolisticCAM(net, [net.layer2], weighting="positive", **ROUNDED)
    with FinerCAM(net, [net.layer2], base_method=partial(HolisticCAM, weighting="positive", **ROUNDED)) as finer:
        maps = finer(images)
        order = net(images).sort(dim=1, descending=True).indices.tolist()
        targets = [FinerWeightedTarget(best, others[:3], 1) for best, *others in order]
        (steps,) = finer.base_cam.intermediates(images, targets)
        assert torch.equal(finer.base_cam.attribute(images, [1, 2]), cam.attribute(images, [1, 2]))
    for one, step in zip(maps, steps, strict=True):
        np.testing.assert_allclose(one, min_max_normalize(step.masked), atol=1e-6)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # pytorch-grad-cam's ROAD with numpy 2
@pytest.mark.parametrize("method", [HolisticCAM, CAMERAS])
def test_metrics_and_a_live_object_beside_them(net, make_images, method):
    images = make_images(2, 32, 32)
    with method(net, [net.layer2], sizes=[32, 40]) as cam:
        maps = cam(images, TARGETS)
        for metric in (ROADCombined([20, 60]), DropInConfidence(), IncreaseInConfidence()):
            torch.manual_seed(0)  # the noise of ROAD's imputation
            scores = metric(images, maps, TARGETS, net)
            assert scores.shape == (2,)
            assert np.isfinite(scores).all()
            torch.manual_seed(0)
            assert np.array_equal(metric(images, maps, TARGETS, net), scores)
        coherency = Coherency()(images, maps, TARGETS, net, cam)
        arcc = ARCC(cam, road_percentiles=[20, 60])(images, maps, TARGETS, net)
        for scores in (coherency, arcc):
            assert scores.shape == (2,)
            assert ((scores >= 0) & (scores <= 1)).all()
        assert cam.activations_and_grads.activations == []  # it saw none of their forwards
    np.testing.assert_array_equal(cam(images, TARGETS), maps)


def test_maps_have_no_plateaus_that_would_tie_pixels(make_net, make_images):
    net = make_net("residual")
    maps = HolisticCAM(net, [net.layer2])(make_images(2, 112, 112))
    for one in maps:
        assert len(np.unique(one)) > 0.9 * one.size
