# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Ship it as an API
#
# Your assistant answers questions about pumps, with sources. It lives in a notebook on your laptop. Now the service desk wants it in its ticket system, sales wants it on the website, and an important customer asks for "just a little access". None of them will open your notebook: they need an address to which a program can send a question.
#
# By the end of this unit they have one. It streams answers to a page in the browser, knows who asks, stays polite with those who ask too much, says no at once when it is full, and never shows a stranger what went wrong inside. You will measure all that under load.

# %%
import kicourse
from kicourse.checks import service as check

text = kicourse.start("service")

# %%
# ruff: noqa: F704
import asyncio
import json
import logging
import math
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import anyio
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from kicourse import plots
from kicourse.models import gpt
from openai import AsyncOpenAI, OpenAI
from prometheus_client import CollectorRegistry, Counter, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as AnyHTTPException

log = logging.getLogger("service")
MODEL = gpt.model()

# %% [markdown]
# This is the path of a question through what you will build. Each door turns people away with a status number of its own (the next section explains them). The *answerer* behind them is the function that makes an answer with sources out of a question.

# %% tags=["demo"]
figure = plots.figure(width=9, height=2.9)
axes = figure.subplots()
boxes = [
    (0, text("browser,\nticket system"), plots.GREY),
    (2, text("gate:\nroom left?"), plots.BLUE),
    (4, text("key:\nwho asks?"), plots.BLUE),
    (6, text("bucket:\ntoo often?"), plots.BLUE),
    (8, text("app: is it\na question?"), plots.BLUE),
    (10, text("answerer,\nGPT"), plots.GREEN),
]
for x, name, color in boxes:
    style = {"boxstyle": "round,pad=0.5", "facecolor": plots.PAPER, "edgecolor": color, "linewidth": 2}
    axes.text(x, 1, name, ha="center", va="center", fontsize=9.5, bbox=style)
for x in range(0, 10, 2):
    axes.annotate("", (x + 1.22, 1), (x + 0.78, 1), arrowprops={"arrowstyle": "->", "color": plots.INK})
for x, answer in ((2, "503"), (4, "401"), (6, "429"), (8, "422"), (10, text("200, piece by piece\nor 500"))):
    axes.annotate("", (x, 0.3), (x, 0.78), arrowprops={"arrowstyle": "->", "color": plots.RED if x < 10 else plots.INK})
    axes.text(x, 0.2, answer, ha="center", va="top", fontsize=10)
axes.set_xlim(-0.9, 10.9)
axes.set_ylim(-0.15, 1.4)
axes.axis("off")
plots.show(
    figure,
    alt=text(
        "From left to right: the browser or ticket system, then four doors and the answerer. The gate turns away with 503, the key with 401, the bucket with 429, the app with 422. Behind them the answerer with the GPT says 200, piece by piece, or 500."
    ),
)

# %% [markdown]
# ## A question over HTTP
#
# You know HTTP from the other side: each call of `client.chat.completions.create` sends a request and gets a response. A request has a **method** (`GET` reads, `POST` sends something), a **path**, **headers** and a body; a response has a **status**, headers and a body. Statuses that begin with 2 are good news; with 4 the client has made a mistake; with 5 the server has.
#
# **FastAPI** lets Python functions answer such requests. Here is a whole service:

# %% tags=["demo"]
import httpx
from kicourse.serving import Server, serving


class Reading(BaseModel):
    """What a pressure gauge says."""

    pump: str = Field(pattern=r"^HP-[0-9]{4}$")
    bar: float = Field(ge=0)


little = FastAPI()


@little.post("/readings")
def store(reading: Reading) -> dict[str, bool]:
    """Say whether the pressure is too high."""
    return {"alarm": reading.bar > 16}


with serving(little) as url:
    for body in ({"pump": "HP-2041", "bar": 17.5}, {"pump": "HP-2041", "note": "for Ms Yıldız only"}):
        response = httpx.post(f"{url}/readings", json=body)
        print(response.status_code, response.headers["content-type"], "\n   ", response.text, "\n")

# %% [markdown]
# `@little.post("/readings")` connects a method and a path with a function, an **endpoint**. FastAPI reads the function's types: the parameter `reading` is a pydantic model, so the body has to be JSON of that form; what is returned becomes JSON again. The first request was fine. The second was not, and FastAPI said so by itself, with the status 422.
#
# `serving` is a helper of the course. It runs **uvicorn**, a web server, in a thread of this notebook: uvicorn speaks HTTP with the network and calls your app for each request. At work it runs on its own, as `uvicorn service:app`, and not in a notebook.
#
# ### What an error should look like
#
# Look at the second answer again. It repeats all that was sent, as `input`, down to the note for Ms Yıldız. With your service that will be what a customer wrote about a colleague, and error messages end up in logs, screenshots and tickets. So you will write your errors yourself. There is a standard for them, [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457), **problem details**: JSON with a media type of its own and fixed fields, of which we take four. (`about:blank` means: nothing more to know than what the status says.)


# %%
def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error as problem details."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(body, status, dict(headers or {}), media_type="application/problem+json")


# %% [markdown]
# An error is *raised* somewhere, and an **exception handler** of the app makes the response. You register one for a class of exceptions, and it is called with the request and the error. Three classes matter:
#
# * `HTTPException` is raised by whoever wants to refuse: it has a `status_code`, a `detail` and perhaps `headers`. FastAPI has such a class; Starlette, the library below it, has another, and FastAPI's inherits from it. Starlette raises its own when no path fits (404) or the method is wrong (405, with a header `Allow`, which says what is allowed). So a handler for *Starlette's* class sees both. We have imported it as `AnyHTTPException`.
# * `RequestValidationError` is what pydantic finds wrong. `error.errors()` is a list of dictionaries: `loc` says where (a tuple of texts and numbers), `msg` says what, and `input` is the part that you will not repeat.
# * `Exception` is everything that nobody has thought of.
#
# Here is a handler at work. Its `detail` is a sentence of its own, not `str(error)`: the text of an exception tells strangers about files, libraries and addresses, sometimes a key.

# %% tags=["demo"]
from fastapi.testclient import TestClient

errors = FastAPI()


@errors.exception_handler(ZeroDivisionError)
async def divided(request: Request, error: ZeroDivisionError) -> JSONResponse:
    """Answer in place of an endpoint that has divided by zero."""
    return problem(500, "Something went wrong here. It was not your fault.")


@errors.get("/share/{parts}")
def share(parts: int) -> float:
    """Divide 100 by the number of parts."""
    return 100 / parts


tester = TestClient(errors)
for path in ("/share/4", "/share/0", "/shares"):
    response = tester.get(path)
    print(path, response.status_code, response.headers["content-type"], response.text)

# %% [markdown]
# `TestClient` calls an app without a network, and this is how services are tested. What your handler for `Exception` has answered, it raises once more; to see the 500 itself, use `TestClient(app, raise_server_exceptions=False)`. (The 404 of the last line is in FastAPI's own form: for that class this app has no handler. Yours will.)
#
# ### Who may wait?
#
# The answerer waits for a model, for seconds. Whether that is a catastrophe depends on one word: `async`. Remember the event loop of *Calls that survive production*: one thread in which many coroutines take turns, at each `await`. uvicorn runs your app in such a loop.
#
# * An `async def` endpoint runs **in the loop**. If it calls something that blocks, such as `OpenAI` (not `AsyncOpenAI`), nobody gets a turn until it returns.
# * A plain `def` endpoint is run by FastAPI **in a thread** from a pool of 40, and the loop goes on. The same holds for dependencies, which come soon.
#
# **Predict:** while one question is answered in 1.5 seconds, we ask the app every 50 milliseconds whether it is healthy. What happens to those who ask?


# %% tags=["demo"]
def waits(question: str) -> dict[str, str]:
    """Answer after a second and a half, blocking, as a call of a model does."""
    time.sleep(1.5)
    return {"text": question}


def healthy_app(ask: Callable[..., Any]) -> FastAPI:
    """Return an app with a health check and the endpoint `ask`."""
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    app.get("/ask")(ask)
    return app


async def in_the_loop(question: str) -> dict[str, str]:
    """Block the event loop."""
    return waits(question)


async def health_while_asking(url: str) -> list[tuple[float, float]]:
    """Ask for the app's health every 50 ms while a question is answered; return when, and after how long it came."""
    start = time.perf_counter()

    async def ping(delay: float) -> tuple[float, float]:
        await asyncio.sleep(delay)
        asked = time.perf_counter()
        await client.get("/healthz")
        return asked - start, time.perf_counter() - asked

    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        question = asyncio.create_task(client.get("/ask", params={"question": "Why?"}))
        pings = await asyncio.gather(*(ping(0.2 + 0.05 * number) for number in range(34)))
        await question
    return list(pings)


figure = plots.figure(height=3)
axes = figure.subplots()
for name, endpoint, color in (("async def", in_the_loop, plots.RED), ("def", waits, plots.BLUE)):
    with serving(healthy_app(endpoint)) as url:
        pings = await health_while_asking(url)
    print(f"{name}: the slowest health check took {max(took for _when, took in pings):.3f} s")
    axes.plot(*zip(*pings, strict=True), "o", color=color, markersize=4, label=name)
axes.set_xlabel(text("seconds since the question"))
axes.set_ylabel(text("waiting time in seconds"))
axes.legend(title=text("the endpoint is a"), loc="upper right")
plots.show(
    figure,
    alt=text(
        "Points over time. With async def, every health check waits until the question is answered: a line that falls from more than a second to zero. With def, all are answered at once."
    ),
)

# %% [markdown]
# With `async def` all health checks waited for the one question. And they matter: whatever runs your service (Kubernetes, for example) asks `/healthz` every few seconds, and an app that keeps silent is taken for dead and restarted, in the middle of the answer.
#
# ### Who is let in?
#
# An app can also have **dependencies**. `Depends(function)` beside an endpoint says: call this function first. It may return something, or raise an `HTTPException`; then the endpoint is not called at all. In this unit, a dependency that lets a request in or refuses it is called a *guard*; you will write one yourself. An endpoint gets its guards as a list: `@app.post("/ask", dependencies=[Depends(guard)])`.
#
# ## Task 1: an app
#
# Questions and answers have a form, which Tasks 1 and 2 and the web page share:


# %%
class Question(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1, max_length=500)


class Answer(BaseModel):
    """What it gets back."""

    text: str
    sources: list[str]


# Blocks until it has an answer to a question: an object with a `text` and a list `sources`, as `rag` made one.
Answerer = Callable[[str], Any]

# %% [markdown]
# Write `create_app`. It returns a FastAPI app with two endpoints:
#
# * `GET /healthz` answers `{"status": "ok"}`, for everybody and at any time, also while an answer is on its way.
# * `POST /ask` takes a `Question`, calls `answerer` once with its `question` and answers with `text` and `sources`. Its dependencies are `guards`, a list of `Depends(...)`.
#
# Every error comes as problem details (`problem` above), with a text as `detail`:
#
# | what went wrong | status | detail | headers |
# | --- | --- | --- | --- |
# | a guard or the framework raised an `HTTPException` (FastAPI does so, with 400, for a body that cannot even be decoded) | the error's | the error's | the error's |
# | what came is no `Question`, or no JSON | 422 | says which field is wrong (better still: and why), and repeats nothing of what was sent as its value | |
# | anything else, the answerer's errors above all | 500 | a sentence of your own, nothing about the error | |
#
# After an error the app goes on as before. (You need not log the last kind: after your handler has answered, Starlette raises the error once more, and the server logs it, with all its lines.)


# %% task="create_app"
def create_app(answerer: Answerer, guards: Sequence[Any] = ()) -> FastAPI:
    """Return an app that answers questions at `POST /ask`, behind `guards`, and says at `GET /healthz` that it lives."""
    ### BEGIN SOLUTION
    app = FastAPI(title="Pump questions")

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/ask", dependencies=list(guards))
    def ask(question: Question) -> Answer:
        found = answerer(question.question)
        return Answer(text=found.text, sources=found.sources)

    @app.exception_handler(AnyHTTPException)
    async def refused(request: Request, error: AnyHTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        return problem(422, "; ".join(faults))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return problem(500, "Something went wrong here. It was not your fault; please try again later.")

    return app
    ### END SOLUTION


# %% check="create_app"
check.create_app(create_app)

# %% [markdown]
# Here it is in action. The answerer here stands for the one of *Answer with sources*: it looks up the passage with the most words in common and lets the GPT answer from it. (Passages and questions are in English because SmolLM2 read almost nothing else.)

# %% tags=["demo"]
PASSAGES = [
    "If the pump leaks at the shaft seal, close both valves, let the pressure off and replace the seal.",
    "If the pump is noisy, it often runs dry: check that the suction valve is open and the filter is clean.",
    "Grease the bearings of the motor every 4,000 hours. Too much grease makes them hot.",
]
client = OpenAI()


def chat(question: str, passage: str) -> list[Any]:
    """Return the messages that make the GPT answer from a passage."""
    return [{"role": "system", "content": f"Answer in one sentence, from this manual: {passage}"},
            {"role": "user", "content": question}]  # fmt: skip


def passage_for(question: str) -> str:
    """Return the passage that shares most words with a question."""
    words = set(question.lower().replace("?", "").split())
    return max(PASSAGES, key=lambda passage: len(words & set(passage.lower().split())))


def answer_from_manual(question: str) -> Answer:
    """Answer from the best passage, and name it."""
    passage = passage_for(question)
    completion = client.chat.completions.create(
        model=MODEL, messages=chat(question, passage), temperature=0, max_tokens=60
    )
    return Answer(text=completion.choices[0].message.content or "", sources=[passage])


with serving(create_app(answer_from_manual)) as url:
    for body in ({"question": "Why is my pump noisy?"}, {"question": ["secret"]}, {"query": "Why?"}):
        response = httpx.post(f"{url}/ask", json=body, timeout=60)
        print(response.status_code, json.dumps(response.json(), indent=1), "\n")

# %% [markdown]
# An app also describes itself: open `/docs` of a running FastAPI service in a browser, and you can try every endpoint there. The description behind it, `/openapi.json`, is what a colleague feeds to a generator to get a client in TypeScript or C#.
#
# ## As it is written
#
# A reader does not want to look at an empty page for five seconds. `stream` of *Talk to a GPT* passed on each piece of text when it came; the service has to pass it on once more, over HTTP. For that there are **server-sent events**, a stream of text in a form that every browser reads:
#
# ```text
# event: piece
# data: {"text": "Close both"}
#
# event: piece
# data: {"text": " valves.\n"}
#
# event: done
# data: {}
#
# ```
#
# A line `event:` with a name, a line `data:`, and **an empty line that ends the event**. That is nearly all. The space after the colon is part of the form and not of the data.
#
# **Predict:** what does a browser read when a piece of text has an empty line in it and somebody writes it behind `data: ` as it is?


# %% tags=["demo"]
def read_events(body: str) -> list[tuple[str, str]]:
    """Read server-sent events as a browser does: each with its name and its data."""
    events, name, data = [], "message", []
    for line in body.split("\n")[:-1]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not line and data:
            events.append((name, "\n".join(data)))
            name, data = "message", []
    return events


TWO_STEPS = "1. Close the valves.\n\n2. Drain the housing."
print(read_events(f"event: piece\ndata: {TWO_STEPS}\n\n"))
print(read_events(f"event: piece\ndata: {json.dumps({'text': TWO_STEPS})}\n\n"))

# %% [markdown]
# The bare text lost its second half: its empty line ended the event, and `2. Drain the housing.` is no field that a browser knows. `json.dumps` writes a line break as the two characters `\n`, so that any text becomes one line. This is why OpenAI, and nearly everybody, puts JSON into events.
#
# In FastAPI an endpoint returns a `StreamingResponse`, and gives it an **async generator**: an `async def` with `yield`. It may `await` between two pieces, and each text that it yields is sent at once:

# %% tags=["demo"]
counting = FastAPI()


@counting.get("/countdown")
async def countdown() -> StreamingResponse:
    """Count down, one number every 0.3 seconds."""

    async def numbers() -> AsyncIterator[str]:
        for number in (3, 2, 1):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.3)

    return StreamingResponse(numbers(), media_type="text/event-stream")


with serving(counting) as url, httpx.stream("GET", f"{url}/countdown") as response:
    start = time.perf_counter()
    for line in response.iter_lines():
        print(f"{time.perf_counter() - start:.1f} s {line!r}")

# %% [markdown]
# ### When the reader leaves
#
# And now the part that most services get wrong. A model can serve only a few at a time, and each stream holds one of its **slots**. Readers close the page in the middle of an answer. Then somebody has to say "stop" to the model, or it writes on for nobody, and its slot is lost to the others.
#
# When a client goes away, Starlette cancels the response. You know what that means from `gather_limited`: where your generator waits, a `CancelledError` is raised, and it is no `Exception`. `except Exception` does not see it; `finally` does. Here `anyio.move_on_after` cancels as Starlette does (*anyio* is the library below it). **Predict:** which lines does each ending print?


# %% tags=["demo"]
async def pieces_of(ending: str) -> AsyncIterator[str]:
    """Yield a piece, then meet one of three endings."""
    try:
        yield "Close "
        if ending == "an error":
            raise ConnectionError("the model has gone")
        if ending == "a reader who leaves":
            await asyncio.sleep(60)
    except Exception as error:
        print("    except Exception:", type(error).__name__)
    finally:
        print("    finally: tell the model to stop")
        await asyncio.sleep(0.01)
        print("    finally: it has stopped")


async def read(ending: str) -> None:
    """Read all pieces."""
    async for _piece in pieces_of(ending):
        pass


for ending in ("the last piece", "an error", "a reader who leaves"):
    print(ending)
    with anyio.move_on_after(0.1):
        await read(ending)

# %% [markdown]
# After the reader has left, the last line is missing: the `finally` began and did not get to its end. Starlette cancels not once but at **every** `await` until the response is over, those of the cleanup included. A cleanup that waits needs a shield. Write it into the cell above and run it again:
#
# ```python
#     finally:
#         print("    finally: tell the model to stop")
#         with anyio.CancelScope(shield=True):
#             await asyncio.sleep(0.01)
#             print("    finally: it has stopped")
# ```
#
# ## Task 2: a stream
#
# Here the model is reached through a *streamer*. It is called with the question and gives back the pieces of the answer: something to iterate with `async for`, which holds a slot of the model until `await pieces.aclose()`, and **rely on nothing else**: not every streamer cleans up after its last piece by itself. (Each async generator has a method `aclose`: it ends the generator where it stands, and its `finally` runs.)

# %%
# Returns the pieces of an answer to a question; `aclose()` gives back what they hold.
Streamer = Callable[[str], AsyncGenerator[str, None]]


# %% [markdown]
# Write `stream_router`. A **router** is a set of endpoints that an app takes in later, with `app.include_router(router)`; you make it with `APIRouter()` and decorate as you would with an app. Yours has one endpoint, `POST /ask/stream`. It takes a `Question` and answers with server-sent events (status 200, media type `text/event-stream`):
#
# * for each piece, as soon as it comes and before the next one is asked for, an event `piece` with the data `{"text": ...}`;
# * when all have come, one event `done` with the data `{}`;
# * if the streamer raises an error, at whatever piece, one event `error` instead of `done`, with the data `{"detail": ...}`: a sentence of your own, nothing about the error. (The status has been sent long before, so it can say nothing any more. Log the error, best with `log.exception("...")`: nobody else will.)
#
# Data are always one JSON object, and nothing comes after `done` or `error`. Whatever happens, at the end, after an error, or when the reader goes away in the middle, `aclose()` is awaited, and gets to its end: it waits for the model, so it needs the shield.


# %% task="stream_router"
def stream_router(streamer: Streamer) -> APIRouter:
    """Return a router that answers questions at `POST /ask/stream` with server-sent events, piece by piece."""
    ### BEGIN SOLUTION
    router = APIRouter()

    def event(name: str, data: dict[str, str]) -> str:
        return f"event: {name}\ndata: {json.dumps(data)}\n\n"

    async def events(question: str) -> AsyncIterator[str]:
        pieces = streamer(question)
        try:
            async for piece in pieces:
                yield event("piece", {"text": piece})
            yield event("done", {})
        except Exception:
            log.exception("an answer broke off")
            yield event("error", {"detail": "The answer broke off. Please ask again."})
        finally:
            with anyio.CancelScope(shield=True):
                await pieces.aclose()

    @router.post("/ask/stream")
    async def ask_stream(question: Question) -> StreamingResponse:
        return StreamingResponse(events(question.question), media_type="text/event-stream")

    return router
    ### END SOLUTION


# %% check="stream_router"
check.stream_router(stream_router)

# %% [markdown]
# With the GPT behind it. The second reader goes away after three pieces; watch what the streamer does, which may be a few pieces ahead.

# %% tags=["demo"]
async_client = AsyncOpenAI()


async def stream_from_manual(question: str) -> AsyncGenerator[str, None]:
    """Yield an answer from the best passage as the GPT writes it."""
    chunks = await async_client.chat.completions.create(
        model=MODEL, messages=chat(question, passage_for(question)), temperature=0, max_tokens=60, stream=True
    )
    count = 0
    try:
        async for chunk in chunks:
            if chunk.choices and chunk.choices[0].delta.content:
                count += 1
                yield chunk.choices[0].delta.content
    finally:
        with anyio.CancelScope(shield=True):
            await chunks.close()
        print(f"\n[the GPT's stream is closed after {count} pieces]")


app = FastAPI()
app.include_router(stream_router(stream_from_manual))
with serving(app) as url:
    for most in (1000, 3):
        with httpx.stream(
            "POST", f"{url}/ask/stream", json={"question": "Why is my pump noisy?"}, timeout=60
        ) as answer:
            for count, line in enumerate((line for line in answer.iter_lines() if line.startswith("data: ")), start=1):
                print(json.loads(line.removeprefix("data: ")).get("text", "[done]\n"), end="", flush=True)
                if count == most:
                    break
        await asyncio.sleep(0.2)

# %% [markdown]
# ## Who asks?
#
# Each client gets an **API key**, a long random text, and sends it with every request in a header: `Authorization: Bearer hp_...`. "Bearer" is the *scheme*: whoever bears this key is let in. Its case does not matter (`bearer` is as good); the case of the key does.
#
# Whoever has no valid key gets the status **401** with a header `WWW-Authenticate: Bearer`, which says how to prove who one is. (403 would mean: I know who you are, and you may not.)
#
# Three things to know before you write it:
#
# * A header is whatever a stranger sends: missing, empty, three kilobytes, full of emoji. Starlette reads its bytes as text in which each byte is one character.
# * One compares secrets with `secrets.compare_digest`, which takes the same time wherever the first difference is; `==` stops there, and with patience that time can be measured. (No check can measure it fairly, so it earns no points here. Use it all the same.) But look:

# %% tags=["demo"]
print(secrets.compare_digest("hp_abc", "hp_abd"))
try:
    print(secrets.compare_digest("hp_schlüssel", "hp_abc"))
except TypeError as error:
    print(f"TypeError: {error}")
print(secrets.compare_digest("hp_schlüssel".encode(), b"hp_abc"))

# %% [markdown]
# * A refusal is worth a line in the log: many of them are an attack, or a customer with a problem. But never with the key in it. A wrong key is often a right one with a slip, and logs are read, copied and kept by many. The same goes for questions: log that something was asked, not what.
#
# ## Task 3: a guard
#
# Write `require_key`. It returns a dependency: a function that FastAPI calls with the request (annotate its parameter as `request: Request`), and which returns the client's name or refuses. `request.headers` holds the headers, and upper and lower case in their names do not matter.


# %% task="require_key"
def require_key(keys: Mapping[str, str]) -> Callable[[Request], Any]:
    """Return a dependency that knows a client by its key. `keys` holds each client's key (ASCII), by its name.

    It returns the name of the client whose key is sent as `Authorization: Bearer KEY`, the scheme in upper or lower
    case. For everything else it logs a warning and raises an HTTPException: 401 with the header
    `WWW-Authenticate: Bearer`. Neither repeats what was sent as a key, or a part of it.
    """

    ### BEGIN SOLUTION
    async def client_of(request: Request) -> str:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            for client, known in keys.items():
                if secrets.compare_digest(key.encode(), known.encode()):
                    return client
        log.warning("a request to %s without a valid key", request.url.path)
        raise HTTPException(401, "Send a valid key.", headers={"WWW-Authenticate": "Bearer"})

    return client_of
    ### END SOLUTION


# %% check="require_key"
check.require_key(require_key)

# %% [markdown]
# At work one stores not the keys but their hashes, as with passwords: then a stolen list opens nothing. And keys come from the environment or a vault, never from the code. (When we ran it, the answer below broke off at `max_tokens` and made up a restriction that stands in no passage: a 200 says that the service worked, not that the answer is right.)

# %% tags=["demo"]
KEYS = {"service-desk": "hp_" + secrets.token_urlsafe(16), "website": "hp_" + secrets.token_urlsafe(16)}
tester = TestClient(create_app(answer_from_manual, [Depends(require_key(KEYS))]))
for headers in ({}, {"Authorization": f"Bearer {KEYS['website']}"}):
    response = tester.post("/ask", json={"question": "How often do I grease the bearings?"}, headers=headers)
    print(response.status_code, dict(response.headers), response.text, "\n")

# %% [markdown]
# ## Not so fast
#
# A colleague's script has a loop, and at night it asks your service 40,000 times. Each client should have a **limit**; but people come in bursts, and a page that opens may well ask three things at once.
#
# The classic answer is a **token bucket**. Each client has a bucket with room for `capacity` tokens. A request costs one. New tokens trickle in, `rate` a second, evenly, also in parts: after half a second at rate 1 there is half a token more. What does not fit in is lost. So a client may come in a burst of `capacity`, and over a long time `rate` a second. (With the tokens of a model these share only the name.)
#
# Nothing trickles in reality. It is enough to remember, for each client, how many tokens there were and when; at the next request you work out how many there are by then.
#
# Whoever finds no whole token gets the status **429** and the header `Retry-After`: how many seconds to wait, a whole number. You know it from the other side, from `with_retries`.
#
# ## Task 4: a token bucket
#
# Write `TokenBucket`. `take` takes a token and returns 0. If there is no whole one, it takes nothing and says in how many seconds there will be one: an `int`, rounded up. Later the dependency `limited` makes a 429 of it.


# %% task="token_bucket"
class TokenBucket:
    """Limits each client to `rate` requests a second in the long run, and to `capacity` at once.

    `rate` is a number above 0, perhaps below 1; `capacity` is a whole number of at least 1. `clock()` returns the time
    in seconds, from whatever beginning.
    """

    def __init__(self, rate: float, capacity: int, clock: Callable[[], float]) -> None:
        ### BEGIN SOLUTION
        self.rate = rate
        self.capacity = capacity
        self.clock = clock
        self.buckets: dict[str, tuple[float, float]] = {}
        ### END SOLUTION

    def take(self, client: str) -> int:
        """Take a token from this client's bucket, which is full at the client's first request, and return 0.

        Without a whole token there, take nothing, and return after how many seconds there will be one: an `int`, rounded
        up.
        """
        ### BEGIN SOLUTION
        now = self.clock()
        tokens, then = self.buckets.get(client, (self.capacity, now))
        tokens = min(self.capacity, tokens + (now - then) * self.rate)
        allowed = tokens >= 1
        self.buckets[client] = (tokens - 1 if allowed else tokens, now)
        return 0 if allowed else math.ceil((1 - tokens) / self.rate)
        ### END SOLUTION


# %% check="token_bucket"
check.token_bucket(TokenBucket)

# %% [markdown]
# Three clients of your bucket, with rate 1 and capacity 5. The clock is a list of times, so nobody has to wait in a test.

# %% tags=["demo"]
CLIENTS = {
    text("a page that opens"): [1, 1.3, 1.6, 1.9, 12, 12.3, 12.6, 12.9],
    text("a steady script, 0.9 a second"): [number / 0.9 for number in range(18)],
    text("a loop, 3 a second"): [number / 3 for number in range(60)],
}
now = 0.0
bucket = TokenBucket(rate=1, capacity=5, clock=lambda: now)
figure = plots.figure(height=2.6)
axes = figure.subplots()
for row, (name, times) in enumerate(CLIENTS.items()):
    for now in times:
        color = plots.RED if bucket.take(name) else plots.BLUE
        axes.plot(now, row, "|", color=color, markersize=16, markeredgewidth=2)
axes.plot([], [], "|", color=plots.BLUE, markersize=12, markeredgewidth=2, label=text("let in"))
axes.plot([], [], "|", color=plots.RED, markersize=12, markeredgewidth=2, label="429")
axes.set_yticks(range(len(CLIENTS)), list(CLIENTS))
axes.set_ylim(len(CLIENTS) - 0.5, -0.6)
axes.grid(False, axis="y")
axes.set_xlabel(text("seconds"))
axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
plots.show(
    figure,
    alt=text(
        "Three rows of strokes over twenty seconds. The page that opens comes in two bursts of four, all let in. The steady script is always let in. The loop is let in for the first two seconds or so, and then once a second; the rest is refused with 429."
    ),
)

# %% [markdown]
# ## Full house
#
# The limit for each client does not help when two hundred clients come at once, on the morning after the storm. The model answers, let us say, four questions a second. If eight a second arrive, a queue grows by four each second. After a minute the last one in it waits for a minute; by then the reader has gone, and the model still answers.
#
# So a good service **sheds load**: it has room for a few, and says at once to all others "503, come back in a second". That sounds rude. In a moment you will measure it.
#
# ### An app around an app
#
# For that you need to see every request before FastAPI does. What uvicorn calls is very simple; the agreement is called **ASGI**:
#
# ```python
# async def app(scope, receive, send): ...
# ```
#
# * `scope` is a dictionary about the request. `scope["type"]` is `"http"`. One call has the type `"lifespan"`: it begins when the server starts and ends when the server stops. And there are others. `scope["path"]` is the path.
# * `await receive()` gives the body, and later the message that the client has gone.
# * `await send(message)` sends. A response is a message `{"type": "http.response.start", "status": 200, ...}` and then one or more `{"type": "http.response.body", ...}`.
#
# The call returns when the whole response has been sent, its last piece included. It raises if the app failed. Everything in this world is such an app: FastAPI is one, and so is each response: `await problem(503, "...")(scope, receive, send)` sends it. A **middleware** is an app with another app inside:

# %% tags=["demo"]
inside = FastAPI()


@inside.get("/pumps/{serial}")
async def pump(serial: str) -> dict[str, str]:
    """Tell about a pump."""
    return {"serial": serial, "state": "running"}


class Watch:
    """Prints what passes by."""

    def __init__(self, app: Any, name: str) -> None:
        self.app, self.name = app, name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the inner app, with a `send` that looks at each message and passes it on."""
        messages = 0

        async def watching_send(message: Any) -> None:
            nonlocal messages  # the variable of the function around this one
            messages += 1
            print(f"  {self.name} sends {message['type']}", message.get("status", ""))
            await send(message)

        print(f"{self.name} gets {scope['type']} {scope.get('path', '')}")
        await self.app(scope, receive, watching_send)
        route = getattr(scope.get("route"), "path", None)
        print(f"  {self.name} is done after {messages} messages; the route was {route}")


inside.add_middleware(Watch, name="Watch")
with TestClient(inside) as tester:
    tester.get("/pumps/HP-2041")
    tester.get("/nothing/here")

# %% [markdown]
# `add_middleware` puts your class around the app and hands over the other arguments by name. Look at the last line of each request (the very last one belongs to `lifespan`): while it worked, the app noted in `scope["route"]` which **route** it found. Its `path` is the pattern, `/pumps/{serial}`, with the braces. Only your handler for `Exception` stands further out than a middleware: an error comes through as it is, and its 500 is sent after that.
#
# ### Numbers for those who watch
#
# You need that for the second thing a middleware is good for: **metrics**. A counter of prometheus_client counts by *labels*, here by place and weather, and everything that has the same labels is one row:

# %% tags=["demo"]
registry = CollectorRegistry()
rain = Counter("days", "Days by place and weather.", ["place", "weather"], registry=registry)
for place, weather in (("Goslar", "rain"), ("Goslar", "rain"), ("Wernigerode", "sun")):
    rain.labels(place, weather).inc()
print(generate_latest(registry).decode())

# %% [markdown]
# (`days_total` is the count, and `days_created` says since when.) A program called Prometheus reads this page every few seconds and draws curves from it. Each row is a curve of its own, kept for months. So labels need **few values**: the pattern of a route, never the path. Were the path the label, anybody could make ten thousand curves by asking for ten thousand addresses, with customers' names in them. And what people ask belongs in no label at all.
#
# ## Task 5: a gate
#
# Write the middleware `Gate`.
#
# * At most `limit` HTTP requests are inside at once. A request is inside from its beginning until the inner app's call is over, however it ends: with the last piece of a stream, with an exception (which goes on outwards), cancelled, or because the client has gone.
# * Whoever comes when `limit` are inside gets an answer at once, without a call of the inner app: `problem(503, ...)` with the header `Retry-After: 1`. Nobody waits.
# * Requests for `/healthz` are always let in and take no place. Busy is not sick.
# * What is no HTTP request is passed on as it is.
# * Each HTTP request is counted once, when it is over: `counter.labels(route, status).inc()`, both texts. `route` is the path of the route that was found, or `none`: for an unknown path, and for those who were refused. `status` is what was sent, as in `"200"`, even if the response broke off later; if no response had begun when the call ended, `"500"`.
#
# A middleware runs in the event loop, and nobody else gets a turn between two of its `await`s, so a plain `int` is enough to count who is inside. Each gate counts for itself, on `self`: a process can have several.


# %% task="gate"
class Gate:
    """A middleware: lets at most `limit` requests in at once, refuses the others, and counts all of them."""

    def __init__(self, app: Any, limit: int, counter: Counter) -> None:
        ### BEGIN SOLUTION
        self.app = app
        self.limit = limit
        self.counter = counter
        self.inside = 0
        ### END SOLUTION

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let one request in, or refuse it."""
        ### BEGIN SOLUTION
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def noting_send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        places = 0 if scope["path"] == "/healthz" else 1
        full = self.inside + places > self.limit
        app = problem(503, "Too many questions at once.", {"Retry-After": "1"}) if full else self.app
        self.inside += 0 if full else places
        try:
            await app(scope, receive, noting_send)
        finally:
            self.inside -= 0 if full else places
            self.counter.labels(getattr(scope.get("route"), "path", "none"), str(status)).inc()
        ### END SOLUTION


# %% check="gate"
check.gate(Gate)

# %% [markdown]
# ## Under load
#
# Now the measurement. A stand-in for the model has two slots and takes 0.25 seconds for an answer, so eight answers a second are all that it can do. For five seconds, 16 clients a second come. **Predict:** how long do they wait without a gate, and how many are refused with one that lets four in?


# %% tags=["demo"]
def slow_answerer() -> Answerer:
    """Return an answerer with two slots that takes 0.25 s for each answer."""
    slots = ThreadPoolExecutor(2)

    def answer(question: str) -> Answer:
        slots.submit(time.sleep, 0.25).result()  # first come, first served
        return Answer(text=question, sources=[])

    return answer


async def load(url: str, rate: float, seconds: float) -> list[tuple[int, float]]:
    """Send questions at this rate, whether they are answered or not; return each one's status and seconds."""

    async def ask(delay: float) -> tuple[int, float]:
        await asyncio.sleep(delay)
        start = time.perf_counter()
        response = await client.post("/ask", json={"question": "Why?"})
        return response.status_code, time.perf_counter() - start

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        return await asyncio.gather(*(ask(number / rate) for number in range(int(rate * seconds))))


figure = plots.figure(height=3.4)
panels = figure.subplots(2, 1, sharex=True, sharey=True)
for axes, limit in zip(panels, (1000, 4), strict=True):
    app = create_app(slow_answerer())
    app.add_middleware(Gate, limit=limit, counter=Counter("n", "n", ["route", "status"], registry=CollectorRegistry()))
    with serving(app) as url:
        results = await load(url, rate=16, seconds=5)
    answered = sorted(took for status, took in results if status == 200)
    refused = [took for status, took in results if status == 503]
    print(f"limit {limit:4}: {len(answered)} answered, half of them within {answered[len(answered) // 2]:.2f} s, "
          f"the slowest after {answered[-1]:.2f} s; {len(refused)} refused")  # fmt: skip
    bins = [number * 0.2 for number in range(35)]
    axes.hist([answered, refused], bins=bins, stacked=True, color=[plots.BLUE, plots.RED], label=["200", "503"])
    axes.set_title(text("without a gate") if limit == 1000 else text("with a gate for four"))
    axes.set_ylabel(text("requests"))
panels[0].legend(loc="upper right")
panels[1].set_xlabel(text("seconds to the response"))
plots.show(
    figure,
    alt=text(
        "Two histograms of waiting times. Without a gate, they spread evenly over several seconds, up to five. With a gate for four, all answers come within half a second or so, and about half of the requests are refused in next to no time."
    ),
)

# %% [markdown]
# When we ran it, everybody got an answer without a gate: half of them within about 2.9 seconds, the last after 5.2, and it would have been worse had more come. With the gate, 42 of 80 got theirs in half a second, and 38 learned at once that they should come back. In the same five seconds the model did the same work; the difference is whether anybody was still there to read it.
#
# Two things such a test teaches. It sends at a **fixed rate**, whether answers come or not, as real clients do; a loop that waits for each answer before it asks again slows down with the service and hides the queue. And it shows the whole picture, not only a mean: what half of the clients waited and what the slowest waited are two different stories.
#
# ## The whole service
#
# All that is left is to put the parts together. Note the order: what is added as a middleware stands outside, so the gate comes first. The page at `/` is all that a browser needs. It reads the stream with `fetch`; the browser's own `EventSource` can only `GET`, and can send no key. (`/metrics` and `/docs` are for colleagues: at work, the proxy in front of the service passes neither on.)

# %%
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Harz Pumpen: ask the manual</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 38rem; margin: 2rem auto; padding: 0 1rem; color: #2b2f36;
         background: #fbfaf7 }
  form { display: grid; gap: .7rem }
  label { display: grid; gap: .2rem; font-weight: 600 }
  input, textarea { font: inherit; font-weight: 400; padding: .5rem; border: 1px solid #8a8f98; border-radius: 6px }
  button { font: inherit; padding: .5rem 1.2rem; border: 0; border-radius: 6px; background: #2c6fb2; color: white;
           justify-self: start }
  output { display: block; margin-top: 1.2rem; white-space: pre-wrap; min-height: 4rem }
  .error { color: #b8324a }
</style>
<h1>Ask the manual</h1>
<form>
  <label>Key <input name="key" type="password" required autocomplete="off"></label>
  <label>Question <textarea name="question" rows="2" maxlength="500" required>Why is my pump noisy?</textarea></label>
  <button>Ask</button>
</form>
<output aria-live="polite"></output>
<script>
  const form = document.querySelector("form"), output = document.querySelector("output");
  let asking = new AbortController();
  function show(text, isError) {
    output.className = isError ? "error" : "";
    output.textContent = text;  // as text, never as HTML: a model writes what strangers have asked it to write
  }
  async function ask(signal) {
    const response = await fetch("ask/stream", {
      method: "POST",
      signal,
      headers: {"Content-Type": "application/json", "Authorization": "Bearer " + form.key.value},
      body: JSON.stringify({question: form.question.value}),
    });
    if (!response.ok) return show((await response.json()).detail, true);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "", answer = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const events = (buffer + part.value).replaceAll("\\r\\n", "\\n").split("\\n\\n");
      buffer = events.pop();
      for (const event of events) {
        const field = name => event.split("\\n").filter(line => line.startsWith(name + ":"))
          .map(line => line.slice(name.length + 1)).join("\\n");
        if (!field("data")) continue;
        const name = field("event").trim(), data = JSON.parse(field("data"));
        if (name === "piece") show(answer += data.text);
        if (name === "error") show(answer + "\\n" + data.detail, true);
      }
    }
  }
  form.addEventListener("submit", event => {
    event.preventDefault();
    asking.abort();  // whoever asks again has left the answer before
    asking = new AbortController();
    show("…");
    ask(asking.signal).catch(error => error.name === "AbortError" || show("No connection.", true));
  });
</script>
</html>
"""


def service(answerer: Answerer, streamer: Streamer, keys: Mapping[str, str]) -> FastAPI:
    """Put the service together."""
    registry = CollectorRegistry()
    counter = Counter("requests", "Requests by route and status.", ["route", "status"], registry=registry)
    bucket = TokenBucket(rate=0.5, capacity=5, clock=time.monotonic)
    client_of = require_key(keys)

    async def limited(client: str = Depends(client_of)) -> None:
        if seconds := bucket.take(client):
            raise HTTPException(429, f"Please wait {seconds} s.", headers={"Retry-After": str(seconds)})

    app = create_app(answerer, [Depends(limited)])
    app.include_router(stream_router(streamer), dependencies=[Depends(limited)])
    app.add_middleware(Gate, limit=4, counter=counter)

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        return PAGE

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        return generate_latest(registry).decode()

    return app


# %% [markdown]
# `limited` is a dependency with a dependency: FastAPI first asks `client_of` and hands over the name. It is an `async def` so that requests take their tokens in the event loop, one after the other: in threads, two could take the same one. (The picture at the beginning simplifies one thing: FastAPI reads the JSON before it asks the guards, so what is sent as JSON and is none is refused even without a key.) Let us see the service refuse, with an answerer that says yes to everything.

# %% tags=["demo"]
with serving(service(lambda question: Answer(text="Yes.", sources=[]), stream_from_manual, KEYS)) as url:
    headers = {"Authorization": f"Bearer {KEYS['website']}"}
    stranger = {"Authorization": "Bearer hp_ü".encode()}
    everybody = [stranger, *[headers] * 7]
    responses = [httpx.post(f"{url}/ask", json={"question": "Why?"}, headers=headers) for headers in everybody]
    print([response.status_code for response in responses])
    print(responses[-1].headers["retry-after"], responses[-1].text)
    print(httpx.get(f"{url}/metrics").text)

# %% [markdown]
# And now in the browser. The cell prints an address and a key: open the one, paste the other, ask, and ask again quickly until you meet a 429. (The page is the same in every language. If your Jupyter runs on another computer, the address leads nowhere on yours.) The service runs until you run the cell after the next: do so when you are done.

# %% tags=["demo"]
running = Server(service(answer_from_manual, stream_from_manual, KEYS))
print(f"{running.url}\nkey: {KEYS['website']}")

# %% tags=["demo"]
running.stop()

# %% [markdown]
# ## Where did the time go?
#
# A customer says: "It is slow." The counter says how many answers failed, not how long they took; a **trace** shows why one was slow. **OpenTelemetry** is the standard for it: each step of an answer becomes a *span* with a beginning, an end and a few attributes, and a span inside another is its child. At work an *exporter* sends them to a program that draws them; ours keeps them in memory.

# %% tags=["demo"]
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("service")


def traced_answerer(question: str) -> Answer:
    """Answer like `answer_from_manual`, in spans. The question itself is in none of them: only its length is."""
    with tracer.start_as_current_span("answer", attributes={"question.characters": len(question)}):
        with tracer.start_as_current_span("retrieve"):
            passage = passage_for(question)
        with tracer.start_as_current_span("generate", attributes={"gen_ai.request.model": MODEL}) as span:
            with tracer.start_as_current_span("first token"):
                chunks = client.chat.completions.create(
                    model=MODEL, messages=chat(question, passage), temperature=0, max_tokens=60, stream=True
                )
                first = next(chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content)
            pieces = [first.choices[0].delta.content or ""]
            pieces += [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
            span.set_attribute("gen_ai.pieces", len(pieces))
        with tracer.start_as_current_span("check"):
            words = "".join(pieces).lower().split()
            supported = sum(word in passage.lower() for word in words) / len(words)
        return Answer(text="".join(pieces), sources=[passage] if supported > 0.5 else [])


traced_answerer("How often do I grease the bearings?")
spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time)
begin = spans[0].start_time
figure = plots.figure(height=2.6)
axes = figure.subplots()
for row, span in enumerate(spans):
    start, took = (span.start_time - begin) / 1e6, (span.end_time - span.start_time) / 1e6
    axes.barh(row, took, left=start, height=0.6, color=plots.BLUE if span.parent else plots.GREY)
    right = start + took > 0.7 * (spans[0].end_time - begin) / 1e6
    place = {"x": start if right else start + took, "ha": "right" if right else "left"}
    if not (right and start < 1):
        axes.text(place["x"], row, f"  {took:.1f} ms  ", va="center", ha=place["ha"], fontsize=9)
    else:
        axes.text(start + took / 2, row, f"{took:.1f} ms", va="center", ha="center", fontsize=9, color=plots.PAPER)
axes.set_yticks(range(len(spans)), [span.name for span in spans])
axes.invert_yaxis()
axes.grid(False, axis="y")
axes.set_xlabel(text("milliseconds since the question arrived"))
plots.show(
    figure,
    alt=text(
        "The spans of one answer as bars over time. The span answer is as long as all of it, and generate nearly so. Inside it, the first token takes a part of the time. Retrieve and check are too short to be seen."
    ),
)

# %% [markdown]
# When we ran it, nearly all of the 3.2 seconds went into `generate`, and all but the first 65 milliseconds of that into writing. So a faster search would help nobody, and a shorter answer everybody. This is what a trace is for: you look before you optimise.
#
# At work one more thing makes traces valuable: the trace's number travels with the request from service to service, in the header `traceparent`, so the picture goes on in the service that you call.
#
# ## Into a box
#
# The last step makes your service run on another computer as it runs on yours: a **container**, a file system with Python, your packages and your code. This file, `Containerfile`, says how it is made; `podman build .` or `docker build .` makes it.
#
# ```dockerfile
# FROM python:3.13-slim
# RUN useradd --create-home app
# WORKDIR /app
# COPY requirements.txt .
# RUN pip install --no-cache-dir -r requirements.txt
# COPY service.py .
# USER app
# EXPOSE 8000
# CMD ["uvicorn", "service:app", "--host", "0.0.0.0", "--port", "8000"]
# ```
#
# * `service.py` is the code of this notebook without its checks, measurements and pictures, with your answerer and streamer; it reads the keys from the environment, and ends with `app = service(...)`.
# * Packages come before the code, with exact versions: whatever changes rarely stands above, and is not rebuilt when only `service.py` has changed.
# * `USER app`: if somebody breaks in, they are not root.
# * There is no key in it. Keys and the model's address come from outside, as environment variables, when the container starts.
# * `--host 0.0.0.0` listens to everybody. In front of it stands a proxy that speaks HTTPS: without that, keys travel in the open.
# * Whatever runs the container asks for its health, at `/healthz`.
#
# ## What you can do now
#
# * Turn a function into an app that stays awake while a model writes, and whose errors help the right people and tell nobody else anything.
# * Stream an answer as server-sent events, and give back what it holds, also when the reader goes away.
# * Let clients in by a key, limit each with a token bucket, and shed load with an honest 503.
# * Measure a service under load, count without collecting secrets, and see in a trace where an answer's time goes.
#
# **Where it breaks in production.** Buckets and gates count in one process. With several workers or containers each has its own, and the limit for all is their sum; shared ones live in Redis or in the proxy. A proxy that buffers undoes your streaming: look for its setting. Endpoints with `def` share 40 threads, and what waits for the forty-first waits unseen: keep the gate's limit below. The gate also counts whoever sends a request and never finishes it; the proxy needs a time limit for that. And a key that is stolen works until somebody takes it out of the list: make that easy before it happens.
#
# **In libraries.** FastAPI has `EventSourceResponse` in `fastapi.sse`, which writes events for you and sends a sign of life when a model is silent for long; *slowapi* and proxies limit rates; `opentelemetry-instrumentation-fastapi` makes a span of each request. Now you know what they do for you, and what to ask of them.
#
# **To read next:** FastAPI's page on [`async` and `def`](https://fastapi.tiangolo.com/async/); the [ASGI specification](https://asgi.readthedocs.io/en/latest/specs/main.html), which is short; MDN on [server-sent events](https://developer.mozilla.org/en-US/docs/Web/API/Server-sent_events/Using_server-sent_events); the chapter *Handling Overload* of Google's [*Site Reliability Engineering*](https://sre.google/sre-book/handling-overload/); and the [Prometheus practices](https://prometheus.io/docs/practices/naming/) on names and labels.
