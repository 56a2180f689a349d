"""Weights from a file: a pickle, read without running any of its code, or safetensors.

They are refused unless each tensor is one of weights.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from holistic_cam_plugin.errors import UsageError, check_file, reason

__all__ = ["read_state_dict"]

_WRAPPINGS = ("state_dict", "model", "model_state_dict")  # what training scripts put around it
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile

# The names in torchvision's own files of DenseNets, which its builder translates: norm.1 is norm1 today.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict, also out of a checkpoint: real, dense tensors by name.

    Raises:
        UsageError: no such file, no state dict in it, or a tensor in it that can't be a weight.
    """
    state = _loaded(path)
    for key in _WRAPPINGS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state:
        raise UsageError(f"{path} holds no state dict, but {_kind(state)}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UsageError(f"{path} holds no state dict of tensors by name: {name!r:.50} is {_kind(tensor)}")
        if flaw := _flaw(tensor):
            raise UsageError(f"{path} holds no usable weights: {name:.100} {flaw}")
    state = dict(state)
    for prefix in _PREFIXES:
        consume_prefix_in_state_dict_if_present(state, prefix)
    return {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in state.items()}


def _loaded(path: Path) -> object:
    check_file(path)
    try:
        if path.suffix == ".safetensors":
            return _safetensors(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of files and tensors that are refused just afterwards
            return torch.load(path, map_location="cpu", weights_only=True)
    except UsageError:
        raise
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} does not load as tensors alone, and loading anything else could run code: refused. Save the "
            "weights with torch.save(model.state_dict(), FILE)"
        ) from error
    except Exception as error:  # a damaged file makes torch.load raise whatever its bytes lead to
        raise UsageError(f"{path} is no file of weights that can be read: {reason(error)}") from error


def _safetensors(path: Path) -> object:
    try:
        return import_module("safetensors.torch").load_file(path)
    except ModuleNotFoundError as error:
        raise UsageError(f"{path}: pip install safetensors to read it") from error


def _kind(value: object) -> str:
    return f"{'an empty ' if value in ({}, [], ()) else 'a '}{type(value).__name__}"


def _flaw(tensor: Tensor) -> str:
    """Why a tensor can't be copied into a model, in words; empty if it can."""
    if tensor.is_meta:
        return "has no values (meta device)"
    if tensor.is_quantized:
        return "is quantised"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "is sparse or nested"
    if tensor.is_complex():
        return "is complex"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "shows more values than the file holds: save its clone()"
    return ""
