"""The fixture `run`: `holistic-cam batch` in this process."""

from __future__ import annotations

import pytest

from holistic_cam_plugin.__main__ import main
from tests.batch.batch_tools import QUICK


@pytest.fixture
def run(tmp_path, capsys):
    """Explain `tmp_path/in` into `tmp_path/output`; return the exit code, standard output and standard error."""

    def _run(*options, output=tmp_path / "output"):
        code = main(["batch", str(tmp_path / "in"), "--output", str(output), *QUICK, "--workers", "0", *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return _run
