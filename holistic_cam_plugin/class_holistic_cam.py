"""Class Holistic-CAM: Holistic-CAM with the settings that tell one class from another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytorch_grad_cam.base_cam import BaseCAM
from torch import nn

from holistic_cam_plugin.holistic_cam import HolisticCAM
from holistic_cam_plugin.names import FAST
from holistic_cam_plugin.passes.capture import DEEPEST

__all__ = ["RECOMMENDED", "ClassHolisticCAM"]

RECOMMENDED: dict[str, Any] = {
    "mask_layer": DEEPEST,
    "contrast": 1.0,
    "weighting": "positive",
    "fuse_base": False,
    "by_positions": True,
    "sizes": FAST,
}


class ClassHolisticCAM(HolisticCAM, BaseCAM):  # tools list methods by `BaseCAM.__subclasses__()`
    r"""`HolisticCAM` with the defaults that we recommend: maps of the class, not of every object in the picture.

    It departs from the paper in five points, each of which is a parameter of `HolisticCAM`:

    * `mask_layer="deepest"`: the mask comes from the evidence for the class in the deepest layer, over all scales, in
      place of the base scale's map of the same layer (see `class_evidence`).
    * `contrast=1`: this evidence is multiplied by its share of all evidence, for and against the class.
    * `weighting="positive"`: the weights are the positive gradients.
    * `fuse_base=False` and `by_positions=True`: the other scales are fused, each weighted by its number of positions:
      once the mask says where, the base scale blurs.
    * `sizes="fast"`: three scales in place of seven, a sixth of the pixels. `sizes="paper"`, or `num_scales`, brings
      the paper's.

    The map does not change if the logits are multiplied by a constant. It does change if a function of the image is
    added to all logits, which changes no probability: the score that is explained is the logit, not the probability.
    The studies `class_masks` and `few_scales` in `benchmarks/results` selected these settings.

    Args:
        model, target_layers, args, kwargs: as in `HolisticCAM`.

    Raises:
        TypeError, ValueError: as in `HolisticCAM`.

    Example:
        >>> from holistic_cam_plugin.demo import load_demo_model
        >>> model = load_demo_model()
        >>> ClassHolisticCAM(model, [model.layer2], sizes=[64, 96])(torch.rand(2, 3, 64, 64)).shape
        (2, 64, 64)
    """

    def __init__(self, model: nn.Module, target_layers: Sequence[nn.Module], *args: Any, **kwargs: Any) -> None:
        papers = {"sizes": None} if kwargs.keys() & {"num_scales", "max_size"} else {}
        super().__init__(model, target_layers, *args, **(RECOMMENDED | papers | kwargs))
