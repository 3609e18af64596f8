"""The tasks of service, solved in another style."""

import asyncio
import contextlib
import json
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from fractions import Fraction
from hashlib import sha256
from hmac import compare_digest
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, HTTPException, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import StreamingResponse


class Question(BaseModel, extra="forbid"):
    question: Annotated[str, Field(min_length=1, max_length=500)]


def _problem(status: int, detail: str, **headers: str) -> JSONResponse:
    content = {"status": status, "title": "Error", "detail": detail, "type": "https://harz-pumpen.example/errors"}
    response = JSONResponse(content, status_code=status, headers=headers)
    response.headers["Content-Type"] = "application/problem+json; charset=utf-8"
    return response


def create_app(answerer: Callable[[str], Any], guards: Sequence[Any] = ()) -> FastAPI:
    """An async endpoint that leaves the waiting to a thread, and catches the answerer's errors itself."""

    async def framework(_request: Request, error: Any) -> JSONResponse:
        response = _problem(error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    async def invalid(_request: Request, error: Any) -> JSONResponse:
        fields = sorted({str(fault["loc"][-1]) if len(fault["loc"]) > 1 else "body" for fault in error.errors()})
        return _problem(422, "Invalid: " + ", ".join(fields))

    async def unexpected(_request: Request, _error: Any) -> JSONResponse:
        return _problem(500, "We are sorry.")

    app = FastAPI(exception_handlers={StarletteHTTPException: framework, RequestValidationError: invalid})
    app.add_exception_handler(Exception, unexpected)
    router = APIRouter(dependencies=list(guards))

    @router.post("/ask", response_model=None)
    async def ask(question: Annotated[Question, Body()]) -> dict[str, Any] | JSONResponse:
        try:
            answer = await run_in_threadpool(answerer, question.question)
        except Exception:
            logging.getLogger("alternative").exception("no answer")
            return _problem(500, "We are sorry.")
        return {"sources": answer.sources, "text": answer.text}

    app.include_router(router)
    app.add_api_route("/healthz", lambda: {"status": "ok"})
    return app


def stream_router(streamer: Callable[[str], Any]) -> APIRouter:
    """Bytes instead of text, a task that closes instead of a shielded scope, and JSON over several lines."""

    def event(name: str, **data: str) -> bytes:
        lines = json.dumps(data, ensure_ascii=False, indent=1).splitlines() if name != "piece" else [json.dumps(data)]
        return "\r\n".join(["id: 1", f"event:{name}", *(f"data:{line}" for line in lines), "", ""]).encode()

    async def events(question: str) -> AsyncIterator[bytes]:
        pieces = streamer(question)
        last = event("done")
        try:
            async for piece in pieces:
                yield event("piece", text=piece)
        except Exception as error:
            logging.getLogger("alternative").error("broken off: %s", type(error).__name__)
            last = event("error", detail=f"Broken off ({len(type(error).__name__)}).")
        finally:
            await asyncio.shield(asyncio.ensure_future(pieces.aclose()))
        yield b": the end comes now\r\n\r\n" + last

    router = APIRouter(prefix="/ask")

    @router.post("/stream")
    def respond(question: Question) -> StreamingResponse:
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        return StreamingResponse(events(question.question), headers=headers, background=BackgroundTask(lambda: None))

    return router


def require_key(keys: Mapping[str, str]) -> Callable[..., str]:
    """FastAPI's own way to read a bearer token, and hashes instead of keys."""
    names = {sha256(key.encode()).digest(): name for name, key in keys.items()}

    def client_of(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False))],
    ) -> str:
        if credentials is not None:
            hashed = sha256(credentials.credentials.encode("utf-8", "surrogatepass")).digest()
            for known, name in names.items():
                if compare_digest(known, hashed):
                    return name
        logging.getLogger("alternative").error("refused")
        raise HTTPException(401, headers={"WWW-Authenticate": 'Bearer realm="pumps"'})

    return client_of


class token_bucket:  # noqa: N801
    """Remembers when a bucket will be full again, instead of how full it is."""

    def __init__(self, rate: float, capacity: int, clock: Callable[[], float]) -> None:
        self.interval, self.clock = 1 / Fraction(rate), clock
        self.slack = (capacity - 1) * self.interval
        self.full_at: dict[str, Fraction] = defaultdict(Fraction)

    def take(self, client: str) -> int:
        now = Fraction(self.clock())
        full_at = max(self.full_at[client], now)
        early = full_at - self.slack - now
        if early > 0:
            return -int(-early // 1)
        self.full_at[client] = full_at + self.interval
        return 0


class gate:  # noqa: N801
    """A set of those inside, and a refusal written by hand."""

    def __init__(self, app: Any, limit: int, counter: Any) -> None:
        self.app, self.limit, self.counter = app, limit, counter
        self.guests: set[int] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        statuses: list[int] = []

        async def watched(message: Any) -> None:
            statuses.extend([message["status"]] if "status" in message else [])
            await send(message)

        with contextlib.ExitStack() as stack:
            stack.callback(lambda: self._count(scope, statuses))
            if scope["path"] != "/healthz":
                if len(self.guests) == self.limit:
                    await self._refuse(watched)
                    return
                self.guests.add(id(scope))
                stack.callback(self.guests.remove, id(scope))
            await self.app(scope, receive, watched)

    def _count(self, scope: Any, statuses: list[int]) -> None:
        route = scope["route"].path if "route" in scope else "none"
        self.counter.labels(route=route, status=str(statuses[0] if statuses else 500)).inc()

    async def _refuse(self, send: Any) -> None:
        body = {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": "Full."}
        headers = [(b"content-type", b"application/problem+json"), (b"retry-after", b"1")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})
