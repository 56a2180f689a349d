"""A model for the weights in a file: built as torchvision builds it for its own, and filled, or refused in words."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from holistic_cam_plugin.errors import UsageError

__all__ = ["architecture", "check_finite", "class_count", "filled", "fitted"]

# Integers are no weights, whatever a cast would make of them.
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def architecture(name: str, entry: WeightsEnum, state: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The untrained model that the state dict is for, as far as it tells; for None, that of torchvision's weights.

    What torchvision's builder hands the constructor for weights of its own is not in their file. A file for as many
    classes as theirs is taken for one.
    """
    known = len(entry.meta["categories"])
    classes = known if state is None else max(1, class_count(state))
    options: dict[str, object] = {"num_classes": classes}
    if name in ("googlenet", "inception_v3"):
        heads = state is not None and any(key.startswith(("aux", "AuxLogits")) for key in state)
        options |= {"transform_input": classes == known, "aux_logits": heads, "init_weights": False}
    if name.startswith("vit_"):
        options["image_size"] = entry.meta["min_size"][0]
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return model


def class_count(state: Mapping[str, Tensor]) -> int:
    """Number of classes: the size of the last tensor, the head's bias in all of torchvision's classifiers."""
    last = list(state.values())[-1]
    return last.shape[0] if last.ndim else 0


def _shell(name: str, entry: WeightsEnum, state: Mapping[str, Tensor]) -> nn.Module:
    """The architecture without values. NotImplementedError for a RegNet: its constructor computes with tensors."""
    with torch.device("meta"):
        return architecture(name, entry, state)


def filled(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Hand the model the tensors of the state dict; what does not fit, in words, empty if all does."""
    own = model.state_dict()
    shared = {key: tensor for key, tensor in state.items() if key in own}
    wrong = [
        f"{key} is {tuple(tensor.shape)} {_word(tensor)}, not {tuple(own[key].shape)} {_word(own[key])}"
        for key, tensor in shared.items()
        if tensor.shape != own[key].shape or (own[key].is_floating_point() and tensor.dtype not in _FLOATS)
    ]
    missing, unexpected = own.keys() - state.keys(), state.keys() - own.keys()
    if not wrong:
        given = OrderedDict(state)
        given.update((key, tensor.detach().to(own[key].dtype)) for key, tensor in shared.items())
        # MNASNet takes no file without a version; those of its first have other shapes. All others may lack it.
        given._metadata = {"": {"version": getattr(model, "_version", None)}}  # type: ignore[attr-defined]
        missing, unexpected = map(set, model.load_state_dict(given, strict=False, assign=True))
    found = {"missing": missing, "unexpected": unexpected, "of another shape or type": wrong}
    return ", ".join(
        f"{len(v)} tensors {k} ({min(v):.150}{', ...' if len(v) > 1 else ''})" for k, v in found.items() if v
    )


def _word(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def fitted(name: str, state: Mapping[str, Tensor], path: Path) -> tuple[nn.Module, WeightsEnum]:
    """The model with these weights, and the first of torchvision's own that are for the same model.

    Raises:
        UsageError: they don't fit, or are not finite.
    """
    misfits = []
    for entry in sorted(
        torchvision.models.get_model_weights(name), key=lambda entry: Path(entry.url).name != path.name
    ):
        try:
            model = _shell(name, entry, state)
        except NotImplementedError:
            model = architecture(name, entry, state)
        if not (misfit := filled(model, state)):
            check_finite(model, path)
            return model, entry
        misfits.append(misfit)
    fits = _others_that_fit(name, state)
    hint = f"; it fits --model {' or '.join(fits)}" if fits else ""
    raise UsageError(f"{path} does not fit {name}: {misfits[0]}{hint}")


def _others_that_fit(name: str, state: Mapping[str, Tensor]) -> list[str]:
    """Other models of the family, but for RegNets, which take long to build."""
    family = re.match(r"[a-z]+", name)
    fits = []
    for other in torchvision.models.list_models(module=torchvision.models):
        if other != name and family and other.startswith(family.group()):
            with suppress(NotImplementedError):
                entry = torchvision.models.get_model_weights(other).DEFAULT
                if not filled(_shell(other, entry, state), state):
                    fits.append(other)
    return fits


def check_finite(model: nn.Module, path: Path) -> None:
    """UsageError for weights, from this file, that are not finite."""
    for name, tensor in model.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise UsageError(f"{path} has NaN or infinite values in {name}: what such a model says means nothing")
