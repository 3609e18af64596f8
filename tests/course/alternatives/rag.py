"""The tasks of rag, solved in another style."""

import itertools
import math
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from openai import OpenAI
from pydantic import BaseModel

INSTRUCTIONS = (
    "Answer the question from the numbered sources alone, in one sentence, and end it with the number of its source, "
    "like [1]. If the sources do not answer it, say: not found."
)
BRACKETS = MappingProxyType(str.maketrans("[]", "()"))


class Prompt(NamedTuple):
    sources: Any
    messages: Any


def _plain(text: str) -> str:
    import re

    return re.sub(r"\s+", " ", text.translate(BRACKETS)).strip()


def _messages(instructions: str, question: str, sources: Sequence[str]) -> list[dict[str, Any]]:
    user = "".join(f"[{number + 1}] {_plain(source)}\n" for number, source in enumerate(sources))
    content = [{"type": "text", "text": user}, {"type": "text", "text": f"Question: {_plain(question)}"}]
    return [{"role": "developer", "content": instructions}, {"role": "user", "content": content}]


def build_prompt(
    instructions: str, question: str, sources: Sequence[str], budget: int, count_tokens: Callable[[str], int]
) -> Prompt:
    def size(messages: list[dict[str, Any]]) -> int:
        return count_tokens(instructions) + count_tokens("".join(part["text"] for part in messages[1]["content"]))

    best = None
    for shown in range(len(sources) + 1):
        messages = _messages(instructions, question, sources[:shown])
        if size(messages) > budget:
            break
        best = Prompt(tuple(sources[:shown]), messages)
    if best is None:
        raise ValueError(question)
    return best


class CitationError(ValueError):
    pass


def cited_sources(reply: str, count: int) -> list[int]:
    found: list[int] = []
    for piece in reply.split("[")[1:]:
        inside, closed, _rest = piece.partition("]")
        numbers = [part.strip() for part in inside.split(",")]
        if not closed or not all(number.isascii() and number.isdigit() for number in numbers):
            continue
        found.extend(number for number in map(int, numbers) if number not in found)
    if found and all(number in range(1, count + 1) for number in found):
        return list(dict.fromkeys(found))
    raise CitationError(reply)


class Answer(BaseModel):
    outcome: str
    sources: tuple[str, ...] = ()
    text: str = "I found nothing about this in our manual."


def answer(client: OpenAI, question: str, retrieve: Callable[[str], list[Any]], threshold: float) -> Answer:
    good = list(
        filter(lambda hit: not math.isnan(hit["similarity"]) and hit["similarity"] >= threshold, retrieve(question))
    )
    prompt = build_prompt(INSTRUCTIONS, question, [hit["text"] for hit in good], 600, lambda text: -(-len(text) // 4))
    if len(prompt.sources) == 0:
        return Answer(outcome="not_found")
    create: Any = client.chat.completions.create
    reply = create(model="SmolLM2-135M-Instruct", messages=prompt.messages).choices[0].message.content
    try:
        cited = cited_sources(reply, len(prompt.sources))
    except CitationError:
        return Answer(outcome="unverified")
    return Answer(outcome="answered", text=reply, sources=tuple(good[number - 1]["text"] for number in cited))


def _sentences(text: str) -> list[str]:
    import re

    plain = re.sub(r"\s*\[[0-9, ]+\]", "", text).strip()
    return [sentence for sentence in re.split(r"(?<=[.!?])\s+", plain) if sentence]


def faithfulness(
    answer: str, sources: Sequence[str], embed: Callable[[list[str]], np.ndarray], threshold: float
) -> Any:
    evidence = list(itertools.chain.from_iterable(map(_sentences, sources)))

    def is_supported(claim: str) -> bool:
        (one,) = embed([claim])
        for (other,) in (embed([sentence]) for sentence in evidence):
            lengths = float(np.sqrt((one @ one) * (other @ other)))
            if lengths and one @ other / lengths >= threshold:
                return True
        return False

    claims = _sentences(answer)
    return np.float64(sum(map(is_supported, claims)) / len(claims)) if claims else 0
