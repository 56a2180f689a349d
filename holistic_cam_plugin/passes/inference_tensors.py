"""Models with tensors from `torch.inference_mode`, which PyTorch refuses to save for a backward pass.

A model whose weights were loaded in inference mode has them, and one that keeps a tensor of its first pass (anchors, a
grid of positions) and ran in inference mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from holistic_cam_plugin.passes.interrupts import uninterrupted
from holistic_cam_plugin.passes.refusals import LayerError

__all__ = ["INFERENCE_TENSOR", "normal_tensors"]

# In the error of PyTorch.
INFERENCE_TENSOR = "nference tensor"


def normal_tensors(model: nn.Module) -> AbstractContextManager[None]:
    """Replace the inference tensors that the modules hold by copies in the body, and put them back afterwards.

    Raises:
        LayerError: the body fails because of one that no module holds.
    """
    return uninterrupted(_normal_tensors(model))


@contextmanager
def _normal_tensors(model: nn.Module) -> Iterator[None]:
    replaced: list[tuple[dict[str, Any], str, Any, Any]] = []
    copies: dict[int, Tensor] = {}
    try:
        with torch.inference_mode(False):
            for module in model.modules():
                for held in (module._parameters, module._buffers, vars(module)):
                    for name, value in list(held.items()):
                        copy = _copy(value, copies)
                        if copy is not value:
                            replaced.append((held, name, value, copy))
                            held[name] = copy
        yield
    except RuntimeError as error:
        if INFERENCE_TENSOR not in str(error):
            raise
        raise LayerError(
            "the model uses a tensor from torch.inference_mode() that none of its modules holds: make it again outside "
            "of inference mode, or under torch.no_grad()"
        ) from error
    finally:
        for held, name, value, copy in replaced:
            if held.get(name) is copy:  # the model may have made another one
                held[name] = value


def _copy(value: Any, copies: dict[int, Tensor]) -> Any:
    """The value with copies of its inference tensors; the value itself if it holds none."""
    if isinstance(value, Tensor):
        if not value.is_inference():
            return value
        if id(value) not in copies:
            plain = value.detach().clone()
            is_parameter = isinstance(value, nn.Parameter)
            copies[id(value)] = nn.Parameter(plain, value.requires_grad) if is_parameter else plain
        return copies[id(value)]
    if type(value) in (list, tuple):
        parts = [_copy(part, copies) for part in value]
        return type(value)(parts) if any(map(_differ, parts, value)) else value
    if type(value) is dict:
        made = {key: _copy(part, copies) for key, part in value.items()}
        return made if any(made[key] is not value[key] for key in value) else value
    return value


def _differ(one: object, other: object) -> bool:
    return one is not other
