r"""ROAD, remove and debias: the class's probability when the least or the most relevant pixels are imputed.

$$\mathrm{LeRF}_t = \frac{p(x \setminus t\,\%\text{ least relevant}) - p(x)}{p(x)}, \qquad
\mathrm{MoRF}_t = \frac{p(x \setminus t\,\%\text{ most relevant}) - p(x)}{p(x)}, \qquad
\mathrm{ROAD} = \mathrm{mean}_t\,(\mathrm{LeRF}_t - \mathrm{MoRF}_t)$$

where $p$ is the softmax probability of the class. This is the paper's relative form; pytorch-grad-cam's `ROADCombined`
is the absolute form, halved: $\mathrm{mean}_t\,(p_{LeRF} - p_{MoRF}) / 2$.

Paper: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022. Imputation and
perturbation come from pytorch-grad-cam.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.metrics.perturbation_confidence import RemoveLeastRelevantFirst, RemoveMostRelevantFirst
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, ROADCombined
from torch import Tensor, nn

from holistic_cam_plugin.checks import check_integer, check_positive_integer, is_number
from holistic_cam_plugin.method.normalize import unit_exponents
from holistic_cam_plugin.metrics.inputs import check_inputs
from holistic_cam_plugin.metrics.order import rank_pixels
from holistic_cam_plugin.metrics.scoring import Score, check_scores, class_probability, score_copies
from holistic_cam_plugin.passes.model_state import copy_inputs, eval_mode
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.targets import Target, target_score

__all__ = ["ROADScores", "RelativeROAD", "SeededROADCombined"]

PERCENT = (20.0, 40.0, 60.0, 80.0)


class ROADScores(NamedTuple):
    """Scores of the original and the imputed images.

    Attributes:
        original: `(B,)`.
        lerf: `(B, T)`, with the least relevant pixels removed, one column per percentage.
        morf: `(B, T)`, with the most relevant pixels removed.

    Example:
        >>> scores = ROADScores(original=np.array([0.8]), lerf=np.array([[0.8, 0.4]]), morf=np.array([[0.2, 0.2]]))
        >>> scores.relative(), scores.absolute()
        (array([0.5]), array([0.2]))
    """

    original: NDArray[np.float64]
    lerf: NDArray[np.float64]
    morf: NDArray[np.float64]

    def relative(self) -> NDArray[np.float64]:
        """The paper's form, `(B,)`: mean of LeRF_t - MoRF_t over t; NaN if the original image scores 0."""
        original = np.where(self.original == 0, np.nan, self.original)
        return np.asarray((self.lerf - self.morf).mean(axis=1) / original, dtype=np.float64)

    def absolute(self) -> NDArray[np.float64]:
        """The form of pytorch-grad-cam, `(B,)`: half of the mean difference of the scores."""
        return np.asarray((self.lerf - self.morf).mean(axis=1) / 2, dtype=np.float64)


class RelativeROAD:
    """ROAD in the paper's relative form; higher is better.

    The percentages are exact to one pixel even if pixels are tied: ties are broken row by row. `tied_pixels` measures
    how much of the order is arbitrary.

    Args:
        percent: percentages of the pixels to remove, each above 0 and below 100.
        noise: standard deviation of the imputer's noise, in units of the normalised image.
        seed: of the noise, set for every imputed copy, so that a score depends only on the image, its map and the seed.
            The global random state is not changed.
        batch_size: imputed copies per forward pass.
        score: maps the outputs to the scores that the targets select from; by default softmax probabilities.

    Raises:
        TypeError, ValueError: a parameter has the wrong type or is out of range.

    Example:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> images, cams = torch.rand(2, 3, 8, 8), np.random.rand(2, 8, 8)
        >>> RelativeROAD(percent=[20, 80])(images, cams, [lambda output: output[0]] * 2, model).shape
        (2,)
    """

    def __init__(
        self,
        percent: Sequence[float] = PERCENT,
        *,
        noise: float = 0.01,
        seed: int = 0,
        batch_size: int = 32,
        score: Score = class_probability,
    ) -> None:
        self.percent = _check_percentages("percent", percent)
        if not is_number(noise) or not 0 <= noise < math.inf:
            raise ValueError(f"noise must be a finite number of at least 0, got {noise!r}")
        check_integer("seed", seed)
        check_positive_integer("batch_size", batch_size)
        self.noise = float(noise)
        self.seed = seed
        self.batch_size = batch_size
        self.score = score

    def __call__(
        self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
    ) -> NDArray[np.float64]:
        """Compute the relative form for each image, `(B,)`; see `scores`."""
        return self.scores(input_tensor, cams, targets, model).relative()

    def scores(self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module) -> ROADScores:
        """Compute the scores that both forms are made of; the imputation, which is slow, runs once for both.

        Args:
            input_tensor: preprocessed images, `(B, C, H, W)`, floating point, on any device.
            cams: maps, `(B, H, W)`; only the order of the pixels matters.
            targets: one callable per image, applied to its row of `score(outputs)`.
            model: maps images to a tensor with one row per image; left unchanged.

        Raises:
            TypeError, ValueError: the arguments do not fit together, are not finite, or the images have a single pixel.
        """
        images, maps = check_inputs(input_tensor, cams, targets, model)
        _check_size(images)
        copies = self._make_copies(images, rank_pixels(maps), targets)
        values = score_copies(model, copies, self.score, self.batch_size).reshape(len(images), -1)
        original, lerf, morf = np.split(values, [1, 1 + len(self.percent)], axis=1)
        return ROADScores(original[:, 0], lerf, morf)

    def _make_copies(
        self, images: Tensor, ranks: NDArray[np.int32], targets: Sequence[Target]
    ) -> Iterator[tuple[Target, Tensor]]:
        imputer = NoisyLinearImputer(self.noise)
        for image, rank, target in zip(images, ranks, targets, strict=True):
            yield target, image
            # Ranks in the place of the map have no ties, and pytorch-grad-cam's `1 - map` is exact for integers.
            relevance = torch.from_numpy(-rank.astype(np.float64))
            for remove in (RemoveLeastRelevantFirst, RemoveMostRelevantFirst):
                for percent in self.percent:
                    # The pixels at or above this percentile are removed: at 80, the last 20 %.
                    perturbation = remove(100 - percent, imputer)
                    with _seed(self.seed):
                        imputed = perturbation(image.cpu().float(), relevance)
                    yield target, imputed.to(image)


class SeededROADCombined:
    """`ROADCombined` of pytorch-grad-cam (absolute, halved) with seeded noise; higher is better.

    Every pixel at or above a percentile of the map is removed, tied ones included: a map of mostly zeros may lose the
    whole image at every percentile.

    Args:
        percentiles: as in `ROADCombined`; if they are symmetric, `RelativeROAD` removes the same shares.
        seed: of the noise, set for every image. The global random state is not changed.
        score: maps the outputs to the scores that the targets select from; by default softmax probabilities.

    Raises:
        TypeError, ValueError: a percentile is not above 0 and below 100, or `seed` is not an integer.

    Example:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> images, cams = torch.rand(2, 3, 8, 8), np.random.rand(2, 8, 8)
        >>> SeededROADCombined([20, 80])(images, cams, [lambda output: output[0]] * 2, model).shape
        (2,)
    """

    def __init__(
        self, percentiles: Sequence[float] = PERCENT, *, seed: int = 0, score: Score = class_probability
    ) -> None:
        self.percentiles = _check_percentages("percentiles", percentiles)
        check_integer("seed", seed)
        self.seed = seed
        self.score = score

    def __call__(
        self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
    ) -> NDArray[np.float64]:
        """Compute the metric of each image, `(B,)`; arguments and errors as in `RelativeROAD.scores`.

        NaN, with a warning, if all pixels of an image are removed at once.
        """
        images, maps = check_inputs(input_tensor, cams, targets, model)
        _check_size(images)
        maps = np.ldexp(maps, -unit_exponents(maps, axis=(1, 2)))  # ROADCombined subtracts them from 1
        metric = ROADCombined(percentiles=list(self.percentiles))
        values = np.full(len(images), np.nan)
        with eval_mode(model), copy_inputs(model):
            for n, (image, saliency_map, target) in enumerate(zip(images.float(), maps, targets, strict=True)):
                if self._removes_all(saliency_map):
                    continue
                with _seed(self.seed):
                    values[n : n + 1] = metric(
                        image[None],
                        saliency_map[None],
                        [self._select_score(target)],
                        # Images are imputed in single precision.
                        lambda copies: check_outputs(model(copies.to(images.dtype)), len(copies)),
                    )
                check_scores(values[n : n + 1])
        if lost := np.flatnonzero(np.isnan(values)).tolist():
            warnings.warn(
                f"image {lost} scores NaN: its map has so many equal values that ROADCombined removes all pixels; use "
                "RelativeROAD",
                stacklevel=2,
            )
        return values

    def _removes_all(self, saliency_map: NDArray[np.floating]) -> bool:
        return any(
            not (mask < np.percentile(mask, percentile)).any()
            for mask in (saliency_map, 1 - saliency_map)
            for percentile in self.percentiles
        )

    def _select_score(self, target: Target) -> Target:
        # ROADCombined passes one row of the outputs.
        return lambda row: target_score(target, self.score(row[None])[0]).float()


@contextmanager
def _seed(seed: int) -> Iterator[None]:
    # The imputer draws on the CPU. `torch.manual_seed` would also seed the generators of accelerators.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(seed))
        yield


def _check_percentages(name: str, percent: Sequence[float]) -> tuple[float, ...]:
    values = np.asarray(percent)
    if values.ndim != 1 or (len(values) and values.dtype.kind not in "iuf"):
        raise TypeError(f"{name} must be a list of percentages, such as [20, 40], got {percent!r}")
    if len(values) == 0 or not ((values > 0) & (values < 100)).all():
        raise ValueError(f"{name} must be a list of values above 0 and below 100, got {percent!r}")
    return tuple(values.tolist())


def _check_size(images: Tensor) -> None:
    if images.shape[-2:].numel() == 1:
        raise ValueError("ROAD imputes removed pixels from the others: images of 1x1 px have none")
