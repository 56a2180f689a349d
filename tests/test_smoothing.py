"""pytorch-grad-cam's two smoothing options: test-time augmentation and the first principal component."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import ttach
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from holistic_cam_plugin import HolisticCAM

SIZES = {"sizes": [64, 80, 96]}
TARGETS = [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]


class Sided(nn.Module):
    """Class 0 is evidence on the left, class 1 on the right: a mirrored image changes the prediction."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d((1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.features(x)).sum(dim=(1, 2)) * 10


def test_aug_smooth_explains_the_class_of_the_untouched_image(images):
    model = Sided().eval()
    predicted = model(images).argmax(dim=1)
    assert not torch.equal(model(images.flip(-1)).argmax(dim=1), predicted)
    cam = HolisticCAM(model, [model.features], **SIZES)
    maps = cam(images, None, aug_smooth=True)
    targets = [ClassifierOutputTarget(category) for category in predicted.tolist()]
    assert np.array_equal(maps, cam(images, targets, aug_smooth=True))
    torch.testing.assert_close(cam.outputs, model(images).detach())
    # Resolved anew, the mirrored images would explain the other class, on the very same side.
    anew = [cam(images), cam(images.flip(-1))[..., ::-1]]
    assert np.abs(maps - np.mean(anew, axis=0)).max() > 0.2


def test_aug_smooth_is_the_mean_over_the_librarys_augmentations(net, images, seen):
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    singles = []
    for flip in (False, True):
        for factor in (0.9, 1, 1.1):
            maps = cam((images.flip(-1) if flip else images) * factor, TARGETS)
            singles.append(maps[..., ::-1] if flip else maps)
    shapes = seen(net)
    maps = cam(images, TARGETS, aug_smooth=True)
    np.testing.assert_allclose(maps, np.mean(singles, axis=0), atol=1e-5)
    assert {shape[-1] for shape in shapes} == {64, 80, 96}
    assert maps.dtype == np.float32
    assert maps.flags.c_contiguous
    own = HolisticCAM(net, [net.layer2], tta_transforms=ttach.Compose([ttach.Multiply([1])]), **SIZES)
    np.testing.assert_allclose(own(images, TARGETS, True), own(images, TARGETS), atol=1e-7)


def test_the_principal_map_replaces_the_sum_and_keeps_the_wrap(net, images):
    plain, eigen = (
        HolisticCAM(net, [net.layer2], fsd=fsd, **SIZES)(images, TARGETS, eigen_smooth=True) for fsd in (False, True)
    )
    assert not np.array_equal(plain, eigen)
    assert plain.max() == eigen.max() == 1
    assert (eigen[plain == 0] == 0).all()


@pytest.mark.parametrize("batch_size", [1, 2])
def test_no_pass_holds_more_images_than_a_batch(net, make_images, batch_size):
    held = []
    handle = net.register_forward_hook(lambda _, inputs, __: held.append(len(inputs[0])))
    HolisticCAM(net, [net.layer2], sizes=[64, 80], batch_size=batch_size)(make_images(3), aug_smooth=True)
    handle.remove()
    assert max(held) == batch_size
