"""Capture: records activations and gradients of the target layers in one pass through the model.

It replaces pytorch-grad-cam's `ActivationsAndGradients` and has no side effects: hooks live for one forward pass,
gradients never reach a parameter's `.grad`, and the graph begins at the earliest target layer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from holistic_cam_plugin.passes.batch_norms import light_batch_norms
from holistic_cam_plugin.passes.inference_tensors import INFERENCE_TENSOR, normal_tensors
from holistic_cam_plugin.passes.interrupts import uninterrupted
from holistic_cam_plugin.passes.model_state import eval_mode, mixed_precision, uncompiled
from holistic_cam_plugin.passes.records import Record, Reshaping, holds_tensors, like, tensors_of
from holistic_cam_plugin.passes.refusals import (
    CHECKPOINT,
    LayerError,
    check_layer,
    check_model,
    checkpoint_errors,
    describe_gap,
    in_reentrant_checkpoint,
)
from holistic_cam_plugin.passes.rnns import native_rnns

__all__ = ["DEEPEST", "Capture", "check_mask_layer", "check_target_layers"]

DEEPEST = "deepest"  # the mask layer that is found at the first call


class Capture:
    """Runs the model and records the target layers, in their order in `target_layers`.

    Called on images, it returns the model's output with a graph that reaches to the earliest target layer; `backward()`
    through it fills `gradients`. That layer's output becomes a leaf, so frozen models, `no_grad` and `inference_mode`
    are supported.

    Args:
        model: run in evaluation mode; its training flags are restored.
        target_layers: modules of `model`.
        reshape_transform: maps a layer's output and its gradient to `(B, C, h, w)`, as in pytorch-grad-cam; the output
            may then be a dict, list or tuple of tensors. If it has a parameter `image_size`, it gets the images' size.
        amp: run the model under autocast to bfloat16; an output that is one tensor is converted to float32.

    Attributes:
        mask_layer: another module to record, after the target layers; None for no other.
        mask_optional: give zeros if the score does not depend on the mask layer, instead of a LayerError.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
        amp: bool = False,
    ) -> None:
        self.model = model
        self.target_layers = target_layers
        self.reshape_transform = reshape_transform
        self.amp = amp
        self.mask_layer: nn.Module | None = None
        self.mask_optional = False
        self._channels_last = True  # until the model refuses
        self._reshaping = Reshaping(reshape_transform)
        self._size: tuple[int, ...] = ()  # of the images of the last call
        self._records: dict[nn.Module, Record] = {}
        self._finished: list[nn.Module] = []  # the recorded layers in the order in which they finished

    @property
    def layers(self) -> list[nn.Module]:
        """The recorded layers: the target layers, and after them the mask layer if it is none of them."""
        if self.mask_layer is None or self.mask_layer in self.target_layers:
            return list(self.target_layers)
        return [*self.target_layers, self.mask_layer]

    def __call__(self, images: Tensor, channels_last: bool = False) -> Any:
        """Run the model on a copy of `images` and return its output; the records are replaced.

        Args:
            images: `(B, C, H, W)` or `(B, C, D, H, W)`.
            channels_last: on a CPU, try the channels-last memory format, in which convolutions are faster. A model that
                raises then gets its images in the contiguous format, and so do all later calls if it takes them.

        Raises:
            TypeError: a target layer does not return a tensor.
            LayerError: a target layer did not run.
        """
        if not channels_last or images.device.type != "cpu":
            return self._run(images, torch.preserve_format)
        if self._channels_last:
            with suppress(Exception):  # whatever it is: without another cause, the contiguous format helps
                return self._run(images, torch.channels_last if images.ndim == 4 else torch.channels_last_3d)
        outputs = self._run(images, torch.contiguous_format)
        self._channels_last = False
        return outputs

    @property
    def activations(self) -> list[Tensor]:
        """The recorded activations, one `(B, C, h, w)` float32 tensor per layer, as in `layers`."""
        return [self._as_maps(self._records[layer], layer) for layer in self.layers if layer in self._records]

    @property
    def gradients(self) -> list[Tensor]:
        """Their gradients after a `backward()` through the output, in the same shapes; empty before."""
        records = [(layer, self._records[layer]) for layer in self.layers if layer in self._records]
        found = [(layer, record, [tensor.grad for tensor in tensors_of(record)]) for layer, record in records]
        return [
            self._signed_maps(record, gradients, layer)
            for layer, record, gradients in found
            if any(gradient is not None for gradient in gradients)
        ]

    def activations_and_gradients(self, score: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The activations and the gradients of `score` with respect to them; the graph and the records are freed.

        Returns:
            Two lists with one `(B, C, h, w)` float32 tensor per layer, on the model's device.

        Raises:
            LayerError: a target layer does not influence the score, or its maps are not 4-D.
        """
        activations, gradients = self.activations, self.gradients_of(score)
        self.clear()
        return activations, gradients

    def gradients_of(self, score: Tensor, keep_graph: bool = False) -> list[Tensor]:
        """The gradients of `score` with respect to the recorded activations, in their shapes.

        Args:
            score: a 0-dimensional tensor, computed from the output.
            keep_graph: keep the graph for another score of the same output.

        Raises:
            LayerError: a target layer does not influence the score, or its maps are not 4-D.
        """
        records = [self._records[layer] for layer in self.layers]
        tensors = [tensors_of(record) for record in records]
        with checkpoint_errors():
            found = iter(torch.autograd.grad(score, [*chain(*tensors)], retain_graph=keep_graph, allow_unused=True))
        maps = []
        for layer, record, parts in zip(self.layers, records, tensors, strict=True):
            gradients = [next(found) for _ in parts]
            optional = self.mask_optional and layer not in self.target_layers
            if all(gradient is None for gradient in gradients) and not optional:
                raise LayerError(f"{self._name(layer)} does not influence the targets' score{describe_gap(self.model)}")
            maps.append(self._signed_maps(record, gradients, layer))
        return maps

    def check_rows(self, activations: Sequence[Tensor], images: int) -> None:
        """Raise LayerError unless every layer gives one row of maps per image."""
        for layer, maps in zip(self.layers, activations, strict=True):
            if len(maps) != images:
                raise LayerError(
                    f"{self._name(layer)} returns {len(maps)} rows for {images} images: pass a layer that returns one "
                    "row of maps per image, or a reshape_transform that joins them"
                )

    def clear(self) -> None:
        """Delete the records."""
        self._records.clear()

    def release(self) -> None:
        """Delete the records; between calls there are no hooks to remove."""
        self.clear()

    def _run(self, images: Tensor, memory_format: torch.memory_format) -> Any:
        self._size = tuple(images.shape[2:])
        try:
            outputs = self._run_recorded(images, memory_format)
        except RuntimeError as error:
            if INFERENCE_TENSOR not in str(error):
                raise
            with normal_tensors(self.model):
                outputs = self._run_recorded(images, memory_format)
        for layer in self.layers:
            if layer not in self._records:
                raise LayerError(f"{self._name(layer)} did not run in the model's forward pass")
        self._finished = [*self._records]
        return outputs

    def _run_recorded(self, images: Tensor, memory_format: torch.memory_format) -> Any:
        self.clear()
        with uninterrupted(self._recording(images.device)):
            outputs = self.model(images.detach().clone(memory_format=memory_format))
            return outputs.float() if self.amp and isinstance(outputs, Tensor) else outputs

    def is_after_mask(self, layer: nn.Module) -> bool:
        """Whether a target layer finished after the mask layer in the last pass."""
        assert self.mask_layer is not None
        return self._finished.index(layer) > self._finished.index(self.mask_layer)

    @contextmanager
    def _recording(self, device: torch.device) -> Iterator[None]:
        """The state of the model, of PyTorch and of the target layers' hooks during one forward pass."""
        thread = threading.get_ident()

        def record(layer: nn.Module, _: object, output: Any) -> Any:
            # Another thread may run the model without this package, and so without waiting.
            return self._record(layer, output) if threading.get_ident() == thread else None

        with ExitStack() as stack:
            stack.enter_context(eval_mode(self.model))
            stack.enter_context(uncompiled())
            stack.enter_context(light_batch_norms(self.model))
            stack.enter_context(native_rnns(self.model))
            for layer in set(self.layers):
                stack.callback(layer.register_forward_hook(record).remove)
            stack.enter_context(torch.inference_mode(False))
            # No graph below the earliest target layer: its hook enables gradients from there on.
            stack.enter_context(torch.no_grad())
            stack.enter_context(mixed_precision(self.amp, device))
            yield

    def _record(self, layer: nn.Module, output: Any) -> Any:
        if layer in self._records:  # of a layer that runs twice, the first call counts, as in pytorch-grad-cam
            return None
        if not isinstance(output, Tensor) and (self.reshape_transform is None or not holds_tensors(output)):
            raise TypeError(
                f"{self._name(layer)} returns a {type(output).__name__}, not a tensor: "
                "pass a layer inside it that returns a tensor, or a reshape_transform that joins "
                "its tensors, such as holistic_cam_plugin.fpn_reshape_transform for feature pyramids"
            )
        if not all(tensor.is_floating_point() for tensor in tensors_of(output)):
            dtypes = ", ".join(sorted({str(tensor.dtype) for tensor in tensors_of(output)}))
            cause = describe_gap(self.model) or ": pass a layer that returns floating-point maps"
            raise LayerError(f"{self._name(layer)} returns {dtypes}, which has no gradients{cause}")
        if in_reentrant_checkpoint():
            raise LayerError(f"{self._name(layer)} runs in {CHECKPOINT}")
        torch.set_grad_enabled(True)
        self._records[layer] = record = like(output, [_leaf(tensor) for tensor in tensors_of(output)])
        # The next layer may work in place (ReLU), so it gets a copy.
        return like(output, [tensor.clone() for tensor in tensors_of(record)])

    def _as_maps(self, record: Record, layer: nn.Module) -> Tensor:
        return self._check_maps(self._reshaping.maps(record, self._size), layer)

    def _signed_maps(self, record: Record, gradients: Sequence[Tensor | None], layer: nn.Module) -> Tensor:
        return self._check_maps(self._reshaping.signed_maps(record, gradients, self._size), layer)

    def _check_maps(self, maps: Any, layer: nn.Module) -> Tensor:
        if isinstance(maps, Tensor) and maps.ndim == 2 + len(self._size):
            return maps.float()
        hint = "" if self.reshape_transform else "; transformers need a reshape_transform"
        if len(self._size) == 3 and isinstance(maps, Tensor) and maps.ndim == 4:
            hint = "; it sees slices, frames or views as images of their own: explain one of them as (B, C, H, W)"
        given = f"shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else f"type {type(maps).__name__}"
        form = "(B, C, d, h, w)" if len(self._size) == 3 else "(B, C, h, w)"
        raise LayerError(f"{self._name(layer)} returns activations of {given}, not {form}{hint}")

    def _name(self, layer: nn.Module) -> str:
        names = (name for name, module in self.model.named_modules() if module is layer)
        kind = "target layer" if layer in self.target_layers else "mask layer"
        return f"{kind} {next(names, '')!r} ({type(layer).__name__})"


def _leaf(output: Tensor) -> Tensor:
    """The tensor as a leaf, or with its gradient retained if an earlier target layer lies below."""
    if not output.requires_grad:
        return output.detach().requires_grad_()
    output.retain_grad()
    return output


def check_target_layers(model: nn.Module, target_layers: Sequence[nn.Module]) -> None:
    """Raise TypeError or ValueError unless `target_layers` is a list of modules of the module `model`, at least one."""
    check_model(model)
    advice = "pass a list of the model's modules, such as [model.layer4]"
    if not isinstance(target_layers, (list, tuple)):
        raise TypeError(f"target_layers must be a list, got a {type(target_layers).__name__}: {advice}")
    if not target_layers:
        raise ValueError(f"target_layers is empty: {advice}")
    modules = set(model.modules())
    for layer in target_layers:
        if not isinstance(layer, nn.Module):
            raise TypeError(f"every target layer must be a module, got {layer!r}: {advice}")
        if layer not in modules:
            raise ValueError(f"a target layer of type {type(layer).__name__} is not part of the model: {advice}")
        check_layer(model, layer)


def check_mask_layer(mask_layer: nn.Module | str | None, model: nn.Module) -> None:
    """Raise TypeError or ValueError unless it is None, `"deepest"` or a module of `model`."""
    if mask_layer is None or mask_layer == DEEPEST:
        return
    if not isinstance(mask_layer, nn.Module):
        raise TypeError(f"mask_layer must be a module of the model, {DEEPEST!r} or None, got {mask_layer!r}")
    if mask_layer not in set(model.modules()):
        raise ValueError(f"the mask layer of type {type(mask_layer).__name__} is not part of the model")
