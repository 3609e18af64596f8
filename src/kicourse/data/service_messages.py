"""Messages to the service desk after a first report: is the fault still open, or solved?

    messages = service_messages.generate(rng, 800, held_out=False)   # as many as you like, from a grammar
    written = service_messages.written()                             # 72, written one by one

"It leaks" is open and "it no longer leaks" is solved, "it runs" is solved and "it no longer runs" is open: it takes
the verb and what is said of it. Three in four messages also say something of the past. A third of the verbs and of the
ways to say something are never used unless `held_out`, so that a test on those asks for sentences that no training has
shown.
"""

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LABELS = ("open", "solved")

_SEEN = 8
"""So many verbs of each kind, and ways of each kind, are for training; the others are held out."""

# do, does, doing, done, did
_GOOD = (
    ("run", "runs", "running", "run", "ran"),
    ("work", "works", "working", "worked", "worked"),
    ("turn", "turns", "turning", "turned", "turned"),
    ("start", "starts", "starting", "started", "started"),
    ("deliver water", "delivers water", "delivering water", "delivered water", "delivered water"),
    ("do its job", "does its job", "doing its job", "done its job", "did its job"),
    ("hold its pressure", "holds its pressure", "holding its pressure", "held its pressure", "held its pressure"),
    ("move", "moves", "moving", "moved", "moved"),
    (
        "answer to the switch",
        "answers to the switch",
        "answering to the switch",
        "answered to the switch",
        "answered to the switch",
    ),
    ("cool", "cools", "cooling", "cooled", "cooled"),
    ("pump as it should", "pumps as it should", "pumping as it should", "pumped as it should", "pumped as it should"),
    ("stay tight", "stays tight", "staying tight", "stayed tight", "stayed tight"),
)
_BAD = (
    ("leak", "leaks", "leaking", "leaked", "leaked"),
    ("drip", "drips", "dripping", "dripped", "dripped"),
    ("stand still", "stands still", "standing still", "stood still", "stood still"),
    ("trip the fuse", "trips the fuse", "tripping the fuse", "tripped the fuse", "tripped the fuse"),
    ("rattle", "rattles", "rattling", "rattled", "rattled"),
    ("overheat", "overheats", "overheating", "overheated", "overheated"),
    ("lose pressure", "loses pressure", "losing pressure", "lost pressure", "lost pressure"),
    ("jam", "jams", "jamming", "jammed", "jammed"),
    ("smell burnt", "smells burnt", "smelling burnt", "smelt burnt", "smelt burnt"),
    ("fail", "fails", "failing", "failed", "failed"),
    ("shake", "shakes", "shaking", "shaken", "shook"),
    ("spill oil", "spills oil", "spilling oil", "spilt oil", "spilt oil"),
)
_AFFIRMED = (
    "{machine} {does}",
    "{machine} still {does}",
    "{machine} {does} again",
    "{machine} has begun to {do}",
    "{machine} keeps {doing}",
    "{machine} {does} all the time",
    "now {machine} {does}",
    "{machine} {does} since {day}",
    "for {number} days {machine} has been {doing}",
    "{machine} {does} whatever we do",
    "as I write this {machine} {does}",
    "what can I say, {machine} {does}",
)
_DENIED = (
    "{machine} does not {do}",
    "{machine} no longer {does}",
    "{machine} has stopped {doing}",
    "{machine} does not {do} any more",
    "{machine} has not {done} since {day}",
    "{machine} has ceased to {do}",
    "now {machine} does not {do}",
    "{machine} never {does}",
    "we have not seen {machine} {do} for {number} days",
    "not once has {machine} {done} since {day}",
    "nobody can say that {machine} {does}",
    "{machine} is not {doing} now",
)
_HISTORY = (
    "{when} it {did}",
    "before that it {did}",
    "I wrote {when} that it {did}",
    "it {did} for weeks",
    "the one beside it {does}",
    "you asked about {machine}",
    "thank you for your call",
    "your colleague was here {when}",
    "we changed the {part} {when}",
)
_MACHINES = (
    "the {pump}",
    "our {pump}",
    "the {pump} {where}",
    "it",
    "the machine",
    "pump 3",
    "the {part}",
)
_SLOTS: dict[str, tuple[str, ...]] = {
    "pump": ("HP-20 pump", "feed pump", "cooling pump", "well pump", "dosing pump", "vacuum pump", "old HP-7"),
    "part": ("shaft seal", "bearing", "impeller", "coupling", "valve", "motor", "gasket", "filter"),
    "when": ("yesterday", "on Monday", "last week", "two weeks ago", "this morning", "on the 3rd of May", "on Friday"),
    "day": ("yesterday", "Monday", "last week", "this morning", "the 3rd of May", "Friday"),
    "where": ("in hall 2", "in the cellar", "on the roof", "at the north plant", "in the dairy", "at building C"),
    "number": ("two", "three", "ten"),
}
_BEFORE = (", ", ". ", " but ", "; ", ", and ", " and now ")
_AFTER = (", ", ". ", "; ")
_CLOSINGS = ("", " Thank you.", ". Best regards", ".", ". Please answer by phone", "!")


@dataclass(frozen=True)
class Message:
    """A message and what it says of the fault: open or solved."""

    text: str
    label: str


def generate(rng: "np.random.Generator", count: int, *, held_out: bool) -> list[Message]:
    """Make `count` messages from the verbs and ways that are held out, or from the others."""
    return [_generate_one(rng, held_out) for _number in range(count)]


def _generate_one(rng: "np.random.Generator", held_out: bool) -> Message:
    good, bad, affirmed, denied = (
        kind[_SEEN:] if held_out else kind[:_SEEN] for kind in (_GOOD, _BAD, _AFFIRMED, _DENIED)
    )
    solved, is_denied = bool(rng.integers(2)), bool(rng.integers(2))
    slots = {name: _pick(rng, values) for name, values in _SLOTS.items()}
    slots["machine"] = _pick(rng, _MACHINES).format(**slots)
    verb = _pick(rng, good if solved != is_denied else bad)
    now = _pick(rng, denied if is_denied else affirmed).format(**slots, **_forms(verb))
    before = _pick(rng, _HISTORY).format(**slots, **_forms(_pick(rng, good + bad)))
    order = rng.random()
    if order < 0.6:
        now = before + _pick(rng, _BEFORE) + now
    elif order < 0.75:
        now = now + _pick(rng, _AFTER) + before
    return Message(now + _pick(rng, _CLOSINGS), LABELS[solved])


def _forms(verb: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(("do", "does", "doing", "done", "did"), verb, strict=True))


def _pick(rng: "np.random.Generator", values: tuple[Any, ...]) -> Any:
    return values[int(rng.integers(len(values)))]


def written() -> list[Message]:
    """Return the messages that were written by hand, 48 open and 24 solved, in a fixed mixed order."""
    lines = (resources.files("kicourse.data") / "service_messages.txt").read_text(encoding="utf-8").splitlines()
    messages = [Message(text, label) for label, text in (line.split("\t") for line in lines)]
    return [messages[place * 31 % len(messages)] for place in range(len(messages))]
