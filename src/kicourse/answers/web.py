"""How an app is served on the answer's side: in raw ASGI, in an exact order, without a network.

A `Server` decides nothing. It tells the trial what the app does and carries out what the trial orders: a client asks,
a client leaves, what stands behind the app answers (checks/stage.py). Between two orders the app may do all that it can
do by itself, so nothing depends on how fast a machine is.
"""

import asyncio
import contextlib
import io
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from kicourse.answers import location

_TURNS = 40
"""How often everybody gets a turn in the event loop after an order: far more than any app needs for what it can do."""
_PARTING = 1.0
"""Seconds for an app to start at all, or to end."""

Outcome = dict[str, Any]
"""What the trial says to a call: an `error`, and of which `kind`; or `text` and `sources`; or a `piece`, unless the
stream has ended."""


@dataclass(frozen=True)
class Answer:
    """What an answerer returns."""

    text: str
    sources: list[str]


class Backend:
    """What stands behind an app. What comes of a call, the trial says when it is called, and not before."""

    def __init__(self) -> None:
        self.server: Server | None = None

    def on(self) -> "Server":
        """Return the server of the app that calls."""
        if self.server is None:
            raise RuntimeError("nothing has been asked yet")
        return self.server


class Answerer(Backend):
    """Answers a question, and blocks its thread meanwhile, as a call of `OpenAI` does."""

    def __call__(self, question: str) -> Answer:
        """Return the trial's answer, or raise its error."""
        server = self.on()
        outcome = _good(server.block(server.call(question)))
        return Answer(outcome["text"], list(outcome["sources"]))


class Streamer(Backend):
    """Opens a stream of pieces for a question."""

    def __call__(self, question: str) -> "Stream":
        """Return the stream."""
        server = self.on()
        return Stream(server, server.call(question))


class Stream:
    """An asynchronous iterator over pieces of text; only `aclose()` ends it."""

    def __init__(self, server: "Server", call: int) -> None:
        self.server, self.call = server, call

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        """Return the next piece."""
        outcome = _good(await self.server.wait(self.call))
        if "piece" not in outcome:
            raise StopAsyncIteration
        return str(outcome["piece"])

    async def aclose(self) -> None:
        """Free what the stream holds. To tell the model takes a moment, in which the caller may be cancelled again."""
        self.server.tell("closing", self.call)
        for _turn in range(3):
            await asyncio.sleep(0)
        self.server.tell("closed", self.call)


def _good(outcome: Outcome) -> Outcome:
    """Return an outcome, or raise the error that the trial has planned."""
    if "error" in outcome:
        raise _planned(outcome.get("kind", ""))(outcome["error"])
    return outcome


def _planned(kind: str) -> type[Exception]:
    """Return the class of an error that the trial has planned: one of its own, unless no `kind` is named."""
    return type(kind, (Exception,), {}) if kind else RuntimeError


@dataclass
class _Client:
    """One who asks: its request, and whether it is still there."""

    name: str
    scope: dict[str, Any]
    body: bytes
    task: "asyncio.Task[None] | None" = None
    read: bool = False
    gone: bool = False
    ended: bool = False


class Server:
    """Serves one app to some clients.

    `exchange(happened)` tells the trial what has happened and returns what to do next, None at the end.
    `at_once(happened, call)` returns the outcome of a call that holds up the event loop. What can be ordered:
    ask name method path headers body: a client sends a request;
    connect name path: a client opens a WebSocket;
    leave name: it closes its connection;
    cancel name: the server ends its handling;
    give call outcome: what was called goes on.

    Where an app hands work to threads, the server waits for them: `patience` seconds in all.
    """

    def __init__(
        self,
        app: Any,
        exchange: Callable[[list[list[Any]]], list[list[Any]] | None],
        at_once: Callable[[list[list[Any]], int], Outcome],
        patience: float,
    ) -> None:
        self.app, self.exchange, self.at_once, self.patience = app, exchange, at_once, patience
        self.happened: list[list[Any]] = []
        self.printed = io.StringIO()
        self.clients: dict[str, _Client] = {}
        self.calls = itertools.count()
        self.waiting: dict[int, Callable[[Outcome], None]] = {}
        self.thread = threading.get_ident()
        self.fault: BaseException | None = None

    def tell(self, kind: str, *details: Any) -> None:
        """Tell the trial, with the next exchange, that something happened now."""
        self.happened.append([kind, *details])

    async def serve(self) -> None:
        """Start the app, do what the trial orders, and end what is left."""
        self.changed, self.news = asyncio.Event(), asyncio.Event()
        self.loop = asyncio.get_running_loop()
        stop = await self._start()
        try:
            while (orders := self.exchange(self._told())) is not None:
                for do, *details in orders:
                    getattr(self, f"_{do}")(*details)
                await self._settle()
        finally:
            await self._finish(stop)
        if self.fault is not None:
            raise self.fault

    def _told(self) -> list[list[Any]]:
        if text := self.printed.getvalue():
            self.printed.seek(0)
            self.printed.truncate()
            self.tell("logged", 0, text[:4000])
        count = len(self.happened)  # a thread may add to it meanwhile
        told = self.happened[:count]
        del self.happened[:count]
        return told

    # What stands behind the app

    def call(self, question: Any) -> int:
        """Tell the trial of a call, and return the number under which it goes on."""
        number = next(self.calls)
        self.tell("called", number, question if isinstance(question, str) else repr(question))
        return number

    def block(self, call: int) -> Outcome:
        """Block the calling thread until the trial says what comes of a call."""
        if threading.get_ident() == self.thread:
            return self.at_once(self._told(), call)
        event, outcomes = threading.Event(), []

        def go_on(outcome: Outcome) -> None:
            outcomes.append(outcome)
            event.set()

        self._expect(call, go_on)
        self.loop.call_soon_threadsafe(self.changed.set)
        event.wait(10)  # a server that is left alone with it has gone long before
        return outcomes[0] if outcomes else {"error": "nobody is there any more"}

    async def wait(self, call: int) -> Outcome:
        """Wait until the trial says what comes of a call; being cancelled is an end too."""
        future: asyncio.Future[Outcome] = self.loop.create_future()

        def go_on(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        self._expect(call, go_on)
        self.changed.set()
        try:
            return await future
        finally:
            if self.waiting.get(call) is go_on:
                del self.waiting[call]
                self.tell("left", call)

    def _expect(self, call: int, go_on: Callable[[Outcome], None]) -> None:
        self.waiting[call] = go_on
        self.tell("waits", call)

    # Orders

    def _ask(self, name: str, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        route, _mark, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},  # what uvicorn says
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": route,
            "raw_path": route.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"service"), *((bytes(key), bytes(value)) for key, value in headers)],
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        self._begin(name, scope, body)

    def _connect(self, name: str, path: str) -> None:
        scope = {"type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.3"}, "path": path, "headers": []}
        self._begin(name, scope | {"query_string": b"", "root_path": "", "subprotocols": []}, b"")

    def _begin(self, name: str, scope: dict[str, Any], body: bytes) -> None:
        client = self.clients[name] = _Client(name, scope, body)
        client.task = asyncio.create_task(self._handle(client))

    def _leave(self, name: str) -> None:
        self.clients[name].gone = True
        self._wake()

    def _cancel(self, name: str) -> None:
        task = self.clients[name].task
        assert task is not None
        task.cancel()

    def _give(self, call: int, outcome: Outcome) -> None:
        if go_on := self.waiting.pop(call, None):
            go_on(outcome)

    # What a server does for an app

    async def _start(self) -> Callable[[], Any]:
        """Start the app as a server does before the first request; return what stops it."""
        receiving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        answered = asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"].startswith("lifespan.startup"):
                self.tell("startup", message["type"].rpartition(".")[2], str(message.get("message", ""))[-300:])
            answered.set()

        async def live() -> None:
            scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
            try:
                await self.app(scope, receiving.get, send)
            except Exception as error:
                self._raised("startup", error)
            finally:
                answered.set()

        task = asyncio.create_task(live())
        receiving.put_nowait({"type": "lifespan.startup"})
        await _within(self.patience + _PARTING, answered.wait())
        if self.fault is not None:
            raise self.fault

        async def stop() -> None:
            receiving.put_nowait({"type": "lifespan.shutdown"})
            await asyncio.wait([task], timeout=_PARTING)
            task.cancel()

        return stop

    async def _handle(self, client: _Client) -> None:
        async def receive() -> dict[str, Any]:
            if not client.read:
                client.read = True
                if client.scope["type"] == "websocket":
                    return {"type": "websocket.connect"}
                return {"type": "http.request", "body": client.body, "more_body": False}
            while not (client.gone or client.ended):
                await self.news.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if not client.gone:
                self._sent(client, message)

        try:
            await self.app(client.scope, receive, send)
            self.tell("returned", client.name)
        except asyncio.CancelledError:
            self.tell("cancelled", client.name)
        except BaseException as error:
            self._raised(client.name, error)
        finally:
            self.changed.set()

    def _sent(self, client: _Client, message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = [[bytes(key).decode("latin-1").lower(), bytes(value).decode("latin-1")]
                       for key, value in message.get("headers", [])]  # fmt: skip
            self.tell("status", client.name, int(message["status"]), headers)
        elif message["type"].startswith("websocket."):
            self.tell("socket", client.name, message["type"])
        elif message["type"] == "http.response.body":
            if body := bytes(message.get("body", b"")):
                self.tell("body", client.name, body)
            if not message.get("more_body", False):
                client.ended = True
                self.tell("end", client.name)
                self._wake()

    def _raised(self, name: str, error: BaseException) -> None:
        if isinstance(error, NotImplementedError):
            self.fault = error
        self.tell("raised", name, type(error).__name__, str(error)[:300])
        if not _is_planned(error):
            place = location.of_exception(error)
            self.tell("error", name, type(error).__name__, str(error)[:160], f"`{place.source[:120]}`" if place else "")

    def _wake(self) -> None:
        """Wake everybody who listens for the end of a connection."""
        self.news.set()
        self.news = asyncio.Event()

    # In between

    async def _settle(self) -> None:
        """Let the app do all that it can do by itself."""
        for _turn in range(_TURNS):
            await asyncio.sleep(0)
        while not self._is_quiet() and self.patience > 0:
            start = self.loop.time()
            self.changed.clear()
            await _within(self.patience, self.changed.wait())
            self.patience -= self.loop.time() - start
            for _turn in range(_TURNS):
                await asyncio.sleep(0)

    def _is_quiet(self) -> bool:
        running = [client for client in self.clients.values() if client.task and not client.task.done()]
        return len(running) <= len(self.waiting)

    async def _finish(self, stop: Callable[[], Any]) -> None:
        for call in list(self.waiting):
            self._give(call, {"error": "the trial is over"})
        for client in self.clients.values():
            client.gone = True
            if client.task is not None:
                client.task.cancel()
        self._wake()
        tasks = [client.task for client in self.clients.values() if client.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_PARTING)
        await stop()


def _is_planned(error: BaseException) -> bool:
    """Whether an error is one that the trial has planned, and not the answer's own."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename == __file__


async def _within(seconds: float, waiting: Any) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(waiting, max(seconds, 0.001))


class _Listener(logging.Handler):
    """Tells of all that is logged, on whatever level."""

    def __init__(self, server: Server) -> None:
        super().__init__(logging.DEBUG)
        self.server = server
        self.usual = {*logging.makeLogRecord({}).__dict__, "message", "asctime"}

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "asyncio":  # what the event loop says of itself
            return
        extra = [str(value) for name, value in record.__dict__.items() if name not in self.usual]
        self.server.tell("logged", record.levelno, " ".join([self.format(record), *extra])[:4000])


def serve(app: Any, backend: Backend | None, exchange: Any, at_once: Any, patience: float) -> None:
    """Serve an app as the trial says (see Server)."""
    server = Server(app, exchange, at_once, patience)
    if backend is not None:
        backend.server = server
    root, listener = logging.getLogger(), _Listener(server)
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.DEBUG)
    try:
        with contextlib.redirect_stdout(server.printed):
            asyncio.run(server.serve())
    finally:
        root.removeHandler(listener)
        root.setLevel(level)


# Apps around an answer that is a part of one


def kind(thing: Any) -> str:
    """Say what an answer made, as far as one can see: "router", "callable", or else the name of its type."""
    from starlette.routing import Router

    if isinstance(thing, Router):
        return "router"
    return "callable" if callable(thing) else type(thing).__name__


def with_router(router: Any) -> Any:
    """Return an app that has the routes of `router`."""
    from fastapi import FastAPI

    app = FastAPI(openapi_url=None)
    app.include_router(router)
    return app


def guarded(dependency: Any) -> Any:
    """Return an app with one route, which says whom the dependency let in."""
    from fastapi import Depends, FastAPI

    app = FastAPI(openapi_url=None)

    @app.get("/whoami", response_model=None)
    async def whoami(client: Any = Depends(dependency)) -> dict[str, Any]:  # noqa: B008
        return {"client": client}

    return app


def held_routes(_answer: Any, backend: Backend) -> Any:
    """Return an app whose routes wait for the trial, which also says what is in their replies."""
    from fastapi import FastAPI, Request
    from fastapi.responses import StreamingResponse

    started: list[bool] = []

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        started.append(True)
        yield

    app = FastAPI(lifespan=lifespan, openapi_url=None)

    async def outcome(request: Request) -> Outcome:
        server = backend.on()
        return _good(await server.wait(server.call(request.url.path)))

    @app.get("/healthz", response_model=None)
    async def healthz(request: Request) -> dict[str, Any]:
        if "held" in request.query_params:
            await outcome(request)
        return {"started": bool(started)}

    @app.post("/documents/{name}", status_code=201, response_model=None)
    async def document(request: Request) -> dict[str, str]:
        return {"receipt": (await outcome(request))["text"]}

    @app.get("/stream/{name}", response_model=None)
    async def stream(request: Request) -> StreamingResponse:
        server = backend.on()
        pieces = Stream(server, server.call(request.url.path))
        return StreamingResponse(pieces, headers={"x-name": request.path_params["name"]})

    return app


def behind(gate: Any, app: Any, limit: int, counter: Any) -> Any:
    """Return `app` behind the middleware `gate`."""
    app.add_middleware(gate, limit=limit, counter=counter)
    return app


def counter(_answer: Any) -> Any:
    """Return a prometheus counter with the labels route and status, and a registry of its own."""
    from prometheus_client import CollectorRegistry, Counter

    return Counter("requests", "Requests by route and status.", ["route", "status"], registry=CollectorRegistry())


def samples(counter: Any) -> list[list[Any]]:
    """Return what a counter has counted: route, status, how often."""
    found = [sample for metric in counter.collect() for sample in metric.samples if sample.name.endswith("_total")]
    return sorted([sample.labels["route"], sample.labels["status"], sample.value] for sample in found)


def answerer(_answer: Any) -> Answerer:
    """Return an answerer."""
    return Answerer()


def streamer(_answer: Any) -> Streamer:
    """Return a streamer."""
    return Streamer()


def guard(_answer: Any, status: int, headers: dict[str, str], error: Outcome | None = None) -> Any:
    """Return a dependency that lets everybody in (status 200), or refuses with this status and these headers.

    With an `error` it does neither: it fails itself.
    """
    from fastapi import Depends, HTTPException

    async def ask() -> None:
        _good(error or {})
        if status != 200:
            raise HTTPException(status, "Not now.", headers=headers)

    return Depends(ask)
