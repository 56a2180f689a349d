"""Fig. 3: maps and probabilities of single scales."""

from __future__ import annotations

import numpy as np
import pytest
from torch.nn import functional as F

from benchmarks import scales
from holistic_cam_plugin import HolisticCAM


def test_scales_are_drawn_with_the_models_confidence(common, rows, output):
    scales.main([*common, "--samples", "1"])
    found = rows("scales")
    assert [row["width"] for row in found] == ["32", "174", "317", "460", "603", "746", "889"]
    assert all(0 < float(row["probability"]) < 1 for row in found)
    assert len(list((output / "scales").glob("*.png"))) == 1


def test_one_scales_map_is_a_pyramid_of_that_scale_alone(subject):
    model, image, target = subject
    (record,) = HolisticCAM(model, [model[0]]).intermediates(image, [target])[0]
    maps = scales.compute_scale_maps(record)
    for side, found in ((32, maps[0]), (174, maps[1])):
        alone = HolisticCAM(model, [model[0]], sizes=[side], fsd=False)(image, [target])[0]
        np.testing.assert_allclose(found, alone, atol=1e-6)


def test_probabilities_are_those_of_the_enlarged_images(subject):
    model, image, _ = subject
    large = F.interpolate(image, (174, 174), mode="bilinear", align_corners=False)
    expected = [float(model(x)[0].softmax(dim=0)[2].detach()) for x in (image, large)]
    assert scales.predict_probabilities(model, image, 2)[:2] == pytest.approx(expected)
