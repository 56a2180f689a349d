r"""ROAD, remove and debias: what happens when the least or the most relevant pixels are imputed from their neighbours?

$$\mathrm{LeRF}_t = \frac{p(x \setminus t\,\%\text{ least relevant}) - p(x)}{p(x)}, \qquad
\mathrm{MoRF}_t = \frac{p(x \setminus t\,\%\text{ most relevant}) - p(x)}{p(x)}, \qquad
\mathrm{ROAD} = \mathrm{mean}_t\,(\mathrm{LeRF}_t - \mathrm{MoRF}_t)$$

with $p$ the class's softmax probability. This is the paper's relative form; the library's `ROADCombined` is the
absolute one, halved: $\mathrm{mean}_t\,(p_{LeRF} - p_{MoRF}) / 2$.

Paper: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022. Imputation and
perturbation are the library's.
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

from holistic_cam_plugin.method.normalize import unit_exponents
from holistic_cam_plugin.method.pyramid import check_positive_integer
from holistic_cam_plugin.metrics.order import relevance_ranks
from holistic_cam_plugin.metrics.scoring import (
    Score,
    check_inputs,
    check_scores,
    check_seed,
    class_probability,
    is_number,
    score_copies,
)
from holistic_cam_plugin.passes.modes import eval_mode, own_inputs
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.targets import Target, target_score

__all__ = ["RelativeROAD", "RoadScores", "SeededROADCombined"]

PERCENT = (20.0, 40.0, 60.0, 80.0)


class RoadScores(NamedTuple):
    """Scores of the untouched and the imputed images.

    Attributes:
        untouched: `(B,)`.
        least_first: `(B, T)`, without the least relevant pixels, one column a percentage.
        most_first: `(B, T)`, without the most relevant ones.
    """

    untouched: NDArray[np.float64]
    least_first: NDArray[np.float64]
    most_first: NDArray[np.float64]

    def relative(self) -> NDArray[np.float64]:
        """The paper's form, `(B,)`: mean over t of LeRF_t - MoRF_t. NaN where the untouched image scores 0."""
        base = np.where(self.untouched == 0, np.nan, self.untouched)
        return np.asarray((self.least_first - self.most_first).mean(axis=1) / base, dtype=np.float64)

    def halved(self) -> NDArray[np.float64]:
        """The library's form, `(B,)`: half of the mean difference of the scores."""
        return np.asarray((self.least_first - self.most_first).mean(axis=1) / 2, dtype=np.float64)


class RelativeROAD:
    """ROAD in the paper's relative form; higher is better.

    The named share of the pixels is removed, to one pixel, also where a map has plateaus: equal pixels follow row by
    row, and the order from the least relevant end is the reverse one. `tied_pixels` says how much of the order that is.

    Args:
        percent: percentages of the pixels removed, each above 0 and below 100.
        noise: standard deviation of the imputer's noise, in units of the normalised image.
        seed: of the noise, set anew for every imputed copy, so that an image's figure depends on nothing but the image,
            its map and the seed. The user's random state is not touched.
        batch_size: imputed copies that go through the model together.
        score: maps the outputs to what the targets see; by default softmax probabilities.

    Raises:
        TypeError, ValueError: no list of percentages, one out of range, or another parameter that can't work.
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
        self.percent = _percentages("percent", percent)
        if not is_number(noise) or not 0 <= noise < math.inf:
            raise ValueError(f"noise must be a finite number of at least 0, got {noise!r}")
        check_seed(seed)
        check_positive_integer("batch_size", batch_size)
        self.noise = float(noise)
        self.seed = seed
        self.batch_size = batch_size
        self.score = score

    def __call__(
        self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
    ) -> NDArray[np.float64]:
        """The relative form of each image, `(B,)`; arguments and errors as in `scores`."""
        return self.scores(input_tensor, cams, targets, model).relative()

    def scores(self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module) -> RoadScores:
        """The scores that both forms are made of, so that the slow imputation runs once for both.

        Args:
            input_tensor: preprocessed images, `(B, C, H, W)`, floating point, on any device.
            cams: their maps, `(B, H, W)`, in any unit: only the order of the pixels counts.
            targets: one callable an image, applied to its row of `score(outputs)`.
            model: maps images to a tensor with a row an image; it is as before afterwards.

        Raises:
            TypeError, ValueError: inputs that do not belong together or are not finite, images of one pixel.
        """
        images, maps = check_inputs(input_tensor, cams, targets, model)
        _check_size(images)
        copies = self._copies(images, relevance_ranks(maps), targets)
        values = score_copies(model, copies, self.score, self.batch_size).reshape(len(images), -1)
        untouched, least_first, most_first = np.split(values, [1, 1 + len(self.percent)], axis=1)
        return RoadScores(untouched[:, 0], least_first, most_first)

    def _copies(
        self, images: Tensor, ranks: NDArray[np.int32], targets: Sequence[Target]
    ) -> Iterator[tuple[Target, Tensor]]:
        imputer = NoisyLinearImputer(self.noise)
        for image, rank, target in zip(images, ranks, targets, strict=True):
            yield target, image
            # Descending ranks stand for the map: whole numbers without ties, exact also after the library's `1 - map`.
            relevance = torch.from_numpy(-rank.astype(np.float64))
            for remove in (RemoveLeastRelevantFirst, RemoveMostRelevantFirst):
                for percent in self.percent:
                    # The library removes what lies at or above the percentile: at 80, the last 20 %.
                    perturbation = remove(100 - percent, imputer)
                    with _seeded(self.seed):
                        imputed = perturbation(image.cpu().float(), relevance)
                    yield target, imputed.to(image)


class SeededROADCombined:
    """The library's own `ROADCombined` (absolute and halved) with its noise seeded; higher is better.

    The library removes every pixel at or above a percentile of the map: at percentile 80, 20 % of them, and all of a
    plateau that the percentile falls on. A map that is mostly zeros can lose the whole image at every percentile.

    Args:
        percentiles: the library's; symmetric ones such as the default remove the same shares as `RelativeROAD`'s.
        seed: of the noise, set anew for every image. The user's random state is not touched.
        score: maps the outputs to what the targets see; by default softmax probabilities.

    Raises:
        TypeError, ValueError: no list of percentages, one out of range, or a seed that is no integer.
    """

    def __init__(
        self, percentiles: Sequence[float] = PERCENT, *, seed: int = 0, score: Score = class_probability
    ) -> None:
        self.percentiles = _percentages("percentiles", percentiles)
        check_seed(seed)
        self.seed = seed
        self.score = score

    def __call__(
        self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
    ) -> NDArray[np.float64]:
        """The figure of each image, `(B,)`; arguments and errors as in `RelativeROAD.scores`.

        NaN, with a warning, where the library removes all of an image and has nothing left to impute it from.
        """
        images, maps = check_inputs(input_tensor, cams, targets, model)
        _check_size(images)
        maps = np.ldexp(maps, -unit_exponents(maps, axis=(1, 2)))  # the library subtracts them from 1
        metric = ROADCombined(percentiles=list(self.percentiles))
        values: list[float] = []
        with eval_mode(model), own_inputs(model):
            for image, saliency_map, target in zip(images.float(), maps, targets, strict=True):
                if self._removes_all(saliency_map):
                    values.append(np.nan)
                    continue
                with _seeded(self.seed):
                    figure = metric(
                        image[None],
                        saliency_map[None],
                        [self._scored(target)],
                        # The library's imputation is in single precision.
                        lambda copies: check_outputs(model(copies.to(images.dtype)), len(copies)),
                    ).tolist()
                check_scores(figure)
                values += figure
        if lost := np.flatnonzero(np.isnan(values)).tolist():
            warnings.warn(
                f"the library's ROAD removes all of image {lost} at once, since its map is flat there, and has no "
                "figure for it; RelativeROAD does",
                stacklevel=2,
            )
        return np.array(values, dtype=np.float64)

    def _removes_all(self, saliency_map: NDArray[np.floating]) -> bool:
        return any(
            not (mask < np.percentile(mask, percentile)).any()
            for mask in (saliency_map, 1 - saliency_map)
            for percentile in self.percentiles
        )

    def _scored(self, target: Target) -> Target:
        # The library hands every target one row of the outputs.
        return lambda row: target_score(target, self.score(row[None])[0]).float()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # The imputer draws on the CPU. `torch.manual_seed` would seed the accelerators' generators too.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(seed))
        yield


def _percentages(name: str, percent: Sequence[float]) -> tuple[float, ...]:
    values = np.asarray(percent)
    if values.ndim != 1 or (len(values) and values.dtype.kind not in "iuf"):
        raise TypeError(f"{name} must be a list of percentages, such as [20, 40], got {percent!r}")
    if len(values) == 0 or not ((values > 0) & (values < 100)).all():
        raise ValueError(f"{name} must be above 0 and below 100, at least one, got {percent!r}")
    return tuple(values.tolist())


def _check_size(images: Tensor) -> None:
    if images.shape[-2:].numel() == 1:
        raise ValueError("ROAD imputes removed pixels from the others, and images of 1x1 px have no others")
