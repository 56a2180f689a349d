"""What the server answers: requests of the page itself, well-formed, of a bounded size; and no path of this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers

from holistic_cam_plugin.app.addresses import names_server, same_origin

__all__ = ["LARGEST_UPLOAD", "Guard", "RequestError"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_MB = 2**20
# A camera's pictures are at most this large.
LARGEST_UPLOAD = 64 * _MB
# What encloses the file, and every other request.
_LARGEST_CALL = _MB
# Longest part of a path, in characters: file systems allow for 255 bytes, and Gradio asks them.
_LONGEST_PART = 200

# The browser loads nothing from other servers, whatever Gradio's page contains.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
)

# The part of Gradio's interface that the page needs. The rest would fetch URLs, take videos, and more.
_PREFIX = "/gradio_api"
_CALLS = re.compile(_PREFIX + r"/(queue/join|run/predict)", re.IGNORECASE)
_UPLOAD = re.compile(_PREFIX + r"/upload", re.IGNORECASE)
_NEEDED = re.compile(
    _PREFIX + r"/(queue/(join|data)|run/predict|upload|upload_progress|heartbeat/[^/]+|startup-events"
    r"|file=(?!https?:).*)",
    re.IGNORECASE,
)

# Stands for the temporary folder in whatever the browser sees.
_FILES = "@files"
_TEXTS = ("text/html", "text/plain", "text/event-stream", "application/json")


class RequestError(Exception):
    """A request that the page does not make.

    Args:
        reason: shown to who sent it.
        status: of HTTP.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


class Guard:
    """ASGI middleware in front of all of Gradio's routes.

    Args:
        app: the application behind it.
        host: what the server listens on.
        folder: of uploads and downloads; the browser sees another name of it.
        check: raises `RequestError` for a call of a function, a dict, that the page does not make.
    """

    def __init__(self, app: Any, host: str, folder: str, check: Callable[[dict[str, Any]], None]) -> None:
        self._app = app
        self._host = host
        self._folder = folder
        self._check = check

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, self._folder)
        try:
            self._check_address(scope)
            received = await self._read(scope["path"], receive)
            path = scope["path"].replace(_FILES, self._folder, 1)
            await self._app({**scope, "path": path}, received, answer.send)
        except RequestError as error:
            await answer.refuse(str(error), error.status)
        except Exception as error:  # no request of the page raises one
            await answer.refuse(f"malformed request: {type(error).__name__}", 400)

    def _check_address(self, scope: Message) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        host, origin = headers.get("host", ""), headers.get("origin")
        if not names_server(host, self._host, scope["server"][0]):
            raise RequestError("this server has another name", 421)
        if origin is not None and not same_origin(origin, host):
            raise RequestError("only the page of this server is answered", 403)
        if path.lower().startswith(_PREFIX) and not _NEEDED.fullmatch(path):
            raise RequestError("not here", 403)
        if "\0" in path or max(map(len, path.split("/"))) > _LONGEST_PART:
            raise RequestError("no such file", 404)

    async def _read(self, path: str, receive: Receive) -> Receive:
        """Bound the body of the request, and check it if it calls a function."""
        bounded = _bound(receive, _LARGEST_CALL + LARGEST_UPLOAD * bool(_UPLOAD.fullmatch(path)))
        if not _CALLS.fullmatch(path):
            return bounded
        body, more = b"", True
        while more:
            message = await bounded()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        rest = iter([{"type": "http.request", "body": self._parse(body), "more_body": False}])

        async def read() -> Message:
            return next(rest, None) or await receive()

        return read

    def _parse(self, body: bytes) -> bytes:
        try:
            call = json.loads(body)
            text = json.dumps(call, allow_nan=False, ensure_ascii=False)
            text.encode()  # raises for half a surrogate pair
        except (ValueError, RecursionError) as error:
            raise RequestError("malformed JSON") from error
        if not isinstance(call, dict):
            raise RequestError("a call is an object", 422)
        self._check(call)
        return text.replace(_FILES, _quote(self._folder)).encode()


class _Answer:
    """Sends an answer with the policy, and without the name of the folder."""

    def __init__(self, send: Send, folder: str) -> None:
        self._send = send
        self._names = {_quote(folder).encode(), json.dumps(folder)[1:-1].encode()}
        self._is_text = self._started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self._is_text = Headers(raw=message["headers"]).get("content-type", "").startswith(_TEXTS)
            dropped = b"content-length" if self._is_text else None
            kept = [header for header in message["headers"] if header[0].lower() != dropped]
            message = {**message, "headers": [*kept, (b"content-security-policy", _POLICY.encode())]}
        elif self._is_text and "body" in message:
            for name in self._names:
                message = {**message, "body": message["body"].replace(name, _FILES.encode())}
        await self._send(message)

    async def refuse(self, reason: str, status: int) -> None:
        """Answer with the status, or end the answer that has begun."""
        body = b"" if self._started else reason.encode()
        if not self._started:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _bound(receive: Receive, largest: int) -> Receive:
    """Raise `RequestError` once the body has more bytes."""
    size = 0

    async def read() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > largest:
            raise RequestError(f"larger than {largest >> 20} MB", 413)
        return message

    return read


def _quote(text: str) -> str:
    """The text as it is inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
