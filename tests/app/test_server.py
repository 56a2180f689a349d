"""What the explorer serves, to whom, and how it ends."""

from __future__ import annotations

import json
import socket

import httpx
import pytest

from holistic_cam_plugin.__main__ import main
from tests.app.running import free_port, running
from tests.processes import PATIENCE

pytestmark = pytest.mark.campaign  # starts servers


@pytest.fixture
def client(app):
    with httpx.Client(base_url=app.url, timeout=PATIENCE) as client:
        yield client


def looked_at(client, path):
    """What comes of it if somebody names a file in place of an upload."""
    functions = client.get("/config").json()["dependencies"]
    number = next(f["id"] for f in functions if any(event == "upload" for _, event in f["targets"]))
    file = {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    return completed(client, {"data": [file, ""], "fn_index": number, "session_hash": "somebody"})


def completed(client, call):
    """The last message of the queue about a call; None if it is refused."""
    if client.post("/gradio_api/queue/join", json=call).status_code != 200:
        return None
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": call["session_hash"]}) as answer:
        return next(json.loads(line[5:]) for line in answer.iter_lines() if "process_completed" in line)


def test_nobody_else_reaches_it(app):
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", app.port), timeout=PATIENCE):
        pass


def test_files_of_the_machine_are_not_served(client, folder):
    for path in (folder / "private.png", "private.png", "/etc/hostname", folder):
        assert client.get(f"/gradio_api/file={path}").status_code == 403


def test_files_of_the_machine_are_not_read(client, folder):
    private = str(folder / "private.png")
    assert not looked_at(client, private)["success"]
    uploaded = client.post("/gradio_api/upload", files={"files": (folder / "private.png").open("rb")}).json()
    assert looked_at(client, uploaded[0])["success"]


def test_nothing_is_fetched_for_anybody(client, app):
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.1)
        address = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/a.png"
        result = looked_at(client, address)
        assert not result["success"]
        assert result["output"]["error"] == "URLs are refused: upload a file"
        for name in ("file", "proxy"):
            assert client.get(f"/gradio_api/{name}={address}").text == "not here"
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_a_page_elsewhere_cannot_use_it(client, app):
    files = {"files": ("a.png", b"some")}
    kept = set(app.temporary.rglob("*"))
    for origin in ("https://elsewhere.example", "null", "http://127.0.0.1:3000"):
        answer = client.post("/gradio_api/upload", files=files, headers={"Origin": origin})
        assert answer.status_code == 403
    assert set(app.temporary.rglob("*")) == kept
    assert client.post("/gradio_api/upload", files=files, headers={"Origin": app.url.rstrip("/")}).status_code == 200


def test_a_name_that_points_here_is_not_enough(client):
    for path in ("/", "/config", "/gradio_api/upload"):
        assert client.post(path, headers={"Host": "elsewhere.example"}).status_code == 421


def test_a_foreign_name_is_refused_at_all_addresses(tmp_path):
    with running(tmp_path, tmp_path, temporary=tmp_path, host="0.0.0.0") as app:
        warning = "holistic-cam app: warning: --host 0.0.0.0 lets other machines in, without a password\n"
        assert app.err.read_text() == warning
        for own in ("127.0.0.1", "127.0.0.2"):
            url = f"http://{own}:{app.port}/config"
            assert httpx.get(url, timeout=PATIENCE).status_code == 200
            for name in ("elsewhere.example", "127.0.0.3", "0.0.0.0.elsewhere.example"):
                assert httpx.get(url, headers={"Host": name}, timeout=PATIENCE).status_code == 421


def test_malformed_requests_have_a_status_and_print_no_traceback(client, app):
    call = {"session_hash": "somebody", "fn_index": 0, "data": []}
    functions = client.get("/config").json()["dependencies"]
    selecting = next(f for f in functions if any(event == "select" for _, event in f["targets"]))
    odd = [
        call | {"fn_index": 999},
        call | {"fn_index": "0"},
        call | {"fn_index": functions[0]["id"], "data": [1] * 50},
        call | {"session_hash": {"a": 1}},
        call | {"fn_index": selecting["id"], "data": [None] * len(selecting["inputs"]), "event_data": {}},
        {},
    ]
    answers = [client.post(f"/gradio_api/{path}", json=one) for path in ("queue/join", "run/predict") for one in odd]
    form = {"content-type": "multipart/form-data; boundary=a"}
    answers += [
        client.get("/assets/" + "a" * 5000),
        client.get("/gradio_api/file=%00"),
        client.get("/gradio_api/queue/data"),
        client.post("/gradio_api/upload"),
        client.post("/gradio_api/upload", content=b"x", headers=form),
        client.post("/gradio_api/upload", content=b"--a\r\nx\r\n\r\nx\r\n--a--\r\n", headers=form),
        client.post("/gradio_api/queue/join", content=b"\xff", headers={"content-type": "text/plain"}),
    ]
    assert [answer.status_code // 100 for answer in answers] == [4] * len(answers)
    assert client.get("/gradio_api/queue/data", params={"session_hash": "nobody"}).status_code == 200  # ends
    assert "Traceback" not in app.err.read_text()


def test_values_that_the_page_does_not_send_are_errors_and_print_no_traceback(client, app):
    for function in client.get("/config").json()["dependencies"]:
        for value in (None, "x", -1, [], {}, {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}):
            call = {
                "data": [value] * len(function["inputs"]), "fn_index": function["id"], "session_hash": "somebody",
                "event_data": {"index": value, "value": value},
            }  # fmt: skip
            completed(client, call)
            client.post("/gradio_api/run/predict", json=call)
    assert "Traceback" not in app.err.read_text()


def test_no_answer_has_a_path_of_this_machine(client, app, folder):
    uploaded = client.post("/gradio_api/upload", files={"files": (folder / "private.png").open("rb")})
    answers = [uploaded, client.get("/"), client.get("/config"), client.get("/gradio_api/file=/etc/passwd")]
    answers += [client.get("/gradio_api/file=private.png"), client.get("/nothing")]
    for answer in answers:
        for path in (app.temporary, folder, folder.parent):
            assert str(path) not in answer.text
    (name,) = uploaded.json()
    assert client.get(f"/gradio_api/file={name}").content == (folder / "private.png").read_bytes()
    assert client.get("/gradio_api/file=@files/../private.png").status_code == 403


def test_the_browser_is_told_to_load_from_here_alone(client):
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]


def test_what_the_page_does_without_is_closed(client):
    for name in ("info", "api/explain", "call/explain", "process_recording", "vibe-edit/", "component_server"):
        for answer in (client.get(f"/gradio_api/{name}"), client.post(f"/gradio_api/{name}", json={})):
            assert (answer.status_code, answer.text) == (403, "not here")


def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path):
    with running(tmp_path, tmp_path, temporary=tmp_path) as app:
        assert list(tmp_path.glob("holistic-cam-*"))
        assert app.interrupted() == (130, "")
        assert not list(tmp_path.glob("holistic-cam-*"))


def test_what_a_killed_explorer_leaves_goes_with_the_next_start(tmp_path):
    with running(tmp_path, tmp_path, temporary=tmp_path) as app:
        app.process.kill()
        app.process.join()
        (left,) = tmp_path.glob("holistic-cam-*")
        assert (left / "lock").exists()
    again = tmp_path / "again"
    again.mkdir()
    with running(tmp_path, again, temporary=tmp_path), running(tmp_path, again, temporary=tmp_path):
        assert not left.exists()
        assert len(list(tmp_path.glob("holistic-cam-*"))) == 2


def test_a_port_that_is_taken_is_one_line(app, capsys, monkeypatch):
    monkeypatch.setattr("holistic_cam_plugin.app.snippet.Source.load", None)  # told before anything is loaded
    assert exit_code(["app", "--port", str(app.port)]) == 2
    assert capsys.readouterr().err == (
        f"holistic-cam app: error: cannot listen on port {app.port} of 127.0.0.1: Address already in use; choose "
        "another --host or --port\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet5"], "did you mean resnet50"),
        (["--model", "resnet18", "--weights", "none.pth"], "none.pth does not exist"),
        (["--weights", "some.pth"], "name it with --model"),
        (["--device", "quantum"], "quantum"),
        (["--port", "http"], "whole number from 1 to 65535"),
        (["--host", "nowhere.invalid"], "of nowhere.invalid: "),
        (["--host", "203.0.113.7"], "of 203.0.113.7: "),
        (["photo.jpg"], "photo.jpg"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    code = exit_code(["app", "--port", str(free_port()), *arguments])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert error.startswith("holistic-cam app: error: ")
    assert message in error


def test_without_gradio_the_command_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert exit_code(["app"]) == 2
    assert capsys.readouterr().err == (
        'holistic-cam app: error: the explorer needs Gradio: pip install "holistic-cam-plugin[app]"\n'
    )


def exit_code(arguments):
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code
