"""The checks of `robust_client`: calls that survive production.

Time is a number that a trial moves, and failures come from scripted servers through the real client.
"""

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from kicourse.answers import AnswerError, AnswerRefused
from kicourse.answers.handle import unobserved
from kicourse.checks import AnswerRaised, Check, Failed, Handle, Trial, _, chats
from kicourse.checks.scripted_server import Broken, Completion, Failure, Reply, ScriptedServer
from kicourse.checks.show import show

if TYPE_CHECKING:
    import numpy as np

_TEMPORARY = (408, 429, 500, 502, 503, 504)
_FINAL = (400, 401, 403, 404, 422, 501)
_UNWRITABLE: list[dict[str, Any]] = [{"role": "user", "content": 1j}]  # a TypeError: JSON has no complex numbers
_NO_CHOICES = Broken('{"choices": []}')  # it is JSON, but whoever looks for its text gets an IndexError of their own


def _chat(rng: "np.random.Generator") -> list[dict[str, str]]:
    return [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": chats.sentence(rng)}]


def _sent(trial: Trial, server: ScriptedServer, messages: list[dict[str, str]]) -> None:
    """Fail unless every request carried just these messages."""
    trial.require(server.requests, _("No request arrived. Send it through the client that your code is given."))
    wanted = [chats.message(message) for message in messages]
    for request in server.requests:
        got = (request.body or {}).get("messages")
        seen = [chats.message(message) for message in got] if isinstance(got, list) else []
        if seen != wanted:
            raise Failed(
                trial.text(_("A request does not carry the messages that your code was given.")),
                chats.said(wanted),
                chats.said(seen),
            )


def _for_model(trial: Trial, server: ScriptedServer) -> None:
    """Fail unless every request was for the notebook's MODEL."""
    for request in server.requests:
        if not chats.names_model(request.body):
            model = show((request.body or {}).get("model"))
            raise Failed(trial.text(_("Your request names another model.")), "model=MODEL", f"model={model}")


def _requests(trial: Trial, count: int) -> str:
    return trial.text(_("one request")) if count == 1 else trial.text(_("{count} requests"), count=count)


# ---------------------------------------------------------------- with_retries

with_retries = Check(
    "robust_client",
    "with_retries",
    title=_("Try again, politely"),
    hints=(
        _("Before you try again there are three questions. Can it help? Am I still allowed to? How long do I wait? "
          "And so that only you try again, work with `client.with_options(max_retries=0)`."),
        _("In a loop over the attempts, return where it works. Where it fails, decide inside the `except` block, for "
          "the name after `as` is gone when the block ends: `raise` what is not temporary; `raise` after the last "
          "attempt; find the wait; `raise` if it would not be over before the deadline. Only then sleep."),
        _("`end = clock() + deadline` before the loop. Only an `APIStatusError` has a `response` in which to look for "
          "`Retry-After`; `float` raises a `ValueError` where that is no number, and a `TypeError` for `None`. Once "
          "you have the wait, compare `clock() + wait` with `end`, and the number of the attempt, counted from 0, with "
          "`attempts`."),
    ),
    seconds=5,
)  # fmt: skip

_GENEROUS = {"attempts": 6, "base": 0.5, "cap": 8.0, "deadline": 10_000.0}


@dataclass
class _World:
    """A server, and a time that passes only while a request runs or somebody sleeps."""

    trial: Trial
    server: ScriptedServer
    start: float
    request_seconds: float = 0.0
    fractions: Sequence[float] = (0.5,)
    waits: list[tuple[float, float]] = field(default_factory=list)  # when a wait began, and when it ended
    client: Handle | None = None
    asked: set[str] = field(default_factory=set)  # which of clock and dice the answer has asked
    shown: str = ""  # the call, as a verdict shows it

    def clock(self) -> float:
        self.asked.add("clock")
        return self.now()

    def now(self) -> float:
        return self.start + self.request_seconds * len(self.server.requests) + sum(self.slept)

    @property
    def slept(self) -> list[float]:
        return [end - start for start, end in self.waits]

    def sleep(self, seconds: float) -> None:
        if not 0 <= float(seconds) < math.inf:
            raise ValueError("sleep length must be a number that is not negative")
        if len(self.waits) == 40:
            raise RuntimeError("this has been going on for 40 waits")
        self.waits.append((self.now(), self.now() + float(seconds)))

    def jitter(self) -> float:
        """Return a number from 0 to 1 that depends on the attempt alone, however often it is asked for."""
        self.asked.add("jitter")
        return self.fractions[(len(self.server.requests) - 1) % len(self.fractions)]

    def run(self, answer: Handle, messages: Any, told: dict[str, float], **settings: Any) -> Any:
        """Return the text, or the error that came instead of it."""
        self.client = self.client or answer.build("openai_client", base_url=self.server.url, **settings)
        # How often an answer asks for the time or the dice is a matter of style.
        about = {
            "jitter": unobserved(lambda: self.jitter()),
            "clock": unobserved(lambda: self.clock()),
            "sleep": self.sleep,
        }
        numbers = _GENEROUS | told
        shown = ", ".join(f"{name}={value:g}" for name, value in numbers.items())
        self.shown = f"with_retries(client, messages, {shown}, jitter=…, clock=…, sleep=…)"
        try:
            with self.trial.trying(self.shown):
                return answer(self.client, messages, **numbers, **about)
        except AnswerRaised as error:
            return error

    def require_sleep(self) -> None:
        """Fail if there was a second request and yet no wait: such an answer would really wait, for a long time."""
        message = _("Your code sent another request without a call of `sleep`, the one that it is given.")
        self.trial.require(self.waits or len(self.server.requests) < 2, message)


def _world(trial: Trial, replies: Sequence[Reply], **options: Any) -> _World:
    # A start that binary fractions hold exactly, so that times can be compared to the digit.
    return _World(trial, trial.server(replies), start=float(trial.rng.integers(0, 10_000)), **options)


def _text(trial: Trial, got: Any, wanted: str) -> None:
    """Fail unless the answer returned this text; where it raised, with the error's own words."""
    if isinstance(got, AnswerRaised):
        raise got
    trial.equal(got, wanted, _("That is not the text of the reply."))


@with_retries.criterion(
    _("returns the reply, also after it was told to slow down"),
    points=0.5,
    why=_("A request that fails now and works a second later is everyday life on a network. The customer should not "
          "notice it."),
)  # fmt: skip
def survives(trial: Trial, answer: Handle) -> None:
    for failures in (0, 2):
        text, messages = chats.sentence(trial.rng), _chat(trial.rng)
        world = _world(trial, [*[Failure(429)] * failures, Completion(text)])
        got = world.run(answer, messages, {})
        if failures and isinstance(got, AnswerRaised):  # never trying again is told from not after this status
            _world(trial, [Failure(500), Completion(text)]).run(answer, messages, {})
        wanted, found = failures + 1, len(world.server.requests)
        if found > wanted:
            message = trial.text(
                _("The reply came with request number {wanted}, and your code went on."), wanted=wanted
            )
            raise Failed(message, _requests(trial, wanted), _requests(trial, found))
        _text(trial, got, text)
        _sent(trial, world.server, messages)


@with_retries.criterion(
    _("tries again where that can help, and only there"),
    points=0.5,
    why=_("A faulty request stays faulty: to repeat it costs time and money and hides the fault. A server that is down "
          "for a moment is another matter."),
)  # fmt: skip
def only_temporary(trial: Trial, answer: Handle) -> None:
    messages, helps = _chat(trial.rng), _passing_failures(trial)
    world = _world(trial, [reply for _name, failure in helps for reply in (failure, Completion("well"))])
    for name, _failure in helps:
        got = world.run(answer, messages, {})
        if isinstance(got, AnswerRaised):
            message = _("After {name} you do not try again; it would have worked the second time.")
            raise Failed(trial.text(message, name=name), show("well"), f"{got.type_names[0]}: {got.text}")
        _text(trial, got, "well")
    statuses = _final_statuses(trial.rng)
    world = _world(trial, [*(Failure(status, f"your own fault, {status}") for status in statuses), _NO_CHOICES])
    for number, status in enumerate(statuses, start=1):
        got = world.run(answer, messages, {})
        found = len(world.server.requests) - number + 1
        trial.require(
            found == 1,
            _("You sent {found} requests after status {status}; trying again cannot help there."),
            found=found,
            status=status,
            expected=_requests(trial, 1),
        )
        _original(trial, got, status, f"your own fault, {status}")
    world.run(answer, messages, {})
    found = len(world.server.requests) - len(statuses)
    message = _("A reply had no choices, so that your own code failed, and you sent {found} requests. Trying again is "
                "for failed connections, broken JSON and the statuses in `TEMPORARY`.")  # fmt: skip
    trial.require(found == 1, message, found=found, expected=_requests(trial, 1))
    waits = len(world.waits)
    world.run(answer, _UNWRITABLE, {})
    message = _("These messages cannot be written as JSON, and the client raises a TypeError. You wait and try again, "
                "which cannot help.")  # fmt: skip
    trial.require(len(world.waits) == waits, message, expected="TypeError")


def _passing_failures(trial: Trial) -> list[tuple[str, Reply]]:
    """Return every temporary failure with its name, in an order in which each mistake fails at a place of its own."""
    statuses = [int(status) for status in trial.rng.permutation([s for s in _TEMPORARY if s != 429])]
    first, *others = ((trial.text(_("status {status}"), status=s), Failure(s)) for s in (*statuses, 429))
    return [
        first,
        (trial.text(_("a connection that breaks off")), Broken()),
        (trial.text(_("a reply that is no JSON")), Broken("<html>Bad gateway</html>")),
        (trial.text(_("a timeout")), Broken(late=True)),
        *others,
    ]


def _final_statuses(rng: "np.random.Generator") -> list[int]:
    """Return statuses after which trying again cannot help: the usual ones, a rare one from 400 on, one from 500 on."""
    known = (*_TEMPORARY, *_FINAL)
    rare = [rng.choice([number for number in range(start, start + 100) if number not in known]) for start in (400, 500)]
    return [int(status) for status in rng.permutation([*_FINAL, *rare])]


_ERRORS = {400: "BadRequestError", 401: "AuthenticationError", 403: "PermissionDeniedError", 404: "NotFoundError",
           422: "UnprocessableEntityError"}  # fmt: skip


def _original(trial: Trial, got: Any, status: int, words: str) -> None:
    """Fail unless the client's own error with these words came through."""
    if isinstance(got, AnswerRaised) and "OpenAIError" in got.type_names and words in got.text:
        return
    shown = f"{got.type_names[0]}: {got.text}" if isinstance(got, AnswerRaised) else show(got)
    wanted = f"{_ERRORS.get(status, 'APIStatusError' if status < 500 else 'InternalServerError')}: {words}"
    raise Failed(trial.text(_("The last error itself does not reach the caller.")), wanted, shown)


@with_retries.criterion(
    _("sends `attempts` requests and not one more, then raises the last error"),
    points=0.5,
    why=_("Each layer that retries multiplies: three attempts of yours times three of the client's are nine requests "
          "to a server that is down already. And whoever calls needs the real error to know what happened."),
)  # fmt: skip
def counts_attempts(trial: Trial, answer: Handle) -> None:
    for attempts in (1, int(trial.rng.integers(3, 6))):
        # The client's own retries are on, and short: it sleeps for as long as the server says.
        failures = [Failure(503, f"no {number}", retry_after=0.001) for number in range(1, 3 * attempts + 2)]
        world = _world(trial, failures)
        team = f"service-{trial.rng.integers(100, 1000)}"
        settings = {"max_retries": 2, "default_headers": {"X-Team": team}}
        got = world.run(answer, _chat(trial.rng), {"attempts": attempts}, **settings)
        found = len(world.server.requests)
        trial.require(
            found == attempts,
            _("With `attempts` {attempts}, this is how many requests the server counted: {found}."),
            attempts=attempts,
            found=found,
            expected=_requests(trial, attempts),
        )
        _original(trial, got, 503, f"no {attempts}")
        trial.require(
            len(world.waits) < attempts,
            _("You wait after the last attempt, though nothing follows."),
            expected=f"{attempts - 1} × sleep",
        )
        lost = _("The client that your code was given sends a header of its own, and a request came without it. A copy "
                 "by `with_options` keeps such settings; a new client has lost them.")  # fmt: skip
        kept = all(request.headers.get("x-team") == team for request in world.server.requests)
        trial.require(kept, lost, expected=f"X-Team: {team}")
        _for_model(trial, world.server)
        assert world.client is not None
        trial.require(
            world.client.attribute("max_retries").data() == 2,
            _("Your code changed the client that it was given, which others use too. `with_options` returns a copy."),
            expected="client.max_retries == 2",
        )


@with_retries.criterion(
    _("waits a random part of a bound that doubles up to its cap"),
    points=0.5,
    why=_("Without the doubling you press on a server that is down; without the randomness all clients come back in "
          "the same instant; without the cap the last waits are for hours."),
)  # fmt: skip
def backs_off(trial: Trial, answer: Handle) -> None:
    for count, base, cap in ((3, 0.5, 6.0), (7, float(trial.rng.uniform(0.1, 2)), float(trial.rng.uniform(4, 6)))):
        fractions = [float(part) for part in trial.rng.uniform(0.05, 0.95, size=count)]
        world = _world(trial, [*[Failure(500)] * count, Completion("well")], fractions=fractions)
        world.run(answer, _chat(trial.rng), {"attempts": count + 1, "base": base, "cap": cap})
        bounds = [min(cap, base * 2**number) for number in range(count)]
        world.require_sleep()
        trial.require(
            len(world.waits) == count,
            _("Between {attempts} attempts there are {count} waits; this is how many yours has: {found}."),
            attempts=count + 1,
            count=count,
            found=len(world.waits),
        )
        trial.close(
            world.slept,
            [fraction * bound for fraction, bound in zip(fractions, bounds, strict=True)],
            _("With `base` {base}, `cap` {cap} and the random numbers {fractions}, these are not the waits.")
            if "jitter" in world.asked
            else _(
                "Your code never calls `jitter()`, the dice that it is given. With `base` {base}, `cap` {cap} and the "
                "random numbers {fractions}, these are not the waits."
            ),
            base=base,
            cap=cap,
            fractions=", ".join(f"{part:.3g}" for part in fractions),
        )


@with_retries.criterion(
    _("waits as long as Retry-After says"),
    points=0.5,
    why=_("The server knows when it will have room again. Whoever comes earlier is refused again, or locked out; "
          "whoever comes later wastes the customer's time."),
)  # fmt: skip
def obeys_retry_after(trial: Trial, answer: Handle) -> None:
    # Shorter than the usual wait and longer, with a point and without; the last one tells what the usual wait is.
    afters: list[float | str | None] = [0.5, 3600, "Wed, 21 Oct 2026 07:28:00 GMT", 1, "soon", 0, None]
    statuses = [*(int(status) for status in trial.rng.permutation(_TEMPORARY)), 429]
    failures = [Failure(status, retry_after=after) for status, after in zip(statuses, afters, strict=True)]
    world = _world(trial, [reply for failure in failures for reply in (failure, Completion("well"))])
    messages = _chat(trial.rng)
    seen = []
    for after in afters:  # all of them first: so one mistake can be told from another
        before = len(world.waits)
        got = world.run(answer, messages, {"base": 4.0, "cap": 9.0})
        world.require_sleep()
        seen.append((after, got, world.slept[before:]))
    # Whether that is the right wait has a criterion of its own; whoever throws dice of their own waits anew each time.
    usual = seen[-1][2] if "jitter" in world.asked else None
    for status, (after, got, slept) in zip(statuses, seen, strict=True):
        message = _("The server said Retry-After: {after} with status {status}; that is not how long you wait.")
        if isinstance(after, str):
            _usual(trial, got, slept, after, usual)
        elif after:
            trial.close(slept, [after], message, after=after, status=status)
        elif after is not None:  # a wait of no time at all may be left out
            _text(trial, got, "well")
            trial.close(sum(slept), after, message, after=after, status=status)


def _usual(trial: Trial, got: Any, slept: list[float], after: str, usual: list[float] | None) -> None:
    """Fail unless the wait after a Retry-After that is no number was the one without any."""
    if isinstance(got, AnswerRaised):
        message = _("The server said Retry-After: {text}, which is no number; your code crashes on it.")
        raise Failed(trial.text(message, text=after), "", f"{got.type_names[0]}: {got.text}")
    message = _("The server said Retry-After: {text}, which is no number: then the usual wait applies.")
    trial.require(len(slept) == 1, message, text=after)
    if usual is not None:
        trial.close(slept, usual, message, text=after)


@with_retries.criterion(
    _("keeps the deadline"),
    points=0.5,
    why=_("After half a minute the customer has gone. A wait that ends too late is only waited for nothing, and the "
          "time that the requests took counts as well."),
)  # fmt: skip
def keeps_deadline(trial: Trial, answer: Handle) -> None:
    late = float(trial.rng.integers(20, 40)) + 0.125
    soon = float(trial.rng.integers(10, 13)) + 0.125  # before the fourth request is over
    seen = []
    failures = [Failure(503, f"busy {number}") for number in range(1, 9)]
    # A wait of no time at all is too late as well, when the deadline is over.
    until_over = [*failures[:3], Failure(503, "busy 4", retry_after=0), *failures[4:]]
    # The server's wait alone would be in time; with the waits before it, it is not.
    until_later = [*failures[:3], Failure(503, "busy 4", retry_after=int(late) - 2), *failures[4:]]
    for told, request_seconds, replies in (
        ({"attempts": 6, "base": 0.5, "cap": 0.5, "deadline": soon}, 3.0, until_over),  # the requests take the time
        ({"attempts": 3, "base": 8.0, "cap": 8.0, "deadline": 4.0}, 0.0, failures),  # a wait would end at the deadline
        ({"attempts": 8, "base": 2.0, "cap": 256.0, "deadline": late}, 0.0, until_later),  # the server's ends too late
    ):  # all of them first: so one mistake can be told from another
        world = _world(trial, replies, request_seconds=request_seconds)
        got = world.run(answer, _chat(trial.rng), told)
        world.require_sleep()
        seen.append((world, told["deadline"], got))
    trial.observe([sorted(world.asked & {"clock"}) for world, _deadline, _got in seen])
    for world, deadline, got in seen:
        too_late = [(start, end) for start, end in world.waits if end >= world.start + deadline]
        if too_late:
            start, end = (when - world.start for when in too_late[0])
            message = _("The deadline is {deadline:.9g} seconds after the start. At {start:.9g} seconds you begin to "
                        "wait until {end:.9g}: raise the error at once instead.")  # fmt: skip
            raise Failed(trial.text(message, deadline=deadline, start=start, end=end), tried=world.shown)
        _original(trial, got, 503, f"busy {len(world.server.requests)}")
    world = _world(trial, [Failure(503), Failure(503), Completion("well")], request_seconds=4.0)
    got = world.run(answer, _chat(trial.rng), {"base": 0.5, "cap": 0.5, "deadline": 14.0})
    if isinstance(got, AnswerRaised):
        message = trial.text(_("You give up though the deadline is still far away."))
        raise Failed(message, "", f"{got.type_names[0]}: {got.text}")


Wait = Callable[[int, Mapping[str, Any], float | None], float]


def _backoff(attempt: int, told: Mapping[str, Any]) -> float:
    return float(told["jitter"]() * min(told["cap"], told["base"] * 2**attempt))


def _usual_wait(attempt: int, told: Mapping[str, Any], after: float | None) -> float:
    return _backoff(attempt, told) if after is None else after


def _after(error: Any) -> float | None:
    """Return the seconds of Retry-After, where it is a number."""
    with suppress(AttributeError, KeyError, ValueError):
        return float(error.response.headers["retry-after"])
    return None


def _temporary(error: Exception) -> bool:
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in _TEMPORARY
    return isinstance(error, (openai.APIConnectionError, json.JSONDecodeError))


def _temporary_but_timeouts(error: Exception) -> bool:
    import openai

    return _temporary(error) and not isinstance(error, openai.APITimeoutError)


def _reply(client: Any, messages: Any, model: str = "") -> Any:
    from kicourse.models import gpt

    return client.chat.completions.create(model=model or gpt.model(), messages=messages)


def _retrying(
    client: Any,
    messages: Any,
    told: Mapping[str, Any],
    *,
    own_retries: bool = False,
    extra: int = 0,
    temporary: Callable[[Exception], bool] = _temporary,
    wait: Wait = _usual_wait,
    after: Callable[[Any], float | None] = _after,
    late: Callable[[float, float], bool] = lambda finish, end: finish >= end,
    sleep_last: bool = False,
    elapsed: Callable[[float, float], float] = lambda passed, _slept: passed,
    clip: bool = False,
    give_up: Callable[[Exception], Any] | None = None,
) -> Any:
    """Retry rightly, apart from what a misconception changes."""
    once = client if own_retries else client.with_options(max_retries=0)
    start, slept = told["clock"](), 0.0
    for attempt in range(told["attempts"] + extra):
        try:
            return _reply(once, messages).choices[0].message.content
        except Exception as error:
            if not temporary(error):
                raise
            is_last = attempt == told["attempts"] + extra - 1
            seconds = 0.0 if is_last and not sleep_last else wait(attempt, told, after(error))
            passed = elapsed(told["clock"]() - start, slept)
            if clip:
                seconds = max(0.0, min(seconds, told["deadline"] - passed))
            stop = is_last or (late(passed + seconds, told["deadline"]) and not (clip and seconds))
            if stop and not (is_last and sleep_last):
                if give_up:
                    return give_up(error)
                raise
            told["sleep"](seconds)
            slept += seconds
            if is_last:
                raise
    return None


@with_retries.misconception(_("the client's own two retries left on: each of your attempts becomes three requests"))
def own_retries(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told, own_retries=True)


@with_retries.misconception(_("every error of the client tried again, also 400 and 401"))
def retries_everything(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told, temporary=lambda _error: True)


@with_retries.misconception(_("only `RateLimitError` tried again: servers fail in other ways too"))
def only_rate_limits(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told, temporary=lambda error: getattr(error, "status_code", 0) == 429)


@with_retries.misconception(_("a failed connection that goes on to the caller: it has no status, and no response"))
def no_connection_errors(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(
        client,
        messages,
        told,
        temporary=lambda error: _temporary(error) and (hasattr(error, "status_code") or isinstance(error, ValueError)),
    )


@with_retries.misconception(_("a timeout that goes on to the caller: it is a connection error, too"))
def no_timeouts(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told, temporary=_temporary_but_timeouts)


@with_retries.misconception(_("a reply that is no JSON goes on to the caller: it is no error of the client's"))
def no_broken_json(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(
        client, messages, told, temporary=lambda error: _temporary(error) and not isinstance(error, ValueError)
    )


@with_retries.misconception(_("no second try at all: the first error goes on to the caller, whatever it is"))
def no_retries(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told, temporary=lambda _error: False)


@with_retries.misconception(_("only the server's own errors, from 500 on, tried again: not 429, which asks for it"))
def only_server_errors(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(
        client, messages, told, temporary=lambda error: _temporary(error) and getattr(error, "status_code", 500) >= 500
    )


@with_retries.misconception(_("every status from 500 on tried again: 501, say, is for good"))
def all_server_errors(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(
        client, messages, told, temporary=lambda error: _temporary(error) or getattr(error, "status_code", 0) >= 500
    )


@with_retries.misconception(_("the retries switched off in the caller's own client, instead of in a copy"))
def changes_client(client: Any, messages: Any, **told: Any) -> Any:
    client.max_retries = 0
    return _retrying(client, messages, told, own_retries=True)


@with_retries.misconception(_("no call of the `sleep` that you are given: no wait at all, or one by `time.sleep`"))
def own_sleep(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told | {"sleep": lambda _seconds: None})


@with_retries.misconception(_("`error.response` read after a failed connection too, which has none"))
def response_of_nothing(client: Any, messages: Any, **told: Any) -> Any:
    def after(error: Any) -> float | None:
        header = error.response.headers.get("retry-after")
        return _after(error) if header else None

    return _retrying(client, messages, told, after=after)


@with_retries.misconception(_("`attempts` counted as retries: one request too many"))
def one_too_many(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told, extra=1)


@with_retries.misconception(_("a wait after the last attempt"))
def sleeps_at_last(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told, sleep_last=True)


@with_retries.misconception(_("an error of your own at the end: the caller no longer learns what went wrong"))
def own_error(client: Any, messages: Any, **told: Any) -> Any:
    def fail(_error: Exception) -> Any:
        raise RuntimeError("all attempts failed")

    return _retrying(client, messages, told, give_up=fail)


@with_retries.misconception(_("`None` at the end instead of an error"))
def none_at_last(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told, give_up=lambda _error: None)


@with_retries.misconception(_("no jitter: all clients come back in the same instant"))
def no_jitter(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told | {"jitter": lambda: 1.0})


@with_retries.misconception(_("equal jitter: half of the bound is always waited, only the other half is random"))
def equal_jitter(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told | {"jitter": lambda: 0.5 + 0.5 * told["jitter"]()})


@with_retries.misconception(_("a random number of seconds added to the bound, instead of a part of it"))
def jitter_added(client: Any, messages: Any, **told: Any) -> Any:
    def wait(attempt: int, told: Mapping[str, Any], after: float | None) -> float:
        return min(told["cap"], told["base"] * 2**attempt) + told["jitter"]() if after is None else after

    return _retrying(client, messages, told, wait=wait)


@with_retries.misconception(_("no cap: the waits go on doubling"))
def no_cap(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told | {"cap": math.inf})


@with_retries.misconception(_("the cap put on the wait instead of on the bound: long waits are no longer random"))
def cap_after_jitter(client: Any, messages: Any, **told: Any) -> Any:
    def wait(attempt: int, told: Mapping[str, Any], after: float | None) -> float:
        return min(told["cap"], told["jitter"]() * told["base"] * 2**attempt) if after is None else after

    return _retrying(client, messages, told, wait=wait)


@with_retries.misconception(_("a bound that is doubled before the first wait"))
def doubled_early(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told | {"base": 2 * told["base"]})


@with_retries.misconception(_("a bound that grows by the same amount each time, instead of doubling"))
def linear(client: Any, messages: Any, **told: Any) -> Any:
    def wait(attempt: int, told: Mapping[str, Any], after: float | None) -> float:
        return told["jitter"]() * min(told["cap"], told["base"] * (attempt + 1)) if after is None else after

    return _retrying(client, messages, told, wait=wait)


@with_retries.misconception(_("the same bound each time: no backoff"))
def constant(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(
        client,
        messages,
        told,
        wait=lambda attempt, told, after: told["jitter"]() * told["base"] if after is None else after,
    )


@with_retries.misconception(_("Retry-After not read"))
def ignores_retry_after(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told, after=lambda _error: None)


@with_retries.misconception(_("Retry-After put under the cap: you come back before the server has room"))
def caps_retry_after(client: Any, messages: Any, **told: Any) -> Any:
    def wait(attempt: int, told: Mapping[str, Any], after: float | None) -> float:
        return _backoff(attempt, told) if after is None else min(told["cap"], after)

    return _retrying(client, messages, told, wait=wait)


@with_retries.misconception(_("the longer one of Retry-After and the backoff: Retry-After takes precedence"))
def longer_of_both(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(
        client, messages, told, wait=lambda attempt, told, after: max(_backoff(attempt, told), after or 0.0)
    )


@with_retries.misconception(_("a Retry-After that counts only if it is made of digits: `0.5` is a number too"))
def only_digits(client: Any, messages: Any, **told: Any) -> Any:
    def after(error: Any) -> float | None:
        seconds = _after(error)
        return seconds if seconds is not None and error.response.headers["retry-after"].isdigit() else None

    return _retrying(client, messages, told, after=after)


@with_retries.misconception(_("a Retry-After read by `int`: `0.5` is a number too"))
def read_by_int(client: Any, messages: Any, **told: Any) -> Any:
    def after(error: Any) -> float | None:
        with suppress(AttributeError, KeyError, ValueError):
            return int(error.response.headers["retry-after"])
        return None

    return _retrying(client, messages, told, after=after)


@with_retries.misconception(_("a Retry-After of 0 taken for none, as by `or`"))
def zero_is_none(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told, after=lambda error: _after(error) or None)


@with_retries.misconception(_("a Retry-After that must be a number: a date makes it crash"))
def retry_after_crashes(client: Any, messages: Any, **told: Any) -> Any:
    def after(error: Any) -> float | None:
        header = error.response.headers.get("retry-after") if hasattr(error, "response") else None
        return None if header is None else float(header)

    return _retrying(client, messages, told, after=after)


@with_retries.misconception(_("no deadline"))
def no_deadline(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told | {"clock": lambda: 0.0}, late=lambda _finish, _end: False)


@with_retries.misconception(_("a deadline that only your own wait has to keep, not one by Retry-After"))
def own_wait_only(client: Any, messages: Any, **told: Any) -> Any:
    said: list[float | None] = []

    def after(error: Any) -> float | None:
        said.append(_after(error))
        return None

    def sleep(seconds: float) -> None:
        told["sleep"](seconds if said[-1] is None else said[-1])

    return _retrying(client, messages, told | {"sleep": sleep}, after=after)


@with_retries.misconception(_("the deadline looked at after the wait, when the time is gone"))
def looks_too_late(client: Any, messages: Any, **told: Any) -> Any:
    end = told["clock"]() + told["deadline"]
    return _retrying(client, messages, told, late=lambda _finish, _end: told["clock"]() >= end)


@with_retries.misconception(_("a wait cut off at the deadline: nothing can follow it"))
def clipped(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told, clip=True)


@with_retries.misconception(_("a deadline for the waits alone: the time that requests take is not counted"))
def only_waits_count(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told | {"clock": lambda: 0.0}, elapsed=lambda _passed, slept: slept)


@with_retries.misconception(_("a deadline that never looks at the `clock` that you are given"))
def own_clock(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told | {"clock": lambda: 0.0})


@with_retries.misconception(_("a deadline that starts anew with each attempt"))
def deadline_restarts(client: Any, messages: Any, **told: Any) -> Any:
    return _retrying(client, messages, told, elapsed=lambda _passed, _slept: 0.0)


# ---------------------------------------------------------------- request_cache

request_cache = Check(
    "robust_client",
    "request_cache",
    title=_("Do not ask twice"),
    hints=(
        _("A dictionary does it. What is the key, what is the value, and who else holds the value in their hands?"),
        _("The key is a text made of just the listed fields: `json.dumps` with `sort_keys=True` writes equal data "
          "equally. The value is the reply and the time when it came. If you keep the reply as a text too, nobody can "
          "change it."),
        _("`key = json.dumps([request.get(name) for name in FIELDS], sort_keys=True)`. If it is there and still young "
          "enough, read the kept text anew with `json.loads`; else ask, keep the reply's text with the time, and read "
          "what you return from that text too."),
    ),
    seconds=5,
)  # fmt: skip

_FIELDS = ("model", "messages", "temperature", "max_tokens", "response_format")


def _request(rng: "np.random.Generator") -> dict[str, Any]:
    return {
        "model": f"model-{rng.integers(10, 100)}",
        "messages": _chat(rng),
        "temperature": 0.5,
        "max_tokens": int(rng.integers(20, 200)),
        "response_format": {"type": "json_schema", "json_schema": {"name": "ticket", "schema": {"type": "object"}}},
    }


def _usage(rng: "np.random.Generator") -> dict[str, int]:
    read, written = (int(count) for count in rng.integers(5, 900, size=2))
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


@dataclass
class _Cached:
    """A cache of the answer's with its server, and a time that the trial moves."""

    trial: Trial
    answer: Handle
    replies: Sequence[Reply]
    seconds: float = 60.0
    now: float = 1000.0
    request_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.server = self.trial.server(self.replies)
        client = self.answer.build("openai_client", base_url=self.server.url)
        self.cache = self.answer.make(client, self.seconds, unobserved(lambda: self.clock()))

    def clock(self) -> float:
        return self.now + self.request_seconds * len(self.server.requests)

    def create(self, request: Mapping[str, Any]) -> Any:
        """Return what comes back: None where the script had no reply left, which is no fault of the server's."""
        try:
            return self.cache.attribute("create")(**request)
        except AnswerRaised:
            if len(self.server.requests) > len(self.replies):
                return None
            raise

    def keep(self, request: Mapping[str, Any]) -> Handle:
        return self.cache.attribute("create").make(**request)

    def expect(self, request: Mapping[str, Any], text: str, requests: int, message: str, **values: Any) -> None:
        """Fail unless the reply has this text and the server has had so many requests by now."""
        self.judge(self.create(request), len(self.server.requests), text, requests, message, **values)

    def expect_whole(self, request: Mapping[str, Any], reply: Completion, requests: int, message: str) -> None:
        """Fail unless all of this reply comes back, and the server has had so many requests by now."""
        got = self.create(request)
        self.judge(got, len(self.server.requests), "".join(reply.pieces), requests, message)
        self.trial.require(_holds(got, reply.whole()), _NO_REPLY, expected=show(reply.whole()))

    def judge(self, got: Any, found: int, text: str, requests: int, message: str, **values: Any) -> None:
        if found != requests:
            wanted, seen = (_requests(self.trial, count) for count in (requests, found))
            raise Failed(self.trial.text(message, **values), wanted, seen)
        self.trial.is_a(got, dict)
        said = _content(got)
        self.trial.require(said is not None, _NO_REPLY, expected="choices, model, usage, ...")
        self.trial.equal(said, text, _("The reply has another text than the server's."))


def _content(got: Any) -> Any:
    """Return the text in the dict of a reply, or None."""
    try:
        return got["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None


def _holds(got: Any, wanted: Any) -> bool:
    """Return whether all of `wanted` is in the same place; how a client writes what is missing is its own affair."""
    if isinstance(wanted, dict):
        return isinstance(got, dict) and all(_holds(got.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(got, list) and len(got) == len(wanted) and all(map(_holds, got, wanted))
    return bool(got == wanted)


_NO_REPLY = _("The dict is not what `reply.model_dump()` makes of a reply.")
_AGAIN = _("The same request came again. It should not reach the server again.")
_NONE = _("A field that is missing is the same as one that is `None`. This request should not reach the server again.")
_SHARED = _("Another cache asked this before, and this one took its reply. It should ask its own server.")
_NEW = _("A request that is not the same has to reach the server.")


def _texts(rng: "np.random.Generator", count: int) -> list[str]:
    return [chats.sentence(rng) for _number in range(count)]


@request_cache.criterion(
    _("asks once, and knows the reply the second time"),
    points=0.5,
    why=_("The same question comes as often as forty times a day. Each of these calls costs money and seconds, and "
          "says what you know already."),
)  # fmt: skip
def asks_once(trial: Trial, answer: Handle) -> None:
    texts, requests = _texts(trial.rng, 2), [_request(trial.rng) for _number in range(2)]
    cached = _Cached(trial, answer, [Completion(text) for text in texts])
    for number, place in enumerate((0, 0, 1, 0, 1, 1)):
        message = _("A first request has to reach the server, once.")
        message = message if number in (0, 2) else _AGAIN
        cached.expect(requests[place], texts[place], 1 if number < 2 else 2, message)
    _sent_as_it_is(trial, cached.server, requests)


def _sent_as_it_is(trial: Trial, server: ScriptedServer, requests: Sequence[Mapping[str, Any]]) -> None:
    for sent, wanted in zip(server.requests, requests, strict=True):
        got = {name: (sent.body or {}).get(name) for name in wanted}
        trial.equal(got, dict(wanted), _("What arrives at the server is not the request that your code was given."))


@request_cache.criterion(
    _("knows a request that is only written differently, and sends each one as it was given"),
    points=0.25,
    why=_("A dict has no order that means anything, and another field (who asks, say) does not change what the model "
          "answers. A key that looks at them makes a cache that is never hit. But they are sent: the provider may need "
          "them."),
)  # fmt: skip
def same_request(trial: Trial, answer: Handle) -> None:
    request = _request(trial.rng)
    one = Completion("one", usage=_usage(trial.rng))
    cached = _Cached(trial, answer, [one, Completion("two")])
    cached.create(request)
    for other in (_turned(request), request | {"user": chats.sentence(trial.rng, words=1)}):
        cached.expect_whole(other, one, 1, _AGAIN)
    short = {name: request[name] for name in ("model", "messages")} | {"user": chats.sentence(trial.rng, words=1)}
    cached.expect(short, "two", 2, _NEW)
    cached.expect(short | {"temperature": None}, "two", 2, _NONE)
    _sent_as_it_is(trial, cached.server, [request, short])


def _turned(data: Any) -> Any:
    """Return the same data with every dict written the other way round."""
    if isinstance(data, dict):
        return {name: _turned(value) for name, value in reversed(data.items())}
    return [_turned(item) for item in data] if isinstance(data, list) else data


@request_cache.criterion(
    _("tells requests apart by each of the listed fields"),
    points=0.5,
    why=_("A key that leaves out the model gives customers yesterday's model for ever; one that looks at the last "
          "message only answers \"Yes, please\" with what another customer was told."),
)  # fmt: skip
def other_request(trial: Trial, answer: Handle) -> None:
    request = _request(trial.rng)
    system, user = request["messages"]
    outcome = {"role": "tool", "tool_call_id": "call_1", "content": "17"}
    others = [
        ("model", "another-model"),
        ("messages", [system, {"role": "user", "content": user["content"] + "?"}]),
        ("messages", [{"role": "system", "content": "Answer in German."}, user]),
        ("messages", [user]),
        ("messages", [system, {"role": "assistant", "content": user["content"]}]),
        ("messages", [user, system]),
        ("messages", [system, {"role": "assistant", "content": "Yes?"}, user]),
        ("messages", [system, {"role": "assistant", "content": "No?"}, user]),
        *(("messages", [system | {"content": text}, user]) for text in ("answer briefly.", "Answer  briefly.")),
        ("messages", [system | {"content": "Answerbriefly."}, user]),
        ("temperature", 0.75),
        ("temperature", 0),
        ("temperature", None),
        ("max_tokens", request["max_tokens"] + 1),
        ("response_format", {"type": "json_object"}),
        ("response_format", request["response_format"] | {"json_schema": {"name": "order", "schema": {}}}),
    ]
    # Last, so that who leaves out roles fails before: messages that differ in nothing but further fields.
    alike = [
        *([system, user | {"name": name}] for name in ("desk", "plant")),
        *([system, user, _asking(part), outcome] for part in ("S-17", "S-18")),
        [system, user, _asking("S-17"), outcome | {"tool_call_id": "call_2"}],
    ]
    changes = [others[place] for place in trial.rng.permutation(len(others))]
    changes += [("messages", messages) for messages in alike]
    another = _Cached(trial, answer, [Completion("from another server")])  # there before the first one is used
    cached = _Cached(trial, answer, [Completion(f"reply {number}") for number in range(len(changes) + 1)])
    cached.create(request)
    for number, (name, value) in enumerate(changes, start=1):
        message = _("A request with another value of `{name}` has to reach the server.")
        cached.expect(request | {name: value}, f"reply {number}", number + 1, message, name=name)
    cached.expect(request, "reply 0", len(changes) + 1, _AGAIN)
    another.expect(request, "from another server", 1, _SHARED)
    grown = _Cached(trial, answer, [Completion("one message"), Completion("two messages")])
    chat = answer.build("function", "chat", "chat = list(messages)", messages=[user])
    same = {"model": request["model"], "messages": chat}
    grown.expect(same, "one message", 1, _NEW)
    chat.attribute("append")({"role": "user", "content": "And now?"})
    message = _("The caller appended a message to the list that it had passed before. That is another request, and has "
                "to reach the server.")  # fmt: skip
    with trial.trying("cache.create(model=…, messages=messages)  # messages.append(…)"):
        got = grown.create(same)
    grown.judge(got, len(grown.server.requests), "two messages", 2, message)


def _asking(part: str) -> dict[str, Any]:
    """Return a model's message that asks for a tool to be called."""
    function = {"name": "stock", "arguments": json.dumps({"part": part})}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
    }


@request_cache.criterion(
    _("forgets a reply when its time is over"),
    points=0.5,
    why=_("Prices, stock and instructions change. A reply kept too long tells last year's delivery times; one "
          "forgotten too early is paid for twice."),
)  # fmt: skip
def forgets(trial: Trial, answer: Handle) -> None:
    seconds = float(trial.rng.integers(10, 100))
    request = _request(trial.rng)
    replies = [Completion("old"), Completion("new"), Completion("newest")]
    cached = _Cached(trial, answer, replies, seconds, request_seconds=2.0)  # so asking takes time, and comes before
    over = _("The reply came {age} seconds ago, and is good for {seconds} seconds.")
    # An entry used just before its end is not younger for it, and a new one lives as long as the first.
    steps = (
        (0.0, 0.0, "old", 1),
        (seconds - 1, seconds - 1, "old", 1),
        (seconds, 1.0, "new", 2),
        (seconds - 1, seconds - 1, "new", 2),
        (2 * seconds, seconds + 1, "newest", 3),
    )
    seen = []
    for _age, passed, _text, _count in steps:  # all of them first: so one mistake can be told from another
        cached.now += passed
        seen.append((cached.create(request), len(cached.server.requests)))
    for (got, found), (age, _passed, text, requests) in zip(seen, steps, strict=True):
        cached.judge(got, found, text, requests, over, age=round(age), seconds=round(seconds))


def _spoil(reply: Handle) -> None:
    """Change a reply in place, as a careless caller would. Raises AnswerRefused if it does not change."""
    reply.attribute("__setitem__")("model", "spoilt")
    changed = reply.data()
    if not isinstance(changed, dict) or changed.get("model") != "spoilt":
        raise AnswerRefused("a dict that keeps its `model` when another one is set")
    with suppress(AnswerRaised):  # whoever hands out choices that cannot be changed is right too
        choices = reply.attribute("__getitem__").make("choices")
        message = choices.attribute("__getitem__").make(0).attribute("__getitem__").make("message")
        message.attribute("__setitem__")("content", "spoilt")
        choices.attribute("append")("spoilt")


@request_cache.criterion(
    _("stays right whatever a caller does with the reply"),
    points=0,  # that a reply was changed the answer's side alone knows: it opens the way to points, and earns none
    gate=True,
    why=_("A caller shortens a text or appends to a list, and from then on every other caller gets the changed reply. "
          "Nothing is harder to find."),
)  # fmt: skip
def not_spoilt(trial: Trial, answer: Handle) -> None:
    request = _request(trial.rng)
    cached = _Cached(trial, answer, [Completion("as it was"), Completion("sent again")])
    seen = []
    for _turn in range(2):
        _spoil(cached.keep(request))
        seen.append(cached.create(request))
    for got, message in zip(
        seen,
        (
            _("A caller changed the reply of the first request, and the cache now has the changed one."),
            _("A caller changed a reply that came from the cache, and the cache now has the changed one."),
        ),
        strict=True,
    ):
        trial.is_a(got, dict)
        whole = _content(got) == "as it was" and len(got["choices"]) == 1 and got.get("model") == "scripted"
        trial.require(whole, message, expected="'as it was'")


@request_cache.criterion(
    _("keeps no error"),
    points=0.25,
    why=_("A server that was down for a second would be down for your customers as long as the entry lives."),
)
def keeps_no_error(trial: Trial, answer: Handle) -> None:
    request = _request(trial.rng)
    replies: list[Reply] = [Failure(503, "first"), Failure(503, "second"), Completion("well"), Failure(503, "third")]
    cached = _Cached(trial, answer, replies, 60)
    failed = _("The server failed, and your code returned something all the same.")
    _fails(trial, cached, request, "first", failed)
    _fails(
        trial, cached, request, "second", _("The server failed again, and your code returned something all the same.")
    )
    again = _("After an error the same request has to be sent anew.")
    cached.expect(request, "well", 3, again)
    cached.now += 100
    over = _("The entry's time was over and the server failed; your code returned something all the same.")
    _fails(trial, cached, request, "third", over)


def _fails(trial: Trial, cached: _Cached, request: Mapping[str, Any], words: str, message: str) -> None:
    """Fail unless the server's error with these words comes through."""
    try:
        got = cached.cache.attribute("create")(**request)
    except AnswerRaised as error:
        other = _("An error came that is not the server's, or not the last one.")
        trial.require(words in error.text, other, expected=f"InternalServerError: {words}")
    else:
        raise Failed(trial.text(message), "InternalServerError", show(got))


def _caching(
    *,
    key: Callable[[dict[str, Any]], str] | None = None,
    fresh: Callable[[float, float], bool] = lambda age, seconds: age < seconds,
    send: Callable[[dict[str, Any]], dict[str, Any]] = lambda request: request,
    early: bool = False,
    slides: bool = False,
    errors: bool = False,
    stale: bool = False,
    copy: Callable[[Any, bool], Any] | None = None,
    shared: dict[str, Any] | None = None,
) -> Any:
    """Build a right cache, of which each misconception changes something."""
    from copy import deepcopy

    make_key = key or _key
    hand_out = copy or (lambda reply, _hit: deepcopy(reply))

    class RequestCache:
        def __init__(self, client: Any, seconds: float, clock: Callable[[], float]) -> None:
            self.client, self.seconds, self.clock = client, seconds, clock
            self.entries: dict[str, Any] = {} if shared is None else shared

        def create(self, **request: Any) -> Any:
            name = make_key(request)
            when, reply = self.entries.get(name, (-math.inf, None))
            if fresh(self.clock() - when, self.seconds) and name in self.entries:
                if slides:
                    self.entries[name] = (self.clock(), reply)
                if isinstance(reply, Exception):
                    raise reply
                return hand_out(reply, True)
            asked = self.clock()
            try:
                reply = self.client.chat.completions.create(**send(request)).model_dump()
            except Exception as error:
                if errors:
                    self.entries[name] = (self.clock(), error)
                if stale and name in self.entries:
                    return hand_out(self.entries[name][1], True)
                raise
            self.entries[name] = (asked if early else self.clock(), reply)
            return hand_out(reply, False)

    return RequestCache


def _key(request: Mapping[str, Any], fields: Iterable[str] = _FIELDS) -> str:
    return json.dumps([request.get(name) for name in fields], sort_keys=True)


@request_cache.misconception(_("a key that depends on the order in which a dict is written"), factory=True)
def key_by_order() -> Any:
    return _caching(key=lambda request: json.dumps({name: request[name] for name in request if name in _FIELDS}))


@request_cache.misconception(_("a key with every field of the request, also those that change nothing"), factory=True)
def key_of_everything() -> Any:
    def key(request: dict[str, Any]) -> str:
        return json.dumps({name: value for name, value in request.items() if value is not None}, sort_keys=True)

    return _caching(key=key)


@request_cache.misconception(_("a missing field told apart from one that is `None`"), factory=True)
def none_is_no_gap() -> Any:
    return _caching(
        key=lambda request: _key(request | {"seen": [n for n in _FIELDS if n in request]}, (*_FIELDS, "seen"))
    )


@request_cache.misconception(_("a key without the model"), factory=True)
def key_without_model() -> Any:
    return _caching(key=lambda request: _key(request, _FIELDS[1:]))


@request_cache.misconception(_("a key of model and messages alone"), factory=True)
def key_too_short() -> Any:
    return _caching(key=lambda request: _key(request, _FIELDS[:2]))


@request_cache.misconception(_("a key that looks at the last message only"), factory=True)
def key_of_last_message() -> Any:
    return _caching(key=lambda request: _key(request | {"messages": request["messages"][-1]}))


@request_cache.misconception(_("a key of the messages' texts, without their roles"), factory=True)
def key_without_roles() -> Any:
    return _caching(key=lambda request: _key(request | {"messages": [m["content"] for m in request["messages"]]}))


@request_cache.misconception(
    _("a key of the messages' roles and texts alone: a message may have other fields, such as `name`"), factory=True
)
def key_of_roles_and_texts() -> Any:
    return _caching(
        key=lambda request: _key(request | {"messages": [[m["role"], m["content"]] for m in request["messages"]]})
    )


@request_cache.misconception(_("one dictionary for all caches: it belongs to the class"), factory=True)
def shared_entries() -> Any:
    return _caching(shared={})


@request_cache.misconception(_("entries that never end"), factory=True)
def never_forgets() -> Any:
    return _caching(fresh=lambda _age, _seconds: True)


@request_cache.misconception(_("an entry whose time starts anew each time it is used"), factory=True)
def sliding() -> Any:
    return _caching(slides=True)


@request_cache.misconception(_("an entry that is still used at the very moment when its time is over"), factory=True)
def one_moment_too_long() -> Any:
    return _caching(fresh=lambda age, seconds: age <= seconds)


@request_cache.misconception(
    _("an entry's time counted from when the request was sent, not from when the reply came"), factory=True
)
def counted_early() -> Any:
    return _caching(early=True)


@request_cache.misconception(_("only the fields of the key sent on: `user`, say, is lost"), factory=True)
def only_fields_sent() -> Any:
    return _caching(send=lambda request: {name: request[name] for name in request if name in _FIELDS})


@request_cache.misconception(_("errors kept and raised again"), factory=True)
def errors_kept() -> Any:
    return _caching(errors=True)


@request_cache.misconception(_("an old reply returned in place of the error"), factory=True)
def stale_reply() -> Any:
    return _caching(stale=True)


@request_cache.misconception(_("the cache's own dict handed out: the hit can be changed"), factory=True)
def handed_out() -> Any:
    return _caching(copy=lambda reply, _hit: reply)


@request_cache.misconception(_("only hits copied: the first caller holds the cache's own dict"), factory=True)
def only_hits_copied() -> Any:
    from copy import deepcopy

    return _caching(copy=lambda reply, hit: deepcopy(reply) if hit else reply)


@request_cache.misconception(_("a shallow copy: what lies deeper is still the cache's own"), factory=True)
def shallow_copy() -> Any:
    return _caching(copy=lambda reply, _hit: dict(reply))


# ---------------------------------------------------------------- gather_limited

gather_limited = Check(
    "robust_client",
    "gather_limited",
    title=_("Many at once, but not too many"),
    hints=(
        _("Let every job start as its own coroutine, and put a gate before each of them. What opens the gate again?"),
        _("`asyncio.Semaphore(limit)` is the gate, one for all jobs. `asyncio.gather` keeps the order, and with "
          "`return_exceptions=True` it puts an exception where the value would be."),
        _("Inside `gather_limited`, define a coroutine function `run(job)` that passes the gate with `async with` and "
          "returns what the job returns; it runs `job()`, with brackets. `gather` takes one `run(job)` for each job, "
          "with a `*` before them. Awaiting `gather` hands a cancellation on; tasks that you make yourself with "
          "`create_task`, you have to cancel yourself."),
    ),
    seconds=5,
)  # fmt: skip


@dataclass
class _Log:
    """What jobs told, in order, and what each of them is to return."""

    values: list[Any]
    failing: Mapping[int, Exception] = field(default_factory=dict)
    events: list[tuple[str, Any]] = field(default_factory=list)
    running: set[int] = field(default_factory=set)
    most: int = 0

    def begin(self, number: int) -> None:
        self.events.append(("begin", number))
        self.running.add(number)
        self.most = max(self.most, len(self.running))

    def end(self, number: int) -> Any:
        self.events.append(("end", number))
        self.running.discard(number)
        if number in self.failing:
            raise self.failing[number]
        return self.values[number]

    def stopped(self, number: int) -> None:
        self.events.append(("stopped", number))
        self.running.discard(number)

    def begun(self) -> list[int]:
        return [number for kind, number in self.events if kind == "begin"]


def _patience(trial: Trial) -> float:
    return trial.patience or 0.5


def _jobs(trial: Trial, answer: Handle, log: _Log, turns: Sequence[int], crowd: Sequence[int] = ()) -> Handle:
    return answer.build("jobs", list(turns), log.begin, log.end, log.stopped, list(crowd), _patience(trial))


def _run(
    trial: Trial, answer: Handle, log: _Log, turns: Sequence[int], limit: int, crowd: Sequence[int] = ()
) -> Handle:
    """Have the answer run jobs; what it returns stays on its side."""
    with trial.trying(_shown(turns, limit)):
        return answer.make(_jobs(trial, answer, log, turns, crowd), limit)


def _shown(turns: Sequence[int], limit: int) -> str:
    return f"gather_limited(jobs, {limit})  # len(jobs) == {len(turns)}"


_UNAWAITED = ("coroutine", "Task", "_GatheringFuture")  # types


def _results(trial: Trial, answer: Handle, log: _Log, turns: Sequence[int], limit: int) -> Any:
    """Have the answer run jobs of which none fails, and return what it returns."""
    try:
        with trial.trying(_shown(turns, limit)):
            return answer(_jobs(trial, answer, log, turns), limit)
    except AnswerRefused as refused:
        if name := next((name for name in _UNAWAITED if refused.found.endswith(name)), ""):
            message = _("You returned a `{name}`, or a list with one in it: something that nobody has awaited. `job()` "
                        "alone does not run a job; `await job()` does.")  # fmt: skip
            raise Failed(trial.text(message, name=name)) from None
        error = ""
        with suppress(AnswerError):  # whatever it is, the refusal says it
            again = _run(trial, answer, _Log(log.values), turns, limit)
            failed = [entry for entry in again.probe("described") if entry[0] == "exception"]
            error = ": ".join(map(str, failed[0][1:])) if failed else ""
        if error:
            message = _("No job failed by itself, and yet there is an exception in the place of a result: {error}")
            raise Failed(trial.text(message, error=error)) from None
        raise


def _log(trial: Trial, count: int, **options: Any) -> _Log:
    return _Log([chats.sentence(trial.rng, words=2) for _number in range(count)], **options)


def _each_once(trial: Trial, log: _Log) -> None:
    wanted = list(range(len(log.values)))
    trial.require(
        sorted(log.begun()) == wanted,
        _("Each job has to run exactly once; these ran: {begun}."),
        begun=", ".join(map(str, log.begun())),
        expected=", ".join(map(str, wanted)),
    )


@gather_limited.criterion(
    _("runs each job once, and returns all results"),
    points=0.25,
    why=_("A job that is left out is a customer without an answer; one that runs twice is paid twice."),
)
def runs_all(trial: Trial, answer: Handle) -> None:
    for count, limit in ((1, 1), (5, 2), (2, 4)):
        log = _log(trial, count)
        got = _results(trial, answer, log, [2] * count, limit)
        trial.is_a(got, list)
        _each_once(trial, log)
        complete = sorted(map(str, got)) == sorted(log.values)
        trial.require(complete, _("These are not the results of the jobs: {got}"), got=show(got), expected=log.values)
    trial.equal(answer([], 2), [], _("No jobs, no results: an empty list."))


@gather_limited.criterion(
    _("returns the results in the order of the jobs"),
    points=0.5,
    why=_("Result number 7 belongs to ticket number 7. In the order in which they came, each customer gets somebody "
          "else's answer."),
)  # fmt: skip
def keeps_order(trial: Trial, answer: Handle) -> None:
    for count, limit in ((4, 2), (9, 4)):
        log = _log(trial, count)
        log.values[:3] = [0, "", None]  # results like any others
        # The first ones take longest.
        turns = [10 * (count - number) for number in range(count)]
        got = _results(trial, answer, log, turns, limit)
        trial.equal(got, log.values, _("These are not the results in the order of the jobs."))


@gather_limited.criterion(
    _("runs at most `limit` jobs at once"),
    points=0.5,
    why=_("Providers count the requests in flight. What is too many is refused with 429."),
)
def at_most(trial: Trial, answer: Handle) -> None:
    for limit in (1, 3, 5):
        log = _log(trial, 12)
        turns = [int(turn) for turn in trial.rng.integers(3, 30, size=12)]
        _run(trial, answer, log, turns, limit)
        _each_once(trial, log)
        _within_limit(trial, log, limit)


def _within_limit(trial: Trial, log: _Log, limit: int) -> None:
    message = _("With `limit` {limit}, {most} jobs ran at once.")
    trial.require(log.most <= limit, message, limit=limit, most=log.most)


@gather_limited.criterion(
    _("starts the next job as soon as one has ended"),
    points=0.25,
    why=_("In batches everybody waits for the slowest one of the batch, and meanwhile the other places stand empty."),
)
def keeps_going(trial: Trial, answer: Handle) -> None:
    for limit in (2, 3):
        # The slow job does not end before all others have begun; each of the first ones waits for its neighbours.
        count, slow = 8, int(trial.rng.integers(0, limit))
        crowd = [count if number == slow else limit if number < limit else 0 for number in range(count)]
        log = _log(trial, count)
        _run(trial, answer, log, [2] * count, limit, crowd)
        _each_once(trial, log)
        trial.require(
            log.most >= limit,
            _("With `limit` {limit}, the most that ran at once was {most}: others could have run too."),
            limit=limit,
            most=log.most,
        )
        _within_limit(trial, log, limit)
        before = log.events[: log.events.index(("end", slow))]
        left = count - sum(kind == "begin" for kind, _number in before)
        message = _("One job was slow. With `limit` {limit} there was room beside it, and yet others did not start "
                    "until it had ended: {left}.")  # fmt: skip
        trial.require(left == 0, message, limit=limit, left=left)


@gather_limited.criterion(
    _("a job that fails leaves its exception in its place, and the others go on"),
    points=0.25,
    why=_("Ninety-nine answers are paid for and there. They should not be lost because the hundredth question had an "
          "emoji too many."),
)  # fmt: skip
def survives_failures(trial: Trial, answer: Handle) -> None:
    count = 7
    # Never the last one: a place that a failing job keeps is missed by a later job. The first one to end fails in a
    # usual way, the other in one that only `except Exception` catches: so these two mistakes can be told apart.
    one, other = int(trial.rng.integers(2)), int(trial.rng.integers(2, count - 1))
    failing: dict[int, Exception] = {
        one: RuntimeError(chats.sentence(trial.rng, words=2)),
        other: Exception(chats.sentence(trial.rng, words=2)),
    }
    log = _log(trial, count, failing=failing)
    turns = [3 * (number % 3) for number in range(count)]
    got = answer.probe(
        "run_within", trial.patience or 3.0, 2, turns, log.begin, log.end, log.stopped, [], _patience(trial)
    )
    trial.require(
        got is not None,
        _("Two of the jobs failed, and then your code waits for ever: for a place, say, that nobody gives back."),
    )
    wanted = [
        ["exception", type(failing[number]).__name__, str(failing[number])] if number in failing else ["value", value]
        for number, value in enumerate(log.values)
    ]
    _each_once(trial, log)
    message = _("Two of the jobs failed. These are not all results, with an exception where one failed.")
    trial.equal(got, wanted, message)


@gather_limited.criterion(
    _("stops when it is cancelled"),
    points=0.25,
    why=_("The customer has closed the page. Whoever swallows the cancellation goes on working, and paying, for "
          "nobody."),
)  # fmt: skip
def stops(trial: Trial, answer: Handle) -> None:
    count, limit = 6, int(trial.rng.integers(2, 4))
    log = _log(trial, count)
    note = log.events.append
    answer.probe(
        "cancel",
        limit,
        lambda: note(("cancelling", None)),
        lambda how: note(("over", how)),
        [0] * count,
        log.begin,
        log.end,
        log.stopped,
        [count + 1] * count,
        _patience(trial),
    )
    kinds = [kind for kind, _number in log.events]
    before, after = kinds.index("cancelling"), kinds.index("over")
    trial.require(
        "begin" not in kinds[before:],
        _("After it was cancelled, your code started another job."),
    )
    running, stopped = kinds[:before].count("begin"), kinds[before:after].count("stopped")
    trial.require(
        stopped == running,
        _("Jobs that were running when it was cancelled: {running}. Of these were stopped: {stopped}."),
        running=running,
        stopped=stopped,
    )
    trial.require(
        log.events[after][1] == "cancelled",
        _("It was cancelled, but the CancelledError did not reach the caller."),
        expected="CancelledError",
    )


Jobs = list[Callable[[], Any]]


async def _settled(job: Callable[[], Any], caught: tuple[type[Exception], ...] = (Exception,)) -> Any:
    try:
        return await job()
    except caught as error:
        return error


async def _through(jobs: Jobs, limit: int, run: Callable[[Callable[[], Any]], Any] = _settled) -> list[Any]:
    gate = asyncio.Semaphore(limit)

    async def one(job: Callable[[], Any]) -> Any:
        async with gate:
            return await run(job)

    return list(await asyncio.gather(*(one(job) for job in jobs)))


@gather_limited.misconception(_("`await job` without brackets: the job is never called"))
async def not_called(jobs: Jobs, limit: int) -> Any:
    async def wait_for(job: Any) -> Any:
        return await job

    return await asyncio.gather(*(wait_for(job) for job in jobs), return_exceptions=True)


@gather_limited.misconception(_("`job()` without `await`: a coroutine is made, and nobody runs it"))
async def never_awaited(jobs: Jobs, limit: int) -> Any:
    coroutines = [job() for job in jobs]
    for coroutine in coroutines:
        coroutine.close()  # so that Python does not complain of it
    return coroutines


@gather_limited.misconception(_("fixed batches: each waits for the slowest job of the one before"))
async def batches(jobs: Jobs, limit: int) -> Any:
    results: list[Any] = []
    for start in range(0, len(jobs), limit):
        results += await asyncio.gather(*(_settled(job) for job in jobs[start : start + limit]))
    return results


@gather_limited.misconception(_("results in the order in which they came"))
async def completion_order(jobs: Jobs, limit: int) -> Any:
    results: list[Any] = []

    async def run(job: Callable[[], Any]) -> None:
        results.append(await _settled(job))

    await _through(jobs, limit, run)
    return results


@gather_limited.misconception(_("no limit: everything starts at once"))
async def all_at_once(jobs: Jobs, limit: int) -> Any:
    return list(await asyncio.gather(*(_settled(job) for job in jobs)))


@gather_limited.misconception(_("one job after the other: nothing runs at the same time"))
async def one_by_one(jobs: Jobs, limit: int) -> Any:
    return [await _settled(job) for job in jobs]


@gather_limited.misconception(_("one place too many"))
async def one_place_too_many(jobs: Jobs, limit: int) -> Any:
    return await _through(jobs, limit + 1)


@gather_limited.misconception(_("a first failure that throws away all other results"))
async def first_failure(jobs: Jobs, limit: int) -> Any:
    return await _through(jobs, limit, lambda job: job())


@gather_limited.misconception(_("only the failures caught that one can think of: any other throws everything away"))
async def some_failures(jobs: Jobs, limit: int) -> Any:
    thought_of = (ValueError, LookupError, RuntimeError, TypeError, OSError)
    return await _through(jobs, limit, lambda job: _settled(job, thought_of))


@gather_limited.misconception(_("failures left out: the results no longer stand in their places"))
async def failures_dropped(jobs: Jobs, limit: int) -> Any:
    return [result for result in await _through(jobs, limit) if not isinstance(result, Exception)]


@gather_limited.misconception(_("`None` where a job failed: nobody can tell why"))
async def failures_none(jobs: Jobs, limit: int) -> Any:
    return [None if isinstance(result, Exception) else result for result in await _through(jobs, limit)]


@gather_limited.misconception(_("the text of an exception in its place, which looks like an answer"))
async def failures_as_text(jobs: Jobs, limit: int) -> Any:
    return [str(result) if isinstance(result, Exception) else result for result in await _through(jobs, limit)]


@gather_limited.misconception(_("a place that a failing job never gives back: `acquire` and `release` without `try`"))
async def place_kept(jobs: Jobs, limit: int) -> Any:
    gate = asyncio.Semaphore(limit)

    async def run(job: Callable[[], Any]) -> Any:
        await gate.acquire()
        result = await job()
        gate.release()
        return result

    return await asyncio.gather(*(run(job) for job in jobs), return_exceptions=True)


@gather_limited.misconception(_("tasks awaited in turn: a cancellation reaches only the one that is awaited"))
async def awaited_in_turn(jobs: Jobs, limit: int) -> Any:
    gate = asyncio.Semaphore(limit)

    async def one(job: Callable[[], Any]) -> Any:
        async with gate:
            return await _settled(job)

    return [await task for task in [asyncio.create_task(one(job)) for job in jobs]]


@gather_limited.misconception(_("`except BaseException`, which swallows the cancellation and takes the next job"))
async def swallows(jobs: Jobs, limit: int) -> Any:
    results: list[Any] = [None] * len(jobs)
    waiting = list(enumerate(jobs))

    async def worker() -> None:
        while waiting:
            place, job = waiting.pop(0)
            try:
                results[place] = await job()
            except BaseException as error:
                results[place] = error

    await asyncio.gather(*(worker() for _number in range(limit)))
    return results


@gather_limited.misconception(_("tasks that nobody cancels: `asyncio.wait` leaves them running"))
async def left_running(jobs: Jobs, limit: int) -> Any:
    gate = asyncio.Semaphore(limit)

    async def one(job: Callable[[], Any]) -> Any:
        async with gate:
            return await _settled(job)

    tasks = [asyncio.create_task(one(job)) for job in jobs]
    if tasks:
        await asyncio.wait(tasks)
    return [task.result() for task in tasks]


@gather_limited.misconception(_("a cancellation that is caught and answered with a list"))
async def caught(jobs: Jobs, limit: int) -> Any:
    try:
        return await _through(jobs, limit)
    except asyncio.CancelledError:
        return []


# ---------------------------------------------------------------- first_available

first_available = Check(
    "robust_client",
    "first_available",
    title=_("Another provider, if need be"),
    hints=(
        _("Which errors say \"ask somebody else\", and which say \"your request is wrong, whoever reads it\"?"),
        _("A loop over the providers; each with its own client and its own model. Return at the first reply. "
          "After a temporary error the loop goes on; any other one is raised."),
        _("`except APIStatusError as error: if error.status_code not in TEMPORARY: raise`; the same for connection "
          "errors and broken JSON, but without a status. After the loop: `raise NoProviderError(...)` with every "
          "name."),
    ),
    seconds=5,
)  # fmt: skip


@dataclass
class _Providers:
    """Providers with a scripted server each."""

    trial: Trial
    answer: Handle
    scripts: Sequence[Sequence[Reply]]
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the clients

    def __post_init__(self) -> None:
        rng = self.trial.rng
        words = rng.choice(chats.WORDS, size=len(self.scripts), replace=False)
        self.names = [f"{word}-{rng.integers(100, 1000)}" for word in words]
        self.models = [f"model-{rng.integers(1000, 10_000)}" for _script in self.scripts]
        self.servers = [self.trial.server(script) for script in self.scripts]
        self.messages: list[dict[str, Any]] = _chat(rng)
        self.providers = [
            self.answer.build("provider", name, server.url, model, **self.settings)
            for name, server, model in zip(self.names, self.servers, self.models, strict=True)
        ]

    def ask(self) -> Any:
        """Return what comes back, or the error."""
        try:
            return self.answer(self.providers, self.messages)
        except AnswerRaised as error:
            return error

    def asked(self) -> list[int]:
        return [len(server.requests) for server in self.servers]

    def said(self, got: Any, name: str) -> Any:
        """Return a field of the answer; fail if it is none."""
        if isinstance(got, AnswerRaised):
            raise got
        return self.trial.fields(got, "Answer", name)[name]


@first_available.criterion(
    _("returns the first provider's text"),
    points=0.25,
    why=_("On a good day the first provider answers, and nobody notices that there is a second one."),
)
def first_answers(trial: Trial, answer: Handle) -> None:
    for count in (1, 3):
        texts = _texts(trial.rng, count)
        providers = _Providers(trial, answer, [[Completion(text)] for text in texts])
        got = providers.said(providers.ask(), "text")
        trial.equal(got, texts[0], _("That is not the text of the first provider."))
        _sent(trial, providers.servers[0], providers.messages)


@first_available.criterion(
    _("asks nobody else after a reply"),
    points=0.25,
    why=_("The first provider is the best or the cheapest one. Whoever asks all of them pays all of them."),
)
def asks_no_more(trial: Trial, answer: Handle) -> None:
    for down in (0, 1):
        scripts: list[list[Reply]] = [[Failure(503)] for _number in range(down)]
        providers = _Providers(trial, answer, [*scripts, [Completion("well")], [Completion("not asked")], []])
        got = providers.said(providers.ask(), "text")
        wanted = [1] * (down + 1) + [0, 0]
        trial.require(
            providers.asked() == wanted,
            _("Provider number {number} answered; the providers got these numbers of requests: {asked}."),
            number=down + 1,
            asked=str(providers.asked()),
            expected=str(wanted),
        )
        trial.equal(got, "well", _("That is not the text of the provider that answered."))
    scripts = [[Failure(503, retry_after=0.001), Completion("well")], [Completion("not asked")]]
    providers = _Providers(trial, answer, scripts, {"max_retries": 1})
    providers.said(providers.ask(), "text")
    message = _("The first client was set to try once more by itself, and would have got a reply. Leave the clients' "
                "settings as they are; the providers got these numbers of requests: {asked}.")  # fmt: skip
    trial.require(providers.asked() == [2, 0], message, asked=str(providers.asked()), expected="[2, 0]")


@first_available.criterion(
    _("goes on to the next provider where one is not available"),
    points=0.25,
    why=_("The largest providers too have bad days. Your service need not share them."),
)
def falls_back(trial: Trial, answer: Handle) -> None:
    failures = _passing_failures(trial)
    texts = _texts(trial.rng, len(failures))
    providers = _Providers(trial, answer, [[reply for _n, reply in failures], [Completion(text) for text in texts]])
    for (name, _reply), text in zip(failures, texts, strict=True):
        got = providers.ask()
        if isinstance(got, AnswerRaised):
            message = trial.text(_("The first provider gave {name}; the second one would have answered."), name=name)
            raise Failed(message, show(text), f"{got.type_names[0]}: {got.text}")
        trial.equal(providers.said(got, "text"), text, _("That is not the text of the provider that answered."))
    _sent(trial, providers.servers[1], providers.messages)


@first_available.criterion(
    _("passes our own errors on at once"),
    points=0.25,
    why=_("A faulty request is faulty for every provider, and a wrong key has to be noticed. Whoever falls back here "
          "pays for the expensive provider for months, and nobody knows why."),
)  # fmt: skip
def own_faults(trial: Trial, answer: Handle) -> None:
    # The server's own statuses come last: whoever takes these alone for temporary fails at a place of its own.
    statuses = sorted(_final_statuses(trial.rng), key=lambda status: status >= 500)
    faults = [Failure(status, f"your fault, {status}") for status in statuses]
    second = int(trial.rng.choice([status for status in _FINAL if status < 500]))
    scripts: list[list[Reply]] = [[*faults, _NO_CHOICES, Failure(503)], [Failure(second, "your second fault")], []]
    providers = _Providers(trial, answer, scripts)
    for status in statuses:
        got = providers.ask()
        trial.require(
            providers.asked()[1] == 0,
            _("The first provider said {status}, which is not in `TEMPORARY`. You asked the second one too."),
            status=status,
        )
        _original(trial, got, status, f"your fault, {status}")
    providers.ask()
    message = _(
        "The first provider's reply had no choices, so that your own code failed. You asked the second one too."
    )
    trial.require(providers.asked()[1] == 0, message)
    got = providers.ask()
    message = _("The first provider was not available, and the second one said {status}. You asked the third one too.")
    trial.require(providers.asked()[2] == 0, message, status=second)
    _original(trial, got, second, "your second fault")
    providers.messages = _UNWRITABLE
    got = providers.ask()
    if not isinstance(got, AnswerRaised) or "TypeError" not in got.type_names:
        message = trial.text(_("These messages cannot be written as JSON: the client's TypeError is our own fault."))
        raise Failed(
            message, "TypeError", f"{got.type_names[0]}: {got.text}" if isinstance(got, AnswerRaised) else show(got)
        )


@first_available.criterion(
    _("says who answered, and asks each provider for its own model"),
    points=0.25,
    why=_("Quality, price and data protection differ between providers. Who answered belongs in the log and on the "
          "bill; and no provider knows another one's models."),
)  # fmt: skip
def names_provider(trial: Trial, answer: Handle) -> None:
    for place in (0, 1, 2):
        scripts: list[list[Reply]] = [[Failure(503)] for _number in range(place)]
        providers = _Providers(trial, answer, [*scripts, [Completion("well")], [Completion("too late")]])
        got = providers.said(providers.ask(), "provider")
        message = _("Provider number {number} answered; that is not its name.")
        trial.equal(got, providers.names[place], message, number=place + 1)
        for server, model in zip(providers.servers[: place + 1], providers.models, strict=False):
            for request in server.requests:
                asked = (request.body or {}).get("model")
                message = _("A provider was not asked for its own model.")
                trial.require(asked == model, message, expected=f"model={model!r}")


@first_available.criterion(
    _("raises NoProviderError, with all names, if nobody answers"),
    points=0.25,
    why=_("Somebody is woken at night by this error. It should say at once that it is not one provider, but all."),
)
def nobody_answers(trial: Trial, answer: Handle) -> None:
    failures: list[Reply] = [Failure(503), Broken(), Broken("<html>Bad gateway</html>")]
    for count in (3, 1, 0):
        providers = _Providers(trial, answer, [[failures[place]] for place in trial.rng.permutation(3)[:count]])
        got = providers.ask()
        if not isinstance(got, AnswerRaised) or "NoProviderError" not in got.type_names:
            shown = f"{got.type_names[0]}: {got.text}" if isinstance(got, AnswerRaised) else show(got)
            message = trial.text(_("Nobody in the list of providers answered; its length is {count}."), count=count)
            raise Failed(message, "NoProviderError", shown)
        missing = [name for name in providers.names if name not in got.text]
        trial.observe([name in missing for name in providers.names])
        message = _("The error does not name every provider; {name} is missing.")
        trial.require(not missing, message, name="".join(missing[:1]), expected=", ".join(providers.names))
        trial.require(
            providers.asked() == [1] * count,
            _("Each provider should be asked once; they got these numbers of requests: {asked}."),
            asked=str(providers.asked()),
        )


@dataclass(frozen=True)
class _Answer:
    """What the learner's `Answer` looks like."""

    text: str
    provider: str


class NoProviderError(Exception):
    """What the learner's error is called."""


def _falling_back(
    providers: Sequence[Any],
    messages: Any,
    *,
    temporary: Callable[[Exception], bool] = _temporary,
    name: Callable[[Sequence[Any], int, Any], str] = lambda providers, place, _reply: providers[place].name,
    model: Callable[[Sequence[Any], int], str] = lambda providers, place: providers[place].model,
    nobody: Callable[[Sequence[Any], Exception | None], Exception] | None = None,
) -> Any:
    """Fall back rightly, apart from what a misconception changes."""
    last: Exception | None = None
    for place, provider in enumerate(providers):
        try:
            reply = _reply(provider.client, messages, model(providers, place))
        except Exception as error:
            if not temporary(error):
                raise
            last = error
        else:
            return _Answer(reply.choices[0].message.content, name(providers, place, reply))
    raise nobody(providers, last) if nobody else NoProviderError(", ".join(provider.name for provider in providers))


@first_available.misconception(_("a fallback after every error, also 400 and 401"))
def falls_back_always(providers: Any, messages: Any) -> Any:
    return _falling_back(providers, messages, temporary=lambda _error: True)


@first_available.misconception(_("no fallback where the connection fails, only where a status comes back"))
def only_statuses(providers: Any, messages: Any) -> Any:
    def temporary(error: Exception) -> bool:
        return _temporary(error) and (hasattr(error, "status_code") or isinstance(error, ValueError))

    return _falling_back(providers, messages, temporary=temporary)


@first_available.misconception(_("no fallback after a timeout, which is a connection error, too"))
def not_after_timeouts(providers: Any, messages: Any) -> Any:
    return _falling_back(providers, messages, temporary=_temporary_but_timeouts)


@first_available.misconception(_("no fallback after broken JSON, which is no error of the client's"))
def json_goes_on(providers: Any, messages: Any) -> Any:
    return _falling_back(
        providers, messages, temporary=lambda error: _temporary(error) and not isinstance(error, ValueError)
    )


@first_available.misconception(_("no fallback from 429: a provider that has no room is not available either"))
def not_from_429(providers: Any, messages: Any) -> Any:
    return _falling_back(
        providers, messages, temporary=lambda error: _temporary(error) and getattr(error, "status_code", 0) != 429
    )


@first_available.misconception(_("the name of the first provider, whoever answered"))
def names_first(providers: Any, messages: Any) -> Any:
    return _falling_back(providers, messages, name=lambda providers, _place, _reply: providers[0].name)


@first_available.misconception(_("the model's name instead of the provider's"))
def names_model(providers: Any, messages: Any) -> Any:
    return _falling_back(providers, messages, name=lambda _providers, _place, reply: str(reply.model))


@first_available.misconception(_("the name of the provider after the one that answered"))
def names_next(providers: Any, messages: Any) -> Any:
    return _falling_back(
        providers, messages, name=lambda providers, place, _reply: providers[(place + 1) % len(providers)].name
    )


@first_available.misconception(_("the first provider's model asked of everybody"))
def one_model(providers: Any, messages: Any) -> Any:
    return _falling_back(providers, messages, model=lambda providers, _place: providers[0].model)


@first_available.misconception(_("the last provider's error in the end: it looks as if only that one were down"))
def last_error(providers: Any, messages: Any) -> Any:
    return _falling_back(providers, messages, nobody=lambda _providers, error: error or NoProviderError("no providers"))


@first_available.misconception(_("an error that names nobody"))
def nameless(providers: Any, messages: Any) -> Any:
    return _falling_back(providers, messages, nobody=lambda _providers, _error: NoProviderError("all failed"))


@first_available.misconception(_("an error that names only the last provider"))
def names_last(providers: Any, messages: Any) -> Any:
    return _falling_back(
        providers, messages, nobody=lambda providers, _error: NoProviderError(*(p.name for p in providers[-1:]))
    )


@first_available.misconception(_("a fallback after every status from 500 on, also 501"))
def all_failures_of_servers(providers: Any, messages: Any) -> Any:
    return _falling_back(
        providers, messages, temporary=lambda error: _temporary(error) or getattr(error, "status_code", 0) >= 500
    )


@first_available.misconception(_("the clients' own retries switched off, which are not yours to set"))
def without_retries(providers: Any, messages: Any) -> Any:
    changed = [p._replace(client=p.client.with_options(max_retries=0)) for p in providers]
    return _falling_back(changed, messages)


@first_available.misconception(_("every provider asked, and the first reply taken"))
def asks_all(providers: Any, messages: Any) -> Any:
    replies: list[Any] = []
    for provider in providers:
        try:
            replies.append(_falling_back([provider], messages))
        except NoProviderError:
            continue
        except Exception:
            if replies:
                break
            raise
    if not replies:
        raise NoProviderError(", ".join(provider.name for provider in providers))
    return replies[0]


# ---------------------------------------------------------------- pseudonymiser

pseudonymiser = Check(
    "robust_client",
    "pseudonymiser",
    title=_("What must not leave the house"),
    hints=(
        _("Two dictionaries: what was hidden, and behind which placeholder. Everything is found in one go over the "
          "text; what comes first in the pattern wins."),
        _("One pattern with a named group for each kind, joined by `|`: e-mail first, names last and the longest "
          "first, each name with `re.escape` and `(?<!\\w)`, `(?!\\w)` around it; without names, no group for them. "
          "`pattern.sub(function, text)` calls your function for each match; `match.lastgroup` is its kind."),
        _("In the function: `key = (match.lastgroup, match[0])`; if it is new, give it the next number and remember "
          "the way back in the other dictionary. `restore` finds placeholders by a pattern too: one of the four kinds, "
          "`_[0-9]+`, and nothing that belongs to a word before or after. Its function looks the match up in the way "
          "back, and returns it unchanged if it is not there."),
    ),
    seconds=5,
)  # fmt: skip

# fmt: off
_FIRST = ("Anna", "Jürgen", "Zoë", "Ömer", "Grace", "Paul", "Käthe", "Sinéad", "Will", "Uwe")
_LAST = ("Weiß", "Özdemir", "O'Brien", "Groß", "Lange", "Baker", "Müller-Lüdenscheidt", "Nguyen", "Schäfer", "Young")
_BETWEEN = (
    "Hello, this is", "Guten Tag, hier ist", "wrote to us about pump HP-2041 🙂:", "und fragt nach dem Öl,",
    "please call\nback at", "(siehe auch", "; Kopie an", "see\tticket 4711,", "“urgent”, said", "– danke,", "!! 💧",
)
# fmt: on
_QUOTED = (("(", ")"), ("“", "”"), ("", ":"), ('"', '"'), ("", "?"))

Piece = str | tuple[str, str]


def _people(rng: "np.random.Generator", count: int) -> list[str]:
    pairs = [f"{first} {last}" for first in _FIRST for last in _LAST]
    return [str(name) for name in rng.choice(pairs, size=count, replace=False)]


def _email(rng: "np.random.Generator") -> str:
    user = rng.choice(("service", "j.young", "einkauf+pumpen", "k_gross", "grüße"))
    return f"{user}{rng.integers(10, 100)}@{rng.choice(('werk-nord.de', 'mail.example.co.uk', 'müller.example'))}"


def _phone(rng: "np.random.Generator") -> str:
    digits = f"{rng.integers(100_000, 1_000_000)}"
    home = (f"+49 5321 {digits}", f"05321/{digits}", f"0170-{digits}1", f"0{digits}2")
    return str(rng.choice((*home, f"+44 20 {digits[:4]} {digits[2:]}")))


def _customer(rng: "np.random.Generator") -> str:
    return f"K-{rng.integers(10_000, 100_000)}"


def _pieces(rng: "np.random.Generator", hidden: Sequence[tuple[str, str]], *, quoted: bool = False) -> list[Piece]:
    """Return a ticket in which these secrets stand in this order, each between words, or `quoted` in some way."""
    pieces: list[Piece] = []
    for number, secret in enumerate(hidden):
        before, after = _QUOTED[number % len(_QUOTED)] if quoted else ("", "")
        pieces += [f"{rng.choice(_BETWEEN)} {before}", secret, after + str(rng.choice((", ", " ", ".\n", "! ", "; ")))]
    return [*pieces, str(rng.choice(_BETWEEN))]


def _joined(pieces: Sequence[Piece]) -> str:
    return "".join(piece if isinstance(piece, str) else piece[1] for piece in pieces)


@dataclass
class _Desk:
    """A pseudonymiser of the answer's, and what it is asked."""

    trial: Trial
    answer: Handle
    names: list[str]

    def __post_init__(self) -> None:
        self.made = self.answer.make(self.names)

    def hide(self, pieces: Sequence[Piece], wrong: str = _("The text with placeholders is not right.")) -> list[str]:
        """Hide a ticket; fail unless just its secrets are hidden. Return their placeholders in order."""
        text = _joined(pieces)
        got = self.made.attribute("pseudonymise")(text)
        self.trial.is_a(got, str)
        pattern = "".join(re.escape(p) if isinstance(p, str) else rf"({p[0]}_[0-9]+)" for p in pieces)
        match = re.fullmatch(pattern, got)
        if match is None:
            wanted = "".join(p if isinstance(p, str) else f"{p[0]}_…" for p in pieces)
            secrets = [piece[1] for piece in pieces if not isinstance(piece, str)]
            left = [secret for secret in secrets if re.search(_whole(secret), got)]
            message = _("{secret} is still in the text.") if left else wrong
            raise Failed(self.trial.text(message, secret=left[0] if left else ""), show(wanted), show(got))
        return list(match.groups())

    def restore(self, text: str, wanted: str, message: str) -> None:
        got = self.made.attribute("restore")(text)
        self.trial.is_a(got, str)
        if got != wanted:
            place = next(place for place, (a, b) in enumerate(zip_longest(got, wanted)) if a != b)
            part = slice(max(0, place - 40), place + 80)  # a long text is shortened elsewhere: show where it differs
            raise Failed(self.trial.text(message), show(wanted[part]), show(got[part]))


def _secrets(rng: "np.random.Generator", names: Sequence[str]) -> list[tuple[str, str]]:
    """Return one secret of each kind, shuffled."""
    secrets = [
        ("PERSON", str(rng.choice(names))),
        ("EMAIL", _email(rng)),
        ("PHONE", _phone(rng)),
        ("CUSTOMER", _customer(rng)),
    ]
    return [secrets[place] for place in rng.permutation(4)]


@pseudonymiser.criterion(
    _("hides names, e-mail addresses, phone and customer numbers"),
    points=0.25,
    why=_("What leaves the house cannot be called back. The model does not need to know who it is about."),
)
def hides(trial: Trial, answer: Handle) -> None:
    for _number in range(6):
        names = _people(trial.rng, 5)
        _Desk(trial, answer, names).hide(_pieces(trial.rng, _secrets(trial.rng, names)))


_BOTH = _("{secret} and {other} are both {placeholder}.")


@pseudonymiser.criterion(
    _("gives the same secret the same placeholder, in later texts too, and no two secrets the same"),
    points=0.25,
    why=_("If one person becomes two, the model no longer understands the ticket; if two become one, the answer goes "
          "to the wrong one."),
)  # fmt: skip
def stable(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    names = _people(rng, 3)  # nine secrets in all: `PERSON_1` inside `PERSON_10` is another criterion's affair
    desk = _Desk(trial, answer, names)
    known = [("PERSON", name) for name in names]
    for kind, draw in (("EMAIL", _email), ("PHONE", _phone), ("CUSTOMER", _customer)):
        known += [(kind, secret) for secret in _two(rng, draw)]
    seen: dict[tuple[str, str], str] = {}
    tickets: list[tuple[str, str]] = []  # hidden, and as they were
    some, all_of_them = rng.integers(0, len(known), size=4), rng.permutation(len(known))
    for places in ([*all_of_them, *some], rng.permutation(all_of_them), some[:2]):
        secrets = [known[place] for place in places]
        pieces = _pieces(rng, secrets, quoted=bool(tickets))  # from the second on
        placeholders = desk.hide(pieces)
        tickets.append((_filled(pieces, placeholders), _joined(pieces)))
        for secret, placeholder in zip(secrets, placeholders, strict=True):
            first = seen.setdefault(secret, placeholder)
            message = _("{secret} was {first}, and is now {placeholder}.")
            trial.require(first == placeholder, message, secret=secret[1], first=first, placeholder=placeholder)
    for secret, placeholder in seen.items():
        same = next((one for one, taken in seen.items() if taken == placeholder and one != secret), None)
        trial.require(same is None, _BOTH, secret=secret[1], other=same and same[1], placeholder=placeholder)
    desk.restore(*tickets[0], _("Later texts were hidden, and an earlier one is no longer restored rightly."))
    crowd = _people(rng, 60)  # so many that numbers made from the secrets themselves collide
    given = _Desk(trial, answer, crowd).hide(_pieces(rng, [("PERSON", name) for name in crowd]))
    taken: dict[str, str] = {}
    for name, placeholder in zip(crowd, given, strict=True):
        other = taken.setdefault(placeholder, name)
        trial.require(other == name, _BOTH, secret=other, other=name, placeholder=placeholder)


def _two(rng: "np.random.Generator", draw: Callable[["np.random.Generator"], str]) -> list[str]:
    """Draw two secrets that differ."""
    secrets: dict[str, None] = {}
    while len(secrets) < 2:
        secrets[draw(rng)] = None
    return list(secrets)


@pseudonymiser.criterion(
    _("brings everything back exactly, from another text too"),
    points=0.25,
    why=_("The customer reads what comes back. `PERSON_1` inside `PERSON_12` is a classic."),
)
def comes_back(trial: Trial, answer: Handle) -> None:
    names = _people(trial.rng, 14)
    desk = _Desk(trial, answer, names)
    secrets = [("PERSON", name) for name in names] + _secrets(trial.rng, names)
    pieces = _pieces(trial.rng, secrets)
    placeholders = desk.hide(pieces)
    message = _("Hidden and restored, this is no longer the same text.")
    desk.restore(_filled(pieces, placeholders), _joined(pieces), message)
    order = [int(place) for place in trial.rng.permutation(len(secrets))]
    frames = ("Dear {}, danke! 🙂", *("{}".join(marks) for marks in _QUOTED))
    lines = [(frames[number % len(frames)], place) for number, place in enumerate(order)]
    reply = "\n".join(frame.format(placeholders[place]) for frame, place in lines)
    wanted = "\n".join(frame.format(secrets[place][1]) for frame, place in lines)
    desk.restore(reply, wanted, _("The model's reply is not restored rightly."))


def _filled(pieces: Sequence[Piece], placeholders: Sequence[str]) -> str:
    """Return a ticket with placeholders in the places of its secrets."""
    left = iter(placeholders)
    return "".join(piece if isinstance(piece, str) else next(left) for piece in pieces)


@pseudonymiser.criterion(
    _("leaves other words, other cases and unknown placeholders alone"),
    points=0.25,
    why=_("“Annahme” is not Anna, and “ich weiß” is nobody at all. A text full of wrong placeholders is of no use, and "
          "nobody can tell where they came from."),
)  # fmt: skip
def leaves_alone(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    nobody = _Desk(trial, answer, [])  # there before the other one is used
    desk = _Desk(trial, answer, ["Anna", "Weiß", "Will", "Groß", "J. Voss", "Ana (Co+Co) Voss"])
    anna, bracketed = ("PERSON", "Anna"), ("PERSON", "Ana (Co+Co) Voss")
    words = ["Annahme", "annealed", "weiß", "will", "Weißblech", "Großauftrag", "HP-2041", "K-123456", "XK-12345",
             "2026-03-01", "Hanna", "Will_2", "4711", "06484 Quedlinburg", "12:30", "Jo Voss", "Annaöl", "ÄWill",
             "5\u00a0bar", "Cafe\u0301", "a\r\nb"]  # fmt: skip
    shuffled = [words[place] for place in rng.permutation(len(words))]
    some, others = ", ".join(shuffled[:8]), ", ".join(shuffled[8:])
    placeholder, _other = desk.hide([f"{some}, ", anna, ", ", bracketed, f", {others}"])
    text = f"X{placeholder} {placeholder}0{rng.integers(10, 99)} {placeholder}s PERSON_{rng.integers(900, 999)}"
    message = _("Something was restored that is no placeholder of yours.")
    desk.restore(f"{text}, {placeholder}!", f"{text}, Anna!", message)
    message = _("This placeholder was given by another `Pseudonymiser`. Each has a table of its own.")
    nobody.restore(f"{placeholder}!", f"{placeholder}!", message)
    message = _("The list of names is empty, so nothing here is a name.")
    nobody.hide(["No names are known: Anna Weiß, ", ("CUSTOMER", _customer(rng)), "."], message)


@pseudonymiser.criterion(
    _("takes the whole where one secret lies in another"),
    points=0.25,
    why=_("If only “Anna” is hidden in “Anna Weiß”, the rest goes out; and half an address gives the other half away."),
)
def takes_the_whole(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    for _number in range(3):
        first, last = str(rng.choice(_FIRST)), str(rng.choice(("Weiß", "Baker", "Nguyen", "Schäfer")))
        names = [first, last, f"{first} {last}", f"{first} {last}-Lange"]
        email = ("EMAIL", f"{first}.{last}@{last}.example.com")
        numbers = [
            ("EMAIL", f"{number}@werk-nord.de") for number in (_customer(rng), f"0170-{rng.integers(10**6, 10**7)}")
        ]
        desk = _Desk(trial, answer, [names[place] for place in rng.permutation(4)])
        people = [("PERSON", names[place]) for place in rng.permutation(4)]
        desk.hide(_pieces(rng, [people[0], email, *people[1:], *numbers]))


@pseudonymiser.criterion(
    _("refuses a text that brings placeholders of its own"),
    points=0.25,
    why=_("Whoever writes `PHONE_1` into a ticket would get somebody else's phone number back with the reply."),
)
def refuses(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    names = _people(rng, 3)
    desk = _Desk(trial, answer, names)
    desk.hide(_pieces(rng, _secrets(rng, names)))
    numbers = [*rng.integers(1, 30, size=4), *rng.integers(100, 10_000, size=2)]
    kinds = ("PERSON", "EMAIL", "PHONE", "CUSTOMER", "PERSON", "PHONE")
    for kind, number, (before, after) in zip(kinds, numbers, (("", ","), *_QUOTED), strict=True):
        text = f"{rng.choice(_BETWEEN)} {before}{kind}_{number}{after} {rng.choice(names)}"
        try:
            got = desk.made.attribute("pseudonymise")(text)
        except AnswerRaised as error:
            if "ValueError" in error.type_names:
                continue
            raise
        raise Failed(trial.text(_("The text {text} was not refused."), text=show(text)), "ValueError", show(got))
    desk.hide(["This is fine: PERSONAL, EMAIL_, MY_PHONE_1, phone_1, ", ("PERSON", names[0]), "."])


_PATTERNS = {
    "EMAIL": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "CUSTOMER": r"(?<!\w)K-[0-9]{5}(?!\w)",
    "PHONE": r"(?<!\w)(?:\+|0)[0-9](?:[ /-]?[0-9]){6,14}(?!\w)",
}
_KINDS = ("PERSON", *_PATTERNS)


def _whole(name: str) -> str:
    return rf"(?<!\w){re.escape(name)}(?!\w)"


def _hiding(
    *,
    kinds: Sequence[str] = tuple(_PATTERNS),
    names_first: bool = False,
    ordered: Callable[[Sequence[str]], Sequence[str]] = lambda names: sorted(names, key=len, reverse=True),
    word: Callable[[str], str] = _whole,
    around: Callable[[str], str] = str,
    flags: int = 0,
    empty: str = r"(?!)",
    fresh: bool = False,
    forget: bool = False,
    number: Callable[[int], int] = lambda count: count,
    restore: Callable[[str, Mapping[str, str]], str] | None = None,
    refuse: bool = True,
) -> Any:
    """Build a right pseudonymiser, of which each misconception changes something."""

    class Pseudonymiser:
        def __init__(self, names: Sequence[str]) -> None:
            person = around("|".join(word(name) for name in ordered(names))) if names else empty
            parts = [f"(?P<{kind}>{_PATTERNS[kind]})" for kind in kinds]
            named = f"(?P<PERSON>(?i:{person}))" if flags else f"(?P<PERSON>{person})"
            self.pattern = re.compile("|".join([named, *parts] if names_first else [*parts, named]))
            self.placeholders: dict[Any, str] = {}
            self.originals: dict[str, str] = {}

        def pseudonymise(self, text: str) -> str:
            if refuse and re.search(rf"\b(?:{'|'.join(_KINDS)})_[0-9]+\b", text):
                raise ValueError("the text has placeholders of its own")
            if forget:
                self.placeholders, self.originals = {}, {}
            return self.pattern.sub(self.hide, text)

        def hide(self, match: re.Match[str]) -> str:
            kind, original = str(match.lastgroup), match[0]
            key = (kind, original, len(self.originals) if fresh else 0)
            if key not in self.placeholders:
                placeholder = f"{kind}_{number(len(self.placeholders) + 1)}"
                self.placeholders[key] = placeholder
                self.originals[placeholder] = original
            return self.placeholders[key]

        def restore(self, text: str) -> str:
            return (restore or _restored)(text, self.originals)

    return Pseudonymiser


def _restored(text: str, originals: Mapping[str, str]) -> str:
    return re.sub(rf"\b(?:{'|'.join(_KINDS)})_[0-9]+\b", lambda match: originals.get(match[0], match[0]), text)


def _replaced(text: str, originals: Mapping[str, str]) -> str:
    for placeholder, original in originals.items():
        text = text.replace(placeholder, original)
    return text


@pseudonymiser.misconception(_("a new placeholder for each mention: one person becomes several"), factory=True)
def new_each_time() -> Any:
    return _hiding(fresh=True)


@pseudonymiser.misconception(_("numbers that start anew with each text"), factory=True)
def forgets_between_texts() -> Any:
    return _hiding(forget=True)


@pseudonymiser.misconception(_("one placeholder for everybody"), factory=True)
def one_for_all() -> Any:
    return _hiding(number=lambda _count: 1)


@pseudonymiser.misconception(
    _("placeholders brought back with `replace`, the longest first: also inside longer words"), factory=True
)
def replaces_longest_first() -> Any:
    return _hiding(
        restore=lambda text, originals: _replaced(text, dict(sorted(originals.items(), key=lambda pair: -len(pair[0]))))
    )


@pseudonymiser.misconception(_("placeholders brought back with `replace`: `PERSON_1` inside `PERSON_12`"), factory=True)
def replaces_inside() -> Any:
    return _hiding(restore=_replaced)


@pseudonymiser.misconception(_("an unknown placeholder that is deleted"), factory=True)
def unknown_deleted() -> Any:
    return _hiding(
        restore=lambda text, originals: re.sub(
            rf"\b(?:{'|'.join(_KINDS)})_[0-9]+\b", lambda match: originals.get(match[0], ""), text
        )
    )


@pseudonymiser.misconception(_("names found inside longer words"), factory=True)
def inside_words() -> Any:
    return _hiding(word=re.escape)


@pseudonymiser.misconception(
    _("no brackets around the names: of `(?<!\\w)Anna|Will(?!\\w)`, each half is a whole word on one side only"),
    factory=True,
)
def names_without_brackets() -> Any:
    return _hiding(word=re.escape, around=lambda people: rf"(?<!\w){people}(?!\w)")


@pseudonymiser.misconception(_("names found in any case: “ich weiß” becomes a person"), factory=True)
def any_case() -> Any:
    return _hiding(flags=re.IGNORECASE)


@pseudonymiser.misconception(_("an empty list of names that makes a pattern which matches everywhere"), factory=True)
def empty_pattern() -> Any:
    return _hiding(empty="")


@pseudonymiser.misconception(
    _("an empty list of names that makes a pattern which matches where there is no word"), factory=True
)
def empty_between_words() -> Any:
    return _hiding(empty=r"(?<!\w)(?!\w)")


@pseudonymiser.misconception(
    _("names without `re.escape`: the dot in “J. Voss” stands for any character"), factory=True
)
def not_escaped() -> Any:
    return _hiding(word=lambda name: rf"(?<!\w){name}(?!\w)")


@pseudonymiser.misconception(
    _("names in the order of the list: the short one is found before the long one"), factory=True
)
def not_longest_first() -> Any:
    return _hiding(ordered=lambda names: sorted(names, key=len))


@pseudonymiser.misconception(_("names looked for before e-mail addresses, of which half is left"), factory=True)
def names_before_emails() -> Any:
    return _hiding(names_first=True)


@pseudonymiser.misconception(_("phone numbers left in the text"), factory=True)
def no_phones() -> Any:
    return _hiding(kinds=("EMAIL", "CUSTOMER"))


@pseudonymiser.misconception(_("customer numbers left in the text"), factory=True)
def no_customers() -> Any:
    return _hiding(kinds=("EMAIL", "PHONE"))


@pseudonymiser.misconception(_("a text with placeholders of its own that is let through"), factory=True)
def lets_through() -> Any:
    return _hiding(refuse=False)


pseudonymiser.equivalent(
    "longest_first = sorted(names, key=len, reverse=True)",
    "longest_first = sorted(names, reverse=True)",
    reason="of two names that begin at the same place one begins with the other, and the alphabet puts that one first",
)
for _other in ("2", "0"):
    pseudonymiser.equivalent(
        'placeholder = f"{match.lastgroup}_{len(self.placeholders) + 1}"',
        f'placeholder = f"{{match.lastgroup}}_{{len(self.placeholders) + {_other}}}"',
        reason="which numbers placeholders have is free",
    )
