"""The tasks of structured_output, solved in another style."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, NamedTuple

from openai import OpenAI
from pydantic import BaseModel, Field, StringConstraints, ValidationError, field_validator


def ticket() -> type[BaseModel]:
    class Category(Enum):
        LEAK = "leak"
        NOISE = "noise"
        ELECTRICAL = "electrical"
        DELIVERY = "delivery"
        OTHER = "other"

    class Ticket(BaseModel, extra="forbid", frozen=True):
        serial: str | None = None
        summary: Annotated[str, StringConstraints(min_length=1, max_length=80)]
        priority: Annotated[int, Field(gt=0, lt=6)]
        category: Category

        @field_validator("serial")
        @classmethod
        def _four_digits(cls, serial: str | None) -> str | None:
            if serial is None:
                return None
            head, _dash, digits = serial.partition("-")
            if head != "HP" or len(digits) != 4 or not (digits.isascii() and digits.isdigit()):
                raise ValueError("a serial number is HP- and four digits")
            return serial

    return Ticket


FORM = (
    "Turn the customer's message into a ticket: one JSON object with category (leak, noise, electrical, delivery or "
    "other), priority from 1 (can wait) to 5 (standstill), summary (a few words) and serial (HP- and four digits)."
)


class ExtractionError(RuntimeError):
    pass


def extract(client: OpenAI, message: str, schema: type[BaseModel]) -> BaseModel:
    def ask(*further: dict[str, str]) -> str:
        chat: Any = [{"role": "developer", "content": FORM}, {"role": "user", "content": message}]
        form: Any = {"name": "form", "strict": True, "schema": schema.model_json_schema(mode="validation")}
        create: Any = client.chat.completions.create
        reply = create(
            model="SmolLM2-135M-Instruct",
            messages=[*chat, *further],
            response_format={"type": "json_schema", "json_schema": form},
        )
        return str(reply.choices[0].message.content)

    first = ask()
    try:
        return schema.model_validate_json(first)
    except ValidationError as error:
        found = "\n".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
    second = ask({"role": "assistant", "content": first}, {"role": "user", "content": f"Please correct:\n{found}"})
    try:
        return schema.model_validate_json(second)
    except ValidationError as error:
        raise ExtractionError(second) from error


def few_shot_messages(instructions: str, pool: Any, question: str, count: int) -> list[dict[str, Any]]:
    chat: list[dict[str, Any]] = [{"role": "system", "content": instructions}]
    for message, label in pool:
        if len(chat) > 2 * count:
            break
        if message.casefold().split() == question.casefold().split():
            continue
        chat.append({"role": "user", "content": [{"type": "text", "text": message}]})
        chat.append({"role": "assistant", "content": label})
    chat.append({"role": "user", "content": question})
    return chat


class Evaluation(NamedTuple):
    accuracy: Any
    interval: Any
    confusion: Any


def evaluate(truth: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> Evaluation:
    import numpy as np
    from scipy.stats import binomtest

    right = sum(true == answer for true, answer in zip(truth, predicted, strict=True))
    interval = binomtest(right, len(truth)).proportion_ci(method="wilson")
    cells = Counter((true, answer if answer in labels else None) for true, answer in zip(truth, predicted, strict=True))
    matrix = np.array([[cells[true, answer] for answer in (*labels, None)] for true in labels])
    return Evaluation(np.float64(right / len(truth)), (interval.low, interval.high), matrix)


@dataclass
class Comparison:
    p_value: float
    lost: int
    gained: int
    chosen: str


def compare_prompts(
    development: Mapping[str, Sequence[bool]], test: Mapping[str, Sequence[bool]], baseline: str
) -> Comparison:
    *_worse, (_score, chosen) = sorted((sum(hits), name) for name, hits in development.items() if name != baseline)
    counts = Counter(zip(test[chosen], test[baseline], strict=True))
    gained, lost = counts[True, False], counts[False, True]
    n = gained + lost
    # Every split of n tosses that is at least as uneven as this one.
    uneven = sum(math.comb(n, heads) for heads in range(n + 1) if abs(2 * heads - n) >= abs(gained - lost))
    return Comparison(uneven / 2**n, lost, gained, chosen)
