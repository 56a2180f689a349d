"""Weights from a file: a pickle that loads without running any of its code, or safetensors."""

from __future__ import annotations

import hashlib
import pickle
import re
import textwrap
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from holistic_cam_plugin.errors import UsageError, check_file, describe_error

__all__ = ["count_classes", "hash_weights", "load_weights", "read_state_dict"]

_WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys of the state dict in the checkpoints of training scripts
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
# torchvision's own files of DenseNets have names such as norm.1, which its builder changes to norm1.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict, or the one in a checkpoint.

    Raises:
        UsageError: the file does not exist, is damaged, could run code, or holds no state dict.
    """
    state = _load_file(path)
    for key in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state:
        raise UsageError(f"{path} holds no state dict, but {'an empty' if state == {} else 'a'} {type(state).__name__}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UsageError(f"{path} holds no state dict of tensors: {name!r:.50} is a {type(tensor).__name__}")
    state = dict(state)
    for prefix in _PREFIXES:
        consume_prefix_in_state_dict_if_present(state, prefix)
    return {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in state.items()}


def _load_file(path: Path) -> object:
    check_file(path)
    try:
        if path.suffix == ".safetensors":
            return import_module("safetensors.torch").load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except ModuleNotFoundError as error:
        raise UsageError(f"{path}: pip install safetensors to read it") from error
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} does not load as tensors alone, and loading anything else could run code: refused. Save the "
            "weights with torch.save(model.state_dict(), FILE)"
        ) from error
    except Exception as error:  # a damaged file can make torch.load raise anything
        raise UsageError(f"{path} cannot be read as a file of weights: {describe_error(error)}") from error


def count_classes(state: Mapping[str, Tensor], biases: Iterable[str]) -> int:
    """Count the classes: the length of the first of these biases that the state dict has, else of its last tensor."""
    bias = next((state[name] for name in biases if name in state), [*state.values()][-1])
    return max(1, bias.shape[0]) if bias.ndim else 1


def load_weights(model: nn.Module, state: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Load a state dict in float32 into a model, which may be on the meta device.

    Args:
        path, name: the file and the model's name, for messages.

    Raises:
        UsageError: the state dict does not fit the model, or some weights are NaN or infinite.
    """
    own = model.state_dict()
    try:
        for key, tensor in state.items():  # load_state_dict would cast quantised and complex weights
            if key in own and tensor.is_floating_point() != own[key].is_floating_point():
                raise TypeError(f"{key} is {tensor.dtype}, not {own[key].dtype}")
        floats = OrderedDict((k, t.detach().float() if t.is_floating_point() else t) for k, t in state.items())
        # MNASNet needs a version.
        floats._metadata = {"": {"version": getattr(model, "_version", None)}}  # type: ignore[attr-defined]
        model.load_state_dict(floats, assign=True)
        infinite = [key for key, tensor in model.state_dict().items() if not bool(tensor.isfinite().all())]
    except Exception as error:
        raise UsageError(
            f"{path} does not fit {name}: {textwrap.shorten(str(error), 300, placeholder=' ...')}"
        ) from error
    if infinite:
        raise UsageError(f"{path} has NaN or infinite values in {infinite[0]}")


def hash_weights(model: nn.Module) -> str:
    """Return the SHA-256 checksum in hexadecimal of the model's parameters and buffers with their names."""
    total = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
