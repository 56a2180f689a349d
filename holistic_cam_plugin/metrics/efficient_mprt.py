r"""Efficient model parameter randomisation test (eMPRT): the map of a random model must be more complex.

$$\mathrm{eMPRT} = \frac{\xi(\hat e) - \xi(e)}{\xi(e)}, \qquad \xi(e) = -\sum_{i=1}^{n} p_i \log p_i$$

where $e$ is the map of the model, $\hat e$ the map after all parameters are randomised, and $p_i$ the share of a map's
pixels in the $i$-th of $n = 100$ equal bins from its minimum to its maximum. Unlike the layer-wise test, it needs no
measure of similarity, which noise can dominate.

Papers: Hedstroem et al., "Sanity Checks Revisited: An Exploration to Repair the Model Parameter Randomisation Test",
NeurIPS Workshop XAI in Action, 2023, and "A Fresh Look at Sanity Checks for Saliency Maps", xAI 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy
from torch import Tensor, nn

from holistic_cam_plugin.checks import check_integer, check_positive_integer
from holistic_cam_plugin.method.normalize import unit_exponents
from holistic_cam_plugin.metrics.inputs import check_inputs, check_maps
from holistic_cam_plugin.metrics.randomization import independent_randomization
from holistic_cam_plugin.passes.targets import Target

__all__ = ["EfficientMPRT", "efficient_mprt", "histogram_entropy"]

BINS = 100  # the paper's


def histogram_entropy(cams: Any, bins: int = BINS) -> NDArray[np.float64]:
    """Entropy in nats of the histogram of each map's values, a measure of its complexity.

    Args:
        cams: maps `(B, H, W)`, finite, in any unit.
        bins: number of bins from the map's minimum to its maximum.

    Returns:
        `(B,)`, in [0, log(bins)]; 0 for a constant map.

    Raises:
        TypeError, ValueError: `cams` is not a batch of finite maps, or `bins` is not a positive integer.

    Example:
        >>> histogram_entropy([[[0, 0, 0, 0]], [[0, 0, 1, 1]]]).round(4)
        array([0.    , 0.6931])
    """
    check_positive_integer("bins", bins)
    # Bins must be representable: neither float32 nor values such as 1e308 or 1e-320 may leave a range without room.
    maps = check_maps(cams).astype(np.float64)
    maps = np.ldexp(maps, -unit_exponents(maps, axis=(1, 2)))
    maps -= maps.min(axis=(1, 2), keepdims=True)
    maps = np.ldexp(maps, -unit_exponents(maps, axis=(1, 2)))
    return np.array([entropy(np.histogram(saliency_map, int(bins))[0]) for saliency_map in maps])


def efficient_mprt(cams: Any, randomized_cams: Any, bins: int = BINS) -> NDArray[np.float64]:
    """Relative increase of each map's complexity when the model's parameters are randomised; higher is better.

    Args:
        cams: maps of the model, `(B, H, W)`, finite.
        randomized_cams: maps of the same images and targets with all parameters randomised, in the same shape.
        bins: as in `histogram_entropy`.

    Returns:
        `(B,)`, at least -1; NaN if the model's map is constant. -1 means that the map of the randomised model is
        constant, which happens if a final ReLU silences its score; use several seeds then.

    Raises:
        TypeError, ValueError: the shapes differ, or as in `histogram_entropy`.

    Example:
        >>> efficient_mprt(cams=[[[0, 0, 1, 1]]], randomized_cams=[[[0, 1, 2, 3]]])
        array([1.])
    """
    shapes = tuple(np.shape(cams)), tuple(np.shape(randomized_cams))
    if shapes[0] != shapes[1]:
        raise ValueError(f"cams and randomized_cams must have the same shape, got {shapes[0]} and {shapes[1]}")
    before, after = histogram_entropy(cams, bins), histogram_entropy(randomized_cams, bins)
    return np.asarray((after - before) / np.where(before == 0, np.nan, before), dtype=np.float64)


class EfficientMPRT:
    """`efficient_mprt` as a metric of pytorch-grad-cam.

    Args:
        cam_of: builds the method that made the maps, for another model of the same architecture.
        bins: as in `histogram_entropy`.
        seed: of the random parameters, as in `independent_randomization`.

    Raises:
        TypeError, ValueError: `bins` is not a positive integer, `seed` not an integer, or `cam_of` not callable.

    Example:
        >>> from pytorch_grad_cam import GradCAM
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> images = torch.rand(2, 3, 16, 16)
        >>> targets = [lambda output: output[0]] * 2
        >>> build = lambda model: GradCAM(model, [model[0]])
        >>> EfficientMPRT(build)(images, build(model)(images, targets), targets, model).shape
        (2,)
    """

    def __init__(self, cam_of: Callable[[nn.Module], Callable[..., Any]], *, bins: int = BINS, seed: int = 0) -> None:
        check_positive_integer("bins", bins)
        check_integer("seed", seed)
        if not callable(cam_of):
            raise TypeError(f"cam_of must be a function that builds a method for a model, got {cam_of!r}")
        self.cam_of = cam_of
        self.bins = bins
        self.seed = seed

    def __call__(
        self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
    ) -> NDArray[np.float64]:
        """Compute the relative increase for each image, `(B,)`; the model itself is neither run nor changed.

        Raises:
            TypeError, ValueError: the arguments do not fit together, or as in `efficient_mprt`.
        """
        images, maps = check_inputs(input_tensor, cams, targets, model)
        ((_, randomized),) = independent_randomization(model, [""], seed=self.seed)  # the root contains every layer
        return efficient_mprt(maps, self.cam_of(randomized)(images, targets), self.bins)
