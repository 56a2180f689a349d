"""Runs on Ray: the maps are those of a run without it, and work goes to the actors that are free and alive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch.record import RECORD, Record
from tests.batch.batch_tools import make_picture
from tests.processes import PATIENCE

ROOT = Path(__file__).parents[2]
QUICK = ["--model", "digits", "--sizes", "64", "--device", "cpu", "--dtype", "float32", "--batch-size", "2"]
needs_ray = pytest.mark.skipif("not __import__('importlib.util').util.find_spec('ray')", reason="needs ray[data]")


def run_python(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python in a session of its own, as from a terminal."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE,
        start_new_session=True, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def read_images(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything in the record but the seconds, by file."""
    with Record(folder / RECORD) as record:
        images = {row["file"]: list(row) for row in record.connection.execute("SELECT * FROM images")}
        for row in record.connection.execute("SELECT * FROM maps ORDER BY file, place"):
            images[row["file"]] += [row[name] for name in row.keys() if name != "seconds"]  # noqa: SIM118
    return images


def read_maps(folder: Path) -> dict[str, np.ndarray]:
    files = sorted((folder / "maps").rglob("*.npz"))
    return {path.relative_to(folder).as_posix(): np.load(path)["maps"] for path in files}


def test_without_ray_the_option_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["batch", str(tmp_path), "--output", str(tmp_path / "output"), "--ray"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("holistic-cam batch: error: --ray needs Ray (")
    assert line.endswith('): pip install "holistic-cam-plugin[ray]"')
    assert not (tmp_path / "output").exists()


def test_nothing_of_ray_is_imported_without_the_option(tmp_path):
    make_picture(tmp_path / "photos" / "a.png")
    code = f"""
import sys
from holistic_cam_plugin.__main__ import main
code = main(["batch", {str(tmp_path / "photos")!r}, "--output", {str(tmp_path / "output")!r}, *{QUICK!r}])
assert code == 0 and "ray" not in sys.modules
"""
    run = run_python("-c", code)
    assert run.returncode == 0, run.stderr


@needs_ray
def test_a_folder_is_continued_with_ray_and_without(tmp_path):
    photos, output = tmp_path / "photos", tmp_path / "output"
    names = ["a.png", "b/c.png", "d.png", "e.png", "f.png"]
    for number, name in enumerate(names[:2]):
        make_picture(photos / name, seed=number)
    table = tmp_path / "table.csv"
    header = "file,target,label,mask,left,top,right,bottom\n"
    table.write_text(header + "".join(f"{name},,3,masks/{name},1,2,3,4\n" for name in names[:2]))
    command = ["-m", "holistic_cam_plugin", "batch", table, "--root", photos, *QUICK, "--output"]
    assert run_python(*command, output).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.npz")}

    for number, name in enumerate(names[2:]):
        make_picture(photos / name, seed=5 + number)
    (photos / "bad.png").write_bytes(b"no picture")
    targets = ["", "digit 4", "2"]
    more = "".join(f"{name},{target},,,,,,\n" for name, target in zip(names[2:], targets, strict=True))
    table.write_text(table.read_text() + more + "bad.png,,1,,,,,\n")
    on_ray = run_python(*command, output, "--ray")
    assert on_ray.returncode == 1, on_ray.stderr
    assert "3 images explained" in on_ray.stdout
    assert "2 were done already\n1 failed" in on_ray.stdout
    assert "starting Ray" in on_ray.stdout
    assert not any(word in on_ray.stdout + on_ray.stderr for word in ("(raylet)", "logging.cc", "core_worker"))
    assert {path: path.stat().st_mtime_ns for path in before} == before

    alone = run_python(*command, output)
    assert alone.returncode == 1
    assert "0 images explained" in alone.stdout
    assert "5 were done already\n1 failed" in alone.stdout

    assert run_python(*command, tmp_path / "reference").returncode == 1
    assert read_images(output) == read_images(tmp_path / "reference")
    expected, found = read_maps(tmp_path / "reference"), read_maps(output)
    assert found.keys() == expected.keys()
    assert all(np.abs(found[name] - expected[name]).max() <= 1e-6 for name in expected)


SESSION = '''
import os, sys, time, warnings
from pathlib import Path
from holistic_cam_plugin.batch import ray_data
from holistic_cam_plugin.errors import OutputError

ray_data.MOST_FAILURES = 2
folder = Path(sys.argv[1])


class Explainer:
    """In place of the engine: pictures that kill, break or wait for all others."""

    device = "cpu"

    def __call__(self, batch):
        for file in batch["file"]:
            with (folder / f"begun {file}").open("a") as log:
                log.write("x")
            if file == "kills" or (file == "kills once" and (folder / f"begun {file}").stat().st_size == 1):
                os._exit(1)
            if file == "breaks":
                raise RuntimeError("the device broke")
            if file == "waits":
                while sum((folder / f"begun {number}").exists() for number in range(8)) < 7:  # one may be queued here
                    time.sleep(0.1)
            if file == "warns":
                warnings.warn("a warning")
        rows = {"file": batch["file"], "error": [""] * len(batch["file"]), "pid": [os.getpid()] * len(batch["file"])}
        return rows | {"archive": [b"x" * 70000 + bytes(2)] * len(batch["file"])}


def explain(*batches):
    columns = [{"file": list(files), "mask": ["m"] * len(files)} for files in batches]
    rows = ray_data.explain_on_ray(Explainer(), columns, {})
    return [dict(zip(columns, row)) for columns in rows for row in zip(*columns.values())]


if __name__ == "__main__":
    numbers = [[str(number)] for number in range(8)]
    assert explain() == []  # starts no Ray
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = explain(["waits"], ["with", "kills"], *numbers, ["kills once"], ["warns"])
    messages = [str(warning.message) for warning in caught]
    assert messages.count("a warning") == 1, messages
    by_file = {row["file"]: row for row in rows}
    assert len(by_file) == len(rows) == 13
    failed = by_file.pop("kills")
    assert failed["error"] == "3 processes died while they explained it", failed
    assert failed["mask"] == "m" and failed["label"] is None
    for row in by_file.values():
        assert row["error"] == "" and row["archive"].endswith(b"x\\0\\0")
        assert row["pid"] != os.getpid()
    assert (folder / "begun kills once").stat().st_size == 2
    assert (folder / "begun kills").stat().st_size == 6  # three times with its batch, and three times alone

    for batches, reason in (
        ([["breaks"]], "the device broke"),
        ([["kills", str(number)] for number in range(6)], "the processes that Ray starts die: see its log files"),
    ):
        try:
            explain(*batches)
        except OutputError as error:
            assert str(error) == reason, str(error)
        else:
            raise AssertionError("no error")
'''


@needs_ray
@pytest.mark.campaign  # Ray starts three times, and thirteen actors in place of dead ones
def test_actors_take_what_is_left_and_dead_ones_are_replaced(tmp_path):
    (tmp_path / "session.py").write_text(SESSION)
    run = run_python(tmp_path / "session.py", tmp_path)
    assert run.returncode == 0, run.stderr


@needs_ray
def test_a_wrong_address_is_named(tmp_path):
    make_picture(tmp_path / "photos" / "a.png")
    command = ["batch", tmp_path / "photos", "--output", tmp_path / "output", *QUICK, "--ray", "nonsense"]
    run = run_python("-m", "holistic_cam_plugin", *command)
    assert run.returncode == 2, run.stderr
    line = run.stderr.splitlines()[-1]
    assert line.startswith("holistic-cam batch: error: cannot connect to Ray at 'nonsense': ")
    assert "Traceback" not in run.stderr


@needs_ray
@pytest.mark.parametrize(("device", "reason"), [("cuda:1", "pass --device cuda"), ("cuda", "Ray has no GPU")])
def test_gpus_are_chosen_by_ray(device, reason):
    from holistic_cam_plugin.batch.ray_data import _count_actors
    from holistic_cam_plugin.errors import UsageError

    class Cluster:
        def __init__(self, **resources):
            self.cluster_resources = lambda: resources

    with pytest.raises(UsageError, match=reason):
        _count_actors(Cluster(CPU=4.0), device)
    assert _count_actors(Cluster(CPU=4.0, GPU=2.0), "cuda") == (2, 1)
    assert _count_actors(Cluster(CPU=4.0, GPU=2.0), None) == (2, 1)
    assert _count_actors(Cluster(CPU=4.0, GPU=2.0), "cpu") == (4, 0)
    assert _count_actors(Cluster(CPU=4.0), None) == (4, 0)
