"""The corpus, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.corpus import CASES


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every case's file."""
    folder = tmp_path_factory.mktemp("around") / "corpus"
    folder.mkdir()
    for case in CASES:
        case.make(folder / case.name)
    return folder
