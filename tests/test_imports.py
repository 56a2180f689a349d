"""Modules import only from the layers below: the contracts are in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

import pytest
from importlinter import cli

ROOT = Path(__file__).parents[1]


def test_imports_follow_the_contracts(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    assert code == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out
