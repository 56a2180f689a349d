"""Nothing of the model is changed: the promises about gradients, flags, modes and hooks."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from holistic_cam_plugin import HolisticCAM

SIZES = {"sizes": [64, 80, 96]}


class BrokenError(Exception):
    pass


class Breaks(nn.Module):
    """Raises in the middle of the pyramid."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > 22:  # stage 2 has 16, 20 and 24 columns at the three scales
            raise BrokenError
        return x


def in_call(net, images):
    HolisticCAM(net, [net.layer1, net.layer3], **SIZES)(images)


def in_eigen_and_augmented_call(net, images):
    HolisticCAM(net, [net.layer2], **SIZES)(images, aug_smooth=True, eigen_smooth=True)


def in_with_block(net, images):
    with HolisticCAM(net, [net.layer2], **SIZES) as cam:
        cam(images)


def in_construction(net, images):
    return HolisticCAM(net, [net.layer2])  # alive while the test looks


def in_deletion(net, images):
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    cam(images)
    cam.__enter__()
    del cam  # without __exit__
    gc.collect()


def in_exception(net, images):
    net.layer2.append(Breaks())
    cam = HolisticCAM(net, [net.layer1, net.layer3], **SIZES)
    with pytest.raises(BrokenError):
        cam(images)
    assert cam.activations_and_grads.activations == []
    del net.layer2[-1]


def in_exception_with_block(net, images):
    net.layer2.append(Breaks())
    with pytest.raises(BrokenError), HolisticCAM(net, [net.layer1], **SIZES) as cam:
        cam(images)
    del net.layer2[-1]


def in_failing_target(net, images):
    with pytest.raises(ZeroDivisionError):
        HolisticCAM(net, [net.layer1], **SIZES)(images, [lambda output: 1 / 0] * len(images))


USES = [
    in_call,
    in_eigen_and_augmented_call,
    in_with_block,
    in_construction,
    in_deletion,
    in_exception,
    in_exception_with_block,
    in_failing_target,
]


def hooks(net: nn.Module) -> list[object]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [list(getattr(module, kind).values()) for module in net.modules() for kind in kinds]


@pytest.mark.parametrize("use", USES)
def test_the_model_is_as_before(make_net, images, use):
    net = make_net("residual")
    net.layer2.conv1.weight.requires_grad_(False)
    net.layer3.train()
    net.head.train()
    own_hook = net.layer3.register_forward_hook(lambda *_: None)
    net(images)[:, 0].sum().backward()  # the user's own gradients
    net.layer2 = nn.Sequential(net.layer2)

    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}
    identities = {name: id(p.grad) for name, p in net.named_parameters()}
    requires_grad = {name: p.requires_grad for name, p in net.named_parameters()}
    training = {name: module.training for name, module in net.named_modules()}
    before = hooks(net)
    assert any(g is not None for g in gradients.values())

    kept = use(net, images)

    for name, parameter in net.named_parameters():
        assert id(parameter.grad) == identities[name]
        assert parameter.grad is None or torch.equal(parameter.grad, gradients[name])
    assert {name: p.requires_grad for name, p in net.named_parameters()} == requires_grad
    assert {name: module.training for name, module in net.named_modules()} == training
    assert hooks(net) == before
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    del kept
    own_hook.remove()


def test_the_model_runs_in_evaluation_mode_and_is_in_it_inside_with(make_net, images):
    net = make_net("residual").train()
    modes = []
    net.layer1.register_forward_hook(lambda module, *_: modes.append(module.training))
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    maps = cam(images)
    assert net.training
    with cam as entered:
        assert entered is cam
        assert not any(module.training for module in net.modules())
        assert np.array_equal(cam(images), maps)
        assert not net.training
    assert all(module.training for module in net.modules())
    assert set(modes) == {False}
    with cam:  # again
        assert not net.training
    assert net.training


def test_an_index_error_inside_with_propagates(net):
    with pytest.raises(IndexError, match="mine"), HolisticCAM(net, [net.layer2]):
        raise IndexError("mine")


def test_after_with_and_after_release_the_object_still_works(net, images):
    with HolisticCAM(net, [net.layer2], **SIZES) as cam:
        expected = cam(images)
    cam.activations_and_grads.release()
    assert np.array_equal(cam(images), expected)


def test_leaving_with_releases_what_was_recorded(net, images):
    with HolisticCAM(net, [net.layer2]) as cam:
        cam.activations_and_grads(images)
        assert len(cam.activations_and_grads.activations) == 1
    assert cam.activations_and_grads.activations == []


def test_nothing_is_printed(net, images, capfd):
    with HolisticCAM(net, [net.layer2], **SIZES) as cam:
        cam(images, None, True, True)
    with pytest.raises(IndexError), HolisticCAM(net, [net.layer2]):
        raise IndexError
    with pytest.raises(ValueError, match="empty"):
        HolisticCAM(net, [])
    assert capfd.readouterr() == ("", "")
