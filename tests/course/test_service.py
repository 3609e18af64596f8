"""What is special about service: apps that misbehave get a message that helps, and the real server agrees."""

import asyncio
import contextlib
import functools
import json
import logging
import re
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar

import anyio
import httpx
import nbformat
import pytest
from fastapi import APIRouter, Body, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse

from kicourse.answers import web
from kicourse.checks import service as check
from kicourse.serving import serving
from kicourse.syllabus import course
from tests.course.alternatives import service as honest
from tests.course.demonstrations import demonstrated

CHECKS = (check.create_app, check.stream_router, check.require_key, check.token_bucket, check.gate)


def failed(verdict: Any) -> list[str]:
    return [result.name for result in verdict.criteria if result.status != "passed"]


def messages(verdict: Any) -> str:
    return " ".join(result.message for result in verdict.criteria)


@pytest.mark.usefixtures("undiagnosed")
def test_a_mistake_costs_its_own_criterion_only() -> None:
    expected = {
        "blocks_the_loop": "healthy_while_busy",
        "echoes_input": "no_echo",
        "status_400": "refuses_invalid",
        "tells_trace": "failure",
        "only_runtime_errors": "failure",
        "only_answerers_errors": "failure",
        "headers_dropped": "guards_and_framework",
        "no_guards": "guards_and_framework",
        "collects_first": "at_once",
        "json_by_hand": "any_text",
        "done_anyway": "says_how_it_ended",
        "logs_no_error": "says_how_it_ended",
        "only_runtime_errors_told": "says_how_it_ended",
        "unshielded": "frees_when_reader_leaves",
        "closed_on_exceptions": "frees_when_reader_leaves",
        "compares_texts": "refuses_any_bytes",
        "header_required": "refuses",
        "scheme_as_written": "any_case",
        "logs_key": "logs_without_key",
        "logs_beginning": "logs_without_key",
        "tells_key": "answers_without_key",
        "GlobalBucket": "each_its_own",
        "CountedTwice": "refills",
        "NoBrim": "capped",
        "RoundedDown": "says_how_long",
        "OneMore": "says_how_long",
        "ForgetsRate": "says_how_long",
        "FloatSeconds": "says_how_long",
        "UntilFull": "says_how_long",
        "OneTooMany": "refuses_at_once",
        "SwallowsErrors": "places_come_back",
        "HealthTakesPlace": "healthy_when_full",
        "LeaksOnErrors": "places_come_back",
        "LeaksOnCancellation": "places_come_back",
        "LeaksOnOtherErrors": "places_come_back",
        "RefusalGivesBack": "places_come_back",
        "freed_at_headers": "stream_keeps_place",
        "HealthRefused": "healthy_when_full",
        "NoRetryAfter": "refuses_at_once",
        "PathAsLabel": "counts",
        "BrokenIs500": "counts",
    }
    for task in CHECKS:
        for wrong in task.misconceptions:
            if wanted := expected.pop(wrong.name, None):
                results = task.run(wrong.build()).criteria
                assert [result.name for result in results if result.status == "failed"] == [wanted], wrong.name
    assert not expected


def names_question_only(answerer: Any, guards: Any = ()) -> Any:
    return check._app(answerer, guards=guards, invalid=lambda _error: check._problem(422, "question"))


def repeats_of_kind(kind: str) -> Any:
    def faults(error: Any) -> str:
        repeated = [f"{fault['input']} {error.body}" for fault in error.errors() if fault["type"] == kind]
        return "; ".join([check._faults(error), *repeated])

    return lambda answerer, guards=(): check._app(
        answerer, guards=guards, invalid=lambda error: check._problem(422, faults(error))
    )


def words_of_its_own(answerer: Any, guards: Any = ()) -> Any:
    return check._app(
        answerer, guards=guards, refused=lambda error: check._problem(error.status_code, "No.", error.headers)
    )


def last_guard_only(answerer: Any, guards: Any = ()) -> Any:
    return check._app(answerer, guards=list(guards)[-1:])


def first_guard_only(answerer: Any, guards: Any = ()) -> Any:
    return check._app(answerer, guards=list(guards)[:1])


def streams_for_anything(streamer: Any) -> APIRouter:
    router = APIRouter()

    @router.post("/ask/stream")
    async def ask(question: dict[str, Any]) -> StreamingResponse:
        return StreamingResponse(check._right_events(streamer(question["question"])), media_type="text/event-stream")

    return router


def streams_for_any_text(streamer: Any) -> APIRouter:
    router = APIRouter()

    @router.post("/ask/stream")
    async def ask(question: Annotated[str, Body(embed=True)]) -> StreamingResponse:
        return StreamingResponse(check._right_events(streamer(question)), media_type="text/event-stream")

    return router


def junk_when_done(streamer: Any) -> Any:
    def event(name: str, data: Any) -> str:
        return check._sse(name, {"pieces": 3} if name == "done" else data)

    return check._router(streamer, lambda stream: check._right_events(stream, event))


def last_word_as_key(keys: Any) -> Any:
    async def client_of(request: Request) -> str:
        header = request.headers.get("Authorization", "")
        names = {key: name for name, key in keys.items()}
        if header.lower().startswith("bearer") and " " in header and header.split()[-1] in names:
            return str(names[header.split()[-1]])
        check._warn("refused")
        raise HTTPException(401, "Send a valid key.", headers={"WWW-Authenticate": "Bearer"})

    return client_of


def end_of_sentence_forgiven(keys: Any) -> Any:
    return check._door(keys, same=lambda key, known: key.rstrip("!?. ") == known)


def first_word_as_key(keys: Any) -> Any:
    return check._door(keys, same=lambda key, known: key.split()[:1] == [known])


def silent_about_no_key(keys: Any) -> Any:
    return check._door(keys, logged=lambda header, _key: check._warn("refused") if header else None)


def answers_kept(answerer: Any, guards: Any = ()) -> Any:
    return check._app(functools.cache(answerer), guards=guards)


def questions_stripped(answerer: Any, guards: Any = ()) -> Any:
    return check._app(lambda question: answerer(question.strip()), guards=guards)


def bad_request_left(answerer: Any, guards: Any = ()) -> Any:
    def refused(error: Any) -> Any:
        return JSONResponse({"detail": error.detail}, 400) if error.status_code == 400 else check._refused(error)

    return check._app(answerer, guards=guards, refused=refused)


def events_of(events: Any) -> Any:
    return lambda streamer: check._router(streamer, events)


async def tells_type(stream: Any) -> Any:
    try:
        async for piece in stream:
            yield check._sse("piece", {"text": piece})
        yield check._DONE
    except Exception as error:
        check._warn("broken off")
        yield check._sse("error", {"detail": type(error).__name__})
    finally:
        await check._close(stream)


closing = set[asyncio.Task[None]]()


async def closes_later(stream: Any) -> Any:
    class Left:
        def __aiter__(self) -> Any:
            return aiter(stream)

        async def aclose(self) -> None:
            closing.add(asyncio.create_task(stream.aclose()))

    async for event in check._right_events(Left()):
        yield event


def logs_end_of_key(keys: Any) -> Any:
    return check._door(keys, logged=lambda _header, key: check._warn("wrong key: ...%s", key[-3:]))


def logs_three_of_key(keys: Any) -> Any:
    return check._door(keys, logged=lambda _header, key: check._warn("wrong key: %s...", key[3:6]))


class SharedBucket(check._RightBucket):
    shared: ClassVar[dict[str, Any]] = {}

    def __init__(self, rate: float, capacity: int, clock: Any) -> None:
        super().__init__(rate, capacity, clock)
        self.buckets = self.shared


class FloatYes(check._RightBucket):
    def take(self, client: str) -> Any:
        return super().take(client) or 0.0


class AMinuteAtMost(check._RightBucket):
    def wait(self, tokens: float) -> Any:
        return min(60, super().wait(tokens))


class SlowestRate(check._RightBucket):
    def __init__(self, rate: float, capacity: int, clock: Any) -> None:
        super().__init__(max(rate, 0.1), capacity, clock)


class QuarterSeconds(check._RightBucket):
    def __init__(self, rate: float, capacity: int, clock: Any) -> None:
        super().__init__(rate, capacity, lambda: int(clock() * 4) / 4)


class SocketsDropped(check._RightGate):
    async def other(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await super().other(scope, receive, send)


class CancellationSwallowed(check._RightGate):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await super().__call__(scope, receive, send)


class AnyHealth(check._RightGate):
    def is_exempt(self, scope: Any) -> bool:
        return str(scope["path"]).endswith("/healthz")


class HeadUncounted(check._RightGate):
    def count(self, scope: Any, status: int) -> None:
        if scope["method"] != "HEAD":
            super().count(scope, status)


class CancelledUncounted(check._RightGate):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.counts = True
        await super().__call__(scope, receive, send)

    async def let_in(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().let_in(scope, receive, send)
        except asyncio.CancelledError:
            self.counts = False
            raise

    def count(self, scope: Any, status: int) -> None:
        if self.counts:
            super().count(scope, status)


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("task", "wrong", "criterion"),
    [
        (check.create_app, names_question_only, "no_echo"),
        (check.create_app, repeats_of_kind("extra_forbidden"), "no_echo"),
        (check.create_app, repeats_of_kind("json_invalid"), "no_echo"),
        (check.create_app, words_of_its_own, "guards_and_framework"),
        (check.create_app, last_guard_only, "guards_and_framework"),
        (check.create_app, first_guard_only, "guards_and_framework"),
        (check.stream_router, streams_for_anything, "says_how_it_ended"),
        (check.stream_router, streams_for_any_text, "says_how_it_ended"),
        (check.stream_router, junk_when_done, "says_how_it_ended"),
        (check.require_key, last_word_as_key, "refuses"),
        (check.require_key, end_of_sentence_forgiven, "refuses"),
        (check.require_key, first_word_as_key, "refuses"),
        (check.require_key, silent_about_no_key, "logs_without_key"),
        (check.gate, CancelledUncounted, "counts"),
        (check.create_app, answers_kept, "failure"),
        (check.create_app, questions_stripped, "failure"),
        (check.create_app, bad_request_left, "guards_and_framework"),
        (check.stream_router, events_of(tells_type), "says_how_it_ended"),
        (check.stream_router, events_of(closes_later), "frees_at_end"),
        (check.require_key, logs_end_of_key, "logs_without_key"),
        (check.require_key, logs_three_of_key, "logs_without_key"),
        (check.token_bucket, SharedBucket, "each_its_own"),
        (check.token_bucket, FloatYes, "says_how_long"),
        (check.token_bucket, AMinuteAtMost, "says_how_long"),
        (check.token_bucket, SlowestRate, "says_how_long"),
        (check.token_bucket, QuarterSeconds, "says_how_long"),
        (check.gate, SocketsDropped, "counts"),
        (check.gate, CancellationSwallowed, "places_come_back"),
        (check.gate, AnyHealth, "healthy_when_full"),
        (check.gate, HeadUncounted, "counts"),
    ],
)
def test_a_rare_mistake_costs_its_own_criterion_too(task: Any, wrong: Any, criterion: str) -> None:
    results = task.run(wrong).criteria
    assert [result.name for result in results if result.status == "failed"] == [criterion]


def test_an_app_that_fails_as_it_starts_is_told_so() -> None:
    def create_app(answerer: Any, guards: Any = ()) -> Any:
        app = honest.create_app(answerer, guards)

        async def broken(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                raise KeyError("DATABASE_URL")
            await app(scope, receive, send)

        return broken

    verdict = check.create_app.run(create_app)
    assert verdict.points == 0
    assert "fails when a server starts it" in verdict.criteria[0].message
    assert "DATABASE_URL" in verdict.criteria[0].message


def test_an_app_that_refuses_to_start_is_told_so() -> None:
    class Refusing:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "lifespan.startup.failed", "message": "no licence"})

    verdict = check.create_app.run(lambda answerer, guards=(): Refusing())
    assert "refuses to start: no licence" in verdict.criteria[0].message


def test_an_app_that_never_answers_is_told_so() -> None:
    def create_app(answerer: Any, guards: Any = ()) -> FastAPI:
        app = FastAPI()

        @app.post("/ask")
        async def ask(question: dict[str, Any]) -> None:
            await asyncio.Event().wait()

        return app

    start = time.monotonic()
    verdict = check.create_app.run(create_app)
    assert "no answer at all" in verdict.criteria[0].message
    assert time.monotonic() - start < 30


def test_an_answer_that_blocks_for_ever_is_shown_its_line() -> None:
    def take_for_ever(rate: float, capacity: int, clock: Any) -> Any:
        while True:
            time.sleep(0.01)

    task = check.token_bucket
    seconds, task.seconds = task.seconds, 0.3
    try:
        verdict = task.run(take_for_ever)
    finally:
        task.seconds = seconds
    assert verdict.points == 0
    assert "0.3" in verdict.criteria[0].message


def test_an_error_of_the_learners_own_is_named() -> None:
    """A 500 alone would leave them searching; the error that a trial plans is none of theirs."""
    first = check.create_app.run(lambda answerer, guards=(): check._app(answerer, guards=guards, invalid=joined))
    assert "← TypeError: sequence item 1" in messages(first)
    assert '".".join' in messages(first)
    assert "←" not in messages(check.create_app.run(check.default_500))

    def stream_router(streamer: Any) -> Any:
        async def events(stream: Any) -> Any:
            try:
                async for piece in stream:
                    yield check._sse("piece", {"text": piece})
                yield check._sse("done", {"pieces": len(stream)})
            except Exception:
                logging.exception("broken off")
                yield check._FAILED
            finally:
                await check._close(stream)

        return check._router(streamer, events)

    assert "← TypeError: object of type" in messages(check.stream_router.run(stream_router))


def joined(error: Any) -> Any:
    return check._problem(422, ".".join(error.errors()[0]["loc"]))


def test_a_parameter_without_its_type_is_told_so() -> None:
    def require_key(keys: Any) -> Any:
        def client_of(request):  # type: ignore[no-untyped-def]  # the mistake is that it has no type
            return next(iter(keys))

        return client_of

    assert "Annotate it as `request: Request`" in messages(check.require_key.run(require_key))


def test_a_bucket_that_counts_from_the_clocks_beginning_is_found() -> None:
    class FromZero(check._RightBucket):
        def take(self, client: str) -> Any:
            self.buckets.setdefault(client, (0, 0))
            return super().take(client)

    verdict = check.token_bucket.run(FromZero)
    assert failed(verdict)[0] == "burst"
    assert "empty at first" in verdict.diagnosis


def test_the_call_that_failed_is_the_one_that_is_shown() -> None:
    verdict = check.token_bucket.run(check.GlobalBucket)
    [shown] = [result.tried for result in verdict.criteria if result.name == "each_its_own"]
    assert "Müller" in shown


def test_a_gate_for_http_only_in_name_is_told_so() -> None:
    """What passes on the server's start only would count WebSockets, and let them take a place."""

    class Lifespan(check._RightGate):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await super().__call__(scope | {"type": "http"} if scope["type"] == "websocket" else scope, receive, send)

    assert "`websocket`" in messages(check.gate.run(Lifespan))


def test_no_app_at_all_is_told_so() -> None:
    for task in CHECKS:
        verdict = task.run(lambda *args, **kwargs: None)
        assert verdict.points == 0
        assert "fault of its own" not in messages(verdict)


def test_the_style_of_a_mistake_does_not_hide_it() -> None:
    """Whether the streamer is called in the endpoint or in the generator: who never closes is told so."""

    def stream_router(streamer: Any) -> APIRouter:
        router = APIRouter()

        async def events(question: str) -> Any:
            pieces = streamer(question)
            try:
                async for piece in pieces:
                    yield f"event: piece\ndata: {json.dumps({'text': piece})}\n\n"
                yield "event: done\ndata: {}\n\n"
            except Exception:
                logging.exception("broken off")
                yield 'event: error\ndata: {"detail": "broken off"}\n\n'

        @router.post("/ask/stream")
        async def ask(question: honest.Question) -> StreamingResponse:
            return StreamingResponse(events(question.question), media_type="text/event-stream")

        return router

    verdict = check.stream_router.run(stream_router)
    assert failed(verdict) == ["frees_at_end", "frees_when_reader_leaves"]
    assert "never closed" in verdict.diagnosis


def test_frameworks_own_events_pass_too() -> None:
    """FastAPI's own server-sent events, which read ahead by themselves, are as good."""
    from fastapi.sse import EventSourceResponse, ServerSentEvent

    def stream_router(streamer: Any) -> APIRouter:
        router = APIRouter()

        @router.post("/ask/stream", response_class=EventSourceResponse)
        async def ask(question: honest.Question) -> Any:
            pieces = streamer(question.question)
            try:
                async for piece in pieces:
                    yield ServerSentEvent(event="piece", data={"text": piece})
                yield ServerSentEvent(event="done", data={})
            except Exception:
                logging.exception("broken off")
                yield ServerSentEvent(event="error", data={"detail": "broken off"})
            finally:
                with anyio.CancelScope(shield=True):
                    await pieces.aclose()

        return router

    verdict = check.stream_router.run(stream_router)
    assert verdict.status == "passed", verdict


def test_a_reader_who_leaves_a_real_server_frees_the_slot() -> None:
    """What the trial plays is what uvicorn does."""
    closed: list[str] = []

    def router(shield: bool) -> APIRouter:
        router = APIRouter()

        async def events() -> Any:
            try:
                yield "event: piece\ndata: {}\n\n"
                await asyncio.sleep(60)
            except Exception:
                closed.append("careless")
            finally:
                closed.append("begun")
                with anyio.CancelScope(shield=shield):
                    await asyncio.sleep(0.01)
                    closed.append("ended")

        router.post("/ask/stream")(lambda: StreamingResponse(events(), media_type="text/event-stream"))
        return router

    for shield in (False, True):
        with serving(web.with_router(router(shield))) as url, httpx.stream("POST", f"{url}/ask/stream") as response:
            next(response.iter_lines())
    deadline = time.monotonic() + 5
    while "ended" not in closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert closed == ["begun", "begun", "ended"]


@pytest.mark.usefixtures("undiagnosed")
def test_the_side_that_serves_an_app_says_neither_who_asks_nor_what_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who rewrites it cannot claim pieces that no reader got, and knows clients by number."""
    names: set[str] = set()
    expect, ask = web.Server._expect, web.Server._ask

    def claiming(self: web.Server, call: int, go_on: Any) -> None:
        for name in self.clients:
            self.tell("body", name, b": something was sent\n\n")
        expect(self, call, go_on)

    def asked(self: web.Server, name: str, *request: Any) -> None:
        names.add(name)
        ask(self, name, *request)

    monkeypatch.setattr(web.Server, "_expect", claiming)
    monkeypatch.setattr(web.Server, "_ask", asked)
    [collecting] = [wrong for wrong in check.stream_router.misconceptions if wrong.name == "collects_first"]
    assert "at_once" in failed(check.stream_router.run(collecting.build()))
    check.gate.run(honest.gate)
    assert {"0", "1"} <= names <= set(map(str, range(100)))


def test_the_page_reads_what_the_router_sends() -> None:
    notebook = nbformat.read(course().unit("service").solution("en"), as_version=4)
    [page] = [cell.source for cell in notebook.cells if cell.cell_type == "code" and "PAGE = " in cell.source]
    namespace: dict[str, Any] = {}
    exec(page.split('"""')[0] + '"""' + page.split('"""')[1] + '"""', namespace)
    assert 'split("\\n\\n")' in namespace["PAGE"]
    assert set(re.findall(r'if \(name === "(\w+)"', namespace["PAGE"])) == {"piece", "error"}
    assert "innerHTML" not in namespace["PAGE"]


@pytest.mark.long
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_demonstration_runs_with_the_embedded_gpt(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = demonstrated("service", language, tmp_path, monkeypatch)
    assert len(shown.figures) == 5
    assert shown.figures[0].startswith("Von links") == (language == "de")
    assert "[401, 200, 200, 200, 200, 200, 429, 429]" in shown.printed
    assert json.loads(re.findall(r'\{"type":"about:blank","title":"Too Many.*\}', shown.printed)[0])["status"] == 429
