"""Unnormalised maps: `Intermediates.masked`, and `attribute` in the tools of captum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin import HolisticCAM, min_max_normalize

SIZES = {"sizes": [64, 80]}
# Before the wrap only rounding differs; the wrap quantises to 8 bits.
TOLERANCE = {False: 1e-4, True: 1 / 255}


def bias_free_net() -> nn.Module:
    """Twice the image gives twice the activations and the same gradients."""
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5, bias=False),
    ).eval()


class Dense(nn.Module):
    """Scores of 4 classes at every eighth pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.ReLU())
        self.scores = nn.Conv2d(8, 4, 3, stride=2, padding=1)

    def forward(self, x):
        return self.scores(self.features(x))


@pytest.mark.parametrize("eigen_smooth", [False, True])
@pytest.mark.parametrize("weighting", ["pge", "positive", "gradient"])
def test_masked_is_what_the_map_is_scaled_from(net, images, weighting, eigen_smooth):
    cam = HolisticCAM(net, [net.layer2], weighting=weighting, **SIZES)
    for step in cam.intermediates(images, None, eigen_smooth)[0]:
        assert step.masked.dtype == np.float64
        np.testing.assert_array_equal(step.masked, step.fused.astype(np.float64) * (step.mask / step.mask.max()))
        np.testing.assert_allclose(min_max_normalize(step.masked), step.saliency_map, atol=1e-6)
        assert 0 < step.masked.max() <= step.fused.max()


def test_without_the_mask_it_is_the_fused_map(net, images):
    for step in HolisticCAM(net, [net.layer2], fsd=False, **SIZES).intermediates(images)[0]:
        np.testing.assert_array_equal(step.masked, step.fused.astype(np.float64))


def test_a_mask_of_zeros_leaves_zeros(net, images):
    (step,) = HolisticCAM(net, [net.layer2], **SIZES).intermediates(images[:1])[0]
    nothing = step._replace(mask=np.zeros_like(step.mask))
    assert not nothing.masked.any()


@pytest.mark.parametrize("fsd", [False, True])
def test_attribute_scaled_is_the_literal_map(any_net, images, reference, fsd):
    options = {"num_scales": 3, "max_size": 150}
    maps = HolisticCAM(any_net, [any_net.layer2], fsd=fsd, **options).attribute(images, target=[1, 4])
    assert maps.shape == (2, 1, 64, 64)
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    expected = reference(any_net, ["layer2"], images, [1, 4], fsd=fsd, **options)
    scaled = np.stack([min_max_normalize(one) for one in maps[:, 0].numpy()])
    np.testing.assert_allclose(scaled, expected, atol=TOLERANCE[fsd])


def test_several_layers_give_the_mean_of_their_unnormalised_maps(net, images):
    cam = HolisticCAM(net, [net.layer1, net.layer3], weighting="positive", **SIZES)
    (first, second) = cam.intermediates(images)
    expected = [(a.masked + b.masked) / 2 for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(cam.attribute(images)[:, 0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("fsd", [False, True])
@pytest.mark.parametrize("weighting", ["positive", "gradient"])
def test_maps_are_in_units_of_the_score(images, weighting, fsd):
    """Where the image is twice as strong, or the logits are, so is the map; both maps scaled to [0, 1] are the same."""
    net = bias_free_net()
    cam = HolisticCAM(net, [net[3]], weighting=weighting, fsd=fsd, **SIZES)
    pair = torch.cat([images[:1], 2 * images[:1]])
    one, two = cam.attribute(pair, target=1)
    assert one.max() > 0
    torch.testing.assert_close(two, 2 * one, atol=0, rtol=1e-4)
    np.testing.assert_allclose(*cam(pair, [ClassifierOutputTarget(1)] * 2), atol=1e-5)
    with torch.no_grad():
        net[-1].weight *= 10
    torch.testing.assert_close(cam.attribute(images[:1], target=1)[0], 10 * one, atol=0, rtol=1e-4)


@pytest.mark.parametrize("target", [2, (2,), torch.tensor(2), [2, 2], torch.tensor([2, 2]), [(2,), (2,)]], ids=str)
def test_a_class_by_index_is_the_librarys_target(net, images, target):
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    (steps,) = cam.intermediates(images, [ClassifierOutputTarget(2)] * 2)
    expected = np.float32([step.masked for step in steps])
    np.testing.assert_array_equal(cam.attribute(images, target)[:, 0].numpy(), expected)


def test_without_a_target_it_is_each_images_best_class(net, make_images):
    images = make_images(4)
    best = net(images).argmax(dim=1)
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    assert torch.equal(cam.attribute(images), cam.attribute(images, best))
    torch.testing.assert_close(cam.outputs, net(images).detach())


@pytest.mark.parametrize("target", [(3, 2, 6), [(3, 2, 6), (0, 7, 1)]])
def test_one_position_of_a_dense_output(images, target):
    net = Dense().eval()
    cam = HolisticCAM(net, [net.features], fsd=False, **SIZES)
    indices = target if isinstance(target, list) else [target] * 2
    (steps,) = cam.intermediates(images, [lambda output, index=index: output[index] for index in indices])
    expected = np.float32([step.masked for step in steps])
    maps = cam.attribute(images, target)[:, 0].numpy()
    np.testing.assert_array_equal(maps, expected)
    for one, (_, row, column) in zip(maps, indices, strict=True):
        peak = np.unravel_index(one.argmax(), one.shape)
        assert np.abs(np.array(peak) - 8 * np.array([row, column])).max() <= 12


def test_volumes():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    volumes = torch.rand(2, 1, 8, 16, 20)
    cam = HolisticCAM(net.eval(), [net[1]], sizes=[16, 20])
    (steps,) = cam.intermediates(volumes, [ClassifierOutputTarget(0), ClassifierOutputTarget(3)])
    maps = cam.attribute(volumes, [0, 3])
    assert maps.shape == (2, 1, 8, 16, 20)
    np.testing.assert_array_equal(maps[:, 0].numpy(), np.float32([step.masked for step in steps]))


def test_a_tuple_gives_a_tuple(net, images):
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    (maps,) = cam.attribute((images,), 1)
    assert torch.equal(maps, cam.attribute(images, 1))
    with pytest.raises(TypeError, match="got a tuple of 2: the model is explained for one input"):
        cam.attribute((images, images), 1)


@pytest.mark.parametrize(
    ("inputs", "target", "error", "match"),
    [
        (torch.zeros(2, 3, 8, 8), [1, 2, 3], ValueError, "got 3 targets for 2 images"),
        (torch.zeros(2, 3, 8, 8), "cat", TypeError, "a target must be a class index"),
        (torch.zeros(2, 3, 8, 8), 6, ValueError, r"target \(6,\) is no entry of an output of shape \(6,\)"),
        (torch.zeros(3, 8, 8), 1, ValueError, r"must be a batch \(B, C, H, W\)"),
        (np.zeros((2, 3, 8, 8)), 1, TypeError, "must be a floating-point tensor .* got a ndarray"),
    ],
)
def test_what_cannot_work_is_refused(net, inputs, target, error, match):
    with pytest.raises(error, match=match):
        HolisticCAM(net, [net.layer2], **SIZES).attribute(inputs, target)
    assert not net.layer2._forward_hooks


def test_the_model_is_left_as_it_was(net, images):
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.inference_mode():
        HolisticCAM(net, [net.layer2], **SIZES).attribute(images)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())


class Patch(nn.Module):
    """Class 0 is how bright the middle of the upper left quarter is; class 1 is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 1, 4, stride=4, bias=False)
        nn.init.constant_(self.features.weight, 1 / 48)

    def forward(self, x):
        maps = self.features(x)[:, 0]
        rows, columns = (side // 8 for side in maps.shape[1:])
        evidence = maps[:, rows : 3 * rows, columns : 3 * columns].mean(dim=(1, 2))
        return torch.stack([evidence, 0 * evidence], dim=1)


def squares_taken_away(images):
    """A square of every image is replaced by zeros: what is taken away, and what is left."""
    generator = torch.Generator().manual_seed(len(images))
    taken = torch.zeros_like(images)
    for one, (top, left) in zip(taken, torch.randint(0, 48, (len(images), 2), generator=generator), strict=True):
        one[:, top : top + 16, left : left + 16] = 1
    return taken, images * (1 - taken)


def test_captums_infidelity_tells_the_map_from_others():
    infidelity = pytest.importorskip("captum.metrics").infidelity
    net, images = Patch().eval(), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) + 0.5
    maps = HolisticCAM(net, [net.features], weighting="positive", **SIZES).attribute(images, target=0).expand_as(images)

    def measured(attributions, normalize):
        return infidelity(
            net, squares_taken_away, images, attributions, target=0, n_perturb_samples=50, normalize=normalize
        )

    assert (measured(maps, False) < measured(-maps, False)).all()
    # By its own best factor, also of maps elsewhere: at most a fifth of the error of nothing at all.
    assert (measured(maps, True) < 0.2 * measured(torch.zeros_like(maps), True)).all()
    assert (measured(maps, True) < 0.5 * measured(maps.flip(-1), True)).all()


def test_captums_sensitivity_is_the_change_of_the_unnormalised_map(images):
    sensitivity_max = pytest.importorskip("captum.metrics").sensitivity_max
    net = bias_free_net()
    cam = HolisticCAM(net, [net[3]], weighting="positive", **SIZES)

    def measured(perturbed, target):
        return sensitivity_max(cam.attribute, images, perturbed, n_perturb_samples=2, target=target)

    for target in (1, [1, 3], torch.tensor([1, 3]), [(1,), (3,)]):
        assert measured(lambda x: x, target).tolist() == [0, 0]
        # Twice the image is twice the map. Maps in [0, 1] would not change at all.
        torch.testing.assert_close(measured(lambda x: 2 * x, target), torch.ones(2), atol=1e-4, rtol=0)
    mirrored = measured(lambda x: x.flip(-1), [1, 3])
    own, other = cam.attribute(images, [1, 3]), cam.attribute(images.flip(-1), [1, 3])
    torch.testing.assert_close(mirrored, (own - other).flatten(1).norm(dim=1) / own.flatten(1).norm(dim=1))


def test_captum_draws_the_map(net, images):
    visualization = pytest.importorskip("captum.attr").visualization
    maps = HolisticCAM(net, [net.layer2], weighting="positive", **SIZES).attribute(images, target=1)
    attributions = maps[0].permute(1, 2, 0).numpy()
    figure, axis = visualization.visualize_image_attr(
        attributions, method="heat_map", sign="positive", outlier_perc=0, use_pyplot=False
    )
    shown = axis.images[0].get_array()
    np.testing.assert_allclose(shown, attributions[..., 0] / attributions.max(), atol=1e-6)
    figure.clear()


@pytest.mark.parametrize("target", [1, [1, 3], torch.tensor([1, 3]), None], ids=str)
def test_captums_noise_tunnel_is_the_mean_over_noisy_images(images, target):
    noise_tunnel = pytest.importorskip("captum.attr").NoiseTunnel
    net = bias_free_net()
    cam = HolisticCAM(net, [net[3]], weighting="positive", **SIZES)
    smooth = noise_tunnel(cam)
    torch.manual_seed(0)
    maps = smooth.attribute(images, nt_type="smoothgrad", nt_samples=3, stdevs=0.5, target=target)
    torch.manual_seed(0)
    noisy = images.repeat_interleave(3, dim=0) + torch.normal(0, torch.full((6, *images.shape[1:]), 0.5))
    each = target if target is None or isinstance(target, int) else [one for one in map(int, target) for _ in range(3)]
    expected = cam.attribute(noisy, each).view(2, 3, 1, 64, 64).mean(dim=1)
    torch.testing.assert_close(maps, expected, atol=1e-6, rtol=1e-4)
    assert not torch.allclose(maps, cam.attribute(images, target), rtol=1e-3)
    # captum takes an added axis for the convergence delta otherwise.
    assert not smooth.is_delta_supported
    assert smooth.forward_func is net


def test_captums_additional_arguments_are_refused(net, images):
    noise_tunnel = pytest.importorskip("captum.attr").NoiseTunnel
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    assert torch.equal(cam.attribute(images, 1, additional_forward_args=None), cam.attribute(images, 1))
    for attribute in (cam.attribute, noise_tunnel(cam).attribute):
        with pytest.raises(
            TypeError, match="additional_forward_args must be None: the model is called with the images"
        ):
            attribute(images, target=1, additional_forward_args=(torch.zeros(2, 4),))
    assert not net.layer2._forward_hooks
