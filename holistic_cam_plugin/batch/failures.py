"""Tell an image that cannot be explained from a command that cannot explain any image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from holistic_cam_plugin.errors import RESUME, OutputError, describe_error, out_of_memory
from holistic_cam_plugin.explain import Explanation, Request, explain, predict

__all__ = ["RobustExplainer"]


class RobustExplainer:
    """Explains batches; an image that fails does not end the run.

    If a batch fails, its images are explained one by one. If a single image fails, noise of the model's input size is
    explained: if that works, the image is at fault.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self._has_explained_noise = False

    def explain(self, pixels: Tensor, targets: Sequence[tuple[int, ...]]) -> Sequence[Explanation | str]:
        """Return the explanation of every image, or the reason why it has none.

        Args:
            pixels: `(B, H, W, C)`, RGB or grey, uint8.
            targets: The class indices of every image; empty for the predicted class.

        Raises:
            UsageError: No image can be explained with these settings.
            OutputError: The device no longer works.
        """
        classifier = self.request.classifier
        try:
            images = classifier.preprocessing.normalize(pixels.to(classifier.device))
            return self._explain(images, targets)
        except Exception as error:  # models and devices raise errors of any type
            reason = "out of memory" if out_of_memory(error) else describe_error(error)
        if len(pixels) > 1:
            singles = zip(pixels.split(1), targets, strict=True)
            return [result for image, its_targets in singles for result in self.explain(image, [its_targets])]
        self._explain_noise()
        return [reason]

    def _explain(self, images: Tensor, targets: Sequence[tuple[int, ...]]) -> list[Explanation]:
        *_, explanations = explain(self.request, predict(self.request.classifier, images), targets)
        return explanations

    def _explain_noise(self) -> None:
        """Explain noise; after the first success, run only the model on it."""
        classifier = self.request.classifier
        generator = torch.Generator().manual_seed(0)
        shape = (1, len(classifier.preprocessing.mean), *classifier.preprocessing.size)
        noise = torch.randn(shape, generator=generator).to(classifier.device)
        if not self._has_explained_noise:
            self._explain(noise, [()])
            self._has_explained_noise = True
            return
        try:
            predict(classifier, noise)
        except Exception as error:
            raise OutputError(f"the device no longer works ({describe_error(error)}): {RESUME}") from error
