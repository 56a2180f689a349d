"""What reaches the application behind the guard, and what its answers contain."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from holistic_cam_plugin.app.guard import Guard, RequestError

FOLDER = '/tmp/a folder \u00e9 "1"'
URL = "http://127.0.0.1:7860"


def refuse_odd(call):
    if call.get("odd"):
        raise RequestError("odd", 422)


async def echo(scope, receive, send):
    """Answers with the path and the body; fails where it is asked to."""
    request = Request(scope, receive)
    if "fail" in scope["path"]:
        raise OSError("File name too long")
    if "stream" in scope["path"]:

        async def parts():
            yield "begun "
            raise OSError("later")

        await StreamingResponse(parts(), media_type="text/event-stream")(scope, receive, send)
        return
    body = await request.body()
    inside = json.dumps({"data": [f"{FOLDER}/b.png"]}, ensure_ascii=False).encode()
    answer = {"length": len(body), "inside": body == inside, "file": f"{FOLDER}/a.png"}
    if "plain" in scope["path"]:  # no text: it is not changed
        path = scope["path"].removeprefix("/gradio_api/file=").encode()
        await Response(path, media_type="image/png")(scope, receive, send)
        return
    await JSONResponse(answer)(scope, receive, send)


@pytest.fixture
def ask():
    """Send a request; returns the answer."""

    def send(path="/", method="GET", **options):
        async def ask():
            transport = httpx.ASGITransport(Guard(echo, "127.0.0.1", FOLDER, refuse_odd), client=("127.0.0.1", 1))
            async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
                return await client.request(method, path, **options)

        return anyio.run(ask)

    return send


def test_the_page_is_answered(ask):
    answer = ask("/config", headers={"Origin": URL})
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/upload", "/gradio_api/queue/join", "/assets/a.js"])
@pytest.mark.parametrize("origin", ["http://elsewhere.example", "null", "http://127.0.0.1:3000"])
def test_other_origins_are_refused(ask, path, origin):
    assert ask(path, "POST", headers={"Origin": origin}, json={}).status_code == 403


def test_other_names_are_refused(ask):
    assert ask(headers={"Host": "elsewhere.example"}).status_code == 421
    assert ask(headers={"Host": "elsewhere.example", "Origin": "http://elsewhere.example"}).status_code == 421


def test_the_folder_has_another_name_outside(ask):
    answer = ask("/gradio_api/queue/join", "POST", json={"data": ["@files/b.png"]})
    assert answer.json()["inside"]
    assert "a folder" not in answer.text
    assert answer.json()["file"] == "@files/a.png"
    assert ask("/gradio_api/file=@files/plain.png").text == str(Path(FOLDER, "plain.png"))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"data": [NaN]}', 400),
        (b'{"data": [1e999]}', 400),
        (b'{"data": ["\\ud800"]}', 400),
        (b"[" * 100_000, 400),
        (b"9" * 5000, 400),
        (b"[]", 422),
        (b"null", 422),
        (b'{"odd": true}', 422),
        (b'"' + b"a" * 2**20 + b'"', 413),
    ],
)
def test_malformed_calls_have_a_status(ask, body, status):
    for path in ("/gradio_api/queue/join", "/gradio_api/run/predict"):
        assert ask(path, "POST", content=body).status_code == status


def test_bodies_are_bounded_without_a_length_too(ask):
    async def parts(number):
        for _ in range(number):
            yield b"x" * 2**20

    assert ask("/gradio_api/upload", "POST", content=parts(64)).json()["length"] == 64 * 2**20
    assert ask("/gradio_api/upload", "POST", content=parts(66)).status_code == 413
    assert ask("/config", "POST", content=parts(2)).status_code == 413


def test_errors_behind_it_have_a_status(ask):
    answer = ask("/fail")
    assert (answer.status_code, answer.text) == (400, "malformed request: OSError")
    assert ask("/assets/" + "a" * 300).status_code == 404
    assert ask("/%00").status_code == 404
    assert ask("/stream").text == "begun "
