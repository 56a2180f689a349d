"""Maps are told from what only looks like maps: change a patch of the picture, and see where the layer changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin import (
    ClassHolisticCAM,
    HolisticCAM,
    check_geometry,
    explainable,
    swin_reshape_transform,
    unit_reshape_transform,
    vit_reshape_transform,
)
from holistic_cam_plugin.models.explainable import examine
from holistic_cam_plugin.models.geometry import PLACES, measure_change, patch_image, place_change
from holistic_cam_plugin.models.mask_layer import find_mask_layer
from holistic_cam_plugin.reshape_transforms import join_units

SIDE = 96  # pixels


class Tokens(nn.Module):
    """Patches as tokens in an order of their own, mixed within each position."""

    def __init__(self, order: Tensor | None = None, grid: int = 12, prefix: int = 0) -> None:
        super().__init__()
        self.order, self.grid, self.prefix = order, grid, prefix
        self.patches = nn.Conv2d(3, 16, SIDE // grid, SIDE // grid)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        if self.order is not None:
            assert len(self.order) == tokens.shape[1], "one size only"
            tokens = tokens[:, self.order]
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True).expand(-1, self.prefix, -1), tokens], dim=1)
        return self.head(F.gelu(self.norm(tokens)).pow(2).mean(dim=1))


class Latents(nn.Module):
    """As Perceiver: latents attend to the patches. Their number is a square, their order means nothing."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.patches, self.latents = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.randn(count, 16))
        self.attend, self.mix = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 16)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU()) for _ in range(8)))
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = F.relu(self.patches(images)).flatten(2).transpose(1, 2)
        latents, _ = self.attend(4 * self.latents.expand(len(images), -1, -1), tokens, tokens)
        return self.head(self.blocks(self.mix(latents)).mean(dim=1))


class Heads(nn.Module):
    """Convolutions mix the heads of attention matrices `(B, heads, N, N)`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.keys, self.mix = nn.Conv2d(3, 16, 16, 16), nn.Linear(16, 32), nn.Conv2d(4, 4, 1)
        self.out = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu(self.stem(images))
        tokens = maps.flatten(2).transpose(1, 2)
        queries, keys = (t.unflatten(-1, (4, 4)).transpose(1, 2) for t in self.keys(tokens).chunk(2, dim=-1))
        attention = self.mix(4 * queries @ keys.mT).softmax(dim=-1).mean(dim=1)
        return self.head(self.out(maps + (attention @ tokens).mT.reshape(maps.shape)).relu().mean(dim=(2, 3)))


class Pyramid(nn.Module):
    """A pyramid-pooling head, as of PSPNet and UperNet."""

    def __init__(self, sides: tuple[int, ...]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU())
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Conv2d(8, 8, 1), nn.ReLU()) for side in sides
        )
        self.head = nn.Conv2d(8 * (1 + len(sides)), 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.trunk(images)
        pooled = [F.interpolate(pool(maps), maps.shape[2:]) for pool in self.pools]
        return self.head(torch.cat([maps, *pooled], dim=1)).mean(dim=(2, 3))


class Padded(nn.Module):
    """Windows of eight cells: at some sizes the maps are padded below and at the right."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inside, self.head = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu(self.stem(images))
        height, width = maps.shape[2:]
        padded = self.inside(F.pad(maps, (0, -width % 12, 0, -height % 12)))
        return self.head(padded[..., :height, :width].relu().mean(dim=(2, 3)))


class Resizing(nn.Module):
    """As CrossViT: whatever the size of the image, the model sees 96 px."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stem(F.interpolate(images, (SIDE, SIDE))).mean(dim=(2, 3)))


class Permuted(nn.Module):
    """A norm with channels last: `(B, h, w, C)` or `(B, d, h, w, C)`."""

    def __init__(self, volumes: bool, channels: int = 4) -> None:
        super().__init__()
        convolution = nn.Conv3d if volumes else nn.Conv2d
        self.stem, self.norm = convolution(3, channels, 3, padding=1), nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(F.relu(self.stem(images)).movedim(1, -1))
        return self.head(features.pow(2).flatten(1, -2).mean(dim=1))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def hiera_order(grid: int, levels: int) -> Tensor:
    """Hiera's order, written as its code does: split off the offsets within blocks of 2x2, level by level."""
    parts = [torch.arange(grid * grid).view(grid, grid)]
    for _ in range(levels):
        parts = [part[y::2, x::2] for part in parts for y in (0, 1) for x in (0, 1)]
    return torch.cat([part.flatten() for part in parts])


# --- the mathematics --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("grid", [(7, 7), (14, 20), (3, 3)])
def test_maps_that_are_the_picture_follow_it(grid):
    images = patch_image(torch.rand(1, 3, 140, 160))
    placement = place_change(measure_change(F.adaptive_avg_pool2d(images, grid), 1))
    assert placement.follows
    assert placement.distance < 0.2
    assert placement.reason == ""


def test_rows_taken_for_columns_are_away_by_what_geometry_says():
    images = patch_image(torch.rand(1, 3, 160, 160))
    placement = place_change(measure_change(images.mT, 1))
    # A place (y, x) shows at (x, y): farther than the distance of the centres, because patches have a size.
    centres = sum(2**0.5 * abs(y - x) for y, x in PLACES) / len(PLACES)
    assert centres - 0.02 < placement.distance < centres + 0.1
    assert not placement.follows


def test_what_changes_everywhere_alike_is_unclear():
    images = patch_image(torch.rand(1, 3, 64, 64))
    alike = images.mean(dim=(2, 3), keepdim=True).expand(-1, -1, 8, 8)
    placement = place_change(measure_change(alike, 1))
    assert placement.is_unclear
    assert not placement.follows
    assert "everywhere alike" in placement.reason
    local = alike + 1e-3 * F.avg_pool2d(images, 8)  # a little of the picture is enough
    assert place_change(measure_change(local, 1)).follows


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_maps_that_do_not_change_or_are_nan_are_unclear(value):
    assert place_change(torch.full((3, 8, 8), value)).is_unclear


def test_patches_differ_from_images_of_one_colour():
    black = torch.zeros(1, 1, 32, 32)
    patched = patch_image(black)
    assert patched.shape == (1 + len(PLACES), 1, 32, 32)
    assert torch.equal(patched[:1], black)
    for one, (y, x) in zip(patched[1:], PLACES, strict=True):
        assert one[0, round(32 * y), round(32 * x)] != 0
        assert one.count_nonzero() == 64


@pytest.mark.parametrize(("grid", "levels"), [(8, 1), (8, 2), (12, 2), (56, 3)])
def test_units_are_joined_as_hiera_splits_them(grid, levels):
    order = hiera_order(grid, levels)
    joined = join_units(order[None, :, None], (grid, grid), 2**levels)
    assert torch.equal(joined[0, 0], torch.arange(grid * grid).view(grid, grid))


# --- explainable ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("levels", [1, 2])
def test_tokens_in_units_are_put_in_their_places(levels):
    order = hiera_order(12, levels)
    model = Tokens(order).eval()
    found = explainable(model, size=(SIDE, SIDE))
    assert found.layer_names == ["norm"]
    recorded = {}
    model.norm.register_forward_hook(lambda _, __, output: recorded.update(tokens=output.detach()))
    image = torch.randn(1, 3, SIDE, SIDE)
    model(image)
    expected = torch.empty_like(recorded["tokens"])
    expected[:, order] = recorded["tokens"]  # row by row
    maps = found.reshape_transform(recorded["tokens"], image_size=(SIDE, SIDE))
    assert torch.equal(maps, expected.mT.unflatten(2, (12, 12)))


def test_tokens_in_no_known_order_are_no_maps():
    model = Tokens(torch.randperm(144)).eval()
    found = examine(model, size=(SIDE, SIDE))
    assert [layer.name for layer in found.maps] == ["patches"]
    assert "of the side away from" in found.rejected["norm"]
    with pytest.raises(ValueError, match="'norm' returns no maps of the picture: it changes 0"):
        found.at(["norm"])


@pytest.mark.parametrize("prefix", [0, 1, 4])
def test_prefix_tokens_are_found_where_patches_are_linear(prefix):
    class Linear(Tokens):
        def forward(self, images: Tensor) -> Tensor:
            cells = images.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).permute(0, 2, 3, 1, 4).flatten(1, 2).flatten(2)
            tokens = self.embed(cells)
            tokens = torch.cat([tokens.mean(dim=1, keepdim=True).expand(-1, self.prefix, -1), tokens], dim=1)
            return self.head(F.gelu(self.norm(tokens)).pow(2).mean(dim=1))

    model = Linear(prefix=prefix)
    del model.patches
    model.embed = nn.Linear(3 * 64, 16)
    found = explainable(model.eval(), size=(SIDE, SIDE))
    [norm] = [layer for layer in found.maps if layer.name == "norm"]
    assert (norm.grid, norm.prefix_tokens) == ((12, 12), prefix)
    assert found.layer_names[-1] == "norm"


def test_attention_matrices_are_no_maps():
    found = explainable(Heads().eval(), size=(SIDE, SIDE))
    assert found.layer_names[-1] == "out"
    assert "mix" not in [layer.name for layer in found.maps]
    assert "of the side away" in found.rejected["mix"]


@pytest.mark.parametrize("count", [16, 36, 144])
def test_latents_are_no_maps_and_most_of_the_network_comes_after_the_last_layer(count):
    with pytest.warns(UserWarning, match="modules with parameters come after its last layer with maps .* 'patches'"):
        found = explainable(Latents(count).eval(), size=(SIDE, SIDE))
    assert found.layer_names == ["patches"]


@pytest.mark.parametrize("sides", [(4,), (3, 6)])
def test_layers_behind_an_adaptive_pooling_are_no_maps(sides):
    found = explainable(Pyramid(sides).eval(), size=(SIDE, SIDE))
    assert found.layer_names[-1] == "trunk"
    assert not [name for name in found.layer_names if name.startswith("pools")]
    assert found.rejected["pools.0.1"] == "has the same grid for images of 192x192 px, as after an adaptive pooling"
    assert found.multiple_of == 1


def test_maps_that_are_padded_far_beyond_the_picture_are_none():
    model = Padded().eval()
    geometry = check_geometry(model, model.inside, size=(96, 96))
    assert geometry.reasons[96, 96] == ""
    assert geometry.reasons[96, 120]  # 15 of 24 cells along the width
    assert not check_geometry(model, model.inside, size=(40, 40)).follows  # 5 of 12 cells
    assert "inside" in explainable(model, size=(40, 40)).rejected


def test_a_model_that_resizes_its_images_takes_one_size():
    found = explainable(Resizing().eval(), size=(SIDE, SIDE))
    assert found.multiple_of is None
    assert found.options["tiles"]
    assert found.layer_names[-1] == "stem"


# --- by hand ----------------------------------------------------------------------------------------------------------
def test_check_geometry_tells_both_sizes():
    model = Tokens(hiera_order(12, 1)).eval()
    row_by_row = check_geometry(model, model.norm, vit_reshape_transform, size=(SIDE, SIDE))
    assert not row_by_row.follows
    assert "of the side away from where the picture changes" in row_by_row.reasons[SIDE, SIDE]

    def in_units(tokens: Tensor, image_size: tuple[int, ...]) -> Tensor:
        return unit_reshape_transform(tokens, image_size, unit_size=16)

    assert check_geometry(model, model.norm, in_units, size=(SIDE, SIDE)).follows
    pyramid = Pyramid((3,)).eval()
    geometry = check_geometry(pyramid, pyramid.trunk, size=(SIDE, SIDE))
    assert geometry.follows
    assert list(geometry.placements) == [(SIDE, SIDE), (SIDE, 120)]


def test_check_geometry_of_volumes_and_of_what_is_no_map():
    model = Permuted(volumes=True).eval()
    assert check_geometry(model, model.stem, size=(4, 32, 32)).follows
    assert not check_geometry(model, model.norm, size=(4, 32, 32)).follows
    assert check_geometry(model, model.norm, lambda maps: maps.movedim(-1, 1), size=(4, 32, 32)).follows
    geometry = check_geometry(model, model.head, size=(4, 32, 32))
    assert (
        geometry.reasons[4, 32, 32] == "returns (3, 5), no maps"
        or "returns (4, 5), no maps" in geometry.reasons.values()
    )
    with pytest.raises(ValueError, match="not part of the model"):
        check_geometry(model, nn.Conv2d(3, 3, 1))


@pytest.mark.parametrize("volumes", [False, True])
@pytest.mark.parametrize("channels", [4, 8, 32])
def test_channels_last_by_hand_are_refused(volumes, channels):
    model = Permuted(volumes, channels).eval()
    images = torch.randn(1, 3, *([8] if volumes else []), 32, 32)
    with pytest.raises(ValueError, match=r"the layer 'norm' \(LayerNorm\) returns .* with channels last"):
        HolisticCAM(model, [model.norm], sizes=[32])(images)
    transform = (lambda maps: maps.movedim(-1, 1)) if volumes else swin_reshape_transform
    assert HolisticCAM(model, [model.norm], transform, sizes=[32])(images).shape == (1, *images.shape[2:])


def test_tokens_in_another_order_by_hand_are_told_once():
    model = Tokens(hiera_order(12, 1)).eval()
    cam = HolisticCAM(model, [model.norm], vit_reshape_transform, sizes=[SIDE])
    images = torch.randn(2, 3, SIDE, SIDE)
    with pytest.warns(
        UserWarning, match="'norm' .* of the side away from where the picture changes: its map may lie"
    ) as told:
        cam(images)
    assert [warning.filename for warning in told] == [__file__]
    cam(images)  # the package's warnings are errors here


def test_the_check_runs_once_for_a_layer_and_leaves_no_trace():
    model = Tokens().eval()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    images = torch.randn(1, 3, SIDE, SIDE)
    for _ in range(2):
        HolisticCAM(model, [model.norm], vit_reshape_transform, sizes=[SIDE])(images)
    assert len(calls) == 1 + 2  # the check, and one pass for each
    found = explainable(model, size=(SIDE, SIDE))
    calls.clear()
    HolisticCAM(found.model, found.target_layers, sizes=[SIDE], **found.options)(images)
    assert len(calls) == 1


def test_the_mask_layer_is_no_attention_matrix_and_no_latents():
    images, model = torch.randn(1, 3, SIDE, SIDE), Heads().eval()
    assert find_mask_layer(model, images) is model.out
    assert find_mask_layer(Latents(36).eval(), images) is None


@pytest.mark.parametrize(("prefix", "suffix"), [(0, 1), (1, 1), (0, 4), (2, 1)])
def test_tokens_after_the_grid_are_no_prefix(prefix, suffix):
    class Suffixed(Tokens):
        def forward(self, images: Tensor) -> Tensor:
            tokens = self.patches(images).flatten(2).transpose(1, 2)
            mean = tokens.mean(dim=1, keepdim=True)
            tokens = torch.cat([mean.expand(-1, prefix, -1), tokens, mean.expand(-1, suffix, -1)], dim=1)
            return self.head(F.gelu(self.norm(tokens)).pow(2).mean(dim=1))

    model = Suffixed().eval()
    found = explainable(model, size=(SIDE, SIDE))
    [norm] = [layer for layer in found.maps if layer.name == "norm"]
    assert (norm.prefix_tokens, norm.suffix_tokens) == (prefix, suffix)
    tokens = torch.arange(144.0)[None, :, None]
    padded = F.pad(tokens, (0, 0, prefix, suffix), value=-1.0)
    maps = found.at(["norm"]).reshape_transform(padded, image_size=(SIDE, SIDE))
    assert torch.equal(maps[0, 0], torch.arange(144.0).view(12, 12))


def test_one_right_axis_is_not_enough():
    """Channels last and transposed, as many channels as rows: read as channels first, one axis is right."""

    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.head = nn.Conv2d(3, 12, 8, 8), nn.LayerNorm(12), nn.Linear(12, 5)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.norm(F.relu(self.stem(images)).permute(0, 3, 2, 1)).pow(2).mean(dim=(1, 2)))

    model = Transposed().eval()
    assert "norm" in examine(model, size=(SIDE, SIDE)).rejected
    with pytest.warns(UserWarning, match="its map may lie elsewhere"):
        HolisticCAM(model, [model.norm], sizes=[SIDE])(torch.randn(1, 3, SIDE, SIDE))


class IdentityBlock(nn.Sequential):
    """Named as in a well-known tutorial of ResNets; it has features."""


def test_names_of_the_users_own_classes_mean_nothing():
    def stage(i: int, o: int) -> nn.Module:
        return IdentityBlock(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU())

    model = nn.Sequential(stage(3, 8), stage(8, 8), stage(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    assert explainable(model.eval(), size=(SIDE, SIDE)).layer_names == ["0", "1", "2"]


class Unusual:
    """A transform that is neither hashable nor weakly referable."""

    __slots__ = ()
    __hash__ = None

    def __call__(self, maps: Tensor) -> Tensor:
        return maps


def test_transforms_that_cannot_be_remembered_work():
    model = Tokens().eval()
    assert HolisticCAM(model, [model.patches], Unusual(), sizes=[SIDE])(torch.randn(1, 3, SIDE, SIDE)).max() == 1


def test_a_model_of_single_images_is_explained_by_hand_and_refused_by_explainable():
    class Single(Tokens):
        def forward(self, images: Tensor) -> Tensor:
            assert len(images) == 1, "one image"
            return super().forward(images)

    model = Single().eval()
    with pytest.raises(ValueError, match=r"runs on one image, but not on 4 at a time \(one image\)"):
        explainable(model, size=(SIDE, SIDE))
    for cam in (HolisticCAM, ClassHolisticCAM):
        maps = cam(model, [model.norm], vit_reshape_transform, sizes=[SIDE])(torch.randn(1, 3, SIDE, SIDE))
        assert maps.shape == (1, SIDE, SIDE)


def test_what_a_model_keeps_is_as_before():
    class Keeping(Tokens):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.log, self.cache, self._last = ["before"], {1: 2}, None

        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            self.log.append("call")
            self.cache[images.shape[2]] = images
            self._last = images
            return super().forward(images + 0 * torch.rand_like(images))

    model = Keeping().eval()
    calls, random = model.calls, torch.get_rng_state()
    explainable(model, size=(SIDE, SIDE))
    check_geometry(model, model.patches, size=(SIDE, SIDE))
    assert model.calls is calls
    assert (float(calls), model.log, model.cache, model._last) == (0, ["before"], {1: 2}, None)
    assert torch.equal(torch.get_rng_state(), random)


class ToSquare(nn.Module):
    """Pads images to a square below, so that maps of wide images are too low."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        padded = F.pad(images, (0, max(0, height - width), 0, max(0, width - height)))
        return self.head(self.features(padded).relu().mean(dim=(2, 3)))


def test_a_layer_is_checked_again_for_other_proportions() -> None:
    model = ToSquare().eval()
    cam = HolisticCAM(model, [model.features], sizes=[64])
    cam(torch.rand(1, 3, 64, 64))
    with pytest.warns(UserWarning, match="its map may lie elsewhere"):
        cam(torch.rand(1, 3, 64, 128))
    model = ToSquare().eval()
    found = explainable(model, size=(64, 64))
    with pytest.warns(UserWarning, match="its map may lie elsewhere"):
        HolisticCAM(found.model, found.target_layers, sizes=[64])(torch.rand(1, 3, 64, 128))


def test_a_layer_of_too_few_positions_is_checked_again() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.head = nn.Conv2d(3, 8, 8, 8), nn.LayerNorm(8), nn.Linear(8, 5)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.norm(self.stem(images).movedim(1, -1)).relu().mean(dim=(1, 2)))

    model = Last().eval()
    cam = HolisticCAM(model, [model.norm], sizes=[16])
    cam(torch.rand(1, 3, 16, 16))  # two positions a side: nobody can tell
    with pytest.raises(ValueError, match="channels last"):
        HolisticCAM(model, [model.norm], sizes=[64])(torch.rand(1, 3, 64, 64))
