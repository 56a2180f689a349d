"""A folder belongs to one set of parameters."""

from __future__ import annotations

import pytest

from holistic_cam_plugin.batch.parameters import claim_folder, hash_parameters
from holistic_cam_plugin.errors import UsageError

PARAMETERS = {"threads": None, "layers": ["a"]}


def claim(folder, **changed):
    """Claim the folder and release it; return its parameters."""
    with claim_folder(folder, {**PARAMETERS, **changed}, 3) as parameters:
        return parameters


def test_a_new_folder_takes_the_runs_parameters_and_an_old_one_gives_its_own(tmp_path):
    assert claim(tmp_path / "new") == {"threads": 3, "layers": ["a"]}
    assert claim(tmp_path / "new", threads=3) == {"threads": 3, "layers": ["a"]}
    with pytest.raises(UsageError, match=r"made with other parameters: layers \(a, now b\)"):
        claim(tmp_path / "new", layers=["b"])
    assert claim(tmp_path / "new") == {"threads": 3, "layers": ["a"]}  # a rejected run releases the lock


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "it must hold an object, got \\."),
        ("null", "it must hold an object, got None"),
        ("{", "Expecting property name"),
        ("[" * 100_000, ""),
        ("\udcff", "'utf-8' codec can't decode"),
        ('{"layers": ["a"]}', "threads must be 1 to [0-9]+, got None"),
        *(
            (f'{{"threads": {threads}, "layers": ["a"]}}', "threads must be 1 to ")
            for threads in ("null", "-1", "0", '"2"', "1.0", "true", "1e400", "NaN", "[1]", "1" * 70, "100000")
        ),
    ],
)
def test_parameters_that_no_run_wrote_are_one_line(tmp_path, text, what):
    data = text.encode(errors="surrogateescape")
    (tmp_path / "parameters.json").write_bytes(data)
    with pytest.raises(
        UsageError, match=rf"cannot read .*parameters\.json: {what}.*Restore it, or choose another --out"
    ):
        claim(tmp_path)
    assert (tmp_path / "parameters.json").read_bytes() == data


def test_the_file_holds_just_the_parameters_after_a_restart(tmp_path):
    claim(tmp_path, input="/here")
    whole = (tmp_path / "parameters.json").read_bytes()
    (tmp_path / "parameters.json").write_bytes(whole.replace(b"\n", b"\r\n ").replace(b"here", b"there"))
    assert claim(tmp_path, input="/here")["threads"] == 3
    assert (tmp_path / "parameters.json").read_bytes() == whole


def test_a_digest_stands_for_all_that_the_maps_depend_on():
    assert hash_parameters({"input": "a", "threads": 1}) == hash_parameters({"input": "b", "threads": 1})
    assert hash_parameters({"input": "a", "threads": 1}) != hash_parameters({"input": "a", "threads": 2})


def test_a_folder_of_something_else_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"contains files but no parameters\.json"):
        claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
