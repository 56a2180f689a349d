"""Semantic segmentation, object detection and a vision transformer, each explained in two layers.

Train the three networks of `benchmarks.tutorials.models` on scenes of two digits, print their accuracy on held-out
scenes, and draw `tutorials.png`. For each network, it shows the first held-out scene in which the network finds both
digits, and explains its first digit. The share of the maps in the explained digit's box is printed for more scenes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from pytorch_grad_cam import EigenCAM, GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import (
    ClassifierOutputTarget,
    FasterRCNNBoxScoreTarget,
    SemanticSegmentationTarget,
)
from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform
from torch import Tensor, nn

from benchmarks.tutorials.models import TASKS, Samples, draw_samples, train
from benchmarks.tutorials.quality import find_digits, mean_iou
from holistic_cam_plugin import ClassHolisticCAM, HolisticCAM, vit_reshape_transform
from holistic_cam_plugin.demo import SCENE_SIZE, Box
from holistic_cam_plugin.metrics import energy_pointing_game

__all__ = ["Case", "Explanation", "Layer", "draw", "explain", "main"]

Maps = NDArray[np.float32]
# The bundled classifier recognises little in larger images.
SIZES = (224, 280, 336, 392, 448)

COMPETING = {"Grad-CAM": GradCAM, "Eigen-CAM": EigenCAM}
OURS = {"HolisticCAM": HolisticCAM, "ClassHolisticCAM": ClassHolisticCAM}


class Output(nn.Module):
    """Returns the tensor in a segmentation network's dict, as in pytorch-grad-cam's tutorial."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the classes, `(B, 11, H, W)`."""
        scores: Tensor = self.model(images)["out"]
        return scores


class Layer(NamedTuple):
    """A target layer, its reshape transform, and the method of pytorch-grad-cam to compare with."""

    name: str
    module: nn.Module
    reshape_transform: Callable[..., Tensor] | None = None
    competing: str = "Grad-CAM"


class Case(NamedTuple):
    """A model that pytorch-grad-cam accepts, a target, and a shallow and a deep layer."""

    model: nn.Module
    target: Callable[[Any], Tensor]
    layers: Sequence[Layer]
    draw: Callable[[Axes], None]  # draws the prediction on the picture


def build_segmentation_case(model: Any, image: Tensor, label: int) -> Case:
    """Explain the pixels of the predicted class."""
    with torch.no_grad():
        classes = model(image)["out"][0].argmax(dim=0).numpy()
    mask = (classes == label + 1).astype(np.float32)
    stages = model.backbone.body
    layers = Layer("layer2", stages.layer2), Layer("layer4", stages.layer4)

    def draw(axes: Axes) -> None:
        for found in np.unique(classes[classes > 0]):
            share = classes == found
            if share.sum() > 100:  # pixels; omit specks
                colour = _choose_colour(found == label + 1)
                axes.contour(share, [0.5], colors=[colour], linewidths=1)
                y, x = np.nonzero(share)
                _draw_note(axes, x.min(), max(y.min(), 14), f"{found - 1}", colour)

    return Case(Output(model).eval(), SemanticSegmentationTarget(label + 1, mask), layers, draw)


def build_detection_case(model: Any, image: Tensor, label: int) -> Case:
    """Explain the best box of the class."""
    with torch.no_grad():
        found = {name: values.clone() for name, values in model(image)[0].items()}
    best = int((found["scores"] * (found["labels"] == label + 1)).argmax())
    target = FasterRCNNBoxScoreTarget(found["labels"][best : best + 1], found["boxes"][best : best + 1])
    layers = (
        Layer("body.layer2", model.backbone.body.layer2),
        # pytorch-grad-cam records no gradients of a dict; its tutorial of Faster R-CNN uses Eigen-CAM here.
        Layer("backbone", model.backbone, fasterrcnn_reshape_transform, "Eigen-CAM"),
    )

    def draw(axes: Axes) -> None:
        for box, what, score in zip(found["boxes"], found["labels"], found["scores"], strict=True):
            if score > 0.5:
                colour = _choose_colour(bool(what == label + 1))
                _draw_box(axes, box.tolist(), colour)
                _draw_note(axes, box[0].item(), max(box[1].item(), 14), f"{what - 1}: {score:.2f}", colour)

    return Case(model, target, layers, draw)


def build_transformer_case(model: Any, image: Tensor, label: int) -> Case:
    """Explain the score of the class."""
    with torch.no_grad():
        present = model(image)[0].sigmoid()
    layers = tuple(Layer(f"blocks[{k}].norm1", model.blocks[k].norm1, vit_reshape_transform) for k in (0, -1))

    def draw(axes: Axes) -> None:
        for row, k in enumerate(present.topk(2).indices.tolist()):
            _draw_note(axes, 5, 18 + 20 * row, f"{k}: {present[k]:.2f}", _choose_colour(k == label))

    return Case(model, ClassifierOutputTarget(label), layers, draw)


CASES = {"segmentation": build_segmentation_case, "detection": build_detection_case, "ViT": build_transformer_case}


def explain(case: Case, image: Tensor, sizes: Sequence[int] | None = None) -> dict[tuple[str, str], Maps]:
    """Compute the map `(H, W)` of every method in every layer, by names of layer and method."""
    maps = {}
    for layer in case.layers:
        where = case.model, [layer.module], layer.reshape_transform
        maps[layer.name, layer.competing] = COMPETING[layer.competing](*where)(image, [case.target])[0]
        for name, cam_class in OURS.items():
            maps[layer.name, name] = cam_class(*where, sizes=sizes)(image, [case.target])[0]
    return maps


class Explanation(NamedTuple):
    """A row of the figure: a case, the picture `(H, W, 3)` in [0, 1], the explained digit's box, and maps."""

    case: Case
    picture: Maps
    box: Box
    maps: dict[tuple[str, str], Maps]


def _explain_scene(task: str, model: nn.Module, samples: Samples, index: Tensor, sizes: Sequence[int]) -> Explanation:
    image, scene = samples.batch(index[None])
    x0, y0, x1, y1 = scene.boxes[0, 0].int().tolist()
    case = CASES[task](model, image, int(scene.labels[0, 0]))
    picture = (scene.images[0] / 255).permute(1, 2, 0).numpy()
    return Explanation(case, picture, (x0, y0, x1, y1), explain(case, image, sizes))


def draw(path: Path, explanations: Mapping[str, Explanation]) -> None:
    """Write the figure, with a row per task: the prediction, and all maps in the shallow and in the deep layer."""
    widths = [1, 0.03, 1, 1, 1, 0.03, 1, 1, 1]
    figure = Figure(
        figsize=(11, 1.72 * len(explanations)),
        dpi=110,
        layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.02, wspace=0, hspace=0),
    )
    grid = figure.subplots(len(explanations), len(widths), width_ratios=widths, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for axes in grid[:, [1, 5]].flat:
        axes.set_visible(False)
    for axes_row, (task, (case, picture, box, maps)) in zip(grid, explanations.items(), strict=True):
        axes_row[0].imshow(picture)
        axes_row[0].set_ylabel(task, fontsize=9)
        case.draw(axes_row[0])
        for axes, ((layer, method), cam) in zip(axes_row[[2, 3, 4, 6, 7, 8]], maps.items(), strict=True):
            axes.imshow(show_cam_on_image(picture, cam, use_rgb=True))
            _draw_box(axes, box, "white", linestyle=":")
            where = layer if method in ("Grad-CAM", *OURS) else f"{method}, {layer}"
            axes.set_xlabel(f"{where}, {measure_energy(cam, box):.0%}", fontsize=7, labelpad=2)
            if axes in grid[0]:
                axes.set_title(method, fontsize=7, pad=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def measure_energy(saliency_map: Maps, box: Box) -> float:
    """Share of the map's sum inside the box, in [0, 1]."""
    return float(energy_pointing_game(saliency_map[None], [box])[0])


def _draw_note(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    box = {"facecolor": colour, "pad": 1, "linewidth": 0}
    axes.text(x, y, text, fontsize=6.5, va="bottom", color="black", bbox=box)


def _draw_box(axes: Axes, box: Sequence[float], colour: str, linestyle: str = "-") -> None:
    x0, y0, x1, y1 = box
    outline = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linestyle=linestyle)
    axes.add_patch(outline)


def _choose_colour(explained: bool) -> str:
    return "#ffd400" if explained else "white"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tutorials", description=__doc__)
    parser.add_argument("--scenes", type=int, default=1200, help="number of training scenes (1200)")
    parser.add_argument("--held-out", type=int, default=150, help="number of held-out scenes (150)")
    parser.add_argument("--explained", type=int, default=20, help="number of held-out scenes to explain (20)")
    parser.add_argument("--size", type=int, default=SCENE_SIZE, help="side of the scenes in pixels (%(default)s)")
    parser.add_argument("--steps", type=int, help="training steps of every network (chosen per network)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="sizes of the pyramid in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("output"))
    options = parser.parse_args(arguments)
    samples = draw_samples("train", options.scenes, options.size)
    held_out = draw_samples("held-out", options.held_out, options.size)
    drawn = {}
    for task in TASKS:
        start = time.perf_counter()
        model = train(task, samples, options.steps, options.seed)
        print(f"{task}: trained for {time.perf_counter() - start:.0f} s")
        found = find_digits(model, held_out)
        iou = f", mean IoU of the pixels {mean_iou(model, held_out):.1%}" if task == "segmentation" else ""
        print(f"{task}: finds {found.float().mean():.1%} of the digits of {len(found)} held-out scenes{iou}")
        # Scenes with most digits found come first, in a stable order; the first one is drawn.
        order = found.sum(dim=1).argsort(descending=True, stable=True)[: options.explained]
        explained = [_explain_scene(task, model, held_out, index, options.sizes) for index in order]
        drawn[task] = explained[0]
        print(f"{task}: mean share of the map in the digit's box, {len(explained)} scenes")
        for layer, method in explained[0].maps:
            shares = [measure_energy(one.maps[layer, method], one.box) for one in explained]
            print(f"    {layer:16} {method:30} {np.mean(shares):.1%}")
    path = options.output / "tutorials.png"
    draw(path, drawn)
    print(path)


if __name__ == "__main__":
    main()
