"""The HTTP side of the scripted server (see scripted_server.py): reads requests, writes replies and streams."""

import json
import os
import random
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, Any

from kicourse.answers.probes import LATE
from kicourse.checks.scripted_server import Broken, Completion, Failure, Request

if TYPE_CHECKING:
    from kicourse.checks.scripted_server import ScriptedServer

PORTS = "KICOURSE_TRIAL_PORTS"
"""Names the ports that servers of trials may use, where a sandbox lets answers connect to no others."""

_LARGEST_BODY = 1_000_000


class HttpServer(ThreadingTCPServer):
    """Serves a script on a free port of 127.0.0.1 from the moment it is made until `end`.

    A check starts hundreds, so one neither looks up the machine's name nor looks now and then whether it should end.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, script: "ScriptedServer") -> None:
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=False)
        self._listen()
        self.script = script
        self._ended = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended:
            self.handle_request()

    def _listen(self) -> None:
        """Listen on a port that is kept for trials, where a sandbox allows no other, or else on any free one."""
        kept = [int(port) for port in os.environ.get(PORTS, "").split(",") if port]
        for port in random.sample(kept, len(kept)) or [0]:
            self.server_address = ("127.0.0.1", port)
            with suppress(OSError):
                self.server_bind()
                self.server_activate()
                return
            self.socket.close()
            self.socket = socket.socket()
        raise OSError("no port is left for a scripted server")

    @property
    def url(self) -> str:
        """What a client takes as its `base_url`."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def end(self) -> None:
        """Stop serving and close the port."""
        self._ended = True  # as it sees when somebody connects
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server_address[1])):
            self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that leaves in the middle of a stream is no fault."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpServer

    def do_POST(self) -> None:
        self._serve(self._read_body())

    def do_GET(self) -> None:
        self._serve(None)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is neither, or no request at all; it counts as one."""
        self.server.script.next_reply(Request(self.command or "", getattr(self, "path", ""), {}, None))
        super().send_error(code, message, explain)

    def _serve(self, body: dict[str, Any] | None) -> None:
        self.close_connection = True
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        reply = self.server.script.next_reply(request)
        if isinstance(reply, Failure):
            self._send_failure(reply)
        elif isinstance(reply, Broken):
            self._send_broken(reply)
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
        after = failure.retry_after
        headers = {} if after is None else {"Retry-After": after if isinstance(after, str) else f"{after:g}"}
        error = {"message": failure.message, "type": "scripted", "param": None, "code": None}
        self._send_json(failure.status, {"error": error}, headers)

    def _send_broken(self, broken: Broken) -> None:
        if broken.body is not None or broken.late:
            self._send_text(200, broken.body or "", {LATE: "1"} if broken.late else None)

    def _send_json(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
        self._send_text(status, json.dumps(data), headers)

    def _send_text(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        content = text.encode()
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        self._send_head(status, fixed | (headers or {}))
        self.wfile.write(content)

    def _send_stream(self, completion: Completion) -> None:
        self._send_head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        self._send_chunks(completion.opening())
        for number, chunks in enumerate(completion.chunks()):
            if number == completion.cut_after or (completion.held and not self.server.script.wait_for_release()):
                return
            self._send_chunks(chunks)
        if completion.cut_after is not None:
            return
        self._send_chunks(completion.closing())
        self._send_event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _send_chunks(self, chunks: Iterable[dict[str, Any]]) -> None:
        for chunk in chunks:
            self._send_event(json.dumps(chunk))

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
