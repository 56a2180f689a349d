r"""Deletion, insertion and their difference: the class's probability as pixels are removed or inserted by relevance.

$$\mathrm{Del} = \int_0^1 p\big(x \text{ without its share } s \text{ of most relevant pixels}\big)\, ds, \qquad
\mathrm{Ins} = \int_0^1 p\big(\text{blurred } x \text{ with that share of } x\big)\, ds$$

where $p$ is the softmax probability of the class; $\text{Over-all} = \mathrm{Ins} - \mathrm{Del}$. Integrals follow the
trapezoidal rule.

Paper: Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018. The
baselines (0 of the normalised image; a blurred copy) and the step (224 x 8 pixels) are those of the Holistic-CAM paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from holistic_cam_plugin.checks import check_positive_integer
from holistic_cam_plugin.metrics.inputs import check_inputs
from holistic_cam_plugin.metrics.order import rank_pixels
from holistic_cam_plugin.metrics.scoring import Score, class_probability, score_copies
from holistic_cam_plugin.passes.targets import Target

__all__ = ["Curve", "Deletion", "FidelityCurves", "Insertion", "OverAll", "blur"]

# The paper's step is 8 rows of a 224 x 224 image, 1/28 of its pixels.
STEPS = 28
BLUR_KERNEL = 11
BLUR_SIGMA = 5.0


class Curve(NamedTuple):
    """Scores over the share of the pixels that are removed or inserted.

    Attributes:
        shares: `(S,)`, ascending from 0 to 1.
        scores: `(B, S)`.

    Example:
        >>> Curve(shares=np.array([0.0, 0.5, 1.0]), scores=np.array([[0.8, 0.4, 0.0]])).area()
        array([0.4])
    """

    shares: NDArray[np.float64]
    scores: NDArray[np.float64]

    def area(self) -> NDArray[np.float64]:
        """Area under each image's curve by the trapezoidal rule, `(B,)`; in [0, 1] for probabilities."""
        return np.asarray(trapezoid(self.scores, self.shares, axis=1), dtype=np.float64)


class FidelityCurves(NamedTuple):
    """Insertion and deletion curve of the same maps.

    Example:
        >>> curve = Curve(shares=np.array([0.0, 1.0]), scores=np.array([[0.5, 1.0]]))
        >>> FidelityCurves(insertion=curve, deletion=curve).area()
        array([0.])
    """

    insertion: Curve
    deletion: Curve

    def area(self) -> NDArray[np.float64]:
        """Over-all, `(B,)`: the area under the insertion curve minus the area under the deletion curve."""
        return self.insertion.area() - self.deletion.area()


def blur(images: Tensor) -> Tensor:
    """Blur images with a Gaussian of kernel size 11 and sigma 5 pixels, the paper's baseline of insertion.

    Args:
        images: `(B, C, H, W)`, at least 6 pixels per side; the borders are reflected.

    Raises:
        ValueError: the images are smaller.

    Example:
        >>> blur(torch.ones(1, 3, 8, 8)).shape
        torch.Size([1, 3, 8, 8])
    """
    if min(images.shape[-2:]) <= BLUR_KERNEL // 2:
        raise ValueError(
            f"images of {images.shape[-2]}x{images.shape[-1]} px are smaller than half of the blur's kernel of "
            f"{BLUR_KERNEL} px: pass baseline=, a function of the images"
        )
    result: Tensor = gaussian_blur(images, [BLUR_KERNEL, BLUR_KERNEL], [BLUR_SIGMA, BLUR_SIGMA])
    return result


class _PixelCurve:
    """Base class of deletion and insertion: copies of an image whose most relevant pixels come from another image."""

    _inserts: bool
    _default_baseline: Callable[[Tensor], Tensor]

    def __init__(
        self,
        *,
        step: int | None = None,
        batch_size: int = 32,
        score: Score = class_probability,
        baseline: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if step is not None:
            check_positive_integer("step", step)
        check_positive_integer("batch_size", batch_size)
        self.step = step
        self.batch_size = batch_size
        self.score = score
        self.baseline = baseline or self._default_baseline

    def __call__(
        self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
    ) -> NDArray[np.float64]:
        """Compute the area under each image's curve, `(B,)`; see `curves`."""
        return self.curves(input_tensor, cams, targets, model).area()

    def curves(self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module) -> Curve:
        """Compute the curve of each image.

        Args:
            input_tensor: preprocessed images, `(B, C, H, W)`, floating point, on any device.
            cams: maps, `(B, H, W)`; only the order of the pixels matters, and ties are broken row by row.
            targets: one callable per image, applied to its row of `score(outputs)`.
            model: maps images to a tensor with one row per image; left unchanged.

        Raises:
            TypeError, ValueError: the arguments do not fit together, or the images or maps are not finite.
        """
        images, maps = check_inputs(input_tensor, cams, targets, model)
        return self._curve(images, self._make_baselines(images), rank_pixels(maps), targets, model)

    def _curve(
        self,
        images: Tensor,
        baselines: Tensor,
        ranks: NDArray[np.int32],
        targets: Sequence[Target],
        model: nn.Module,
        last: NDArray[np.float64] | None = None,
    ) -> Curve:
        """Compute the curve; `last` is the score at its end, `(B,)`, if it is known."""
        pixels = ranks[0].size
        step = -(-pixels // STEPS) if self.step is None else self.step
        counts = [*range(0, pixels, step), pixels]
        first, rest = (images, baselines) if self._inserts else (baselines, images)
        copies = (
            (target, torch.where(rank < count, top, bottom))
            for top, bottom, rank, target in zip(
                first, rest, torch.from_numpy(ranks).to(images.device), targets, strict=True
            )
            for count in (counts if last is None else counts[:-1])
        )
        scores = score_copies(model, copies, self.score, self.batch_size).reshape(len(images), -1)
        if last is not None:
            scores = np.column_stack([scores, last])
        return Curve(np.array(counts, dtype=np.float64) / pixels, scores)

    def _make_baselines(self, images: Tensor) -> Tensor:
        baselines = self.baseline(images)
        if (given := tuple(baselines.shape)) != (expected := tuple(images.shape)):
            raise ValueError(f"the baseline must have the images' shape {expected}, got {given}")
        return baselines


class Deletion(_PixelCurve):
    """Deletion: the most relevant pixels are removed first; lower is better.

    Args:
        step: pixels per step. None: 1/28 of them, rounded up; this is 224 * 8 for a 224 x 224 image. The curve always
            contains the original image and the image without any pixel, so the last step may be shorter.
        batch_size: perturbed copies per forward pass.
        score: maps the outputs to the scores that the targets select from; by default softmax probabilities.
        baseline: maps the images to the values of removed pixels. None: 0 of the normalised image.

    Raises:
        TypeError, ValueError: `step` or `batch_size` is not a positive integer.

    Example:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> images, cams = torch.rand(2, 3, 16, 16), np.random.rand(2, 16, 16)
        >>> Deletion()(images, cams, [lambda output: output[0]] * 2, model).shape
        (2,)
    """

    _inserts = False
    _default_baseline = staticmethod(torch.zeros_like)


class Insertion(_PixelCurve):
    """Insertion: the most relevant pixels are inserted into a blurred copy first; higher is better.

    Args:
        step, batch_size, score: as in `Deletion`.
        baseline: maps the images to the copies that pixels are inserted into. None: `blur`.

    Example:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> images, cams = torch.rand(2, 3, 16, 16), np.random.rand(2, 16, 16)
        >>> Insertion(step=64).curves(images, cams, [lambda output: output[0]] * 2, model).shares
        array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """

    _inserts = True
    _default_baseline = staticmethod(blur)


class OverAll:
    """Over-all: insertion minus deletion; higher is better. The pixels are ranked once for both.

    Args:
        step, batch_size, score: as in `Deletion`.

    Example:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> images, cams = torch.rand(2, 3, 16, 16), np.random.rand(2, 16, 16)
        >>> OverAll()(images, cams, [lambda output: output[0]] * 2, model).shape
        (2,)
    """

    def __init__(self, *, step: int | None = None, batch_size: int = 32, score: Score = class_probability) -> None:
        self.insertion = Insertion(step=step, batch_size=batch_size, score=score)
        self.deletion = Deletion(step=step, batch_size=batch_size, score=score)

    def __call__(
        self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
    ) -> NDArray[np.float64]:
        """Compute insertion minus deletion of each image, `(B,)`; see `Deletion.curves`."""
        return self.curves(input_tensor, cams, targets, model).area()

    def curves(self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module) -> FidelityCurves:
        """Compute both curves of each image; see `Deletion.curves`."""
        images, maps = check_inputs(input_tensor, cams, targets, model)
        ranks = rank_pixels(maps)
        blurred, zeros = self.insertion._make_baselines(images), self.deletion._make_baselines(images)
        deletion = self.deletion._curve(images, zeros, ranks, targets, model)
        # Insertion ends with the original image, where deletion starts.
        insertion = self.insertion._curve(images, blurred, ranks, targets, model, last=deletion.scores[:, 0])
        return FidelityCurves(insertion, deletion)
