r"""Batch norms whose graph holds one factor per channel instead of the input.

In evaluation mode a batch norm is $y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta$. Its gradient with
respect to x does not need x, but PyTorch's graph holds it, for the gradient of $\gamma$, which is not needed here. That
is nearly half of a ResNet's graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from holistic_cam_plugin.passes.interrupts import uninterrupted

__all__ = ["light_batch_norms"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_SIGNATURE = inspect.signature(F.batch_norm)


def light_batch_norms(model: nn.Module) -> AbstractContextManager[Any]:
    """Run batch norms in evaluation mode with graphs for the gradients of activations only.

    Their outputs are unchanged, and their gradients up to rounding.
    """
    # Without batch norms there is nothing to gain, and a mode disables PyTorch's fused attention.
    return _LightBatchNorms() if any(isinstance(module, _BATCH_NORMS) for module in model.modules()) else nullcontext()


class _LightBatchNorms(TorchFunctionMode):
    """Replaces `F.batch_norm` in this thread."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return (_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(*args: Any, **kwargs: Any) -> Tensor:
    """`F.batch_norm`; PyTorch's own without a graph, in training mode, under hooks, or with computed parameters."""
    call = _SIGNATURE.bind(*args, **kwargs)
    call.apply_defaults()
    x, mean, variance, weight, bias, training, _, eps = call.args
    made = any(part is not None and part.grad_fn is not None for part in (mean, variance, weight, bias))
    if not x.requires_grad or training or made or _hooked():
        return F.batch_norm(*args, **kwargs)
    normalized: Tensor = _Normalized.apply(x, mean, variance, weight, bias, eps)
    return normalized


def _hooked() -> bool:
    """Whether hooks see what the graph saves; those of a checkpoint expect the same when the model is run again."""
    try:
        with uninterrupted(torch.autograd.graph.disable_saved_tensors_hooks("batch norms need none")):
            return False
    except RuntimeError:
        return True


class _Normalized(torch.autograd.Function):
    """A batch norm in evaluation mode, differentiable with respect to its input only."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, variance, weight, _, eps = inputs
        factor = torch.rsqrt(variance + eps)
        ctx.save_for_backward(factor if weight is None else factor * weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = ctx.saved_tensors
        (gradient,) = gradients
        product = gradient * factor.view(-1, *[1] * (gradient.ndim - 2))
        return product.to(gradient.dtype), None, None, None, None, None
