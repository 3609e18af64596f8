"""How a trial drives a web app on the answer's side: in raw ASGI, in an exact order, without a network.

A `Stage` plays steps: a client asks, a client leaves, what stands behind the app goes on. After each step the app may
do all that it can do by itself; only then comes the next. So nothing depends on how fast a machine is. What happened is
noted in order, as plain data.
"""

import asyncio
import contextlib
import io
import logging
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from kicourse.answers import location

_TURNS = 40
"""How often everybody gets a turn in the event loop after a step: far more than any app needs to do what it can do."""
_PARTING = 1.0
"""Seconds for an app to start at all, or to end."""


@dataclass(frozen=True)
class Answer:
    """What an answerer returns."""

    text: str
    sources: list[str]


class Backend:
    """What stands behind an app: a blocking answerer, or a stream of pieces. One entry of `script` for each call.

    An entry may say `text` and `sources`, or `pieces`; `error`, with which it ends; and where it is `held` until the
    stage lets it go on: True, or the number of the piece before which it waits.
    """

    def __init__(self, script: list[dict[str, Any]]) -> None:
        self.script = list(script)
        self.stage: Stage | None = None

    def on(self) -> "Stage":
        """Return the stage on which the app plays."""
        if self.stage is None:
            raise RuntimeError("nothing has been asked yet")
        return self.stage

    def next(self, question: Any) -> dict[str, Any]:
        """Note a call and return the entry of the script that is meant for it."""
        self.on().note("called", question if isinstance(question, str) else repr(question))
        return self.script.pop(0) if self.script else {"text": "", "sources": [], "pieces": []}


class Answerer(Backend):
    """Answers a question, and blocks its thread meanwhile, as a call of `OpenAI` does."""

    def __call__(self, question: str) -> Answer:
        """Return the next answer of the script, or raise its error."""
        entry = self.next(question)
        if entry.get("held"):
            self.on().block()
        if error := entry.get("error"):
            raise RuntimeError(error)
        return Answer(entry["text"], list(entry["sources"]))


class Streamer(Backend):
    """Opens a stream of pieces for a question."""

    def __call__(self, question: str) -> "Stream":
        """Return the next stream of the script."""
        return Stream(self.on(), self.next(question))


class Stream:
    """An asynchronous iterator over pieces of text; only `aclose()` ends it."""

    def __init__(self, stage: "Stage", entry: dict[str, Any]) -> None:
        self.stage, self.entry = stage, entry
        self.given = 0
        self.sent_before = 0

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        """Return the next piece; note it if the last one was not sent before."""
        if self.given and not await self.stage.sends_more_than(self.sent_before):
            self.stage.note("early", self.given)
        if self.entry.get("held") == self.given:
            await self.stage.hold()
        pieces = self.entry["pieces"]
        if self.given == len(pieces):
            if error := self.entry.get("error"):
                raise RuntimeError(error)
            raise StopAsyncIteration
        self.given += 1
        self.sent_before = self.stage.sent
        return str(pieces[self.given - 1])

    async def aclose(self) -> None:
        """Free what the stream holds. To tell the model takes a moment, in which the caller may be cancelled again."""
        self.stage.note("closing")
        for _turn in range(3):
            await asyncio.sleep(0)
        self.stage.note("closed")


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


class Stage:
    """One app, some clients, and notes of what happens, in order.

    The steps, each a list that begins with its name:
    ask name method path headers body: a client sends a request;
    connect name path: a client opens a WebSocket;
    leave name: it closes its connection;
    cancel name: the server ends its handling;
    go: what waits behind the app, the longest first, goes on;
    fail text: it raises an error instead.

    Where an app hands work to threads, the stage waits for them: `patience` seconds in all, for all steps.
    """

    def __init__(self, app: Any, backend: Backend | None, patience: float) -> None:
        self.app, self.backend, self.patience = app, backend, patience
        self.notes: list[list[Any]] = []
        self.clients: dict[str, _Client] = {}
        self.waiting: list[Callable[[str], None]] = []
        self.sent = 0
        self.thread = threading.get_ident()
        self.fault: BaseException | None = None

    def note(self, kind: str, *details: Any) -> None:
        """Note that something happened now."""
        self.notes.append([kind, *details])

    async def play(self, steps: list[list[Any]]) -> None:
        """Start the app, take the steps, and end what is left."""
        self.changed = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        if self.backend is not None:
            self.backend.stage = self
        stop = await self._start()
        try:
            for number, (do, *details) in enumerate(steps):
                self.note("step", number)
                getattr(self, f"_{do}")(*details)
                await self._settle()
        finally:
            await self._finish(stop)
        if self.fault is not None:
            raise self.fault

    # What the backend does

    def block(self) -> None:
        """Block the calling thread until the stage lets it go on, unless nothing could go on then."""
        if threading.get_ident() == self.thread:
            self.note("blocks the loop")
            return
        event, errors = threading.Event(), []

        def go_on(error: str) -> None:
            errors.extend([error] if error else [])
            event.set()

        self.waiting.append(go_on)
        self.loop.call_soon_threadsafe(self.changed.set)
        event.wait(10)  # a stage that is left alone with it has gone long before
        if errors:
            raise RuntimeError(errors[0])

    async def hold(self) -> None:
        """Wait until the stage lets the caller go on; being cancelled is an end too."""
        future: asyncio.Future[None] = self.loop.create_future()

        def go_on(error: str) -> None:
            if future.done():
                return
            future.set_exception(RuntimeError(error)) if error else future.set_result(None)

        self.waiting.append(go_on)
        self.changed.set()
        try:
            await future
        finally:
            if go_on in self.waiting:
                self.waiting.remove(go_on)

    async def sends_more_than(self, count: int) -> bool:
        """Give the app its turns until it has sent more than `count` pieces of a body; return whether it has."""
        for _turn in range(_TURNS):
            if self.sent > count:
                return True
            await asyncio.sleep(0)
        return False

    # Steps

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
        client.task = asyncio.create_task(self._serve(client))

    def _leave(self, name: str) -> None:
        self.clients[name].gone = True
        self._wake()

    def _cancel(self, name: str) -> None:
        task = self.clients[name].task
        assert task is not None
        task.cancel()

    def _go(self) -> None:
        self._fail("")

    def _fail(self, error: str) -> None:
        if self.waiting:
            self.waiting.pop(0)(error)

    # The server's part

    async def _start(self) -> Callable[[], Any]:
        """Start the app as a server does before the first request; return what stops it."""
        receiving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        answered = asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"].startswith("lifespan.startup"):
                self.note("startup", message["type"].rpartition(".")[2], str(message.get("message", ""))[-300:])
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
        self._require_started()

        async def stop() -> None:
            receiving.put_nowait({"type": "lifespan.shutdown"})
            await asyncio.wait([task], timeout=_PARTING)
            task.cancel()

        return stop

    async def _serve(self, client: _Client) -> None:
        async def receive() -> dict[str, Any]:
            if not client.read:
                client.read = True
                if client.scope["type"] == "websocket":
                    return {"type": "websocket.connect"}
                return {"type": "http.request", "body": client.body, "more_body": False}
            while not (client.gone or client.ended):
                event = self.news
                await event.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if not client.gone:
                self._note_sent(client, message)

        try:
            await self.app(client.scope, receive, send)
            self.note("returned", client.name)
        except asyncio.CancelledError:
            self.note("cancelled", client.name)
        except BaseException as error:
            self._raised(client.name, error)
        finally:
            self.changed.set()

    def _note_sent(self, client: _Client, message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = [[bytes(key).decode("latin-1").lower(), bytes(value).decode("latin-1")]
                       for key, value in message.get("headers", [])]  # fmt: skip
            self.note("status", client.name, int(message["status"]), headers)
        elif message["type"].startswith("websocket."):
            self.note("socket", client.name, message["type"])
        elif message["type"] == "http.response.body":
            if body := bytes(message.get("body", b"")):
                self.sent += 1
                self.note("body", client.name, body)
            if not message.get("more_body", False):
                client.ended = True
                self.note("end", client.name)
                self._wake()

    def _raised(self, name: str, error: BaseException) -> None:
        if isinstance(error, NotImplementedError):
            self.fault = error
        self.note("raised", name, type(error).__name__, str(error)[:300])
        if not _is_scripted(error):
            place = location.of_exception(error)
            self.note("error", name, type(error).__name__, str(error)[:160], f"`{place.source[:120]}`" if place else "")

    def _require_started(self) -> None:
        if self.fault is not None:
            raise self.fault

    @property
    def news(self) -> asyncio.Event:
        """What wakes everybody who listens for the end of a connection."""
        if not hasattr(self, "_news"):
            self._news = asyncio.Event()
        return self._news

    def _wake(self) -> None:
        self.news.set()
        self._news = asyncio.Event()

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
        self.note("curtain")
        while self.waiting:
            self._go()
        for client in self.clients.values():
            client.gone = True
            if client.task is not None:
                client.task.cancel()
        self._wake()
        tasks = [client.task for client in self.clients.values() if client.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_PARTING)
        await stop()


def _is_scripted(error: BaseException) -> bool:
    """Whether an error is one that stands in the script, and not the answer's own."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename == __file__


async def _within(seconds: float, waiting: Any) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(waiting, max(seconds, 0.001))


class _Listener(logging.Handler):
    """Notes all that is logged, on whatever level."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(logging.DEBUG)
        self.stage = stage
        self.usual = {*logging.makeLogRecord({}).__dict__, "message", "asctime"}

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "asyncio":  # what the event loop says of itself
            return
        extra = [str(value) for name, value in record.__dict__.items() if name not in self.usual]
        self.stage.note("logged", record.levelno, " ".join([self.format(record), *extra])[:4000])


def play(app: Any, backend: Backend | None, steps: list[list[Any]], patience: float = 5.0) -> list[list[Any]]:
    """Play `steps` with an app and return what happened (see Stage)."""
    stage = Stage(app, backend, patience)
    root, listener, printed = logging.getLogger(), _Listener(stage), io.StringIO()
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.DEBUG)
    try:
        with contextlib.redirect_stdout(printed):
            asyncio.run(stage.play(steps))
    finally:
        root.removeHandler(listener)
        root.setLevel(level)
    if text := printed.getvalue():
        stage.note("logged", 0, text[:4000])
    return stage.notes


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
    """Return an app whose routes wait until the stage lets them go on."""
    from fastapi import FastAPI, Request
    from fastapi.responses import StreamingResponse

    started: list[bool] = []

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        started.append(True)
        yield

    app = FastAPI(lifespan=lifespan, openapi_url=None)

    @app.get("/healthz", response_model=None)
    async def healthz(request: Request) -> dict[str, Any]:
        if "held" in request.query_params:
            await backend.on().hold()
        return {"started": bool(started)}

    @app.post("/documents/{name}", status_code=201, response_model=None)
    async def document(request: Request) -> dict[str, str]:
        name = request.path_params["name"]
        backend.next(name)
        await backend.on().hold()
        return {"stored": name}

    @app.get("/stream/{name}", response_model=None)
    async def stream(request: Request) -> StreamingResponse:
        name = request.path_params["name"]

        async def pieces() -> AsyncIterator[str]:
            yield f"{name} 1\n"
            await backend.on().hold()
            yield f"{name} 2\n"

        return StreamingResponse(pieces(), headers={"x-name": name})

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


def answerer(_answer: Any, script: list[dict[str, Any]]) -> Answerer:
    """Return an answerer with this script."""
    return Answerer(script)


def streamer(_answer: Any, script: list[dict[str, Any]]) -> Streamer:
    """Return a streamer with this script."""
    return Streamer(script)


def guard(_answer: Any, status: int, headers: dict[str, str]) -> Any:
    """Return a dependency that lets everybody in (status 200), or refuses with this status and these headers."""
    from fastapi import Depends, HTTPException

    async def ask() -> None:
        if status != 200:
            raise HTTPException(status, "Not now.", headers=headers)

    return Depends(ask)
