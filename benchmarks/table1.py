"""Table 1: methods x layers x insertion, deletion, over-all, ROAD and the energy-based pointing game.

A killed run goes on where it was when it is started again. On images without boxes --grid measures the localisation.

The paper's protocol, for someone who has ImageNet's validation images (class folders, or one folder as it comes) and
their boxes; the second command of each pair is the localisation, on 5,000 images:

  python -m benchmarks.table1 --model resnet50 --weights resnet50-0676ba61.pth --layers layer2 layer4 \\
      --images val --boxes Annotations/CLS-LOC/val --metrics ins del road --samples 3000 --output output/fidelity
  python -m benchmarks.table1 --model resnet50 --weights resnet50-0676ba61.pth --layers layer2 layer4 \\
      --images val --boxes Annotations/CLS-LOC/val --metrics epg --samples 5000 --output output/localisation
  (the same with --model vgg16 --weights vgg16-397923af.pth --layers features.16 features.30)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.measures import COLUMNS, METRICS, check_metrics, evaluation
from benchmarks.harness.methods import maps_by_method
from benchmarks.harness.report import print_report
from benchmarks.harness.runner import Evaluate, command, prepared, run


def make(arguments: argparse.Namespace) -> Evaluate:
    """The evaluation of one image, with the model loaded."""
    return evaluation(arguments, maps_by_method, arguments.methods)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    parser = experiment_parser(__doc__)
    parser.add_argument("--metrics", nargs="+", default=list(METRICS), metavar="NAME", help=", ".join(METRICS))
    arguments = parser.parse_args(argv)
    check_metrics(arguments.metrics)
    path = run(make, arguments, prepared(arguments), COLUMNS, "table1")
    print_report([path], arguments.model, reference="Holistic-CAM")


if __name__ == "__main__":
    command(main)
