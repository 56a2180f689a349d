"""Quantus: Holistic-CAM as the `explain_func` of its metrics.

    from holistic_cam_plugin.integrations.quantus import explain_func

    options = {"target_layers": ["layer4"]}
    scores = quantus.Sparseness()(model, images, classes, explain_func=explain_func, explain_func_kwargs=options)

Of the 37 metrics of Quantus 0.6.0, 35 run on RGB images. Known limitations, whatever the method:

* `IROF` and `ROAD` count the channels of an RGB image as pixels, and fail. On images of one channel `ROAD` runs; `IROF`
  needs numpy < 2.4 for `trapz`, and so do `PixelFlipping(return_auc_per_sample=True)` and every `get_auc_score`.
* `NonSensitivity` needs `features_in_step=1`.
* All metrics reject a batch of maps that are zero everywhere, which randomised models may return (`MPRT`).
* `Completeness` is always false: the map does not sum to the score.

Quantus depends on opencv-python, which overwrites the OpenCV of this package. Install it without its dependencies:
`pip install pandas scikit-image && pip install --no-deps quantus`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from holistic_cam_plugin.class_holistic_cam import ClassHolisticCAM
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
    normalize: bool = False,
    device: object = None,
    cam_class: type[HolisticCAM] = ClassHolisticCAM,
    **parameters: Any,
) -> NDArray[np.float32]:
    """Compute maps for a metric of Quantus.

    Args:
        model: the classifier, or a copy of it with other weights that the metric has made.
        inputs: preprocessed images, `(B, C, H, W)`.
        targets: one class per image, `(B,)`.
        target_layers: names of modules as in `model.named_modules()`, since modules themselves would not belong to a
            copy of the model. Several layers give the mean of their maps.
        normalize: scale each map to [0, 1]. False: maps in units of the score (`Intermediates.masked`), which can be
            compared between images.
        device: passed by Quantus; ignored, since the images are moved to the model's device.
        cam_class: `ClassHolisticCAM`, or `HolisticCAM` for the paper's method.
        **parameters: of this class.

    Returns:
        `(B, 1, H, W)`, float32.

    Raises:
        TypeError, ValueError: the model has no module of this name, or as in `HolisticCAM`.

    Example:
        >>> from holistic_cam_plugin.demo import load_demo_model
        >>> images, classes = np.random.rand(2, 3, 64, 64), np.array([0, 3])
        >>> explain_func(load_demo_model(), images, classes, target_layers=["layer2"], sizes=[64, 96]).shape
        (2, 1, 64, 64)
    """
    layers = _find_layers(model, target_layers)
    images = torch.as_tensor(np.asarray(inputs, dtype=np.float32))
    classes = np.asarray(targets)
    with cam_class(model, layers, **parameters) as cam:
        if normalize:
            return cam(images, index_targets(classes, len(images)))[:, None]
        maps: NDArray[np.float32] = cam.attribute(images, classes).cpu().numpy()
        return maps


def _find_layers(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"target_layers must be a list of module names, such as ['layer4'], got {names!r}")
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise ValueError(f"the model has no module {name!r}{near_matches(name, modules)}")
    return [modules[name] for name in names]
