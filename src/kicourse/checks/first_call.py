"""The checks of `first_call`: talk to a GPT. Every answer gets a real client that talks to a scripted server."""

from collections.abc import Callable, Iterator, Mapping
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

from kicourse.answers.handle import unobserved
from kicourse.checks import AnswerRaised, Check, Failed, Handle, Trial, _, chats
from kicourse.checks.scripted_server import Completion, Failure, Reply, Request, ScriptedServer
from kicourse.checks.show import show

if TYPE_CHECKING:
    import numpy as np


def _client(answer: Handle, server: ScriptedServer) -> Handle:
    return answer.build("openai_client", base_url=server.url)


def _messages(trial: Trial, request: Request) -> list[tuple[str, str]]:
    """Return the request's messages as (role, text); fail with words if they are no list of messages."""
    messages = (request.body or {}).get("messages")
    trial.require(isinstance(messages, list), _("The request has no list of messages."), expected="messages=[...]")
    return [chats.message(message) for message in messages or []]


def _for_model(trial: Trial, request: Request) -> None:
    """Fail unless the request is for the notebook's MODEL."""
    if not chats.names_model(request.body):
        model = chats.short(repr((request.body or {}).get("model")), 60)
        raise Failed(trial.text(_("Your request names another model.")), "model=MODEL", f"model={model}")


def _lines_of_text(rng: "np.random.Generator") -> str:
    """Return a text of two paragraphs, with two spaces somewhere: it has to arrive as it is."""
    return f"{chats.sentence(rng)}\n\n{chats.sentence(rng, words=2)}  {chats.sentence(rng, words=2)}"


def _answered(trial: Trial, server: ScriptedServer, ask: Callable[[], Any]) -> tuple[Any, Request]:
    """Return what `ask()` returns and the request that it led to; fail unless that was exactly one."""
    before = len(server.requests)
    try:
        got = ask()
    except AnswerRaised:
        if len(server.requests) < before + 2:
            raise
    count = len(server.requests) - before
    trial.require(count < 2, _("Your code sent more than one request; one question is one request."))
    trial.require(count == 1, _("No request arrived. Send it through the client that your code is given."))
    return got, server.requests[-1]


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
    text = _lines_of_text(trial.rng)
    got, _request = _asked(trial, answer, chats.sentence(trial.rng), chats.sentence(trial.rng), text)
    trial.equal(got, text, _("That is not the text of the reply."))


@ask.criterion(
    _("sends the question in the role of the user"),
    points=0.5,
    why=_("The model answers the last thing that the user said; it has to be the question, word for word."),
)
def sends_question(trial: Trial, answer: Handle) -> None:
    question = _lines_of_text(trial.rng)
    _got, request = _asked(trial, answer, question, chats.sentence(trial.rng))
    messages = _messages(trial, request)
    if messages[-1:] != [("user", question)]:
        message = trial.text(_("The last message is not the question in the role of the user."))
        raise Failed(message, chats.said([("user", question)]), chats.said(messages))


@ask.criterion(
    _("sends the instructions in the role of the system"),
    points=0.5,
    why=_("Without its instructions the model is anybody's assistant: it no longer knows whom it works for."),
)
def sends_instructions(trial: Trial, answer: Handle) -> None:
    question, instructions = chats.sentence(trial.rng), _lines_of_text(trial.rng)
    _got, request = _asked(trial, answer, question, instructions)
    messages = _messages(trial, request)
    if ("system", instructions) not in messages[:-1]:
        message = trial.text(_("No message before the question has the instructions as the system's words."))
        raise Failed(message, chats.said([("system", instructions), ("user", question)]), chats.said(messages))
    _asked(trial, answer, chats.sentence(trial.rng))  # the signature has instructions for it


@ask.criterion(
    _("sends no third message, on the second call either"),
    points=0.25,
    why=_("What another customer asked a minute ago costs money in every later request, and it is none of this "
          "customer's business."),
)  # fmt: skip
def sends_nothing_else(trial: Trial, answer: Handle) -> None:
    question, instructions = chats.sentence(trial.rng), chats.sentence(trial.rng)
    for _turn in range(2):  # the same again, for no answer may come from memory either
        _got, request = _asked(trial, answer, question, instructions)
        messages = _messages(trial, request)
        if len(messages) > 2:
            message = trial.text(_("More was sent than the instructions and the question."))
            raise Failed(message, chats.said([("system", instructions), ("user", question)]), chats.said(messages))


@ask.criterion(
    _("asks the model that `MODEL` names"),
    points=0.25,
    why=_("The day the company changes its provider, this name changes, and it should do so in one place only."),
)
def asks_model(trial: Trial, answer: Handle) -> None:
    _got, request = _asked(trial, answer, chats.sentence(trial.rng), chats.sentence(trial.rng))
    _for_model(trial, request)


def _asked(
    trial: Trial, answer: Handle, question: str, instructions: str | None = None, reply: str = "It depends."
) -> tuple[Any, Request]:
    """Ask one question, perhaps with instructions; return what came back and the request that reached the server."""
    server = trial.server([Completion(reply)])
    client = _client(answer, server)
    given = (question,) if instructions is None else (question, instructions)
    return _answered(trial, server, lambda: answer(client, *given))


def _chat(*messages: tuple[str, str]) -> list[Any]:
    return [{"role": role, "content": content} for role, content in messages]


def _reply(client: Any, *messages: tuple[str, str], **options: Any) -> Any:
    from kicourse.models import gpt

    return client.chat.completions.create(model=gpt.model(), messages=_chat(*messages), **options)


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


@ask.misconception(_("a question that is asked without the role of the system: both messages are the user's"))
def both_user(client: Any, question: str, instructions: str = "") -> Any:
    return _reply(client, ("user", instructions), ("user", question)).choices[0].message.content


@ask.misconception(_("the question before the instructions"))
def question_first(client: Any, question: str, instructions: str = "") -> Any:
    return _reply(client, ("user", question), ("system", instructions)).choices[0].message.content


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
_CENT = Decimal("0.01")
_MILLION = Decimal(1_000_000)
_EXAMPLE = {"input": Decimal("0.50"), "cached_input": Decimal("0.125"), "output": Decimal("3.50")}
"""The prices in the notebook."""


def _prices(rng: "np.random.Generator") -> dict[str, Decimal]:
    """Dollars for a million tokens, so many that a single token shows in the fourth decimal place."""
    fresh = Decimal(int(rng.integers(30_000, 90_000))) / 100
    cached = fresh / int(rng.choice((2, 10)))  # not a quarter, as in the notebook
    return {"input": fresh, "cached_input": cached, "output": fresh * int(rng.integers(3, 7))}


def _usage(prompt: int, completion: int, cached: int = 0, reasoning: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def _tokens(rng: "np.random.Generator") -> tuple[int, int]:
    """Return how many tokens were read and how many were written."""
    read, written = (int(count) for count in rng.integers(5_000, 90_000, size=2))
    return read, written


def _exact(usage: Mapping[str, Any], prices: Mapping[str, Decimal]) -> Decimal:
    cached: int = (usage["prompt_tokens_details"] or {}).get("cached_tokens") or 0
    fresh: int = usage["prompt_tokens"] - cached
    written: int = usage["completion_tokens"]
    return (fresh * prices["input"] + cached * prices["cached_input"] + written * prices["output"]) / _MILLION


def _charge(trial: Trial, answer: Handle, usage: dict[str, Any], prices: dict[str, Decimal]) -> tuple[Any, Decimal]:
    """Return what the answer charges, any kind of number, and what is exact."""
    got = answer(answer.build("completion_usage", usage), prices)
    if type(got) not in (int, float):
        trial.is_a(got, Decimal)
    return got, _exact(usage, prices)


def _about(trial: Trial, answer: Handle, usage: dict[str, Any], prices: dict[str, Decimal] | None = None) -> None:
    """Fail unless the answer charges the right amount to the cent: rounding has a criterion of its own."""
    got, exact = _charge(trial, answer, usage, prices or _prices(trial.rng))
    trial.require(
        abs(Decimal(got) - exact) <= _CENT,
        _("You charge {got} dollars; exactly it is {exact}."),
        got=str(got),
        exact=_plainly(exact),
        expected=_plainly(_rounded(exact)),
    )


def _rounded(dollars: Decimal) -> Decimal:
    return dollars.quantize(_PLACES, ROUND_HALF_UP)


def _plainly(dollars: Decimal) -> str:
    return f"{dollars.normalize():f}"


@cost.criterion(
    _("charges what was read and what was written"),
    points=0.5,
    why=_("Every request is paid by the token, and written tokens cost several times as much as read ones."),
)
def read_and_written(trial: Trial, answer: Handle) -> None:
    for _number in range(4):
        _about(trial, answer, _usage(*_tokens(trial.rng)))


@cost.criterion(
    _("charges cached tokens once, at their own price"),
    points=0.5,
    why=_("Cached tokens are part of the prompt's tokens. If you add them again, your books show tokens that were "
          "never sent."),
)  # fmt: skip
def cached_once(trial: Trial, answer: Handle) -> None:
    for share in (0.3, 0.9, 1.0):
        read, written = _tokens(trial.rng)
        _about(trial, answer, _usage(read, written, cached=int(share * read)))


@cost.criterion(
    _("charges reasoning tokens once"),
    points=0.5,
    why=_("A model that thinks before it answers writes tokens that you never see. They are part of the completion's "
          "tokens, and already charged there."),
)  # fmt: skip
def reasoning_once(trial: Trial, answer: Handle) -> None:
    for share in (0.2, 0.8):
        read, written = _tokens(trial.rng)
        _about(trial, answer, _usage(read, written, reasoning=int(share * written)))


@cost.criterion(
    _("copes with missing details"),
    points=0.5,
    why=_("Many servers leave the details out, or a number in them: `None` means that there were no such tokens."),
)
def missing_details(trial: Trial, answer: Handle) -> None:
    nothing: dict[str, Any] = {"prompt_tokens_details": None, "completion_tokens_details": None, "total_tokens": 0}
    prices = {name: 100 * price for name, price in _prices(trial.rng).items()}  # a single token shows
    _about(trial, answer, _usage(*_tokens(trial.rng)) | nothing, prices)
    unknown = {
        "prompt_tokens_details": {"cached_tokens": None},
        "completion_tokens_details": {"reasoning_tokens": None},
    }
    _about(trial, answer, _usage(*_tokens(trial.rng)) | unknown, prices)


@cost.criterion(
    _("is exact, and rounds once, at the end, half up"),
    points=0.5,
    why=_("Thousands of small charges add up: a rounding error in each of them is money, and bookkeeping will ask."),
)
def rounds_once(trial: Trial, answer: Handle) -> None:
    _to_the_digit(trial, answer, _usage(900, 2800), dict(_EXAMPLE))  # tells rounding to even from floats
    _to_the_digit(trial, answer, _usage(99, 0), dict(_EXAMPLE))  # nearly half: who rounds twice rounds it up
    for number in range(12):  # halves of the fourth place
        fresh, written = 100 * (2 * int(trial.rng.integers(1, 4_000)) + 1), 200 * int(trial.rng.integers(1, 300))
        cached = 800 * int(trial.rng.integers(200, 400)) * (number % 2)  # whole, but as floats a little off
        _to_the_digit(trial, answer, _usage(fresh + cached, written, cached=cached), dict(_EXAMPLE))
    for number in range(30):
        fresh, written = (int(count) for count in trial.rng.integers(1, 3_000, size=2))
        cached, reasoning = (int(count) * (number % 2) for count in trial.rng.integers(400, 3_000, size=2))
        _to_the_digit(trial, answer, _usage(fresh + cached, written + reasoning, cached, reasoning), _prices(trial.rng))


def _to_the_digit(trial: Trial, answer: Handle, usage: dict[str, Any], prices: dict[str, Decimal]) -> None:
    got, exact = _charge(trial, answer, usage, prices)
    trial.is_a(got, Decimal)
    if usage["prompt_tokens_details"]["cached_tokens"] and abs(got - exact) > _CENT:
        return  # that is no rounding: cached and reasoning tokens have criteria of their own
    wanted = _rounded(exact)
    numbers = {"got": str(got), "exact": _plainly(exact)}
    trial.require(
        got == wanted or got != exact,
        _("You charge {got} dollars: that is not rounded to four decimal places."),
        expected=f"Decimal('{wanted}')",
        **numbers,
    )
    trial.require(
        got == wanted,
        _("You charge {got} dollars; exactly it is {exact}, and half a unit is rounded up."),
        expected=f"Decimal('{wanted}')",
        **numbers,
    )


def _counts(usage: Any) -> tuple[int, int, int]:
    """Return what was read fresh, read from the cache, and written only to think."""
    cached = (usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0
    reasoning = (usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens) or 0
    return usage.prompt_tokens - cached, cached, reasoning


def _dollars(usage: Any, prices: Mapping[str, Any], fresh: int, cached: int, written: int) -> Any:
    return (fresh * prices["input"] + cached * prices["cached_input"] + written * prices["output"]) / 1_000_000


def _right(usage: Any, prices: Mapping[str, Any]) -> Any:
    fresh, cached, _reasoning = _counts(usage)
    return _dollars(usage, prices, fresh, cached, usage.completion_tokens)


@cost.misconception(_("floats: money as a binary fraction"))
def floats(usage: Any, prices: Any) -> Any:
    return round(float(_right(usage, prices)), 4)


@cost.misconception(_("decimals made from floats, which were inexact already"))
def decimals_from_floats(usage: Any, prices: Any) -> Any:
    return _rounded(Decimal(_right(usage, {name: float(price) for name, price in prices.items()})))


@cost.misconception(_("cached tokens charged twice: once in the prompt and once more"))
def cached_twice(usage: Any, prices: Any) -> Any:
    _fresh, cached, _reasoning = _counts(usage)
    return _rounded(_dollars(usage, prices, usage.prompt_tokens, cached, usage.completion_tokens))


@cost.misconception(_("cached tokens charged like fresh ones"))
def cached_like_fresh(usage: Any, prices: Any) -> Any:
    return _rounded(_dollars(usage, prices, usage.prompt_tokens, 0, usage.completion_tokens))


@cost.misconception(_("cached tokens that cost nothing at all"))
def cached_free(usage: Any, prices: Any) -> Any:
    fresh, _cached, _reasoning = _counts(usage)
    return _rounded(_dollars(usage, prices, fresh, 0, usage.completion_tokens))


@cost.misconception(_("reasoning tokens charged twice: once in the completion and once more"))
def reasoning_twice(usage: Any, prices: Any) -> Any:
    fresh, cached, reasoning = _counts(usage)
    return _rounded(_dollars(usage, prices, fresh, cached, usage.completion_tokens + reasoning))


@cost.misconception(_("reasoning tokens that cost nothing at all"))
def reasoning_free(usage: Any, prices: Any) -> Any:
    fresh, cached, reasoning = _counts(usage)
    return _rounded(_dollars(usage, prices, fresh, cached, usage.completion_tokens - reasoning))


@cost.misconception(_("details that must be there: where they are missing, `None` means zero"))
def details_expected(usage: Any, prices: Any) -> Any:
    cached = usage.prompt_tokens_details.cached_tokens or 0
    return _rounded(_dollars(usage, prices, usage.prompt_tokens - cached, cached, usage.completion_tokens))


@cost.misconception(_("numbers that must be in the details: where they are missing, `None` means zero"))
def numbers_expected(usage: Any, prices: Any) -> Any:
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    return _rounded(_dollars(usage, prices, usage.prompt_tokens - cached, cached, usage.completion_tokens))


@cost.misconception(_("each part rounded for itself, and then added"))
def rounded_parts(usage: Any, prices: Any) -> Any:
    fresh, cached, _reasoning = _counts(usage)
    parts = ((fresh, 0, 0), (0, cached, 0), (0, 0, usage.completion_tokens))
    return sum((_rounded(_dollars(usage, prices, *part)) for part in parts), Decimal(0))


@cost.misconception(_("halves rounded to the nearest even digit, as `round` and `quantize` do by default"))
def half_even(usage: Any, prices: Any) -> Any:
    return _right(usage, prices).quantize(_PLACES, ROUND_HALF_EVEN)


@cost.misconception(_("an exact amount that is never rounded"))
def not_rounded(usage: Any, prices: Any) -> Any:
    return _right(usage, prices)


@cost.misconception(_("an amount rounded to the cent, two decimal places instead of four"))
def to_the_cent(usage: Any, prices: Any) -> Any:
    return _right(usage, prices).quantize(Decimal("0.01"), ROUND_HALF_UP)


@cost.misconception(_("a price for a single token, where it is one for a million"))
def per_token(usage: Any, prices: Any) -> Any:
    return _rounded(1_000_000 * _right(usage, prices))


@cost.misconception(_("a price for a thousand tokens, where it is one for a million"))
def per_thousand(usage: Any, prices: Any) -> Any:
    return _rounded(1000 * _right(usage, prices))


@cost.misconception(_("the notebook's `PRICES` instead of the parameter `prices`"))
def global_prices(usage: Any, prices: Any) -> Any:
    return _rounded(_right(usage, _EXAMPLE))


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
        _("Loop over the chunks: `for chunk in client.chat.completions.create(..., stream=True):`. Look whether "
          "`chunk.choices` has an entry, and whether its `.delta.content` is a text that is not empty; `yield` that."),
    ),
)  # fmt: skip


def _pieces(rng: "np.random.Generator", count: int) -> list[str]:
    return [f"{word} " for word in rng.choice(chats.WORDS, size=count - 1)] + [str(rng.integers(1000, 10_000))]


def _streamed(trial: Trial, answer: Handle, completion: Completion) -> list[str | None]:
    """Return all that the answer yields for one streamed reply (and a little more than there should be, if it does)."""
    got, _request, _wanted = _stream_asked(trial, answer, completion)
    return got


def _stream_asked(
    trial: Trial, answer: Handle, completion: Completion, *, instructed: bool = True
) -> tuple[list[str | None], Request, list[tuple[str, str]]]:
    """Return what the answer yields, its request, and the messages that it should have sent."""
    server = trial.server([completion])
    question, instructions = chats.sentence(trial.rng), chats.sentence(trial.rng)
    client, most = _client(answer, server), 2 * len(completion.pieces) + 6
    given = (question, instructions) if instructed else (question,)
    try:
        got, request = _answered(trial, server, lambda: list(islice(answer.stream(client, *given), most)))
    except AnswerRaised as error:
        if server.requests:
            _for_a_stream(trial, server.requests[0])
        if "'NoneType' object is not iterable" in error.text:
            message = trial.text(_("Your function returned `None`, where a generator was expected: it needs `yield`."))
            raise Failed(message, "yield", "None") from error
        raise
    _for_a_stream(trial, request)
    for piece in got:
        if piece is not None and type(piece) is not str:
            found = type(piece).__name__
            raise Failed(trial.text(_("Your function yielded {found}, not text."), found=found), "str", show(piece))
    return got, request, [("system", instructions), ("user", question)]


def _for_a_stream(trial: Trial, request: Request) -> None:
    stream = (request.body or {}).get("stream")
    if stream is not True:
        raise Failed(trial.text(_("The request did not ask for a stream.")), "stream=True", f"stream={show(stream)}")


def _complete(trial: Trial, got: list[str | None], pieces: list[str]) -> None:
    text = "".join(piece or "" for piece in got)
    if text != "".join(pieces):
        raise Failed(trial.text(_("Put together, your pieces are not the reply.")), show("".join(pieces)), show(text))


@stream.criterion(
    _("yields the whole text"),
    points=0.5,
    why=_("Whoever shows the pieces one after the other must end up with the reply, word for word."),
)
def whole_text(trial: Trial, answer: Handle) -> None:
    for count in (1, 8):
        pieces = _pieces(trial.rng, count)
        _complete(trial, _streamed(trial, answer, Completion(*pieces)), pieces)


@stream.criterion(
    _("sends the same messages as `ask`"),
    points=0.5,
    why=_("A streamed answer comes earlier; apart from that it should be no other answer."),
)
def same_messages(trial: Trial, answer: Handle) -> None:
    _got, request, wanted = _stream_asked(trial, answer, Completion(*_pieces(trial.rng, 3)))
    messages = _messages(trial, request)
    if messages != wanted:
        message = trial.text(_("The messages are not the instructions and the question."))
        raise Failed(message, chats.said(wanted), chats.said(messages))
    _for_model(trial, request)
    _stream_asked(trial, answer, Completion("well"), instructed=False)  # the signature has instructions for it


@stream.criterion(
    _("hands on each piece as soon as it is there"),
    points=0.5,
    why=_("The first word after a quarter of a second and the whole answer after ten: to the reader that is fast. The "
          "whole answer at once after ten seconds is slow."),
)  # fmt: skip
def as_it_arrives(trial: Trial, answer: Handle) -> None:
    _arrives(trial, answer, ahead=3)  # who is merely a piece behind passes this, who collects them all does not
    _arrives(trial, answer, ahead=0)


def _arrives(trial: Trial, answer: Handle, ahead: int) -> None:
    """Fail unless each piece comes out while the server, `ahead` pieces further on, waits."""
    pieces = _pieces(trial.rng, 5)
    server = trial.server([Completion(*pieces, held=True)])
    arriving = answer.stream(_client(answer, server), chats.sentence(trial.rng), chats.sentence(trial.rng))
    if ahead:
        server.release(ahead)
    for number, piece in enumerate(pieces, start=1):
        server.release()
        got = next(filter(None, arriving), None)
        if server.overdue:
            message = _("The server had sent {sent} pieces and waited. Your code wanted one more before it handed on "
                        "piece {number}.")  # fmt: skip
            expected = trial.text(_("each piece before the next one is asked for"))
            raise Failed(trial.text(message, sent=number + ahead, number=number), expected, "-")
        if got != piece:
            raise Failed(trial.text(_("Piece {number} is not the one that was sent."), number=number), piece, show(got))


@stream.criterion(
    _("copes with every kind of chunk"),
    points=0.5,
    why=_("With usage statistics on, the last chunk has no choices, and some providers start with such a chunk too or "
          "send the last word together with the finish reason. Code that has not seen these crashes, shows `None`, or "
          "loses words, when all seemed well."),
)  # fmt: skip
def every_chunk(trial: Trial, answer: Handle) -> None:
    first, second, third, last = _pieces(trial.rng, 4)
    read, written = (int(count) for count in trial.rng.integers(5, 90, size=2))
    for uneven in (False, True):
        completion = Completion(first, second, "", third, last, usage=_usage(read, written), uneven=uneven)
        got = _streamed(trial, answer, completion)
        pieces = [first, second, third, last]
        if not all(got):
            raise Failed(trial.text(_("Your function yielded a piece without text.")), show(pieces), show(got))
        _complete(trial, got, pieces)


@stream.criterion(
    _("keeps pieces of spaces and line breaks"),
    points=0.5,
    why=_("To a model a line break is a token like any other; without it paragraphs and lists run together."),
)
def keeps_space(trial: Trial, answer: Handle) -> None:
    first, second, last = _pieces(trial.rng, 3)
    pieces = ["\n", first, "\n", second, " ", "\t", "0", "\r\n", last]
    _complete(trial, _streamed(trial, answer, Completion(*pieces)), pieces)


def _chunks(client: Any, question: str, instructions: str) -> Any:
    return _reply(client, ("system", instructions), ("user", question), stream=True)


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
    yield from _texts(_reply(client, ("user", question), stream=True))


@stream.misconception(_("a stream that is always one piece behind: each is handed on when the next has come"))
def one_behind(client: Any, question: str, instructions: str = "") -> Any:
    waiting = ""
    for text in _texts(_chunks(client, question, instructions)):
        if waiting:
            yield waiting
        waiting = text
    yield waiting


@stream.misconception(_("a function that prints or collects the pieces and hands on none: there is no `yield`"))
def prints(client: Any, question: str, instructions: str = "") -> Any:
    for _text in _texts(_chunks(client, question, instructions)):
        pass


@stream.misconception(_("a whole text that is returned at the end: `return` where there should be `yield`"))
def returns_whole(client: Any, question: str, instructions: str = "") -> Any:
    return "".join(_texts(_chunks(client, question, instructions)))


@stream.misconception(_("a loop that looks for `.message` in a chunk, where it is `.delta`"))
def message_of_chunk(client: Any, question: str, instructions: str = "") -> Any:
    for chunk in _chunks(client, question, instructions):
        yield chunk.choices[0].message.content


@stream.misconception(_("the chunks' pieces handed on even where they are empty"))
def yields_empty(client: Any, question: str, instructions: str = "") -> Any:
    for chunk in _chunks(client, question, instructions):
        if chunk.choices and chunk.choices[0].delta.content is not None:
            yield chunk.choices[0].delta.content


@stream.misconception(_("a loop that drops pieces of nothing but spaces or line breaks"))
def drops_space(client: Any, question: str, instructions: str = "") -> Any:
    yield from (text for text in _texts(_chunks(client, question, instructions)) if text.strip())


@stream.misconception(_("pieces whose spaces are stripped off, so that the words run together"))
def strips(client: Any, question: str, instructions: str = "") -> Any:
    yield from (text.strip() for text in _texts(_chunks(client, question, instructions)) if text.strip())


@stream.misconception(_("a loop that ends at the first chunk without choices"))
def breaks_without_choices(client: Any, question: str, instructions: str = "") -> Any:
    yield from _texts(takewhile(lambda chunk: chunk.choices, _chunks(client, question, instructions)))


@stream.misconception(_("a loop that ends at the finish reason without looking at that chunk's text"))
def ends_at_reason(client: Any, question: str, instructions: str = "") -> Any:
    def goes_on(chunk: Any) -> bool:
        return not (chunk.choices and chunk.choices[0].finish_reason)

    yield from _texts(takewhile(goes_on, _chunks(client, question, instructions)))


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
def _count_framed(text: str) -> int:
    """Count a beginning and an end as well, as many tokenizers do: two texts are more than both as one."""
    return len(text.split()) + 4


def _fitting(exchanges: Exchanges, room: int, count: Callable[[str], int]) -> Exchanges:
    """Return as many of the latest exchanges as fit into `room` tokens."""
    for start in range(len(exchanges) + 1):
        if sum(count(text) for exchange in exchanges[start:] for text in exchange) <= room:
            return exchanges[start:]
    return []


def _lines(rng: "np.random.Generator", *sizes: tuple[int, int]) -> Exchanges:
    """Return questions and answers of about these numbers of words, numbered so that a verdict is easy to read."""
    return [
        (f"Q{number} {chats.sentence(rng, asked)}", f"A{number} {chats.sentence(rng, replied)}")
        for number, (asked, replied) in enumerate(sizes, start=1)
    ]


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

    def turn(self, question: str, reply: str) -> None:
        """Ask, and fail unless the request and what came back were the right ones."""
        room = self.budget - self.count(self.instructions) - self.count(question)
        wanted = _wanted(self.instructions, _fitting(self.exchanges, room, self.count), question)
        got, request = _answered(self.trial, self.server, lambda: self.ask(question))
        sent = _messages(self.trial, request)
        if sent != wanted:
            raise Failed(self.fault(sent, wanted), chats.said(wanted, _WIDTH), chats.said(sent, _WIDTH))
        self.trial.equal(got, reply, _("That is not the text of the reply."))
        self.exchanges.append((question, reply))

    def fault(self, sent: Exchanges, wanted: Exchanges) -> str:
        """Say what is wrong with the messages that were sent."""
        tokens = sum(self.count(text) for _role, text in sent)
        extra = [message for message in sent if message not in wanted]
        missing = [message for message in wanted if message not in sent]
        if tokens > self.budget:
            message = _("{tokens} tokens were sent, and the budget is {budget}.")
        elif extra:
            message = _("This does not belong in the request: {extra}")
        elif missing:
            message = _("{tokens} of {budget} tokens were sent. This is missing, though it fits: {missing}")
        else:
            message = _("The right messages were sent, but not in the right order.")
        return self.trial.text(
            message,
            tokens=tokens,
            budget=self.budget,
            extra=chats.said(extra, _WIDTH),
            missing=chats.said(missing, _WIDTH),
        )


_WIDTH = 24
"""So much of each message is shown: enough to tell them apart by their number."""


@conversation.criterion(
    _("remembers what was said, and by whom"),
    points=0.5,
    why=_("Each request stands alone: what the model should know of the dialogue has to be sent again, in order, each "
          "text in its role. And one customer's dialogue is none of another's business."),
)  # fmt: skip
def remembers(trial: Trial, answer: Handle) -> None:
    customers = []
    for _customer in range(2):
        lines = _lines(trial.rng, (6, 6), (6, 6), (6, 6))
        replies = [Completion(reply) for _question, reply in lines]
        dialogue = _Dialogue(trial, answer, replies, 1000, _count_words, chats.sentence(trial.rng))
        customers.append((dialogue, lines))
    for number in range(3):  # both are there before the first one asks, and they ask in turn
        for dialogue, lines in customers:
            dialogue.turn(*lines[number])


@conversation.criterion(
    _("drops the oldest exchanges, whole, and no more than it must"),
    points=1,
    why=_("Over the budget the request fails or costs too much. Below it, the model knows less than it could; and an "
          "answer without its question misleads it."),
)  # fmt: skip
def inside_budget(trial: Trial, answer: Handle) -> None:
    for count, fitting in ((_count_words, 3), (_count_framed, 11)):  # more than any fixed number of exchanges
        # The oldest are the longest: where one must go, none before it would fit. Gaps are for the next criterion.
        lengths = sorted(map(int, trial.rng.integers(2, 20, size=fitting + 3)), reverse=True)
        lines = _lines(trial.rng, *((6, words) for words in lengths))
        instructions = chats.sentence(
            trial.rng, 30
        )  # longer than any exchange: who does not count them keeps one too many
        # Exactly what the first exchanges and the next question need, so that a limit may be met to the token.
        said = [instructions, *(text for line in lines[:fitting] for text in line), lines[fitting][0]]
        _within(trial, answer, lines, sum(map(count, said)), count, instructions)


@conversation.criterion(
    _("leaves no gap in what it sends"),
    points=0.5,
    why=_("A dialogue with a hole in it reads as if it had none: the model takes the next line for an answer to "
          "the one before."),
)  # fmt: skip
def no_gap(trial: Trial, answer: Handle) -> None:
    lines = _lines(trial.rng, (3, 2), (25, 1), (3, 5), (3, 2), (3, 2), (3, 2))
    lines[4] = (lines[3][0], lines[4][1])  # a customer who asks again, and gets another answer
    instructions = chats.sentence(trial.rng)
    # Room for the third exchange and the first, but not for the second between them.
    said = [instructions, *lines[0], *lines[2], lines[3][0]]
    server = _within(trial, answer, lines, sum(map(_count_words, said)) + 2, _count_words, instructions)
    _for_model(trial, server.requests[-1])


def _within(
    trial: Trial, answer: Handle, lines: Exchanges, budget: int, count: Callable[[str], int], instructions: str
) -> ScriptedServer:
    """Lead a whole dialogue and look at every request; return the server that got them."""
    dialogue = _Dialogue(trial, answer, [Completion(reply) for _question, reply in lines], budget, count, instructions)
    for question, reply in lines:
        dialogue.turn(question, reply)
    return dialogue.server


@conversation.criterion(
    _("refuses a question that does not fit even alone"),
    points=0.5,
    why=_("Better an error that you can show to the customer than half a question, or a request that the provider "
          "refuses."),
)  # fmt: skip
def oversized(trial: Trial, answer: Handle) -> None:
    [(asked, replied)] = _lines(trial.rng, (6, 6))
    instructions = chats.sentence(trial.rng)
    dialogue = _Dialogue(trial, answer, [Completion(replied)], 50, _count_words, instructions)
    dialogue.turn(asked, replied)
    room = dialogue.budget - _count_words(instructions)
    long = " ".join(trial.rng.choice(chats.WORDS, size=room + 1))
    sent = _("The oversized question was sent all the same.")
    try:
        with trial.raises("ValueError", message=_("A question that does not fit even alone must raise {names}.")):
            dialogue.ask(long)
    finally:
        trial.require(len(dialogue.server.requests) == 1, sent)
    another = _Dialogue(trial, answer, [Completion(replied)], 50, _count_words, instructions)
    another.turn(long.rpartition(" ")[0], replied)  # this one fits exactly


@conversation.criterion(
    _("forgets a question that got no answer"),
    points=0.5,
    why=_("A question without an answer in the middle of a dialogue confuses the model, and nobody will ever answer "
          "it."),
)  # fmt: skip
def no_trace(trial: Trial, answer: Handle) -> None:
    # With room for everything; then with a failing question so long that it leaves room for no exchange.
    for budget, words in ((1000, 6), (60, 40)):
        (first, first_reply), (lost, _none), (last, last_reply) = _lines(trial.rng, (6, 6), (words, 1), (6, 6))
        replies: list[Reply] = [Completion(first_reply), Failure(503, "busy"), Completion(last_reply)]
        dialogue = _Dialogue(trial, answer, replies, budget, _count_words, chats.sentence(trial.rng))
        dialogue.turn(first, first_reply)
        with trial.raises("InternalServerError", message=_("The server failed; its error must reach the caller.")):
            dialogue.ask(lost)
        dialogue.turn(last, last_reply)
    (first, first_reply), (last, last_reply) = _lines(trial.rng, (6, 6), (6, 6))
    replies = [Completion(first_reply), Completion(last_reply)]
    dialogue = _Dialogue(trial, answer, replies, 60, _count_words, chats.sentence(trial.rng))
    dialogue.turn(first, first_reply)
    try:
        dialogue.ask(" ".join(trial.rng.choice(chats.WORDS, size=60)))
    except AnswerRaised:
        dialogue.turn(last, last_reply)


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


@conversation.misconception(_("answers that are left out of the count: only questions are counted"))
class CountsOnlyQuestions(_Memory):
    def kept(self, room: int) -> Exchanges:
        questions = _fitting([(asked, "") for asked, _replied in self.exchanges], room, self.count_tokens)
        return self.exchanges[len(self.exchanges) - len(questions) :]


@conversation.misconception(_("no budget at all"))
class NoBudget(_Memory):
    def kept(self, room: int) -> Exchanges:
        return self.exchanges


@conversation.misconception(_("the instructions left out of the count"))
class InstructionsNotCounted(_Memory):
    def kept(self, room: int) -> Exchanges:
        return super().kept(room + self.count_tokens(self.instructions))


@conversation.misconception(_("the new question left out of the count"))
class QuestionNotCounted(_Memory):
    def ask(self, question: str) -> Any:
        room = self.budget - self.count_tokens(self.instructions)
        if self.count_tokens(question) > room:
            raise ValueError("the question does not fit into the budget")
        reply = self.complete(_wanted(self.instructions, self.kept(room), question))
        self.exchanges.append((question, reply))
        return reply


@conversation.misconception(_("a dialogue that must stay below its budget and never meets it (`<` for `<=`)"))
class NeverMeetsBudget(_Memory):
    def kept(self, room: int) -> Exchanges:
        return super().kept(room - 1)


@conversation.misconception(_("an error as soon as the dialogue is full, where its oldest exchanges should go"))
class RaisesWhenFull(_Memory):
    def kept(self, room: int) -> Exchanges:
        if super().kept(room) != self.exchanges:
            raise ValueError("the dialogue is full")
        return self.exchanges


@conversation.misconception(_("a memory that keeps the oldest exchanges and drops the latest"))
class KeepsTheOldest(_Memory):
    def kept(self, room: int) -> Exchanges:
        newest_first = self.exchanges[::-1]
        return _fitting(newest_first, room, self.count_tokens)[::-1]


@conversation.misconception(_("exchanges sent in the wrong order, the latest first"))
class LatestFirst(_Memory):
    def kept(self, room: int) -> Exchanges:
        return super().kept(room)[::-1]


@conversation.misconception(_("only the last exchange, however many would fit"))
class OnlyTheLast(_Memory):
    def kept(self, room: int) -> Exchanges:
        return super().kept(room)[-1:]


@conversation.misconception(_("characters counted instead of tokens: `count_tokens` is not used"))
class CountsCharacters(_Memory):
    def __init__(self, client: Any, instructions: str, budget: int, count_tokens: Callable[[str], int]) -> None:
        super().__init__(client, instructions, budget, len)


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
