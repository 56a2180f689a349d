"""Table 2: contributions of positive gradient enhancement (P) and fundamental-scale denoising (F).

The four variants are computed from the same passes. The paper's protocol is table1's with 2,000 images:

  python -m benchmarks.table2 --model resnet50 --weights resnet50-0676ba61.pth --layers layer2 layer4 \\
      --images val --boxes Annotations/CLS-LOC/val --metrics ins del epg --samples 2000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from torch import Tensor

from benchmarks.harness.arguments import make_parser
from benchmarks.harness.candidates import Candidate, explain_candidates
from benchmarks.harness.measures import COLUMNS, METRICS, check_metrics, make_evaluate
from benchmarks.harness.report import print_report
from benchmarks.harness.runner import Evaluate, choose_tasks, run, run_main
from holistic_cam_plugin.method.pge import positive_gradient_weights


def raw_gradients(activations: Tensor, gradients: Tensor) -> Tensor:
    """The gradients, unchanged."""
    return gradients


# P and F, on or off; "P F" is Holistic-CAM.
VARIANTS = {
    "- -": Candidate(raw_gradients, None),
    "P -": Candidate(positive_gradient_weights, None, split=True),
    "- F": Candidate(raw_gradients),
    "P F": Candidate(positive_gradient_weights, split=True),
}


def make(arguments: argparse.Namespace) -> Evaluate:
    """Load the model, and build the function that evaluates one image."""
    return make_evaluate(arguments, explain_candidates, VARIANTS)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    parser = make_parser(__doc__)
    parser.add_argument("--metrics", nargs="+", default=list(METRICS), metavar="NAME", help=", ".join(METRICS))
    arguments = parser.parse_args(argv)
    check_metrics(arguments.metrics)
    path = run(make, arguments, choose_tasks(arguments), COLUMNS, "table2")
    print_report([path], arguments.model, reference="P F")


if __name__ == "__main__":
    run_main(main)
