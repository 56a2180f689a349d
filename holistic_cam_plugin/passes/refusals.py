"""Models, layers and inputs that cannot be explained, each with its cause and what to do, in one line."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy
from torch.utils.checkpoint import CheckpointFunction

from holistic_cam_plugin.errors import describe_error, out_of_memory

__all__ = [
    "CHECKPOINT",
    "LayerError",
    "check_frames",
    "check_lacking_inputs",
    "check_layer",
    "check_model",
    "check_weights",
    "checkpoint_errors",
    "describe_gap",
    "in_reentrant_checkpoint",
    "input_errors",
]

CHECKPOINT = (
    "a reentrant checkpoint, which hides its layers from torch.autograd.grad: pass use_reentrant=False to "
    "torch.utils.checkpoint, or turn gradient checkpointing off"
)
# What PyTorch says of a wrong number of channels: a convolution, a normalisation, and arithmetic.
_CHANNELS = (
    re.compile(r"to have (?P<taken>\d+) channels, but got (?P<given>\d+) channels"),
    re.compile(r"running_mean should contain (?P<given>\d+) elements not (?P<taken>\d+)"),
    re.compile(r"weight of shape \[(?P<taken>\d+)\] and input of shape \[\d+, (?P<given>\d+)"),
    re.compile(
        r"tensor a \((?P<given>\d+)\) must match the size of tensor b \((?P<taken>\d+)\) at non-singleton dimension 1"
    ),
)
_USUAL_CHANNELS = (1, 3)


class LayerError(ValueError):
    """A target layer that cannot be explained at any size of the image."""


def check_model(model: nn.Module) -> None:
    """Raise TypeError or ValueError if no layer of the model can be explained, whatever the images."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {model!r}")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"the model is a {type(model).__name__} of TorchScript, whose layers cannot be observed: pass the "
            "torch.nn.Module that was scripted or traced"
        )
    if isinstance(model, fx.GraphModule) and not _list_called(model):
        raise TypeError(
            "the model is an exported program, which runs operations without their layers: pass the torch.nn.Module "
            "that was exported, or torch.export.unflatten(program)"
        )


def check_weights(model: nn.Module) -> None:
    """Raise ValueError if the model has no weights, or none with values."""
    offloaded = any(hasattr(module, "_hf_hook") for module in model.modules())  # accelerate loads them in each pass
    if not offloaded and any(tensor.is_meta for tensor in chain(model.parameters(), model.buffers())):
        raise ValueError(
            'the model is on torch.device("meta"), which has no weights: move it with model.to_empty(device="cpu") and '
            "load a state dict"
        )
    if any(is_lazy(tensor) for tensor in chain(model.parameters(), model.buffers())):
        raise ValueError("the model has lazy layers that were never run: call it once on an image")
    if next(model.parameters(), None) is None:
        cause = describe_gap(model) or ": pass a model with weights"
        raise ValueError(f"the model has no parameters{cause}")


def check_layer(model: nn.Module, layer: nn.Module) -> None:
    """Raise TypeError or ValueError if hooks cannot observe this module of the model."""
    if isinstance(layer, torch.jit.ScriptModule):
        raise TypeError(
            f"a target layer is a {type(layer).__name__} of TorchScript, which cannot be observed: pass a layer "
            "outside of it, or a model that is not scripted or traced"
        )
    if isinstance(model, fx.GraphModule) and layer is not model:
        called = _list_called(model)
        if layer not in set(chain(*(module.modules() for module in called.values()))):
            names = ", ".join([*called][-3:])
            raise ValueError(
                f"the graph of the model does not call the target layer of type {type(layer).__name__}: pass one that "
                f"it calls, such as {names}, or the torch.nn.Module that was traced"
            )


def check_frames(model: nn.Module, images: Tensor) -> None:
    """Raise ValueError for frames or views `(B, T, C, H, W)`, which would be taken for channels and slices."""
    convolutions = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d))]
    volumes = any(isinstance(one, nn.Conv3d) and one.in_channels == images.shape[1] for one in convolutions)
    frames = convolutions and images.ndim == 5 and convolutions[0].in_channels == images.shape[2] != images.shape[1]
    if frames and (images.shape[2] in _USUAL_CHANNELS or not volumes):
        raise ValueError(
            f"input_tensor {tuple(images.shape)} holds frames or views (B, T, C, H, W), as the model takes "
            f"{images.shape[2]} channels: explain one of them as (B, C, H, W), with a model of single images, or "
            "pass (B, C, D, H, W) to a model of volumes"
        )


def describe_gap(model: nn.Module) -> str:
    """Why gradients may not reach a layer of this model, for the end of an error; empty if nothing is known."""
    if any(".quantized" in type(module).__module__ for module in model.modules()):
        return ": the model is quantised to integers, which have no gradients; pass the floating-point model"
    return ""


def in_reentrant_checkpoint() -> bool:
    """Whether the caller runs inside a reentrant checkpoint."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code is CheckpointFunction.forward.__code__:
            return True
    return False


@contextmanager
def checkpoint_errors() -> Iterator[None]:
    """Raise what PyTorch raises for a reentrant checkpoint as a LayerError."""
    try:
        yield
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise LayerError(f"a target layer comes before {CHECKPOINT}") from error


@contextmanager
def input_errors(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Raise what PyTorch raises for images of another dtype or number of channels as one line that names both."""
    try:
        yield
    except LayerError:
        raise
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        if out_of_memory(error):
            raise
        weights = next((p.dtype for p in model.parameters() if p.is_floating_point()), images.dtype)
        if weights != images.dtype and "type" in str(error):
            raise TypeError(
                f"input_tensor is {images.dtype}, the model's weights are {weights}: pass input_tensor.to({weights})"
            ) from error
        channels = next((found for pattern in _CHANNELS if (found := pattern.search(str(error)))), None)
        if channels is not None and int(channels["given"]) == images.shape[1]:
            axes = "(B, {}, H, W)" if images.ndim == 4 else "(B, {}, D, H, W)"
            raise ValueError(
                f"the model takes {channels['taken']} channels, but axis 1 of input_tensor has {channels['given']}: "
                f"pass {axes.format(channels['taken'])}"
            ) from error
        check_lacking_inputs(model, error)
        raise


def check_lacking_inputs(model: nn.Module, error: Exception) -> None:
    """Raise TypeError if the error says that an input of the model's `forward` beside the images is lacking."""
    if not re.search(r"'NoneType'|missing \d+ required", str(error)):
        return
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    inputs = [*inspect.signature(model.forward).parameters.values()][1:]
    lacking = [one.name for one in inputs if one.kind in kinds and one.default in (inspect.Parameter.empty, None)]
    if lacking:
        raise TypeError(
            f"the model does not run on images alone ({describe_error(error)}), its forward takes "
            f"{', '.join(lacking)}, too: wrap it in a module that adds them (for CLIP and the like, "
            "explainable(model, text=[...]) does)"
        ) from error


def _list_called(model: fx.GraphModule) -> dict[str, nn.Module]:
    """The modules that a graph calls; torch.export adds one of its own, which checks the input."""
    names = [str(node.target) for node in model.graph.nodes if node.op == "call_module"]
    return {name: model.get_submodule(name) for name in names if name != "_guards_fn"}
