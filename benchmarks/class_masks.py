"""A study of masks made of the class's own evidence, of the scales that are fused, and of their weights.

A candidate is one line of `CANDIDATES`; all are computed from the same passes through the model. Decide with the tuned
half of the photographs, then report once with table1 on the reported half. The mask layer is the model's deepest.

  python -m benchmarks.class_masks --model squeezenet1_0 --weights squeezenet1_0.pth --images photos --grid --half tuned
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from benchmarks.harness.candidates import Candidate, ClassMask, Pyramid, explain_candidates
from benchmarks.harness.measures import make_evaluate
from benchmarks.harness.runner import Evaluate, run_main
from benchmarks.harness.study import check_study, make_study_parser, run_study
from benchmarks.weightings import by_root, constancy, relu, share

__all__ = ["CANDIDATES"]


def by_positions(pyramid: Pyramid) -> list[float]:
    """Each scale's number of positions: a pooled gradient shrinks with it."""
    return [float(gradients[0].numel()) for gradients in pyramid.gradients]


OF_CLASS = partial(Candidate, relu, None, split=True)
SKIP_1, SKIP_2 = range(1, 7), range(2, 7)
ROOT, ROOT_SHARE = ClassMask(against=2, power=0.5), ClassMask(contrast=2, power=0.5)
CANDIDATES = {
    # Masks.
    "own mask": Candidate(relu, split=True),
    "class mask of one scale": OF_CLASS(class_mask=ClassMask(range(1))),
    "class mask of three scales": OF_CLASS(class_mask=ClassMask(range(3))),
    "class mask": OF_CLASS(class_mask=ClassMask()),
    "own mask x root of class mask": Candidate(relu, split=True, class_mask=ClassMask(power=0.5)),
    "class mask, beta 1.5": OF_CLASS(class_mask=ClassMask(against=1.5)),
    "class mask, beta 2": OF_CLASS(class_mask=ClassMask(against=2)),
    # What is fused, and with what weights.
    "class mask, positions": OF_CLASS(shares=by_positions, class_mask=ClassMask()),
    "class mask, root positions": OF_CLASS(shares=by_root, class_mask=ClassMask()),
    "class mask, without 1": OF_CLASS(scales=SKIP_1, class_mask=ClassMask()),
    "class mask, without 2": OF_CLASS(scales=SKIP_2, class_mask=ClassMask()),
    "class mask, without 1, positions": OF_CLASS(scales=SKIP_1, shares=by_positions, class_mask=ClassMask()),
    "class mask, share": OF_CLASS(combine=share, against=constancy(1), class_mask=ClassMask()),
    # Combinations.
    "beta 1.5, positions": OF_CLASS(shares=by_positions, class_mask=ClassMask(against=1.5)),
    "beta 1.5, root positions": OF_CLASS(shares=by_root, class_mask=ClassMask(against=1.5)),
    "beta 1.5, without 1": OF_CLASS(scales=SKIP_1, class_mask=ClassMask(against=1.5)),
    "beta 1.5, without 1, root positions": OF_CLASS(scales=SKIP_1, shares=by_root, class_mask=ClassMask(against=1.5)),
    "beta 1.25, without 1, positions": OF_CLASS(scales=SKIP_1, shares=by_positions, class_mask=ClassMask(against=1.25)),
    "beta 1.5, without 1, positions": OF_CLASS(scales=SKIP_1, shares=by_positions, class_mask=ClassMask(against=1.5)),
    "beta 2, without 1, positions": OF_CLASS(scales=SKIP_1, shares=by_positions, class_mask=ClassMask(against=2)),
    "beta 1.5, without 2": OF_CLASS(scales=SKIP_2, class_mask=ClassMask(against=1.5)),
    "beta 1.5, without 2, positions": OF_CLASS(scales=SKIP_2, shares=by_positions, class_mask=ClassMask(against=1.5)),
    "beta 2, root of mask, positions": OF_CLASS(shares=by_positions, class_mask=ROOT),
    "beta 2, root of mask, without 1, positions": OF_CLASS(scales=SKIP_1, shares=by_positions, class_mask=ROOT),
    "beta 2, root of mask, without 2, positions": OF_CLASS(scales=SKIP_2, shares=by_positions, class_mask=ROOT),
    "beta 1.5, without 1, positions, share": OF_CLASS(
        scales=SKIP_1, shares=by_positions, combine=share, against=constancy(1), class_mask=ClassMask(against=1.5)
    ),
    # Added after beta had failed.
    "contrast 1": OF_CLASS(class_mask=ClassMask(contrast=1)),
    "contrast 1, positions": OF_CLASS(shares=by_positions, class_mask=ClassMask(contrast=1)),
    "contrast 1, without 1": OF_CLASS(scales=SKIP_1, class_mask=ClassMask(contrast=1)),
    "contrast 0.5, without 1, positions": OF_CLASS(
        scales=SKIP_1, shares=by_positions, class_mask=ClassMask(contrast=0.5)
    ),
    "contrast 1, without 1, positions": OF_CLASS(scales=SKIP_1, shares=by_positions, class_mask=ClassMask(contrast=1)),
    "contrast 2, without 1, positions": OF_CLASS(scales=SKIP_1, shares=by_positions, class_mask=ClassMask(contrast=2)),
    "contrast 1, without 2, positions": OF_CLASS(scales=SKIP_2, shares=by_positions, class_mask=ClassMask(contrast=1)),
    "contrast 2, root of mask, positions": OF_CLASS(shares=by_positions, class_mask=ROOT_SHARE),
    "contrast 2, root of mask, without 1, positions": OF_CLASS(
        scales=SKIP_1, shares=by_positions, class_mask=ROOT_SHARE
    ),
}


def make(arguments: argparse.Namespace) -> Evaluate:
    """Load the model, and build the function that evaluates one image."""
    return make_evaluate(arguments, explain_candidates, {name: CANDIDATES[name] for name in arguments.candidates})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    arguments = make_study_parser(__doc__, CANDIDATES).parse_args(argv)
    check_study(arguments, CANDIDATES)
    run_study(make, arguments, "class_masks")


if __name__ == "__main__":
    run_main(main)
