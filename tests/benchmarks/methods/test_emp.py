"""Meaningful perturbation: its first mask, its loss spelt out, and that its mask deletes the evidence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from benchmarks.methods.emp import EMP
from benchmarks.methods.igos import IGOS
from benchmarks.methods.perturbation import blur, perturb, total_variation
from tests.benchmarks.methods.textures import QuarterDetector, make_texture

TARGET = ClassifierOutputTarget(0)
METHODS = [(EMP, {"iterations": 60}, 10, 61), (IGOS, {}, 50, 51)]

both = pytest.mark.parametrize(("method", "options", "sigma", "ksize"), METHODS, ids=["EMP", "I-GOS"])


def probability(copies: torch.Tensor) -> np.ndarray:
    return QuarterDetector()(copies).softmax(dim=1)[:, 0].detach().numpy()


@both
class TestDeletesTheEvidence:
    def test_more_than_random_masks_of_the_same_area(self, method, options, sigma, ksize):
        image = make_texture()
        model = QuarterDetector()
        deleted = method(model, **options).compute_maps(image, [TARGET])[0]
        assert 0 <= float(deleted.min()) <= float(deleted.max()) <= 1
        baseline = blur(image, sigma, ksize)
        # Shuffled in blocks of 8 x 8 pixels.
        blocks = deleted.view(8, 8, 8, 8).permute(0, 2, 1, 3).reshape(64, 8, 8)
        generator = torch.Generator().manual_seed(0)
        shuffled = [blocks[torch.randperm(64, generator=generator)] for _ in range(20)]
        others = torch.stack([b.view(8, 8, 8, 8).permute(0, 2, 1, 3).reshape(64, 64) for b in shuffled])
        ours = probability(perturb(image, baseline, 1 - deleted[None]))[0]
        random = probability(perturb(image, baseline, 1 - others[:, None]))
        assert ours < probability(image)[0] / 2
        assert ours < random.min()

    def test_where_the_net_looks(self, method, options, sigma, ksize):
        saliency_map = method(QuarterDetector(), **options)(make_texture(), [TARGET])[0]
        assert saliency_map[:32, :32].sum() > 0.6 * saliency_map.sum()


class TestFirstMask:
    def test_is_the_smallest_centred_disc_that_suppresses_the_score(self):
        image, model = make_texture(), QuarterDetector()
        baseline = blur(image, 10, 61)
        (mask,) = EMP(model, mask_size=14)._first_mask(image, baseline, TARGET)[0]
        y, x = np.mgrid[:14, :14] - 6.5
        radius = np.sqrt((y**2 + x**2)[mask.numpy() == 0].max())
        np.testing.assert_array_equal(mask == 0, np.hypot(y, x) <= radius)
        assert 1 < radius < 9.2  # the net looks at the quarter's corner as well

    def test_of_a_score_that_only_the_middle_makes(self):
        def model(x):
            return torch.stack([(x - x.mean())[..., 30:34, 30:34].square().mean(dim=(1, 2, 3)) * 9, x[:, 0, 0, 0]], 1)

        class Middle(torch.nn.Module):
            def forward(self, x):
                return model(x)

        image = torch.zeros(1, 3, 64, 64)
        image[..., 31:33, 31:33] = 3
        (mask,) = EMP(Middle(), mask_size=16)._first_mask(image, torch.zeros_like(image), TARGET)[0]
        assert 0 < int((mask == 0).sum()) < 60


def test_first_step_of_adam_on_the_paper_s_loss():
    image, model = make_texture().double(), QuarterDetector()
    baseline = blur(image, 10, 61)
    method = EMP(model, iterations=1, mask_size=8, seed=5, score=lambda outputs: outputs.softmax(dim=1))
    down, across = torch.randint(4, (2,), generator=torch.Generator().manual_seed(5)).tolist()
    first = method._first_mask(image, baseline, TARGET)

    mask = first.double().requires_grad_()
    large = blur(F.interpolate(mask, (64, 64), mode="bilinear", align_corners=False), 5, 31)
    image, baseline = (
        torch.tensor(np.pad(x[0], ((0, 0), (2, 2), (2, 2)), mode="edge"))[:, down : down + 64, across : across + 64]
        for x in (image, baseline)
    )
    score = model(image * large + baseline * (1 - large)).softmax(dim=1)[0, 0]
    variation = mask.diff(dim=2).abs().pow(3).sum() + mask.diff(dim=3).abs().pow(3).sum()
    (score + 1e-4 * (1 - mask).sum() + 1e-2 * variation).backward()

    assert len(mask.grad.sign().unique()) >= 2
    expected = (mask - 0.1 * mask.grad / (mask.grad.abs() + 1e-8)).clamp(0, 1).detach()
    result = method.compute_maps(make_texture().double(), [TARGET])[0]
    large = F.interpolate(1 - expected, (64, 64), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(result.double(), large, atol=1e-3, rtol=0)


class TestParts:
    def test_total_variation(self):
        mask = torch.rand(1, 1, 5, 4, generator=torch.Generator().manual_seed(0))
        m = mask[0, 0].numpy()
        down = [[abs(m[y + 1, x] - m[y, x]) ** 3 for x in range(4)] for y in range(4)]
        across = [[abs(m[y, x + 1] - m[y, x]) ** 3 for x in range(3)] for y in range(5)]
        for result, expected in zip(total_variation(mask, 3), (down, across), strict=True):
            np.testing.assert_allclose(result[0, 0], expected, rtol=1e-5)

    def test_blur_follows_the_image_s_size(self):
        image = torch.rand(1, 1, 112, 150, generator=torch.Generator().manual_seed(0))
        expected = gaussian_filter(image[0, 0].numpy(), 5, mode="mirror", radius=15)
        np.testing.assert_allclose(blur(image, 10, 61)[0, 0], expected, atol=1e-5)

    def test_perturbed(self):
        image, baseline, masks = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), torch.rand(5, 1, 4, 4)
        torch.testing.assert_close(perturb(image, baseline, masks), image * masks + baseline * (1 - masks))


@pytest.mark.parametrize("option", ["iterations", "mask_size"])
def test_refused(net, option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1"):
        EMP(net, **{option: 0})
