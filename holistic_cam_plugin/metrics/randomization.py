"""Sanity check by parameter randomisation: a map that explains the model must change when its parameters are random.

    untouched = cam_class(model, [model.get_submodule(layer)])(image, targets)
    for name, randomized in cascading_randomization(model):
        cams = cam_class(randomized, [randomized.get_submodule(layer)])(image, targets)
        print(name, similarity(untouched[0], cams[0]))

Paper: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from holistic_cam_plugin.metrics.scoring import check_seed

__all__ = ["cascading_randomization", "independent_randomization", "parameter_layers"]


def cascading_randomization(
    model: nn.Module, layers: Sequence[str] | None = None, *, seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of the model with ever more random layers, from the logits down: each step keeps the ones before.

    A layer is drawn from the distribution that it starts its training with (`reset_parameters`; a BatchNorm gets its
    scale of 1, its shift of 0 and the statistics 0 and 1); a module without one, from a normal distribution of the
    parameter's own mean and deviation.

    Args:
        model: it is never changed.
        layers: names of modules as in `model.named_modules()`, in the order of their randomisation; a container stands
            for everything inside. None: `parameter_layers(model)`.
        seed: of the random parameters. A layer's depend on it and on the layer's place in the model alone: they are the
            same in both kinds of randomisation and on every device. The user's random state is not touched.

    Yields:
        The name of the layer randomised last, and a copy of its own for the caller to keep.

    Raises:
        TypeError: `layers` is one name, or the seed no integer.
        ValueError: a name that the model does not have, or a module without parameters.
    """
    check_seed(seed)
    names = _checked(model, layers)
    state = copy.deepcopy(model)
    for name in names:
        _randomize(state, name, seed)
        yield name, copy.deepcopy(state)


def independent_randomization(
    model: nn.Module, layers: Sequence[str] | None = None, *, seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of the model in each of which a single layer is random; arguments and errors as in the cascade."""
    check_seed(seed)
    for name in _checked(model, layers):
        randomized = copy.deepcopy(model)
        _randomize(randomized, name, seed)
        yield name, randomized


def parameter_layers(model: nn.Module) -> list[str]:
    """Names of the modules that hold parameters of their own, from the output to the input.

    The order is that of registration, reversed: right for models that register their layers as the data meets them.
    """
    own = (name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False)))
    return list(own)[::-1]


def _checked(model: nn.Module, layers: Sequence[str] | None) -> list[str]:
    if layers is None:
        return parameter_layers(model)
    if isinstance(layers, str):
        raise TypeError(f"layers must be a list of names, such as [{layers!r}], got {layers!r}")
    modules = dict(model.named_modules())
    for name in layers:
        if name not in modules:
            raise ValueError(f"the model has no module named {name!r}: names are those of model.named_modules()")
        if not any(True for _ in modules[name].parameters()):
            raise ValueError(f"module {name!r} has no parameters to randomise")
    return list(layers)


def _randomize(model: nn.Module, name: str, seed: int) -> None:
    """Give every module inside the named one new parameters, in place."""
    places = {module: place for place, module in enumerate(model.modules())}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for module in model.get_submodule(name).modules():
            # Each module has a seed of its own: two of the same shape must not get the same parameters. Only the
            # CPU's generator is seeded; `torch.manual_seed` would reach the accelerators' too.
            torch.default_generator.manual_seed(int(seed) * len(places) + places[module])
            _reinitialize(module)


def _reinitialize(module: nn.Module) -> None:
    """New values for the module's own parameters, and for the statistics that it keeps of its data (BatchNorm)."""
    own = dict(module.named_parameters(recurse=False))
    if not own:
        return
    # Drawn on the CPU, so that every device gets the same values.
    fresh = copy.deepcopy(module).cpu()
    if callable(reset := getattr(fresh, "reset_parameters", None)):
        reset()
    else:
        for parameter in fresh.parameters(recurse=False):
            parameter.normal_(float(parameter.mean()), float(parameter.std(unbiased=False)))
    for key, value in (own | dict(module.named_buffers(recurse=False))).items():
        value.copy_(getattr(fresh, key))
