"""What the units share that look at conversations with a model: lines nobody knows beforehand, messages as text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# fmt: off
WORDS = (
    "pump", "seal", "valve", "motor", "bearing", "shaft", "pressure", "flow", "oil", "filter", "gasket", "Müller",
    "Jürgen", "Zoë", "check", "replace", "leaks", "noisy", "warm", "Tuesday", "invoice", "delivery", "van", "customer",
    "ticket", "urgent", "thanks",
)
# fmt: on


def sentence(rng: "np.random.Generator", words: int = 6) -> str:
    """Return a line that no answer can know beforehand."""
    return " ".join(rng.choice(WORDS, size=words)) + f" {rng.integers(1000, 10_000)}"


def names_model(body: Mapping[str, Any] | None) -> bool:
    """Whether a request goes to the notebook's `MODEL`; where an answer runs elsewhere, that is the embedded GPT."""
    from kicourse.models import gpt

    return (body or {}).get("model") in (gpt.model(), gpt.MODEL)


def message(message: Any) -> tuple[str, str]:
    """Return a chat message as (role, text), however it is written."""
    role, content = (message.get(key) for key in ("role", "content")) if isinstance(message, dict) else ("", message)
    if isinstance(content, list):  # text in parts is another way to write the same
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "system" if role == "developer" else str(role), "" if content is None else str(content)


def said(messages: Sequence[tuple[str, str]], width: int = 80) -> str:
    """Return messages in one line for a verdict, each of them cut at `width` characters."""
    return short(" · ".join(f"{role}: {short(text, width)}" for role, text in messages), 700)


def short(text: str, width: int = 200) -> str:
    """Return a text, cut at `width` characters."""
    return text if len(text) <= width else text[: width - 1] + "…"
