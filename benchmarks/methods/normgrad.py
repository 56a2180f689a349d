r"""NormGrad: contribution of each position to the gradient of a 1 x 1 convolution's weights.

The gradient of the weights of a 1 x 1 convolution behind the layer, which is the identity, is a sum of outer products
over the positions. The map is their Frobenius norm:

$$\frac{\partial \ell}{\partial W} = \sum_u g_u x_u^\top, \qquad
M_u = \lVert g_u x_u^\top \rVert_F = \lVert g_u \rVert_2 \, \lVert x_u \rVert_2$$

where $x_u$ are the layer's activations at position u and $g_u$ the gradient of the target's score with respect to them.

Paper: Rebuffi, Fong, Ji and Vedaldi, "There and Back Again: Revisiting Backpropagation Saliency Methods", CVPR 2020,
section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from holistic_cam_plugin.baselines.attribution import Attribution
from holistic_cam_plugin.passes.targets import Target

__all__ = ["NormGrad", "spatial_contributions"]


class NormGrad(Attribution):
    """NormGrad (Rebuffi et al., CVPR 2020) with a virtual identity; it ignores the sign of the evidence.

    Maps of several layers are multiplied, as in the paper, here with equal powers: their geometric mean. The target's
    score is differentiated, as in pytorch-grad-cam.

    Args:
        model, target_layers, reshape_transform: as in pytorch-grad-cam.

    Raises:
        TypeError, ValueError: layers are not modules of the model.
    """

    def compute_maps(self, images: Tensor, targets: Sequence[Target]) -> list[Tensor]:
        """Contributions of the positions, `(B, h, w)` for each layer."""
        pairs = zip(*self.activations_and_gradients(images, targets), strict=True)
        return [spatial_contributions(activations, gradients) for activations, gradients in pairs]

    def combine(self, maps: Tensor) -> Tensor:
        """Geometric mean over the layers of maps `(B, layers, H, W)`."""
        return maps.pow(1 / maps.shape[1]).prod(dim=1)


def spatial_contributions(activations: Tensor, gradients: Tensor) -> Tensor:
    """Frobenius norm of the outer product of gradient and activations at each position.

    Args:
        activations, gradients: `(B, C, h, w)`.

    Returns:
        `(B, h, w)`, never negative.
    """
    norms: Tensor = activations.norm(dim=1) * gradients.norm(dim=1)
    return norms
