"""Example pictures that need no download."""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from holistic_cam_plugin.demo import load_demo_image, make_scene
from holistic_cam_plugin.names import DIGITS

__all__ = ["load_examples"]

_SEEDS = (3, 8, 21, 40, 77)


def load_examples(model: str) -> list[Image.Image]:
    """For the bundled classifier its picture and five held-out scenes; for others scikit-learn's two photographs."""
    if model != DIGITS:
        return [Image.fromarray(pixels) for pixels in load_sample_images().images]
    made = [make_scene(seed, "held-out", digits=2).image.transpose(1, 2, 0) for seed in _SEEDS]
    return [load_demo_image(), *(Image.fromarray((255 * pixels).round().astype(np.uint8)) for pixels in made)]
