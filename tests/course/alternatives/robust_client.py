"""The tasks of robust_client, solved in another style."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import openai
from openai import OpenAI

MODEL = "SmolLM2-135M-Instruct"


def passes(error: Exception) -> bool:
    match error:
        case openai.APIStatusError():
            return error.status_code in (408, 429, 500, 502, 503, 504)
        case openai.APIConnectionError() | ValueError():
            return True
    return False


def with_retries(client: OpenAI, messages: Any, **options: Any) -> str:
    attempts, sleep = options["attempts"], options["sleep"]
    started = options["clock"]()
    bound = options["base"]

    def pause(error: Exception) -> float:
        header = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
        if re.fullmatch(r"\d+(\.\d+)?", header):
            return float(header)
        return float(options["jitter"]() * min(options["cap"], bound))

    for left in reversed(range(attempts)):
        try:
            reply = client.with_options(max_retries=0).chat.completions.create(model=MODEL, messages=messages)
        except Exception as error:
            if not passes(error) or not left:
                raise
            seconds = pause(error)
            if options["deadline"] - (options["clock"]() - started) <= seconds:
                raise
            sleep(seconds)
            bound *= 2
        else:
            return str(reply.choices[0].message.content)
    raise AssertionError


class request_cache:  # noqa: N801 (the task's name)
    def __init__(self, client: Any, seconds: float, clock: Callable[[], float]) -> None:
        self.ask, self.seconds, self.clock = client.chat.completions.create, seconds, clock
        self.known: list[tuple[Any, float, dict[str, Any]]] = []

    def create(self, **request: Any) -> dict[str, Any]:
        now = self.clock()
        self.known = [entry for entry in self.known if now - entry[1] < self.seconds]
        wanted = {
            name: deepcopy(value)
            for name, value in request.items()
            if name in ("model", "messages", "temperature", "max_tokens", "response_format") and value is not None
        }
        for asked, _came, reply in self.known:
            if asked == wanted:
                return deepcopy(reply)
        fresh = self.ask(**request)
        self.known.append((wanted, self.clock(), fresh.model_dump()))
        return fresh.to_dict()  # type: ignore[no-any-return]


async def gather_limited(jobs: Sequence[Callable[[], Awaitable[Any]]], limit: int) -> list[Any]:
    results: dict[int, Any] = {}
    waiting = iter(enumerate(jobs))

    async def worker() -> None:
        for place, job in waiting:
            try:
                results[place] = await job()
            except Exception as error:
                results[place] = error

    async with asyncio.TaskGroup() as group:
        for _number in range(min(limit, len(jobs))):
            group.create_task(worker())
    return [results[place] for place in range(len(jobs))]


class Answer(NamedTuple):
    text: str
    provider: str


class NoProviderError(RuntimeError):
    pass


def first_available(providers: Any, messages: Any) -> Answer:
    def ask(left: Any, refused: tuple[str, ...]) -> Answer:
        if not left:
            raise NoProviderError(", ".join(refused))
        name, client, model = left[0]
        try:
            reply = client.chat.completions.create(messages=messages, model=model)
        except Exception as error:
            if passes(error):
                return ask(left[1:], (*refused, name))
            raise
        return Answer(provider=name, text=reply.choices[0].message.content)

    return ask(providers, ())


class pseudonymiser:  # noqa: N801 (the task's name)
    """One kind after the other, each secret by a replacement of its own."""

    _EMAIL = r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    _CUSTOMER = r"\bK-[0-9]{5}\b"
    _PHONE = r"(?<!\w)(?:\+|0)[0-9](?:[ /-]?[0-9]){6,14}\b"
    _PLACEHOLDER = r"(?<!\w)(PERSON|EMAIL|PHONE|CUSTOMER)_\d+(?!\w)"

    def __init__(self, names: Sequence[str]) -> None:
        people = [rf"\b{re.escape(name)}\b" for name in sorted(names, key=lambda name: -len(name))]
        self.patterns = [("EMAIL", self._EMAIL), ("CUSTOMER", self._CUSTOMER), ("PHONE", self._PHONE)]
        self.patterns += [("PERSON", person) for person in people]
        self.table: list[tuple[str, str]] = []  # (kind, secret); the number is the place

    def pseudonymise(self, text: str) -> str:
        if re.search(self._PLACEHOLDER, text):
            raise UnicodeError("refused")  # a ValueError too
        for kind, pattern in self.patterns:
            text = re.sub(pattern, lambda match, kind=kind: self._number(kind, match[0]), text)  # type: ignore[misc]
        return text

    def _number(self, kind: str, secret: str) -> str:
        if (kind, secret) not in self.table:
            self.table.append((kind, secret))
        return f"{kind}_{self.table.index((kind, secret))}"

    def restore(self, text: str) -> str:
        known = {f"{kind}_{number}": secret for number, (kind, secret) in enumerate(self.table)}
        return "".join(known.get(word, word) for word in re.split(r"(\w+)", text))
