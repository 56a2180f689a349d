"""Table 1: methods x layers x insertion, deletion, over-all, ROAD and the energy-based pointing game.

A killed run is resumed by the same command. For images without boxes, --grid measures localisation.

The paper's protocol needs ImageNet's validation images (in class folders, or in one folder as distributed) and their
boxes. The second command measures localisation, on 5,000 images:

  python -m benchmarks.table1 --model resnet50 --weights resnet50-0676ba61.pth --layers layer2 layer4 \\
      --images val --boxes Annotations/CLS-LOC/val --metrics ins del road --samples 3000 --output output/fidelity
  python -m benchmarks.table1 --model resnet50 --weights resnet50-0676ba61.pth --layers layer2 layer4 \\
      --images val --boxes Annotations/CLS-LOC/val --metrics epg --samples 5000 --output output/localisation
  (the same with --model vgg16 --weights vgg16-397923af.pth --layers features.16 features.30)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.harness.arguments import make_parser
from benchmarks.harness.measures import COLUMNS, METRICS, check_metrics, make_evaluate
from benchmarks.harness.methods import explain_methods
from benchmarks.harness.report import print_report
from benchmarks.harness.runner import Evaluate, choose_tasks, run, run_main


def make(arguments: argparse.Namespace) -> Evaluate:
    """Load the model, and build the function that evaluates one image."""
    return make_evaluate(arguments, explain_methods, arguments.methods)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    parser = make_parser(__doc__)
    parser.add_argument("--metrics", nargs="+", default=list(METRICS), metavar="NAME", help=", ".join(METRICS))
    arguments = parser.parse_args(argv)
    check_metrics(arguments.metrics)
    path = run(make, arguments, choose_tasks(arguments), COLUMNS, "table1")
    print_report([path], arguments.model, reference="Holistic-CAM")


if __name__ == "__main__":
    run_main(main)
