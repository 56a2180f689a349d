"""Images that the model or a method refuses, told apart from a command that can explain no image at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from holistic_cam_plugin.batch.explaining import Explainer, Explanation, explain, model_outputs
from holistic_cam_plugin.batch.writing import OutputError
from holistic_cam_plugin.passes.refusals import out_of_memory

__all__ = ["Trials"]


class Trials:
    """Explains images, and asks who is to blame where that fails.

    A batch that fails is explained image by image, at every restart again: which images are explained together depends
    on the images alone. Where one fails by itself, noise of the model's own size is explained: if that works, the
    image is to blame.
    """

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer
        self._proven = False

    def explained(self, pixels: Tensor, targets: Sequence[tuple[int, ...]]) -> list[Explanation | str]:
        """For every image its maps, or the reason why it has none.

        Args:
            pixels: `(B, H, W, C)`, RGB or gray, uint8.
            targets: for each image its classes; none: the predicted one.

        Raises:
            UsageError: no image can be explained like this.
            OutputError: the device no longer works.
        """
        try:
            return list(explain(self._explainer, self._normalized(pixels), targets))
        except Exception as error:  # models and devices raise whatever they like, and no image ends the run
            reason = _reason(error)
        if len(pixels) > 1:
            singles = zip(pixels.split(1), targets, strict=True)
            return [one for image, its_targets in singles for one in self.explained(image, [its_targets])]
        self._check()
        return [reason]

    def _normalized(self, pixels: Tensor) -> Tensor:
        classifier = self._explainer.classifier
        return classifier.preprocessing.normalized(pixels.to(classifier.device))

    def _check(self) -> None:
        """Explain noise; once that worked, the model's output is enough."""
        classifier = self._explainer.classifier
        generator = torch.Generator().manual_seed(0)
        shape = (1, len(classifier.preprocessing.mean), *classifier.preprocessing.size)
        noise = torch.randn(shape, generator=generator).to(classifier.device)
        if not self._proven:
            explain(self._explainer, noise, [()])
            self._proven = True
            return
        try:
            model_outputs(self._explainer, noise)
        except Exception as error:
            raise OutputError(
                f"the device no longer works ({_reason(error)}): what is done is safe, and the same command goes on "
                "from there"
            ) from error


def _reason(error: Exception) -> str:
    """One line, the same in every run."""
    if out_of_memory(error):
        return "does not fit into memory"  # the rest of such words differs from run to run
    return " ".join(f"{error}".split()) or type(error).__name__
