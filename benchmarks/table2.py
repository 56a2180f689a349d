"""Table 2: what positive gradient enhancement (P) and fundamental-scale denoising (F) each contribute.

The four variants are made of one pyramid. The paper's protocol is table1's with 2,000 images:

  python -m benchmarks.table2 --model resnet50 --weights resnet50-0676ba61.pth --layers layer2 layer4 \\
      --images val --boxes Annotations/CLS-LOC/val --metrics ins del epg --samples 2000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.candidates import Candidate, candidate_maps, raw_gradients
from benchmarks.harness.measures import COLUMNS, METRICS, check_metrics, evaluation
from benchmarks.harness.report import print_report
from benchmarks.harness.runner import Evaluate, command, prepared, run
from holistic_cam_plugin.method.pge import positive_gradient_weights

# P and F, on or off; "P F" is Holistic-CAM.
VARIANTS = {
    "- -": Candidate(raw_gradients, None),
    "P -": Candidate(positive_gradient_weights, None, split=True),
    "- F": Candidate(raw_gradients),
    "P F": Candidate(positive_gradient_weights, split=True),
}


def make(arguments: argparse.Namespace) -> Evaluate:
    """The evaluation of one image, with the model loaded."""
    return evaluation(arguments, candidate_maps, VARIANTS)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    parser = experiment_parser(__doc__)
    parser.add_argument("--metrics", nargs="+", default=list(METRICS), metavar="NAME", help=", ".join(METRICS))
    arguments = parser.parse_args(argv)
    check_metrics(arguments.metrics)
    path = run(make, arguments, prepared(arguments), COLUMNS, "table2")
    print_report([path], arguments.model, reference="P F")


if __name__ == "__main__":
    command(main)
