"""Sanity check by parameter randomisation: the map must change when the model's parameters are randomised.

    expected = GradCAM(model, [model.layer4])(image, targets)
    for name, randomized in cascading_randomization(model):
        cams = GradCAM(randomized, [randomized.layer4])(image, targets)
        print(name, similarity(expected[0], cams[0]))

Paper: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from holistic_cam_plugin.checks import check_integer

__all__ = ["cascading_randomization", "independent_randomization", "list_parameter_layers"]


def cascading_randomization(
    model: nn.Module, layers: Sequence[str] | None = None, *, seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Yield copies of the model with one more randomised layer each, from the output to the input.

    A layer is drawn from its initial distribution (`reset_parameters`; a BatchNorm gets the scale 1, the shift 0 and
    the statistics 0 and 1), or, if it has none, from a normal distribution with the mean and the standard deviation of
    each of its parameters.

    Args:
        model: not changed.
        layers: names of modules as in `model.named_modules()`, in the order of their randomisation; a container stands
            for all modules inside. None: `list_parameter_layers(model)`.
        seed: of the random parameters. Those of a layer depend only on the seed and on the layer's position in the
            model: they are the same in `independent_randomization` and on every device. The global random state is not
            changed.

    Yields:
        The name of the layer that was randomised last, and a copy of the model.

    Raises:
        TypeError: `layers` is a string, or `seed` is not an integer.
        ValueError: the model has no module of this name, or the module has no parameters.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
        >>> [name for name, randomized in cascading_randomization(model)]
        ['3', '0']
    """
    check_integer("seed", seed)
    names = _check_layers(model, layers)
    state = copy.deepcopy(model)
    for name in names:
        _randomize(state, name, seed)
        yield name, copy.deepcopy(state)


def independent_randomization(
    model: nn.Module, layers: Sequence[str] | None = None, *, seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Yield copies of the model with a single randomised layer each; see `cascading_randomization`.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
        >>> [name for name, randomized in independent_randomization(model, ["0"])]
        ['0']
    """
    check_integer("seed", seed)
    for name in _check_layers(model, layers):
        randomized = copy.deepcopy(model)
        _randomize(randomized, name, seed)
        yield name, randomized


def list_parameter_layers(model: nn.Module) -> list[str]:
    """List the names of the modules with parameters of their own, in reversed order of registration.

    For models that register their layers in the order of execution this is from the output to the input.

    Example:
        >>> list_parameter_layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)))
        ['3', '0']
    """
    own = (name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False)))
    return list(own)[::-1]


def _check_layers(model: nn.Module, layers: Sequence[str] | None) -> list[str]:
    if layers is None:
        return list_parameter_layers(model)
    if isinstance(layers, str):
        raise TypeError(f"layers must be a list of names, such as [{layers!r}], got {layers!r}")
    modules = dict(model.named_modules())
    for name in layers:
        if name not in modules:
            raise ValueError(f"the model has no module named {name!r}: see model.named_modules()")
        if not any(True for _ in modules[name].parameters()):
            raise ValueError(f"module {name!r} has no parameters to randomise")
    return list(layers)


def _randomize(model: nn.Module, name: str, seed: int) -> None:
    """Randomise the named module and all modules inside, in place."""
    positions = {module: position for position, module in enumerate(model.modules())}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for module in model.get_submodule(name).modules():
            # One seed per module, so that modules of the same shape differ. `torch.manual_seed` would also seed the
            # generators of accelerators.
            torch.default_generator.manual_seed(int(seed) * len(positions) + positions[module])
            _reinitialize(module)


def _reinitialize(module: nn.Module) -> None:
    """Reset the module's own parameters and buffers, such as the statistics of a BatchNorm."""
    own = dict(module.named_parameters(recurse=False))
    if not own:
        return
    # Drawn on the CPU for the same values on every device.
    fresh = copy.deepcopy(module).cpu()
    if callable(reset := getattr(fresh, "reset_parameters", None)):
        reset()
    else:
        for parameter in fresh.parameters(recurse=False):
            parameter.normal_(float(parameter.mean()), float(parameter.std(unbiased=False)))
    for key, value in (own | dict(module.named_buffers(recurse=False))).items():
        value.copy_(getattr(fresh, key))
