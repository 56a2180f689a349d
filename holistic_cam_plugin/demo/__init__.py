"""The bundled demo: a small classifier of handwritten digits on photographs, its picture, and its scenes.

`python -m holistic_cam_plugin.demo.train` makes the classifier again, and `... --image` the picture.
"""

from holistic_cam_plugin.demo.digits_resnet import DigitsResNet, load_demo_model
from holistic_cam_plugin.demo.preprocess import SCENE_MEAN, SCENE_STD, preprocess
from holistic_cam_plugin.demo.scenes import SCENE_SIZE, Box, Scene, demo_image, demo_scene, make_scene
from holistic_cam_plugin.demo.sources import CLASSES, Split, split_digits, split_photos

__all__ = [
    "CLASSES",
    "SCENE_MEAN",
    "SCENE_SIZE",
    "SCENE_STD",
    "Box",
    "DigitsResNet",
    "Scene",
    "Split",
    "demo_image",
    "demo_scene",
    "load_demo_model",
    "make_scene",
    "preprocess",
    "split_digits",
    "split_photos",
]
