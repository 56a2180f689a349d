"""What every metric shares: its inputs, checked, and the scores of many perturbed copies of the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from numbers import Integral, Real
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holistic_cam_plugin.method.normalize import unit_exponents
from holistic_cam_plugin.method.pyramid import check_images
from holistic_cam_plugin.passes.modes import eval_mode
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.targets import Target, check_targets, target_score

__all__ = ["Score", "class_probability", "score_copies"]

Values: TypeAlias = NDArray[np.float64]
# What the targets see: maps the model's raw outputs, one row an image, to scores in the same order.
Score: TypeAlias = Callable[[Tensor], Tensor]


def class_probability(outputs: Tensor) -> Tensor:
    """Softmax probabilities of raw class scores, so that `ClassifierOutputTarget(c)` gives the probability of c.

    Args:
        outputs: `(B, classes)`.

    Returns:
        `(B, classes)`, float32 at least, rows sum to 1.

    Raises:
        ValueError: any other shape; another head needs a `score` of its own.
    """
    if outputs.ndim != 2:
        raise ValueError(
            f"class probabilities need outputs of shape (B, classes), the model returned {tuple(outputs.shape)}: pass "
            "score=, a function of the outputs whose rows the targets understand, such as score=torch.sigmoid"
        )
    return outputs.float().softmax(dim=-1)


def score_copies(
    model: nn.Module, copies: Iterable[tuple[Target, Tensor]], score: Score, batch_size: int
) -> NDArray[np.float64]:
    """The target's score of each image, in batches, in evaluation mode and without gradients.

    Args:
        model: any module that maps images to a tensor with a row an image; its training flags are restored.
        copies: pairs of a target and an image `(C, H, W)` on the model's device, made as they are needed: no more than
            `batch_size` of them exist at a time.
        score: maps the outputs to what the targets see.
        batch_size: images that go through the model together.

    Returns:
        One value a copy, in their order, float64.

    Raises:
        TypeError, ValueError: outputs that are no tensor with a row an image, a target that gives no single value, or
            NaN.
    """
    remaining = iter(copies)
    values: list[float] = []
    with eval_mode(model), torch.inference_mode():
        while batch := list(islice(remaining, batch_size)):
            images = torch.stack([image for _, image in batch])
            scores = score(check_outputs(model(images), len(batch)))
            single = [target_score(target, row).double() for (target, _), row in zip(batch, scores, strict=True)]
            values += torch.stack(single).tolist()  # one transfer a batch
            check_scores(values[-len(batch) :])
    return np.array(values, dtype=np.float64)


def check_inputs(
    input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
) -> tuple[Tensor, NDArray[np.floating]]:
    """The images on the model's device and their maps; raise what is wrong with them.

    Returns:
        Images `(B, C, H, W)`, detached, and maps `(B, H, W)`, floating point, finite.

    Raises:
        TypeError, ValueError: no batch of floating-point images, images or maps that are not finite, maps of another
            shape, or another number of targets than images.
    """
    images = check_images(input_tensor, model_device(model, input_tensor))
    finite = images.isfinite().flatten(start_dim=1).all(dim=1).cpu().numpy()
    if not finite.all():
        raise ValueError(f"input_tensor holds NaN or infinite values in image {np.flatnonzero(~finite).tolist()}")
    maps = check_maps(cams)
    expected = (len(images), *images.shape[-2:])
    if maps.shape != expected:
        raise ValueError(f"cams must have the shape (B, H, W) of the images, {tuple(expected)}, got {maps.shape}")
    if targets is None:
        raise TypeError("metrics need targets, one an image, such as [ClassifierOutputTarget(281)]: got None")
    check_targets(targets, len(images))
    return images, maps


def check_maps(cams: Any) -> NDArray[np.floating]:
    """Maps as an array, float32 or float64.

    Raises:
        TypeError: anything but real numbers.
        ValueError: maps that are not `(B, H, W)`, empty or not finite.
    """
    maps = as_array(cams)
    if maps.dtype.kind not in "biuf":
        raise TypeError(f"cams must be real numbers, got dtype {maps.dtype}")
    # float16 would overflow in a sum.
    maps = np.ascontiguousarray(maps, dtype=np.float32 if maps.dtype in (np.float16, np.float32) else np.float64)
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"cams must be a batch (B, H, W) of maps, got shape {maps.shape}")
    broken = ~np.isfinite(maps).all(axis=(1, 2))
    if broken.any():
        raise ValueError(f"cams holds NaN or infinite values in map {np.flatnonzero(broken).tolist()}")
    return maps


def unit_maps(cams: Any) -> NDArray[np.floating]:
    """`check_maps`, each divided by a power of two: its maximum is in [1, 2), so that no sum or share is out of range.

    Raises:
        ValueError: also where a map is negative: shares of its sum or maximum would mean nothing.
    """
    maps = check_maps(cams)
    if (maps < 0).any():
        raise ValueError(f"a map's energy can't be negative, but cams go down to {maps.min():g}")
    return np.asarray(np.ldexp(maps, -unit_exponents(maps, axis=(1, 2))))


def check_scores(values: Iterable[float]) -> None:
    """Raise ValueError if a score is NaN: every figure made of it would be."""
    if any(map(math.isnan, values)):
        raise ValueError("a score is NaN: the model gives NaN for an image or for a perturbed copy of it")


def check_seed(seed: int) -> None:
    """Raise TypeError unless `seed` is an integer, NumPy's included."""
    if not is_integer(seed):
        raise TypeError(f"seed must be an integer, got {seed!r}")


def is_integer(value: object) -> bool:
    """Whether this is an integer, NumPy's included, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether this is a real number, NumPy's included, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def as_array(values: Any) -> NDArray[Any]:
    """A tensor on any device, or anything array-like, as an array; bfloat16, which NumPy lacks, as float32."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
    return np.asarray(values)


def model_device(model: nn.Module, default: Tensor) -> torch.device:
    """The device of the model's parameters; of `default` where the model has none."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        return default.device if isinstance(default, Tensor) else torch.device("cpu")
    return parameter.device
