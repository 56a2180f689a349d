"""The study of parameters varies one parameter at a time."""

from __future__ import annotations

import numpy as np

from benchmarks import parameters
from holistic_cam_plugin import HolisticCAM, kernel_size


def test_parameters_vary_one_thing_at_a_time(common, rows, output, monkeypatch):
    monkeypatch.setattr(parameters, "SCALES", (1, 7))
    parameters.main([*common, "--samples", "1", "--metrics", "ins", "del", "epg"])
    found = {(row["layer"], row["method"]): row["over_all"] for row in rows("parameters")}
    assert len(found) == 2 * (16 + 2 + 5)
    for layer in ("0", "1"):
        defaults = {found[layer, name] for name in ("blur_size=51 ksize=91", "scales=7", "eps=1e-05")}
        assert len(defaults) == 1
    assert (output / "parameters.png").stat().st_size > 0


def test_settings_are_the_classes(subject, monkeypatch):
    monkeypatch.setattr(parameters, "SCALES", (3,))
    model, image, target = subject
    found = parameters.explain_settings(model, ["0", "1"], image, target)
    settings = {
        "scales=3": {"num_scales": 3},
        "eps=0": {"eps": 0.0},
        "blur_size=27 ksize=47": {"blur_size": kernel_size(32, 27), "ksize": kernel_size(32, 47)},
    }
    for name, own in settings.items():
        for layer in ("0", "1"):
            cam = HolisticCAM(model, [model.get_submodule(layer)], **own)(image, [target])[0]
            np.testing.assert_allclose(found[layer, name], cam, atol=1e-6)
