"""Models that hold tensors from inference mode are explained as others, and keep these tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from holistic_cam_plugin import ClassHolisticCAM, HolisticCAM

OPTIONS = {"sizes": [64, 80], "weighting": "positive"}


class Keeps(nn.Module):
    """Keeps a grid of its first pass at a size: as an attribute, in a list, in a dict, or as a buffer."""

    def __init__(self, where: str = "attribute") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features, self.head = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU()), nn.Linear(8, 5)
        self.where, self.grids, self.by_name = where, [], {}
        self.register_buffer("kept", None)
        self.grid: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images)
        grid = self.read()
        if grid is None or grid.shape != maps.shape[2:]:
            grid = torch.linspace(0, 1, maps[0, 0].numel()).view(maps.shape[2:])
            self.keep(grid)
        return self.head((maps * grid).mean((2, 3)))

    def read(self) -> Tensor | None:
        lists = {"list": self.grids[0] if self.grids else None, "dict": self.by_name.get("grid")}
        return lists.get(self.where, self.kept if self.where == "buffer" else self.grid)

    def keep(self, grid: Tensor) -> None:
        if self.where == "list":
            self.grids = [grid]
        elif self.where == "dict":
            self.by_name = {"grid": grid}
        elif self.where == "buffer":
            self.kept = grid
        else:
            self.grid = grid


@pytest.mark.parametrize("where", ["attribute", "list", "dict", "buffer"])
@pytest.mark.parametrize("method", [HolisticCAM, ClassHolisticCAM])
def test_a_model_that_ran_in_inference_mode(make_images, where, method):
    images, fresh, model = make_images(1), Keeps(where).eval(), Keeps(where).eval()
    options = OPTIONS | {"fsd": False}
    expected = method(fresh, [fresh.features], **options)(images)
    with torch.inference_mode():
        model(images)
    kept = model.read()
    assert kept.is_inference()
    np.testing.assert_array_equal(method(model, [model.features], sizes=[64], fsd=False)(images).shape, (1, 64, 64))
    assert model.read() is kept
    np.testing.assert_array_equal(method(model, [model.features], **options)(images), expected)


@pytest.mark.parametrize("layer", ["features", "features.0"])
def test_a_model_that_was_made_in_inference_mode(make_images, layer):
    with torch.inference_mode():
        model = Keeps().eval()
    weights = dict(model.named_parameters())
    maps = HolisticCAM(model, [model.get_submodule(layer)], **OPTIONS)(make_images(1))
    other = Keeps().eval()
    np.testing.assert_array_equal(maps, HolisticCAM(other, [other.get_submodule(layer)], **OPTIONS)(make_images(1)))
    assert all(parameter is weights[name] and parameter.is_inference() for name, parameter in model.named_parameters())


def test_tensors_that_no_module_holds_are_told(make_images):
    """A list in a closure cannot be found."""
    model = Keeps().eval()
    with torch.inference_mode():
        hidden = torch.rand(())
    model.features.register_forward_hook(lambda _, inputs, output: output * hidden)
    with pytest.raises(ValueError, match=r"a tensor from torch\.inference_mode\(\) that none of its modules holds"):
        HolisticCAM(model, [model.features[0]], **OPTIONS)(make_images(1))
