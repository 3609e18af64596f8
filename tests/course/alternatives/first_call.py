"""The tasks of first_call, solved in another style."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from decimal import ROUND_HALF_UP, Decimal, localcontext
from itertools import accumulate, takewhile
from typing import Any

from openai import OpenAI
from openai.types import CompletionUsage

_SETTINGS: dict[str, Any] = {"model": "SmolLM2-135M-Instruct", "temperature": 0.2, "max_tokens": 300}


def ask(client: OpenAI, question: str, instructions: str = "") -> str:
    parts = [{"type": "text", "text": question}]
    messages: Any = [{"role": "developer", "content": instructions}, {"role": "user", "content": parts}]
    match client.chat.completions.create(messages=messages, **_SETTINGS).choices:
        case [choice, *_]:
            return str(choice.message.content)
    raise AssertionError("a reply without choices")


def cost(usage: CompletionUsage, prices: Mapping[str, Decimal]) -> Decimal:
    cached = getattr(usage.prompt_tokens_details, "cached_tokens", None) or 0
    with localcontext(prec=60, rounding=ROUND_HALF_UP):
        bill = Decimal(usage.prompt_tokens) * prices["input"]
        bill -= cached * (prices["input"] - prices["cached_input"])
        bill += usage.completion_tokens * prices["output"]
        return round(bill.scaleb(-6), 4)


def stream(client: OpenAI, question: str, instructions: str = "") -> Iterator[str]:
    messages: Any = [{"role": "system", "content": instructions}, {"role": "user", "content": question}]
    create: Any = client.chat.completions.create
    with closing(create(messages=messages, stream=True, stream_options={"include_usage": True}, **_SETTINGS)) as chunks:
        yield from filter(None, (choice.delta.content for chunk in chunks for choice in chunk.choices))


class conversation:  # noqa: N801
    def __init__(self, client: OpenAI, instructions: str, budget: int, count_tokens: Callable[[str], int]) -> None:
        self._complete: Any = client.chat.completions.create
        self._system = {"role": "system", "content": instructions}
        self._turns: list[tuple[dict[str, str], dict[str, str]]] = []
        self._count_tokens = count_tokens
        self._room = budget - self._count(self._system)

    def _count(self, *messages: dict[str, str]) -> int:
        return sum(self._count_tokens(message["content"]) for message in messages)

    def ask(self, question: str) -> str:
        asked = {"role": "user", "content": question}
        room = self._room - self._count(asked)
        if room < 0:
            raise ValueError("too long")
        newest_first = self._turns[::-1]
        sizes = accumulate(self._count(*turn) for turn in newest_first)
        fitting = len(list(takewhile(lambda size: size <= room, sizes)))
        kept = [message for turn in reversed(newest_first[:fitting]) for message in turn]
        reply = self._complete(messages=[self._system, *kept, asked], **_SETTINGS)
        text = str(reply.choices[0].message.content)
        self._turns.append((asked, {"role": "assistant", "content": text}))
        return text
