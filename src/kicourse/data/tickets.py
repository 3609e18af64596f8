"""Messages to the service desk, each with the team that has to answer it: made by a grammar, and written by hand.

    generated = tickets.generate(rng, 1_000, held_out=False)   # as many as you like, from patterns
    written = tickets.written()                                 # 150, each written one by one

The grammar has twelve patterns for each team. Four of them are never used unless `held_out`, so that a test on those
asks for sentences that no training has shown. What was written by hand follows no pattern at all.
"""

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

TEAMS = ("repair", "parts", "delivery", "invoice", "advice", "contract")
"""Who answers: the technicians, the spare-parts shop, the fleet, the bookkeeping, the engineers, the sales desk."""

HELD_OUT = 4
"""So many patterns of each team, the last ones, are kept for testing."""

_PATTERNS: dict[str, tuple[str, ...]] = {
    "repair": (
        "our {pump} {symptom} since {when}, please send somebody",
        "the {part} of the {pump} is broken and the line {where} stands still",
        "{symptom_noun} on the {pump} {where}, we need a technician",
        "please have a look at our {pump}, it {symptom}",
        "we cannot start the {pump} any more, it {symptom}",
        "since {when} there is {symptom_noun} at the {part}",
        "urgent: {pump} {where} {symptom}, who can come",
        "your technician changed the {part} {when} and now the pump {symptom} again",
        "production {where} has stopped because the {pump} {symptom}",
        "it drips and smells burnt near the {part}, can this be mended today",
        "after the power cut {when} nothing moves {where}, the {pump} is dead",
        "something is wrong with the machine {where}: {symptom_noun} that gets worse by the hour",
    ),
    "parts": (
        "we would like to order a {part} for a {pump}",
        "please quote a price for {number} pieces of the {part}",
        "do you have the {part} for the {pump} in stock",
        "we need a new {part}, what is the article number",
        "please send us {number} times the {part} for our store",
        "can we buy the {part} of the {pump} separately",
        "is the {part} of the old {pump} still made",
        "add a {part} to our order from {when}",
        "our shelf is empty: what would {number} of the {part} cost",
        "which {part} fits a {pump} from 2009, and may I have two",
        "I am looking for a replacement {part}, ours is worn and we change it ourselves",
        "kindly offer one {part} and a set of screws for the {pump}",
    ),
    "delivery": (
        "we ordered a {part} {when} and it has not arrived",
        "when will the van with our {pump} come",
        "the parcel with the {part} was damaged on the way",
        "where is our order, it was promised for {when}",
        "please deliver the {pump} to the gate {where}",
        "the driver left the {part} with a neighbour",
        "you sent one {part} but the note says {number}",
        "can the {pump} be delivered a day later",
        "the tracking page has not moved since {when}, is our {part} lost",
        "nobody was at the gate {where} when the lorry came, please try again",
        "half of the boxes are missing from the pallet that came {when}",
        "we are still waiting for the {part}, which day should we expect it",
    ),
    "invoice": (
        "you charged us twice for the {part}",
        "the invoice for the {pump} shows the wrong address",
        "please send a copy of the bill from {when}",
        "we paid for the repair of the {pump} {when} and got a reminder all the same",
        "the price of the {part} on the invoice is not the one you quoted",
        "our tax number is missing on the bill for the {part}",
        "may we pay for the {pump} in {number} instalments",
        "please refund the {part} that we sent back {when}",
        "the sum for the visit {when} does not add up, somebody counted the hours double",
        "our bookkeeping asks to which account the money for the {pump} goes",
        "we never got a credit note for the {part}",
        "you forgot the discount of three percent that we always get on a {part}",
    ),
    "advice": (
        "which {pump} do we need for {number} cubic metres an hour",
        "may the {pump} run with hot water",
        "how often should the {part} be greased",
        "how do I set the {part} of the {pump} correctly",
        "is it normal that the {part} gets warm",
        "can the {pump} be mounted upright {where}",
        "where do I find the manual of the {pump}",
        "what oil do you recommend for the {part}",
        "would a smaller {pump} save us electricity {where}",
        "we plan a new line {where} and wonder what would suit thick liquids",
        "does the {part} stand salt water, or would it rust",
        "to which torque do I tighten the screws of the {part}",
    ),
    "contract": (
        "we would like to book the yearly inspection of the {pump}",
        "please cancel our maintenance contract at the end of the year",
        "does our contract cover the {part}",
        "how long is the warranty of the {pump}",
        "please add the {pump} {where} to our service plan",
        "the appointment for the inspection {when} has to be moved",
        "what would maintenance for {number} pumps cost a year",
        "who is our contact for the maintenance agreement now",
        "is the {part} still under guarantee if we open the housing ourselves",
        "we sold the {pump}, so take it off the list of machines that you look after",
        "the agreement runs out in {number} months, do we have to renew it",
        "is it enough if your people check the {pump} every second spring",
    ),
}

_SLOTS: dict[str, tuple[str, ...]] = {
    "pump": ("HP-20 pump", "feed pump", "cooling pump", "well pump", "dosing pump", "vacuum pump", "old HP-7"),
    "part": ("shaft seal", "bearing", "impeller", "coupling", "valve", "motor", "control box", "gasket", "filter"),
    "symptom": ("leaks", "hums loudly", "does not start", "trips the fuse", "loses pressure", "vibrates", "runs hot"),
    "symptom_noun": ("a leak", "a loud noise", "a bad smell", "a loss of pressure", "strong vibration", "smoke"),
    "when": ("yesterday", "Monday", "last week", "two weeks ago", "this morning", "the 3rd of May", "Friday"),
    "where": ("in hall 2", "in the cellar", "on the roof", "at the north plant", "in the dairy", "at building C"),
    "number": ("2", "3", "5", "12", "20"),
}

_OPENINGS = (
    "", "", "", "hello, ", "good morning, ", "dear team, ", "thank you for the quick delivery last time. ",
    "I just spoke to your bookkeeping. ", "we read your manual. ", "your technician was here on Tuesday. ",
    "our contract number is 4471. ", "about the spare part from spring: ",
)  # fmt: skip
_CLOSINGS = (
    "", "", "", ". Thank you", ". Best regards", ". Please answer by phone", ". The invoice goes to our head office",
    ". It is covered by the contract I think", ". The van can use the south gate", ". We have the parts here",
)  # fmt: skip


@dataclass(frozen=True)
class Ticket:
    """A message and the team that has to answer it."""

    text: str
    team: str


def generate(rng: "np.random.Generator", count: int, *, held_out: bool, typos: float = 0.03) -> list[Ticket]:
    """Make `count` messages from patterns: those kept for testing, or the others; `typos` is the share of words."""
    return [_generate_one(rng, TEAMS[int(rng.integers(len(TEAMS)))], held_out, typos) for _number in range(count)]


def _generate_one(rng: "np.random.Generator", team: str, held_out: bool, typos: float) -> Ticket:
    patterns = _PATTERNS[team][-HELD_OUT:] if held_out else _PATTERNS[team][:-HELD_OUT]
    filled = {slot: _pick(rng, values) for slot, values in _SLOTS.items()}
    sentence = _pick(rng, _OPENINGS) + _pick(rng, patterns).format(**filled) + _pick(rng, _CLOSINGS)
    words = [_mistype(rng, word) if rng.random() < typos else word for word in sentence.split()]
    return Ticket(" ".join(words), team)


def _pick(rng: "np.random.Generator", values: tuple[str, ...]) -> str:
    return values[int(rng.integers(len(values)))]


def _mistype(rng: "np.random.Generator", word: str) -> str:
    """Swap two neighbouring letters, or lose one."""
    if len(word) < 4:
        return word
    place = int(rng.integers(1, len(word) - 2))
    if rng.random() < 0.5:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return word[:place] + word[place + 1 :]


def written() -> list[Ticket]:
    """Return the messages that were written by hand, 25 for each team, in a fixed mixed order."""
    lines = (resources.files("kicourse.data") / "tickets.txt").read_text(encoding="utf-8").splitlines()
    tickets = [Ticket(text, team) for team, text in (line.split("\t") for line in lines)]
    return [tickets[place * 67 % len(tickets)] for place in range(len(tickets))]
