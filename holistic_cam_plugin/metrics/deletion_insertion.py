r"""Deletion, insertion and their difference: does the class's probability follow the map's order of the pixels?

$$\mathrm{Del} = \int_0^1 p\big(x \text{ without its share } s \text{ of most relevant pixels}\big)\, ds, \qquad
\mathrm{Ins} = \int_0^1 p\big(\text{blurred } x \text{ with that share of } x\big)\, ds$$

by the trapezoidal rule, $p$ the class's softmax probability; $\text{Over-all} = \mathrm{Ins} - \mathrm{Del}$.

Paper: Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018. The baselines
(0 of the normalised image; a blurred copy) and the step (224 x 8 pixels) are those of the Holistic-CAM paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from holistic_cam_plugin.method.pyramid import check_positive_integer
from holistic_cam_plugin.metrics.order import relevance_ranks
from holistic_cam_plugin.metrics.scoring import Score, check_inputs, class_probability, score_copies
from holistic_cam_plugin.passes.targets import Target

__all__ = ["Curve", "Deletion", "FidelityCurves", "Insertion", "OverAll", "blurred"]

# 8 rows of 224 pixels a step, the paper's 3.6 % of a 224 x 224 image: 28 steps, whatever the image's size.
STEPS = 28
BLUR_KERNEL = 11
BLUR_SIGMA = 5.0


class Curve(NamedTuple):
    """A score against the share of the pixels that are removed or inserted.

    Attributes:
        shares: `(S,)`, ascending, the first one 0 and the last one 1.
        scores: `(B, S)`.
    """

    shares: NDArray[np.float64]
    scores: NDArray[np.float64]

    def area(self) -> NDArray[np.float64]:
        """Area under each image's curve by the trapezoidal rule, `(B,)`; in [0, 1] for probabilities."""
        return np.asarray(trapezoid(self.scores, self.shares, axis=1), dtype=np.float64)


class FidelityCurves(NamedTuple):
    """Both curves of the same maps."""

    insertion: Curve
    deletion: Curve

    def area(self) -> NDArray[np.float64]:
        """Over-all, `(B,)`: the area under the insertion curve minus that under the deletion curve."""
        return self.insertion.area() - self.deletion.area()


def blurred(images: Tensor) -> Tensor:
    """The paper's baseline of the insertion: Gaussian blur, kernel 11, sigma 5 (pixels), borders reflected.

    Raises:
        ValueError: images of less than 6 pixels a side, which have nothing to reflect.
    """
    if min(images.shape[-2:]) <= BLUR_KERNEL // 2:
        raise ValueError(
            f"images of {images.shape[-2]}x{images.shape[-1]} px are smaller than the blur's window of {BLUR_KERNEL} "
            "px: pass a baseline of your own"
        )
    result: Tensor = gaussian_blur(images, [BLUR_KERNEL, BLUR_KERNEL], [BLUR_SIGMA, BLUR_SIGMA])
    return result


class _PixelCurve:
    """A curve over copies of which the map's first pixels come from one image and the rest from another."""

    _inserts: bool

    def __init__(
        self, *, step: int | None, batch_size: int, score: Score, baseline: Callable[[Tensor], Tensor]
    ) -> None:
        if step is not None:
            check_positive_integer("step", step)
        check_positive_integer("batch_size", batch_size)
        self.step = step
        self.batch_size = batch_size
        self.score = score
        self.baseline = baseline

    def __call__(
        self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
    ) -> NDArray[np.float64]:
        """The area under each image's curve, `(B,)`; arguments and errors as in `curves`."""
        return self.curves(input_tensor, cams, targets, model).area()

    def curves(self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module) -> Curve:
        """The curve of each image.

        Args:
            input_tensor: preprocessed images, `(B, C, H, W)`, floating point, on any device.
            cams: their maps, `(B, H, W)`, in any unit: only the order of the pixels counts. Equal pixels follow row by
                row.
            targets: one callable an image, applied to its row of `score(outputs)`.
            model: maps images to a tensor with a row an image; it is as before afterwards.

        Raises:
            TypeError, ValueError: inputs that do not belong together, maps that are not finite.
        """
        images, maps = check_inputs(input_tensor, cams, targets, model)
        return self._curve(images, self._baselines(images), relevance_ranks(maps), targets, model)

    def _curve(
        self,
        images: Tensor,
        baselines: Tensor,
        ranks: NDArray[np.int32],
        targets: Sequence[Target],
        model: nn.Module,
        last: NDArray[np.float64] | None = None,
    ) -> Curve:
        """The curve; `last`, where it is known, is the score at its end, `(B,)`."""
        pixels = ranks[0].size
        step = -(-pixels // STEPS) if self.step is None else self.step
        counts = [*range(0, pixels, step), pixels]
        copies = self._copies(images, baselines, ranks, counts if last is None else counts[:-1], targets)
        scores = score_copies(model, copies, self.score, self.batch_size).reshape(len(images), -1)
        if last is not None:
            scores = np.column_stack([scores, last])
        return Curve(np.array(counts, dtype=np.float64) / pixels, scores)

    def _baselines(self, images: Tensor) -> Tensor:
        baselines = self.baseline(images)
        if baselines.shape != images.shape:
            raise ValueError(
                f"the baseline must have the images' shape {tuple(images.shape)}, got {tuple(baselines.shape)}"
            )
        return baselines

    def _copies(
        self,
        images: Tensor,
        baselines: Tensor,
        ranks: NDArray[np.int32],
        counts: Sequence[int],
        targets: Sequence[Target],
    ) -> Iterator[tuple[Target, Tensor]]:
        places = torch.from_numpy(ranks).to(images.device)
        for image, baseline, place, target in zip(images, baselines, places, targets, strict=True):
            first, rest = (image, baseline) if self._inserts else (baseline, image)
            for count in counts:
                yield target, torch.where(place < count, first, rest)


class Deletion(_PixelCurve):
    """Deletion: the most relevant pixels are removed first; lower is better.

    Args:
        step: pixels removed at a time. None: 1/28 of them (rounded up), 224 * 8 pixels of a 224 x 224 image. The
            untouched image and the one without any pixel are always part of the curve; the last step may be shorter.
        batch_size: perturbed copies that go through the model together.
        score: maps the outputs to what the targets see; by default softmax probabilities.
        baseline: maps the images to what stands in the place of removed pixels; by default 0 of the normalised image.
    """

    _inserts = False

    def __init__(
        self,
        *,
        step: int | None = None,
        batch_size: int = 32,
        score: Score = class_probability,
        baseline: Callable[[Tensor], Tensor] = torch.zeros_like,
    ) -> None:
        super().__init__(step=step, batch_size=batch_size, score=score, baseline=baseline)


class Insertion(_PixelCurve):
    """Insertion: the most relevant pixels are put into a blurred copy first; higher is better.

    Args:
        step, batch_size, score: as in `Deletion`.
        baseline: maps the images to the copies that pixels are put into; by default `blurred`.
    """

    _inserts = True

    def __init__(
        self,
        *,
        step: int | None = None,
        batch_size: int = 32,
        score: Score = class_probability,
        baseline: Callable[[Tensor], Tensor] = blurred,
    ) -> None:
        super().__init__(step=step, batch_size=batch_size, score=score, baseline=baseline)


class OverAll:
    """Over-all: insertion minus deletion; higher is better. The pixels are put in order once for both.

    Args:
        step, batch_size, score: as in `Deletion`.
    """

    def __init__(self, *, step: int | None = None, batch_size: int = 32, score: Score = class_probability) -> None:
        self.insertion = Insertion(step=step, batch_size=batch_size, score=score)
        self.deletion = Deletion(step=step, batch_size=batch_size, score=score)

    def __call__(
        self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
    ) -> NDArray[np.float64]:
        """Insertion minus deletion of each image, `(B,)`; arguments and errors as in `Deletion.curves`."""
        return self.curves(input_tensor, cams, targets, model).area()

    def curves(self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module) -> FidelityCurves:
        """Both curves of each image; arguments and errors as in `Deletion.curves`."""
        images, maps = check_inputs(input_tensor, cams, targets, model)
        ranks = relevance_ranks(maps)
        blurred_copies, nothing = self.insertion._baselines(images), self.deletion._baselines(images)
        deletion = self.deletion._curve(images, nothing, ranks, targets, model)
        # With every pixel put in, the copy is the untouched image, where the deletion began.
        insertion = self.insertion._curve(images, blurred_copies, ranks, targets, model, last=deletion.scores[:, 0])
        return FidelityCurves(insertion, deletion)
