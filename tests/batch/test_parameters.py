"""A folder belongs to one set of parameters."""

from __future__ import annotations

import pytest

from holistic_cam_plugin.batch.parameters import hash_parameters, open_output
from holistic_cam_plugin.errors import UsageError

PARAMETERS = {"input": "/here", "layers": ["a"], "versions": {"torch": "2"}, "batch_size": 1}


def claim(folder, **changed):
    """Open the folder's record and close it; return the parameters in it."""
    with open_output(folder, {**PARAMETERS, **changed}, ["cat"]) as record:
        return record.parameters


def test_a_folder_keeps_its_parameters_and_a_rejected_run_releases_it(tmp_path):
    assert claim(tmp_path / "new") == PARAMETERS
    with pytest.raises(UsageError, match=r"other parameters: layers \(a, now b\), torch \(2, now 3\)\. Restore"):
        claim(tmp_path / "new", layers=["b"], versions={"torch": "3"})
    assert claim(tmp_path / "new") == PARAMETERS


def test_what_changes_no_map_may_change(tmp_path):
    claim(tmp_path)
    assert claim(tmp_path, batch_size=8)["batch_size"] == 8
    assert claim(tmp_path, input="/moved")["input"] == "/moved"


def test_another_input_is_refused_while_the_first_one_exists(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    claim(tmp_path / "output", input=str(tmp_path / "one"))
    with pytest.raises(UsageError, match=r"holds the maps of .*one, not of .*two: choose another --output"):
        claim(tmp_path / "output", input=str(tmp_path / "two"))
    (tmp_path / "one").rmdir()
    claim(tmp_path / "output", input=str(tmp_path / "two"))


def test_a_digest_stands_for_all_that_the_maps_depend_on():
    assert hash_parameters({"input": "a", "layers": 1}) == hash_parameters({"input": "b", "layers": 1})
    assert hash_parameters({"input": "a", "layers": 1}) != hash_parameters({"input": "a", "layers": 2})


def test_a_folder_of_something_else_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"contains files but no record\.sqlite"):
        claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
