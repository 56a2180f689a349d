"""The names of the package, which are imported when they are first used."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import holistic_cam_plugin
from holistic_cam_plugin import *  # noqa: F403


@pytest.mark.parametrize("name", holistic_cam_plugin.__all__)
def test_every_name_exists_once(name):
    value = getattr(holistic_cam_plugin, name)
    assert value is globals()[name]
    assert name in dir(holistic_cam_plugin)
    if hasattr(value, "__module__"):
        assert value.__name__ == name


def test_the_table_is_what_type_checkers_see():
    [block] = [
        node
        for node in ast.parse(Path(holistic_cam_plugin.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If)
    ]
    seen = {node.module.partition(".")[2]: tuple(alias.name for alias in node.names) for node in block.body}
    assert seen == holistic_cam_plugin._MODULES
    assert sorted(name for names in seen.values() for name in names) == sorted(holistic_cam_plugin.__all__)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'holistic_cam_plugin' has no attribute 'GradCAM'"):
        holistic_cam_plugin.GradCAM  # noqa: B018
