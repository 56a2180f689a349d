r"""LeGrad: sensitivity of the score to the attention maps of each block.

$$s^l = f_c(Z^l), \qquad
E^l = \frac{1}{h n} \sum_{h, i} \mathrm{ReLU}\Big( \frac{\partial s^l}{\partial A^l} \Big)_{h, i, \cdot}, \qquad
E = \frac1L \sum_l E^l$$

where $A^l$ are the attention maps of block l with h heads and n tokens, $Z^l$ are the tokens that the block returns and
$f_c$ is the model's head: last normalisation, pooling and classifier. E without the tokens before the grid is the map.

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
        target_layers: blocks whose attention is used; empty: all blocks, as in the paper's ViT-B.
        reshape_transform: reshapes tokens `(B, n, 1)` to maps; None: `vit_reshape_transform` for the model's patches.

    Raises:
        TypeError, ValueError: another kind of model, or target layers that are not blocks of the model.
    """

    needs_layers = False

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
                "LeGrad needs a vision transformer of timm with a class token or average pooling, such as "
                f"timm.create_model('vit_base_patch16_224'), got {type(vit).__name__}"
            )
        self.blocks: list[Any] = list(target_layers) or list(vit.blocks)
        if not set(self.blocks) <= set(vit.blocks):
            raise ValueError("LeGrad's target layers must be blocks of the model, such as model.blocks[-4:]")
        patches = partial(
            vit_reshape_transform, patch_size=vit.patch_embed.patch_size[0], prefix_tokens=vit.num_prefix_tokens
        )
        self._reshaping = Reshaping(reshape_transform or patches)

    def compute_maps(self, images: Tensor, targets: Sequence[Target]) -> list[Tensor]:
        """E, `(B, h, w)`, never negative."""
        relevance = torch.stack([self._compute_relevance(*record, targets) for record in self._record(images)])
        return [self._reshaping.maps(relevance.mean(dim=0)[..., None], tuple(images.shape[2:]))[:, 0]]

    def _record(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Record each block's attention maps `(B, h, n, n)`, as leaves of the graph, and its tokens `(B, n, C)`."""
        attentions: dict[nn.Module, Tensor] = {}
        tokens: dict[nn.Module, Tensor] = {}

        def cut(block: nn.Module, _: nn.Module, __: object, output: Tensor) -> Tensor:
            attentions[block] = output.detach().requires_grad_()
            return attentions[block]

        def keep(block: nn.Module, _: object, output: Tensor) -> None:
            tokens[block] = output

        with ExitStack() as stack:
            for block in self.blocks:
                # PyTorch's fused attention does not compute attention maps.
                stack.callback(setattr, block.attn, "fused_attn", block.attn.fused_attn)
                block.attn.fused_attn = False
                stack.callback(block.attn.attn_drop.register_forward_hook(partial(cut, block)).remove)
                stack.callback(block.register_forward_hook(keep).remove)
            self.model(images)
        return [(attentions[block], tokens[block]) for block in self.blocks]

    def _compute_relevance(self, attention: Tensor, tokens: Tensor, targets: Sequence[Target]) -> Tensor:
        """Compute E^l, `(B, n)`."""
        vit: Any = self.model
        outputs = check_outputs(vit.forward_head(vit.norm(tokens)), len(tokens))
        # All blocks share one graph.
        (gradient,) = torch.autograd.grad(total_score(targets, outputs), attention, retain_graph=True)
        return gradient.relu().mean(dim=(1, 2)).float()


def _is_vit(model: Any) -> bool:
    parts = ("blocks", "norm", "forward_head", "patch_embed", "num_prefix_tokens")
    return (
        all(hasattr(model, part) for part in parts)
        and getattr(model, "attn_pool", None) is None
        and all(isinstance(getattr(getattr(b, "attn", None), "attn_drop", None), nn.Module) for b in model.blocks)
    )
