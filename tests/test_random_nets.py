"""What holds for every net: any layers, signs, dtypes, shapes, targets, and after an error."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin import HolisticCAM
from tests.random_nets import CLASSES, assert_sound, count, nets, options, sizes, targets, tried

many = tried(40)

pytestmark = [
    pytest.mark.filterwarnings("ignore:a saliency map is constant"),
    pytest.mark.filterwarnings("ignore:the mask is zero everywhere"),
    pytest.mark.filterwarnings("ignore:the model gives NaN or infinite"),
]


@many
@given(st.data())
def test_maps_of_random_nets_are_sound(data):
    drawn, (height, width), keywords = data.draw(nets()), data.draw(sizes), data.draw(options)
    batch = data.draw(st.integers(1, 3))
    chosen, net = data.draw(targets(batch)), drawn.net()
    images = drawn.images(batch, height, width)
    before = images.clone()
    layers = data.draw(st.lists(st.sampled_from(list(net.stages)), min_size=1, max_size=2))
    cam = HolisticCAM(net, layers, batch_size=data.draw(st.integers(1, 3)), **keywords)
    maps = cam(images, chosen, eigen_smooth=data.draw(st.booleans()))
    assert_sound(maps, (count(chosen, batch), height, width))
    for one in maps:
        assert (one.min(), one.max()) in ((0, 1), (0, 0))
    assert torch.equal(images, before)


@many
@given(st.data())
def test_random_nets_give_the_same_maps_again(data):
    """Bit by bit: with an object, with another one, and after calls with other images and targets."""
    drawn, (height, width), keywords = data.draw(nets()), data.draw(sizes), data.draw(options)
    chosen, net, images = data.draw(targets(2)), drawn.net(), drawn.images(2, height, width)
    cam = HolisticCAM(net, [net.stages[-1]], **keywords)
    first = cam(images, chosen)
    cam(drawn.images(1, width, height) * 0.5, [ClassifierOutputTarget(0)])
    torch.manual_seed(height)
    assert np.array_equal(cam(images, chosen), first)
    assert np.array_equal(HolisticCAM(net, [net.stages[-1]], **keywords)(images, chosen), first)


@many
@given(st.data())
def test_random_images_alone_and_in_a_batch(data):
    """With `batch_size=1` every image goes alone: bit by bit. Several in a pass: to rounding, before the map is scaled.

    Convolutions of several images may add in another order. Scaled to [0, 1], a map that is next to constant would be
    nothing but this rounding.
    """
    drawn, (height, width), keywords = data.draw(nets(("float32", "float64"))), data.draw(sizes), data.draw(options)
    net, images = drawn.net(), drawn.images(3, height, width)
    chosen = [ClassifierOutputTarget(n) for n in range(3)]
    one, many_at_once = (HolisticCAM(net, [net.stages[-1]], batch_size=size, **keywords) for size in (1, 3))
    alone = [one(images[n : n + 1], chosen[n : n + 1])[0] for n in range(3)]
    assert np.array_equal(one(images, chosen), alone)
    (steps,), (singles,) = (cam.intermediates(images, chosen) for cam in (many_at_once, one))
    for step, single in zip(steps, singles, strict=True):
        largest = max(
            float(a.abs().max() * w.abs().max()) for a, w in zip(single.activations, single.weights, strict=True)
        )
        rounding = 1e-4 * largest * len(single.activations[0])
        np.testing.assert_allclose(step.fused, single.fused, rtol=0, atol=rounding)


@many
@given(st.data())
def test_several_targets_are_each_target_alone(data):
    """Bit by bit: they share the passes, and nothing else."""
    drawn, (height, width), keywords = data.draw(nets()), data.draw(sizes), data.draw(options)
    net, image = drawn.net(), drawn.images(1, height, width)
    chosen = [
        ClassifierOutputTarget(n) for n in data.draw(st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=3))
    ]
    cam = HolisticCAM(net, [net.stages[0]], **keywords)
    assert np.array_equal(cam(image, [chosen]), np.concatenate([cam(image, [target]) for target in chosen]))
    assert np.array_equal(cam(image), cam(image, [ClassifierOutputTarget(int(net(image.clone()).argmax()))]))


@many
@given(st.data())
def test_a_power_of_two_of_the_logits_changes_nothing(data):
    """Bit by bit, with the positive gradients as they are: what does not depend on the scale of the logits."""
    drawn, (height, width) = data.draw(nets(("float32", "float64"))), data.draw(sizes)
    net, images = drawn.net(), drawn.images(2, height, width)
    cam = HolisticCAM(net, [net.stages[-1]], weighting="positive", sizes=[16, 33], fsd=data.draw(st.booleans()))
    chosen = [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]
    first = cam(images, chosen)
    with torch.no_grad():
        net.head.weight.mul_(2.0 ** data.draw(st.integers(-30, 30)))
    assert np.array_equal(cam(images, chosen), first)


@many
@given(st.data())
def test_a_model_that_works_on_its_own_input_in_place(data):
    drawn, (height, width), keywords = data.draw(nets()), data.draw(sizes), data.draw(options)
    careless, careful = drawn.net(inplace=True), drawn.net(inplace=False)
    images, chosen = drawn.images(2, height, width), data.draw(targets(2))
    if data.draw(st.booleans()):
        images = images.contiguous(memory_format=torch.channels_last)
    before = images.clone()
    maps = [HolisticCAM(net, [net.stages[-1]], **keywords)(images, chosen) for net in (careful, careless)]
    assert torch.equal(images, before)
    assert np.array_equal(*maps)


ERRORS = [RuntimeError, ValueError, AssertionError, TypeError, KeyError, IndexError, MemoryError, KeyboardInterrupt]


@many
@given(st.data())
def test_nothing_is_left_of_an_error(data):
    """An error in a target, the model or the loop over the scales comes out; then all is as if it had not been."""
    drawn, (height, width), keywords = data.draw(nets()), data.draw(sizes), data.draw(options)
    where, at = data.draw(st.sampled_from(["target", "model", "layer", "progress"])), data.draw(st.integers(0, 3))
    error = data.draw(st.sampled_from(ERRORS))("hostile")
    net, images = drawn.net(), drawn.images(2, height, width)
    marked(net, data.draw(st.integers(0, 7)))
    before = state(net)
    failing = Failing(error, at)
    plain = [ClassifierOutputTarget(1), ClassifierOutputTarget(0)]
    first = HolisticCAM(net, [net.stages[-1]], **keywords)(images, plain)
    cam = HolisticCAM(net, [net.stages[-1]], progress=failing.progress, **keywords)
    if data.draw(st.booleans()):
        cam(images, plain)
    calls = {"model": net, "layer": net.stages[0]}
    handle = calls.get(where, nn.Identity()).register_forward_pre_hook(failing.hook)
    failing.armed = where
    with torch.inference_mode(data.draw(st.booleans())):
        try:
            cam(images, [failing.target(target) for target in plain] if where == "target" else plain)
        except BaseException as raised:
            chain = [raised, raised.__cause__]
            assert error in chain
            came = True
        else:
            came = False
    handle.remove()
    failing.armed = ""
    assert came == failing.failed, "an error was lost"
    assert state(net) == before
    assert torch.is_grad_enabled()
    assert np.array_equal(cam(images, plain), first)


class Failing:
    """Raises an error from its n-th call on."""

    def __init__(self, error: BaseException, at: int) -> None:
        self.error, self.left, self.armed, self.failed = error, at, "", False

    def call(self, where: str) -> None:
        if self.armed == where:
            self.left -= 1
            if self.left < 0:
                self.failed = True
                raise self.error

    def hook(self, *_: object) -> None:
        self.call(self.armed)

    def target(self, target):
        def scored(output):
            self.call("target")
            return target(output)

        return scored

    def progress(self, scales) -> Iterator[object]:
        for scale in scales:
            self.call("progress")
            yield scale


def marked(net: nn.Module, bits: int) -> None:
    """Gradients, flags and modes as a user may have left them."""
    parameters = list(net.parameters())
    if bits & 1:
        parameters[0].requires_grad_(False)
    if bits & 2:
        parameters[-1].grad = torch.full_like(parameters[-1], 0.5)
    if bits & 4:
        net.stages[0].train()


def state(net: nn.Module) -> list[object]:
    """What of a model must be as before."""
    parts: list[object] = []
    for name, parameter in net.named_parameters():
        grad = None if parameter.grad is None else (id(parameter.grad), parameter.grad.tolist())
        parts.append((name, parameter.requires_grad, grad, parameter.tolist()))
    parts += [(name, buffer.tolist()) for name, buffer in net.named_buffers()]
    for name, module in net.named_modules():
        hooks = [len(getattr(module, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
        parts.append((name, module.training, hooks, module.forward.__func__))
    return parts
