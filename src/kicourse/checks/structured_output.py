"""The checks of `structured_output`: from text to data, and from belief to measurement."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from kicourse.answers.probes import pydantic_model
from kicourse.checks import AnswerRaised, Check, Failed, Handle, Record, Trial, _, as_tuple, chats
from kicourse.checks.scripted_server import Completion, Failure, Reply, Request, ScriptedServer
from kicourse.checks.show import show

if TYPE_CHECKING:
    import numpy as np


# ---------------------------------------------------------------- ticket

ticket = Check(
    "structured_output",
    "ticket",
    title=_("A ticket as a type"),
    hints=(
        _("A field is a name with a type. What may a field hold, and what happens where a message does not give it? "
          "These are two questions."),
        _("A fixed list of values is an enum or a `Literal`; limits belong into `Field(...)`. `str | None` allows null "
          "and says nothing about leaving the field out: that takes a default."),
        _("`category: Literal[\"leak\", ...]`, `priority: int = Field(ge=1, le=5)`, `serial: str | None = "
          "Field(default=None, pattern=r\"^HP-[0-9]{4}$\")`, and `model_config = ConfigDict(extra=\"forbid\")`."),
    ),
)  # fmt: skip

_CATEGORIES = ("leak", "noise", "electrical", "delivery", "other")
_LONGEST_SUMMARY = 80


def _ticket(rng: "np.random.Generator", **changed: Any) -> dict[str, Any]:
    """Return a good ticket, in which `changed` fields have other values."""
    good = {
        "category": str(rng.choice(_CATEGORIES)),
        "priority": int(rng.integers(1, 6)),
        "summary": chats.sentence(rng, words=4),
        "serial": f"HP-{rng.integers(0, 10_000):04}",
    }
    return good | changed


Case = tuple[dict[str, Any], dict[str, Any] | None]


def _good(fields: dict[str, Any], wanted: dict[str, Any] | None = None) -> Case:
    """A ticket that must be read, and come back as it was, or as `wanted`."""
    return fields, wanted or fields


def _bad(fields: dict[str, Any]) -> Case:
    """A ticket that must be refused."""
    return fields, None


def _class(trial: Trial, answer: Handle) -> Handle:
    """Return the class that the answer makes; fail if it is none, or none of pydantic's."""
    made = answer.make()
    name = repr(made).strip("<>")
    try:
        made.attribute("model_validate_json")
    except AnswerRaised as error:
        message = _("You returned {found}, which is no class made from `BaseModel`.")
        if name == "NoneType":
            message = _("Your function returns nothing: the class is missing after `return`.")
        raise Failed(trial.text(message, found=name), "type[BaseModel]", name.removesuffix("Type")) from error
    try:
        made.attribute("__name__")  # as `schema_format` does
    except AnswerRaised as error:
        trial.observe("an instance")
        message = _("You returned an instance, not the class itself: `return Ticket`, without brackets.")
        raise Failed(trial.text(message), "type[BaseModel]", f"{name}(...)") from error
    return made


def _read(model: Handle, fields: Mapping[str, Any]) -> Any:
    """Read a ticket from JSON, as it comes from a model; return it as plain data, or the error that refuses it."""
    try:
        return model.attribute("model_validate_json").make(_written(fields)).attribute("model_dump")(mode="json")
    except AnswerRaised as error:
        if "ValidationError" not in error.type_names:
            raise
        return error


def _decides(trial: Trial, answer: Handle, *cases: Case) -> None:
    """Fail unless the class reads each good ticket and refuses each bad one.

    All are asked for before one is judged: so the diagnosis can tell apart what goes wrong with different tickets.
    """
    model = _class(trial, answer)
    outcomes = [_read(model, fields) for fields, _wanted in cases]
    refused = [got for got, (_fields, wanted) in zip(outcomes, cases, strict=True) if wanted and _is_refusal(got)]
    trial.observe([_blamed(error.text) for error in refused])
    for got, (fields, wanted) in zip(outcomes, cases, strict=True):
        if got == wanted or (wanted is None and _is_refusal(got)):
            continue
        with suppress(AnswerRaised):  # once more, so that the verdict shows this one
            model.attribute("model_validate_json").make(_written(fields))
        if wanted is None:
            message = trial.text(_("Your class takes this for a ticket: {ticket}"), ticket=show(fields))
            raise Failed(message, "ValidationError", show(got))
        if _is_refusal(got):
            message = trial.text(
                _("Your class refuses this ticket, which is a good one: {ticket}"), ticket=show(fields)
            )
            raise Failed(message, show(wanted), got.text)
        raise Failed(
            trial.text(_("The ticket that was read is not the one that was written.")), show(wanted), show(got)
        )


def _is_refusal(outcome: Any) -> bool:
    return isinstance(outcome, AnswerRaised)


def _blamed(text: str) -> list[list[str]]:
    """Return which fields a ValidationError blames, and for what. An enum and a `Literal` are the same here."""
    found = re.findall(r"^(\S.*)\n  .*\[type=(\w+)", text, re.MULTILINE)
    return [[field, "enum" if fault == "literal_error" else fault] for field, fault in found]


@ticket.criterion(
    _("reads a complete ticket"),
    points=0.5,
    why=_("Every good ticket that your class refuses is one that a person has to type."),
)
def reads_complete(trial: Trial, answer: Handle) -> None:
    tickets = [
        _ticket(trial.rng, category=category, priority=number) for number, category in enumerate(_CATEGORIES, start=1)
    ]
    none = _ticket(trial.rng, priority=chats.sentence(trial.rng, words=1))  # a class without fields reads everything
    _decides(trial, answer, *map(_good, tickets), _bad(none))


@ticket.criterion(
    _("reads a ticket without a serial number"),
    points=0.25,
    why=_("Most customers do not name the serial number. A language model that has to give one invents it; and it may "
          "leave the field out or write null, which is not the same to a parser."),
)  # fmt: skip
def optional_serial(trial: Trial, answer: Handle) -> None:
    empty = _ticket(trial.rng, serial=None)
    missing = {name: value for name, value in empty.items() if name != "serial"}
    _decides(trial, answer, _good(empty), _good(missing, empty))


@ticket.criterion(
    _("insists on category, priority and summary"),
    points=0.25,
    why=_("A ticket without them cannot be sorted, and a silent default looks like something that the customer said."),
)
def insists(trial: Trial, answer: Handle) -> None:
    whole = _ticket(trial.rng)
    needed = ("category", "priority", "summary")
    left_out = [{name: value for name, value in whole.items() if name != missing} for missing in needed]
    _decides(trial, answer, *map(_bad, [*left_out, *(whole | {missing: None} for missing in needed)]))


@ticket.criterion(
    _("refuses a category or a priority that does not exist"),
    points=0.5,
    why=_("Whatever gets through here arrives in the queue of a team that does not exist, or breaks a program that "
          "counts on five priorities."),
)  # fmt: skip
def refuses_values(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    word = rng.choice([word for word in chats.WORDS if word not in _CATEGORIES])
    backwards = rng.choice(_CATEGORIES)[::-1]  # as long as a category, and of its letters
    categories = ("complaint", "Leak", "LEAK", " leak ", "leak, noise", "", str(word), str(backwards))
    priorities = (0, 6, -1, 2.5, "high", int(rng.integers(7, 100)))
    wrong = [_ticket(rng, category=category) for category in categories]
    wrong += [_ticket(rng, priority=priority) for priority in priorities]
    _decides(trial, answer, *map(_bad, wrong))


@ticket.criterion(
    _("refuses a malformed serial number and a summary that is empty or too long"),
    points=0.25,
    why=_("The serial number is looked up in another system, which knows no pump HP-20411; and the summary is a line "
          "on a screen."),
)  # fmt: skip
def refuses_texts(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    digits = f"{rng.integers(1000, 10_000)}"
    serials = ["", digits, f"HP-{digits[:3]}", f"HP-{digits}1", f"XHP-{digits}", f"hp-{digits}", f"HP{digits}"]
    serials += [f"HP-{digits} x", f"x HP-{digits}", f" HP-{digits}", f"HP-{digits}\n", f"x\nHP-{digits}\nx"]
    for other in ("A", str(rng.choice(list(" _-.")))):  # among the digits, in the place of one
        place = int(rng.integers(4))
        serials.append(f"HP-{digits[:place]}{other}{digits[place + 1 :]}")
    good = [_ticket(rng, summary=summary) for summary in ("x", "ö" * _LONGEST_SUMMARY)]
    bad = [_ticket(rng, serial=serial) for serial in serials]
    bad += [_ticket(rng, summary=summary) for summary in ("", "x" * (_LONGEST_SUMMARY + 1))]
    _decides(trial, answer, *map(_good, good), *map(_bad, bad))


@ticket.criterion(
    _("refuses fields that it does not know"),
    points=0.25,
    why=_("An unknown field is a misspelt one, or something that the model made up. If it is dropped in silence, "
          "nobody ever learns of it."),
)  # fmt: skip
def refuses_unknown(trial: Trial, answer: Handle) -> None:
    extras = ("serial_number", f"{trial.rng.choice(chats.WORDS)}_{trial.rng.integers(10, 100)}")
    wrong = [_ticket(trial.rng, **{extra: chats.sentence(trial.rng, words=1)}) for extra in extras]
    _decides(trial, answer, *map(_bad, wrong))


def _ticket_model(extra: Any = "forbid", **changed: Any) -> Any:
    """Build a right `Ticket`, of which each misconception changes some fields: (type, what Field() is told)."""
    from typing import Literal

    from pydantic import ConfigDict, Field, create_model

    fields: dict[str, Any] = {
        "category": (Literal["leak", "noise", "electrical", "delivery", "other"], {}),
        "priority": (int, {"ge": 1, "le": 5}),
        "summary": (str, {"min_length": 1, "max_length": _LONGEST_SUMMARY}),
        "serial": (str | None, {"default": None, "pattern": "^HP-[0-9]{4}$"}),
    }
    definitions: Any = {name: (kind, Field(**told)) for name, (kind, told) in (fields | changed).items()}
    return create_model("Ticket", __config__=ConfigDict(extra=extra), **definitions)


@ticket.misconception(_("a field `X | None` without a default: null is allowed, but leaving the field out is not"))
def optional_without_default() -> Any:
    return _ticket_model(serial=(str | None, {"pattern": "^HP-[0-9]{4}$"}))


@ticket.misconception(_("a default of `None` for a field of type `str`: it may be left out, but null is refused"))
def null_refused() -> Any:
    return _ticket_model(serial=(str, {"default": None, "pattern": "^HP-[0-9]{4}$"}))


@ticket.misconception(_("a category that may be any text"))
def category_any_text() -> Any:
    return _ticket_model(category=(str, {}))


@ticket.misconception(_("a priority without limits"))
def priority_any_number() -> Any:
    return _ticket_model(priority=(int, {}))


@ticket.misconception(_("an instance of the class, where the class itself is asked for"))
def instance_returned() -> Any:
    return _ticket_model()(category="leak", priority=1, summary="x")


@ticket.misconception(
    _("categories in other words: they are `leak`, `noise`, `electrical`, `delivery` and `other` to the letter")
)
def categories_renamed() -> Any:
    from typing import Literal

    return _ticket_model(category=(Literal["Leak", "Noise", "Electrical", "Delivery", "Other"], {}))


@ticket.misconception(_("limits that are not allowed themselves: `gt` and `lt` where `ge` and `le` are meant"))
def limits_excluded() -> Any:
    return _ticket_model(priority=(int, {"gt": 1, "lt": 5}))


@ticket.misconception(_("a pattern that is only searched for: without `^` and `$` anything may stand around it"))
def pattern_not_anchored() -> Any:
    return _ticket_model(serial=(str | None, {"default": None, "pattern": "HP-[0-9]{4}"}))


@ticket.misconception(_("texts without limits: any serial number, any summary"))
def texts_without_limits() -> Any:
    return _ticket_model(summary=(str, {}), serial=(str | None, {"default": None}))


@ticket.misconception(_("a summary without limits"))
def summary_without_limits() -> Any:
    return _ticket_model(summary=(str, {}))


@ticket.misconception(_("a summary that may be empty"))
def summary_may_be_empty() -> Any:
    return _ticket_model(summary=(str, {"max_length": _LONGEST_SUMMARY}))


@ticket.misconception(_("pydantic's usual way with unknown fields: they are dropped in silence"))
def unknown_dropped() -> Any:
    return _ticket_model(extra="ignore")


@ticket.misconception(_("defaults everywhere: what the model leaves out looks as if it had said it"))
def defaults_everywhere() -> Any:
    from typing import Literal

    return _ticket_model(
        category=(Literal["leak", "noise", "electrical", "delivery", "other"], {"default": "other"}),
        priority=(int, {"default": 3, "ge": 1, "le": 5}),
        summary=(str, {"default": "?", "min_length": 1, "max_length": _LONGEST_SUMMARY}),
    )


# ---------------------------------------------------------------- extract

extract = Check(
    "structured_output",
    "extract",
    title=_("Request, validate, repair"),
    hints=(
        _("Three things can happen: the first reply is good, the second one is, or neither. How many requests are that "
          "at most?"),
        _("`content = reply.choices[0].message.content or \"\"` is the reply's text, and "
          "`schema.model_validate_json(content)` returns the record or raises a `ValidationError`. For the repair the "
          "model must see all of it again: the first messages, its own text, and `str(error)` in the user's role."),
        _("A loop with two rounds: `try: return schema.model_validate_json(content)`, `except ValidationError as "
          "error: messages += [content as the assistant, the error as the user]`; after the loop `raise "
          "ExtractionError(...)`."),
    ),
)  # fmt: skip

Fields = dict[str, tuple[str, dict[str, Any]]]

FORM = (
    "Turn the customer's message into a ticket: one JSON object with category (leak, noise, electrical, delivery or "
    "other), priority from 1 (can wait) to 5 (standstill), summary (a few words) and serial (HP- and four digits)."
)


class _Order:
    """One extraction: a record to ask for that no answer can know, good replies and faulty ones."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        rng = trial.rng
        self.most = int(rng.integers(20, 500))
        self.longest = int(rng.integers(20, 40))
        self.fields: Fields = {
            "part": ("str", {"min_length": 1, "max_length": self.longest}),
            "quantity": ("int", {"ge": 1, "le": self.most}),
            "urgency": ("int", {"ge": 0, "le": 9}),
        }
        self.message = chats.sentence(rng, words=9)

    def record(self) -> dict[str, Any]:
        """Return a record that is valid."""
        rng = self.trial.rng
        return {
            "part": f"{rng.choice(chats.WORDS)} {rng.integers(10, 100)}",
            "quantity": int(rng.integers(1, self.most + 1)),
            "urgency": int(rng.integers(10)),
        }

    def faulty(self) -> list[str]:
        """Return replies that are not valid, each in its own way; what is wrong is never in the schema's words."""
        good = self.record()
        faults: list[dict[str, Any]] = [
            good | {"quantity": self.most + int(self.trial.rng.integers(1, 50))},
            {name: value for name, value in self.record().items() if name != "urgency"},
            self.record() | {"part": "x" * (self.longest + 1), "urgency": 17},
        ]
        written = [_written(fault) for fault in faults]
        cut_off = _written(self.record())[:-4]
        return [*written, cut_off, f"I would order {chats.sentence(self.trial.rng, words=3)}"]

    def faults(self, reply: str) -> list[Any]:
        """Return what pydantic finds wrong with a reply; nothing if it is valid."""
        from pydantic import ValidationError

        try:
            pydantic_model(None, "Order", self.fields).model_validate_json(reply)
        except ValidationError as error:
            return error.errors()
        return []

    def errors(self, reply: str) -> list[str]:
        """Return what is wrong with a reply in pydantic's words."""
        return [str(found["msg"]) for found in self.faults(reply)]

    def wrong_fields(self, reply: str) -> list[str]:
        """Return the names of the fields that are wrong in a reply; none if it is no JSON."""
        return [str(name) for found in self.faults(reply) for name in found["loc"]]

    def run(self, answer: Handle, *replies: str | Failure) -> "_Extraction":
        """Let the answer extract an order while the server gives these replies."""
        script: list[Reply] = [reply if isinstance(reply, Failure) else Completion(reply) for reply in replies]
        given = [reply for reply in replies if isinstance(reply, str)]
        server = self.trial.server(
            script, observed=lambda server: [self._gist(request.body or {}, given) for request in server.requests]
        )
        client = answer.build("openai_client", base_url=server.url)
        model = answer.build("pydantic_model", "Order", self.fields)
        got: Any = None
        error: AnswerRaised | None = None
        try:
            got = answer(client, self.message, model)
        except AnswerRaised as raised:
            if not server.requests:
                raise
            error = raised
        self.trial.require(
            len(server.requests) > 0, _("No request arrived. Send it through the client that your code is given.")
        )
        return _Extraction(self.trial, got, error, server)

    def _gist(self, body: Mapping[str, Any], given: Sequence[str]) -> list[Any]:
        """Return what the diagnosis compares of a request: who says what and what is asked for, but no wording."""
        form, messages = body.get("response_format"), body.get("messages")
        kind = form.get("type") if isinstance(form, dict) else None
        said = [chats.message(message) for message in messages] if isinstance(messages, list) else []
        return [kind, [[role, self._kind(text, given)] for role, text in said]]

    def _kind(self, text: str, given: Sequence[str]) -> list[bool]:
        """Return whether a message says anything, is the customer's, or holds one of the replies, or its errors."""
        found = [self.errors(reply) for reply in given]
        explains = any(errors and all(error in text for error in errors) for errors in found)
        return [bool(text.strip()), text == self.message, any(reply in text for reply in given), explains]


@dataclass
class _Extraction:
    """What came of it."""

    trial: Trial
    got: Any
    error: AnswerRaised | None
    server: ScriptedServer

    @property
    def requests(self) -> list[Request]:
        return self.server.requests

    def require_requests(self, count: int, message: str) -> None:
        sent = len(self.requests)
        if sent != count:
            raise Failed(self.trial.text(message, sent=sent), str(count), str(sent))

    def require_repair(self) -> None:
        """Fail if the code gave up at the first faulty reply; an error of another kind says more than that."""
        if len(self.requests) == 1 and self.error is not None and "ExtractionError" not in self.error.type_names:
            raise self.error
        if len(self.requests) == 1:
            message = self.trial.text(_("The first reply was faulty, and your code did not ask again."))
            raise Failed(message, "2", "1")

    def require_record(self, wanted: dict[str, Any]) -> None:
        """Fail unless a validated record with these values came back."""
        if self.error is not None:
            raise self.error
        is_record = isinstance(self.got, Record) and self.got.kind == "pydantic"
        if not is_record:
            message = self.trial.text(_("That is no instance of the model that your function was given."))
            raise Failed(message, f"Order({_arguments(wanted)})", show(self.got))
        self.trial.equal(self.got.fields, wanted, _("These are not the values of the reply that was valid."))

    def messages(self, number: int) -> list[tuple[str, str]]:
        messages = (self.requests[number].body or {}).get("messages")
        self.trial.require(isinstance(messages, list), _("The request has no list of messages."))
        return [chats.message(message) for message in messages or []]

    def require_schema(self, number: int, order: _Order) -> dict[str, Any]:
        """Return the schema that a request asks for; fail unless its fields are the model's. Its text may differ."""
        wanted = '{"type": "json_schema", "json_schema": {"name": ..., "schema": ...}}'
        asked = (self.requests[number].body or {}).get("response_format")
        kind = asked.get("type") if isinstance(asked, dict) else None
        self.trial.require(
            kind == "json_schema",
            _("The request does not ask for JSON of a schema: no `response_format`."),
            expected=wanted,
        )
        inside = asked.get("json_schema") if isinstance(asked, dict) else None
        name, schema = (inside.get("name"), inside.get("schema")) if isinstance(inside, dict) else (None, None)
        self.trial.require(
            isinstance(name, str) and name,
            _("The schema that you sent has no name; servers insist on one."),
            expected=wanted,
        )
        properties = schema.get("properties") if isinstance(schema, dict) else None
        named = sorted(properties) if isinstance(properties, dict) else []
        self.trial.require(
            named == sorted(order.fields),
            _("The schema that you sent has the fields {found}."),
            found=str(named),
            expected=str(sorted(order.fields)),
        )
        return schema or {}

    def require_limits(self, sent: dict[str, Any], order: _Order) -> None:
        """Fail unless a schema that was sent says of each field what the model's says, and which must be there."""
        whole = pydantic_model(None, "Order", order.fields).model_json_schema()
        for name, wanted in whole["properties"].items():
            field = sent["properties"][name]
            kept = isinstance(field, dict) and all(field.get(key) == wanted[key] for key in wanted if key != "title")
            message = _("The schema that you sent does not say what the field `{name}` may hold.")
            self.trial.require(kept, message, name=name, expected=show(wanted))
        missing = [name for name in whole["required"] if name not in (sent.get("required") or [])]
        message = _("The schema that you sent does not say that `{name}` must be there.")
        self.trial.require(not missing, message, name="".join(missing[:1]), expected=show(whole["required"]))


def _arguments(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in fields.items())


def _written(record: Mapping[str, Any]) -> str:
    import json

    return json.dumps(record, ensure_ascii=False)


@extract.criterion(
    _("returns the record that the reply holds"),
    points=0.5,
    why=_("Programs work with records whose fields are known and checked, not with text that looks like them. And a "
          "good reply needs no second request."),
)  # fmt: skip
def returns_record(trial: Trial, answer: Handle) -> None:
    for turn in range(2):
        order = _Order(trial)
        record = order.record()
        quoted = record | {"quantity": str(record["quantity"])}  # as models write numbers now and then
        tried = order.run(answer, _written(quoted if turn else record))
        message = _(
            "The first reply was valid, and your code asked again all the same. Does it return the instance? And does "
            "it validate the reply's text, `reply.choices[0].message.content`, against `schema`?"
        )
        tried.require_requests(1, message)
        tried.require_record(record)


@extract.criterion(
    _("asks for the schema, with the customer's message"),
    points=0.5,
    why=_("With the schema the server allows no token that would break it; without it you hope."),
)
def asks_for_schema(trial: Trial, answer: Handle) -> None:
    order = _Order(trial)
    tried = order.run(answer, _written(order.record()))
    schema = tried.require_schema(0, order)
    messages = tried.messages(0)
    if messages[-1:] != [("user", order.message)]:
        message = trial.text(_("The last message is not the customer's, word for word, in the role of the user."))
        raise Failed(message, chats.said([("user", order.message)]), chats.said(messages))
    told = [text for role, text in messages[:-1] if role == "system" and text.strip()]
    trial.require(
        told, _("No message of the system's says what to do with the customer's message."), expected="system: FORM"
    )
    tried.require_limits(schema, order)
    model = (tried.requests[0].body or {}).get("model")
    named, form = chats.names_model(tried.requests[0].body), " ".join(told[0].split()) == FORM
    trial.observe([named, form])
    if not named:
        raise Failed(trial.text(_("Your request names another model.")), "model=MODEL", f"model={show(model)}")
    trial.require(form, _("The message of the system is not `FORM`, as the notebook came with it."), expected=FORM)
    another = _Order(trial)
    sent = another.run(answer, _written(another.record())).messages(0)
    message = _("Another customer's message, from an earlier call, was sent along.")
    trial.require(all(order.message not in text for _role, text in sent), message, expected=chats.said(sent[-1:]))


@extract.criterion(
    _("repairs a faulty reply once, and tells the model what was wrong"),
    points=1,
    why=_(
        "A model that is not told its mistake makes it again; with the error in view most replies are mended at once."
    ),
)
def repairs(trial: Trial, answer: Handle) -> None:
    order = _Order(trial)
    for faulty in order.faulty():
        record = order.record()
        tried = order.run(answer, faulty, _written(record))
        tried.require_repair()
        tried.require_record(record)
        tried.require_requests(2, _("One faulty reply and one good one are two requests; your code sent {sent}."))
        tried.require_schema(1, order)
        said = "\n".join(text for role, text in tried.messages(1) if role == "user")
        missing = [words for words in (*order.wrong_fields(faulty), *order.errors(faulty)) if words not in said]
        if missing:
            message = trial.text(
                _("The second request does not say, in pydantic's words (`str(error)`), what was wrong with the reply, "
                  "and in which field.")
            )  # fmt: skip
            raise Failed(message, "; ".join(missing), chats.said(tried.messages(1)))


@extract.criterion(
    _("shows the model the message and its own reply again"),
    points=0.25,
    why=_("The model remembers nothing: it can only mend what it sees."),
)
def shows_again(trial: Trial, answer: Handle) -> None:
    order = _Order(trial)
    for faulty in order.faulty()[:2]:
        tried = order.run(answer, faulty, _written(order.record()))
        tried.require_repair()
        tried.require_requests(2, _("One faulty reply and one good one are two requests; your code sent {sent}."))
        first, second = tried.messages(0), tried.messages(1)
        begins = [*first, ("assistant", faulty)]
        expected = chats.said([*begins, ("user", "...")])
        for wanted in (("user", order.message), *begins):
            if wanted not in second:
                missing = chats.said([wanted], 150)
                message = trial.text(_("In the second request this message is missing: {missing}"), missing=missing)
                raise Failed(message, expected, chats.said(second))
        if second[: len(begins)] != begins:
            message = _("The second request does not begin with the messages of the first one, followed by the reply.")
            raise Failed(trial.text(message), expected, chats.said(second))
        trial.require(second[-1][0] == "user", _("The last word is not the user's; the model answers the user."))


@extract.criterion(
    _("gives up after the second faulty reply, with an `ExtractionError`"),
    points=0.5,
    why=_("Whoever calls your function can put this message on a person's desk, if the failure has a name. A loop that "
          "tries until it works may never end, and each round is paid for."),
)  # fmt: skip
def gives_up(trial: Trial, answer: Handle) -> None:
    order = _Order(trial)
    faulty = order.faulty()
    for first, second in ((0, 1), (4, 3)):
        tried = order.run(answer, faulty[first], faulty[second], *faulty)
        tried.require_repair()
        tried.require_requests(2, _("After two faulty replies it is over; your code sent {sent} requests."))
        raised = tried.error.type_names if tried.error else ()
        if "ExtractionError" not in raised:
            message = trial.text(_("Both replies were faulty; that must raise ExtractionError."))
            raise Failed(message, "ExtractionError", raised[0] if raised else show(tried.got))


@extract.criterion(
    _("lets a server's error through"),
    points=0.25,
    why=_("When the server fails, the message is not at fault, and trying again later may help. Under the wrong name "
          "nobody would try."),
)  # fmt: skip
def server_error(trial: Trial, answer: Handle) -> None:
    order = _Order(trial)
    for replies in ([], order.faulty()[:1]):
        tried = order.run(answer, *replies, Failure(503, "busy"), _written(order.record()))
        if replies:
            tried.require_repair()
        raised = tried.error.type_names if tried.error else ()
        if "OpenAIError" not in raised:
            message = trial.text(_("The server failed; its error must reach the caller."))
            raise Failed(message, "InternalServerError", raised[0] if raised else show(tried.got))
        tried.require_requests(len(replies) + 1, _("Your code went on after the server's error: {sent} requests."))


_ExtractionError: Any = type("ExtractionError", (Exception,), {})


def _ask(
    client: Any, messages: Sequence[tuple[str, str]], schema: Any, wanted: str = "json_schema", model: str = ""
) -> str:
    """Send the messages and return the text of the reply."""
    from kicourse.models import gpt

    form: dict[str, Any] = {"type": wanted}
    if wanted == "json_schema":
        form["json_schema"] = {"name": schema.__name__, "schema": schema.model_json_schema()}
    options: Any = {"response_format": form} if wanted else {}
    chat: Any = [{"role": role, "content": text} for role, text in messages]
    reply = client.chat.completions.create(model=model or gpt.model(), messages=chat, temperature=0, **options)
    return str(reply.choices[0].message.content)


Repair = Callable[[list[tuple[str, str]], str, Exception], list[tuple[str, str]]]


def _with_repair(messages: list[tuple[str, str]], reply: str, error: Exception) -> list[tuple[str, str]]:
    return [*messages, ("assistant", reply), ("user", f"That is not valid: {error}\nWrite the whole object again.")]


def _extracting(
    client: Any,
    message: str,
    schema: Any,
    *,
    rounds: int = 2,
    repair: Repair = _with_repair,
    wanted: Sequence[str] = ("json_schema",),
    failure: Callable[[Exception], Any] | None = None,
    instructions: str = FORM,
    model: str = "",
    read: Callable[[Any, str], Any] = lambda schema, reply: schema.model_validate_json(reply),
) -> Any:
    """Extract rightly, apart from what a misconception changes."""
    from pydantic import ValidationError

    messages = [("system", instructions)] * bool(instructions) + [("user", message)]
    last: Exception = ValueError()
    for number in range(rounds):
        reply = _ask(client, messages, schema, wanted[min(number, len(wanted) - 1)], model)
        try:
            return read(schema, reply)
        except ValidationError as error:
            messages, last = repair(messages, reply, error), error
    if failure is not None:
        return failure(last)
    raise _ExtractionError("no valid reply")


@extract.misconception(_("a repair that does not say what was wrong"))
def error_omitted(client: Any, message: str, schema: Any) -> Any:
    return _extracting(
        client, message, schema, repair=lambda messages, reply, _error: _with_repair(messages, reply, Exception())
    )


@extract.misconception(_("the same request sent again, in the hope of a better reply"))
def asked_again(client: Any, message: str, schema: Any) -> Any:
    return _extracting(client, message, schema, repair=lambda messages, _reply, _error: messages)


@extract.misconception(_("a repair that shows the error but not the reply that it is about"))
def reply_omitted(client: Any, message: str, schema: Any) -> Any:
    return _extracting(
        client, message, schema, repair=lambda messages, _reply, error: [*messages, ("user", str(error))]
    )


@extract.misconception(_("a repair that leaves out the customer's message"))
def message_omitted(client: Any, message: str, schema: Any) -> Any:
    return _extracting(
        client,
        message,
        schema,
        repair=lambda messages, reply, error: [messages[0], *_with_repair(messages, reply, error)[2:]],
    )


@extract.misconception(_("a repair in which the user quotes the faulty reply: nobody seems to have given it"))
def reply_quoted(client: Any, message: str, schema: Any) -> Any:
    return _extracting(
        client,
        message,
        schema,
        repair=lambda messages, reply, error: [*messages, ("user", f"You wrote: {reply}\nThat is not valid: {error}")],
    )


@extract.misconception(_("no instructions: the customer's message goes alone"))
def no_form(client: Any, message: str, schema: Any) -> Any:
    return _extracting(client, message, schema, instructions="")


@extract.misconception(_("instructions of your own, which do not say what the notebook's `FORM` says"))
def own_form(client: Any, message: str, schema: Any) -> Any:
    return _extracting(client, message, schema, instructions="You are a helpful assistant.")


@extract.misconception(_("the name of a model that you know from elsewhere, instead of `MODEL`"))
def other_model(client: Any, message: str, schema: Any) -> Any:
    return _extracting(client, message, schema, model="gpt-4o")


@extract.misconception(_("a loop that tries until it works, which may be never"))
def for_ever(client: Any, message: str, schema: Any) -> Any:
    return _extracting(client, message, schema, rounds=1_000)


@extract.misconception(_("three rounds instead of two: `range(3)`, or a repair of the repair"))
def three_rounds(client: Any, message: str, schema: Any) -> Any:
    return _extracting(client, message, schema, rounds=3)


@extract.misconception(_("no repair at all"))
def no_repair(client: Any, message: str, schema: Any) -> Any:
    return _extracting(client, message, schema, rounds=1)


@extract.misconception(_("a failure without a name of its own: the `ValidationError` goes on to the caller"))
def untyped_failure(client: Any, message: str, schema: Any) -> Any:
    def fail(error: Exception) -> Any:
        raise error

    return _extracting(client, message, schema, failure=fail)


@extract.misconception(_("a failure in disguise: `None` is returned, and sooner or later somebody reads its fields"))
def none_returned(client: Any, message: str, schema: Any) -> Any:
    return _extracting(client, message, schema, failure=lambda _error: None)


@extract.misconception(_("`except Exception`, which takes a server's error for a faulty reply"))
def catches_everything(client: Any, message: str, schema: Any) -> Any:
    try:
        return _extracting(client, message, schema)
    except Exception:
        raise _ExtractionError("no valid reply") from None


@extract.misconception(_("a request without a schema: the model is merely asked for JSON"))
def no_schema(client: Any, message: str, schema: Any) -> Any:
    return _extracting(client, message, schema, wanted=("",))


@extract.misconception(_("`json_object`: any JSON will do, whatever its fields"))
def any_json(client: Any, message: str, schema: Any) -> Any:
    return _extracting(client, message, schema, wanted=("json_object",))


@extract.misconception(_("a repair without the schema: the second request asks for nothing in particular"))
def repair_without_schema(client: Any, message: str, schema: Any) -> Any:
    return _extracting(client, message, schema, wanted=("json_schema", ""))


@extract.misconception(_("a reply that is parsed but never validated: a dict instead of a record"))
def not_validated(client: Any, message: str, schema: Any) -> Any:
    import json

    return json.loads(_ask(client, [("system", FORM), ("user", message)], schema))


@extract.misconception(
    _("`json.loads` before pydantic: a reply that is no JSON is an error of its own, and never repaired")
)
def parsed_first(client: Any, message: str, schema: Any) -> Any:
    import json

    return _extracting(client, message, schema, read=lambda schema, reply: schema.model_validate(json.loads(reply)))


# ---------------------------------------------------------------- few_shot_messages

few_shot_messages = Check(
    "structured_output",
    "few_shot_messages",
    title=_("Examples in the prompt"),
    hints=(
        _("An example is a dialogue that never took place. Who says the message, who says the label, and what comes "
          "last?"),
        _("Two steps: a list of the pairs whose message is not the question, then its first `count`. Whoever cuts "
          "first loses an example to each copy of the question. A small function that brings a message into the "
          "form in which you compare it serves for both sides."),
        _("`chosen = [pair for pair in pool if same(pair[0]) != same(question)][:count]`; then the system's message, "
          "for each pair a user's and an assistant's message, and the question as the user's."),
    ),
)  # fmt: skip

Examples = list[tuple[str, str]]


def _pool(rng: "np.random.Generator", count: int) -> Examples:
    return [(chats.sentence(rng), str(rng.choice(chats.WORDS))) for _number in range(count)]


def _shots(instructions: str, examples: Sequence[tuple[str, str]], question: str) -> list[tuple[str, str]]:
    """Return the messages of a prompt with just these examples."""
    dialogue = [line for text, label in examples for line in (("user", text), ("assistant", label))]
    return [("system", instructions), *dialogue, ("user", question)]


def _prompt(trial: Trial, answer: Handle, pool: Examples, question: str, count: int, wanted: Examples) -> None:
    """Fail unless the prompt has these examples and everything else in its place."""
    instructions = chats.sentence(trial.rng)
    got = answer(instructions, pool, question, count)
    trial.is_a(got, (list, tuple))
    messages = [chats.message(message) for message in got]
    expected = _shots(instructions, wanted, question)
    if messages == expected:
        return
    if messages[-1:] != expected[-1:]:
        fault = _("The last message is not the question in the role of the user.")
    elif messages[:1] != expected[:1]:
        fault = _("The first message is not the system's with the instructions.")
    elif any(_key(text) == _key(question) for _role, text in messages[:-1]):
        fault = _("The question itself is among the examples, with its answer.")
    elif len(messages) != len(expected):
        fault = _("There are not as many examples as there should be.")
    else:
        fault = _("The examples are not the right ones, or not in the right roles and order.")
    raise Failed(trial.text(fault), chats.said(expected, 30), chats.said(messages, 30))


def _key(text: str) -> str:
    """Return what makes two messages the same: not the case, and not the spaces."""
    return " ".join(text.casefold().split())


@few_shot_messages.criterion(
    _("instructions, examples as a dialogue, and the question last"),
    points=0.5,
    why=_("The model goes on where the messages end, in the manner of the answers that it sees. It has to be the "
          "question that they end with."),
)  # fmt: skip
def in_order(trial: Trial, answer: Handle) -> None:
    for count in (1, 2, 5):
        pool = _pool(trial.rng, count)
        _prompt(trial, answer, pool, chats.sentence(trial.rng), count, pool)


@few_shot_messages.criterion(
    _("takes the first `count` examples of the pool"),
    points=0.25,
    why=_("More examples are not always better, so their number is something to try out: none, two, eight."),
)
def takes_count(trial: Trial, answer: Handle) -> None:
    for count in (1, 3, 0, 7):  # whoever takes the last ones is told so before `pool[-0:]` takes them all
        pool = _pool(trial.rng, 5)
        pool[0] = (pool[0][0].replace(" ", "  "), pool[0][1])  # as a customer wrote it
        pool[2] = (pool[1][0], f"not {pool[1][1]}")  # two people did not agree
        _prompt(trial, answer, pool, chats.sentence(trial.rng), count, pool[:count])
    _prompt(trial, answer, [], chats.sentence(trial.rng), 2, [])


@few_shot_messages.criterion(
    _("leaves the question itself out of the examples"),
    points=0.5,
    why=_("A prompt that holds the answer measures copying. That is how a prompt that is good in the test is bad in "
          "operation."),
)  # fmt: skip
def no_leak(trial: Trial, answer: Handle) -> None:
    for place in (0, 2, 3):
        pool = _pool(trial.rng, 6)
        rest = [pair for number, pair in enumerate(pool) if number != place]
        _prompt(trial, answer, pool, pool[place][0], 3, rest[:3])
    pool = _pool(trial.rng, 3)
    _prompt(trial, answer, pool, pool[1][0], 3, [pool[0], pool[2]])


@few_shot_messages.criterion(
    _("knows the question in other case and spacing too, and every copy of it"),
    points=0.25,
    why=_("Messages are forwarded, quoted and sent twice: a copy is rarely the same to the byte."),
)
def no_near_leak(trial: Trial, answer: Handle) -> None:
    changes: list[Callable[[str], str]] = [
        str.title,
        lambda text: f"  {text}\n",
        lambda text: text.replace(" ", "  "),
        lambda text: text.replace(" ", "\n"),
        str.upper,
    ]
    for change, mark in zip(changes, "?.!,;", strict=True):
        pool = _pool(trial.rng, 6)
        plain = f"Große {chats.sentence(trial.rng)}"
        question = change(plain)
        words = plain.split()
        others = (f"{plain} oil", " ".join(words[:-1]), " ".join(reversed(words)), f"{plain}{mark}")  # not the same
        texts = (others[0], plain, others[1], question, *others[2:])
        pool = [(text, label) for text, (_text, label) in zip(texts, pool, strict=True)]
        _prompt(trial, answer, pool, question, 4, [pool[0], pool[2], pool[4], pool[5]])


def _chat(messages: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in messages]


def _picked(pool: Examples, question: str, count: int) -> Examples:
    return [pair for pair in pool if _key(pair[0]) != _key(question)][:count]


@few_shot_messages.misconception(_("examples that may hold the question itself, and with it the answer"))
def leaks(instructions: str, pool: Examples, question: str, count: int) -> Any:
    return _chat(_shots(instructions, pool[:count], question))


@few_shot_messages.misconception(_("a comparison that recognises only an exact copy of the question"))
def leaks_near_copies(instructions: str, pool: Examples, question: str, count: int) -> Any:
    return _chat(_shots(instructions, [pair for pair in pool if pair[0] != question][:count], question))


@few_shot_messages.misconception(_("a comparison with `lower()`, which knows neither `ß` nor spaces"))
def leaks_spaces(instructions: str, pool: Examples, question: str, count: int) -> Any:
    return _chat(_shots(instructions, [p for p in pool if p[0].lower() != question.lower()][:count], question))


@few_shot_messages.misconception(
    _("the first `count` examples taken, then the question's copy removed: one is missing")
)
def removes_after_taking(instructions: str, pool: Examples, question: str, count: int) -> Any:
    return _chat(_shots(instructions, _picked(pool[:count], question, count), question))


@few_shot_messages.misconception(_("a pool from which only the first copy of the question is taken out"))
def removes_one(instructions: str, pool: Examples, question: str, count: int) -> Any:
    keys = [_key(text) for text, _label in pool]
    left = list(pool)
    if _key(question) in keys:
        del left[keys.index(_key(question))]
    return _chat(_shots(instructions, left[:count], question))


@few_shot_messages.misconception(_("the question before the examples"))
def question_first(instructions: str, pool: Examples, question: str, count: int) -> Any:
    system, *dialogue, asked = _shots(instructions, _picked(pool, question, count), question)
    return _chat([system, asked, *dialogue])


@few_shot_messages.misconception(_("all that is in the pool, whatever `count` says"))
def takes_all(instructions: str, pool: Examples, question: str, count: int) -> Any:
    return _chat(_shots(instructions, _picked(pool, question, len(pool)), question))


@few_shot_messages.misconception(_("labels in the role of the user: the model never sees itself answer"))
def labels_by_user(instructions: str, pool: Examples, question: str, count: int) -> Any:
    shots = _shots(instructions, _picked(pool, question, count), question)
    return _chat([("user" if role == "assistant" else role, text) for role, text in shots])


@few_shot_messages.misconception(_("examples glued into the system's message"))
def glued_examples(instructions: str, pool: Examples, question: str, count: int) -> Any:
    lines = [f"{text} -> {label}" for text, label in _picked(pool, question, count)]
    return _chat([("system", "\n".join([instructions, *lines])), ("user", question)])


@few_shot_messages.misconception(_("no instructions: the examples have to speak for themselves"))
def no_instructions(instructions: str, pool: Examples, question: str, count: int) -> Any:
    return _chat(_shots(instructions, _picked(pool, question, count), question)[1:])


few_shot_messages.equivalent(
    'return " ".join(message.casefold().split())',
    'return "".join(message.casefold().split())',
    reason="two messages of which one has no space where the other has one differ in spaces, too",
)


# ---------------------------------------------------------------- evaluate

evaluate = Check(
    "structured_output",
    "evaluate",
    title=_("Measure it"),
    hints=(
        _("What is the denominator, if the model gave no usable answer to some of the items?"),
        _("Right answers by all items. Wilson's centre is not the accuracy: it is drawn a little towards one half. The "
          "matrix has a row for each true label and one column more than labels."),
        _("For each pair: `matrix[labels.index(t)][labels.index(said) if said in labels else -1] += 1`, where each row "
          "is a list of its own. For the interval compute three things: what stands before the ±, what stands after "
          "it, and the denominator, which divides both."),
    ),
)  # fmt: skip

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class _Evaluation:
    """What the learner's `Evaluation` looks like."""

    accuracy: float
    interval: tuple[float, float]
    confusion: list[list[int]]


Answers = list[str | None]


@dataclass
class _Run:
    """A prompt's run over labelled messages."""

    truth: list[str]
    predicted: Answers
    labels: list[str]


def _draw_run(
    rng: "np.random.Generator", size: int, right: float, failed: float = 0.0, *, near: bool = False, unseen: int = 0
) -> _Run:
    """Draw a run in which a wrong answer is usually the next label: its matrix is not symmetric.

    Answers that failed are `near` misses, if that is wanted. `unseen` labels are the true one of no item.
    """
    labels = [str(word) for word in rng.choice(chats.WORDS, size=int(rng.integers(3, 5)), replace=False)]
    seen = labels[: len(labels) - unseen]
    truth = [str(label) for label in rng.permutation([*seen, *rng.choice(seen, size=size - len(seen))])]
    predicted: Answers = []
    for label in truth:
        following = labels[(labels.index(label) + 1) % len(labels)]
        predicted.append(label if rng.random() < right else following)
    for number, place in enumerate(rng.choice(size, size=round(failed * size), replace=False)):
        label = truth[place]
        misses = (f"no {label}", f" {label}\n", label.swapcase(), f"{label}.", label[:-1], "") if near else ()
        unusable = (None, f"no {rng.choice(labels)}", *misses)
        predicted[place] = unusable[number % len(unusable)]
    return _Run(truth, predicted, labels)


def _accuracy(run: _Run) -> float:
    return sum(t == p for t, p in zip(run.truth, run.predicted, strict=True)) / len(run.truth)


def _wilson(accuracy: float, count: int) -> tuple[float, float]:
    shrink = 1 + _Z * _Z / count
    centre = (accuracy + _Z * _Z / (2 * count)) / shrink
    half = _Z * math.sqrt(accuracy * (1 - accuracy) / count + _Z * _Z / (4 * count * count)) / shrink
    return centre - half, centre + half


def _confusion(run: _Run) -> list[list[int]]:
    matrix = [[0] * (len(run.labels) + 1) for _label in run.labels]
    for true, predicted in zip(run.truth, run.predicted, strict=True):
        matrix[run.labels.index(true)][run.labels.index(predicted) if predicted in run.labels else -1] += 1
    return matrix


def _field(trial: Trial, got: Any, kind: str, name: str) -> Any:
    """Return a field of the record that came back; fail if it is no such record."""
    return trial.fields(got, kind, name)[name]


def _is_close(trial: Trial, got: Any, wanted: float) -> bool:
    try:
        trial.close(got, wanted)
    except Failed:
        return False
    return True


def _evaluated(trial: Trial, answer: Handle, run: _Run, name: str) -> Any:
    return _field(trial, answer(run.truth, run.predicted, run.labels), "Evaluation", name)


@evaluate.criterion(
    _("the accuracy: how many of the answers were right"),
    points=0.5,
    why=_("It is the number that everybody asks for first."),
)
def right_accuracy(trial: Trial, answer: Handle) -> None:
    for right in (0.5, 0.9, 0.2):
        run = _draw_run(trial.rng, int(trial.rng.integers(20, 60)), right)
        trial.close(_evaluated(trial, answer, run, "accuracy"), _accuracy(run), _("That is not the accuracy."))


@evaluate.criterion(
    _("counts an answer that is missing or no label as wrong"),
    points=0.5,
    why=_("The customer got no usable answer. A prompt that stays silent wherever it is difficult would otherwise be "
          "the best of all."),
)  # fmt: skip
def failures_count(trial: Trial, answer: Handle) -> None:
    for failed in (0.1, 0.5):
        run = _draw_run(trial.rng, int(trial.rng.integers(20, 60)), 0.8, failed, near=True)
        message = _("{failed} of {count} items have no usable answer; they count as wrong.")
        wrong = sum(p not in run.labels for p in run.predicted)
        got = _evaluated(trial, answer, run, "accuracy")
        trial.close(got, _accuracy(run), message, failed=wrong, count=len(run.truth))


@evaluate.criterion(
    _("Wilson's interval at 95 percent"),
    points=0.5,
    why=_("So few items say little. The interval says how little, also where all answers were right: there the usual "
          "formula claims to be certain."),
)  # fmt: skip
def right_interval(trial: Trial, answer: Handle) -> None:
    shares = ((0.7, 0.0), (1.0, 0.0), (0.0, 0.0), (0.95, 0.0), (0.8, 0.3))
    runs = [_draw_run(trial.rng, int(trial.rng.integers(10, 60)), right, failed) for right, failed in shares]
    for run in (*runs, _Run(["leak"], ["leak"], ["noise", "leak"])):  # a single item is enough
        got = answer(run.truth, run.predicted, run.labels)
        interval, accuracy = (_field(trial, got, "Evaluation", name) for name in ("interval", "accuracy"))
        hits = round(_accuracy(run) * len(run.truth))
        count = _denominator(run, accuracy, hits)
        message = _("That is not Wilson's interval for {right} right answers to {count} items.")
        # Whoever takes 1.96 for the quantile is right as well.
        ends, wanted = as_tuple(interval), _wilson(hits / count, count)  # SciPy returns a named tuple
        trial.close(ends, wanted, message, rtol=0, atol=2e-4, right=hits, count=count)


def _denominator(run: _Run, accuracy: Any, hits: int) -> int:
    """Return the number of items that an interval is of: of all, unless the accuracy leaves failures out as well.

    That has a criterion of its own.
    """
    usable = sum(predicted in run.labels for predicted in run.predicted)
    left_out = isinstance(accuracy, float | int) and math.isclose(accuracy, hits / usable)
    return usable if left_out else len(run.truth)


@evaluate.criterion(
    _("the confusion matrix: a row for each true label, a last column for no answer"),
    points=0.5,
    why=_("It shows which mistakes are made, and that is where the next prompt begins. Read the wrong way round, it "
          "sends you to mend what works."),
)  # fmt: skip
def right_confusion(trial: Trial, answer: Handle) -> None:
    # At last so many that there is a near miss of each kind among them.
    for failed, unseen, near in ((0.0, 0, False), (0.2, 1, False), (0.4, 0, True)):
        run = _draw_run(trial.rng, int(trial.rng.integers(20, 60)), 0.6, failed, near=near, unseen=unseen)
        whole = answer(run.truth, run.predicted, run.labels)
        got, accuracy = (_field(trial, whole, "Evaluation", name) for name in ("confusion", "accuracy"))
        if near and not _is_close(trial, accuracy, _accuracy(run)):  # this mistake has a criterion of its own
            break
        message = _("That is not the confusion matrix of the labels {labels}.")
        trial.close(got, _confusion(run), message, labels=", ".join(run.labels))


def _evaluating(truth: list[str], predicted: Answers, labels: list[str], **changed: Any) -> Any:
    run = _Run(truth, predicted, labels)
    right = _Evaluation(_accuracy(run), _wilson(_accuracy(run), len(truth)), _confusion(run))
    return replace(right, **changed)


@evaluate.misconception(_("failures dropped from the denominator"))
def failures_dropped(truth: list[str], predicted: Answers, labels: list[str]) -> Any:
    kept = [(t, p) for t, p in zip(truth, predicted, strict=True) if p in labels]
    run = _Run([t for t, _p in kept], [p for _t, p in kept], labels)
    return _evaluating(truth, predicted, labels, accuracy=_accuracy(run), interval=_wilson(_accuracy(run), len(kept)))


@evaluate.misconception(
    _("answers tidied up before they are compared: “Leak.” is no label, and a program that reads it fails")
)
def tidied_up(truth: list[str], predicted: Answers, labels: list[str]) -> Any:
    known = {label.casefold(): label for label in labels}
    tidy = [None if said is None else known.get(said.strip(" .\n").casefold(), said) for said in predicted]
    return _evaluating(truth, tidy, labels)


@evaluate.misconception(_("a matrix that takes “Leak.” for the label, which the accuracy counts as wrong"))
def tidied_in_the_matrix(truth: list[str], predicted: Answers, labels: list[str]) -> Any:
    tidied = tidied_up(truth, predicted, labels).confusion
    return _evaluating(truth, predicted, labels, confusion=tidied)


@evaluate.misconception(_("a transposed matrix: rows for what was predicted, columns for what was true"))
def transposed(truth: list[str], predicted: Answers, labels: list[str]) -> Any:
    whole = _confusion(_Run(truth, predicted, labels))
    turned = [[whole[column][row] for column in range(len(labels))] + [whole[row][-1]] for row in range(len(labels))]
    return _evaluating(truth, predicted, labels, confusion=turned)


@evaluate.misconception(_("a matrix without the column for no answer: failures are nowhere"))
def no_last_column(truth: list[str], predicted: Answers, labels: list[str]) -> Any:
    whole = _confusion(_Run(truth, predicted, labels))
    return _evaluating(truth, predicted, labels, confusion=[row[:-1] for row in whole])


@evaluate.misconception(
    _("rows that are all one list: `[[0] * columns] * rows` makes one row, and names it many times")
)
def one_row(truth: list[str], predicted: Answers, labels: list[str]) -> Any:
    whole = _confusion(_Run(truth, predicted, labels))
    return _evaluating(
        truth, predicted, labels, confusion=[[sum(column) for column in zip(*whole, strict=True)]] * len(whole)
    )


@evaluate.misconception(_("a matrix of shares instead of counts"))
def shares(truth: list[str], predicted: Answers, labels: list[str]) -> Any:
    whole = _confusion(_Run(truth, predicted, labels))
    return _evaluating(truth, predicted, labels, confusion=[[n / sum(row) for n in row] for row in whole])


@evaluate.misconception(_("Wald's interval, which is certain of everything when all answers are right"))
def wald(truth: list[str], predicted: Answers, labels: list[str]) -> Any:
    accuracy = _accuracy(_Run(truth, predicted, labels))
    half = _Z * math.sqrt(accuracy * (1 - accuracy) / len(truth))
    return _evaluating(truth, predicted, labels, interval=(accuracy - half, accuracy + half))


@evaluate.misconception(_("Wilson's width around the accuracy instead of around Wilson's centre"))
def not_centred(truth: list[str], predicted: Answers, labels: list[str]) -> Any:
    accuracy = _accuracy(_Run(truth, predicted, labels))
    low, high = _wilson(accuracy, len(truth))
    return _evaluating(truth, predicted, labels, interval=(accuracy - (high - low) / 2, accuracy + (high - low) / 2))


@evaluate.misconception(_("a number in percent instead of a share"))
def percent(truth: list[str], predicted: Answers, labels: list[str]) -> Any:
    return _evaluating(truth, predicted, labels, accuracy=100 * _accuracy(_Run(truth, predicted, labels)))


# ---------------------------------------------------------------- compare_prompts

compare_prompts = Check(
    "structured_output",
    "compare_prompts",
    title=_("Better, or lucky?"),
    hints=(
        _("Most items say nothing about which prompt is better. Which ones do?"),
        _("Choose on the development set alone. On the test set count `gained` and `lost`; under chance each of these "
          "disagreements is a coin toss. How likely is a split at least as uneven as this one, on either side?"),
        _("`chosen = max(challengers, key=lambda name: sum(development[name]))`, where the baseline is no challenger. "
          "`n = gained + lost`; `tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n`; the "
          "p-value is `min(1.0, 2 * tail)`."),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class _Comparison:
    """What the learner's `Comparison` looks like."""

    chosen: str
    gained: int
    lost: int
    p_value: float


Results = dict[str, list[bool]]


def _mcnemar(gained: int, lost: int) -> float:
    return min(1.0, 2 * _tail(gained, lost))


def _tail(gained: int, lost: int) -> float:
    count = gained + lost
    return float(sum(math.comb(count, k) for k in range(min(gained, lost) + 1)) / 2**count)


def _pair(rng: "np.random.Generator", gained: int, lost: int, both: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Return two prompts' results on the same items, shuffled: the one in use and its challenger."""
    pairs = [(False, True)] * gained + [(True, False)] * lost + [(True, True)] * both + [(False, False)] * neither
    shuffled = [pairs[place] for place in rng.permutation(len(pairs))]
    return [used for used, _new in shuffled], [new for _used, new in shuffled]


def _names(rng: "np.random.Generator", count: int) -> list[str]:
    return [f"{word} {rng.integers(10, 100)}" for word in rng.choice(chats.WORDS, size=count, replace=False)]


def _two(
    trial: Trial, answer: Handle, gained: int, lost: int, both: int, neither: int, *fields: str
) -> tuple[Any, ...]:
    """Let the answer compare one challenger with the prompt in use; return these fields of what comes back."""
    rng = trial.rng
    used, new = _names(rng, 2)
    development = dict(zip((used, new), _pair(rng, 4, 1, 5, 2), strict=True))
    test = dict(zip((used, new), _pair(rng, gained, lost, both, neither), strict=True))
    got = answer(development, test, used)
    return tuple(_field(trial, got, "Comparison", name) for name in fields)


@compare_prompts.criterion(
    _("counts what the new prompt gains and what it loses"),
    points=0.25,
    why=_("Items on which both prompts are right, or both wrong, say nothing about which one is better."),
)
def right_counts(trial: Trial, answer: Handle) -> None:
    for _number in range(3):
        gained, lost, both, neither = (int(count) for count in trial.rng.permutation([3, 5, 9, 14]))
        got = _two(trial, answer, gained, lost, both, neither, "gained", "lost")
        message = _(
            "Only the new prompt is right on {gained} items, only the old one on {lost}; `{name}` says something else."
        )
        for name, found, wanted in zip(("gained", "lost"), got, (gained, lost), strict=True):
            trial.close(found, wanted, message, gained=gained, lost=lost, name=name)


@compare_prompts.criterion(
    _("the p-value of the exact paired test"),
    points=0.5,
    why=_("It says how often chance alone would split the disagreements so unevenly. With few of them, approximations "
          "and the look at two intervals go wrong: 33 and 39 of 40 with overlapping intervals can be a clear result."),
)  # fmt: skip
def right_p_value(trial: Trial, answer: Handle) -> None:
    drawn = [(int(a), int(b)) for a, b in trial.rng.integers(1, 12, size=(4, 2))]
    for gained, lost, both in ((6, 0, 33), (0, 7, 20), (9, 2, 4), *((a, b, 15) for a, b in drawn if a != b)):
        (got,) = _two(trial, answer, gained, lost, both, 1, "p_value")
        message = _("With {gained} items gained and {lost} lost, that is not the p-value.")
        trial.close(got, _mcnemar(gained, lost), message, gained=gained, lost=lost)


@compare_prompts.criterion(
    _("a p-value of 1 where nothing speaks for either prompt"),
    points=0.25,
    why=_("A probability is never more than one; and two prompts that agree everywhere are no reason for an error."),
)
def no_difference(trial: Trial, answer: Handle) -> None:
    for gained, lost in ((1, 1), (0, 0), (4, 4), (1, 0)):
        (got,) = _two(trial, answer, gained, lost, 12, 5, "p_value")
        message = _("With {gained} items gained and {lost} lost, nothing speaks for either prompt.")
        trial.close(got, 1.0, message, gained=gained, lost=lost)


def _draw_development(rng: "np.random.Generator", best_of_all: bool) -> tuple[Results, str, str, str]:
    """Draw five prompts' results on 20 items; return them, the one in use, the best challenger, and a further one.

    Two rivals are right once less than the best. One leads in the first half, and in what it gains on the prompt in
    use; the other in the second half and in losing least, and it comes first. So only who counts all finds the best.
    """
    used, best, early, late, other = _names(rng, 5)
    right = {
        used: {*range(20)} - {2, 14} if best_of_all else {0, 10, 11, *range(15, 20)},
        best: {*range(1, 6), *range(11, 20)},
        early: {*range(10), 12, 13, 14},
        late: {1, 2, 3, *range(10, 20)},
        other: {int(item) for item in rng.permutation(20)[: rng.integers(5, 12)]},
    }
    items = [*rng.permutation(10), *(10 + rng.permutation(5)), *(15 + rng.permutation(5))]  # within what is compared
    names = [late, best, early]
    for name in (used, other):
        names.insert(int(rng.integers(len(names) + 1)), name)
    return {name: [int(item) in right[name] for item in items] for name in names}, used, best, other


@compare_prompts.criterion(
    _("chooses the challenger on the development set"),
    points=0.5,
    why=_("The best of many prompts on the test set is partly the luckiest one there, so its result on the test set is "
          "too good to be true."),
)  # fmt: skip
def chosen_on_development(trial: Trial, answer: Handle) -> None:
    for best_of_all, is_whole in ((False, True), (True, True), (False, False)):
        rng = trial.rng
        development, used, chosen, lucky = _draw_development(rng, best_of_all)
        names = list(development)
        share = dict.fromkeys(names, 0.5) | {chosen: 0.6, used: 0.6, lucky: 0.95}
        test = {name: [bool(hit) for hit in rng.random(40) < share[name]] for name in names}
        got = answer(development, test if is_whole else {name: test[name] for name in (used, chosen)}, used)
        # Who compares the wrong pair has the wrong counts; the name alone could be guessed.
        counts = {"gained": sum(n and not u for u, n in zip(test[used], test[chosen], strict=True)),
                  "lost": sum(u and not n for u, n in zip(test[used], test[chosen], strict=True))}  # fmt: skip
        named = _field(trial, got, "Comparison", "chosen")
        named = str(named) if isinstance(named, str) else named  # NumPy's text is text too
        trial.require(
            named != used,
            _("That is the prompt in use itself. It is no challenger, however good it is."),
            expected=chosen,
        )
        trial.equal(
            named,
            chosen,
            _("Of the challengers, another one has more right answers on the development set."),
        )
        for name, count in counts.items():
            message = _("`{name}` is not what the chosen prompt has on the test set.")
            trial.close(_field(trial, got, "Comparison", name), count, message, name=name)


def _comparing(
    development: Results,
    test: Results,
    baseline: str,
    *,
    choose_on: Results | None = None,
    merit: Callable[[str], int] | None = None,
    anyone: bool = False,
    report_on: Results | None = None,
    p_value: Callable[[int, int, list[bool], list[bool]], float] = lambda gained, lost, _used, _new: _mcnemar(
        gained, lost
    ),
) -> Any:
    """Compare rightly, apart from what a misconception changes."""
    choice = development if choose_on is None else choose_on
    names = [name for name in choice if anyone or name != baseline]
    chosen = max(names, key=merit or (lambda name: sum(choice[name])))
    report = test if report_on is None else report_on
    used, new = report[baseline], report[chosen]
    gained = sum(n and not u for u, n in zip(used, new, strict=True))
    lost = sum(u and not n for u, n in zip(used, new, strict=True))
    return _Comparison(chosen, gained, lost, p_value(gained, lost, used, new))


@compare_prompts.misconception(_("selection on the test set"))
def selected_on_test(development: Results, test: Results, baseline: str) -> Any:
    return _comparing(development, test, baseline, choose_on=test)


@compare_prompts.misconception(
    _("all challengers run on the test set, where only the baseline and the chosen one must be")
)
def all_on_test(development: Results, test: Results, baseline: str) -> Any:
    return _comparing(development, {name: test[name] for name in development}, baseline)


@compare_prompts.misconception(_("a report on the development set, on which the choice was made"))
def reported_on_development(development: Results, test: Results, baseline: str) -> Any:
    return _comparing(development, test, baseline, report_on=development)


@compare_prompts.misconception(_("the challenger that gains most on the prompt in use, whatever it loses"))
def gains_most(development: Results, test: Results, baseline: str) -> Any:
    def gained(name: str) -> int:
        return sum(new and not used for used, new in zip(development[baseline], development[name], strict=True))

    return _comparing(development, test, baseline, merit=gained)


@compare_prompts.misconception(_("the challenger that loses least against the prompt in use, whatever it gains"))
def loses_least(development: Results, test: Results, baseline: str) -> Any:
    def kept(name: str) -> int:
        return sum(new and used for used, new in zip(development[baseline], development[name], strict=True))

    return _comparing(development, test, baseline, merit=kept)


@compare_prompts.misconception(_("a challenger that may be the prompt in use itself"))
def chooses_baseline(development: Results, test: Results, baseline: str) -> Any:
    return _comparing(development, test, baseline, anyone=True)


@compare_prompts.misconception(_('overlapping intervals taken as "no difference"'))
def overlapping(development: Results, test: Results, baseline: str) -> Any:
    def judge(_gained: int, _lost: int, used: list[bool], new: list[bool]) -> float:
        (low, high), (other_low, other_high) = (_wilson(sum(hits) / len(hits), len(hits)) for hits in (used, new))
        return 1.0 if low <= other_high and other_low <= high else 0.0

    return _comparing(development, test, baseline, p_value=judge)


@compare_prompts.misconception(_("an unpaired test of two proportions, as if the prompts had met different items"))
def unpaired(development: Results, test: Results, baseline: str) -> Any:
    def judge(_gained: int, _lost: int, used: list[bool], new: list[bool]) -> float:
        count = len(used)
        pooled = (sum(used) + sum(new)) / (2 * count)
        error = math.sqrt(2 * pooled * (1 - pooled) / count)
        return 2 * (1 - NormalDist().cdf(abs(sum(new) - sum(used)) / count / error)) if error else 1.0

    return _comparing(development, test, baseline, p_value=judge)


@compare_prompts.misconception(_("a one-sided test: half the p-value"))
def one_sided(development: Results, test: Results, baseline: str) -> Any:
    return _comparing(development, test, baseline, p_value=lambda gained, lost, _u, _n: _tail(gained, lost))


@compare_prompts.misconception(_("twice the tail without a limit: a probability above one"))
def above_one(development: Results, test: Results, baseline: str) -> Any:
    return _comparing(development, test, baseline, p_value=lambda gained, lost, _u, _n: 2 * _tail(gained, lost))


@compare_prompts.misconception(_("all items tossed, also those on which both prompts agree"))
def all_items(development: Results, test: Results, baseline: str) -> Any:
    return _comparing(
        development, test, baseline, p_value=lambda gained, lost, used, _n: _mcnemar(gained, len(used) - gained)
    )


@compare_prompts.misconception(_("McNemar's approximation by chi-squared, which needs more disagreements than these"))
def chi_squared(development: Results, test: Results, baseline: str) -> Any:
    def judge(gained: int, lost: int, _used: list[bool], _new: list[bool]) -> float:
        distance = abs(gained - lost) / math.sqrt(gained + lost) if gained + lost else 0.0
        return 2 * (1 - NormalDist().cdf(distance))

    return _comparing(development, test, baseline, p_value=judge)


@compare_prompts.misconception(_("gained and lost swapped"))
def swapped(development: Results, test: Results, baseline: str) -> Any:
    right = _comparing(development, test, baseline)
    return replace(right, gained=right.lost, lost=right.gained)


@compare_prompts.misconception(_("right answers of each prompt counted, instead of the items on which they disagree"))
def right_answers(development: Results, test: Results, baseline: str) -> Any:
    right = _comparing(development, test, baseline)
    return replace(right, gained=sum(test[right.chosen]), lost=sum(test[baseline]))
