"""The checks of `service`: an answerer becomes an API. Apps are driven in raw ASGI, step by step (stage.py)."""

import json
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from kicourse.answers.handle import unobserved
from kicourse.checks import Check, Failed, Handle, Trial, _, chats
from kicourse.checks.show import show
from kicourse.checks.stage import NOTHING, Entry, Play, Reply, Stage, Step, as_json

if TYPE_CHECKING:
    import numpy as np

Headers = list[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")
_NO_MEDIA_TYPE = _("none at all")
_ODD = "Rohr ø 40 mm undicht 🛠️, Größe? \u200bDanke\u2028"


# ---------------------------------------------------------------- how an app is tried


def _get(name: str, path: str, *headers: tuple[bytes, bytes]) -> Step:
    return ["ask", name, "GET", path, list(headers), b""]


def _post(name: str, path: str, body: Any = b"") -> Step:
    content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return ["ask", name, "POST", path, [_JSON], content]


def _play(
    trial: Trial,
    app: Handle,
    backend: Handle | None,
    steps: list[Step],
    script: Iterable[Entry] | Callable[[str], Entry] = (),
    patience: float = 5.0,
) -> Play:
    """Let the app play these steps and return what happened. Fails if the app does not start.

    `script` says what comes of each call of what stands behind the app: in their order, or by what is asked.
    """
    stage = Stage(steps, script if callable(script) else _in_order(script))
    play = stage.play(app, backend, patience)
    trial.require(
        stage.makes_sense,
        _(
            "Your app sends what no client understands, or more than 16 MB. Send one response for "
            "each request, with FastAPI's or Starlette's classes."
        ),
    )
    trial.observe(play.behaviour())
    for name, *error in play.of("raised"):
        if name == "startup":
            message = _("Your app fails when a server starts it: {error}. It gets a scope of the type `lifespan` then.")
            raise Failed(trial.text(message, error=": ".join(error)))
    for outcome, error in play.of("startup"):
        trial.require(outcome == "complete", _("Your app refuses to start: {error}"), error=error)
    return play


def _in_order(entries: Iterable[Entry]) -> Callable[[str], Entry]:
    """Return a script in which each call gets the next entry, and a call too many gets nothing."""
    left = iter(entries)
    return lambda _question: next(left, NOTHING)


def _require_kind(trial: Trial, made: Handle, wanted: str, kinds: tuple[str, ...] = ("callable", "router")) -> Handle:
    """Fail unless what the answer made can be what is `wanted`; return it."""
    kind = made.probe("web", "kind")
    message = _("You returned {found}, not {wanted}.")
    trial.require(kind in kinds, message, expected=wanted, found=kind, wanted=wanted)
    return made


def _require_status(trial: Trial, reply: Reply, status: int, sent: str) -> None:
    if reply.status == status:
        return
    if not reply.status and reply.returned:
        message = _("{sent}: the call returned, and nothing was sent. A response is an app: `await response(scope, "
                    "receive, send)` sends it.")  # fmt: skip
    elif not reply.status:
        message = _("{sent}: there is no answer at all, neither now nor later.")
    else:
        message = _("{sent}: that is answered with {reply}.")
    got = str(reply.status) if reply.status else ""
    raise Failed(trial.text(message, sent=sent, reply=str(reply)), str(status), got)


def _require_problem(trial: Trial, reply: Reply, status: int, sent: str) -> dict[str, Any]:
    """Fail unless a reply is an error as problem details; return them."""
    _require_status(trial, reply, status, sent)
    wanted = "application/problem+json"
    message = _("{sent}: the error does not come as problem details. Its media type: {found}")
    found = reply.media_type or trial.text(_NO_MEDIA_TYPE)
    trial.require(reply.media_type == wanted, message, expected=wanted, sent=sent, found=found)
    data = reply.json()
    message = _("{sent}: problem details have at least `type`, `title`, `status` and `detail`. Yours: {reply}")
    whole = isinstance(data, dict) and {"type", "title", "status", "detail"} <= set(data)
    trial.require(whole, message, sent=sent, reply=str(reply))
    message = _("{sent}: the `detail` has to be a text. Yours: {reply}")
    said = isinstance(data["detail"], str) and data["detail"].strip()
    trial.require(said, message, sent=sent, reply=str(reply))
    message = _("{sent}: the field `status` has to be the response's own status.")
    trial.require(data["status"] == status, message, expected=str(status), sent=sent)
    return dict(data)


# ---------------------------------------------------------------- create_app

create_app = Check(
    "service",
    "create_app",
    title=_("An answerer becomes an app"),
    hints=(
        _("Two kinds of endpoints, several kinds of errors: which function may wait for seconds, and who writes the "
          "answer when something goes wrong?"),
        _("FastAPI runs a plain `def` in a thread and an `async def` in the event loop. And there are three errors to "
          "handle with `@app.exception_handler(...)`: Starlette's `HTTPException`, `RequestValidationError`, and "
          "`Exception` for all the rest."),
        _("`def ask(question: Question) -> Answer: return answerer(question.question)`. The handlers return `problem("
          "error.status_code, error.detail, error.headers)`, `problem(422, ...)` from `loc` and `msg` of each of "
          "`error.errors()`, and `problem(500, ...)` with a sentence of your own."),
    ),
)  # fmt: skip


def _asked(question: Any) -> str:
    return f"POST /ask {chats.short(json.dumps({'question': question}, ensure_ascii=False), 80)}"


def _error_kind(rng: "np.random.Generator") -> str:
    """Return the name of a class of errors that no answer can have thought of: only `except Exception` catches it."""
    return f"{rng.choice(['Line', 'Model', 'Socket', 'Store'])}Lost{rng.integers(10, 100)}"


def _answer_entry(rng: "np.random.Generator") -> Entry:
    return {"text": chats.sentence(rng), "sources": [chats.sentence(rng, words=2) for _number in range(2)]}


def _made(trial: Trial, answer: Handle) -> tuple[Handle, Handle]:
    """Let the answer make its app around an answerer; return both."""
    answerer = answer.build("web", "answerer")
    return _require_kind(trial, answer.make(answerer), "FastAPI"), answerer


@create_app.criterion(
    _("answers a question"),
    points=0.5,
    why=_("This is what the service is for. A front end is written against exactly these fields."),
)
def answers(trial: Trial, answer: Handle) -> None:
    questions = [chats.sentence(trial.rng), _ODD + chats.sentence(trial.rng), "ö" * 500, "?"]
    script = [_answer_entry(trial.rng) for _question in questions]
    app, answerer = _made(trial, answer)
    steps = [_post(str(number), "/ask", {"question": question}) for number, question in enumerate(questions)]
    play = _play(trial, app, answerer, steps, script)
    for number, (question, entry) in enumerate(zip(questions, script, strict=True)):
        reply, sent = play.reply(str(number)), _asked(question)
        _require_status(trial, reply, 200, sent)
        message = _("{sent}: the answer is {reply}.")
        trial.require(reply.json() == entry, message, expected=entry, sent=sent, reply=str(reply))
    message = _("The answerer was not called exactly once for each question, with its text as it was sent.")
    trial.require(play.of("called") == [[question] for question in questions], message, expected=questions)


@create_app.criterion(
    _("says that it is healthy, also while an answer is on its way"),
    points=0.5,
    why=_("Whoever runs your service asks /healthz every few seconds. If it is silent while the model writes, the "
          "service is taken for dead and restarted, in the middle of the answer; and no other customer is served "
          "in the meantime."),
)  # fmt: skip
def healthy_while_busy(trial: Trial, answer: Handle) -> None:
    script = [_answer_entry(trial.rng) | {"held": True}]
    app, answerer = _made(trial, answer)
    question = chats.sentence(trial.rng)
    steps = [_get("idle", "/healthz"), _post("question", "/ask", {"question": question}), _get("busy", "/healthz")]
    play = _play(trial, app, answerer, [*steps, ["go"]], script)
    message = _("Your answerer runs in the event loop. Until it returns, your app can do nothing else: no /healthz, no "
                "other customer.")  # fmt: skip
    trial.require(not play.of("blocks the loop"), message, expected="200 {'status': 'ok'}")
    for name, sent in (("idle", "GET /healthz"), ("busy", _("GET /healthz, while the answerer is at work"))):
        reply = play.before_step(3).reply(name)
        _require_status(trial, reply, 200, trial.text(sent))
        message = _("{sent}: that is answered with {reply}.")
        wanted = {"status": "ok"}
        trial.require(reply.json() == wanted, message, expected=wanted, sent=trial.text(sent), reply=str(reply))
    _require_status(trial, play.reply("question"), 200, _asked(question))


def _invalid(rng: "np.random.Generator") -> list[Any]:
    """Return bodies that are no question."""
    values = ("", "x" * 501, int(rng.integers(100)), None, [chats.sentence(rng)])
    more = {"question": chats.sentence(rng), "model": "large"}
    return [{}, *({"question": value} for value in values), more, [chats.sentence(rng)], b'{"question": "', b""]


@create_app.criterion(
    _("refuses what is no question"),
    points=0.5,
    why=_("A client has to be able to tell its own mistake from yours, in one form for all errors; and a request that "
          "makes no sense must not cost a call of the model."),
)  # fmt: skip
def refuses_invalid(trial: Trial, answer: Handle) -> None:
    bodies = _invalid(trial.rng)
    app, answerer = _made(trial, answer)
    play = _play(trial, app, answerer, [_post(str(number), "/ask", body) for number, body in enumerate(bodies)])
    for number, body in enumerate(bodies):
        _require_problem(trial, play.reply(str(number)), 422, f"POST /ask {chats.short(str(body), 60)}")
    trial.require(not play.of("called"), _("The answerer was called for a request that is no question."))


@create_app.criterion(
    _("says which field is wrong, without repeating what was sent"),
    points=0.25,
    why=_("Error messages end up in log files, in screenshots and in tickets. What a customer wrote has no business "
          "there; which field was wrong is all that a developer needs."),
)  # fmt: skip
def no_echo(trial: Trial, answer: Handle) -> None:
    one, other, deep, more, broken = (f"secret{trial.rng.integers(10**9, 10**10)}" for _number in range(5))
    extra = f"{trial.rng.choice(['model', 'language', 'user'])}_{trial.rng.integers(10, 100)}"
    sent: list[tuple[Any, str, str]] = [  # a body, what must not be repeated of it, and which field is wrong
        ({"question": one * 40}, one, "question"),
        ({"question": [other]}, other, "question"),
        ({"question": {"deep": deep}}, deep, "question"),
        ({extra: more, "question": more}, more, extra),
        (f'{{"question": "{broken}'.encode(), broken, ""),
    ]
    app, answerer = _made(trial, answer)
    play = _play(trial, app, answerer, [_post(str(n), "/ask", body) for n, (body, _secret, _field) in enumerate(sent)])
    replies = [play.reply(str(number)) for number in range(len(sent))]
    trial.observe(
        [[secret in reply.text, field in reply.text] for (_, secret, field), reply in zip(sent, replies, strict=True)]
    )
    for (body, secret, field), reply in zip(sent, replies, strict=True):
        request = f"POST /ask {chats.short(str(body), 60)}"
        if not 400 <= reply.status < 500:
            _require_status(trial, reply, 422, request)
        message = _("{sent}: the answer repeats what was sent: {reply}")
        trial.require(secret not in reply.text, message, sent=request, reply=str(reply))
        message = _("{sent}: the answer does not name the field `{field}`: {reply}")
        trial.require(field in reply.text, message, sent=request, field=field, reply=str(reply))


@create_app.criterion(
    _("reports a failure of its own without details"),
    points=0.5,
    why=_("The text of an exception tells strangers about your files, libraries and addresses, and sometimes a key. It "
          "belongs into your log; the customer learns that it was not their fault."),
)  # fmt: skip
def failure(trial: Trial, answer: Handle) -> None:
    secret = f"sk-{trial.rng.integers(10**9, 10**10)}"
    app, answerer = _made(trial, answer)
    question = f" {chats.sentence(trial.rng)} "
    # The same question again and again: each is one of its own.
    entries = {"third": _answer_entry(trial.rng), "fourth": _answer_entry(trial.rng)}
    steps = [_post(name, "/ask", {"question": question}) for name in ("first", "second", *entries)]
    error = {"error": f"no connection with key {secret}"}
    unheard_of = error | {"kind": _error_kind(trial.rng)}
    play = _play(trial, app, answerer, steps, [error, unheard_of, *entries.values()])
    failing = answer.make(answerer, [answer.build("web", "guard", 200, {}, unheard_of)])
    guarded = _play(trial, failing, answerer, steps[:1])
    replies = [(_("POST /ask, and the answerer raises an error"), play.reply(name)) for name in ("first", "second")]
    if not guarded.of("called"):  # who asks no guard has another criterion to fail
        replies.append((_("POST /ask, and a guard raises an error that is no HTTPException"), guarded.reply("first")))
    for tried, reply in replies:
        sent = trial.text(tried)
        marks = secret, "no connection", "RuntimeError", unheard_of["kind"], "Traceback"
        told = [mark for mark in marks if mark in reply.text]
        trial.observe(told)
        _require_problem(trial, reply, 500, sent)
        message = _("{sent}: the answer tells strangers {told}.")
        trial.require(not told, message, sent=sent, told=", ".join(map(repr, told)))
    sent = trial.text(_("POST /ask, after an error"))
    for name, entry in entries.items():
        reply = play.reply(name)
        _require_status(trial, reply, 200, sent)
        message = _("{sent}: the answer is {reply}.")
        trial.require(reply.json() == entry, message, expected=entry, sent=sent, reply=str(reply))
    message = _("The answerer was not called exactly once for each question, with its text as it was sent.")
    trial.require(play.of("called") == [[question]] * 4, message, expected=[question] * 4)


@create_app.criterion(
    _("asks the guards, and reports their refusals and the framework's in the same form"),
    points=0.25,
    why=_("A guard that nobody asks guards nothing. And whoever reads one form of errors should find no second one; "
          "the headers belong to the message: `Allow` says what works, `Retry-After` when."),
)  # fmt: skip
def guards_and_framework(trial: Trial, answer: Handle) -> None:
    answerer, script = answer.build("web", "answerer"), [_answer_entry(trial.rng)]
    wait = str(trial.rng.integers(2, 100))
    # The one that refuses stands in the middle: neither the first nor the last is enough.
    guards = [answer.build("web", "guard", *of) for of in ((200, {}), (429, {"Retry-After": wait}), (200, {}))]
    app = answer.make(answerer, guards)
    path = f"/{trial.rng.choice(chats.WORDS[:10])}{trial.rng.integers(100)}"
    steps = [_get("path", path), _get("method", "/ask"), _get("health", "/healthz")]
    steps.append(_post("guarded", "/ask", {"question": chats.sentence(trial.rng)}))
    undecodable = '{"question": "Größe?"}'.encode("latin-1")
    steps.append(_post("undecodable", "/ask", undecodable))
    play = _play(trial, app, answerer, steps, script)
    details = {"guarded": "Not now.", "path": "Not Found", "method": "Method Not Allowed"}
    told = {name: detail in play.reply(name).text for name, detail in details.items()}
    trial.observe(["allow" in play.reply("method").headers, "retry-after" in play.reply("guarded").headers, told])
    sent = trial.text(_("POST /ask, and a guard raises an HTTPException with the status 429"))
    trial.require(not play.of("called"), _("{sent}: the answerer is asked all the same."), expected="429", sent=sent)
    problems = {"guarded": _require_problem(trial, play.reply("guarded"), 429, sent)}
    _require_status(trial, play.reply("health"), 200, trial.text(_("GET /healthz, which no guard should block")))
    problems["path"] = _require_problem(trial, play.reply("path"), 404, f"GET {path}")
    problems["method"] = _require_problem(trial, play.reply("method"), 405, "GET /ask")
    reply = play.reply("undecodable")
    status = reply.status if 400 <= reply.status < 500 else 400
    _require_problem(trial, reply, status, f"POST /ask {undecodable!r}")
    for name, detail in details.items():
        message = _("The error came with the detail `{wanted}`; that of your answer is `{found}`.")
        found = chats.short(problems[name]["detail"], 80)
        trial.require(problems[name]["detail"] == detail, message, expected=detail, wanted=detail, found=found)
    for name, header, wanted in (("guarded", "Retry-After", wait), ("method", "Allow", "POST")):
        found = play.reply(name).headers.get(header.lower(), "-")
        message = _("The error came with the header `{header}: {wanted}`, which your answer does not have.")
        trial.require(found == wanted, message, expected=wanted, header=header, wanted=wanted)


def _problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **changed: Any) -> Any:
    """Return an error as problem details; `changed` are arguments of the response."""
    from http import HTTPStatus

    from fastapi.responses import JSONResponse

    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    wanted: dict[str, Any] = {"status_code": status, "headers": dict(headers or {})}
    wanted["media_type"] = "application/problem+json"
    return JSONResponse(body, **(wanted | changed))


@cache
def _question_model() -> Any:
    from pydantic import ConfigDict, Field, create_model

    question: Any = (str, Field(min_length=1, max_length=500))
    return create_model("Question", __config__=ConfigDict(extra="forbid"), question=question)


def _faults(error: Any) -> str:
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())


def _refused(error: Any) -> Any:
    return _problem(error.status_code, str(error.detail), error.headers)


def _app(
    answerer: Callable[[str], Any],
    *,
    blocking: bool = False,
    invalid: Callable[[Any], Any] | None = lambda error: _problem(422, _faults(error)),
    failed: Callable[[Any], Any] | None = lambda _error: _problem(500, "Something went wrong here."),
    refused: Callable[[Any], Any] | None = _refused,
    unexpected: type[Exception] = Exception,
    frameworks: bool = True,
    guards: Any = (),
    all_guards: Any = (),
) -> Any:
    """Build a right app, apart from what a misconception changes. A handler that is None is left to the framework."""
    from fastapi import FastAPI, HTTPException
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException as AnyHTTPException

    app = FastAPI(dependencies=list(all_guards), openapi_url=None)

    @app.get("/healthz", response_model=None)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    def ask(question: Any) -> Any:
        return answerer(question.question)

    async def ask_in_the_loop(question: Any) -> Any:
        return answerer(question.question)

    endpoint: Any = ask_in_the_loop if blocking else ask
    endpoint.__annotations__ = {"question": _question_model()}
    app.post("/ask", dependencies=list(guards), response_model=None)(endpoint)

    def handle(kind: type[Exception], respond: Callable[[Any], Any] | None) -> None:
        async def handler(_request: Any, error: Any) -> Any:
            return respond(error) if respond else None

        if respond is not None:
            app.add_exception_handler(kind, handler)

    handle(AnyHTTPException if frameworks else HTTPException, refused)
    handle(RequestValidationError, invalid)
    handle(unexpected, failed)
    return app


@create_app.misconception(_("an `async def` endpoint that calls the blocking answerer: nothing else runs meanwhile"))
def blocks_the_loop(answerer: Any, guards: Any = ()) -> Any:
    return _app(answerer, guards=guards, blocking=True)


@create_app.misconception(_("an app that leaves invalid requests to FastAPI, whose answer repeats all that was sent"))
def default_422(answerer: Any, guards: Any = ()) -> Any:
    return _app(answerer, guards=guards, invalid=None)


@create_app.misconception(_("an app that passes on pydantic's errors whole: each holds what was sent, as `input`"))
def echoes_input(answerer: Any, guards: Any = ()) -> Any:
    return _app(answerer, guards=guards, invalid=lambda error: _problem(422, str(error.errors())))


@create_app.misconception(_("an app that does not say which field of an invalid request is wrong"))
def says_nothing(answerer: Any, guards: Any = ()) -> Any:
    return _app(answerer, guards=guards, invalid=lambda _error: _problem(422, "This is not valid."))


@create_app.misconception(_("an app that answers an invalid request with 400"))
def status_400(answerer: Any, guards: Any = ()) -> Any:
    return _app(answerer, guards=guards, invalid=lambda error: _problem(400, _faults(error)))


@create_app.misconception(_("an app without a handler for unexpected errors: they come out as plain text"))
def default_500(answerer: Any, guards: Any = ()) -> Any:
    return _app(answerer, guards=guards, failed=None)


@create_app.misconception(_("a handler for `RuntimeError` alone: all other errors still come out as plain text"))
def only_runtime_errors(answerer: Any, guards: Any = ()) -> Any:
    return _app(answerer, guards=guards, unexpected=RuntimeError)


@create_app.misconception(_("a `try` around the answerer alone: an error of a guard still comes out as plain text"))
def only_answerers_errors(answerer: Any, guards: Any = ()) -> Any:
    from starlette.exceptions import HTTPException

    def caught(question: str) -> Any:
        try:
            return answerer(question)
        except Exception:
            raise HTTPException(500, "Something went wrong here.") from None

    return _app(caught, guards=guards, failed=None)


@create_app.misconception(_("an app that tells the customer the text of the exception"))
def tells_error(answerer: Any, guards: Any = ()) -> Any:
    return _app(answerer, guards=guards, failed=lambda error: _problem(500, str(error)))


@create_app.misconception(_("an app that sends the customer a stack trace"))
def tells_trace(answerer: Any, guards: Any = ()) -> Any:
    import traceback

    return _app(answerer, guards=guards, failed=lambda error: _problem(500, "".join(traceback.format_exception(error))))


@create_app.misconception(_("an error with the status 200: the problem's status stands in the body only"))
def status_200(answerer: Any, guards: Any = ()) -> Any:
    return _app(
        answerer,
        guards=guards,
        failed=lambda _error: _problem(500, "Something went wrong here.", status_code=200),
        invalid=lambda error: _problem(422, _faults(error), status_code=200),
    )


@create_app.misconception(_("problem details sent as `application/json`"))
def plain_json(answerer: Any, guards: Any = ()) -> Any:
    return _app(
        answerer,
        guards=guards,
        failed=lambda _error: _problem(500, "Something went wrong here.", media_type="application/json"),
        invalid=lambda error: _problem(422, _faults(error), media_type="application/json"),
        refused=lambda error: _problem(error.status_code, error.detail, error.headers, media_type="application/json"),
    )


@create_app.misconception(_("a handler for FastAPI's `HTTPException` only: a wrong path or method raises Starlette's"))
def only_fastapis(answerer: Any, guards: Any = ()) -> Any:
    return _app(answerer, guards=guards, frameworks=False)


@create_app.misconception(_("a handler that drops the error's headers"))
def headers_dropped(answerer: Any, guards: Any = ()) -> Any:
    return _app(answerer, guards=guards, refused=lambda error: _problem(error.status_code, str(error.detail)))


@create_app.misconception(_("guards that are never asked"))
def no_guards(answerer: Any, guards: Any = ()) -> Any:
    return _app(answerer)


@create_app.misconception(_("guards for the whole app: the health check is turned away, too"))
def guards_everywhere(answerer: Any, guards: Any = ()) -> Any:
    return _app(answerer, all_guards=guards)


_WORDING = "how it is worded is the author's choice"
create_app.equivalent('app = FastAPI(title="Pump questions")', "app = FastAPI()", reason=_WORDING)
create_app.equivalent('return problem(422, "; ".join(faults))', 'return problem(422, "".join(faults))', reason=_WORDING)


# ---------------------------------------------------------------- stream_router

stream_router = Check(
    "service",
    "stream_router",
    title=_("An answer as it is written"),
    hints=(
        _("An endpoint returns a `StreamingResponse` around an async generator. What does the generator yield for each "
          "piece, and what has to happen however it ends?"),
        _("One event is `event: ...`, a line `data: ...` with JSON, and an empty line. `json.dumps` makes one line of "
          "any text. And `try` / `except Exception` / `finally`, with the shield in the `finally`, is all that is "
          "needed around the loop; a client that leaves ends the generator with `CancelledError`, which only `finally` "
          "sees, and which comes again at every `await` that has no shield."),
        _("`stream = streamer(question.question)`, then `try: async for piece in stream: yield ...; yield done`, "
          "`except Exception: log.exception(...); yield error`, and `finally: with anyio.CancelScope(shield=True): "
          "await stream.aclose()`."),
    ),
)  # fmt: skip

Event = tuple[str, Any]


def _events(body: str) -> Iterator[tuple[str, str]]:
    """Read server-sent events as a browser does: (name, data)."""
    name, data = "message", list[str]()
    lines = body.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for line in lines[:-1]:  # what has no end yet is not there yet
        if not line:
            if data:
                yield name, "\n".join(data)
            name, data = "message", []
            continue
        field, _colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)


class _Streaming:
    """One or more streams through the answer's router, and what came of them."""

    def __init__(self, trial: Trial, answer: Handle, script: list[Entry], *more: Step) -> None:
        self.trial = trial
        streamer = answer.build("web", "streamer")
        router = _require_kind(trial, answer.make(streamer), "APIRouter", ("router",))
        app = router.build("web", "with_router")
        self.questions = [chats.sentence(trial.rng) for _entry in script]
        steps = [_post(str(n), "/ask/stream", {"question": text}) for n, text in enumerate(self.questions)]
        self.play = _play(trial, app, streamer, [*steps, *more], script)
        trial.observe([[self._read(str(number)), self.early(number)] for number in range(len(script))])

    def _read(self, name: str) -> list[list[Any]]:
        """Return the events without what is worded freely."""
        found: list[list[Any]] = []
        for kind, data in _events(self.play.reply(name).text):
            read = as_json(data)
            found.append([kind, read.get("text") if isinstance(read, dict) else "?"])
        return found

    def early(self, number: int = 0) -> list[int]:
        """Return which pieces of a stream were asked for before the one before them was sent."""
        asking = enumerate(self.play.asking(self.questions[number]), 2)
        return [piece for piece, play in asking if piece > 1 + _sent_pieces(play.reply(str(number)))]

    def events(self, number: int = 0) -> list[Event]:
        """Return a stream's events, with their data read as JSON."""
        reply = self.play.reply(str(number))
        sent = f"POST /ask/stream {self.questions[number]}"
        _require_status(self.trial, reply, 200, sent)
        message = _("A browser takes a response for events by its media type. Yours: {found}")
        wanted, given = "text/event-stream", reply.media_type or self.trial.text(_NO_MEDIA_TYPE)
        self.trial.require(reply.media_type == wanted, message, expected=wanted, found=given)
        found = list(_events(reply.text))
        message = _(
            "There is no event in what was sent, as a browser reads it: {body}. An event ends with an empty line."
        )
        self.trial.require(found, message, body=repr(reply.text[:200]))
        for kind, data in found:
            message = _("The data of the event `{kind}` are no JSON object: {data}")
            read = isinstance(as_json(data), dict)
            self.trial.require(read, message, kind=kind, data=repr(data[:200]))
        return [(kind, as_json(data)) for kind, data in found]

    def require_pieces(self, pieces: list[str], number: int = 0) -> None:
        """Fail unless exactly these pieces came."""
        events = self.events(number)
        got = [data.get("text") for kind, data in events if kind == "piece"]
        kinds = ", ".join(dict.fromkeys(kind for kind, _data in events))
        message = _("There is no event with the name `piece`, only these: {kinds}")
        if pieces and not got:
            raise Failed(self.trial.text(message, kinds=kinds) + self.logged(number))
        if got != pieces:
            message = self.trial.text(_("These are not the pieces that the streamer handed out."))
            raise Failed(message + self.logged(number), show(pieces), show(got))

    def closed_in_time(self) -> int:
        """Return how many streams were closed by the time that the app's call was over."""
        notes, count = self.play.notes, 0
        for number, question in enumerate(self.questions):
            over = ["returned", str(number)]
            count += ["closed", question] in (notes[: notes.index(over)] if over in notes else notes)
        return count

    def logged(self, number: int = 0) -> str:
        """Return which error the log tells of for this stream, to go behind a message."""
        before, until = (len(self.play.before_step(step).of("logged")) for step in (number, number + 1))
        lines = [text.strip().rpartition("\n")[2] for _level, text in self.play.of("logged")[before:until]]
        errors = [line for line in lines if "Error" in line]
        return f" ← {chats.short(errors[0], 160)}" if errors else ""


def _sent_pieces(reply: Reply) -> int:
    return sum(kind == "piece" for kind, _data in _events(reply.text))


def _pieces(rng: "np.random.Generator", count: int = 4) -> list[str]:
    """Return pieces of plain text, with the spaces where models have them."""
    return [
        f" {word}{rng.integers(100)}" if place else f"{word}"
        for place, word in enumerate(rng.choice(chats.WORDS, count))
    ]


@stream_router.criterion(
    _("sends every piece as an event"),
    points=0.5,
    why=_("The page in the browser waits for events of this form and shows what is in them."),
)
def sends_pieces(trial: Trial, answer: Handle) -> None:
    pieces = _pieces(trial.rng)
    streaming = _Streaming(trial, answer, [{"pieces": pieces}])
    streaming.require_pieces(pieces)
    message = _("The streamer has to be called once, with the text of the question.")
    trial.require(streaming.play.of("called") == [[streaming.questions[0]]], message, expected=streaming.questions)


@stream_router.criterion(
    _("any text arrives as it was"),
    points=0.5,
    why=_("Models write line breaks, quotation marks and emoji. In an event a line break ends a line and an empty line "
          "ends the event: unless the text is encoded, half of it is lost."),
)  # fmt: skip
def any_text(trial: Trial, answer: Handle) -> None:
    word = chats.sentence(trial.rng, words=1)
    pieces = [
        "1. Close\n2. Drain",
        "\n\n",
        f'"{word}"',
        " ",
        "C:\\pumpe\\neu",
        "\r\n",
        _ODD,
        "data: x\n\nevent: done",
        "{}",
    ]
    _Streaming(trial, answer, [{"pieces": pieces}]).require_pieces(pieces)


@stream_router.criterion(
    _("each piece is sent before the next one is asked for"),
    points=0.5,
    why=_("The first words after a fifth of a second, or all of them after ten: for the reader, this is the whole "
          "difference."),
)  # fmt: skip
def at_once(trial: Trial, answer: Handle) -> None:
    pieces = _pieces(trial.rng, 5)
    streaming = _Streaming(trial, answer, [{"pieces": pieces}])
    early = streaming.early()
    message = _("Piece {number} was asked for before the one before it was sent. Your code collects what it should "
                "pass on.")  # fmt: skip
    trial.require(not early, message, number=early[0] if early else 0)
    streaming.require_pieces(pieces)


@stream_router.criterion(
    _("says how it ended, `done` or `error`, and begins no stream for what is no `Question`"),
    points=0.25,
    why=_("The status 200 has long been sent when a model fails in the middle. Without a last word, the reader takes "
          "half an answer for a whole one; half a sentence may say the opposite of the whole."),
)  # fmt: skip
def says_how_it_ended(trial: Trial, answer: Handle) -> None:
    secret = f"sk-{trial.rng.integers(10**9, 10**10)}"
    pieces = _pieces(trial.rng, 3)
    kind = _error_kind(trial.rng)
    script: list[Entry] = [
        {"pieces": pieces},
        {"pieces": pieces, "error": f"lost {secret}"},
        {"pieces": [], "error": secret, "kind": kind},
    ]
    invalid = [{"question": ""}, {"question": "x" * 501}, {"question": pieces[0], "model": "large"}]
    steps = [_post(f"invalid {number}", "/ask/stream", body) for number, body in enumerate(invalid)]
    streaming = _Streaming(trial, answer, script, *steps)
    marks = secret, "RuntimeError", kind
    trial.observe([[mark in streaming.play.reply(str(number)).text for mark in marks] for number in range(3)])
    for number, wanted in enumerate(("done", "error", "error")):
        expected = [*("piece" for _piece in script[number]["pieces"]), wanted]
        kinds = [kind for kind, _data in streaming.events(number)]
        if number == 0:
            message = _("The streamer hands out its last piece and ends. Your events: {kinds}")
        else:
            message = _("The streamer raises an error. Your events: {kinds}")
        if kinds != expected:
            text = trial.text(message, kinds=", ".join(kinds)) + ("" if number else streaming.logged())
            raise Failed(text, ", ".join(expected))
        last = streaming.events(number)[-1][1]
        if wanted == "done":
            message = _("The data of `done` are an empty JSON object. Yours: {data}")
            trial.require(last == {}, message, expected="{}", data=show(last))
        else:
            message = _("The data of `error` need a `detail`, a text. Yours: {data}")
            said = isinstance(last.get("detail"), str) and last["detail"].strip()
            trial.require(said, message, data=show(last))
            told = [mark for mark in marks if mark in streaming.play.reply(str(number)).text]
            message = _("The event `error` tells the reader about the exception: {told}.")
            trial.require(not told, message, told=", ".join(map(repr, told)))
    logged = any(level >= 30 for level, _text in streaming.play.of("logged"))  # 30: logging.WARNING
    trial.observe(logged)
    message = _("The streamer has raised an error, and nothing about it is in the log. Nobody else will note it.")
    trial.require(logged, message, expected="log.exception(...)")
    for number, body in enumerate(invalid):
        reply, sent = streaming.play.reply(f"invalid {number}"), chats.short(str(body), 60)
        message = _("POST /ask/stream {sent}: that is no `Question`. As long as nothing has been sent, the status can "
                    "say so. It is answered with {reply}.")  # fmt: skip
        trial.require(400 <= reply.status < 500, message, expected="422", sent=sent, reply=str(reply))


def _require_closed(trial: Trial, streaming: _Streaming, message: str, count: int = 1) -> None:
    streaming.events()  # a stream that was never opened needs no end
    trial.require(len(streaming.play.closed()) >= count, message, expected="await pieces.aclose()")
    message = _("The app's call was over, and `aclose()` was not yet: nobody has awaited it.")
    trial.require(streaming.closed_in_time() >= count, message, expected="await pieces.aclose()")


@stream_router.criterion(
    _("frees the model at the end and after an error"),
    points=0.25,
    why=_("The model serves few at a time. A slot that is not given back is lost until the next restart: after a few "
          "errors your service answers nobody."),
)  # fmt: skip
def frees_at_end(trial: Trial, answer: Handle) -> None:
    pieces = _pieces(trial.rng, 3)
    message = _("The stream has handed out its last piece, and `aclose()` was never awaited.")
    _require_closed(trial, _Streaming(trial, answer, [{"pieces": pieces}]), message)
    message = _("The stream has raised an error, and `aclose()` was never awaited.")
    failing: list[Entry] = [{"pieces": pieces, "error": "lost"}, {"pieces": pieces, "error": "lost again"}]
    _require_closed(trial, _Streaming(trial, answer, failing), message, 2)


@stream_router.criterion(
    _("frees the model when the reader goes away"),
    points=0.5,
    why=_("Readers close the page in the middle of an answer, every day. Then nobody reads on, and the model should "
          "not write on: its slot belongs to the next customer."),
)  # fmt: skip
def frees_when_reader_leaves(trial: Trial, answer: Handle) -> None:
    held = int(trial.rng.integers(1, 4))
    pieces = _pieces(trial.rng)
    # The first two end by themselves: so the diagnosis can tell who never closes from who closes sometimes.
    script: list[Entry] = [
        {"pieces": pieces},
        {"pieces": [], "error": "lost"},
        {"pieces": pieces, "held": held},
        {"pieces": pieces, "held": held},
    ]
    streaming = _Streaming(trial, answer, script, ["leave", "2"])
    play, (*_ended, left, other) = streaming.play, streaming.questions
    called = [question for (question,) in play.of("called")]
    message = _("The streamer has to be called once, with the text of the question.")
    trial.require(called == streaming.questions, message)
    begun, closed = [left] in play.of("closing"), left in play.closed() - play.before_step(4).closed()
    message = _("The reader has closed the connection after {count} pieces. Your `aclose()` began, and was cancelled "
                "before its end: it has no shield.")  # fmt: skip
    shield = "with anyio.CancelScope(shield=True):"
    trial.require(closed or not begun, message, expected=shield, count=held)
    message = _("The reader has closed the connection after {count} pieces, while the model was writing the next one; "
                "`aclose()` was never awaited.")  # fmt: skip
    trial.require(closed, message, expected="await pieces.aclose()", count=held)
    message = _(
        "One reader has gone away, and the stream of another one, who still reads, was closed as "
        "well. Close only the stream of the request that has ended."
    )
    trial.require(other not in play.closed(), message)


def _sse(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


_DONE = _sse("done", {})
_FAILED = _sse("error", {"detail": "The answer broke off."})


async def _close(stream: Any, shield: bool = True) -> None:
    import anyio

    with anyio.CancelScope(shield=shield):
        await stream.aclose()


async def _right_events(
    stream: Any,
    event: Callable[[str, Any], str] = _sse,
    *,
    shield: bool = True,
    logged: bool = True,
    caught: type[Exception] = Exception,
) -> AsyncIterator[str]:
    try:
        async for piece in stream:
            yield event("piece", {"text": piece})
        yield event("done", {})
    except caught:
        if logged:
            _warn("an answer broke off")
        yield event("error", {"detail": "The answer broke off."})
    finally:
        await _close(stream, shield)


def _router(streamer: Any, events: Callable[[Any], Any], media_type: str = "text/event-stream") -> Any:
    """Build a router whose stream yields what `events(stream)` makes."""
    from fastapi import APIRouter
    from fastapi.responses import StreamingResponse

    router = APIRouter()

    async def ask_stream(question: Any) -> Any:
        return StreamingResponse(events(streamer(question.question)), media_type=media_type)

    ask_stream.__annotations__ = {"question": _question_model()}
    router.post("/ask/stream", response_model=None)(ask_stream)
    return router


@stream_router.misconception(_("a stream that collects all pieces first and sends them then"))
def collects_first(streamer: Any) -> Any:
    async def events(stream: Any) -> AsyncIterator[str]:
        whole = [event async for event in _right_events(stream)]
        for event in whole:
            yield event

    return _router(streamer, events)


@stream_router.misconception(_("data that are no JSON object in one line: the bare text, for example"))
def bare_text(streamer: Any) -> Any:
    def event(name: str, data: Any) -> str:
        return f"event: {name}\ndata: {data['text']}\n\n" if name == "piece" else _sse(name, data)

    return _router(streamer, lambda stream: _right_events(stream, event))


@stream_router.misconception(
    _("JSON put together by hand: line breaks and quotation marks in the text break the events")
)
def json_by_hand(streamer: Any) -> Any:
    def event(name: str, data: Any) -> str:
        return f'event: {name}\ndata: {{"text": "{data["text"]}"}}\n\n' if name == "piece" else _sse(name, data)

    return _router(streamer, lambda stream: _right_events(stream, event))


@stream_router.misconception(_("events without the empty line at their end: to a browser they are all one"))
def no_empty_line(streamer: Any) -> Any:
    return _router(streamer, lambda stream: _right_events(stream, lambda name, data: _sse(name, data)[:-1]))


@stream_router.misconception(_("events without a name"))
def no_name(streamer: Any) -> Any:
    return _router(streamer, lambda stream: _right_events(stream, lambda _name, data: f"data: {json.dumps(data)}\n\n"))


@stream_router.misconception(_("events sent as plain text or JSON: a browser does not read them as events"))
def wrong_media_type(streamer: Any) -> Any:
    return _router(streamer, _right_events, "text/plain")


@stream_router.misconception(_("an error that nobody is told: the stream just ends"))
def breaks_off(streamer: Any) -> Any:
    async def events(stream: Any) -> AsyncIterator[str]:
        try:
            async for piece in stream:
                yield _sse("piece", {"text": piece})
            yield _DONE
        finally:
            await _close(stream)

    return _router(streamer, events)


@stream_router.misconception(_("an `except RuntimeError`: after any other error the stream just ends"))
def only_runtime_errors_told(streamer: Any) -> Any:
    return _router(streamer, lambda stream: _right_events(stream, caught=RuntimeError))


@stream_router.misconception(
    _("a `done` that comes after an `error`, too: even an answer that broke off is called complete")
)
def done_anyway(streamer: Any) -> Any:
    async def events(stream: Any) -> AsyncIterator[str]:
        try:
            async for piece in stream:
                yield _sse("piece", {"text": piece})
        except Exception:
            _warn("an answer broke off")
            yield _FAILED
        finally:
            await _close(stream)
            yield _DONE

    return _router(streamer, events)


@stream_router.misconception(_("a stream without `done`: the reader cannot tell a whole answer from half of one"))
def no_done(streamer: Any) -> Any:
    async def events(stream: Any) -> AsyncIterator[str]:
        async for event in _right_events(stream):
            if event != _DONE:
                yield event

    return _router(streamer, events)


@stream_router.misconception(_("a stream that tells the reader the text of the exception, in the event `error`"))
def tells_reader(streamer: Any) -> Any:
    async def events(stream: Any) -> AsyncIterator[str]:
        try:
            async for piece in stream:
                yield _sse("piece", {"text": piece})
            yield _DONE
        except Exception as error:
            _warn("an answer broke off")
            yield _sse("error", {"detail": str(error)})
        finally:
            await _close(stream)

    return _router(streamer, events)


@stream_router.misconception(_("a stream that breaks off without a line in the log"))
def logs_no_error(streamer: Any) -> Any:
    return _router(streamer, lambda stream: _right_events(stream, logged=False))


@stream_router.misconception(
    _("an `aclose()` without a shield: Starlette goes on cancelling, and it never gets to its end")
)
def unshielded(streamer: Any) -> Any:
    return _router(streamer, lambda stream: _right_events(stream, shield=False))


@stream_router.misconception(_("a stream that is never closed"))
def never_closed(streamer: Any) -> Any:
    async def events(stream: Any) -> AsyncIterator[str]:
        try:
            async for piece in stream:
                yield _sse("piece", {"text": piece})
            yield _DONE
        except Exception:
            _warn("an answer broke off")
            yield _FAILED

    return _router(streamer, events)


@stream_router.misconception(_("`aclose()` after the loop, without `finally`: it is skipped when something goes wrong"))
def closed_if_all_goes_well(streamer: Any) -> Any:
    async def events(stream: Any) -> AsyncIterator[str]:
        try:
            async for piece in stream:
                yield _sse("piece", {"text": piece})
            await _close(stream)
            yield _DONE
        except Exception:
            _warn("an answer broke off")
            yield _FAILED

    return _router(streamer, events)


@stream_router.misconception(
    _("`aclose()` in or after `except Exception`: a reader who leaves raises `CancelledError`, which is none")
)
def closed_on_exceptions(streamer: Any) -> Any:
    async def events(stream: Any) -> AsyncIterator[str]:
        try:
            async for piece in stream:
                yield _sse("piece", {"text": piece})
            yield _DONE
        except Exception:
            _warn("an answer broke off")
            yield _FAILED
        await _close(stream)

    return _router(streamer, events)


stream_router.equivalent(
    'log.exception("an answer broke off")',
    'log.exception("")',
    reason="the error and its lines are logged all the same",
)


# ---------------------------------------------------------------- require_key

require_key = Check(
    "service",
    "require_key",
    title=_("Who may ask?"),
    hints=(
        _("A dependency either returns something or raises. What can stand in that header, if anything, and what of it "
          "may be written into a log?"),
        _("`request.headers.get(\"Authorization\", \"\")` is never missing. `secrets.compare_digest` takes any bytes, "
          "but of texts only ASCII: so encode both sides."),
        _("`scheme, _, key = header.partition(\" \")`; for each client: `secrets.compare_digest(key.encode(), "
          "known.encode())`; at the end `log.warning(...)` without the key, and `raise HTTPException(401, ..., "
          "headers={\"WWW-Authenticate\": \"Bearer\"})`."),
    ),
)  # fmt: skip


def _keys(rng: "np.random.Generator") -> dict[str, str]:
    """Return clients and their keys."""
    letters, digits = list("ghkmnpqrtwGHKMNPQRTW"), list("0123456789")  # no part of it is a word, a hash or a time
    pairs = {
        name: [rng.choice(letters) + rng.choice(digits) for _pair in range(12)] for name in ("desk", "app", "plant")
    }
    return {f"{name}-{rng.integers(100)}": "hp_" + "".join(chosen) for name, chosen in pairs.items()}


def _authorization(value: str | bytes) -> tuple[bytes, bytes]:
    return b"authorization", value if isinstance(value, bytes) else value.encode("latin-1")


class _Knocking:
    """Requests with different headers at a door that the answer guards."""

    def __init__(self, trial: Trial, answer: Handle, keys: dict[str, str], values: list[Any]) -> None:
        self.trial = trial
        guard = _require_kind(trial, answer.make(dict(keys)), "function")
        app = guard.build("web", "guarded")
        steps = [_get(str(n), "/whoami", *([] if value is None else [_authorization(value)]))
                 for n, value in enumerate(values)]  # fmt: skip
        self.play = _play(trial, app, None, steps)
        self.said = [_header(value) for value in values]
        self.replies = [self.play.reply(str(number)) for number in range(len(values))]
        trial.observe([[reply.json().get("client") if isinstance(reply.json(), dict) else None,
                        reply.headers.get("www-authenticate", "")] for reply in self.replies])  # fmt: skip

    def require_known(self, names: list[str], message: str) -> None:
        """Fail unless they are the clients with these names."""
        for said, reply, name in zip(self.said, self.replies, names, strict=True):
            known = reply.status == 200 and reply.json() == {"client": name}
            if reply.status == 422:
                message = _("{said}: FastAPI takes the parameter of your dependency for a part of the query. Annotate "
                            "it as `request: Request`. The answer: {reply}")  # fmt: skip
            self.trial.require(known, message, expected=name, said=said, name=name, reply=str(reply))

    def require_refused(self) -> None:
        """Fail unless each of them is refused as one should."""
        for said, reply in zip(self.said, self.replies, strict=True):
            message = _("{said}: that is answered with {reply}.")
            self.trial.require(reply.status == 401, message, expected="401", said=said, reply=str(reply))
            challenge = reply.headers.get("www-authenticate", "")
            message = _("{said}: the answer has no header `WWW-Authenticate: Bearer`, which says how to prove oneself.")
            self.trial.require(challenge.lower().startswith("bearer"), message, expected="Bearer", said=said)


def _header(value: str | bytes | None) -> str:
    return "GET /whoami" if value is None else f"GET /whoami, Authorization: {value!r}"


@require_key.criterion(
    _("lets each client in with its key, and knows which one it is"),
    why=_("The name is what limits, bills and logs are kept by."),
)
def lets_in(trial: Trial, answer: Handle) -> None:
    keys = _keys(trial.rng)
    knocking = _Knocking(trial, answer, keys, [f"Bearer {key}" for key in keys.values()])
    knocking.require_known(list(keys), _("{said}: that is the key of {name}, and it is answered with {reply}."))


_SCHEMES = ("Bearer", "bearer", "BEARER")


@require_key.criterion(
    _("takes the scheme in upper or lower case"),
    points=0.25,
    why=_("HTTP says so, and some clients write `bearer`. Whoever is refused for that searches for the mistake in the "
          "key."),
)  # fmt: skip
def any_case(trial: Trial, answer: Handle) -> None:
    keys = _keys(trial.rng)
    knocking = _Knocking(trial, answer, keys, [f"{scheme} {next(iter(keys.values()))}" for scheme in _SCHEMES])
    message = _("{said}: the case of the scheme does not matter, and that is the key of {name}. It is answered with "
                "{reply}.")  # fmt: skip
    knocking.require_known([next(iter(keys))] * len(_SCHEMES), message)


def _wrong(keys: dict[str, str]) -> list[str | None]:
    """Return what is nobody's key."""
    (name, key), *_rest = keys.items()
    turned = f"{key[:10]}{key[11]}{key[10]}{key[12:]}"  # the same characters, two of them in each other's place
    return [None, "", "Bearer", "Bearer ", f"Bearer {turned}", f"Bearer {key[:12]}!{key[13:]}", f"Bearer {key[:-1]}",
            f"Bearer {key}x", f"Bearer {key.swapcase()}", f"Bearer {name}", key, f"Basic {key}", f"Bearer {key[::-1]}",
            f"Bearer {key}!", f"Bearerfoo {key}", f"Bearerfoo x {key}", f"Bearer x {key}",
            f"Bearer {key} x"]  # fmt: skip


@require_key.criterion(
    _("refuses everybody else with 401"),
    points=0.5,
    why=_("401 says: I do not know who you are, and here is how to tell me. A 500 says: strangers can break me."),
)
def refuses(trial: Trial, answer: Handle) -> None:
    keys = _keys(trial.rng)
    _Knocking(trial, answer, keys, _wrong(keys)).require_refused()


@require_key.criterion(
    _("refuses a key that is not ASCII, too"),
    points=0.25,
    why=_("A header may hold any bytes. An error here is a way for strangers to fill your log with stack traces."),
)
def refuses_any_bytes(trial: Trial, answer: Handle) -> None:
    keys = _keys(trial.rng)
    word = str(trial.rng.choice(["Schlüssel", "clé", "🔑", "Größe"]))
    wrong = [f"Bearer {word}".encode(), b"Bearer \xff\xfe", "Bearer Schlüssel".encode("latin-1"), "Schlüssel".encode()]
    knocking = _Knocking(trial, answer, keys, wrong)
    for said, reply in zip(knocking.said, knocking.replies, strict=True):
        message = _("{said}: that is answered with {reply}.")
        trial.require(400 <= reply.status < 500, message, expected="401", said=said, reply=str(reply))


class _Slip:
    """No key, one with a slip, the right one: what is logged and answered, and what of that holds a part of them."""

    def __init__(self, trial: Trial, answer: Handle) -> None:
        keys = _keys(trial.rng)
        (_name, key), *_rest = keys.items()
        slip = key[:-1] + "!"
        knocking = _Knocking(trial, answer, keys, [None, f"Bearer {slip}", f"Bearer {key}"])
        parts = {sent[place : place + 4] for sent in (slip, key) for place in range(len(sent) - 3)}
        # Of its ends three are too many: these few are not in a log by accident.
        parts |= {part for sent in (slip, key) for part in (sent.removeprefix("hp_")[:3], sent[-3:])}
        warnings = [
            sum(level >= 30 for level, _text in knocking.play.before_step(step).of("logged"))  # 30: logging.WARNING
            for step in (0, 1, 2)
        ]
        warned_of_none, self.warned = (after > before for before, after in pairwise(warnings))
        failed = knocking.replies[0].status >= 500  # who breaks without a key has another criterion to fail
        self.warned_of_none = warned_of_none or failed
        texts = [text for _level, text in knocking.play.of("logged")]
        self.logged, self.told = (
            [text for text in found if any(part in text for part in parts)]
            for found in (texts, [knocking.replies[1].text])
        )
        whole = [sum(slip in text or key in text for text in found) for found in (self.logged, self.told)]
        begun = sum(key[:4] in text for text in self.logged)
        trial.observe([self.warned, self.warned_of_none, *whole, begun, len(self.logged), len(self.told)])


@require_key.criterion(
    _("notes the refusal in the log, and repeats no part of the key there"),
    points=0,  # what is logged shows on the answer's side alone: so it opens the way to points, and earns none
    gate=True,
    why=_("Many refusals are a sign of an attack, so somebody has to see them. But a wrong key is often a right one "
          "with a slip, or of another service; logs are read, copied and kept by many."),
)  # fmt: skip
def logs_without_key(trial: Trial, answer: Handle) -> None:
    slip = _Slip(trial, answer)
    message = _("A key was refused, and nothing was logged as a warning.")
    trial.require(slip.warned, message, expected="log.warning(...)")
    message = _("A request without a key was refused, and nothing was logged as a warning.")
    trial.require(slip.warned_of_none, message, expected="log.warning(...)")
    message = _("The key, or a part of it, stands in the log: {found}")
    trial.require(not slip.logged, message, found=chats.short("".join(slip.logged[:1]), 160))


@require_key.criterion(
    _("repeats no part of the key in its answer"),
    points=0.25,
    why=_("Answers end up in the logs of others, in screenshots and in tickets."),
)
def answers_without_key(trial: Trial, answer: Handle) -> None:
    slip = _Slip(trial, answer)
    message = _("The refusal repeats the key that was sent, or a part of it: {found}")
    trial.require(not slip.told, message, found=chats.short("".join(slip.told), 160))


def _door(
    keys: dict[str, str],
    *,
    header: Callable[[Any], str] = lambda request: request.headers.get("Authorization", ""),
    same: Callable[[str, str], bool] = lambda key, known: key.encode() == known.encode(),
    bearer: bool = True,
    who: Callable[[str, str], str] = lambda client, _key: client,
    logged: Callable[[str, str], None] = lambda _header, _key: _warn("refused"),
    status: int = 401,
    headers: Mapping[str, str] | None = None,
    scheme_of: Callable[[str], str] = str.lower,
    detail: Callable[[str], str] = lambda _key: "Give a valid key.",
) -> Any:
    """Build a right dependency, apart from what a misconception changes."""
    from fastapi import HTTPException, Request

    challenge = {"WWW-Authenticate": "Bearer"} if headers is None else dict(headers)

    async def client_of(request: Request) -> str:
        value = header(request)
        scheme, _space, key = value.partition(" ")
        for client, known in keys.items():
            if (scheme_of(scheme) in ("bearer", "Bearer") or not bearer) and same(key, known):
                return who(client, known)
        logged(value, key)
        raise HTTPException(status, detail(key), headers=challenge)

    return client_of


def _warn(message: str, *args: Any) -> None:
    import logging

    logging.getLogger("service").warning(message, *args)


@require_key.misconception(_("`compare_digest` on texts: it raises `TypeError` for what is not ASCII"))
def compares_texts(keys: dict[str, str]) -> Any:
    import secrets

    return _door(keys, same=secrets.compare_digest)


@require_key.misconception(_("a header that is taken for granted: without it, `KeyError` and status 500"))
def header_required(keys: dict[str, str]) -> Any:
    return _door(keys, header=lambda request: str(request.headers["Authorization"]))


@require_key.misconception(_("a key that only has to begin rightly"))
def begins_rightly(keys: dict[str, str]) -> Any:
    return _door(keys, same=lambda key, known: known.startswith(key))


@require_key.misconception(_("a guard that compares the scheme as it is written: only `Bearer` is let in"))
def scheme_as_written(keys: dict[str, str]) -> Any:
    return _door(keys, scheme_of=lambda scheme: scheme if scheme == "Bearer" else "")


@require_key.misconception(_("a guard that takes any scheme: the word before the key is not looked at"))
def any_scheme(keys: dict[str, str]) -> Any:
    return _door(keys, bearer=False)


@require_key.misconception(_("a guard that writes the beginning of the key into the log"))
def logs_beginning(keys: dict[str, str]) -> Any:
    return _door(keys, logged=lambda _header, key: _warn("wrong key: %s...", key[:8]))


@require_key.misconception(_("a guard that repeats the wrong key in its answer"))
def tells_key(keys: dict[str, str]) -> Any:
    return _door(keys, detail=lambda key: f"{key} is no valid key.")


@require_key.misconception(_("a guard that writes the key into the log"))
def logs_key(keys: dict[str, str]) -> Any:
    return _door(keys, logged=lambda _header, key: _warn("wrong key: %s", key))


@require_key.misconception(_("a guard that notes no refusal in the log"))
def logs_nothing(keys: dict[str, str]) -> Any:
    return _door(keys, logged=lambda _header, _key: None)


@require_key.misconception(_("a guard that answers 403, which would mean `I know who you are, and you may not`"))
def forbidden(keys: dict[str, str]) -> Any:
    return _door(keys, status=403)


@require_key.misconception(_("a 401 without `WWW-Authenticate`, which belongs to it"))
def no_challenge(keys: dict[str, str]) -> Any:
    return _door(keys, headers={})


@require_key.misconception(_("a guard that returns the key instead of the client's name"))
def returns_key(keys: dict[str, str]) -> Any:
    return _door(keys, who=lambda _client, key: key)


require_key.equivalent(
    "if secrets.compare_digest(key.encode(), known.encode()):",
    "if secrets.compare_digest(known.encode(), key.encode()):",
    reason="it does not matter which of the two comes first",
)


# ---------------------------------------------------------------- token_bucket

token_bucket = Check(
    "service",
    "token_bucket",
    title=_("Not so fast"),
    hints=(
        _("Nothing has to run in the background. What do you have to remember of a client to know, when it comes "
          "again, how many tokens it has by then?"),
        _("Remember two numbers for each client: tokens, and when you last looked. First work out what has trickled in "
          "since, as a float; then decide; then write both back, also if you refuse."),
        _("First `min(capacity, tokens + elapsed * rate)`. Is a whole token there, take it and return 0; otherwise "
          "return `math.ceil((1 - tokens) / rate)`. New clients begin with `capacity` tokens."),
    ),
)  # fmt: skip


class _Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, rng: "np.random.Generator") -> None:
        self.now = float(rng.integers(1000, 9000)) + 0.125  # between two seconds, as clocks are

    def __call__(self) -> float:
        return self.now


class _Bucket:
    """A bucket of the answer's, and the times at which it is asked. All times are exact as floats."""

    def __init__(self, trial: Trial, answer: Handle, rate: float, capacity: int, start: float | None = None) -> None:
        self.trial, self.rate, self.capacity = trial, rate, capacity
        self.clock = _Clock(trial.rng)
        if start is not None:
            self.clock.now = start
        self.start = self.clock.now
        self.bucket = answer.make(rate, capacity, unobserved(self.clock))
        self.told: list[str] = []
        self.failures: list[Failed] = []

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds

    def admit(self, client: str, message: str) -> None:
        """Let a client come who should get a token; note it if it is refused."""
        got = self._take(client)
        self._note(client, got == 0, message, "0", got)

    def refuse(self, client: str, message: str) -> None:
        """Let a client come who should be refused, with whatever waiting time; note it if it gets a token."""
        got = self._take(client)
        self._note(client, got > 0, message, self.trial.text(_("more than 0")), got)

    def wait_is(self, seconds: int, client: str, message: str) -> None:
        """Let a client come who should be told to wait so long; note it if it is told anything else."""
        got = self._take(client)
        if type(got) is float and got == seconds:
            message = _("The waiting time is right, but it has to be an `int`.")
        self._note(client, type(got) is int and got == seconds, message, show(seconds), got)

    def _take(self, client: str) -> Any:
        got = self.bucket.attribute("take")(client)
        if type(got) is not float:
            self.trial.is_a(got, int)
        self.told.append(f"{self.clock.now - self.start:g} s {client}: {got}")
        return got

    def _note(self, client: str, ok: bool, message: str, wanted: str, got: Any) -> None:
        if not ok:
            history = _("Rate {rate} a second, capacity {capacity}; time, client, what `take` said: {said}")
            values = {"rate": self.rate, "capacity": self.capacity, "said": "; ".join(self.told[-8:])}
            text = f"{self.trial.text(message)} {self.trial.text(history, **values)}"
            self.failures.append(Failed(text, wanted, show(got), f"TokenBucket.take({client!r})"))

    def empty(self, client: str) -> None:
        """Let a client take all that is there."""
        for _number in range(self.capacity):
            self.admit(client, _FULL)

    def require(self) -> None:
        """Fail with the first thing that was noted. All is asked before, so that mistakes can be told apart."""
        if self.failures:
            raise self.failures[0]


_FULL = _("A new client has a full bucket.")
_EMPTY = _("The bucket is empty.")


def _rate(rng: "np.random.Generator") -> float:
    return float(rng.choice([0.125, 0.25, 0.5]))  # slow, so that a wait cut to whole seconds is not 0, which means yes


@token_bucket.criterion(
    _("lets a burst through, and no more"),
    points=0.25,
    why=_("People come in bursts: a page that opens asks three things at once. The capacity says how many are fine."),
)
def burst(trial: Trial, answer: Handle) -> None:
    for rate, capacity, start in ((1.0, int(trial.rng.integers(3, 7)), 0.0), (0.5, 1, None)):
        bucket = _Bucket(trial, answer, rate, capacity, start)  # at 0, who takes 0 for "long ago" begins empty
        client = chats.sentence(trial.rng, words=1)
        bucket.empty(client)
        bucket.refuse(client, _EMPTY)
        bucket.wait(2 / rate)
        bucket.admit(client, _("In the meantime there is a token again."))
        bucket.require()


@token_bucket.criterion(
    _("refills steadily, also by parts of a token"),
    points=0.5,
    why=_("Whoever comes often must not lose what has trickled in since: with whole tokens only, a client that asks "
          "twice a second never gets a token again."),
)  # fmt: skip
def refills(trial: Trial, answer: Handle) -> None:
    for rate in (0.125, 0.25):
        bucket, client = _Bucket(trial, answer, rate, int(trial.rng.integers(2, 5))), chats.sentence(trial.rng, words=1)
        bucket.empty(client)
        whole = 1 / rate
        for _round in range(2):
            for _part in range(4):  # refused four times on the way to a token; that costs nothing
                bucket.refuse(client, _("There is not a whole token yet."))
                bucket.wait(whole / 4)
            bucket.admit(client, _("Since the last token was taken, a whole one has trickled in."))
        bucket.wait(1.5 * whole)
        bucket.admit(client, _("There is a token and a half."))
        bucket.wait(0.5 * whole)
        bucket.admit(client, _("The half that was left has become a whole token."))
        bucket.require()


@token_bucket.criterion(
    _("never holds more than its capacity"),
    points=0.25,
    why=_("Otherwise a client that was on holiday for a month may send ten thousand requests at once."),
)
def capped(trial: Trial, answer: Handle) -> None:
    for pause in (3.0, 100_000.0):
        rate, capacity = _rate(trial.rng), int(trial.rng.integers(2, 5))
        bucket, client = _Bucket(trial, answer, rate, capacity), chats.sentence(trial.rng, words=1)
        bucket.admit(client, _FULL)
        bucket.wait(pause * capacity / rate)
        for _number in range(capacity):
            bucket.admit(client, _("After a long pause the bucket is full."))
        bucket.refuse(client, _("However long the pause was, the bucket held no more than its capacity."))
        bucket.require()


@token_bucket.criterion(
    _("has a bucket for each client"),
    points=0.25,
    why=_("With one bucket for all, one client's loop keeps everybody else out."),
)
def each_its_own(trial: Trial, answer: Handle) -> None:
    rate, capacity = _rate(trial.rng), int(trial.rng.integers(1, 4))
    bucket = _Bucket(trial, answer, rate, capacity)
    greedy, modest, late = (f"{name} {trial.rng.integers(100)}" for name in ("desk", "Müller", "plant"))
    bucket.empty(greedy)
    bucket.refuse(greedy, _EMPTY)
    bucket.admit(modest, _("Another client has a bucket of its own."))
    bucket.wait(0.5 / rate)
    bucket.empty(late)
    bucket.refuse(greedy, _("Half a token is missing; what others do changes nothing."))
    bucket.require()
    another = _Bucket(trial, answer, rate, capacity, bucket.clock.now)
    another.admit(greedy, _("This client is new here: what another `TokenBucket` remembers is its own."))
    another.require()


@token_bucket.criterion(
    _("says how long to wait: whole seconds, rounded up"),
    points=0.25,
    why=_("It is sent as `Retry-After`. Rounded down, an honest client comes back too early and is refused again, and "
          "a zero would read as a yes."),
)  # fmt: skip
def says_how_long(trial: Trial, answer: Handle) -> None:
    some = float(trial.rng.integers(1, 3))
    # Of a second, much is left over at first, and then little: so rounded down can be told from rounded to the nearest.
    rows = (0.125, 1, some + 0.25), (0.25, int(trial.rng.integers(2, 4)), some + 0.875), (4.0, 1, 0.125)
    for rate, capacity, gone in (*rows, (1 / 128, 1, some + 0.875)):
        bucket, client = _Bucket(trial, answer, rate, capacity), chats.sentence(trial.rng, words=1)
        bucket.empty(client)
        message = _("That is not the time until the next whole token is there.")
        bucket.wait_is(math.ceil(1 / rate), client, message)  # to the second, for the slow ones
        bucket.wait(gone)
        seconds = math.ceil(1 / rate - gone)
        bucket.wait_is(seconds, client, message)
        bucket.wait(float(seconds))
        bucket.wait_is(0, client, _("Whoever waits as long as it was told gets its token."))
        bucket.require()


class _RightBucket:
    """A right token bucket, from which misconceptions are made."""

    def __init__(self, rate: float, capacity: int, clock: Callable[[], float]) -> None:
        self.rate, self.capacity, self.clock = rate, capacity, clock
        self.buckets: dict[str, tuple[float, float]] = {}

    def take(self, client: str) -> Any:
        """Take a token, or say how long to wait for one."""
        now = self.clock()
        tokens, seen = self.buckets.get(self.key(client), (self.at_first(), now))
        tokens = self.refilled(tokens, now - seen)
        if tokens >= 1:
            self.buckets[self.key(client)] = (tokens - 1, now)
            return 0
        self.refuse(client, tokens, now, seen)
        return self.wait(tokens)

    def key(self, client: str) -> str:
        return client

    def at_first(self) -> float:
        return self.capacity

    def refilled(self, tokens: float, elapsed: float) -> float:
        return min(self.capacity, tokens + elapsed * self.rate)

    def refuse(self, client: str, tokens: float, now: float, seen: float) -> None:
        self.buckets[self.key(client)] = (tokens, now)

    def wait(self, tokens: float) -> Any:
        return math.ceil((1 - tokens) / self.rate)


@token_bucket.misconception(_("one bucket for all clients"))
class GlobalBucket(_RightBucket):
    def key(self, client: str) -> str:
        return ""


@token_bucket.misconception(_("a bucket that counts whole tokens only: parts of one are lost each time somebody asks"))
class IntegerRefill(_RightBucket):
    def refilled(self, tokens: float, elapsed: float) -> float:
        return min(self.capacity, tokens + int(elapsed * self.rate))


@token_bucket.misconception(_("a bucket without a brim: the pause of a night is a burst in the morning"))
class NoBrim(_RightBucket):
    def refilled(self, tokens: float, elapsed: float) -> float:
        return tokens + elapsed * self.rate


@token_bucket.misconception(_("a bucket that is empty at first"))
class EmptyAtFirst(_RightBucket):
    def at_first(self) -> float:
        return 0.0


@token_bucket.misconception(_("a refusal that costs a token: the more somebody asks, the longer they wait"))
class RefusedPay(_RightBucket):
    def refuse(self, client: str, tokens: float, now: float, seen: float) -> None:
        self.buckets[self.key(client)] = (tokens - 1, now)


@token_bucket.misconception(_("a refusal that does not write the time back: the same seconds count twice"))
class CountedTwice(_RightBucket):
    def refuse(self, client: str, tokens: float, now: float, seen: float) -> None:
        self.buckets[self.key(client)] = (tokens, seen)


@token_bucket.misconception(_("a waiting time rounded down"))
class RoundedDown(_RightBucket):
    def wait(self, tokens: float) -> int:
        return int((1 - tokens) / self.rate)


@token_bucket.misconception(_("a waiting time of `int(...) + 1`: where it comes out even, that is a second too many"))
class OneMore(_RightBucket):
    def wait(self, tokens: float) -> int:
        return int((1 - tokens) / self.rate) + 1


@token_bucket.misconception(_("a waiting time rounded to the nearest second: half of the clients come too early"))
class Rounded(_RightBucket):
    def wait(self, tokens: float) -> int:
        return round((1 - tokens) / self.rate)


@token_bucket.misconception(
    _("a waiting time that forgets the rate: what is missing is counted in tokens, not seconds")
)
class ForgetsRate(_RightBucket):
    def wait(self, tokens: float) -> int:
        return math.ceil(1 - tokens)


@token_bucket.misconception(_("a waiting time that is not rounded"))
class NotRounded(_RightBucket):
    def wait(self, tokens: float) -> float:
        return (1 - tokens) / self.rate


@token_bucket.misconception(_("a waiting time as a `float`"))
class FloatSeconds(_RightBucket):
    def wait(self, tokens: float) -> float:
        return float(math.ceil((1 - tokens) / self.rate))


@token_bucket.misconception(_("a waiting time until the bucket is full again, not until there is a token"))
class UntilFull(_RightBucket):
    def wait(self, tokens: float) -> int:
        return math.ceil((self.capacity - tokens) / self.rate)


@token_bucket.misconception(_("a waiting time for a whole token, whatever has trickled in already"))
class WholeToken(_RightBucket):
    def wait(self, tokens: float) -> int:
        return math.ceil(1 / self.rate)


@token_bucket.misconception(_("the computer's own clock instead of the one that is given"))
class OwnClock(_RightBucket):
    def __init__(self, rate: float, capacity: int, clock: Callable[[], float]) -> None:
        super().__init__(rate, capacity, lambda: 0.0)  # as good as: next to nothing passes during a trial


@token_bucket.misconception(
    _("a counter that begins again after a while: no trickle, but a flood at every full window")
)
class FixedWindow:
    def __init__(self, rate: float, capacity: int, clock: Callable[[], float]) -> None:
        self.window, self.capacity, self.clock = capacity / rate, capacity, clock
        self.seen: dict[str, tuple[float, int]] = {}

    def take(self, client: str) -> int:
        now = self.clock()
        start, count = self.seen.get(client, (now, 0))
        if now - start >= self.window:
            start, count = now, 0
        if count < self.capacity:
            self.seen[client] = (start, count + 1)
            return 0
        return math.ceil(start + self.window - now)


# ---------------------------------------------------------------- gate

gate = Check(
    "service",
    "gate",
    title=_("Full house"),
    hints=(
        _("A middleware is an app around an app: it is called with `scope`, `receive` and `send`, and calls the inner "
          "app with them. What do you count before that call, and when is the call over?"),
        _("First pass on what is not `http`. "
          "Refuse before you take a place, and count a refusal, too; /healthz neither takes a place nor is refused. "
          "`try` / `finally` around `await self.app(...)` gives the place back in every case. For the status, hand the "
          "app a `send` of your own, which notes it and passes the message on; it is \"500\" until then."),
        _("`problem(503, ..., {\"Retry-After\": \"1\"})` is itself an app: `await response(scope, receive, send)`. "
          "After the call `scope.get(\"route\")` is the route that was found; its `.path` is the label. Without one, "
          "as after a refusal, the label is `none`."),
    ),
)  # fmt: skip


class _House:
    """An app with held routes behind the answer's gate: `/documents/{name}`, `/stream/{name}` and `/healthz`."""

    def __init__(self, trial: Trial, answer: Handle, limit: int, gates: int = 1) -> None:
        self.trial = trial
        self.receipt = f"{trial.rng.integers(10**9):09d}"
        self.backend = answer.build("web", "streamer")
        self.counter = answer.build("web", "counter")
        inner = answer.build("web", "held_routes", self.backend)
        _require_kind(trial, answer.make(inner, limit=limit, counter=self.counter), "middleware")
        self.app = inner
        for _gate in range(gates):
            self.app = answer.build("web", "behind", self.app, limit, self.counter)

    def play(self, *steps: Step) -> Play:
        """Let clients come and go, and return what happened before everybody was sent home."""
        return _play(self.trial, self.app, self.backend, list(steps), self._script, patience=0.0)

    def counted(self, trial: Trial) -> list[list[Any]]:
        """Return what was counted, in order: rows of route, status, how often."""
        rows = self.counter.probe("web", "samples")
        read = isinstance(rows, list) and all(isinstance(row, list) and len(row) == 3 for row in rows)
        trial.require(
            read,
            _(
                "The counter cannot be read any more: call `counter.labels(route, status).inc()`, "
                "and change nothing else of it."
            ),
        )
        return sorted(rows, key=str)

    def _script(self, path: str) -> Entry:
        if path.startswith("/stream/"):
            return {"pieces": [f"{self.receipt} 1\n", f"{self.receipt} 2\n"], "held": 1}
        return {"text": self.receipt, "sources": [], "held": True}


def _name(rng: "np.random.Generator") -> str:
    return f"{rng.choice(['seal', 'valve', 'motor', 'shaft'])}{rng.integers(10**6, 10**7)}"


def _document(client: str, name: str) -> Step:
    return _post(client, f"/documents/{name}?by={name}")


def _require_let_in(trial: Trial, play: Play, client: str, message: str, **values: Any) -> None:
    """Fail unless this client is inside or has been served."""
    reply = play.reply(client)
    if reply.status >= 400:
        raise Failed(trial.text(message, **values), "201", str(reply))


@gate.criterion(
    _("lets a request and its response through as they are"),
    why=_("A middleware that changes what it does not care about breaks things far away: headers, streams, the start "
          "of the app."),
)  # fmt: skip
def passes_through(trial: Trial, answer: Handle) -> None:
    name = _name(trial.rng)
    house = _House(trial, answer, 1)
    steps = [_document("one", name), ["go"], _get("two", f"/stream/{name}"), ["go"], _get("health", "/healthz")]
    play = house.play(*steps)
    for client, status, body in (("one", 201, f'{{"receipt":"{house.receipt}"}}'),
                                 ("two", 200, f"{house.receipt} 1\n{house.receipt} 2\n")):  # fmt: skip
        reply = play.reply(client)
        message = _("Nobody is inside, and `limit` is 1, but the request is refused. Who has taken the place? The call "
                    "with a scope of type `lifespan` lasts as long as the server runs, and takes none.")  # fmt: skip
        trial.require(reply.status not in (429, 503), message, expected=str(status))
        _require_status(trial, reply, status, trial.text(_("A request through the gate")))
        message = _("The body that comes through the gate is {found}.")
        trial.require(reply.text == body and reply.ended, message, expected=body, found=repr(reply.text))
    named = play.reply("two").headers.get("x-name") == name
    trial.require(named, _("A header of the inner app's response is lost."), expected=f"x-name: {name}")
    message = _("The inner app was never started: pass on what is no HTTP request (the scope of type `lifespan`).")
    trial.require(play.reply("health").json() == {"started": True}, message)


@gate.criterion(
    _("refuses at once whoever comes when the house is full"),
    points=0.75,
    why=_("A queue that grows faster than it is served makes everybody wait, until all have gone; and the model still "
          "answers them. An honest 503 can be tried again, somewhere else or later."),
)  # fmt: skip
def refuses_at_once(trial: Trial, answer: Handle) -> None:
    limit = int(trial.rng.integers(1, 4))
    inside = [_document(f"in {number}", _name(trial.rng)) for number in range(limit)]
    late = [_document(name, _name(trial.rng)) for name in ("late", "later")]
    play = _House(trial, answer, limit).play(*inside, *late, ["go"], _document("next", _name(trial.rng)), ["go"])
    for number in range(limit):
        message = _("At most {limit} at once are allowed; number {number} was refused.")
        _require_let_in(trial, play, f"in {number}", message, limit=limit, number=number + 1)
    full = play.before_step(limit + 1)
    message = _("At most {limit} at once are allowed; number {number} was let in.")
    trial.require(len(full.of("called")) == limit, message, expected="503", limit=limit, number=limit + 1)
    reply = full.reply("late")
    message = _("With {limit} requests inside, the next one waits: there is no answer to it.")
    trial.require(reply.status or reply.returned, message, expected="503", limit=limit)
    _require_problem(trial, reply, 503, trial.text(_("A request to a full house")))
    found = reply.headers.get("retry-after", "-")
    message = _("The refusal needs the header `Retry-After: 1`. Yours: {found}")
    trial.require(found == "1", message, expected="Retry-After: 1", found=found)
    _require_let_in(trial, play, "next", _("One has left, so there is room again; the next one was refused."))
    play = _House(trial, answer, limit=1, gates=2).play(_document("first", _name(trial.rng)), ["go"])
    message = _("Two gates stand one behind the other, each with room for one. Nobody is inside, and yet the request "
                "is refused. Each gate counts for itself: on `self`, not on the class.")  # fmt: skip
    _require_let_in(trial, play, "first", message)


def _require_refusal(trial: Trial, replies: list[Reply], limit: int) -> list[Reply]:
    """Fail unless somebody was refused, and return whoever was. How many are let in before, another criterion asks."""
    refused = [reply for reply in replies if reply.status >= 400]
    for reply in replies:
        if not refused and not reply.status and reply.returned:
            _require_status(trial, reply, 503, trial.text(_("A request to a full house")))
    message = _("At most {limit} at once are allowed, and nobody is refused.")
    trial.require(refused, message, expected="503", limit=limit)
    return refused


@gate.criterion(
    _("gets every place back, however a request ends, and lets errors go on"),
    points=0.5,
    why=_(
        "A place that is lost stays lost: after a bad night your service refuses everybody, with nobody inside. And an "
        "error that you swallow is in no log: nobody learns why your service fails."
    ),
)
def places_come_back(trial: Trial, answer: Handle) -> None:
    # The first error is of the usual kind: so who never gives a place back differs from who knows some errors only.
    kinds = "", _error_kind(trial.rng)
    ends: list[tuple[str, list[Step]]] = [
        *((_("The inner app has raised an error"), [["fail", "lost", kind]]) for kind in kinds),
        (_("The server has cancelled the request"), [["cancel", "first"]]),
    ]
    for how, end in ends:
        steps = [_document("first", _name(trial.rng)), *end, _document("second", _name(trial.rng)), ["go"]]
        play = _House(trial, answer, 1).play(*steps)
        message = _("{how}, and its place is still taken: the next request is refused.")
        _require_let_in(trial, play, "second", message, how=trial.text(how))
        _require_status(trial, play.reply("second"), 201, trial.text(_("A request through the gate")))
        if end[0][0] == "fail":
            message = _("The inner app has raised an error, and none comes out of your gate.")
            kind = end[0][2] or "RuntimeError"
            trial.require(["first", kind, "lost"] in play.of("raised"), message, expected=f"{kind}: lost")
        else:
            message = _("The server has cancelled the request, and no `CancelledError` comes out of your gate.")
            trial.require(["first"] in play.of("cancelled"), message, expected="CancelledError")
    leaves = [_get("first", f"/stream/{_name(trial.rng)}"), ["leave", "first"], _document("second", _name(trial.rng))]
    play = _House(trial, answer, 1).play(*leaves, ["go"])
    message = _("{how}, and its place is still taken: the next request is refused.")
    _require_let_in(trial, play, "second", message, how=trial.text(_("The reader of a stream has gone away")))
    # A refusal gives nothing back: it has taken nothing.
    clients = [str(number) for number in range(5)]
    play = _House(trial, answer, 1).play(*(_document(client, _name(trial.rng)) for client in clients))
    refused = [play.reply(client).status >= 400 for client in clients]
    inside = len(play.of("called"))
    trial.require(inside < len(clients), _("At most {limit} at once are allowed; number {number} was let in."),
                  expected="503", limit=1, number=inside)  # fmt: skip
    message = _("Somebody was refused, and then another one let in, though nobody had left.")
    trial.require(refused == sorted(refused), message, expected="503")


@gate.criterion(
    _("a stream keeps its place until its last piece"),
    points=0.25,
    why=_("The work begins when the first piece is sent; it does not end there. Whoever counts until the headers only "
          "lets any number of streams in."),
)  # fmt: skip
def stream_keeps_place(trial: Trial, answer: Handle) -> None:
    streams = [f"stream {number}" for number in range(4)]
    steps = [_get(stream, f"/stream/{_name(trial.rng)}") for stream in streams]
    others = [_document(f"other {number}", _name(trial.rng)) for number in range(2)]  # tells who forgets only streams
    play = _House(trial, answer, 1).play(*steps, *others, ["go"], _document("next", _name(trial.rng)), ["go"])
    first = play.before_step(1).reply(streams[0])
    trial.require(
        first.body, _("The first piece of a stream does not come through the gate while the second is waited for.")
    )
    message = _("At most {limit} at once are allowed, and {count} streams are running.")
    running = sum(play.before_step(len(streams)).reply(stream).status == 200 for stream in streams)
    trial.require(running < len(streams), message, expected="503", limit=1, count=running)
    _require_let_in(trial, play, "next", _("The stream has ended, so there is room again; the next one was refused."))


@gate.criterion(
    _("answers /healthz even when the house is full"),
    points=0.25,
    why=_("Busy is not sick. If the health check is refused, the service is restarted under full load, and loses all "
          "that it was working on."),
)  # fmt: skip
def healthy_when_full(trial: Trial, answer: Handle) -> None:
    clients = [f"{number}" for number in range(3)]
    steps = [_document(client, _name(trial.rng)) for client in clients]
    for path in ("/healthz-log", "/x/healthz"):
        play = _House(trial, answer, 1).play(*steps, _get("health", "/healthz"), _get("like", path))
        _require_refusal(trial, [play.reply(client) for client in clients], 1)
        _require_status(trial, play.reply("health"), 200, trial.text(_("GET /healthz in a full house")))
        message = _("The path {path} is not /healthz, and yet it was let into a full house.")
        let_in = play.reply("like").status == 404  # the inner app was asked, and does not know it
        trial.require(not let_in, message, expected="503", path=path)
    play = _House(trial, answer, 1).play(_get("health", "/healthz?held"), _document("in", _name(trial.rng)))
    message = _("Nobody is inside but a health check, which takes no place; the next request was refused.")
    _require_let_in(trial, play, "in", message)


@gate.criterion(
    _("counts every request, by route and status"),
    points=0.5,
    why=_("These numbers show what your service does. Each pair of labels is a time series of its own: with paths as "
          "labels, whoever asks for ten thousand paths makes ten thousand of them, with customers' data in their "
          "names."),
)  # fmt: skip
def counts(trial: Trial, answer: Handle) -> None:
    # How often, and in which order, cannot be foreseen: nobody is inside between two of these groups.
    often = {what: int(trial.rng.integers(1, 4)) for what in ("health", "lost", "wrong", "served", "stream")}
    groups: list[list[Step]] = []
    for number in range(4):
        name = _name(trial.rng)
        of: dict[str, list[Step]] = {
            "health": [_get(f"health {number}", "/healthz")],
            "lost": [_get(f"lost {number}", f"/{name}")],
            "wrong": [["ask", f"wrong {number}", "POST" if number else "HEAD", "/healthz", [], b""]],
            "served": [_document(f"served {number}", name), ["go"]],
            "stream": [_get(f"stream {number}", f"/stream/{name}"), ["go"]],
        }
        groups += [steps for what, steps in of.items() if number < often[what]]
    late = [f"late {number}" for number in range(int(trial.rng.integers(2, 5)))]
    refusing = [_document(client, _name(trial.rng)) for client in late]
    steps = [step for place in trial.rng.permutation(len(groups)) for step in groups[place]]
    # Last: who keeps a place after an error would refuse all the others.
    steps += [_document("failing", _name(trial.rng)), *refusing, ["fail", "lost", _error_kind(trial.rng)]]
    steps += [["go"]] * len(late)
    house = _House(trial, answer, 1)
    play = house.play(*steps)
    refused = len(_require_refusal(trial, [play.reply(client) for client in late], 1))
    served = often["served"] + len(late) - refused  # by a gate that lets one too many in, which another criterion says
    wanted = [
        ["/documents/{name}", "201", float(served)], ["/documents/{name}", "500", 1.0],
        ["/healthz", "200", float(often["health"])], ["/healthz", "405", float(often["wrong"])],
        ["/stream/{name}", "200", float(often["stream"])], ["none", "404", float(often["lost"])],
        ["none", "503", float(refused)],
    ]  # fmt: skip
    got = house.counted(trial)
    if got != wanted:
        message = _("Missing in the counter (route, status, how often): {missing}. Too much in it: {surplus}.")
        missing, surplus = (
            [row for row in rows if row not in others] for rows, others in ((wanted, got), (got, wanted))
        )
        raise Failed(trial.text(message, missing=_counted(missing), surplus=_counted(surplus)))
    ended = _House(trial, answer, 2)  # room for two: who keeps the place of the first has another criterion to fail
    ended.play(
        _document("cancelled", _name(trial.rng)), ["cancel", "cancelled"],
        _get("broken", f"/stream/{_name(trial.rng)}"), ["fail", "lost"],
    )  # fmt: skip
    got = ended.counted(trial)
    message = _("One request was cancelled before it had an answer, and a stream broke off after its status 200 was "
                "sent. The counter says {found}.")  # fmt: skip
    wanted = [["/documents/{name}", "500", 1.0], ["/stream/{name}", "200", 1.0]]
    trial.require(got == wanted, message, expected=_counted(wanted), found=_counted(got))
    talking = _House(trial, answer, 1)
    play = talking.play(["connect", "talking", "/talk"])
    message = _("A scope of the type `websocket` is no HTTP request: pass it on to the inner app, which answers it.")
    trial.require(play.of("socket"), message)
    got = talking.counted(trial)
    message = _("A scope of the type `websocket` is no HTTP request, and yet the counter says {found}.")
    trial.require(not got, message, found=_counted(got))


def _counted(samples: Any) -> str:
    return (
        chats.short(" · ".join(f"{route} {status}: {count:g}" for route, status, count in sorted(samples)), 190) or "-"
    )


class _RightGate:
    """A right gate, from which misconceptions are made."""

    def __init__(self, app: Any, limit: int, counter: Any) -> None:
        self.app, self.limit, self.counter = app, limit, counter
        self.inside = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.other(scope, receive, send)
            return
        status = 0

        async def noting_send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = status or message["status"]
            await send(message)

        try:
            await self.serve(scope, receive, noting_send)
        except Exception:
            status = self.broken(status)
            raise
        finally:
            self.count(scope, status or 500)

    def broken(self, status: int) -> int:
        return status

    async def other(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        if self.is_exempt(scope):
            await self.app(scope, receive, send)
        elif self.is_full():
            await self.refuse(scope, receive, send)
        else:
            await self.let_in(scope, receive, send)

    def is_exempt(self, scope: Any) -> bool:
        return bool(scope["path"] == "/healthz")

    def is_full(self) -> bool:
        return self.inside >= self.limit

    async def refuse(self, scope: Any, receive: Any, send: Any) -> None:
        await _problem(503, "Busy.", {"Retry-After": "1"})(scope, receive, send)

    async def let_in(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.inside -= 1

    def count(self, scope: Any, status: int) -> None:
        self.counter.labels(self.label(scope), str(status)).inc()

    def label(self, scope: Any) -> str:
        return str(getattr(scope.get("route"), "path", "none"))


@gate.misconception(_("a semaphore that makes the others wait"))
class Queues(_RightGate):
    def __init__(self, app: Any, limit: int, counter: Any) -> None:
        import asyncio

        super().__init__(app, limit, counter)
        self.places = asyncio.Semaphore(limit)

    async def let_in(self, scope: Any, receive: Any, send: Any) -> None:
        async with self.places:
            await self.app(scope, receive, send)

    def is_full(self) -> bool:
        return False


@gate.misconception(_("a health check that takes a place: while one is answered, a customer is refused"))
class HealthTakesPlace(_RightGate):
    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        if self.is_exempt(scope) or not self.is_full():
            await self.let_in(scope, receive, send)
        else:
            await self.refuse(scope, receive, send)


@gate.misconception(_("an error of the inner app that the gate answers itself, instead of letting it go on outwards"))
class SwallowsErrors(_RightGate):
    async def let_in(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().let_in(scope, receive, send)
        except Exception:
            await _problem(500, "Something went wrong here.")(scope, receive, send)


@gate.misconception(_("a gate without a limit: everybody is let in"))
class NoLimit(_RightGate):
    def is_full(self) -> bool:
        return False


@gate.misconception(_("a gate that lets one too many in: full is when `limit` are inside, not when there are more"))
class OneTooMany(_RightGate):
    def is_full(self) -> bool:
        return self.inside > self.limit


@gate.misconception(_("a count of the places on the class: all gates of the process share it"))
class SharedCount(_RightGate):
    places = 0

    def is_full(self) -> bool:
        return SharedCount.places >= self.limit

    async def let_in(self, scope: Any, receive: Any, send: Any) -> None:
        SharedCount.places += 1
        try:
            await self.app(scope, receive, send)
        finally:
            SharedCount.places -= 1


@gate.misconception(
    _("a place that is given back only when all goes well, without `finally`: an error keeps it for ever")
)
class LeaksOnErrors(_RightGate):
    async def let_in(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        await self.app(scope, receive, send)
        self.inside -= 1


@gate.misconception(_("a place given back in `except Exception`: `CancelledError` is none, and keeps it for ever"))
class LeaksOnCancellation(_RightGate):
    async def let_in(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        try:
            await self.app(scope, receive, send)
        except Exception:
            self.inside -= 1
            raise
        self.inside -= 1


@gate.misconception(
    _("a place given back after the errors that one can think of, without `finally`: another one keeps it for ever")
)
class LeaksOnOtherErrors(_RightGate):
    async def let_in(self, scope: Any, receive: Any, send: Any) -> None:
        import asyncio

        self.inside += 1
        try:
            await self.app(scope, receive, send)
        except (RuntimeError, ValueError, OSError, asyncio.CancelledError):
            self.inside -= 1
            raise
        self.inside -= 1


@gate.misconception(_("a refusal that gives back a place which it never took: the limit melts away"))
class RefusalGivesBack(_RightGate):
    async def refuse(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().refuse(scope, receive, send)
        finally:
            self.inside -= 1


@gate.misconception(
    _("a `BaseHTTPMiddleware`: it is done when the headers are there, and streams run on uncounted"), factory=True
)
def freed_at_headers() -> Any:
    from starlette.middleware.base import BaseHTTPMiddleware

    class Freed(BaseHTTPMiddleware):
        def __init__(self, app: Any, limit: int, counter: Any) -> None:
            super().__init__(app)
            self.right = _RightGate(app, limit, counter)

        async def dispatch(self, request: Any, call_next: Any) -> Any:
            right, status = self.right, 500
            try:
                if not right.is_exempt(request.scope) and right.is_full():
                    status = 503
                    return _problem(503, "Busy.", {"Retry-After": "1"})
                right.inside += 0 if right.is_exempt(request.scope) else 1
                try:
                    response = await call_next(request)
                    status = response.status_code
                    return response
                finally:
                    right.inside -= 0 if right.is_exempt(request.scope) else 1
            finally:
                right.count(request.scope, status)

    return Freed


@gate.misconception(_("a health check that is refused like everybody else"))
class HealthRefused(_RightGate):
    def is_exempt(self, scope: Any) -> bool:
        return False


@gate.misconception(_("a refusal without `Retry-After`"))
class NoRetryAfter(_RightGate):
    async def refuse(self, scope: Any, receive: Any, send: Any) -> None:
        await _problem(503, "Busy.")(scope, receive, send)


@gate.misconception(_("a 429 for a full house: that would mean that this client asks too much"))
class TooMany(_RightGate):
    async def refuse(self, scope: Any, receive: Any, send: Any) -> None:
        await _problem(429, "Busy.", {"Retry-After": "1"})(scope, receive, send)


@gate.misconception(_("a counter with the path as a label: as many time series as there are paths, with names in them"))
class PathAsLabel(_RightGate):
    def label(self, scope: Any) -> str:
        return str(scope["path"])


@gate.misconception(_("a counter that leaves out refusals and failures"))
class CountsSuccess(_RightGate):
    def count(self, scope: Any, status: int) -> None:
        if status < 500:
            super().count(scope, status)


@gate.misconception(_("a counter that takes every request for a success, whatever became of it"))
class AlwaysSuccess(_RightGate):
    def count(self, scope: Any, status: int) -> None:
        super().count(scope, 200)


@gate.misconception(_("a gate that passes on HTTP requests only: the inner app is never told that the server starts"))
class DropsLifespan(_RightGate):
    async def other(self, scope: Any, receive: Any, send: Any) -> None:
        return None


@gate.misconception(
    _("a gate that lets the call `lifespan` take a place, too: it lasts as long as the server, and keeps the place")
)
class LifespanTakesPlace(_RightGate):
    async def other(self, scope: Any, receive: Any, send: Any) -> None:
        await (self.refuse if self.is_full() else self.let_in)(scope, receive, send)


@gate.misconception(_("a refusal that is returned: nobody sends it. A response is an app, to be called and awaited"))
class ReturnsRefusal(_RightGate):
    async def refuse(self, scope: Any, receive: Any, send: Any) -> Any:
        return _problem(503, "Busy.", {"Retry-After": "1"})


@gate.misconception(
    _("an `HTTPException` raised in the middleware: the handlers stand further inside, so it comes out as a 500")
)
class RaisesRefusal(_RightGate):
    async def refuse(self, scope: Any, receive: Any, send: Any) -> None:
        from fastapi import HTTPException

        raise HTTPException(503, "Busy.", {"Retry-After": "1"})


@gate.misconception(_("a stream that breaks off and is counted as 500, though the status 200 was sent"))
class BrokenIs500(_RightGate):
    def broken(self, status: int) -> int:
        return 500
