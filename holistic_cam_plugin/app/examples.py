"""Pictures to begin with, all of them on the machine already."""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from holistic_cam_plugin.demo import demo_image, make_scene

__all__ = ["photographs", "scenes"]

_SEEDS = (3, 8, 21, 40, 77)


def scenes() -> list[Image.Image]:
    """For the bundled classifier: the bundled picture, and further held-out scenes of two digits."""
    made = [make_scene(seed, "held-out", digits=2).image.transpose(1, 2, 0) for seed in _SEEDS]
    return [demo_image(), *(Image.fromarray((255 * pixels).round().astype(np.uint8)) for pixels in made)]


def photographs() -> list[Image.Image]:
    """For classifiers of photographs: the two that scikit-learn ships, a pagoda and a dahlia."""
    return [Image.fromarray(pixels) for pixels in load_sample_images().images]
