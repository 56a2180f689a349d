r"""NormGrad: how much each position contributes to the gradient of a 1 x 1 convolution's weights.

Put a 1 x 1 convolution that is the identity behind the layer. The gradient of its weights is a sum over the positions
of outer products, of which NormGrad takes the Frobenius norm:

$$\frac{\partial \ell}{\partial W} = \sum_u g_u x_u^\top, \qquad
M_u = \lVert g_u x_u^\top \rVert_F = \lVert g_u \rVert_2 \, \lVert x_u \rVert_2$$

where $x_u$ are the layer's activations at position u and $g_u$ the gradient of the target's score with respect to them.

Paper: Rebuffi, Fong, Ji and Vedaldi, "There and Back Again: Revisiting Backpropagation Saliency Methods", CVPR 2020,
section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from holistic_cam_plugin.baselines.attribution import LayerAttribution
from holistic_cam_plugin.passes.targets import Target

__all__ = ["NormGrad", "spatial_contributions"]


class NormGrad(LayerAttribution):
    """NormGrad (Rebuffi et al., CVPR 2020) behind a virtual identity; blind to the sign of the evidence.

    Several layers give the product of their maps, as the paper combines layers, here with equal powers: their geometric
    mean. What is differentiated is the target's score, as in the library's methods.

    Args:
        model, target_layers, reshape_transform: as in the library.

    Raises:
        TypeError, ValueError: layers that are not modules of the model.
    """

    def layer_saliency(self, images: Tensor, targets: Sequence[Target]) -> list[Tensor]:
        """Contributions of the positions, one `(B, h, w)` tensor a layer."""
        pairs = zip(*self.activations_and_gradients(images, targets), strict=True)
        return [spatial_contributions(activations, gradients) for activations, gradients in pairs]

    def combined(self, maps: Tensor) -> Tensor:
        """The geometric mean over the layers of maps `(B, layers, H, W)`."""
        return maps.pow(1 / maps.shape[1]).prod(dim=1)


def spatial_contributions(activations: Tensor, gradients: Tensor) -> Tensor:
    """Frobenius norm of the outer product of gradient and activation at every position.

    Args:
        activations, gradients: `(B, C, h, w)`.

    Returns:
        `(B, h, w)`, never negative.
    """
    norms: Tensor = activations.norm(dim=1) * gradients.norm(dim=1)
    return norms
