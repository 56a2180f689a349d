"""The stages of a model, and the layer of each that explains a score."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from holistic_cam_plugin.models.layers import (
    CHANNELS_FIRST,
    TOKENS,
    Grid,
    Layer,
    build_reshape_transform,
    leave_out_blocks,
)
from holistic_cam_plugin.models.probe import compute_gradients, fill_zero_weights

__all__ = ["choose_target_layers", "is_relevant"]

# The deepest stages are explained.
STAGES = 4
# The maps of a stem, finer than a quarter of the image, are left out where at least three other stages remain.
_FINEST, _ENOUGH = 4, 3
# A pooling by attention has fewer layers of a width.
_FEW = 3
# Below this part of |A| |G|, the sum of A G over the channels is rounding: the normalisation that follows does not
# respond to larger activations.
_EVIDENCE = 1e-3
# Lattices: how much the mean gradients at even and odd places differ, in units of their own mean. Before an overlapping
# pooling, as in SqueezeNet, AlexNet and GoogLeNet, this is 2 to 3.5, a block earlier 0.3 at most.
_LATTICE, _EVEN = 2.0, 0.5


def choose_target_layers(
    model: nn.Module, maps: Sequence[Layer], output_shape: Sequence[int], image: Tensor
) -> list[Layer]:
    """Choose one layer for each of the last stages, shallow to deep; of a model with one grid, one at each quarter.

    A stage is all the layers with maps of one size. Its result is the last layer that finishes, outside of any block.
    A result may not explain the score: only the class token is used after it, or the sum of A G is zero before a
    normalisation of each place. Then the last normalisation of the same shape is taken. A stride right after the result
    may give its gradient a lattice. Then the last other layer of this size without one is taken.

    Args:
        model: in evaluation mode, inside `preserve_model`.
        maps: the layers whose maps follow the picture.
        output_shape: of the model: `(1, classes)`, or `(1, classes, h, w)` of dense outputs.
        image: `(1, C, H, W)`.
    """
    layers = [layer for layer in maps if layer.calls == 1]  # only a module's first call can be explained
    outer = _leave_out_scores(_leave_out_other_widths(leave_out_blocks(layers)), output_shape)
    stages = {layer.grid: layer for layer in outer}
    grids = sorted(stages, key=math.prod, reverse=True)
    coarse = [grid for grid in grids if _FINEST * grid[0] <= image.shape[2]]
    chosen = (coarse if len(coarse) >= _ENOUGH else grids)[-STAGES:]
    candidates = [_list_candidates(stages[grid], layers, outer) for grid in chosen]
    listed = [layer for of_stage in candidates for layer in of_stage]
    modules = list(dict.fromkeys(layer.module for layer in listed))
    gradients = compute_gradients(model, modules, image, _best_score)
    explaining = {layer for layer in listed if _explains(layer, gradients)}
    if not explaining:
        with fill_zero_weights(model):
            gradients = compute_gradients(model, modules, image, _best_score)
        explaining = {layer for layer in listed if _explains(layer, gradients)}
    results = [next((layer for layer in of_stage if layer in explaining), None) for of_stage in candidates]
    explaining_outer = [layer for layer in outer[::-1] if layer in explaining]
    found = [_avoid_lattice(layer, explaining_outer, gradients) for layer in results if layer is not None]
    targets = _keep_reshapeable(found, (image.shape[2], image.shape[3]))
    if len(stages) == 1 and targets:
        return _choose_quarters(targets[0], [layer for layer in layers if layer in explaining])
    return targets


def _best_score(logits: Tensor) -> Tensor:
    """The logit of the best class; of dense outputs, the sum."""
    return logits.max() if logits.ndim == 2 else logits.sum()


def _leave_out_other_widths(outer: Sequence[Layer]) -> list[Layer]:
    """Leave out the few tokens wider or narrower than most of their grid: keys and values of a pooling by attention."""
    widths: dict[Grid, Counter[int]] = {}
    for layer in outer:
        if layer.layout == TOKENS:
            widths.setdefault(layer.grid, Counter())[layer.channels] += 1

    def is_usual(layer: Layer) -> bool:
        counts = widths[layer.grid]
        return counts[layer.channels] >= min(_FEW, counts.most_common(1)[0][1])

    return [layer for layer in outer if layer.layout != TOKENS or is_usual(layer)]


def _leave_out_scores(outer: Sequence[Layer], output_shape: Sequence[int]) -> list[Layer]:
    """Leave out maps with a channel for each class that are the deepest or of the output's size.

    Unless these are all of their size.
    """
    last = {min((layer.grid for layer in outer), key=math.prod, default=None), tuple(output_shape[2:])}
    scores = [x for x in outer if x.grid in last and x.layout == CHANNELS_FIRST and x.channels == output_shape[1]]
    others = [layer for layer in outer if layer not in scores]
    kept = {layer.grid for layer in others}
    return [layer for layer in outer if layer not in scores or layer.grid not in kept]


def _list_candidates(result: Layer, layers: Sequence[Layer], outer: Sequence[Layer]) -> list[Layer]:
    """List the layers that can represent the stage with this result, best first.

    Of a stage that returns a tuple, the last layer inside takes its place.
    """
    inside = [x for x in layers[::-1] if x.name.startswith(f"{result.name}.") and x.grid == result.grid]
    inside = [x for x in inside if x.is_tensor and x.has_features][:1]
    others = [layer for layer in outer[::-1] if layer.grid == result.grid]
    candidates = [result, *_list_norms(result, layers)]
    if not result.is_tensor:
        candidates += [found for layer in inside for found in (layer, *_list_norms(layer, layers))]
    return [layer for layer in (*candidates, *others) if layer.is_tensor]


def _list_norms(like: Layer, layers: Sequence[Layer]) -> list[Layer]:
    """List the normalisations with maps of the same shape, the last one first."""
    alike = [x for x in layers[::-1] if x.form == like.form and x.channels == like.channels]
    return [layer for layer in alike if "norm" in type(layer.module).__name__.lower()]


def _explains(layer: Layer, gradients: Mapping[nn.Module, tuple[Tensor, Tensor]]) -> bool:
    """Whether the score depends on the layer's maps."""
    if layer.module not in gradients:
        return False
    activations, gradient = gradients[layer.module]
    product = activations.double() * gradient.double()
    if layer.layout == CHANNELS_FIRST:
        product = product.movedim(1, -1)
    return is_relevant(product.flatten(1, -2)[:, layer.prefix_tokens :])


def _avoid_lattice(
    result: Layer, outer: Sequence[Layer], gradients: Mapping[nn.Module, tuple[Tensor, Tensor]]
) -> Layer:
    """The result of a stage or, if its gradient has a lattice, the first layer of its size in `outer` without one."""
    if _measure_lattice(result, gradients) <= _LATTICE:
        return result
    alike = (layer for layer in outer if layer.grid == result.grid and layer.layout == result.layout)
    return next((layer for layer in alike if _measure_lattice(layer, gradients) < _EVEN), result)


def _measure_lattice(layer: Layer, gradients: Mapping[nn.Module, tuple[Tensor, Tensor]]) -> float:
    """How much the mean magnitudes of the gradient at even and odd places differ, in units of their mean."""
    if layer.layout == TOKENS or min(layer.grid) < 4:
        return 0.0
    _, gradient = gradients[layer.module]
    size = gradient.double().abs().sum(dim=1 if layer.layout == CHANNELS_FIRST else -1)[0]
    means = [float(size[i::2, j::2].mean()) for i in (0, 1) for j in (0, 1)]
    return (max(means) - min(means)) / (sum(means) / len(means))


def is_relevant(product: Tensor) -> bool:
    r"""Whether $\sum_{ij} |\sum_c A G|$ is a relevant part of $\sum_{ijc} |A G|$; `product` is A G, `(B, ..., C)`."""
    total = float(product.abs().sum())
    return total > 0 and float(product.sum(dim=-1).abs().sum()) / total > _EVIDENCE


def _keep_reshapeable(targets: Sequence[Layer], size: Grid) -> list[Layer]:
    """Keep the layers that share a reshape transform with the deepest one."""
    kept: list[Layer] = []
    for layer in targets[::-1]:
        try:
            build_reshape_transform([layer, *kept], size)
        except ValueError:
            continue
        kept.insert(0, layer)
    return kept


def _choose_quarters(last: Layer, explaining: Sequence[Layer]) -> list[Layer]:
    """Choose the layers at each quarter of a row of successive blocks that ends with this layer or before it."""
    rows: dict[str, list[Layer]] = {}
    for layer in explaining:
        if layer.form == last.form:
            rows.setdefault(_mask_block_numbers(layer.name), []).append(layer)
    row = rows[_mask_block_numbers(last.name)]
    if len(row) == 1:
        row = max(rows.values(), key=len)
    picked = [row[math.ceil(len(row) * quarter / STAGES) - 1] for quarter in range(1, STAGES)]
    return [*dict.fromkeys(layer for layer in picked if layer != last), last]


def _mask_block_numbers(name: str) -> str:
    """The name that layers of successive blocks have in common."""
    parent, _, own = name.rpartition(".")
    return re.sub(r"\d+", "#", parent) + "." + ("#" if own.isdecimal() else own)
