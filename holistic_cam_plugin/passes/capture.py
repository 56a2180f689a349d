"""Capture: one pass through the model that records activations and gradients of the target layers.

It stands where the library's `ActivationsAndGradients` stands, and leaves no trace: hooks live for one forward pass,
gradients never reach a parameter's `.grad`, and the graph begins at the earliest target layer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from holistic_cam_plugin.passes.batch_norms import light_batch_norms
from holistic_cam_plugin.passes.modes import MODES, eager, eval_mode
from holistic_cam_plugin.passes.records import Record, Reshaping, holds_tensors, like, tensors_of
from holistic_cam_plugin.passes.refusals import LayerError, LayoutError, layout_watched

__all__ = ["Capture", "check_target_layers"]

T = TypeVar("T")


class Capture:
    """Runs the model and records the target layers, in their order in `target_layers`.

    Called on an input it gives the model's output, with a graph that reaches down to the earliest target layer:
    `backward()` through it then fills `gradients`. It works under `no_grad` and `inference_mode` and for frozen models,
    since that layer's output is made a leaf of its own.

    Args:
        model: run in evaluation mode; its training flags are restored.
        target_layers: modules of `model`.
        reshape_transform: maps a layer's output and its gradient to `(B, C, h, w)`, as in the library; the output may
            be a dict or tuple of tensors then. A parameter `image_size` of it gets the image's height and width.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model = model
        self.target_layers = target_layers
        self.reshape_transform = reshape_transform
        self._takes_channels_last = True  # as far as is known
        self._watched = False  # whether the last images had their channels last for us, not for the user
        self._reshaping = Reshaping(reshape_transform)
        self._size: tuple[int, ...] = ()  # of the images of the last call
        self._records: dict[nn.Module, Record] = {}

    def __call__(self, images: Tensor, channels_last: bool = False) -> Any:
        """The model's output for `images`; records are replaced.

        The model gets a copy, which it may change in place. Other threads may run it meanwhile: what they do is not
        recorded.

        Args:
            images: `(B, C, H, W)` or `(B, C, D, H, W)`.
            channels_last: on a CPU, lay the images' channels last in memory, which convolutions are faster with.
                To be called within `settled`.

        Raises:
            TypeError: a target layer does not return a tensor.
            LayerError: a target layer did not run.
        """
        self.clear()
        self._size = tuple(images.shape[2:])
        thread = threading.get_ident()

        def record(layer: nn.Module, _: object, output: Any) -> Any:
            return self._record(layer, output) if threading.get_ident() == thread else None

        with ExitStack() as stack:
            stack.enter_context(eval_mode(self.model))
            stack.enter_context(eager())
            stack.enter_context(light_batch_norms(self.model))
            with MODES:  # PyTorch numbers hooks one at a time
                for layer in set(self.target_layers):
                    stack.callback(layer.register_forward_hook(record).remove)
            stack.enter_context(torch.inference_mode(False))
            # No graph below the earliest target layer: its hook enables gradients from there on.
            stack.enter_context(torch.no_grad())
            copies = self._copies(images, channels_last)
            with layout_watched(self._watched):
                outputs = self.model(copies)
        for layer in self.target_layers:
            if layer not in self._records:
                raise LayerError(f"target layer {self._name(layer)} did not run in the model's forward pass")
        return outputs

    def settled(self, run: Callable[[], T]) -> T:
        """`run()`; once more, from the beginning, if the model turns out not to take the channels last in memory.

        `view` and custom operators may insist on the usual order. From then on the model gets it at once.
        """
        try:
            return run()
        except LayoutError:
            self._takes_channels_last = False
        try:
            return run()
        except BaseException:
            self._takes_channels_last = True  # it was not the layout
            raise

    @property
    def activations(self) -> list[Tensor]:
        """The recorded activations, one `(B, C, h, w)` float32 tensor a target layer."""
        return [self._as_maps(self._records[layer], layer) for layer in self.target_layers if layer in self._records]

    @property
    def gradients(self) -> list[Tensor]:
        """Their gradients after a `backward()` through the output, in the same form; empty before."""
        records = [(layer, self._records[layer]) for layer in self.target_layers if layer in self._records]
        found = [(layer, record, [tensor.grad for tensor in tensors_of(record)]) for layer, record in records]
        return [
            self._signed_maps(record, gradients, layer)
            for layer, record, gradients in found
            if any(gradient is not None for gradient in gradients)
        ]

    def activations_and_gradients(self, score: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Activations and the gradients of `score` with respect to them; the graph and the records are freed.

        Returns:
            Two lists of `(B, C, h, w)` float32 tensors, one a target layer, on the model's device.

        Raises:
            LayerError: a target layer does not influence the score, or its maps are not 4-D.
        """
        activations, gradients = self.activations, self.gradients_of(score)
        self.clear()
        return activations, gradients

    def gradients_of(self, score: Tensor, keep_graph: bool = False) -> list[Tensor]:
        """The gradients of `score` with respect to the recorded activations, in their form.

        Args:
            score: a tensor without dimensions, made of the output.
            keep_graph: another score of the same output follows.

        Raises:
            LayerError: a target layer does not influence the score, or its maps are not 4-D.
        """
        records = [self._records[layer] for layer in self.target_layers]
        tensors = [tensors_of(record) for record in records]
        with layout_watched(self._watched):
            found = iter(torch.autograd.grad(score, [*chain(*tensors)], retain_graph=keep_graph, allow_unused=True))
        maps = []
        for layer, record, parts in zip(self.target_layers, records, tensors, strict=True):
            gradients = [next(found) for _ in parts]
            if all(gradient is None for gradient in gradients):
                raise LayerError(f"target layer {self._name(layer)} does not influence the targets' score")
            maps.append(self._signed_maps(record, gradients, layer))
        return maps

    def clear(self) -> None:
        """Forget what was recorded."""
        self._records.clear()

    def release(self) -> None:
        """Forget what was recorded; there are no hooks to remove between calls."""
        self.clear()

    def _copies(self, images: Tensor, channels_last: bool) -> Tensor:
        self._watched = False
        memory_format = torch.preserve_format
        if channels_last and images.device.type == "cpu":
            memory_format = torch.contiguous_format
            if self._takes_channels_last:
                self._watched = True
                memory_format = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
        return images.detach().clone(memory_format=memory_format)

    def _record(self, layer: nn.Module, output: Any) -> Any:
        if layer in self._records:  # a layer that runs twice: the first call counts, as in the library
            return None
        if not isinstance(output, Tensor) and (self.reshape_transform is None or not holds_tensors(output)):
            raise TypeError(
                f"target layer {self._name(layer)} returns a {type(output).__name__}, not a tensor: "
                "choose a layer inside it that returns the tensor to explain, or give a reshape_transform that joins "
                "its tensors, such as pytorch_grad_cam.utils.reshape_transforms.fasterrcnn_reshape_transform"
            )
        torch.set_grad_enabled(True)
        self._records[layer] = record = like(output, [_leaf(tensor) for tensor in tensors_of(output)])
        # The next layer may work in place (ReLU): it gets a copy, the record stays what the layer returned.
        return like(output, [tensor.clone() for tensor in tensors_of(record)])

    def _as_maps(self, record: Record, layer: nn.Module) -> Tensor:
        with layout_watched(self._watched):
            maps = self._reshaping.maps(record, self._size)
        return self._checked(maps, layer)

    def _signed_maps(self, record: Record, gradients: Sequence[Tensor | None], layer: nn.Module) -> Tensor:
        with layout_watched(self._watched):
            maps = self._reshaping.signed_maps(record, gradients, self._size)
        return self._checked(maps, layer)

    def _checked(self, maps: Any, layer: nn.Module) -> Tensor:
        if isinstance(maps, Tensor) and maps.ndim == 2 + len(self._size):
            return maps.float()
        hint = "" if self.reshape_transform else "; transformers need a reshape_transform"
        given = f"shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else f"type {type(maps).__name__}"
        form = "(B, C, d, h, w)" if len(self._size) == 3 else "(B, C, h, w)"
        raise LayerError(f"target layer {self._name(layer)} gives activations of {given}, not {form}{hint}")

    def _name(self, layer: nn.Module) -> str:
        names = (name for name, module in self.model.named_modules() if module is layer)
        return f"{next(names, '')!r} ({type(layer).__name__})"


def _leaf(output: Tensor) -> Tensor:
    """The tensor as a leaf of its own, or in its graph where an earlier target layer lies below."""
    if not output.requires_grad:
        return output.detach().requires_grad_()
    output.retain_grad()
    return output


def check_target_layers(model: nn.Module, target_layers: Sequence[nn.Module]) -> None:
    """Raise TypeError or ValueError unless `target_layers` is a list of modules of the module `model`, at least one."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {model!r}")
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
