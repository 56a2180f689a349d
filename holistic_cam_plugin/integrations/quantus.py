"""Quantus: Holistic-CAM as the `explain_func` of its metrics.

    from holistic_cam_plugin.integrations.quantus import explain_func

    options = {"target_layers": ["layer4"], "weighting": "positive"}
    scores = quantus.Sparseness()(model, images, classes, explain_func=explain_func, explain_func_kwargs=options)

Of the 37 metrics of Quantus 0.6.0, 35 run on RGB images. The other two don't, whatever the map, and some need care:

* `IROF` and `ROAD` count an RGB image's channels as pixels of their own, and fail. On one channel `ROAD` runs, and so
  does `IROF` with a numpy before 2.4, which has no `trapz` any more.
* `PixelFlipping(return_auc_per_sample=True)` and all the `get_auc_score` need `trapz` too.
* `NonSensitivity` runs with `features_in_step=1` alone.
* All of them refuse a batch whose maps are zero everywhere, which a randomised copy of a model may give (`MPRT`).
* `Completeness` runs, and is false: the map does not add up to the score.

Quantus brings a second OpenCV, which overwrites the one that is there. Install it without:
`pip install pandas scikit-image && pip install --no-deps quantus`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from holistic_cam_plugin.errors import near_matches
from holistic_cam_plugin.holistic_cam import HolisticCAM
from holistic_cam_plugin.passes.index_targets import index_targets

__all__ = ["explain_func"]


def explain_func(
    model: nn.Module,
    inputs: NDArray[np.number],
    targets: NDArray[np.integer],
    *,
    target_layers: Sequence[str],
    normalised: bool = False,
    device: object = None,
    **parameters: Any,
) -> NDArray[np.float32]:
    """The maps that a metric of Quantus asks for.

    Args:
        model: the classifier, or the copy with other weights that a metric has made of it.
        inputs: images `(B, C, H, W)`, preprocessed.
        targets: a class an image, `(B,)`.
        target_layers: names of modules of the model, as `model.named_modules()` has them; modules themselves would be
            those of the original, not those of a copy. Several give the mean of their maps.
        normalised: each map scaled to [0, 1]; off, they are in units of the score (`Intermediates.masked`), so that
            those of different images can be compared.
        device: passed on by Quantus, and not needed: the images go to where the model is.
        **parameters: of `HolisticCAM`.

    Returns:
        `(B, 1, H, W)`, float32.

    Raises:
        TypeError, ValueError: names that are no modules of the model, and as in `HolisticCAM`.
    """
    layers = _layers(model, target_layers)
    images = torch.as_tensor(np.asarray(inputs, dtype=np.float32))
    classes = np.asarray(targets)
    with HolisticCAM(model, layers, **parameters) as cam:
        if normalised:
            return cam(images, index_targets(classes, len(images)))[:, None]
        maps: NDArray[np.float32] = cam.attribute(images, classes).cpu().numpy()
        return maps


def _layers(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"target_layers must be a list of the names of modules, such as ['layer4'], got {names!r}")
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise ValueError(f"the model has no module {name!r}{near_matches(name, modules)}")
    return [modules[name] for name in names]
