"""How a trial leads a play with a web app: clients ask and leave, step by step, and what happens is noted in order.

The app is served on the answer's side (answers/web.py), which tells what it does. What stands behind the app is here:
what it answers leaves the check only when it is asked for, a stream piece by piece; what had been sent is noted then.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kicourse.answers.handle import unobserved
from kicourse.checks import Handle, chats

Step = list[Any]
"""What a client does (see `web.Server`), or, with what stands behind the app: ["go"], the call that has been held the
longest goes on; ["fail", text, kind], it ends with this error."""

Entry = dict[str, Any]
"""What comes of a call: `text` and `sources`, or `pieces`; `error`, with which it ends, and of what `kind` that is (a
class made for it, or else `RuntimeError`); and where it is `held` until a step lets it go on: True, or the number of
the piece before which it waits."""

_MOST_NOTES = 20_000
_MOST_CHARACTERS = 2**24
NOTHING: Entry = {}
"""What comes of a call too many."""


@dataclass(frozen=True)
class Reply:
    """What one client got. `status` is 0 while nothing has come."""

    status: int
    headers: dict[str, str]
    body: bytes
    ended: bool
    returned: bool = False
    error: str = ""

    @property
    def media_type(self) -> str:
        """The content type without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the body read as JSON, or None where it is none."""
        return as_json(self.text)

    def __str__(self) -> str:
        """Say it in a line, for a message; of a failure, which error of the learner's was behind it."""
        if not self.status:
            return "-"
        error = f" ← {self.error}" if self.error and self.status >= 500 else ""
        return f"{self.status} {self.media_type or '-'}: {chats.short(self.text, 160)}{error}"


def as_json(text: str) -> Any:
    """Read a text as JSON; None where it is none, or nested too deeply."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


class Play:
    """What happened while steps were played: notes, in order."""

    def __init__(self, notes: list[list[Any]]) -> None:
        self.notes = notes

    def of(self, kind: str) -> list[list[Any]]:
        """Return the details of all notes of a kind."""
        return [note[1:] for note in self.notes if note[0] == kind]

    def before_step(self, number: int) -> "Play":
        """Return what happened before the step with this number (from 0) was taken."""
        taken = ["step", number]
        return Play(self.notes[: self.notes.index(taken)] if taken in self.notes else self.notes)

    def reply(self, name: str) -> Reply:
        """Return what this client got."""
        started = [details[1:] for details in self.of("status") if details[0] == name]
        status, headers = started[0] if started else (0, [])
        body = b"".join(details[1] for details in self.of("body") if details[0] == name)
        errors = [": ".join(filter(None, details[1:])) for details in self.of("error") if details[0] == name]
        ended, returned = ([name] in self.of(kind) for kind in ("end", "returned"))
        return Reply(status, dict(headers), body, ended, returned, "".join(errors[:1]))

    def closed(self) -> set[str]:
        """Return the questions whose streams were closed, to the end of their `aclose()`."""
        return {question for (question,) in self.of("closed")}

    def asking(self, question: str) -> list["Play"]:
        """Return what had happened each time that a further piece was asked for: after one piece, after two, ..."""
        places = [place for place, note in enumerate(self.notes) if note == ["next", question]]
        return [Play(self.notes[:place]) for place in places]

    def behaviour(self) -> list[Any]:
        """Return what the diagnosis compares: the order of events and the form of replies, but no wording."""
        seen: list[Any] = []
        calls: list[Any] = []  # apart: whether a status is sent before or after a call is style
        for kind, *details in self.notes:
            if kind in ("status", "raised"):
                seen.append([kind, *details[:2]])
            elif kind in ("end", "closing", "closed", "blocks the loop", "step"):
                seen.append([kind, *details])
            if kind in ("called", "step"):
                calls.append([kind, *details])
        seen.append(calls)
        names = dict.fromkeys(details[0] for details in self.of("status"))
        for reply in map(self.reply, names):
            data = reply.json()
            seen.append([reply.media_type, sorted(data) if isinstance(data, dict) else None])
        return seen


@dataclass
class _Call:
    """A call of what stands behind the app, and how many pieces it was given."""

    question: str
    entry: Entry
    given: int = 0

    def is_held(self) -> bool:
        held = self.entry.get("held")
        return held is not None and self.given == (0 if held is True else held)

    def next(self) -> dict[str, Any]:
        """Return what comes of it now; for a stream that has ended, no piece."""
        pieces = self.entry.get("pieces")
        if pieces is not None and self.given < len(pieces):
            self.given += 1
            return {"piece": pieces[self.given - 1]}
        if error := self.entry.get("error"):
            return {"error": error, "kind": self.entry.get("kind", "")}
        return {"text": self.entry.get("text", ""), "sources": self.entry.get("sources", [])}


class Stage:
    """Leads one play. `script(question)` says what comes of a call.

    The app's side knows clients by numbers: what a check calls them would say what it expects.
    """

    def __init__(self, steps: list[Step], script: Callable[[str], Entry]) -> None:
        self.script = script
        self.notes: list[list[Any]] = []
        self.makes_sense = True
        self._steps = enumerate(steps)
        self._clients: dict[str, str] = {}
        self._gone: set[str] = set()
        self._calls: dict[int, _Call] = {}
        self._ready: list[int] = []
        self._held: list[int] = []
        self._characters = 0
        self._over = False

    def play(self, app: Handle, backend: Handle | None, patience: float) -> Play:
        """Have the app served and return what happened."""
        app.probe("serve", backend, self.exchange, self.at_once, patience)
        return Play(self.notes)

    @unobserved
    def exchange(self, happened: Any) -> list[Any] | None:
        """Note what has happened and return what to do next: calls that go on, or else a step; None at the end."""
        if not self._take_in(happened):
            return None
        if self._ready:
            ready, self._ready = self._ready, []
            return [["give", call, self._calls[call].next()] for call in ready]
        for number, step in self._steps:
            self.notes.append(["step", number])
            if orders := self._orders(step):
                return orders
        self._over = True
        return None

    @unobserved
    def at_once(self, happened: Any, call: Any) -> dict[str, Any]:
        """Note what has happened and return what comes of a call for which the whole app waits."""
        if not self._take_in(happened) or not isinstance(call, int) or call not in self._calls:
            return {"error": "the trial is over"}
        if self._calls[call].is_held():
            self.notes.append(["blocks the loop"])
        return self._calls[call].next()

    def _take_in(self, happened: Any) -> bool:
        """Note what has happened; return whether it makes sense, and there is something left to do."""
        if self._over or not self.makes_sense:
            return False
        try:
            waiting = [call for event in happened for call in self._note(event)]
        except (TypeError, ValueError, KeyError):
            self.makes_sense = False
            return False
        # Only now: whoever asks for a piece may send the one before as long as nothing else can be done.
        self.notes += [["next", call.question] for call in map(self._calls.__getitem__, waiting) if call.given]
        return True

    def _note(self, event: Any) -> list[int]:
        """Note one event; return the call that waits since then, if it is that."""
        match event:
            case ["called", int(call), str(question)] if call not in self._calls:
                self._calls[call] = _Call(question, self.script(question))
                self._keep(["called", question])
            case ["waits", int(call)]:
                (self._held if self._calls[call].is_held() else self._ready).append(call)
                return [call]
            case ["left", int(call)]:
                self._held = [held for held in self._held if held != call]
                self._ready = [ready for ready in self._ready if ready != call]
            case ["closing" | "closed" as kind, int(call)]:
                self._keep([kind, self._calls[call].question])
            case ["startup", "complete" | "failed" as outcome, str(text)]:
                self._keep(["startup", outcome, text[:300]])
            case ["raised" | "error" as kind, "startup", str(error), str(text), *_place]:
                self._keep([kind, "startup", error[:300], text[:300]])
            case ["logged", int(level), str(text)]:
                self._keep(["logged", level, text[:4000]])
            case [str(kind), str(number), *details]:
                self._note_of_client(kind, self._clients[number], details)
            case _:
                raise ValueError("an unknown event")
        return []

    def _note_of_client(self, kind: str, client: str, details: list[Any]) -> None:
        match [kind, *details]:
            case ["raised" | "error", *texts] if all(isinstance(text, str) for text in texts):
                self._keep([kind, client, *(text[:300] for text in texts[:3])])
            case ["returned" | "cancelled"]:
                self._keep([kind, client])
            case ["status" | "body" | "end" | "socket", *_sent] if client in self._gone:
                pass
            case ["status", status, [*headers]] if type(status) is int:
                self._characters += sum(len(name) + len(value) for name, value in headers)
                self._keep(["status", client, status, [(str(name), str(value)) for name, value in headers]])
            case ["body", bytes()] | ["end"] | ["socket", str()]:
                self._keep([kind, client, *details])
            case _:
                raise ValueError("an unknown event")

    def _keep(self, note: list[Any]) -> None:
        """Keep a note. Raises ValueError if there are too many of them, or too much stands in them."""
        self._characters += sum(len(part) for part in note if isinstance(part, (str, bytes)))
        self.notes.append(note)
        if len(self.notes) > _MOST_NOTES or self._characters > _MOST_CHARACTERS:
            raise ValueError("too much")

    def _orders(self, step: Step) -> list[Any]:
        """Return what a step means for the app's side."""
        do, *details = step
        if do in ("go", "fail"):
            if not self._held:
                return []
            call = self._held.pop(0)
            failed = dict(zip(("error", "kind"), details, strict=False))
            return [["give", call, failed or self._calls[call].next()]]
        client, *rest = details
        if do in ("ask", "connect"):
            self._clients[str(len(self._clients))] = client
        elif do == "leave":
            self._gone.add(client)
        number = next(number for number, name in self._clients.items() if name == client)
        return [[do, number, *rest]]
