"""One way in: every command, its exit codes, and options under one name."""

from __future__ import annotations

import signal
from importlib.metadata import version

import pytest

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.demo import load_demo_image
from holistic_cam_plugin.errors import RESUME, OutputError, UsageError
from tests.batch.batch_tools import QUICK, make_pictures

COMMANDS = {
    "holistic-cam": (),
    "holistic-cam batch": ("batch", "photos", "--output", "maps"),
    "holistic-cam report": ("report", "maps"),
    "holistic-cam app": ("app",),
}
WORK = {
    "holistic-cam": "holistic_cam_plugin.cli.figures.explain_demo",
    "holistic-cam batch": "holistic_cam_plugin.cli.batch_job.run_job",
    "holistic-cam report": "holistic_cam_plugin.report.page.write_report",
    "holistic-cam app": "holistic_cam_plugin.app.server.serve",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder; what the explorer sets in the environment ends with the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    return tmp_path


def refuse(capsys, *arguments):
    """The line of a refused command."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


@pytest.mark.parametrize("program", COMMANDS)
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("no such\nmodel"), 2, "error: no such model"),
        (OutputError("the disk is full"), 3, "stopped: the disk is full"),
        (signal.SIGTERM, 143, "stopped by SIGTERM"),
        (signal.SIGINT, 130, "stopped by SIGINT"),
    ],
    ids=str,
)
def test_an_error_is_a_line_and_an_exit_code(here, monkeypatch, capsys, program, error, code, line):
    def fail(*_, **__):
        if isinstance(error, Exception):
            raise error
        signal.raise_signal(error)

    (here / "photos").mkdir()
    (here / "maps").mkdir()
    (here / "maps" / "record.sqlite").touch()
    monkeypatch.setattr(WORK[program], fail)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert main(COMMANDS[program]) == code
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
            signal.signal(number, handler)
    out, err = capsys.readouterr()
    if program.endswith("app") and code > 128:  # Ctrl-C is the usual end
        line = None
    elif program.endswith("batch") and code > 128:
        line += f": {RESUME}"
    assert (out, err) == ("", "" if line is None else f"{program}: {line}\n")


def test_a_batch_with_an_image_that_fails(here, capsys):
    make_pictures(here / "in", 1)
    (here / "in" / "empty.jpg").touch()
    assert main(["batch", "in", "--output", "maps", *QUICK, "--workers", "0"]) == 1
    assert "1 failed, listed in" in capsys.readouterr().out


@pytest.mark.parametrize("program", COMMANDS)
def test_an_unknown_option_is_named_by_its_command(here, capsys, program):
    error = refuse(capsys, *COMMANDS[program], "--no-such-option")
    assert error == f"{program}: error: unrecognized arguments: --no-such-option\n"


@pytest.mark.parametrize(
    ("program", "options"),
    [
        ("holistic-cam", ("--out", "x")),
        ("holistic-cam", ("--meth", "gradcam")),
        ("holistic-cam batch", ("--meth", "gradcam")),
        ("holistic-cam report", ("--lim", "3")),
        ("holistic-cam app", ("--por", "8000")),
    ],
)
def test_options_cannot_be_abbreviated(here, capsys, program, options):
    assert f"{program}: error: unrecognized arguments: {options[0]}" in refuse(capsys, *COMMANDS[program], *options)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", ["fig.pdf", "maps/fig.PNG", "a.svg", "b.jpg", "arrays.npz"])
@pytest.mark.parametrize("command", [(), ("batch", "photos")])
def test_output_is_a_folder(here, capsys, command, name):
    program = " ".join(["holistic-cam", *command[:1]])
    error = refuse(capsys, *command, "--output", name)
    assert error == f"{program}: error: argument --output: must be a folder, got the file name {name!r}\n"
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", ["fig.pdf", "run.2", "v1.5"])
def test_folders_with_a_dot(here, name):
    if name == "fig.pdf":
        (here / name).mkdir()
    assert main(["--model", "digits", "--method", "gradcam", "--output", name]) == 0
    assert (here / name / "demo_holistic_cam.png").is_file()


def test_the_default_command_has_a_name(here):
    assert main(["explain", "--model", "digits", "--method", "gradcam"]) == 0
    assert (here / "output" / "demo_holistic_cam.png").is_file()


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"holistic-cam {version('holistic-cam-plugin')}\n"


@pytest.mark.parametrize("program", COMMANDS)
def test_help(capsys, program):
    with pytest.raises(SystemExit) as stop:
        main([*COMMANDS[program][:1], "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {program} [-h]")


def test_the_digits_model_by_its_name(here, capsys, monkeypatch):
    (here / "in").mkdir()
    load_demo_image().save(here / "in" / "scene.png")
    assert main(["in/scene.png", "--model", "digits", "--method", "gradcam", "--target", "digit 9"]) == 0
    assert "predicted: digit 9 (96.5%), class 9 of 10" in capsys.readouterr().out
    assert (here / "output" / "scene_holistic_cam.png").is_file()
    assert main(["--model", "digits", "--method", "gradcam"]) == 0
    assert "demo_holistic_cam.png\n  predicted: digit 9 (96.5%)" in capsys.readouterr().out
    assert main(["--model", "digits", "--list-layers"]) == 0
    assert "* layer4" in capsys.readouterr().out
    assert main(["batch", "in", "--output", "maps", *QUICK, "--workers", "0"]) == 0
    sources = []
    monkeypatch.setattr("holistic_cam_plugin.app.server.serve", lambda source, *_: sources.append(source))
    assert (main(["app", "--model", "digits"]), main(["app"])) == (0, 0)
    assert [source.model for source in sources] == ["digits", "digits"]
    capsys.readouterr()
    for command in (["in/scene.png"], ["batch", "in", "--output", "more"]):
        assert "--model digits has weights of its own" in refuse(capsys, *command, *QUICK[:2], "--weights", "x.pth")
