"""The galleries are drawn, of the images that are named."""

from __future__ import annotations

from benchmarks import gallery


def test_galleries_are_drawn(common, output):
    gallery.main([*common, "--names", "2.png", "--methods", "Grad-CAM", "Holistic-CAM"])
    gallery.main([*common, "--samples", "1", "--ablation"])
    assert [path.name for path in (output / "gallery").glob("*.png")] == ["2.png.png"]
    assert len(list((output / "ablation").glob("*.png"))) == 1
