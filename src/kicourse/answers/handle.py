"""The check's side: a handle on an answer that lives elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from kicourse.answers.channel import Channel
from kicourse.answers.codec import Bounds, NotDataError, RefusedError, decode, encode, require_bounds
from kicourse.answers.deadline import TooLate, interrupted_at
from kicourse.answers.errors import AnswerLost, AnswerRaised, AnswerRefused, AnswerTimedOut, NotStarted
from kicourse.answers.location import Location

_LONGEST_STREAM = 10_000
_LONGEST_TEXT = 2_000  # characters of an exception's
_MOST_TYPES = 20  # that an exception is of


class Connection(Protocol):
    """A way to an answer's host: over a thread in the kernel, over a process in grading."""

    @property
    def channel(self) -> Channel:
        """The check's end of the channel; a new one after an interrupt."""

    def interrupt(self) -> Location | None:
        """Stop the running call and return where it was."""

    def close(self) -> None:
        """End the host."""


@dataclass
class Exchange:
    """One thing asked of an answer and what came back, kept for messages and for the diagnosis.

    Of an object that stayed on the answer's side (`kept`) the outcome is the name of its type. What is asked of helper
    code beside the answer (`helper`), or read without a call, means nothing to a learner. `shown` is how messages write
    what was asked, where the call itself would say little; `part` takes out of an outcome what counts, where the rest
    is a matter of taste.
    """

    call: str
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    outcome: Any = None
    kept: bool = False
    helper: bool = False
    lent: list[Any] = field(default_factory=list)
    shown: str = ""
    part: Callable[[Any], Any] | None = None

    @property
    def behaviour(self) -> list[Any]:
        """What the answer did: what a class is called, or whether an iterator is a generator, is no part of it."""
        outcome = self.outcome
        if self.part:
            with suppress(Exception):  # of something else altogether, all of it counts
                outcome = self.part(outcome)
        return [None if self.kept else outcome, self.lent]


@dataclass
class Session:
    """One conversation with an answer's host: sends requests, serves lent functions, keeps the transcript.

    `spent` is how many seconds all requests took, `longest` the longest of those that were answered.
    """

    connection: Connection
    seconds: float = 10.0
    transcript: list[Exchange] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    spent: float = 0.0
    longest: float = 0.0
    lent: dict[int, Callable[..., Any]] = field(default_factory=dict)
    part: Callable[[Any], Any] | None = None

    def request(self, exchange: Exchange | None, bounds: Bounds | None = None, **message: Any) -> Any:
        """Ask the host for something and return its reply. Raises a subclass of AnswerError where that fails."""
        if exchange is not None:
            exchange.part = self.part
            self.transcript.append(exchange)
        start = time.monotonic()
        try:
            reply = self._converse(encode(message, self._export), exchange, bounds or Bounds(), start + self.seconds)
            _require_answer(reply, message)
        except (AnswerTimedOut, AnswerRefused, AnswerLost) as error:
            if exchange is not None:
                exchange.outcome = error
            raise
        finally:
            self.spent += time.monotonic() - start
        self.longest = max(self.longest, time.monotonic() - start)
        return self._outcome(reply, exchange)

    def _converse(self, frame: bytes, exchange: Exchange | None, bounds: Bounds, deadline: float) -> dict[str, Any]:
        channel = self.connection.channel
        channel.send(frame)
        while True:
            try:
                left = deadline - time.monotonic()
                if left <= 0:  # however much the answer has to say
                    raise TimeoutError
                answer = channel.receive(left)
            except TimeoutError:
                raise AnswerTimedOut(self.seconds, self.connection.interrupt()) from None
            except KeyboardInterrupt:
                self.connection.interrupt()
                raise
            if answer is None:
                raise AnswerLost("the answer's side has ended")
            reply = self._decode(answer, bounds)
            if "lent" not in reply:
                return reply
            try:
                with interrupted_at(deadline):  # how long it takes depends on what it was handed
                    outcome = self._call_lent(reply, exchange)
            except TooLate:
                raise AnswerTimedOut(self.seconds, self.connection.interrupt()) from None
            except BaseException:
                self.connection.interrupt()  # the answer waits for an outcome that will not come
                raise
            channel.send(outcome)

    def _decode(self, frame: bytes, bounds: Bounds) -> dict[str, Any]:
        """Decode a message. A lent function may be handed NaN: what that means is for the check to say."""
        try:
            reply = decode(frame, replace(bounds, finite=False))
        except RefusedError as error:
            self.connection.interrupt()  # it may be waiting inside a lent function
            raise AnswerRefused(str(error)) from error
        if not self._is_sound(reply):
            self.connection.interrupt()
            raise AnswerLost("a malformed reply")
        try:
            require_bounds(None if "lent" in reply else reply, bounds)
        except RefusedError as error:
            raise AnswerRefused(str(error)) from error
        return dict(reply)

    def _is_sound(self, reply: Any) -> bool:
        """Whether a message has the parts that the protocol gives it; what they hold is another matter."""
        if not isinstance(reply, dict):
            return False
        if "lent" in reply:
            number, args, kwargs = (reply.get(name) for name in ("lent", "args", "kwargs"))
            named = isinstance(kwargs, dict) and all(isinstance(name, str) for name in kwargs)
            return type(number) is int and number in self.lent and isinstance(args, list) and named
        return isinstance(reply.get("changed", []), list)

    def _call_lent(self, message: dict[str, Any], exchange: Exchange | None) -> bytes:
        function = self.lent[message["lent"]]
        if exchange is not None and not hasattr(function, "_unobserved"):
            exchange.lent.append((message["args"], message["kwargs"]))
        try:
            outcome = {"value": function(*message["args"], **message["kwargs"])}
        except StopIteration as error:
            raise TypeError("a lent function must not raise StopIteration") from error
        except Exception as error:
            outcome = {"raise": _builtin_name(error), "args": [str(argument) for argument in error.args]}
        return encode(outcome, self._export)

    def _export(self, value: Any) -> tuple[str, int] | None:
        if isinstance(value, Handle):
            return "object", value._number
        if callable(value):
            number = len(self.lent)
            self.lent[number] = value
            return "lent", number
        return None

    def _outcome(self, reply: dict[str, Any], exchange: Exchange | None) -> Any:
        try:
            self.changed.update(text_of(name, 100) for name in reply.get("changed", ())[:20])
            if "raised" in reply:
                raise _raised(reply["raised"])
            if "refused" in reply:
                raise AnswerRefused(text_of(reply["refused"], 500))
        except (AnswerRaised, AnswerRefused, NotStarted) as error:
            if exchange is not None:
                exchange.outcome = error
            raise
        if exchange is not None:
            exchange.outcome = reply.get("value", reply.get("type", reply.get("stopped")))
            exchange.kept = "object" in reply
        return reply


def _require_answer(reply: dict[str, Any], request: dict[str, Any]) -> None:
    """Raise AnswerLost unless a reply answers what was asked for: a value, an object that stays there, or an end."""
    if "raised" in reply or "refused" in reply:
        return
    if request.get("keep") or request["do"] in ("iterate", "attribute"):
        answers = type(reply.get("object")) is int and isinstance(reply.get("type"), str)
    else:
        answers = "value" in reply or (request["do"] == "next" and reply.get("stopped") is True)
    if not answers:
        raise AnswerLost("a reply to something else")


def _raised(description: Any) -> AnswerRaised | NotStarted:
    try:
        names = tuple(text_of(name, 100) for name in description["types"][:_MOST_TYPES]) or ("Exception",)
        where = description["where"]
        place = Location(int(where[0]), text_of(where[1], 200), text_of(where[2], 100)) if where else None
        text = text_of(description["text"], _LONGEST_TEXT)
        own = description.get("own") is True
    except Exception:  # any part may be of any type
        return AnswerRaised(("Exception",), "", None)
    if names[0] == "NotImplementedError" and place is not None and own:  # libraries have unfinished parts as well
        return NotStarted(place)
    return AnswerRaised(names, text, place)


def text_of(value: Any, longest: int) -> str:
    """Return a text that a peer has sent, cut; of anything else, which may be large, only what it is."""
    return value[:longest] if isinstance(value, str) else type(value).__name__


def _builtin_name(error: Exception) -> str:
    for kind in type(error).__mro__:
        if kind.__module__ == "builtins":
            return kind.__name__
    return "Exception"


def unobserved(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that is lent to answers: whether and how often it is called is a matter of style.

    Its calls are then no part of how an answer behaves, when the diagnosis compares that with a misconception.
    """
    function._unobserved = True  # type: ignore[attr-defined]
    return function


class Handle:
    """An answer, or an object that an answer made, reached from a check.

    Calling a handle sends plain data and returns plain data; see docs/architecture.md for the other ways. Every way
    may raise AnswerRaised, AnswerTimedOut, AnswerRefused or NotStarted.
    """

    def __init__(self, session: Session, number: int, name: str, *, finite: bool = True) -> None:
        self._session, self._number, self._name, self._finite = session, number, name, finite

    def __repr__(self) -> str:
        return f"<{self._name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the answer; what it returns must be data. An async function is awaited."""
        return self._call(args, kwargs, keep=False)["value"]

    def make(self, *args: Any, **kwargs: Any) -> "Handle":
        """Call the answer and keep what it returns on its side."""
        return self._kept(self._call(args, kwargs, keep=True))

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Call the answer and iterate what it returns: the next piece is asked for when the check asks for it."""
        return iter(self.make(*args, **kwargs))

    def __iter__(self) -> Iterator[Any]:
        """Iterate the object; asynchronous iterators too. Raises AnswerRefused if there is no end to it."""
        iterator = self._kept(self._request("iter", (), {}, helper=True, do="iterate", target=self._number))
        for _ in range(_LONGEST_STREAM):
            reply = iterator._request("next", (), {}, helper=True, do="next", target=iterator._number)
            if "value" not in reply:
                return
            yield reply["value"]
        raise AnswerRefused(f"more than {_LONGEST_STREAM:,} pieces, one after the other")

    def attribute(self, name: str) -> "Handle":
        """Read an attribute (a method, say) and keep it on its side."""
        reply = self._session.request(None, do="attribute", target=self._number, name=name)
        return Handle(self._session, reply["object"], f"{self._name}.{name}", finite=self._finite)

    def data(self) -> Any:
        """Return the object itself, as data."""
        return self._request(self._name, None, {}, helper=True, do="data", target=self._number)["value"]

    def probe(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Run helper code (answers/probes.py) beside the object and return its result as data.

        What a probe returns can be forged by the answer: recompute it, contradict it, or give no points for it.
        """
        return self._probe(name, args, kwargs, keep=False)["value"]

    def build(self, name: str, *args: Any, **kwargs: Any) -> "Handle":
        """Run helper code (answers/probes.py) on the answer's side and keep its result there."""
        return self._kept(self._probe(name, args, kwargs, keep=True))

    def allowing_nonfinite(self) -> "Handle":
        """Return the same handle, through which NaN and infinities may come back."""
        return Handle(self._session, self._number, self._name, finite=False)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any], keep: bool) -> dict[str, Any]:
        return self._request(
            self._name,
            args,
            kwargs,
            do="call",
            target=self._number,
            args=list(args),
            kwargs=kwargs,
            keep=keep,
        )

    def _probe(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], keep: bool) -> dict[str, Any]:
        # To evaluate a module is to call it; every other probe is our own affair.
        return self._request(
            self._name,
            args,
            kwargs,
            helper=name != "evaluate",
            do="probe",
            target=self._number,
            name=name,
            args=list(args),
            kwargs=kwargs,
            keep=keep,
        )

    def _request(
        self,
        call: str,
        shown: tuple[Any, ...] | None,
        shown_kwargs: dict[str, Any],
        helper: bool = False,
        **message: Any,
    ) -> dict[str, Any]:
        exchange = Exchange(call, (shown or (), shown_kwargs), helper=helper)
        try:
            reply: dict[str, Any] = self._session.request(exchange, Bounds(finite=self._finite), **message)
        except NotDataError as error:
            raise TypeError(f"the check sent something that is not data: {error}") from error
        return reply

    def _kept(self, reply: dict[str, Any]) -> "Handle":
        name = text_of(reply.get("name", reply["type"]), 100)
        return Handle(self._session, int(reply["object"]), name, finite=self._finite)
