"""What is special about structured_output: repairs, statistics against SciPy, and the real GPT in demonstrations."""

import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from kicourse.answers.probes import pydantic_model
from kicourse.checks import structured_output as check
from kicourse.models import gpt
from tests.course.alternatives import structured_output as honest
from tests.course.demonstrations import demonstrated


def failed(verdict: Any) -> list[str]:
    return [result.name for result in verdict.criteria if result.status != "passed"]


def test_the_probe_builds_a_model_with_its_constraints() -> None:
    model = pydantic_model(None, "Order", {"part": ("str", {"max_length": 3}), "quantity": ("int", {"ge": 1})})
    assert model(part="nut", quantity=1).model_dump() == {"part": "nut", "quantity": 1}
    for wrong in ({"part": "bolt", "quantity": 1}, {"part": "nut", "quantity": 0}, {"part": "nut"}):
        with pytest.raises(ValueError, match="1 validation error for Order"):
            model.model_validate(wrong)


@pytest.mark.usefixtures("undiagnosed")
def test_a_mistake_costs_its_own_criterion_only() -> None:
    expected = {
        "optional_without_default": "optional_serial",
        "null_refused": "optional_serial",
        "unknown_dropped": "refuses_unknown",
        "error_omitted": "repairs",
        "message_omitted": "shows_again",
        "untyped_failure": "gives_up",
        "catches_everything": "server_error",
        "leaks_near_copies": "no_near_leak",
        "wald": "right_interval",
        "transposed": "right_confusion",
        "one_sided": "right_p_value",
        "above_one": "no_difference",
        "selected_on_test": "chosen_on_development",
    }
    for task in (check.ticket, check.extract, check.few_shot_messages, check.evaluate, check.compare_prompts):
        for wrong in task.misconceptions:
            if wrong.name in expected:
                wanted = expected.pop(wrong.name)
                if wrong.name == "one_sided":  # half a p-value of 1 is wrong as well
                    assert failed(task.run(wrong.build())) == [wanted, "no_difference"]
                else:
                    assert failed(task.run(wrong.build())) == [wanted], wrong.name
    assert not expected


def test_a_ticket_by_hand_is_told_what_it_lets_through() -> None:
    class Loose(BaseModel):
        model_config = ConfigDict(extra="forbid")

        category: str
        priority: int = Field(ge=1, le=5)
        summary: str = Field(min_length=1, max_length=80)
        serial: str | None = Field(default=None, pattern="^HP-[0-9]{4}$")

    verdict = check.ticket.run(lambda: Loose)
    [result] = [result for result in verdict.criteria if result.status == "failed"]
    assert result.name == "refuses_values"
    assert "complaint" in result.message
    assert "any text" in verdict.diagnosis


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize("extra", ["allow", "ignore", "forbid"])
def test_a_ticket_without_fields_earns_nothing(extra: Any) -> None:
    class Anything(BaseModel):
        model_config = ConfigDict(extra=extra)

    assert check.ticket.run(lambda: Anything).points == 0


def matched(serial: str) -> str:
    if not re.match("^HP-[0-9]{4}$", serial):
        raise ValueError("no serial number")
    return serial


Stripped = Annotated[str, StringConstraints(strip_whitespace=True, pattern="^HP-[0-9]{4}$")]
Categories = Literal["leak", "noise", "electrical", "delivery", "other"]


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"serial": (str | None, {"default": None, "pattern": r"\bHP-[0-9]{4}\b"})}, "refuses_texts"),
        ({"serial": (str | None, {"default": None, "pattern": r"^HP-[0-9]{4}\b"})}, "refuses_texts"),
        ({"serial": (str | None, {"default": None, "pattern": "(?m)^HP-[0-9]{4}$"})}, "refuses_texts"),
        ({"serial": (Stripped | None, {"default": None})}, "refuses_texts"),
        ({"serial": (Annotated[str, AfterValidator(matched)] | None, {"default": None})}, "refuses_texts"),
        (
            {"category": (Annotated[Categories, BeforeValidator(lambda text: text and text.strip())], {})},
            "refuses_values",
        ),
        ({"serial": (str | None, {"default": None, "pattern": r"^HP-.{4}$"})}, "refuses_texts"),
        ({"serial": (str | None, {"default": None, "pattern": r"^HP-\w{4}$"})}, "refuses_texts"),
        (
            {"serial": (str | None, {"default": None, "pattern": "^HP-", "min_length": 7, "max_length": 7})},
            "refuses_texts",
        ),
        ({"category": (str, {"pattern": "^[abd-z][a-z]{3,9}$"})}, "refuses_values"),
        (
            {
                "extra": "ignore",
                "serial_number": (None, {"default": None, "exclude": True}),
                "customer": (None, {"default": None, "exclude": True}),
            },
            "refuses_unknown",
        ),
    ],
)
def test_a_ticket_that_is_nearly_right_is_not(changed: dict[str, Any], expected: str) -> None:
    for seed in range(10):
        assert failed(check.ticket.run(lambda: check._ticket_model(**changed), seed=seed)) == [expected]


@pytest.mark.parametrize("digits", [r"\d", "[0-9]"])
def test_a_ticket_with_its_digits_written_in_another_way_passes(digits: str) -> None:
    serial = (str | None, {"default": None, "pattern": f"^HP-{digits}{{4}}$"})
    assert check.ticket.run(lambda: check._ticket_model(serial=serial)).status == "passed"


@pytest.mark.parametrize(
    ("changed", "diagnosis"),
    [
        ({"category": (Literal["undicht", "Lärm"], {})}, "in other words"),
        ({"priority": (Literal["1", "2", "3", "4", "5"], {})}, ""),
        ({"priority": (int, {"ge": 2, "le": 4})}, ""),
        ({"priority": (int, {"ge": 0, "le": 5})}, ""),
        ({"serial": (str | None, {"default": None, "pattern": "^HP[0-9]{4}$"})}, ""),
        ({"summary": (str, {"max_length": 60, "min_length": 1})}, ""),
    ],
)
def test_a_ticket_is_not_said_to_have_a_fault_that_it_does_not_have(changed: dict[str, Any], diagnosis: str) -> None:
    verdict = check.ticket.run(lambda: check._ticket_model(**changed))
    assert verdict.status != "passed"
    assert diagnosis in verdict.diagnosis
    assert bool(diagnosis) == bool(verdict.diagnosis)
    [result, *_more] = [result for result in verdict.criteria if result.status == "failed"]
    assert "model_validate_json" in result.tried


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (None, "returns nothing"),
        ({}, "You returned dict"),
        (honest.ticket()(category="leak", priority=1, summary="x"), "an instance, not the class"),
    ],
)
def test_what_is_no_class_is_named(returned: Any, told: str) -> None:
    verdict = check.ticket.run(lambda: returned)
    assert verdict.points == 0
    assert told in verdict.criteria[0].message


def learners_extract(rounds: int = 2, *, explains: bool = True, returns: bool = True) -> Any:
    """Write an `extract` in words of its own, with a fault or without."""

    def extract(client: Any, message: str, schema: Any) -> Any:
        chat = [{"role": "system", "content": check.FORM}, {"role": "user", "content": message}]
        form = {"type": "json_schema", "json_schema": {"name": "form", "schema": schema.model_json_schema()}}
        for _round in range(rounds):
            reply = client.chat.completions.create(model=gpt.model(), messages=chat, response_format=form)
            content = reply.choices[0].message.content
            try:
                record = schema.model_validate_json(content)
                if returns:
                    return record
            except ValidationError as error:
                chat.append({"role": "assistant", "content": content})
                chat.append({"role": "user", "content": f"Oh no! {error if explains else ''}"})
        raise honest.ExtractionError

    return extract


def test_an_extract_is_diagnosed_whatever_its_prompts_say() -> None:
    assert check.extract.run(learners_extract()).status == "passed"
    assert "three rounds" in check.extract.run(learners_extract(rounds=3)).diagnosis
    assert "does not say what was wrong" in check.extract.run(learners_extract(explains=False)).diagnosis


def test_an_extract_that_never_repairs_is_told_so_and_nothing_about_the_server() -> None:
    verdict = check.extract.run(learners_extract(rounds=1))
    assert "no repair" in verdict.diagnosis
    messages = [result.message for result in verdict.criteria if result.status == "failed"]
    assert messages == ["The first reply was faulty, and your code did not ask again."] * 4


def test_an_extract_that_forgets_to_return_is_asked_about_it() -> None:
    verdict = check.extract.run(learners_extract(returns=False))
    assert "Does it return the instance?" in verdict.criteria[0].message


def test_the_last_examples_are_not_taken_for_all_of_them() -> None:
    def last(instructions: str, pool: Any, question: str, count: int) -> Any:
        good = [pair for pair in pool if check._key(pair[0]) != check._key(question)]
        return honest.few_shot_messages(instructions, good[-count:], question, len(pool))

    verdict = check.few_shot_messages.run(last)
    assert verdict.status != "passed"
    assert verdict.diagnosis == ""


def sends_names_only(schema: Any) -> Any:
    return {"properties": {name: {} for name in schema.model_fields}}


def requires_nothing(schema: Any) -> Any:
    return {name: value for name, value in schema.model_json_schema().items() if name != "required"}


def extracting(
    schema_of: Callable[[Any], Any] = lambda schema: schema.model_json_schema(),
    repair: Callable[..., Any] = lambda chat, reply, error: [*chat, reply, error],
    start: list[Any] | None = None,
) -> Any:
    """Build an `extract` that sends another schema, repairs in another way, or has a chat already."""

    def extract(client: Any, message: str, schema: Any) -> Any:
        chat = start or [{"role": "system", "content": check.FORM}, {"role": "user", "content": message}]
        form = {"type": "json_schema", "json_schema": {"name": "form", "schema": schema_of(schema)}}
        for _round in range(2):
            reply = client.chat.completions.create(model=gpt.model(), messages=chat, response_format=form)
            content = reply.choices[0].message.content
            try:
                return schema.model_validate_json(content)
            except ValidationError as error:
                chat = repair(
                    chat, {"role": "assistant", "content": content}, {"role": "user", "content": f"Mend it: {error}"}
                )
        raise honest.ExtractionError

    return extract


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (extracting(sends_names_only), "asks_for_schema"),
        (extracting(requires_nothing), "asks_for_schema"),
        (extracting(repair=lambda chat, reply, error: [error, reply, chat[1]]), "shows_again"),
        (extracting(repair=lambda chat, reply, error: [*chat[1:], reply, error]), "shows_again"),
        (extracting(repair=lambda chat, reply, error: [*chat, error, reply, error]), "shows_again"),
        (extracting(repair=lambda chat, reply, error: [*chat, reply, error | {"role": "system"}, chat[1]]), "repairs"),
    ],
)
def test_an_extract_sends_the_whole_schema_and_repairs_in_order(wrong: Any, expected: str) -> None:
    assert failed(check.extract.run(wrong)) == [expected]


def test_a_strict_schema_is_the_schema_too() -> None:
    def strict(schema: Any) -> Any:
        return schema.model_json_schema() | {"additionalProperties": False}

    assert check.extract.run(extracting(strict)).status == "passed"


def leaving_out(pool_key: Callable[[str], Any], question_key: Callable[[str], Any]) -> Any:
    """Build a `few_shot_messages` that compares in this way."""

    def few_shot_messages(instructions: str, pool: Any, question: str, count: int) -> Any:
        kept = [pair for pair in pool if pool_key(pair[0]) != question_key(question)]
        examples = [line for text, label in kept[:count] for line in (("user", text), ("assistant", label))]
        return check._chat([("system", instructions), *examples, ("user", question)])

    return few_shot_messages


def between_spaces(text: str) -> list[str]:
    return text.strip().casefold().split(" ")


def without_empty_words(text: str) -> list[str]:
    return [word for word in between_spaces(text) if word]


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    "wrong",
    [
        leaving_out(between_spaces, between_spaces),
        leaving_out(without_empty_words, without_empty_words),
        leaving_out(check._key, str.casefold),
        leaving_out(str.casefold, check._key),
        leaving_out(check._key, lambda text: text.casefold().strip()),
    ],
)
def test_spaces_and_line_breaks_are_nothing_on_either_side(wrong: Any) -> None:
    assert failed(check.few_shot_messages.run(wrong)) == ["no_near_leak"]


@pytest.mark.usefixtures("undiagnosed")
def test_an_interval_counts_failures_as_the_accuracy_does() -> None:
    def of_usable(truth: Any, predicted: Any, labels: Any) -> Any:
        usable = sum(answer in labels for answer in predicted)
        hits = sum(true == answer for true, answer in zip(truth, predicted, strict=True))
        return check._evaluating(truth, predicted, labels, interval=check._wilson(hits / usable, usable))

    [dropped] = [wrong for wrong in check.evaluate.misconceptions if wrong.name == "failures_dropped"]
    for seed in range(20):
        assert failed(check.evaluate.run(of_usable, seed=seed)) == ["right_interval"]
        assert failed(check.evaluate.run(dropped.build(), seed=seed)) == ["failures_count"]


def test_an_extract_without_a_request_is_told_so() -> None:
    verdict = check.extract.run(lambda client, message, schema: None)
    assert verdict.points == 0
    assert "No request arrived" in verdict.criteria[0].message


def test_an_extract_that_repairs_through_the_errors_json_passes() -> None:
    def terse(client: Any, message: str, schema: Any) -> Any:
        chat: list[Any] = [{"role": "system", "content": check.FORM}, {"role": "user", "content": message}]
        form = {"type": "json_schema", "json_schema": {"name": "form", "schema": schema.model_json_schema()}}
        for attempt in (1, 2):
            reply = client.chat.completions.create(model=gpt.model(), messages=chat, response_format=form)
            text = reply.choices[0].message.content
            try:
                return schema.model_validate_json(text)
            except ValidationError as error:
                if attempt == 2:
                    raise honest.ExtractionError from error
                chat += [{"role": "assistant", "content": text}, {"role": "user", "content": error.json()}]
        raise AssertionError

    assert check.extract.run(terse).status == "passed"


def test_the_examples_of_an_answer_that_changes_the_pool_are_noted() -> None:
    def greedy(instructions: str, pool: Any, question: str, count: int) -> Any:
        messages = honest.few_shot_messages(instructions, list(pool), question, count)
        pool.clear()
        return messages

    verdict = check.few_shot_messages.run(greedy)
    assert verdict.status == "passed"
    assert "`pool`" in verdict.notes[0]


@pytest.mark.parametrize(("right", "items"), [(0, 7), (33, 40), (39, 40), (16, 16), (500, 1000)])
def test_wilsons_interval_is_scipys(right: int, items: int) -> None:
    from scipy.stats import binomtest

    interval = binomtest(right, items).proportion_ci(method="wilson")
    assert check._wilson(right / items, items) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(("gained", "lost"), [(6, 0), (1, 1), (0, 0), (3, 9), (12, 2)])
def test_mcnemars_test_is_scipys(gained: int, lost: int) -> None:
    from scipy.stats import binomtest

    wanted = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert check._mcnemar(gained, lost) == pytest.approx(wanted)


def test_intervals_that_overlap_can_hide_a_clear_result() -> None:
    (_low, high), (low, _high) = check._wilson(33 / 40, 40), check._wilson(39 / 40, 40)
    assert low < high
    assert math.isclose(check._mcnemar(6, 0), 0.03125)


def sent_along() -> Any:
    chat: list[Any] = []

    def extract(client: Any, message: str, schema: Any) -> Any:
        def repair(messages: Any, *further: Any) -> Any:
            chat.extend(further)
            return chat

        del chat[:-2]  # the test would be slow with all of them
        chat.extend([{"role": "system", "content": check.FORM}, {"role": "user", "content": message}])
        return extracting(repair=repair, start=chat)(client, message, schema)

    return extract


def only_the_words(client: Any, message: str, schema: Any) -> Any:
    def repair(messages: Any, reply: str, error: Any) -> Any:
        said = "; ".join(fault["msg"] for fault in error.errors())
        return [*messages, ("assistant", reply), ("user", said)]

    return check._extracting(client, message, schema, repair=repair)


def strictly(client: Any, message: str, schema: Any) -> Any:
    return check._extracting(
        client, message, schema, read=lambda schema, reply: schema.model_validate_json(reply, strict=True)
    )


def shots(
    differs: Callable[[str, str], bool] = lambda text, question: check._key(text) != check._key(question),
    examples: Callable[[Any], Any] = list,
) -> Any:
    """Build a `few_shot_messages` that tells messages apart in this way, and makes this of its examples."""

    def few_shot_messages(instructions: str, pool: Any, question: str, count: int) -> Any:
        kept = examples([pair for pair in pool if differs(pair[0], question)])
        return check._chat(check._shots(instructions, kept[:count], question))

    return few_shot_messages


def never_empty(instructions: str, pool: Any, question: str, count: int) -> Any:
    texts, labels = zip(*pool, strict=True)
    return honest.few_shot_messages(instructions, list(zip(texts, labels, strict=True)), question, count)


def evaluating(meant: Callable[[str, Any], Any]) -> Any:
    """Build an `evaluate` that takes `meant(answer, labels)` for each answer."""

    def evaluate(truth: Any, predicted: Any, labels: Any) -> Any:
        return check._evaluating(truth, [answer and meant(answer, labels) for answer in predicted], labels)

    return evaluate


def never_a_single_item(truth: Any, predicted: Any, labels: Any) -> Any:
    statistics.stdev(true == answer for true, answer in zip(truth, predicted, strict=True))
    return honest.evaluate(truth, predicted, labels)


def labels_of_truth(truth: Any, predicted: Any, labels: Any) -> Any:
    return honest.evaluate(truth, predicted, list(dict.fromkeys(truth)))


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("task", "wrong", "expected"),
    [
        ("extract", sent_along(), "asks_for_schema"),
        ("extract", only_the_words, "repairs"),
        (
            "few_shot_messages",
            shots(lambda text, question: check._key(question) not in check._key(text)),
            "no_near_leak",
        ),
        (
            "few_shot_messages",
            shots(lambda text, question: check._key(text) not in check._key(question)),
            "no_near_leak",
        ),
        (
            "few_shot_messages",
            shots(lambda text, question: sorted(check._key(text).split()) != sorted(check._key(question).split())),
            "no_near_leak",
        ),
        (
            "few_shot_messages",
            shots(lambda text, question: check._key(text).strip("?") != check._key(question).strip("?")),
            "no_near_leak",
        ),
        ("few_shot_messages", shots(examples=lambda pairs: list(dict(pairs).items())), "takes_count"),
        (
            "few_shot_messages",
            shots(examples=lambda pairs: [(" ".join(text.split()), label) for text, label in pairs]),
            "takes_count",
        ),
        ("few_shot_messages", never_empty, "takes_count"),
        ("evaluate", labels_of_truth, "right_confusion"),
        ("evaluate", never_a_single_item, "right_interval"),
        ("evaluate", evaluating(lambda answer, _labels: answer.strip()), "failures_count"),
        ("evaluate", evaluating(lambda answer, _labels: answer.rstrip(".")), "failures_count"),
        (
            "evaluate",
            evaluating(lambda answer, labels: {label.upper(): label for label in labels}.get(answer.upper(), answer)),
            "failures_count",
        ),
        (
            "evaluate",
            evaluating(lambda answer, labels: next((label for label in labels if label.startswith(answer)), answer)),
            "failures_count",
        ),
    ],
)
def test_what_the_text_says_is_tried_where_it_is_rare(task: str, wrong: Any, expected: str) -> None:
    for seed in range(5):
        assert failed(getattr(check, task).run(wrong, seed=seed)) == [expected], seed


def test_a_number_in_quotation_marks_is_a_number() -> None:
    assert "asked again all the same" in check.extract.run(strictly).criteria[0].message


def test_scipys_interval_and_numpys_text_are_right_too() -> None:
    def scipys(truth: Any, predicted: Any, labels: Any) -> Any:
        from scipy.stats import binomtest

        right = sum(true == answer for true, answer in zip(truth, predicted, strict=True))
        interval = binomtest(right, len(truth)).proportion_ci(method="wilson")
        return honest.evaluate(truth, predicted, labels)._replace(interval=interval)

    def numpys(development: Any, test: Any, baseline: str) -> Any:
        names = np.array([name for name in development if name != baseline])
        best = names[np.argmax([sum(development[name]) for name in names])]
        challenger = {baseline: development[baseline], str(best): development[best]}
        result = honest.compare_prompts(challenger, test, baseline)
        return honest.Comparison(result.p_value, result.lost, result.gained, best)

    assert check.evaluate.run(scipys).status == "passed"
    assert check.compare_prompts.run(numpys).status == "passed"


def test_a_generator_of_messages_is_told_what_is_missing() -> None:
    def generator(*args: Any) -> Any:
        yield from honest.few_shot_messages(*args)

    assert "`list(...)` makes a list" in check.few_shot_messages.run(generator).criteria[0].message


@pytest.mark.long
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_demonstration_runs_with_the_embedded_gpt(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = demonstrated("structured_output", language, tmp_path, monkeypatch)
    assert len(shown.figures) == 5
    assert shown.figures[0].startswith("Ein Ablauf") == (language == "de")
