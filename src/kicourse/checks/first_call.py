"""The checks of `first_call`: talk to a GPT. Every answer gets a real client that talks to a scripted server."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from kicourse.answers.handle import unobserved
from kicourse.checks import Check, Handle, Trial, _
from kicourse.checks.scripted_server import Completion, Failure, Reply, Request, ScriptedServer

if TYPE_CHECKING:
    import numpy as np

# fmt: off
_WORDS = (
    "pump", "seal", "valve", "motor", "bearing", "shaft", "pressure", "flow", "oil", "filter", "gasket",
    "Pumpe", "Dichtung", "Welle", "Lager", "Druck", "Öl", "prüfen", "check", "replace", "leaks", "noisy",
    "warm", "Tuesday", "invoice", "delivery", "van", "customer", "ticket", "urgent", "thanks",
)
# fmt: on


def _sentence(rng: "np.random.Generator", words: int = 6) -> str:
    """Return a line that no answer can know beforehand."""
    return " ".join(rng.choice(_WORDS, size=words)) + f" {rng.integers(1000, 10_000)}"


def _client(answer: Handle, server: ScriptedServer) -> Handle:
    return answer.build("openai_client", base_url=server.url)


def _messages(trial: Trial, request: Request) -> list[tuple[str, str]]:
    """Return the request's messages as (role, text); fail with words if they are no list of messages."""
    messages = (request.body or {}).get("messages")
    trial.require(isinstance(messages, list), _("The request has no list of messages."), expected="messages=[...]")
    return [_message(message) for message in messages or []]


def _message(message: Any) -> tuple[str, str]:
    role, content = (message.get(key) for key in ("role", "content")) if isinstance(message, dict) else ("", message)
    if isinstance(content, list):  # text in parts is another way to write the same
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "system" if role == "developer" else str(role), str(content)


def _said(messages: Sequence[tuple[str, str]]) -> str:
    return " · ".join(f"{role}: {text}" for role, text in messages)


def _only_request(trial: Trial, server: ScriptedServer) -> Request:
    count = len(server.requests)
    trial.require(count == 1, _("Your code sent {count} requests; one question is one request."), count=count)
    return server.requests[0]


# ---------------------------------------------------------------- ask

ask = Check(
    "first_call",
    "ask",
    title=_("Ask a question"),
    hints=(
        _("A chat is a list of messages. Whose words come first, and in which role?"),
        _("Send `[{\"role\": \"system\", ...}, {\"role\": \"user\", ...}]`. The reply is an object: the text lies in "
          "the first of its choices."),
        _("`reply = client.chat.completions.create(model=MODEL, messages=[...])`, then "
          "`reply.choices[0].message.content`."),
    ),
)  # fmt: skip


@ask.criterion(
    _("returns the text of the reply"),
    points=0.5,
    why=_("Whoever calls your function wants words to show, not the client library's objects."),
)
def returns_text(trial: Trial, answer: Handle) -> None:
    text = _sentence(trial.rng)
    server = trial.server([Completion(text)])
    got = answer(_client(answer, server), _sentence(trial.rng), _sentence(trial.rng))
    trial.equal(got, text, _("That is not the text of the reply."))
    _only_request(trial, server)


@ask.criterion(
    _("sends the question in the role of the user"),
    points=0.5,
    why=_("The model answers the last thing that the user said; it has to be the question, word for word."),
)
def sends_question(trial: Trial, answer: Handle) -> None:
    question = _sentence(trial.rng)
    messages = _asked(trial, answer, question, _sentence(trial.rng))
    trial.require(
        messages[-1:] == [("user", question)],
        _("The last message is not the question in the role of the user. The messages were: {messages}"),
        messages=_said(messages),
        expected=_said([("user", question)]),
    )


@ask.criterion(
    _("sends the instructions in the role of the system"),
    points=0.5,
    why=_("Without its instructions the model is anybody's assistant: it no longer knows whom it works for."),
)
def sends_instructions(trial: Trial, answer: Handle) -> None:
    question, instructions = _sentence(trial.rng), _sentence(trial.rng, words=9)
    messages = _asked(trial, answer, question, instructions)
    trial.require(
        ("system", instructions) in messages[:-1],
        _("No message before the question has the instructions as the system's words. The messages were: {messages}"),
        messages=_said(messages),
        expected=_said([("system", instructions)]),
    )


@ask.criterion(
    _("sends nothing else, the second time neither"),
    points=0.5,
    why=_("What another customer asked a minute ago costs money in every later request, and it is none of this "
          "customer's business."),
)  # fmt: skip
def sends_nothing_else(trial: Trial, answer: Handle) -> None:
    for _turn in range(2):
        question, instructions = _sentence(trial.rng), _sentence(trial.rng)
        messages = _asked(trial, answer, question, instructions)
        wanted = [("system", instructions), ("user", question)]
        trial.require(
            messages == wanted,
            _("{count} messages were sent, and they are not just the instructions and the question: {messages}"),
            count=len(messages),
            messages=_said(messages),
            expected=_said(wanted),
        )


def _asked(trial: Trial, answer: Handle, question: str, instructions: str) -> list[tuple[str, str]]:
    """Ask one question; return the messages that reached the server."""
    server = trial.server([Completion(_sentence(trial.rng))])
    answer(_client(answer, server), question, instructions)
    return _messages(trial, _only_request(trial, server))


def _chat(*messages: tuple[str, str]) -> list[Any]:
    return [{"role": role, "content": content} for role, content in messages]


def _reply(client: Any, *messages: tuple[str, str]) -> Any:
    return client.chat.completions.create(model="gpt", messages=_chat(*messages))


@ask.misconception(_("a request without its system message"))
def system_dropped(client: Any, question: str, instructions: str = "") -> Any:
    return _reply(client, ("user", question)).choices[0].message.content


@ask.misconception(_("the message object instead of its text: `.content` is missing"))
def message_returned(client: Any, question: str, instructions: str = "") -> Any:
    return _reply(client, ("system", instructions), ("user", question)).choices[0].message


@ask.misconception(_("the whole reply instead of the text in it"))
def reply_returned(client: Any, question: str, instructions: str = "") -> Any:
    return _reply(client, ("system", instructions), ("user", question))


@ask.misconception(_("both texts glued into one message of the user"))
def glued(client: Any, question: str, instructions: str = "") -> Any:
    return _reply(client, ("user", f"{instructions}\n\n{question}")).choices[0].message.content


@ask.misconception(_("the instructions and the question with their roles swapped"))
def roles_swapped(client: Any, question: str, instructions: str = "") -> Any:
    return _reply(client, ("user", instructions), ("system", question)).choices[0].message.content


# ---------------------------------------------------------------- cost

cost = Check(
    "first_call",
    "cost",
    title=_("What a call costs"),
    hints=(
        _("Which token counts are part of another one? Count each token once, at its own price."),
        _("Cached tokens are already among `prompt_tokens`: take them out and charge them apart. Reasoning tokens are "
          "already among `completion_tokens` and cost the same. The details may be missing: `None` means zero."),
        _("`fresh = usage.prompt_tokens - cached`; add the three products, divide by `Decimal(1_000_000)`, and round "
          "once: `.quantize(Decimal(\"0.0001\"), rounding=ROUND_HALF_UP)`."),
    ),
)  # fmt: skip

_PLACES = Decimal("0.0001")
_MILLION = Decimal(1_000_000)


def _prices(rng: "np.random.Generator") -> dict[str, Decimal]:
    """Dollars for a million tokens, so many that a single token shows in the fourth decimal place."""
    fresh = Decimal(int(rng.integers(30_000, 90_000))) / 100
    return {"input": fresh, "cached_input": fresh / 4, "output": fresh * int(rng.integers(3, 7))}


def _usage(prompt: int, completion: int, cached: int | None = None, reasoning: int | None = None) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": None if cached is None else {"cached_tokens": cached},
        "completion_tokens_details": None if reasoning is None else {"reasoning_tokens": reasoning},
    }


def _exact(usage: Mapping[str, Any], prices: Mapping[str, Decimal]) -> Decimal:
    cached: int = (usage["prompt_tokens_details"] or {}).get("cached_tokens") or 0
    fresh: int = usage["prompt_tokens"] - cached
    written: int = usage["completion_tokens"]
    return (fresh * prices["input"] + cached * prices["cached_input"] + written * prices["output"]) / _MILLION


def _charge(trial: Trial, answer: Handle, usage: dict[str, Any], prices: dict[str, Decimal], message: str) -> None:
    """Fail with `message` unless the answer's cost is the exact one, rounded as the task says."""
    got = answer(answer.build("completion_usage", usage), prices)
    trial.is_a(got, Decimal)
    exact = _exact(usage, prices)
    wanted = exact.quantize(_PLACES, rounding=ROUND_HALF_UP)
    counts = {key: value for key, value in usage.items() if value is not None}
    trial.require(
        got == wanted,
        message,
        got=str(got),
        exact=str(exact.normalize()),
        usage=", ".join(f"{key}={value}" for key, value in counts.items()),
        prices=", ".join(f"{key}={value}" for key, value in prices.items()),
        expected=f"Decimal('{wanted}')",
    )


_WRONG_COST = _("You charge {got} dollars; exactly it is {exact}. Usage: {usage}. Prices: {prices}.")


@cost.criterion(
    _("charges what was read and what was written"),
    points=0.5,
    why=_("Every request is paid by the token, and written tokens cost several times as much as read ones."),
)
def read_and_written(trial: Trial, answer: Handle) -> None:
    for prompt, completion in trial.rng.integers(500, 90_000, size=(4, 2)):
        _charge(trial, answer, _usage(int(prompt), int(completion)), _prices(trial.rng), _WRONG_COST)


@cost.criterion(
    _("charges cached tokens once, at their own price"),
    points=0.5,
    why=_("Cached tokens are part of the prompt's tokens. Who adds them again pays on paper for what was never sent."),
)
def cached_once(trial: Trial, answer: Handle) -> None:
    for share in (0.0, 0.3, 0.9, 1.0):
        prompt, completion = (int(count) for count in trial.rng.integers(5_000, 90_000, size=2))
        _charge(trial, answer, _usage(prompt, completion, cached=int(share * prompt)), _prices(trial.rng), _WRONG_COST)
    unknown = _usage(prompt, completion) | {"prompt_tokens_details": {"cached_tokens": None}}
    _charge(trial, answer, unknown, _prices(trial.rng), _WRONG_COST)


@cost.criterion(
    _("charges reasoning tokens once"),
    points=0.5,
    why=_("A model that thinks before it answers writes tokens that you never see. They are part of the completion's "
          "tokens, and already charged there."),
)  # fmt: skip
def reasoning_once(trial: Trial, answer: Handle) -> None:
    for share in (0.2, 0.8):
        prompt, completion = (int(count) for count in trial.rng.integers(5_000, 90_000, size=2))
        usage = _usage(prompt, completion, reasoning=int(share * completion))
        _charge(trial, answer, usage, _prices(trial.rng), _WRONG_COST)


@cost.criterion(
    _("is exact, and rounds once, at the end, half up"),
    points=1,
    why=_("Thousands of small charges add up: a rounding error in each of them is money, and bookkeeping will ask."),
)
def rounds_once(trial: Trial, answer: Handle) -> None:
    prices = {"input": Decimal("0.50"), "cached_input": Decimal("0.125"), "output": Decimal("3.50")}
    message = _("You charge {got} dollars; exactly it is {exact}, and half a unit is rounded up. Usage: {usage}.")
    for _number in range(12):
        odd, cached = 2 * int(trial.rng.integers(1, 4_000)) + 1, 800 * int(trial.rng.integers(1, 50))
        written = 200 * int(trial.rng.integers(1, 300))
        _charge(trial, answer, _usage(100 * odd + cached, written, cached=cached), prices, message)
    for _number in range(6):
        prompt, completion = (int(count) for count in trial.rng.integers(1, 3_000, size=2))
        usage = _usage(prompt, completion, cached=prompt // 2, reasoning=completion // 3)
        _charge(trial, answer, usage, _prices(trial.rng), _WRONG_COST)


def _counts(usage: Any) -> tuple[int, int, int]:
    """Return what was read fresh, read from the cache, and written only to think."""
    cached = (usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0
    reasoning = (usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens) or 0
    return usage.prompt_tokens - cached, cached, reasoning


def _dollars(usage: Any, prices: Mapping[str, Any], fresh: int, cached: int, written: int) -> Any:
    return (fresh * prices["input"] + cached * prices["cached_input"] + written * prices["output"]) / 1_000_000


@cost.misconception(_("floats: money as a binary fraction"))
def floats(usage: Any, prices: Any) -> Any:
    fresh, cached, _reasoning = _counts(usage)
    return round(float(_dollars(usage, prices, fresh, cached, usage.completion_tokens)), 4)


@cost.misconception(_("decimals made from floats, which were inexact already"))
def decimals_from_floats(usage: Any, prices: Any) -> Any:
    inexact = {name: float(price) for name, price in prices.items()}
    fresh, cached, _reasoning = _counts(usage)
    return Decimal(_dollars(usage, inexact, fresh, cached, usage.completion_tokens)).quantize(_PLACES, ROUND_HALF_UP)


@cost.misconception(_("cached tokens charged twice: once in the prompt and once more"))
def cached_twice(usage: Any, prices: Any) -> Any:
    _fresh, cached, _reasoning = _counts(usage)
    dollars = _dollars(usage, prices, usage.prompt_tokens, cached, usage.completion_tokens)
    return dollars.quantize(_PLACES, ROUND_HALF_UP)


@cost.misconception(_("cached tokens charged like fresh ones"))
def cached_like_fresh(usage: Any, prices: Any) -> Any:
    return _dollars(usage, prices, usage.prompt_tokens, 0, usage.completion_tokens).quantize(_PLACES, ROUND_HALF_UP)


@cost.misconception(_("reasoning tokens charged twice: once in the completion and once more"))
def reasoning_twice(usage: Any, prices: Any) -> Any:
    fresh, cached, reasoning = _counts(usage)
    dollars = _dollars(usage, prices, fresh, cached, usage.completion_tokens + reasoning)
    return dollars.quantize(_PLACES, ROUND_HALF_UP)


@cost.misconception(_("each part rounded for itself, and then added"))
def rounded_parts(usage: Any, prices: Any) -> Any:
    fresh, cached, _reasoning = _counts(usage)
    parts = ((fresh, 0, 0), (0, cached, 0), (0, 0, usage.completion_tokens))
    return sum((_dollars(usage, prices, *part).quantize(_PLACES, ROUND_HALF_UP) for part in parts), Decimal(0))


@cost.misconception(_("halves rounded to the even digit, as `round` and `quantize` do unless they are told otherwise"))
def half_even(usage: Any, prices: Any) -> Any:
    fresh, cached, _reasoning = _counts(usage)
    return _dollars(usage, prices, fresh, cached, usage.completion_tokens).quantize(_PLACES, ROUND_HALF_EVEN)


@cost.misconception(_("a price for a thousand tokens, where it is one for a million"))
def per_thousand(usage: Any, prices: Any) -> Any:
    fresh, cached, _reasoning = _counts(usage)
    return (1000 * _dollars(usage, prices, fresh, cached, usage.completion_tokens)).quantize(_PLACES, ROUND_HALF_UP)


# ---------------------------------------------------------------- stream

stream = Check(
    "first_call",
    "stream",
    title=_("Show it as it comes"),
    hints=(
        _("With `stream=True` the client gives you an iterator of chunks. What does a function do that hands on each "
          "piece before it asks for the next?"),
        _("`yield` makes a generator. Not every chunk carries text: the first and the last have none, and the one with "
          "the usage has no choices at all."),
        _("`for chunk in client.chat.completions.create(..., stream=True):` then "
          "`if chunk.choices and chunk.choices[0].delta.content:` then `yield chunk.choices[0].delta.content`."),
    ),
)  # fmt: skip


def _pieces(rng: "np.random.Generator", count: int) -> list[str]:
    return [f"{word} " for word in rng.choice(_WORDS, size=count - 1)] + [str(rng.integers(1000, 10_000))]


def _streamed(trial: Trial, answer: Handle, completion: Completion) -> list[Any]:
    """Return all that the answer yields for one streamed reply (and one piece more than there should be, if it does).

    The request must have been for a stream, with the instructions and the question.
    """
    server = trial.server([completion])
    question, instructions = _sentence(trial.rng), _sentence(trial.rng)
    got = []
    for piece in answer.stream(_client(answer, server), question, instructions):
        trial.is_a(piece, str)
        got.append(piece)
        if len(got) > 2 * len(completion.pieces) + 3:
            break
    request = _only_request(trial, server)
    trial.require(
        (request.body or {}).get("stream") is True,
        _("The request did not ask for a stream."),
        expected="stream=True",
    )
    wanted = [("system", instructions), ("user", question)]
    messages = _messages(trial, request)
    trial.require(
        messages == wanted,
        _("The messages should be the instructions and the question; they were: {messages}"),
        messages=_said(messages),
        expected=_said(wanted),
    )
    return got


def _complete(trial: Trial, got: list[Any], pieces: list[str]) -> None:
    trial.require(
        "".join(got) == "".join(pieces),
        _("Put together, your pieces read: {text}"),
        text="".join(got)[:200],
        expected=repr("".join(pieces)),
    )


@stream.criterion(
    _("yields the whole text, and nothing but text"),
    points=0.5,
    why=_("Whoever shows the pieces one after the other must end up with the reply, word for word."),
)
def whole_text(trial: Trial, answer: Handle) -> None:
    for count in (1, 8):
        pieces = _pieces(trial.rng, count)
        _complete(trial, _streamed(trial, answer, Completion(*pieces)), pieces)


@stream.criterion(
    _("hands on each piece as soon as it is there"),
    points=1,
    why=_("The first word after a quarter of a second and the whole answer after ten: to the reader that is fast. The "
          "whole answer at once after ten seconds is slow."),
)  # fmt: skip
def as_it_arrives(trial: Trial, answer: Handle) -> None:
    pieces = _pieces(trial.rng, 5)
    server = trial.server([Completion(*pieces, held=True)])
    arriving = answer.stream(_client(answer, server), _sentence(trial.rng), _sentence(trial.rng))
    for number, piece in enumerate(pieces, start=1):
        server.release()
        got = next(arriving, None)
        trial.require(
            not server.overdue,
            _("The server had sent piece {number} and waited for you to hand it on. Your code wanted the next one "
              "first."),
            number=number,
            expected=_("each piece before the next one is asked for"),
        )  # fmt: skip
        trial.require(
            got == piece,
            _("Piece {number} came out as {got}."),
            number=number,
            got=repr(got),
            expected=repr(piece),
        )


@stream.criterion(
    _("copes with chunks that carry no text"),
    points=1,
    why=_("With usage statistics on, the last chunk of a stream has token counts and no choices: your code would crash "
          "after the last word, when all seemed well."),
)  # fmt: skip
def without_text(trial: Trial, answer: Handle) -> None:
    pieces = _pieces(trial.rng, 4)
    usage = _usage(*(int(count) for count in trial.rng.integers(5, 90, size=2)))
    got = _streamed(trial, answer, Completion(*pieces[:2], "", *pieces[2:], usage=usage))
    _complete(trial, got, pieces)


def _chunks(client: Any, question: str, instructions: str) -> Any:
    messages = _chat(("system", instructions), ("user", question))
    return client.chat.completions.create(model="gpt", messages=messages, stream=True)


def _texts(chunks: Any) -> Iterator[str]:
    for chunk in chunks:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


@stream.misconception(_("a function that collects the whole text first and then hands out its pieces"))
def collects_first(client: Any, question: str, instructions: str = "") -> Any:
    yield from list(_texts(_chunks(client, question, instructions)))


@stream.misconception(_("a function that collects everything and hands out the whole text as one piece"))
def one_piece(client: Any, question: str, instructions: str = "") -> Any:
    yield "".join(_texts(_chunks(client, question, instructions)))


@stream.misconception(_("a request that is not for a stream, and whose whole answer is handed out as one piece"))
def not_streamed(client: Any, question: str, instructions: str = "") -> Any:
    yield _reply(client, ("system", instructions), ("user", question)).choices[0].message.content


@stream.misconception(_("a loop that takes `chunk.choices[0]` of the usage chunk, which has no choices"))
def crashes_on_usage(client: Any, question: str, instructions: str = "") -> Any:
    for chunk in _chunks(client, question, instructions):
        if chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


@stream.misconception(_("pieces handed on even where they are `None`"))
def yields_none(client: Any, question: str, instructions: str = "") -> Any:
    for chunk in _chunks(client, question, instructions):
        if chunk.choices:
            yield chunk.choices[0].delta.content


@stream.misconception(_("a stream that ends at the first chunk without text"))
def stops_early(client: Any, question: str, instructions: str = "") -> Any:
    started = False
    for chunk in _chunks(client, question, instructions):
        content = chunk.choices[0].delta.content if chunk.choices else None
        if not content and started:
            return
        if content:
            started = True
            yield content


@stream.misconception(_("all of the text so far in every piece, not only what is new"))
def text_so_far(client: Any, question: str, instructions: str = "") -> Any:
    so_far = ""
    for text in _texts(_chunks(client, question, instructions)):
        so_far += text
        yield so_far


@stream.misconception(_("a stream without its system message"))
def stream_without_system(client: Any, question: str, instructions: str = "") -> Any:
    messages = _chat(("user", question))
    yield from _texts(client.chat.completions.create(model="gpt", messages=messages, stream=True))


# ---------------------------------------------------------------- conversation

conversation = Check(
    "first_call",
    "conversation",
    title=_("A dialogue inside a budget"),
    hints=(
        _("The model remembers nothing. What it should know of the dialogue has to be in every request: what, and how "
          "much of it?"),
        _("Keep the exchanges (question, answer) in a list. For each request, start with what must be sent "
          "(instructions and question), then go back from the latest exchange and add as long as both of its texts "
          "fit."),
        _("`for exchange in reversed(self.exchanges):` then `size = sum(map(count_tokens, exchange))`, "
          "`if size > room: break`, `kept.insert(0, exchange)`, `room -= size`. Append the new exchange only after "
          "the answer has come."),
    ),
)  # fmt: skip

Exchanges = list[tuple[str, str]]


@unobserved
def _count_words(text: str) -> int:
    return len(text.split())


@unobserved
def _count_long_words_twice(text: str) -> int:
    return sum(2 if len(word) > 5 else 1 for word in text.split())


def _fitting(exchanges: Exchanges, room: int, count: Callable[[str], int]) -> Exchanges:
    """Return as many of the latest exchanges as fit into `room` tokens."""
    for start in range(len(exchanges) + 1):
        if sum(count(text) for exchange in exchanges[start:] for text in exchange) <= room:
            return exchanges[start:]
    return []


def _wanted(instructions: str, exchanges: Exchanges, question: str) -> list[tuple[str, str]]:
    turns = [turn for asked, replied in exchanges for turn in (("user", asked), ("assistant", replied))]
    return [("system", instructions), *turns, ("user", question)]


class _Dialogue:
    """One conversation of the answer with a server whose replies are known, and what should have been sent."""

    def __init__(self, trial: Trial, answer: Handle, replies: list[Any], budget: int, count: Any, instructions: str):
        self.trial, self.budget, self.count, self.instructions = trial, budget, count, instructions
        self.exchanges: Exchanges = []
        self.server = trial.server(replies)
        made = answer.make(_client(answer, self.server), instructions, budget, count)
        self.ask = made.attribute("ask")

    def turn(self, question: str, reply: str, message: str) -> None:
        """Ask, and fail with `message` unless the request was the right one."""
        room = self.budget - self.count(self.instructions) - self.count(question)
        wanted = _wanted(self.instructions, _fitting(self.exchanges, room, self.count), question)
        before = len(self.server.requests)
        got = self.ask(question)
        sent = len(self.server.requests) - before
        self.trial.require(sent == 1, _("Your code sent {count} requests; one question is one request."), count=sent)
        messages = _messages(self.trial, self.server.requests[-1])
        self.trial.require(
            messages == wanted,
            message,
            messages=_said(messages),
            sent=sum(self.count(text) for _role, text in messages),
            budget=self.budget,
            expected=_said(wanted),
        )
        self.trial.equal(got, reply, _("That is not the text of the reply."))
        self.exchanges.append((question, reply))


@conversation.criterion(
    _("remembers what was said, and by whom"),
    points=0.5,
    why=_("Each request stands alone: what the model should know of the dialogue has to be sent again, in order, each "
          "text in its role. And one customer's dialogue is none of another's business."),
)  # fmt: skip
def remembers(trial: Trial, answer: Handle) -> None:
    for _customer in range(2):
        lines = [(_sentence(trial.rng), _sentence(trial.rng)) for _turn in range(3)]
        replies = [Completion(reply) for _question, reply in lines]
        dialogue = _Dialogue(trial, answer, replies, 1000, _count_words, _sentence(trial.rng))
        for question, reply in lines:
            dialogue.turn(question, reply, _("With room for everything, these messages were sent: {messages}"))


@conversation.criterion(
    _("drops the oldest exchanges, whole, and no more than it must"),
    points=1,
    why=_("Over the budget the request fails or costs too much. An answer without its question misleads the model, and "
          "without its instructions it forgets whom it works for."),
)  # fmt: skip
def inside_budget(trial: Trial, answer: Handle) -> None:
    for count in (_count_words, _count_long_words_twice):
        lines = [(_sentence(trial.rng), _sentence(trial.rng, int(trial.rng.integers(2, 30)))) for _turn in range(9)]
        instructions = _sentence(trial.rng)
        # Exactly what the first three exchanges and the next question need, so that a limit may be met to the token.
        said = [instructions, *(text for line in lines[:3] for text in line), lines[3][0]]
        _within(trial, answer, lines, sum(map(count, said)), count, instructions)


@conversation.criterion(
    _("leaves no gap in what it sends"),
    points=0.5,
    why=_("A dialogue with a hole in it reads as if it had none: the model takes the next line for an answer to "
          "the one before."),
)  # fmt: skip
def no_gap(trial: Trial, answer: Handle) -> None:
    lines = [(_sentence(trial.rng, 3), _sentence(trial.rng, words)) for words in (2, 24, 5, 2)]
    instructions = _sentence(trial.rng)
    # Room for the third exchange and the first, but not for the second between them.
    said = [instructions, *lines[0], *lines[2], lines[3][0]]
    _within(trial, answer, lines, sum(map(_count_words, said)) + 4, _count_words, instructions)


def _within(
    trial: Trial, answer: Handle, lines: Exchanges, budget: int, count: Callable[[str], int], instructions: str
) -> None:
    """Lead a whole dialogue and look at every request."""
    dialogue = _Dialogue(trial, answer, [Completion(reply) for _question, reply in lines], budget, count, instructions)
    for question, reply in lines:
        message = _("{sent} tokens were sent, the budget is {budget}, and the messages were: {messages}")
        dialogue.turn(question, reply, message)


@conversation.criterion(
    _("refuses a question that does not fit even alone"),
    points=0.5,
    why=_("Better an error that you can show to the customer than half a question, or a request that the provider "
          "refuses."),
)  # fmt: skip
def oversized(trial: Trial, answer: Handle) -> None:
    lines = [(_sentence(trial.rng), _sentence(trial.rng)) for _turn in range(3)]
    dialogue = _Dialogue(
        trial, answer, [Completion(reply) for _question, reply in lines], 50, _count_words, _sentence(trial.rng)
    )
    room = dialogue.budget - _count_words(dialogue.instructions)
    message = _("{sent} tokens were sent, the budget is {budget}, and the messages were: {messages}")
    dialogue.turn(*lines[0], message)
    with trial.raises("ValueError", message=_("A question that does not fit even alone must raise {names}.")):
        dialogue.ask(" ".join(trial.rng.choice(_WORDS, size=room + 1)))
    trial.require(len(dialogue.server.requests) == 1, _("The oversized question was sent all the same."))
    dialogue.turn(*lines[1], message)
    dialogue.turn(" ".join(trial.rng.choice(_WORDS, size=room)), lines[2][1], message)


@conversation.criterion(
    _("forgets a question that got no answer"),
    points=0.5,
    why=_("A question without an answer in the middle of a dialogue confuses the model, and nobody will ever answer "
          "it."),
)  # fmt: skip
def no_trace(trial: Trial, answer: Handle) -> None:
    lines = [(_sentence(trial.rng), _sentence(trial.rng)) for _turn in range(3)]
    replies: list[Reply] = [Completion(reply) for _question, reply in lines]
    replies.insert(2, Failure(503, "busy"))
    dialogue = _Dialogue(trial, answer, replies, 60, _count_words, _sentence(trial.rng))
    message = _("After a question that got no answer, these messages were sent: {messages}")
    dialogue.turn(*lines[0], message)
    dialogue.turn(*lines[1], message)
    with trial.raises("OpenAIError", message=_("The server failed; its error must reach the caller.")):
        dialogue.ask(_sentence(trial.rng, 40))  # so long that it leaves room for no exchange
    dialogue.turn(*lines[2], message)


class _Memory:
    """A right `Conversation`, of which each misconception changes one thing."""

    def __init__(self, client: Any, instructions: str, budget: int, count_tokens: Callable[[str], int]) -> None:
        self.client, self.instructions, self.budget, self.count_tokens = client, instructions, budget, count_tokens
        self.exchanges: Exchanges = []

    def ask(self, question: str) -> Any:
        room = self.budget - self.count_tokens(self.instructions) - self.count_tokens(question)
        if room < 0:
            raise ValueError("the question does not fit into the budget")
        reply = self.complete(_wanted(self.instructions, self.kept(room), question))
        self.exchanges.append((question, reply))
        return reply

    def kept(self, room: int) -> Exchanges:
        return _fitting(self.exchanges, room, self.count_tokens)

    def complete(self, messages: list[tuple[str, str]]) -> Any:
        return _reply(self.client, *messages).choices[0].message.content


class _OneList(_Memory):
    """Keeps one list of messages, as many people do."""

    def __init__(self, client: Any, instructions: str, budget: int, count_tokens: Callable[[str], int]) -> None:
        super().__init__(client, instructions, budget, count_tokens)
        self.messages = [("system", instructions)]

    def ask(self, question: str) -> Any:
        if self.count_tokens(self.instructions) + self.count_tokens(question) > self.budget:
            raise ValueError("the question does not fit into the budget")
        messages = [*self.messages, ("user", question)]
        while sum(self.count_tokens(text) for _role, text in messages) > self.budget:
            self.drop(messages)
        reply = self.complete(messages)
        self.messages = [*messages, ("assistant", reply)]
        return reply

    def drop(self, messages: list[tuple[str, str]]) -> None:
        del messages[0]


@conversation.misconception(_("a list cut from the front, where the instructions are the first to go"))
class EvictsInstructions(_OneList):
    pass


@conversation.misconception(_("a list from which single messages are dropped, so that an answer loses its question"))
class SplitsExchanges(_OneList):
    def drop(self, messages: list[tuple[str, str]]) -> None:
        del messages[1]


@conversation.misconception(_("a memory without the model's own answers"))
class WithoutAnswers(_Memory):
    def complete(self, messages: list[tuple[str, str]]) -> Any:
        return super().complete([message for message in messages if message[0] != "assistant"])


@conversation.misconception(_("a client that is expected to remember by itself: only the new question is sent"))
class NoMemory(_Memory):
    def kept(self, room: int) -> Exchanges:
        return []


@conversation.misconception(_("no budget at all"))
class NoBudget(_Memory):
    def kept(self, room: int) -> Exchanges:
        return self.exchanges


@conversation.misconception(_("the instructions left out of the count"))
class InstructionsNotCounted(_Memory):
    def kept(self, room: int) -> Exchanges:
        return super().kept(room + self.count_tokens(self.instructions))


@conversation.misconception(_("a dialogue that must stay below its budget and never meets it (`<` for `<=`)"))
class NeverMeetsBudget(_Memory):
    def kept(self, room: int) -> Exchanges:
        return super().kept(room - 1)


@conversation.misconception(_("a memory that skips an exchange in the middle to squeeze in an older one"))
class SkipsTheMiddle(_Memory):
    def kept(self, room: int) -> Exchanges:
        kept: Exchanges = []
        for exchange in reversed(self.exchanges):
            size = sum(self.count_tokens(text) for text in exchange)
            if size <= room:
                kept.insert(0, exchange)
                room -= size
        return kept


@conversation.misconception(_("one memory for all conversations: a list that belongs to the class"), factory=True)
def shared_memory() -> type:
    memory: Exchanges = []

    class SharedMemory(_Memory):
        def __init__(self, client: Any, instructions: str, budget: int, count_tokens: Callable[[str], int]) -> None:
            super().__init__(client, instructions, budget, count_tokens)
            self.exchanges = memory

    return SharedMemory


@conversation.misconception(_("a question that is remembered before it has got an answer"))
class RemembersTooEarly(_Memory):
    def __init__(self, client: Any, instructions: str, budget: int, count_tokens: Callable[[str], int]) -> None:
        super().__init__(client, instructions, budget, count_tokens)
        self.pending: list[str] = []

    def complete(self, messages: list[tuple[str, str]]) -> Any:
        unanswered = [("user", question) for question in self.pending]
        self.pending.append(messages[-1][1])
        reply = super().complete([*messages[:-1], *unanswered, messages[-1]])
        self.pending.clear()
        return reply


@conversation.misconception(_("an oversized question that is sent all the same"))
class SendsOversized(_Memory):
    def ask(self, question: str) -> Any:
        room = self.budget - self.count_tokens(self.instructions) - self.count_tokens(question)
        reply = self.complete(_wanted(self.instructions, self.kept(max(room, 0)), question))
        self.exchanges.append((question, reply))
        return reply


@conversation.misconception(
    _("a memory that drops exchanges before the answer has come, and misses them if none comes")
)
class MakesRoomTooEarly(_Memory):
    def kept(self, room: int) -> Exchanges:
        self.exchanges = super().kept(room)
        return list(self.exchanges)


conversation.equivalent(
    "break",
    "continue",
    reason="once the room is below zero it stays there, so no older exchange is added",
)
