r"""LeGrad: how the score of every block's tokens would change with the attention that made them.

$$s^l = f_c(Z^l), \qquad
E^l = \frac{1}{h n} \sum_{h, i} \mathrm{ReLU}\Big( \frac{\partial s^l}{\partial A^l} \Big)_{h, i, \cdot}, \qquad
E = \frac1L \sum_l E^l$$

where $A^l$ are the attention maps of block l, of h heads and n tokens, $Z^l$ are the tokens that the block returns and
$f_c$ is the model's own head: last normalisation, pooling and classifier. E, without the tokens before the grid, is the
map.

Paper: Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity",
ICCV 2025 (arXiv 2404.03214), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin.baselines.attribution import Attribution
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.records import Reshaping
from holistic_cam_plugin.passes.targets import Target, total_score
from holistic_cam_plugin.reshape_transforms import vit_reshape_transform

__all__ = ["LeGrad"]


class LeGrad(Attribution):
    """LeGrad (Bousselham et al., ICCV 2025) for timm's vision transformers.

    Args:
        model: a ViT of timm with self-attention blocks in `blocks`.
        target_layers: the blocks whose attention is looked at; none: all of them, as in the paper's ViT-B.
        reshape_transform: makes maps of tokens `(B, n, 1)`; None: `vit_reshape_transform` with the model's patches.

    Raises:
        TypeError, ValueError: another model, or target layers that are not its blocks.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module] = (),
        reshape_transform: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)
        vit: Any = self.model
        if not _is_vit(vit):
            raise TypeError(
                "LeGrad reads the attention of timm's vision transformers that classify a class token or an average, "
                f"got a {type(vit).__name__}: pass a model such as timm.create_model('vit_base_patch16_224')"
            )
        self.blocks: list[Any] = list(target_layers) or list(vit.blocks)
        if not set(self.blocks) <= set(vit.blocks):
            raise ValueError("LeGrad's target layers must be blocks of the model, such as model.blocks[-4:]")
        patches = partial(
            vit_reshape_transform, patch_size=vit.patch_embed.patch_size[0], prefix_tokens=vit.num_prefix_tokens
        )
        self._reshaping = Reshaping(reshape_transform or patches)

    def saliency(self, images: Tensor, targets: Sequence[Target]) -> Tensor:
        """E on the canvas, `(B, H, W)`, never negative."""
        size = tuple(images.shape[2:])
        relevance = torch.stack([self._relevance(*record, targets) for record in self._recorded(images)]).mean(dim=0)
        maps = self._reshaping.maps(relevance[..., None], size)
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[:, 0]

    def _recorded(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Of each block the attention maps `(B, h, n, n)`, leaves of the graph, and the tokens `(B, n, C)`."""
        attentions: dict[nn.Module, Tensor] = {}
        tokens: dict[nn.Module, Tensor] = {}

        def leaf(block: nn.Module, _: nn.Module, __: object, output: Tensor) -> Tensor:
            attentions[block] = output.detach().requires_grad_()
            return attentions[block]

        def keep(block: nn.Module, _: object, output: Tensor) -> None:
            tokens[block] = output

        with ExitStack() as stack:
            for block in self.blocks:
                # PyTorch's fused attention never makes the attention maps.
                stack.callback(setattr, block.attn, "fused_attn", block.attn.fused_attn)
                block.attn.fused_attn = False
                stack.callback(block.attn.attn_drop.register_forward_hook(partial(leaf, block)).remove)
                stack.callback(block.register_forward_hook(keep).remove)
            self.model(images)
        return [(attentions[block], tokens[block]) for block in self.blocks]

    def _relevance(self, attention: Tensor, tokens: Tensor, targets: Sequence[Target]) -> Tensor:
        """E^l, `(B, n)`."""
        vit: Any = self.model
        outputs = check_outputs(vit.forward_head(vit.norm(tokens)), len(tokens))
        # The blocks share one graph; a block's tokens are in it together with what made them.
        (gradient,) = torch.autograd.grad(total_score(targets, outputs), attention, retain_graph=True)
        return gradient.relu().mean(dim=(1, 2)).float()


def _is_vit(model: Any) -> bool:
    parts = ("blocks", "norm", "forward_head", "patch_embed", "num_prefix_tokens")
    return (
        all(hasattr(model, part) for part in parts)
        and getattr(model, "attn_pool", None) is None
        and all(isinstance(getattr(getattr(b, "attn", None), "attn_drop", None), nn.Module) for b in model.blocks)
    )
