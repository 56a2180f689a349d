"""LeGrad on tiny ViTs of timm: attention and its gradient spelt out, every kind of grid, no trace on the model."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn import functional as F

from benchmarks.methods.legrad import LeGrad
from tests.conftest import min_max

TARGETS = [ClassifierOutputTarget(1), ClassifierOutputTarget(4)]


def vit(**options) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
    model = timm.models.VisionTransformer(**(sizes | options)).eval()
    for parameter in model.parameters():  # its own start is nearly blind
        nn.init.normal_(parameter, std=0.3)
    return model


def pictures(height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def literal_layer(model, number, tokens, category) -> np.ndarray:
    """Relevance of the patches, `(n,)`: the block's own sums, with its attention as a variable."""
    block = model.blocks[number]
    heads, width = 3, 8
    q, k, v = (
        part.view(-1, heads, width).transpose(0, 1)
        for part in F.linear(block.norm1(tokens), block.attn.qkv.weight, block.attn.qkv.bias).chunk(3, dim=-1)
    )
    attention = torch.stack([(q[h] @ k[h].T / width**0.5).softmax(dim=-1) for h in range(heads)])
    attention = attention.detach().requires_grad_()
    mixed = torch.cat([attention[h] @ v[h] for h in range(heads)], dim=-1)
    tokens = tokens + block.attn.proj(mixed)
    tokens = tokens + block.mlp(block.norm2(tokens))
    model.head(model.norm(tokens)[0])[category].backward()
    gradient = attention.grad.numpy()
    count = len(tokens)
    relevance = np.zeros(count)
    for head in range(heads):
        for token in range(count):
            relevance += np.maximum(gradient[head, token], 0)
    return relevance / (heads * count)


def literal(model, image, category, blocks) -> np.ndarray:
    tokens = model._pos_embed(model.patch_embed(image))[0].detach()
    found = []
    for number, block in enumerate(model.blocks):
        if number in blocks:
            found.append(literal_layer(model, number, tokens, category))
        tokens = block(tokens[None])[0].detach()
    small = np.mean(found, axis=0)[1:].reshape(4, 4)  # without the class token
    large = F.interpolate(torch.tensor(small)[None, None], (32, 32), mode="bilinear", align_corners=False)
    return min_max(large[0, 0].numpy())


@pytest.mark.parametrize("blocks", [(0, 1, 2), (1, 2)])
def test_spelt_out(blocks):
    model = vit()
    chosen = [] if len(blocks) == 3 else [model.blocks[number] for number in blocks]
    maps = LeGrad(model, chosen)(pictures(), TARGETS)
    assert maps.dtype == np.float32
    for image, category, saliency_map in zip(pictures().split(1), (1, 4), maps, strict=True):
        np.testing.assert_allclose(saliency_map, literal(model, image, category, blocks), atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"global_pool": "avg"},
        {"class_token": False, "global_pool": "avg"},
        {"reg_tokens": 4},
        {"qk_norm": True, "init_values": 0.1},
    ],
)
def test_other_vits(options):
    assert LeGrad(vit(**options))(pictures()).shape == (2, 32, 32)


def test_images_of_any_size():
    model = vit(dynamic_img_size=True)
    assert LeGrad(model)(pictures(40, 64)).shape == (2, 40, 64)


def test_own_reshape_transform():
    def grid(tokens):
        return tokens[:, 1:].reshape(-1, 4, 4, 1).permute(0, 3, 1, 2)

    np.testing.assert_array_equal(LeGrad(vit(), [], grid)(pictures()), LeGrad(vit())(pictures()))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_frozen_models_and_modes(context):
    expected = LeGrad(vit())(pictures(), TARGETS)
    model = vit().requires_grad_(False)
    with context():
        np.testing.assert_array_equal(LeGrad(model)(pictures(), TARGETS), expected)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_as_before(fails):
    model = vit().train()
    fused = [block.attn.fused_attn for block in model.blocks]
    assert all(fused)
    if fails:
        with pytest.raises(IndexError):
            LeGrad(model)(pictures(), [ClassifierOutputTarget(9)] * 2)
    else:
        LeGrad(model)(pictures(), TARGETS)
    assert [block.attn.fused_attn for block in model.blocks] == fused
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_refused(net):
    with pytest.raises(TypeError, match=r"LeGrad needs a vision transformer of timm .*, got Staged"):
        LeGrad(net)
    with pytest.raises(TypeError, match="class token or average pooling"):
        LeGrad(vit(global_pool="map", class_token=False))
    model = vit()
    with pytest.raises(ValueError, match=r"must be blocks of the model, such as model\.blocks"):
        LeGrad(model, [model.norm])
