"""The answer's side: keeps the learner's objects, and does with them what a check asks for."""

import asyncio
import builtins
import inspect
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, suppress
from typing import Any

from kicourse.answers import location, probes
from kicourse.answers.channel import Channel
from kicourse.answers.codec import Bounds, NotDataError, decode, encode

# A check may send NaN and infinities: they are what real data hold.
_REQUESTS = Bounds(finite=False)
_ROOT = 0
_TEXT_LIMIT = 2_000


class Host:
    """Serves one answer over a channel until the channel closes.

    Every request gets exactly one reply. Whatever the answer does (raise, exit, return an object that lies about
    itself) becomes a reply; only the end of the thread or process ends the service.
    """

    def __init__(self, answer: Any) -> None:
        self.objects: dict[int, Any] = {_ROOT: answer}
        self.random_states: dict[str, Any] = {}
        self.ended = False

    def serve(self, channel: Channel) -> None:
        """Answer requests until None arrives."""
        with closing(asyncio.Runner()) as runner:
            with suppress(OSError):  # where no loop can be made, whoever waits for nothing needs none
                runner.get_loop()
            while not self.ended and (frame := channel.receive(None)) is not None:
                channel.send(_Call(self, channel, runner).reply_to(frame))

    def keep(self, thing: Any) -> int:
        """Store an object and return the number under which a check can name it."""
        number = len(self.objects)
        self.objects[number] = thing
        return number


class _Call:
    """One request in the making."""

    def __init__(self, host: Host, channel: Channel, runner: asyncio.Runner) -> None:
        self.host, self.channel, self.runner = host, channel, runner

    def reply_to(self, frame: bytes) -> bytes:
        reply: dict[str, Any]
        try:
            request = decode(frame, _REQUESTS, self.import_)
            reply = getattr(self, f"do_{request.pop('do')}")(**request)
            return encode(reply)
        except NotDataError as error:
            reply = {"refused": str(error)[:_TEXT_LIMIT]}
        except BaseException as error:  # SystemExit and KeyboardInterrupt raised by an answer are its own affair
            reply = {"raised": _describe(error)}
        return encode(reply)

    def import_(self, kind: str, number: int) -> Any:
        return self.host.objects[number] if kind == "object" else self.lent(number)

    def lent(self, number: int) -> Callable[..., Any]:
        """Stand in for a function of the check: calling it runs the real one on the check's side."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.channel.send(encode({"lent": number, "args": list(args), "kwargs": kwargs}))
            frame = self.channel.receive(None)
            if frame is None:
                self.host.ended = True
                raise SystemExit("the check has ended")
            outcome = decode(frame, _REQUESTS, self.import_)
            if "raise" in outcome:
                raise getattr(builtins, outcome["raise"])(*outcome["args"])
            return outcome["value"]

        return call

    # What a check can ask for; the keyword arguments are the request's fields.

    def do_call(self, target: int, args: list[Any], kwargs: dict[str, Any], keep: bool) -> dict[str, Any]:
        function = self.host.objects[target]
        before = _snapshots(args, kwargs)
        result = function(*args, **kwargs)
        if inspect.isawaitable(result):
            result = self.runner.run(_wait_for(result))
        changed = [name for name, state in before.items() if _snapshot(_find(name, args, kwargs)) != state]
        return self.result(result, keep) | {"changed": _parameter_names(function, changed)}

    def do_attribute(self, target: int, name: str) -> dict[str, Any]:
        return self.result(getattr(self.host.objects[target], name), keep=True)

    def do_data(self, target: int) -> dict[str, Any]:
        return self.result(self.host.objects[target], keep=False)

    def do_iterate(self, target: int) -> dict[str, Any]:
        thing = self.host.objects[target]
        return self.result(aiter(thing) if hasattr(thing, "__aiter__") else iter(thing), keep=True)

    def do_next(self, target: int) -> dict[str, Any]:
        iterator: Iterator[Any] | AsyncIterator[Any] = self.host.objects[target]
        try:
            if isinstance(iterator, AsyncIterator):
                return self.result(self.runner.run(_wait_for(anext(iterator))), keep=False)
            return self.result(next(iterator), keep=False)
        except (StopIteration, StopAsyncIteration):
            return {"stopped": True}

    def do_probe(self, target: int, name: str, args: list[Any], kwargs: dict[str, Any], keep: bool) -> dict[str, Any]:
        return self.result(probes.PROBES[name](self.host.objects[target], *args, **kwargs), keep)

    def do_seed(self, seed: int) -> dict[str, Any]:
        """Seed the global generators, so that a trial meets the same randomness wherever it runs."""
        _save_random_states(self.host.random_states)
        seed_generators(seed)
        return {"value": None}

    def do_restore(self) -> dict[str, Any]:
        """Give the learner's own generators back as they were."""
        for name, state in self.host.random_states.items():
            _RANDOM_STATES[name][1](sys.modules[name], state)
        self.host.random_states.clear()
        return {"value": None}

    def result(self, value: Any, keep: bool) -> dict[str, Any]:
        if keep:
            # A class is known by its own name, not by that of its metaclass.
            named = value if isinstance(value, type) else type(value)
            return {"object": self.host.keep(value), "type": type(value).__name__, "name": named.__name__}
        return {"value": value}


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python and of the libraries that are there; `seed` is below 2**32."""
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed)
    if torch := sys.modules.get("torch"):
        # Where there is no GPU, torch.manual_seed notes down who called it, for the day that there is one.
        (torch if torch.accelerator.is_available() else torch.default_generator).manual_seed(seed)


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable


# name of the module: (how to read its global generator's state, how to write it)
_RANDOM_STATES: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "random": (lambda module: module.getstate(), lambda module, state: module.setstate(state)),
    "numpy": (lambda module: module.random.get_state(), lambda module, state: module.random.set_state(state)),
    "torch": (lambda module: module.get_rng_state(), lambda module, state: module.set_rng_state(state)),
}


def _save_random_states(states: dict[str, Any]) -> None:
    for name, (read, _) in _RANDOM_STATES.items():
        if name in sys.modules and name not in states:
            states[name] = read(sys.modules[name])


def _describe(error: BaseException) -> dict[str, Any]:
    """Describe an exception in plain data. Its own methods may lie or raise, so nothing of it is trusted."""
    try:
        text = str(error)[:_TEXT_LIMIT].encode("utf-8", "replace").decode()
    except Exception:
        text = "(its text cannot be read)"
    names = [kind.__name__ for kind in type(error).__mro__ if kind is not object][:20]
    place = location.of_exception(error)
    return {"types": names, "text": text, "where": _place(place), "own": location.is_raised_by_learner(error)}


def _place(place: location.Location | None) -> list[Any] | None:
    return None if place is None else [place.line, place.source, place.function]


# Was an argument changed? Compare what it looks like as data, before and after.


def _snapshots(args: list[Any], kwargs: dict[str, Any]) -> dict[int | str, bytes]:
    named: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    states = {name: _snapshot(value) for name, value in named if _is_mutable(value)}
    return {name: state for name, state in states.items() if state is not None}


def _is_mutable(value: Any) -> bool:
    return not isinstance(value, (str, bytes, int, float, complex, bool, type(None))) and not callable(value)


def _snapshot(value: Any) -> bytes | None:
    try:
        return encode(value)
    except NotDataError:
        return None


def _find(name: int | str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    return args[name] if isinstance(name, int) else kwargs[name]


def _parameter_names(function: Any, names: list[int | str]) -> list[str]:
    if not names:
        return []
    try:
        parameters = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        parameters = []
    known = dict(enumerate(parameters))
    return [known.get(name, f"argument {name + 1}") if isinstance(name, int) else name for name in names]
