"""The energy-in-box benchmark: its share, its table, its file."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from benchmarks.energy_in_box import BOX, METHODS, Row, energy_in_box, main, measure, table
from holistic_cam_plugin.demo import load_demo_model, make_scene


def test_share_inside_the_box():
    saliency_map = np.zeros((4, 6), np.float32)
    saliency_map[1, 2], saliency_map[3, 5] = 3, 1
    assert energy_in_box(saliency_map, (2, 1, 3, 2)) == 0.75
    assert energy_in_box(saliency_map, (0, 0, 6, 4)) == 1
    assert energy_in_box(saliency_map, (0, 0, 2, 4)) == 0
    assert energy_in_box(np.zeros((4, 6), np.float32), (0, 0, 6, 4)) == 0


def test_table_averages_a_scenes_digits_first():
    energies = {0: (0.2, 0.4), 1: (0.5,)}
    rows = [
        Row(scene, len(some), digit, 0, 0, "layer1", method, energy, 0.0)
        for method in METHODS
        for scene, some in energies.items()
        for digit, energy in enumerate(some)
    ]
    header, rule, line = table(rows, ["layer1"]).splitlines()
    assert header == "| layer | Grad-CAM | Grad-CAM++ | Layer-CAM | CAMERAS | Holistic-CAM |"
    assert header.count("|") == rule.count("|") == line.count("|")
    # Means of the scenes: 30 and 50 %; their standard error is 10 %.
    assert line.split(" | ")[1] == "40.0 ± 19.6"


def test_measures_every_digit_layer_and_method():
    scene = make_scene(0, "held-out", 96, digits=2)
    model = load_demo_model()
    rows = list(measure(model, [scene], ["layer2", "layer4"]))
    assert len(rows) == 2 * (1 + 2 * len(METHODS))
    assert {row.label for row in rows} == set(scene.labels)
    for row in rows:
        assert 0 <= row.energy <= row.energy + row.energy_other <= 1 + 1e-9
    areas = [(x1 - x0) * (y1 - y0) / 96**2 for x0, y0, x1, y1 in scene.boxes]
    assert [row.energy for row in rows if row.method == BOX] == pytest.approx(areas)
    assert not any(module._forward_hooks for module in model.modules())  # nothing is left behind


def test_command_line(tmp_path, capsys):
    output = tmp_path / "new" / "energy.csv"
    main(["--scenes", "2", "--size", "96", "--layers", "layer1", "layer3", "--output", str(output)])
    printed = capsys.readouterr().out
    assert printed.count("| layer1 |") == printed.count("| layer3 |") == 3  # one digit, two digits, and which digit
    assert "layer2" not in printed
    assert str(output) in printed
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # Two scenes with one digit and two with two: six digits.
    assert len(rows) == 6 * (1 + 2 * len(METHODS))
    assert tuple(rows[0]) == Row._fields
    assert {row["method"] for row in rows} == {BOX, *METHODS}
    assert all(0 <= float(row["energy"]) <= 1 for row in rows)
