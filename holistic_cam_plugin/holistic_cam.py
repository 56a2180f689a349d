"""Holistic-CAM as a class of the pytorch-grad-cam library.

    image -> pyramid -> capture -> weighting -> fuse -> low_pass_wrap -> map

Paper: "Holistic-CAM: Ultra-lucid and Sanity Preserving Visual Interpretation in Holistic Stage of CNNs", ACM MM 2024.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.base_cam import BaseCAM
from torch import Tensor, nn

from holistic_cam_plugin.method.intermediates import Intermediates
from holistic_cam_plugin.method.low_pass_wrap import check_kernels, check_power, denoising_mask
from holistic_cam_plugin.method.normalize import min_max_normalize
from holistic_cam_plugin.method.pge import check_eps
from holistic_cam_plugin.method.pyramid import (
    check_images,
    check_interpolation,
    check_multiples,
    check_positive_integer,
    check_pyramid,
    check_switch,
    pyramid_sizes,
)
from holistic_cam_plugin.method.weighting import Weighting, weighting_by_name
from holistic_cam_plugin.passes.capture import Capture, check_target_layers
from holistic_cam_plugin.passes.clock import stage
from holistic_cam_plugin.passes.index_targets import Index, index_targets
from holistic_cam_plugin.passes.modes import check_mixed_precision, eval_mode, unwrapped
from holistic_cam_plugin.passes.one_scale import native_pass, together
from holistic_cam_plugin.passes.outputs import Outputs, joined
from holistic_cam_plugin.passes.stacks import Stack, pyramid_stacks
from holistic_cam_plugin.passes.targets import Target, Targets, targets_of_images

__all__ = ["HolisticCAM"]

Maps = NDArray[np.float32]
Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])
Kept = TypeVar("Kept")

_GATED = 'weighting="gated" goes with the next minor version; weighting="positive" shows the object, not a part of it'


class HolisticCAM(BaseCAM):
    """High-resolution class-activation maps from shallow to deep layers; use it wherever `GradCAM` was used.

    The model, its gradients, flags, modes and hooks are as before after every call, also after an exception. Threads
    may share a model, each with an object of its own; calls of one object wait for one another.

    Args:
        model: any module that maps images `(B, C, H, W)`, or volumes and videos `(B, C, D, H, W)`, to one tensor with a
            row an image, or to detections: a list of dicts. `DataParallel` and `torch.compile` wrappers are taken off.
        target_layers: modules of `model`; several layers give the mean of their maps.
        reshape_transform: maps a layer's output and its gradient to `(B, C, h, w)`, as in the library. A parameter
            `image_size` of it gets the height and width of what goes through the model.
        compute_input_gradient, uses_gradients, detach: accepted because the library's meta-methods pass them on; the
            maps are always made of gradients and always detached.
        tta_transforms: augmentations of `aug_smooth`, as in the library.
        num_scales: T, scales of the pyramid (eq. 9).
        max_size: zeta_T, in pixels (eq. 9).
        sizes: shorter sides of the pyramid in pixels instead of the formula; the first is the base scale. `"fast"`: the
            image's own size and 366/224 and 509/224 of it, about a seventh of the time. Maps are nearly as good, but
            coarser in the deepest layers.
        eps: the constant of the positive gradient enhancement (eq. 8); of `"pge"` alone.
        weighting: what the activations are weighed by: `"pge"`, the paper's positive gradients (eq. 6, 8);
            `"positive"`, the positive gradients as they are, whose maps show the object in every layer and do not
            depend on the scale of the logits; `"gradient"`, the raw gradients (the ablation without PGE); `"gated"`,
            deprecated.
        fsd: mask the fused map with the base scale's (eq. 13-16); off, the result is the primary map (eq. 12).
        blur_size: window of the mask's median filter in pixels of the map, odd, at most 255. None: 51 at 224 px, and
            in proportion to the shorter side.
        ksize: window of the mask's box filter likewise. None: 91 at 224 px, 31 with the gated weighting.
        mask_power: of the mask. None: 1, 4 with the gated weighting.
        multiple_of: enlarged sides are rounded to multiples of this number of pixels, for models that refuse
            others (14, 16, 32). The input's own sides must be multiples already.
        interpolation: how the image is enlarged, `"bilinear"` or `"bicubic"`.
        tiles: for models that take no other size than the input's: enlarged images are covered by overlapping windows
            of that size, whose activations and gradients are put together. Not with `multiple_of`: the model sees no
            other size.
        amp: run the model in bfloat16 where PyTorch holds it safe (autocast), and all else in float32: faster, with
            slightly other maps. On any device that has bfloat16; for models in float32.
        batch_size: images whose pyramids are held together; can be set later. It bounds the memory whatever the
            number of images; larger values pay on a GPU. Their large scales go through the model a few at a time.
        progress: wraps the iteration over the scales, for example `tqdm.tqdm`.
        weights: the former name of `weighting`, deprecated.

    Attributes:
        outputs: the model's output for the untouched images of the last call, detached.

    Raises:
        TypeError, ValueError: an argument that can't work, before anything runs.
    """

    model: nn.Module

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
        compute_input_gradient: bool = False,
        uses_gradients: bool = True,
        tta_transforms: Any = None,
        detach: bool = True,
        *,
        num_scales: int = 7,
        max_size: int = 1000,
        sizes: Sequence[int] | str | None = None,
        eps: float = 1e-5,
        weighting: str = "pge",
        fsd: bool = True,
        blur_size: int | None = None,
        ksize: int | None = None,
        mask_power: float | None = None,
        multiple_of: int = 1,
        interpolation: str = "bilinear",
        tiles: bool = False,
        amp: bool = False,
        batch_size: int = 1,
        progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
        weights: str | None = None,
    ) -> None:
        model = unwrapped(model)
        check_target_layers(model, target_layers)
        check_mixed_precision(amp, model)
        self.num_scales = num_scales
        self.max_size = max_size
        self.sizes = sizes
        self.eps = eps
        self.weighting = weighting if weights is None else _renamed(weights)
        if self.weighting == "gated":
            warnings.warn(_GATED, DeprecationWarning, stacklevel=2)
        self.fsd = fsd
        self.blur_size = blur_size
        self.ksize = ksize
        self.mask_power = mask_power
        self.multiple_of = multiple_of
        self.interpolation = interpolation
        self.tiles = tiles
        self.amp = amp
        self.batch_size = batch_size
        self.progress = progress
        self._check_parameters()
        self._contexts: list[ExitStack] = []  # evaluation mode, one for each `with` that is open
        self._lock = threading.RLock()  # held by a call
        self._running = False
        self.outputs: Outputs | None = None
        with eval_mode(model):  # the library's constructor leaves the model in evaluation mode
            super().__init__(
                model,
                list(target_layers),
                reshape_transform,
                compute_input_gradient,
                uses_gradients,
                tta_transforms,
                detach,
            )

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Targets | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> Maps:
        """Saliency maps of the images.

        Args:
            input_tensor: preprocessed images `(B, C, H, W)` or volumes `(B, C, D, H, W)`, floating point, on any
                device.
            targets: one callable an image that maps its output to a scalar; None: each image's best-scoring class,
                decided once, on the untouched image. Or one list of such callables an image: they share the passes
                through the model.
            aug_smooth: mean over the library's test-time augmentations (six pyramids instead of one).
            eigen_smooth: first principal component of the weighted activations instead of their sum.

        Returns:
            `(B, H, W)` or `(B, D, H, W)`, float32, finite, in [0, 1] (eq. 17). A map with no evidence at all is zero,
            with a warning. With lists of targets, one map a target, those of the first image first: `(targets of all
            images, H, W)`.

        Raises:
            TypeError, ValueError: input, targets or outputs that can't work; the message says what to do.
        """
        if aug_smooth:
            return self.forward_augmentation_smoothing(input_tensor, targets, eigen_smooth)
        return self.forward(input_tensor, targets, eigen_smooth)

    def forward(self, input_tensor: Tensor, targets: Targets | None = None, eigen_smooth: bool = False) -> Maps:
        """`__call__` without augmentations."""
        return self.aggregate_multi_layers(self.compute_cam_per_layer(input_tensor, targets, eigen_smooth))

    def forward_augmentation_smoothing(
        self, input_tensor: Tensor, targets: Targets | None = None, eigen_smooth: bool = False
    ) -> Maps:
        """`__call__` with augmentations: all of them explain the class of the untouched image."""
        images, chosen = self._checked(input_tensor, targets)
        with self._lock:
            native = together(
                [
                    native_pass(self._capture, images[some], None if chosen is None else chosen[some])
                    for some in self._batches(len(images))
                ]
            )
            maps: Maps = super().forward_augmentation_smoothing(images, native.targets, eigen_smooth)
            self.outputs = native.outputs
        return maps

    def compute_cam_per_layer(
        self, input_tensor: Tensor, targets: Targets | None, eigen_smooth: bool = False
    ) -> list[Maps]:
        """The map of every target layer: one `(maps, 1, H, W)` (or `(maps, 1, D, H, W)`) array a layer, float32, each
        map scaled to [0, 1].

        The whole pyramid runs here, so that methods of the library that never call `forward` (FinerCAM) get it too.
        """
        layers = self._kept(lambda step: step.saliency_map, input_tensor, targets, eigen_smooth)
        return [np.stack(maps)[:, None] for maps in layers]

    def intermediates(
        self, input_tensor: Tensor, targets: Targets | None = None, eigen_smooth: bool = False
    ) -> list[list[Intermediates]]:
        """What lies between the stages of one call: for every target layer, one record a map.

        Arguments and errors are those of the call. All of the images' scales are held at once.
        """
        return self._kept(lambda step: step, input_tensor, targets, eigen_smooth)

    def attribute(self, inputs: Inputs, target: Index | None = None) -> Inputs:
        """Maps that are not scaled to [0, 1], in the form of captum's attributions: for its metrics and its plots.

        Args:
            inputs: `input_tensor` of the call, or a tuple of it alone.
            target: as in captum: a class index, or a tuple of indices of one entry of each image's output, such as
                `(category, row, column)` of a segmentation; a list of these or a tensor `(B,)`: one an image. None:
                each image's best-scoring class.

        Returns:
            `(B, 1, H, W)` or `(B, 1, D, H, W)`, float32, on the model's device, detached: each image's
            `Intermediates.masked`, in the units of the fused map; of several layers the mean. `expand_as(inputs)` gives
            what wants the inputs' shape, such as captum's `infidelity`. A tuple of it where `inputs` is one.

        Raises:
            TypeError, ValueError: as in the call, and targets that are no indices or as many as there are no images.
        """
        images, _ = self._checked(_single(inputs), None)
        layers = self._kept(lambda step: step.masked, images, index_targets(target, len(images)), False)
        maps = torch.tensor(np.mean(layers, axis=0)[:, None], dtype=torch.float32, device=self.device)
        if isinstance(inputs, tuple):
            return (maps,)
        return maps

    def aggregate_multi_layers(self, cam_per_target_layer: Sequence[Maps]) -> Maps:
        """Mean over the layers' maps, scaled to [0, 1]: `(B, H, W)`, float32."""
        if len(cam_per_target_layer) == 1:
            return cam_per_target_layer[0][:, 0]
        return np.stack([min_max_normalize(m) for m in np.concatenate(cam_per_target_layer, axis=1).mean(axis=1)])

    @property
    def weights(self) -> str:
        """The former name of `weighting`."""
        return self.weighting

    @weights.setter
    def weights(self, name: str) -> None:
        self.weighting = _renamed(name)

    @property
    def activations_and_grads(self) -> Capture:
        """What runs the model and records the target layers, in the form of the library's ActivationsAndGradients."""
        return self._capture

    @activations_and_grads.setter
    def activations_and_grads(self, other: Any) -> None:
        # The library's constructor and some tools set the library's recorder here. Its hooks would see every forward
        # pass of the model, so only what it was made for is taken over.
        if not isinstance(other, Capture):
            other.release()
            other = Capture(self.model, self.target_layers, other.reshape_transform, self.amp)
        self.reshape_transform = other.reshape_transform
        self._capture: Capture = other

    def __enter__(self) -> HolisticCAM:
        self._contexts.append(ExitStack())
        self._contexts[-1].enter_context(eval_mode(self.model))
        return self

    def __exit__(self, *_: object) -> None:  # errors propagate, unlike in the library
        self._capture.release()
        if self._contexts:  # SESS leaves what it never entered
            self._contexts.pop().close()

    def __del__(self) -> None:
        for context in reversed(getattr(self, "_contexts", [])):  # none if the constructor refused its arguments
            context.close()

    def __getstate__(self) -> dict[str, Any]:
        # A copy holds no lock and is in no `with`.
        return {name: value for name, value in self.__dict__.items() if name not in ("_contexts", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _contexts=[], _lock=threading.RLock(), _running=False)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Other threads' calls of this object wait; one from inside of this call is an error."""
        with self._lock:
            if self._running:
                raise RuntimeError(
                    "a target, or the model, asks the object that is explaining it: give it a HolisticCAM of its own"
                )
            self._running = True
            try:
                yield
            finally:
                self._running = False

    def _checked(self, input_tensor: Tensor, targets: Targets | None) -> tuple[Tensor, list[list[Target]] | None]:
        """The border: images on the model's device, and a list of targets for each of them, if there are any."""
        self._check_parameters()
        self._follow_attributes()
        check_mixed_precision(self.amp, self.model)
        images = check_images(input_tensor, self.device, volumes=True)
        if self.tiles and images.ndim == 5:
            raise ValueError("tiles=True covers images; volumes need a model that takes any size, or num_scales=1")
        return images, targets_of_images(targets, len(images))

    def _batches(self, images: int) -> Iterator[slice]:
        """The images that are held together."""
        for first in range(0, images, self.batch_size):
            yield slice(first, first + self.batch_size)

    def _kept(
        self, keep: Callable[[Intermediates], Kept], input_tensor: Tensor, targets: Targets | None, eigen_smooth: bool
    ) -> list[list[Kept]]:
        """What is kept of every map, layer by layer."""
        layers: list[list[Kept]] = [[] for _ in self.target_layers]
        with self._alone():
            for layer, step in self._steps(input_tensor, targets, eigen_smooth):
                layers[layer].append(keep(step))
        return layers

    def _steps(
        self, input_tensor: Tensor, targets: Targets | None, eigen_smooth: bool
    ) -> Iterator[tuple[int, Intermediates]]:
        """Every layer's maps with what they are made of, a batch at a time, in the order of the targets in each."""
        images, chosen = self._checked(input_tensor, targets)
        height, width = images.shape[-2:]
        depth = images.shape[2] if images.ndim == 5 else None
        sizes = pyramid_sizes(height, width, self.num_scales, self.max_size, self.sizes, depth, self.multiple_of)
        outputs: list[Outputs] = []
        for some in self._batches(len(images)):
            with (
                stage("model", images.device),
                eval_mode(self.model),
                torch.inference_mode(False),
                torch.enable_grad(),
            ):
                output, stacks = pyramid_stacks(
                    self._capture,
                    images[some],
                    None if chosen is None else chosen[some],
                    sizes,
                    self._weights,
                    self.interpolation,
                    self.progress,
                    tiles=self.tiles,
                )
            outputs.append(output)
            for layer, layer_stacks in enumerate(stacks):
                for stack in layer_stacks:
                    for step in self._maps(stack, tuple(images.shape[2:]), eigen_smooth):
                        yield layer, step
        self.outputs = joined(outputs)

    def _weights(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Element-wise weights at one scale, `(B, C, h, w)`."""
        return weighting_by_name(self.weighting).weigh(activations, gradients, self.eps)

    def _maps(self, stack: Stack, size: tuple[int, ...], eigen_smooth: bool) -> Iterator[Intermediates]:
        """One map a target, `(H, W)` or `(D, H, W)`, of one image in one target layer."""
        weighting = weighting_by_name(self.weighting)
        device = stack.activations[0].device
        for weights in stack.weights:
            base = mask = None
            with stage("fusing", device):
                fused = _as_numpy(weighting.fuse(stack.activations, weights, size, eigen_smooth))
                if self.fsd:
                    base = _as_numpy(weighting.fuse(stack.activations[:1], weights[:1], size, False))
            if base is not None:
                with stage("mask", device):
                    mask = self._mask(base, weighting)
            saliency_map = min_max_normalize(fused if mask is None else fused.astype(np.float64) * mask)
            yield Intermediates(stack.activations, weights, fused, base, mask, saliency_map)

    def _mask(self, base: Maps, weighting: Weighting) -> NDArray[np.float64]:
        """The mask that goes with the weighting, but for what the user chose."""
        power = weighting.mask_power if self.mask_power is None else self.mask_power
        return denoising_mask(base, self.blur_size, self.ksize, ksize_at_224=weighting.ksize_at_224, power=power)

    def _follow_attributes(self) -> None:
        """Explain what the attributes name, also where they were set after the construction."""
        capture = self._capture
        pairs = (
            (capture.model, self.model),
            (capture.target_layers, self.target_layers),
            (capture.reshape_transform, self.reshape_transform),
            (capture.amp, self.amp),
        )
        if all(used is named for used, named in pairs):
            return
        self.model = unwrapped(self.model)
        check_target_layers(self.model, self.target_layers)
        self._capture = Capture(self.model, self.target_layers, self.reshape_transform, self.amp)

    def _check_parameters(self) -> None:
        check_pyramid(self.num_scales, self.max_size, self.sizes)
        check_eps(self.eps)
        weighting_by_name(self.weighting)
        check_switch("fsd", self.fsd)
        check_switch("tiles", self.tiles)
        check_kernels(self.blur_size, self.ksize)
        check_power("mask_power", self.mask_power)
        check_multiples(self.multiple_of, self.tiles)
        check_interpolation(self.interpolation)
        check_positive_integer("batch_size", self.batch_size)


def _single(inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The one tensor of captum's inputs."""
    if not isinstance(inputs, tuple):
        return inputs
    if len(inputs) != 1:
        raise TypeError(
            f"inputs must be one tensor, got a tuple of {len(inputs)}: the model is explained for one input"
        )
    return inputs[0]


def _as_numpy(fused: Tensor) -> Maps:
    array: Maps = torch.nan_to_num(fused).cpu().numpy()
    return array


def _renamed(weights: str) -> str:
    warnings.warn(
        f"weights= is now called weighting=, and goes with the next minor version: pass weighting={weights!r}",
        DeprecationWarning,
        stacklevel=3,
    )
    return weights
