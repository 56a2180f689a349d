"""Fig. 2: variances of known gradients."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gradient_variance


def test_gradient_variance_of_known_gradients():
    flat, wave = torch.full((4, 4), 3.0), torch.tensor([1.0, -1.0]).repeat(4, 2)
    raw, relative = gradient_variance.channel_variances(torch.stack([flat, wave, 0 * flat, flat + wave]))
    assert raw.tolist() == pytest.approx([0, 1, 1])
    assert relative.tolist() == pytest.approx([0, 1, 0.1])


def test_the_deepest_layers_gradient_is_constant_and_the_one_before_varies(common, rows, output, capsys):
    gradient_variance.main([*common, "--samples", "2"])
    found = rows("gradient_variance")
    assert len(found) == 2 * 2
    for row in found:  # a global pooling follows layer 1
        assert (float(row["relative_p90"]) < 1e-6) == (row["layer"] == "1")
    assert (output / "gradient_variance.png").stat().st_size > 0
    assert "| layer | variance, median channel | relative variance, median channel |" in capsys.readouterr().out
