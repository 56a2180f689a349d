r"""The efficient model parameter randomisation test, eMPRT: a random model's map must be more complex than the model's.

$$\mathrm{eMPRT} = \frac{\xi(\hat e) - \xi(e)}{\xi(e)}, \qquad \xi(e) = -\sum_{i=1}^{n} p_i \log p_i$$

where $e$ is the model's map, $\hat e$ the map when all parameters are random, and $p_i$ the share of a map's pixels in
the $i$-th of $n = 100$ equal intervals from its minimum to its maximum. It needs no measure of similarity, which noise
can dominate, and leaves no layer as it was.

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

from holistic_cam_plugin.method.normalize import unit_exponents
from holistic_cam_plugin.method.pyramid import check_positive_integer
from holistic_cam_plugin.metrics.randomization import independent_randomization
from holistic_cam_plugin.metrics.scoring import check_inputs, check_maps, check_seed
from holistic_cam_plugin.passes.targets import Target

__all__ = ["EfficientMPRT", "efficient_mprt", "histogram_entropy"]

BINS = 100  # the paper's


def histogram_entropy(cams: Any, bins: int = BINS) -> NDArray[np.float64]:
    """Complexity of each map: the entropy of the histogram of its values, in nats.

    Args:
        cams: maps `(B, H, W)`, finite, in any unit: the intervals reach from each map's minimum to its maximum.
        bins: number of intervals.

    Returns:
        `(B,)` in [0, log(bins)]; 0 for a constant map.

    Raises:
        TypeError, ValueError: no batch of finite maps, or `bins` is no integer of at least 1.
    """
    check_positive_integer("bins", bins)
    maps = check_maps(cams).astype(np.float64)  # a narrow range may have no room for the intervals in float32
    maps = np.ldexp(maps, -unit_exponents(maps, axis=(1, 2)))  # nor one of 1e308 or of 1e-320 in float64
    maps -= maps.min(axis=(1, 2), keepdims=True)
    maps = np.ldexp(maps, -unit_exponents(maps, axis=(1, 2)))
    return np.array([entropy(np.histogram(saliency_map, int(bins))[0]) for saliency_map in maps])


def efficient_mprt(cams: Any, randomized_cams: Any, bins: int = BINS) -> NDArray[np.float64]:
    """Relative rise of each map's complexity when the model's parameters are random; higher is better.

    Args:
        cams: maps of the model, `(B, H, W)`, finite.
        randomized_cams: maps of the same images and targets with all parameters random, in the same form.
        bins: as in `histogram_entropy`.

    Returns:
        `(B,)`, at least -1; NaN where the model's map is constant. -1 says that the random model's map is constant:
        its score may be dead, as happens in nets that end in a ReLU. Look at several seeds then.

    Raises:
        TypeError, ValueError: as in `histogram_entropy`, and for maps of different shapes.
    """
    given, other = (tuple(np.shape(maps)) for maps in (cams, randomized_cams))
    if given != other:
        raise ValueError(f"cams and randomized_cams must have the same shape, got {given} and {other}")
    before, after = histogram_entropy(cams, bins), histogram_entropy(randomized_cams, bins)
    return np.asarray((after - before) / np.where(before == 0, np.nan, before), dtype=np.float64)


class EfficientMPRT:
    """`efficient_mprt` in the library's calling form.

        EfficientMPRT(lambda model: GradCAM(model, [model.layer4]))(images, cams, targets, model)

    Args:
        cam_of: builds the method that made the maps for another model of the same architecture.
        bins: as in `histogram_entropy`.
        seed: of the random parameters, as in `independent_randomization`.

    Raises:
        TypeError, ValueError: `bins` is no integer of at least 1, `seed` no integer, or `cam_of` no callable.
    """

    def __init__(self, cam_of: Callable[[nn.Module], Callable[..., Any]], *, bins: int = BINS, seed: int = 0) -> None:
        check_positive_integer("bins", bins)
        check_seed(seed)
        if not callable(cam_of):
            raise TypeError(f"cam_of must build a method for a model, such as GradCAM's in a lambda, got {cam_of!r}")
        self.cam_of = cam_of
        self.bins = bins
        self.seed = seed

    def __call__(
        self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
    ) -> NDArray[np.float64]:
        """The relative rise for each image, `(B,)`; the model itself is neither run nor changed.

        Raises:
            TypeError, ValueError: inputs that do not belong together, and as in `efficient_mprt`.
        """
        images, maps = check_inputs(input_tensor, cams, targets, model)
        ((_, randomized),) = independent_randomization(model, [""], seed=self.seed)  # the root holds every layer
        return efficient_mprt(maps, self.cam_of(randomized)(images, targets), self.bins)
