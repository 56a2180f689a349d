"""The bundled demo: two photographs; a small classifier of handwritten digits, and pictures for it.

`python -m benchmarks.train_digits` trains the classifier again, with `--image` it makes the picture.
"""

from holistic_cam_plugin.demo.digits_resnet import DigitsResNet, load_demo_model
from holistic_cam_plugin.demo.photographs import PHOTOS, load_demo_photo
from holistic_cam_plugin.demo.preprocess import SCENE_MEAN, SCENE_STD, preprocess
from holistic_cam_plugin.demo.scenes import SCENE_SIZE, Box, Colour, Scene, load_demo_image, make_demo_scene, make_scene
from holistic_cam_plugin.demo.sources import CLASSES, Split, split_digits, split_photos

__all__ = [
    "CLASSES",
    "PHOTOS",
    "SCENE_MEAN",
    "SCENE_SIZE",
    "SCENE_STD",
    "Box",
    "Colour",
    "DigitsResNet",
    "Scene",
    "Split",
    "load_demo_image",
    "load_demo_model",
    "load_demo_photo",
    "make_demo_scene",
    "make_scene",
    "preprocess",
    "split_digits",
    "split_photos",
]
