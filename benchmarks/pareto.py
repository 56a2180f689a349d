"""Quality of the maps against time, for pyramids of other sizes than the paper's seven.

A setting is a weighting and a pyramid. All settings run on each image, one after the other, so that times and values of
the same image are compared. Decide with `--half tuned`, then report once with `--half reported`, or choose the images
of each half by --labels.

  python -m benchmarks.pareto --model squeezenet1_0 --weights squeezenet1_0.pth --images photos --masks masks \\
      --layers features.3 features.7 features.12 --half tuned --samples 8 --step 3584

The column `seconds` is the time of one call, which computes the maps of all layers; on a CPU it is processor time,
which excludes other programs. `spearman` is the rank correlation of the map's pixels with those of the reference, the
seven scales, if it is among the settings. --amp adds every setting in bfloat16; its reference is the same setting in
float32.
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

from benchmarks.harness.arguments import make_parser
from benchmarks.harness.measures import COLUMNS, METRICS, check_metrics, measure
from benchmarks.harness.methods import MapsByMethod
from benchmarks.harness.models import load_model
from benchmarks.harness.procedures import synchronize
from benchmarks.harness.report import print_report
from benchmarks.harness.runner import Evaluate, Task, choose_tasks, run, run_main
from benchmarks.harness.table_file import Row
from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.errors import UsageError, near_matches
from holistic_cam_plugin.methods import pyramid_options

__all__ = ["PYRAMIDS", "REFERENCE", "Setting", "list_settings"]

REFERENCE = "formula, 7"
# Number of scales of the paper's formula, or shorter sides in pixels for a 224 px image, scaled for other sizes.
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
    """A weighting of `HolisticCAM`, the name of a pyramid, and whether the model runs in bfloat16."""

    weighting: str
    pyramid: str
    amp: bool = False

    @property
    def name(self) -> str:
        """Name in the table."""
        return f"{self.weighting}: {self.pyramid}" + (", bfloat16" if self.amp else "")

    @property
    def reference(self) -> Setting:
        """The setting whose map is compared with."""
        return self._replace(amp=False) if self.amp else self._replace(pyramid=REFERENCE)

    def cam(self, model: nn.Module, layers: Sequence[nn.Module], side: int, **options: Any) -> HolisticCAM:
        """Build the method for images whose shorter side is `side` pixels.

        Args:
            options: see `Explainable.options`.
        """
        spec = PYRAMIDS[self.pyramid]
        options |= {"num_scales": spec} if isinstance(spec, int) else {"sizes": [px * side // SIDE for px in spec]}
        needed = pyramid_options(HolisticCAM, options)
        return HolisticCAM(model, layers, weighting=self.weighting, amp=self.amp, **needed)


class Timed(NamedTuple):
    """A map `(H, W)`, and the seconds of the call that computed it."""

    map: NDArray[np.float32]
    seconds: float


def list_settings(arguments: argparse.Namespace) -> list[Setting]:
    """List the settings that the arguments name."""
    precisions = (False, True) if arguments.amp else (False,)
    return [Setting(*parts) for parts in product(arguments.weightings, arguments.pyramids, precisions)]


def make(arguments: argparse.Namespace) -> Evaluate:
    """Load the model, and build the function that evaluates one image."""
    classifier = load_model(arguments)
    named = {setting.name: setting for setting in list_settings(arguments)}
    # Warm up: the first passes of a process take longer.
    found = classifier.at(arguments.layers)
    noise = torch.rand(1, len(found.preprocessing.mean), *found.size, device=classifier.device)
    Setting(arguments.weightings[0], "1 scale").cam(found.model, found.target_layers, SIDE, **found.options)(noise)

    def evaluate(task: Task) -> list[Row]:
        maps: dict[tuple[str, str], Timed] = {}

        def explain(image: Tensor, target: ClassifierOutputTarget) -> MapsByMethod:
            for name, setting in named.items():
                cam = setting.cam(found.model, found.target_layers, min(image.shape[2:]), **found.options)
                start = _read_clock(image.device)
                per_layer = cam.compute_cam_per_layer(image, [target])
                seconds = _read_clock(image.device) - start
                for layer, own in zip(arguments.layers, per_layer, strict=True):
                    maps[layer, name] = Timed(own[0, 0], seconds)
            return {key: maps[key].map for key in product(arguments.layers, named)}

        def compare(row: Row) -> dict[str, object]:
            layer, name = str(row["layer"]), str(row["method"])
            own, reference = maps[layer, name], maps.get((layer, named[name].reference.name))
            if reference is None:
                return {"seconds": own.seconds}
            correlation = float(spearmanr(own.map.ravel(), reference.map.ravel()).statistic)
            return {"seconds": own.seconds, "spearman": correlation}

        return [{**row, **compare(row)} for row in measure(task, classifier, explain, arguments)]

    return evaluate


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--metrics", nargs="+", default=["ins", "del", "ap", "iou"], help=", ".join(METRICS))
    add("--weightings", nargs="+", default=["positive"], metavar="NAME", help="weightings of HolisticCAM (positive)")
    add("--pyramids", nargs="+", default=list(PYRAMIDS), metavar="NAME", help="; ".join(PYRAMIDS))
    add("--amp", action="store_true", help="also run every setting in bfloat16")
    arguments = parser.parse_args(argv)
    check_metrics(arguments.metrics)
    for name in arguments.pyramids:
        if name not in PYRAMIDS:
            raise UsageError(f"no pyramid {name!r}{near_matches(name, PYRAMIDS)}; known: {'; '.join(PYRAMIDS)}")
    path = run(make, arguments, choose_tasks(arguments), (*COLUMNS, "seconds", "spearman"), "pareto")
    print_report([path], arguments.model, reference=list_settings(arguments)[0].reference.name)


def _read_clock(device: torch.device) -> float:
    """Read processor time on a CPU, which other programs share, and the wall clock on a GPU."""
    synchronize(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()


if __name__ == "__main__":
    run_main(main)
