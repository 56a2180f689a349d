"""The mask layer is found: in models of all families the same as `explainable`'s deepest layer."""

from __future__ import annotations

import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchvision import models

from holistic_cam_plugin import ClassHolisticCAM, explainable
from holistic_cam_plugin.models.mask_layer import find_mask_layer
from holistic_cam_plugin.passes.capture import Capture
from tests.models.test_explainable import FAMILIES, build_model, square


def record(model, layer, image, reshape):
    capture = Capture(model, [layer], reshape)
    with torch.enable_grad():
        capture(image)
    (maps,) = capture.activations
    return maps


@pytest.mark.parametrize("family", FAMILIES)
def test_it_gives_the_maps_of_the_deepest_layer(family):
    build, side, _, _ = FAMILIES[family]
    found = explainable(build_model(build), size=square(side))
    image = torch.randn(1, 3, *found.size)
    layer = find_mask_layer(found.model.eval(), image, None, found.reshape_transform)
    maps, expected = (record(found.model, m, image, found.reshape_transform) for m in (layer, found.target_layers[-1]))
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (models.squeezenet1_1, "features"),  # not the scores after it, which have positions, too
        (models.alexnet, "features"),  # not the adaptive pooling
        (models.vgg11, "features"),
        (models.densenet121, "features"),
        (models.mobilenet_v3_small, "features"),
        (models.shufflenet_v2_x0_5, "conv5"),
        (models.googlenet, "inception5b"),
    ],
)
def test_networks_of_torchvision(build, name):
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": False} if build is models.googlenet else {}
    model = build(weights=None, num_classes=10, **options).eval()
    layer = find_mask_layer(model, torch.randn(1, 3, 96, 96))
    assert layer is model.get_submodule(name)


def test_the_target_decides_what_counts():
    """A layer that the score does not depend on is passed over."""

    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.first, self.second = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x):
            x = self.trunk(x)
            return torch.cat([self.first(x).mean(dim=(2, 3)), self.second(x).mean(dim=(2, 3))], dim=1)

    model = TwoHeads().eval()
    image = torch.randn(1, 3, 16, 16)
    assert find_mask_layer(model, image, [ClassifierOutputTarget(4)]) is model.second
    assert find_mask_layer(model, image, [ClassifierOutputTarget(1)]) is model.first


def test_a_stage_as_wide_as_the_classes_is_no_score():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(5, 5),
    ).eval()  # fmt: skip
    assert find_mask_layer(model, torch.randn(1, 3, 32, 32)) is model[3]


def test_layers_that_run_twice_are_left_out():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.twice = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return self.twice(self.twice(self.stem(x))).mean(dim=(2, 3))

    model = Shared().eval()
    assert find_mask_layer(model, torch.randn(1, 3, 32, 32), [ClassifierOutputTarget(0)]) is model.stem


def test_images_that_are_no_squares():
    model = models.resnet18(weights=None, num_classes=4).eval()
    assert find_mask_layer(model, torch.randn(1, 3, 64, 160)) is model.layer4


def test_nothing_has_positions():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    assert find_mask_layer(model, torch.randn(1, 3, 8, 8)) is None


def test_by_hand_as_gradcam_was_used():
    """A transformer with pytorch-grad-cam's kind of reshape transform."""
    model = models.VisionTransformer(64, 16, 3, 2, 24, 48, num_classes=5).eval()
    nn.init.normal_(model.heads[0].weight)

    def reshape(tokens):
        return tokens[:, 1:].reshape(len(tokens), 4, 4, -1).permute(0, 3, 1, 2)

    layer = model.encoder.layers[0].ln_1
    cam = ClassHolisticCAM(model, [layer], reshape, tiles=True, sizes=[64, 96])
    maps = cam(torch.randn(1, 3, 64, 64), [ClassifierOutputTarget(2)])
    given = ClassHolisticCAM(
        model, [layer], reshape, tiles=True, sizes=[64, 96], mask_layer=model.encoder.layers[2].ln_1
    )
    assert maps.shape == (1, 64, 64)
    assert cam._deepest is given.mask_layer


class Net(nn.Module):
    """Two stages, global pooling and a linear head; what is between them is a test's."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(8, 5)

    def between(self, x):
        return x

    def forward(self, x):
        return self.head(self.between(self.features(x)).mean(dim=(2, 3)))


def find(model, images=None, **options):
    return find_mask_layer(model.eval(), torch.randn(1, 3, 32, 32) if images is None else images, **options)


def test_images_that_a_model_changes_in_place_are_copied():
    class InPlace(Net):
        def forward(self, x):
            return super().forward(x.sub_(0.5))

    images = torch.rand(2, 3, 32, 32)
    before = images.clone()
    model = InPlace()
    assert find(model, images) is model.features
    assert torch.equal(images, before)


def test_a_model_that_keeps_tensors_can_be_trained_afterwards():
    class Keeping(Net):
        kept = None

        def between(self, x):
            if self.kept is None:
                self.kept = torch.full((1, 8, 1, 1), 2.0)
            return x * self.kept

    model = Keeping()
    assert find(model) is model.features
    model.train()(torch.randn(2, 3, 32, 32)).sum().backward()


def test_rows_that_are_no_images_are_left_out():
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.crops = nn.Conv2d(3, 3, 1), Net()

        def forward(self, x):
            x = self.stem(x)
            return self.crops(torch.cat(x.split(16, dim=3))).unflatten(0, (2, -1)).sum(dim=0)

    model = Folded().eval()
    assert find(model) is model.stem
    with pytest.raises(ValueError, match=r"mask layer 'crops.features' \(Sequential\) returns 2 rows for 1 images"):
        ClassHolisticCAM(model, [model.stem], mask_layer=model.crops.features, num_scales=1)(torch.rand(2, 3, 32, 32))


@pytest.mark.parametrize("classes", [512, None])
def test_pooled_features_are_no_scores(classes):
    model = models.resnet18(weights=None, num_classes=classes or 10)
    if classes is None:
        model.fc = nn.Identity()
    like = torch.randn(512)
    assert find(model, torch.randn(1, 3, 64, 64), targets=[lambda output: output @ like[: len(output)]]) is model.layer4


def test_strides_of_their_own():
    """Text lines: the rows are pooled faster than the columns."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=(2, 1), padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=(2, 1), padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    assert find(model, torch.randn(1, 3, 32, 100)) is model[3]


def test_attention_and_gates_are_no_maps():
    class Attending(Net):
        def __init__(self):
            super().__init__()
            self.softmax, self.gate = nn.Softmax(dim=-1), nn.Sequential(nn.Conv2d(8, 1, 1), nn.Hardtanh(0, 1))

        def between(self, x):
            x = x * self.gate(x)
            tokens = x.flatten(2)
            weights = self.softmax(tokens.transpose(1, 2) @ tokens)  # (B, N, N)
            return (tokens @ self.softmax(weights[:, None] * 2)[:, 0].transpose(1, 2)).view_as(x)

    model = Attending()
    assert find(model) is model.features


def test_masks_of_booleans_are_no_maps():
    class Thresholding(Net):
        def __init__(self):
            super().__init__()
            self.threshold = Threshold()

        def between(self, x):
            return x * self.threshold(x)

    class Threshold(nn.Module):
        def forward(self, x):
            return x > 0.1

    model = Thresholding()
    assert find(model) is model.features


def test_scripted_parts_and_targets_that_view():
    class Scripted(Net):
        def __init__(self):
            super().__init__()
            self.script = torch.jit.script(nn.ReLU())

        def between(self, x):
            return self.script(x)

    model = Scripted()
    assert find(model, targets=[lambda output: output.view(-1)[1]]) is model.features


def test_a_model_whose_last_maps_are_those_of_the_stem():
    """Tokens without a reshape transform: nothing else has positions."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 4, stride=4)
            self.blocks = nn.Sequential(*[nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)) for _ in range(4)])
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(dim=1))

    assert find(Tokens()) is None
