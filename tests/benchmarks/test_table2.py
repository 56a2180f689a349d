"""Table 2: the four variants are settings of the class."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import table2
from benchmarks.harness.candidates import explain_candidates
from holistic_cam_plugin import HolisticCAM

SETTINGS = {"- -": ("gradient", False), "P -": ("pge", False), "- F": ("gradient", True), "P F": ("pge", True)}


@pytest.mark.parametrize("name", SETTINGS)
def test_variants_are_the_classes_settings(subject, name):
    model, image, target = subject
    weighting, fsd = SETTINGS[name]
    assert list(SETTINGS) == list(table2.VARIANTS)
    found = explain_candidates(model, ["0", "1"], table2.VARIANTS, image, target)
    for layer in ("0", "1"):
        cam = HolisticCAM(model, [model.get_submodule(layer)], weighting=weighting, fsd=fsd)
        np.testing.assert_allclose(found[layer, name], cam(image, [target])[0], atol=1e-6)


def test_the_command_has_every_layer_and_variant(common, rows):
    table2.main([*common, "--metrics", "epg", "--samples", "2"])
    assert len(rows("table2")) == 2 * 2 * 4
