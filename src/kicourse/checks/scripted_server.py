"""An OpenAI-compatible server that says what a trial has scripted, and records what it was asked.

    with ScriptedServer([Completion("Hel", "lo"), Failure(429, retry_after=2)]) as server:
        client = OpenAI(base_url=server.url, api_key="trial")
        client.chat.completions.create(model="m", messages=[...]).choices[0].message.content    # "Hello"
        server.requests[0].body["messages"]

Each request gets the next reply. There is no way to steer the server over HTTP: only its owner holds the script.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar

_LARGEST_BODY = 1_000_000
# How a request may be worded without being another request: it is left out when behaviours are compared.
_TASTE = frozenset(
    ("model", "temperature", "top_p", "seed", "user", "max_tokens", "max_completion_tokens", "stream_options")
)


class Completion:
    """An answer of the model, in pieces; sent whole or, when the request says `stream`, piece by piece.

    Parameters
    ----------
    pieces : the text; a stream sends each piece in a chunk of its own.
    usage : token counts; a stream sends them at the end, in a chunk that has no choices.
    held : a stream waits before each piece until `ScriptedServer.release` lets it go.
    cut_after : a stream breaks off after this many pieces, without an end.
    finish_reason : why the model stopped.

    """

    def __init__(
        self,
        *pieces: str,
        usage: dict[str, Any] | None = None,
        held: bool = False,
        cut_after: int | None = None,
        finish_reason: str = "stop",
    ) -> None:
        self.pieces, self.usage, self.held = pieces, usage, held
        self.cut_after, self.finish_reason = cut_after, finish_reason

    def whole(self) -> dict[str, Any]:
        """Return the body of a `chat.completion`."""
        message = {"role": "assistant", "content": "".join(self.pieces)}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return _envelope("chat.completion", [choice], self.usage)

    def opening(self) -> dict[str, Any]:
        """Return the first chunk of a stream: whose turn it is, and no text yet."""
        return _chunk({"role": "assistant", "content": ""})

    def closing(self) -> Iterator[dict[str, Any]]:
        """Yield the last chunks of a stream: why it ends, and the usage if there is one."""
        yield _chunk({}, self.finish_reason)
        if self.usage is not None:
            yield _envelope("chat.completion.chunk", [], self.usage)


@dataclass(frozen=True)
class Failure:
    """A reply with an error status; `retry_after` is sent as the header of that name, in seconds."""

    status: int
    message: str = "scripted failure"
    retry_after: float | None = None


Reply = Completion | Failure


@dataclass(frozen=True)
class Request:
    """What the server was asked: header names in lower case; `body` parsed, None where it was no JSON object."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any] | None


@dataclass
class ScriptedServer:
    """Serves `replies`, one a request, on 127.0.0.1 while the context lasts; a request too many gets status 500.

    `patience` is how many seconds a held stream waits for each release. After that it sends the piece all the same, so
    that nobody waits for ever, and `overdue` becomes true.
    """

    replies: Sequence[Reply]
    patience: float = 1.5
    requests: list[Request] = field(default_factory=list, init=False)
    overdue: bool = field(default=False, init=False)

    def __enter__(self) -> "ScriptedServer":
        """Start serving."""
        self._lock = threading.Lock()
        self._released = threading.Semaphore(0)
        self._closed = False
        handler = type("Handler", (_Handler,), {"script": self})
        self._http = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the server; a stream that still waits breaks off."""
        self._closed = True
        self._released.release(len(self.requests) + 1)
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def url(self) -> str:
        """What a client takes as its `base_url`."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def release(self, pieces: int = 1) -> None:
        """Let a held stream send its next pieces."""
        self._released.release(pieces)

    def observed(self) -> list[Any]:
        """Return what was asked as plain data, without matters of taste such as the temperature."""
        return [
            [
                request.method,
                request.path,
                {key: value for key, value in (request.body or {}).items() if key not in _TASTE},
            ]
            for request in self.requests
        ]

    def next_reply(self, request: Request) -> Reply:
        """Record a request and return the reply that is its turn."""
        with self._lock:
            turn = len(self.requests)
            self.requests.append(request)
        if (request.method, request.path) != ("POST", "/v1/chat/completions"):
            return Failure(404, f"there is no {request.method} {request.path} here")
        if request.body is None:
            return Failure(400, "the body is not a JSON object")
        return self.replies[turn] if turn < len(self.replies) else Failure(500, "no reply is left in the script")

    def wait_for_release(self) -> bool:
        """Wait until a held stream may send its next piece; return whether the server still serves."""
        if not self._released.acquire(timeout=self.patience):
            self.overdue = True
        return not self._closed


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that leaves in the middle of a stream is no fault."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: ClassVar[ScriptedServer]

    def do_POST(self) -> None:
        self._serve(self._read_body())

    def do_GET(self) -> None:
        self._serve(None)

    def _serve(self, body: dict[str, Any] | None) -> None:
        self.close_connection = True
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        reply = self.script.next_reply(request)
        if isinstance(reply, Failure):
            self._send_failure(reply)
        elif body is not None and body.get("stream") is True:
            self._send_stream(reply)
        else:
            self._send_json(200, reply.whole())

    def _read_body(self) -> dict[str, Any] | None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LARGEST_BODY:
            return None
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return None
        return body if isinstance(body, dict) else None

    def _send_failure(self, failure: Failure) -> None:
        headers = {} if failure.retry_after is None else {"Retry-After": f"{failure.retry_after:g}"}
        error = {"message": failure.message, "type": "scripted", "param": None, "code": None}
        self._send_json(failure.status, {"error": error}, headers)

    def _send_json(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(data).encode()
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        self._send_head(status, fixed | (headers or {}))
        self.wfile.write(content)

    def _send_stream(self, completion: Completion) -> None:
        self._send_head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        self._send_event(json.dumps(completion.opening()))
        for number, piece in enumerate(completion.pieces):
            if number == completion.cut_after or (completion.held and not self.script.wait_for_release()):
                return
            self._send_event(json.dumps(_chunk({"content": piece})))
        if completion.cut_after is not None:
            return
        for chunk in completion.closing():
            self._send_event(json.dumps(chunk))
        self._send_event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _send_event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")

    def _send_head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: what was asked is in `requests`."""


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return _envelope("chat.completion.chunk", [{"index": 0, "delta": delta, "finish_reason": finish_reason}], None)


def _envelope(kind: str, choices: list[Any], usage: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "id": "scripted",
        "object": kind,
        "created": 0,
        "model": "scripted",
        "choices": choices,
        "usage": usage,
    }
