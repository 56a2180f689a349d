"""Holistic-CAM as a class of pytorch-grad-cam.

    image -> pyramid -> capture -> weighting -> fuse -> mask -> map

Paper: "Holistic-CAM: Ultra-lucid and Sanity Preserving Visual Interpretation in Holistic Stage of CNNs", ACM MM 2024.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from types import FunctionType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.base_cam import BaseCAM
from torch import Tensor, nn

from holistic_cam_plugin.checks import check_images, check_positive_integer, check_switch
from holistic_cam_plugin.evidence import compute_evidence
from holistic_cam_plugin.method.class_mask import check_contrast
from holistic_cam_plugin.method.holistic_map import holistic_map
from holistic_cam_plugin.method.intermediates import Intermediates
from holistic_cam_plugin.method.low_pass_wrap import check_kernels
from holistic_cam_plugin.method.normalize import min_max_normalize
from holistic_cam_plugin.method.pge import check_eps
from holistic_cam_plugin.method.pyramid import check_interpolation, check_multiples, check_pyramid, pyramid_sizes
from holistic_cam_plugin.method.weighting import find_weighting
from holistic_cam_plugin.models.check_batch import check_batch
from holistic_cam_plugin.models.check_geometry import check_layers
from holistic_cam_plugin.models.mask_layer import find_mask_layer
from holistic_cam_plugin.passes.capture import DEEPEST, Capture, check_mask_layer, check_target_layers
from holistic_cam_plugin.passes.index_targets import Index, index_targets
from holistic_cam_plugin.passes.interrupts import uninterrupted, uninterruptible
from holistic_cam_plugin.passes.model_state import (
    check_mixed_precision,
    eval_flags,
    eval_mode,
    model_lock,
    unwrap_model,
)
from holistic_cam_plugin.passes.outputs import Outputs, join_outputs
from holistic_cam_plugin.passes.refusals import check_frames, check_weights, input_errors
from holistic_cam_plugin.passes.run import Original, Scale, check_scored, run_original, run_scale, warn_of_gaps
from holistic_cam_plugin.passes.targets import Target, Targets, list_targets

__all__ = ["HolisticCAM"]

# From `_explain` to the line that calls the object.
STACK_LEVEL = 4

SaliencyMaps = NDArray[np.float32]
Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])
Method = TypeVar("Method", bound=Callable[..., Any])


def _unwrappable(method: Method) -> Method:
    """Give a method `__wrapped__`, which captum calls to leave out its log of usage: a copy of the method."""
    function: Any = method
    copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    function.__wrapped__ = copy
    return method


class HolisticCAM(BaseCAM):
    """High-resolution class activation maps from shallow to deep layers; use it wherever `GradCAM` was used.

    After every call, also after an exception or Ctrl-C, the model's gradients, training flags and hooks are what they
    were before. Threads may share a model: their calls wait for one another.

    Args:
        model: any module that maps images `(B, C, H, W)`, or volumes and videos `(B, C, D, H, W)`, to one tensor with
            one row per image, or to detections: a list of dicts. `DataParallel` and `torch.compile` wrappers are
            removed.
        target_layers: modules of `model`; several layers give the mean of their maps.
        reshape_transform: maps a layer's output and its gradient to `(B, C, h, w)`, as in pytorch-grad-cam. If it has a
            parameter `image_size`, it gets the height and width of the images that the model sees.
        compute_input_gradient, uses_gradients, detach: accepted because meta-methods of pytorch-grad-cam pass them; the
            maps always use gradients and are always detached.
        tta_transforms: augmentations of `aug_smooth`, as in pytorch-grad-cam.
        num_scales: T, the number of scales (eq. 9).
        max_size: zeta_T in pixels (eq. 9).
        sizes: shorter sides of the pyramid in pixels, in place of eq. 9; the first is the base scale. `"fast"`: the
            image's own, and about 353/224 and 609/224 times that: a sixth of the pixels of seven scales, with maps
            as good, if the mask layer and `by_positions` are those of `ClassHolisticCAM`. With `tiles`, the image's own
            and the last. `"paper"`: eq. 9.
        eps: the constant of eq. 8; used by `"pge"` only.
        weighting: weights of the activations. `"pge"`: the paper's positive gradient enhancement (eq. 6, 8).
            `"positive"`: the positive gradients, whose maps show the object in every layer and do not depend on the
            scale of the logits. `"gradient"`: the raw gradients, for ablation.
        fsd: multiply the fused map by the mask (eq. 13 to 16); if False, the result is the primary map (eq. 12).
        mask_layer: module of `model` whose evidence for the class is the mask of all layers (see `class_evidence`); it
            should be the deepest one with positions. `"deepest"`: found at the first call, for its images and targets
            (see `find_mask_layer`). None: the paper's mask, made of the base scale's map of each target layer.
        contrast: exponent of the evidence's net share in the mask of `mask_layer` (see `class_evidence`).
        fuse_base: if False, the base scale is left out of what is fused, unless it is the only one.
        by_positions: weigh the scales by their number of positions.
        blur_size: window of the mask's median filter in pixels of the map, odd, at most 255. None: 51 for a shorter
            side of 224 px, and in proportion for others.
        ksize: window of the mask's box filter. None: 91 for 224 px.
        multiple_of: round the sides of enlarged images to multiples of this number of pixels, for models that refuse
            others (14, 16, 32). The input's own sides must be multiples.
        interpolation: how images are enlarged, `"bilinear"` or `"bicubic"`.
        tiles: for models that take one size only: cover enlarged images with overlapping windows of that size, and
            join their activations and gradients. Excludes `multiple_of`.
        amp: run the model under autocast to bfloat16, and everything else in float32: faster, with slightly different
            maps. For float32 models on devices with bfloat16.
        batch_size: images whose pyramids are processed together; bounds the memory. Increase it on a GPU.
        progress: a wrapper for the loop over scales, for example `tqdm.tqdm`.

    Attributes:
        outputs: the model's output for the original images of the last call, detached.

    Raises:
        TypeError, ValueError: an invalid argument; nothing has been run.

    Example:
        >>> from holistic_cam_plugin.demo import load_demo_model
        >>> model = load_demo_model()
        >>> with HolisticCAM(model, [model.layer3], sizes=[64, 96]) as cam:
        ...     cam(torch.rand(2, 3, 64, 64)).shape
        (2, 64, 64)
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
        mask_layer: nn.Module | str | None = None,
        contrast: float = 0.0,
        fuse_base: bool = True,
        by_positions: bool = False,
        blur_size: int | None = None,
        ksize: int | None = None,
        multiple_of: int = 1,
        interpolation: str = "bilinear",
        tiles: bool = False,
        amp: bool = False,
        batch_size: int = 1,
        progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    ) -> None:
        model = unwrap_model(model)
        check_target_layers(model, target_layers)
        check_mask_layer(mask_layer, model)
        check_mixed_precision(amp, model)
        check_weights(model)
        self.num_scales = num_scales
        self.max_size = max_size
        self.sizes = sizes
        self.eps = eps
        self.weighting = weighting
        self.fsd = fsd
        self.mask_layer = mask_layer
        self.contrast = contrast
        self.fuse_base = fuse_base
        self.by_positions = by_positions
        self.blur_size = blur_size
        self.ksize = ksize
        self.multiple_of = multiple_of
        self.interpolation = interpolation
        self.tiles = tiles
        self.amp = amp
        self.batch_size = batch_size
        self.progress = progress
        self._check_parameters()
        self._with_blocks: list[ExitStack] = []  # evaluation mode of each open `with` block
        self._running = False
        self._deepest: nn.Module | None = None  # the mask layer found
        self.outputs: Outputs | None = None
        # BaseCAM's constructor leaves the model in evaluation mode, and hooks until `activations_and_grads` is set.
        with eval_mode(model):
            uninterruptible(super().__init__)(
                model,
                list(target_layers),
                reshape_transform,
                compute_input_gradient,
                uses_gradients,
                tta_transforms,
                detach,
            )

    def __repr__(self) -> str:
        """Names the model's class, the target layers and the parameters that are not the defaults."""
        names = {module: name for name, module in self.model.named_modules()}
        layers = ", ".join(names.get(layer, "?") for layer in self.target_layers)
        changed = [
            f"{p.name}={names.get(value, '?') if isinstance(value, nn.Module) else repr(value)}"
            for p in inspect.signature(HolisticCAM).parameters.values()
            if p.kind is p.KEYWORD_ONLY and (value := getattr(self, p.name)) != p.default
        ]
        return f"{type(self).__name__}({', '.join([type(self.model).__name__, f'[{layers}]', *changed])})"

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Targets | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> SaliencyMaps:
        """Compute the saliency maps of a batch of images.

        Args:
            input_tensor: preprocessed images `(B, C, H, W)` or volumes `(B, C, D, H, W)`, floating point, on any
                device.
            targets: one callable per image that maps its output to a scalar. Or one list of callables per image, which
                share the passes through the model. None: each image's best-scoring class, decided once, on the
                original image.
            aug_smooth: average the maps over pytorch-grad-cam's test-time augmentations (six pyramids).
            eigen_smooth: use the first principal component of the weighted activations in place of their sum.

        Returns:
            `(B, H, W)` or `(B, D, H, W)`, float32, finite, in [0, 1] (eq. 17). With lists of targets, one map per
            target, those of the first image first. A map without any evidence is zero, with a warning.

        Raises:
            TypeError, ValueError: invalid input, targets or outputs; the message says what to do.
        """
        if aug_smooth:
            return self.forward_augmentation_smoothing(input_tensor, targets, eigen_smooth)
        return self.forward(input_tensor, targets, eigen_smooth)

    def forward(self, input_tensor: Tensor, targets: Targets | None = None, eigen_smooth: bool = False) -> SaliencyMaps:
        """`__call__` without augmentations."""
        return self.aggregate_multi_layers(self.compute_cam_per_layer(input_tensor, targets, eigen_smooth))

    def forward_augmentation_smoothing(
        self, input_tensor: Tensor, targets: Targets | None = None, eigen_smooth: bool = False
    ) -> SaliencyMaps:
        """`__call__` with augmentations. All of them explain the class of the original image."""
        images, chosen = self._check_call(input_tensor, targets)
        with uninterrupted(model_lock(self.model)):
            with self._explaining():
                originals = [
                    run_original(self._capture, images[some], None if chosen is None else chosen[some])
                    for some in self._batches(len(images))
                ]
            decided = [some for original in originals for some in original.targets]
            maps: SaliencyMaps = super().forward_augmentation_smoothing(images, decided, eigen_smooth)
            self.outputs = join_outputs([original.outputs for original in originals])
        return maps

    def compute_cam_per_layer(
        self, input_tensor: Tensor, targets: Targets | None, eigen_smooth: bool = False
    ) -> list[SaliencyMaps]:
        """Compute the maps of every target layer.

        The whole pyramid runs here, because FinerCAM calls this method and never `forward`.

        Returns:
            For every target layer `(maps, 1, H, W)` or `(maps, 1, D, H, W)`, float32, each map scaled to [0, 1].
        """
        layers = self._explain(input_tensor, targets, eigen_smooth, attrgetter("saliency_map"))
        return [np.stack(maps)[:, None] for maps in layers]

    def intermediates(
        self, input_tensor: Tensor, targets: Targets | None = None, eigen_smooth: bool = False
    ) -> list[list[Intermediates]]:
        """Compute the maps and return the intermediate results: for every target layer, one record per map.

        Arguments and errors are those of `__call__`. The scales of all images are held in memory.
        """
        return self._explain(input_tensor, targets, eigen_smooth, lambda results: results)

    @_unwrappable
    def attribute(self, inputs: Inputs, target: Index | None = None, additional_forward_args: object = None) -> Inputs:
        """Compute maps that are not scaled to [0, 1], in the form of captum's attributions.

        captum's metrics take it as a function, and `captum.attr.NoiseTunnel` takes the object.

        Args:
            inputs: `input_tensor` of the call, or a tuple that holds it.
            target: as in captum: a class index, or a tuple of indices of one entry of each image's output, such as
                `(category, row, column)` of a segmentation; or one of these per image, as a list or a tensor `(B,)`.
                None: each image's best-scoring class.
            additional_forward_args: None. The model is called with the images alone.

        Returns:
            `(B, 1, H, W)` or `(B, 1, D, H, W)`, float32, on the model's device, detached: `Intermediates.masked` of
            every image, in the units of the fused map; the mean over several layers. `expand_as(inputs)` gives the
            inputs' shape, which captum's `infidelity` needs. A tuple if `inputs` is one.

        Raises:
            TypeError, ValueError: as in `__call__`, for targets that are no indices or do not match the images, and for
                additional arguments.

        Example:
            >>> from holistic_cam_plugin.demo import load_demo_model
            >>> model = load_demo_model()
            >>> HolisticCAM(model, [model.layer3], sizes=[64, 96]).attribute(torch.rand(2, 3, 64, 64), 9).shape
            torch.Size([2, 1, 64, 64])
        """
        if additional_forward_args is not None:
            raise TypeError(
                "additional_forward_args must be None: the model is called with the images alone. Wrap it in a module "
                "that holds the other arguments"
            )
        images, _ = self._check_call(_single(inputs), None)
        layers = self._explain(images, index_targets(target, len(images)), False, attrgetter("masked"))
        maps = torch.tensor(np.mean(layers, axis=0)[:, None], dtype=torch.float32, device=self.device)
        if isinstance(inputs, tuple):
            return (maps,)
        return maps

    def aggregate_multi_layers(self, cam_per_target_layer: Sequence[SaliencyMaps]) -> SaliencyMaps:
        """Mean over the layers' maps, scaled to [0, 1]: `(B, H, W)`, float32."""
        if len(cam_per_target_layer) == 1:
            return cam_per_target_layer[0][:, 0]
        return np.stack([min_max_normalize(m) for m in np.concatenate(cam_per_target_layer, axis=1).mean(axis=1)])

    # captum's tools ask for these.
    multiplies_by_inputs = False

    @property
    def forward_func(self) -> nn.Module:
        """The model, as captum's attribution methods name it."""
        return self.model

    def has_convergence_delta(self) -> bool:
        """False: the maps do not sum to the score."""
        return False

    @property
    def activations_and_grads(self) -> Capture:
        """Runs the model and records the target layers, with the interface of pytorch-grad-cam's class."""
        return self._capture

    @activations_and_grads.setter
    def activations_and_grads(self, other: Any) -> None:
        # BaseCAM's constructor and some tools set pytorch-grad-cam's own recorder. Its hooks would see every forward
        # pass of the model, so only its reshape transform is used.
        if not isinstance(other, Capture):
            other.release()
            other = Capture(self.model, self.target_layers, other.reshape_transform, self.amp)
        self.reshape_transform = other.reshape_transform
        self._capture: Capture = other

    def __enter__(self) -> HolisticCAM:
        self._with_blocks.append(ExitStack())
        self._with_blocks[-1].enter_context(eval_flags(self.model))
        return self

    @uninterruptible
    def __exit__(self, *_: object) -> None:  # errors propagate, unlike in pytorch-grad-cam
        self._capture.release()
        if self._with_blocks:  # SESS leaves a block that it never entered
            self._with_blocks.pop().close()

    def __del__(self) -> None:
        for block in reversed(getattr(self, "_with_blocks", [])):  # none if the constructor raised
            block.close()

    def __getstate__(self) -> dict[str, Any]:
        # A copy is not inside a `with` block.
        return self.__dict__ | {"_with_blocks": [], "_running": False}

    def _explain(
        self,
        input_tensor: Tensor,
        targets: Targets | None,
        eigen_smooth: bool,
        keep: Callable[[Intermediates], Any],
    ) -> list[list[Any]]:
        """What `keep` takes of the results of every map, for each target layer."""
        images, chosen = self._check_call(input_tensor, targets)
        size = tuple(images.shape[2:])
        layers: list[list[Any]] = [[] for _ in self.target_layers]
        outputs = []
        with (
            uninterrupted(model_lock(self.model)),
            self._explaining(),
            self._recording_mask_layer(images, chosen) as capture,
        ):
            check_layers(self.model, capture.layers, self.reshape_transform, images, STACK_LEVEL)
            if len(images) > 1 or self.tiles:
                check_batch(self.model, images, together=self.tiles or self.batch_size > 1)
            for some in self._batches(len(images)):
                original, scales = self._run_pyramid(images[some], None if chosen is None else chosen[some])
                outputs.append(original.outputs)
                maps = [(image, target) for image, some in enumerate(original.targets) for target in range(len(some))]
                evidence = compute_evidence(capture, scales, maps, size, self.contrast, self.blur_size, STACK_LEVEL)
                if any(of_class is None for of_layer in evidence for of_class in of_layer):
                    self._deepest = None  # it may be the wrong one for these targets: search again at the next call
                for layer, (results, of_layer) in enumerate(zip(layers, evidence, strict=True)):
                    for (image, _), of_class in zip(maps, of_layer, strict=True):
                        activations = [scale.activations[layer][image] for scale in scales]
                        # Each gradient is freed as soon as its weights are computed.
                        gradients = (scale.gradients[layer][image].pop(0) for scale in scales)
                        results.append(keep(self._map(activations, gradients, size, eigen_smooth, of_class)))
        self.outputs = join_outputs(outputs)
        return layers

    @contextmanager
    def _recording_mask_layer(self, images: Tensor, targets: list[list[Target]] | None) -> Iterator[Capture]:
        """Record the mask layer in the body, too."""
        capture = self._capture
        capture.mask_layer = self._choose_mask_layer(images, targets)
        capture.mask_optional = self.mask_layer == DEEPEST
        try:
            yield capture
        finally:
            capture.mask_layer = None

    def _choose_mask_layer(self, images: Tensor, targets: list[list[Target]] | None) -> nn.Module | None:
        """The layer whose evidence is the mask; None: each target layer's own base scale."""
        if not self.fsd:
            return None
        if not isinstance(self.mask_layer, str):
            return self.mask_layer
        if self._deepest is None or self._deepest not in set(self.model.modules()):
            some = images[: self.batch_size]
            firsts = None if targets is None else [own[0] for own in targets[: self.batch_size]]
            with input_errors(self.model, some):
                self._deepest = find_mask_layer(self.model, some, firsts, self.reshape_transform)
        if self._deepest is None:
            warnings.warn(
                "no layer for the class mask was found: each layer is masked by its own base scale, as in the paper. "
                "Pass mask_layer, the last layer with positions",
                stacklevel=STACK_LEVEL + 4,
            )
        return self._deepest

    def _map(
        self,
        activations: list[Tensor],
        gradients: Iterable[Tensor],
        size: tuple[int, ...],
        eigen_smooth: bool,
        evidence: NDArray[np.float32] | None,
    ) -> Intermediates:
        return holistic_map(
            activations,
            gradients,
            size,
            weighting=self.weighting,
            eps=self.eps,
            fsd=self.fsd,
            blur_size=self.blur_size,
            ksize=self.ksize,
            eigen_smooth=eigen_smooth,
            by_positions=self.by_positions,
            fuse_base=self.fuse_base,
            evidence=evidence,
        )

    def _run_pyramid(self, images: Tensor, targets: list[list[Target]] | None) -> tuple[Original, list[Scale]]:
        """Activations and gradients of all scales, the base scale first (eq. 9)."""
        sizes = self._list_sizes(images)
        original = run_original(self._capture, images, targets)
        own = original.scale.size
        found = {sizes.index(own): original.scale} if own in sizes else {}
        # The largest scale, whose pass takes the most memory, comes before the others are held.
        order = sorted(range(len(sizes)), key=lambda t: math.prod(sizes[t]), reverse=True)
        for t, size in zip(order, self._watch([sizes[t] for t in order]), strict=True):
            if t not in found:
                found[t] = run_scale(self._capture, images, original, size, self.interpolation, self.tiles)
        scales = [found[t] for t in range(len(sizes))]
        check_scored(scales[0], self._capture)
        warn_of_gaps(scales, stacklevel=STACK_LEVEL + 2)
        return original, scales

    def _list_sizes(self, images: Tensor) -> list[tuple[int, ...]]:
        depth = images.shape[2] if images.ndim == 5 else None
        height, width = images.shape[-2:]
        return pyramid_sizes(
            height, width, self.num_scales, self.max_size, self.sizes, depth, self.multiple_of, self.tiles
        )

    def _watch(self, sizes: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
        """The sizes, wrapped by `progress`; TypeError or ValueError unless it yields each of them in order."""
        if self.progress is None:
            yield from sizes
            return
        advice = "it must yield what it is given, as tqdm.tqdm does"
        shown = self.progress(sizes)
        if not isinstance(shown, Iterable):
            raise TypeError(f"progress returned a {type(shown).__name__}, not an iterable: {advice}")
        count = 0
        for given in shown:
            if count == len(sizes) or given is not sizes[count]:
                raise ValueError(f"progress yielded {given!r}, an unexpected item: {advice}")
            count += 1
            yield given
        if count < len(sizes):
            raise ValueError(f"progress yielded {count} of {len(sizes)} scales: {advice}")

    @contextmanager
    def _running_once(self) -> Iterator[None]:
        if self._running:
            raise RuntimeError("a target or the model called the HolisticCAM that is running: give it one of its own")
        self._running = True
        try:
            with eval_mode(self.model), torch.inference_mode(False), torch.enable_grad():
                yield
        finally:
            self._running = False

    def _explaining(self) -> uninterrupted[None]:
        """The state of model and PyTorch during a call; a call from inside raises RuntimeError."""
        return uninterrupted(self._running_once())

    def _check_call(self, input_tensor: Tensor, targets: Targets | None) -> tuple[Tensor, list[list[Target]] | None]:
        """Validate the arguments; returns images on the model's device and a list of targets for each of them."""
        self._check_parameters()
        self._update_capture()
        check_mask_layer(self.mask_layer, self.model)
        check_mixed_precision(self.amp, self.model)
        check_weights(self.model)
        images = check_images(input_tensor, self.device, volumes=True)
        if self.tiles and images.ndim == 5:
            raise ValueError("tiles=True takes images only: for volumes pass num_scales=1, or a model of any size")
        check_frames(self.model, images)
        self._list_sizes(images)
        return images, list_targets(targets, len(images))

    def _batches(self, images: int) -> Iterator[slice]:
        for first in range(0, images, self.batch_size):
            yield slice(first, first + self.batch_size)

    def _update_capture(self) -> None:
        """Use the attributes as they are, also where they were set after the construction."""
        capture = self._capture
        pairs = (
            (capture.model, self.model),
            (capture.target_layers, self.target_layers),
            (capture.reshape_transform, self.reshape_transform),
            (capture.amp, self.amp),
        )
        if all(used is named for used, named in pairs):
            return
        self._deepest = None
        self.model = unwrap_model(self.model)
        check_target_layers(self.model, self.target_layers)
        self._capture = Capture(self.model, self.target_layers, self.reshape_transform, self.amp)

    def _check_parameters(self) -> None:
        check_pyramid(self.num_scales, self.max_size, self.sizes)
        check_eps(self.eps)
        find_weighting(self.weighting)
        check_switch("fsd", self.fsd)
        check_contrast(self.contrast)
        check_switch("fuse_base", self.fuse_base)
        check_switch("by_positions", self.by_positions)
        check_switch("tiles", self.tiles)
        check_kernels(self.blur_size, self.ksize)
        check_multiples(self.multiple_of, self.tiles)
        check_interpolation(self.interpolation)
        check_positive_integer("batch_size", self.batch_size)


def _single(inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    if not isinstance(inputs, tuple):
        return inputs
    if len(inputs) != 1:
        raise TypeError(
            f"inputs must be one tensor, got a tuple of {len(inputs)}: the model is explained for one input"
        )
    return inputs[0]
