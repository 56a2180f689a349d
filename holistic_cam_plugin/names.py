"""Names that a user chooses from: methods, models, pyramids, colours. Imports nothing that takes time."""

from __future__ import annotations

import re

from holistic_cam_plugin.errors import near_matches

__all__ = [
    "COLORMAP",
    "COLORMAPS",
    "DEFAULT_METHODS",
    "DEFAULT_MODEL",
    "DIGITS",
    "FAST",
    "FOLDERS",
    "GRAD_CAM_CLASSES",
    "HUGGING_FACE",
    "LITE0",
    "METHOD_KEYS",
    "NAMED_SIZES",
    "OPEN_CLIP",
    "PAPER",
    "SCALES",
    "TIMM",
    "find_method",
    "normalize_name",
]

DEFAULT_MODEL = "resnet50"
DIGITS, LITE0 = "digits", "efficientnet_lite0"  # the bundled model, and the one whose weights are a package

# Prefixes of the names of models whose files are on the Hugging Face Hub; the rest may be a folder of this machine.
TIMM, HUGGING_FACE, OPEN_CLIP = "timm/", "hf/", "open_clip/"
FOLDERS = (".", "/", "~")  # first characters of a folder

# Pyramids.
PAPER, FAST = "paper", "fast"
NAMED_SIZES = (FAST, PAPER)

# Of OpenCV. All but jet, which is pytorch-grad-cam's default, and turbo are perceptually uniform.
COLORMAPS = ("inferno", "viridis", "magma", "cividis", "turbo", "jet")
COLORMAP = "inferno"  # the default
SCALES = {"linear": "linear", "sqrt": "square root", "rank": "rank among the pixels above 0"}

# Methods of pytorch-grad-cam, by the names of their classes.
GRAD_CAM_CLASSES = (
    "AblationCAM", "EigenCAM", "EigenGradCAM", "FEM", "FinerCAM", "FullGrad", "GradCAM", "GradCAMElementWise",
    "GradCAMPlusPlus", "HiResCAM", "KPCA_CAM", "LayerCAM", "RandomCAM", "RefineCAM", "ScoreCAM", "SegEigenCAM", "SESS",
    "ShapleyCAM", "XGradCAM",
)  # fmt: skip
_OWN_CLASSES = ("CAM", "CAMERAS", "HolisticCAM", "ClassHolisticCAM")

DEFAULT_METHODS = ("gradcam", "gradcamplusplus", "layercam", "cameras", "holisticcam", "classholisticcam")


def normalize_name(name: str) -> str:
    """The key of a method, from any spelling of its name."""
    return re.sub(r"[-_ ]", "", name.lower()).replace("++", "plusplus")


METHOD_KEYS = tuple(map(normalize_name, (*GRAD_CAM_CLASSES, *_OWN_CLASSES)))


def find_method(name: str) -> str:
    """The key of a method, whose name may be written `Grad-CAM++`, `gradcam++` or `gradcamplusplus`.

    Raises:
        ValueError: no such method; the message suggests similar names.
    """
    key = normalize_name(name)
    if key not in METHOD_KEYS:
        hint = near_matches(key, METHOD_KEYS) or f"; known methods: {', '.join(METHOD_KEYS)}"
        raise ValueError(f"unknown method {name!r}{hint}")
    return key
