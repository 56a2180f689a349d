"""What each scale buys: quality of the maps against time, for pyramids of other sizes than the paper's seven.

A setting is a weighting and a pyramid. Every one runs once an image, one after the other, so that times and values are
compared on the same image. Decide on `--half tuned`, then report once on `--half reported`, or name the pictures of
each by --labels.

  python -m benchmarks.pareto --model squeezenet1_0 --weights squeezenet1_0.pth --images photos --masks masks \\
      --layers features.3 features.7 features.12 --half tuned --samples 8 --step 3584

The table's `seconds` are those of one call, which gives the maps of all the layers; on a CPU the processor's, so that
what else runs there does not count. `spearman` is the rank correlation of the map's pixels with those of the reference,
the seven scales; it is empty where they are not among the settings. --amp adds every setting in bfloat16, whose
reference is the same setting in float32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.measures import COLUMNS, METRICS, check_metrics, measured
from benchmarks.harness.methods import MapsByMethod
from benchmarks.harness.models import load_model
from benchmarks.harness.procedures import synchronize
from benchmarks.harness.report import print_report
from benchmarks.harness.runner import Evaluate, Task, command, prepared, run
from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.batch.journal import Row
from holistic_cam_plugin.errors import UsageError, near_matches

__all__ = ["PYRAMIDS", "REFERENCE", "Setting", "settings"]

REFERENCE = "formula, 7"
# The formula's number of scales, or shorter sides in pixels of a 224 px image, in proportion of others.
PYRAMIDS: dict[str, int | tuple[int, ...]] = {
    "1 scale": 1,
    "formula, 2": 2,
    "formula, 3": 3,
    "formula, 4": 4,
    REFERENCE: 7,
    **{
        " ".join(map(str, sides)): sides
        for sides in (
            (224, 448),
            (224, 634),
            (224, 317, 448),
            (224, 366, 509),
            (224, 448, 672),
            (224, 448, 896),
            (224, 317, 448, 634),
        )
    },
}
SIDE = 224


class Setting(NamedTuple):
    """What makes a map: a weighting of the class, the name of a pyramid, and whether the model runs in bfloat16."""

    weighting: str
    pyramid: str
    amp: bool = False

    @property
    def name(self) -> str:
        """How the setting is named in the table."""
        return f"{self.weighting}: {self.pyramid}" + (", bfloat16" if self.amp else "")

    @property
    def reference(self) -> Setting:
        """What its map is compared with."""
        return self._replace(amp=False) if self.amp else self._replace(pyramid=REFERENCE)

    def cam(self, model: nn.Module, layers: Sequence[nn.Module], side: int, **options: Any) -> HolisticCAM:
        """The method for images whose shorter side is `side` pixels.

        Args:
            options: as `Explainable.options` tells.
        """
        spec = PYRAMIDS[self.pyramid]
        options |= {"num_scales": spec} if isinstance(spec, int) else {"sizes": [px * side // SIDE for px in spec]}
        return HolisticCAM(model, layers, weighting=self.weighting, amp=self.amp, **options)


class Made(NamedTuple):
    """A map `(H, W)`, and the seconds of the call that gave it."""

    map: NDArray[np.float32]
    seconds: float


def settings(arguments: argparse.Namespace) -> list[Setting]:
    """What the arguments name."""
    precisions = (False, True) if arguments.amp else (False,)
    return [Setting(*parts) for parts in product(arguments.weightings, arguments.pyramids, precisions)]


def make(arguments: argparse.Namespace) -> Evaluate:
    """The evaluation of one image, with the model loaded."""
    classifier = load_model(arguments)
    named = {setting.name: setting for setting in settings(arguments)}
    # The first passes of a process take longer.
    found = classifier.found.at(arguments.layers)
    noise = torch.rand(1, len(found.preprocessing.mean), *found.size, device=classifier.device)
    Setting(arguments.weightings[0], "1 scale").cam(found.model, found.target_layers, SIDE, **found.options)(noise)

    def evaluate(task: Task) -> list[Row]:
        made: dict[tuple[str, str], Made] = {}

        def explain(image: Tensor, target: ClassifierOutputTarget) -> MapsByMethod:
            for name, setting in named.items():
                cam = setting.cam(found.model, found.target_layers, min(image.shape[2:]), **found.options)
                start = _seconds(image.device)
                maps = cam.compute_cam_per_layer(image, [target])
                seconds = _seconds(image.device) - start
                made.update(
                    {(layer, name): Made(own[0, 0], seconds) for layer, own in zip(arguments.layers, maps, strict=True)}
                )
            return {key: made[key].map for key in product(arguments.layers, named)}

        def own(row: Row) -> dict[str, object]:
            layer, name = str(row["layer"]), str(row["method"])
            one, reference = made[layer, name], made.get((layer, named[name].reference.name))
            if reference is None:
                return {"seconds": one.seconds}
            return {
                "seconds": one.seconds,
                "spearman": float(spearmanr(one.map.ravel(), reference.map.ravel()).statistic),
            }

        return [{**row, **own(row)} for row in measured(task, classifier, explain, arguments)]

    return evaluate


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    parser = experiment_parser(__doc__)
    add = parser.add_argument
    add("--metrics", nargs="+", default=["ins", "del", "ap", "iou"], help=", ".join(METRICS))
    add("--weightings", nargs="+", default=["positive"], metavar="NAME", help="of the class (positive)")
    add("--pyramids", nargs="+", default=list(PYRAMIDS), metavar="NAME", help="; ".join(PYRAMIDS))
    add("--amp", action="store_true", help="every setting in bfloat16, too")
    arguments = parser.parse_args(argv)
    check_metrics(arguments.metrics)
    for name in arguments.pyramids:
        if name not in PYRAMIDS:
            raise UsageError(f"no pyramid {name!r}{near_matches(name, PYRAMIDS)}; known: {'; '.join(PYRAMIDS)}")
    path = run(make, arguments, prepared(arguments), (*COLUMNS, "seconds", "spearman"), "pareto")
    print_report([path], arguments.model, reference=settings(arguments)[0].reference.name)


def _seconds(device: torch.device) -> float:
    """What the time is read from: a CPU is shared, a GPU works while the processor waits."""
    synchronize(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()


if __name__ == "__main__":
    command(main)
