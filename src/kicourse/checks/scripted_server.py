"""An OpenAI-compatible server that says what a trial has scripted, and records what it was asked.

    with ScriptedServer([Completion("Hel", "lo"), Failure(429, retry_after=2)]) as server:
        client = OpenAI(base_url=server.url, api_key="trial")
        client.chat.completions.create(model="m", messages=[...]).choices[0].message.content    # "Hello"
        server.requests[0].body["messages"]

Each request gets the next reply. There is no way to steer the server over HTTP: only its owner holds the script.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

_TURNS = 20  # in which a held stream waits

# How a request may be worded without being another request: it is left out when behaviours are compared.
_TASTE = frozenset(
    ("model", "temperature", "top_p", "seed", "user", "max_tokens", "max_completion_tokens", "stream_options")
)


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model wants to be called: `arguments` is text, as a model writes it, JSON or not."""

    id: str
    name: str
    arguments: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as it stands in a message."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


class Completion:
    """An answer of the model, in pieces; sent whole or, when the request says `stream`, piece by piece.

    Parameters
    ----------
    pieces : the text; a stream sends each piece in a chunk of its own.
    usage : token counts; a stream sends them at the end, in a chunk that has no choices.
    held : a stream waits before each piece until `ScriptedServer.release` lets it go.
    cut_after : a stream breaks off after this many pieces, without an end.
    finish_reason : why the model stopped.
    tool_calls : tools that the model wants to be called; a stream sends them after the text, in one chunk.
    uneven : a stream has a chunk without choices at its start and after its first piece, and says why the model stopped
        in the chunk of its last piece, as some providers do.

    """

    def __init__(
        self,
        *pieces: str,
        usage: dict[str, Any] | None = None,
        held: bool = False,
        cut_after: int | None = None,
        finish_reason: str | None = None,
        tool_calls: Sequence[ToolCall] = (),
        uneven: bool = False,
    ) -> None:
        self.pieces, self.usage, self.held = pieces, usage, held
        self.cut_after, self.uneven = cut_after, uneven
        self.finish_reason = finish_reason or ("tool_calls" if tool_calls else "stop")
        self.tool_calls = [call.as_dict() for call in tool_calls]

    def whole(self) -> dict[str, Any]:
        """Return the body of a `chat.completion`."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.pieces)}
        if self.tool_calls:
            message |= {"content": "".join(self.pieces) or None, "tool_calls": self.tool_calls}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return _envelope("chat.completion", [choice], self.usage)

    def opening(self) -> Iterator[dict[str, Any]]:
        """Yield the first chunks of a stream: whose turn it is, and no text yet."""
        if self.uneven:
            yield _without_choices()
        yield _chunk({"role": "assistant", "content": ""})

    def chunks(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the chunks of each piece: usually the one that carries its text."""
        for number, piece in enumerate(self.pieces, start=1):
            ends = self.uneven and number == len(self.pieces)
            chunks = [_chunk({"content": piece}, self.finish_reason if ends else None)]
            yield [*chunks, _without_choices()] if self.uneven and number == 1 else chunks

    def closing(self) -> Iterator[dict[str, Any]]:
        """Yield the last chunks of a stream: why it ends, and the usage if there is one."""
        if self.tool_calls:
            yield _chunk({"tool_calls": [{"index": index, **call} for index, call in enumerate(self.tool_calls)]})
        if not self.uneven:
            yield _chunk({}, self.finish_reason)
        if self.usage is not None:
            yield _without_choices(self.usage)


@dataclass(frozen=True)
class Failure:
    """A reply with an error status; `retry_after` is sent as the header of that name: seconds, or a text as it is."""

    status: int
    message: str = "scripted failure"
    retry_after: float | str | None = None


@dataclass(frozen=True)
class Broken:
    """A reply that is none: `body` is sent as if it were JSON; with None the connection ends without a word.

    For one that is `late` a trial's client (`probes.openai_client`) has waited in vain, and raises its timeout.
    """

    body: str | None = None
    late: bool = False


Reply = Completion | Failure | Broken


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

    `patience` is how many seconds a held stream waits for each release. After that `overdue` becomes true, and all that
    is left is sent at once, so that nobody waits for ever.
    """

    replies: Sequence[Reply]
    patience: float = 2.0
    requests: list[Request] = field(default_factory=list, init=False)
    overdue: bool = field(default=False, init=False)

    def __enter__(self) -> "ScriptedServer":
        """Start serving."""
        from kicourse.checks.scripted_http import HttpServer  # here, so that importing a checks module stays instant

        self._lock = threading.Lock()
        self._released = threading.Semaphore(0)
        self._closed = False
        self._http = HttpServer(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the server; a stream that still waits breaks off."""
        self._closed = True
        self._released.release(len(self.requests) + 1)
        self._http.end()

    @property
    def url(self) -> str:
        """What a client takes as its `base_url`."""
        return self._http.url

    def release(self, pieces: int = 1) -> None:
        """Let a held stream send its next pieces."""
        self._released.release(pieces)

    def observed(self) -> list[Any]:
        """Return what was asked as plain data, without matters of taste such as the temperature."""
        return [
            [
                request.method,
                request.path,
                _uniform({key: value for key, value in (request.body or {}).items() if key not in _TASTE}),
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
        # In turns, so that the answer is not late when the whole machine stood still: that costs one of them.
        if not self.overdue and not any(self._released.acquire(timeout=self.patience / _TURNS) for _ in range(_TURNS)):
            self.overdue = True
        return not self._closed


def _uniform(value: Any) -> Any:
    """Return JSON without matters of taste: the order of fields, and whether an empty one is null or left out."""
    if isinstance(value, dict):
        return {key: _uniform(value[key]) for key in sorted(value) if value[key] is not None}
    return [_uniform(item) for item in value] if isinstance(value, list) else value


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return _envelope("chat.completion.chunk", [{"index": 0, "delta": delta, "finish_reason": finish_reason}], None)


def _without_choices(usage: dict[str, Any] | None = None) -> dict[str, Any]:
    return _envelope("chat.completion.chunk", [], usage)


def _envelope(kind: str, choices: list[Any], usage: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "id": "scripted",
        "object": kind,
        "created": 0,
        "model": "scripted",
        "choices": choices,
        "usage": usage,
    }
