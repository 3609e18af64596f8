"""What is special about first_call: answers that remember too much, and demonstrations that talk to the real GPT."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest

from kicourse.checks import first_call as check
from kicourse.models import gpt
from tests.course.alternatives import first_call as honest
from tests.course.demonstrations import demonstrated


def test_an_ask_that_remembers_earlier_questions_loses_a_point() -> None:
    earlier: list[Any] = []

    def growing(client: Any, question: str, instructions: str = "") -> Any:
        earlier.extend([{"role": "system", "content": instructions}, {"role": "user", "content": question}])
        return client.chat.completions.create(model=gpt.model(), messages=earlier).choices[0].message.content

    verdict = check.ask.run(growing)
    assert [result.name for result in verdict.criteria if result.status == "failed"] == ["sends_nothing_else"]
    assert verdict.status == "partial"


def test_an_ask_that_asks_twice_is_told_so() -> None:
    def twice(client: Any, question: str, instructions: str = "") -> str:
        honest.ask(client, question, instructions)
        return honest.ask(client, question, instructions)

    verdict = check.ask.run(twice)
    assert verdict.points == 0
    assert "more than one request" in verdict.criteria[0].message


def test_an_ask_with_a_client_of_its_own_is_told_that_no_request_arrived() -> None:
    verdict = check.ask.run(lambda client, question, instructions="": "It depends.")
    assert "No request arrived" in verdict.criteria[0].message


def test_a_model_written_into_the_request_costs_a_little() -> None:
    def fixed(client: Any, question: str, instructions: str = "") -> Any:
        messages: Any = [{"role": "system", "content": instructions}, {"role": "user", "content": question}]
        return client.chat.completions.create(model="gpt-4o", messages=messages).choices[0].message.content

    verdict = check.ask.run(fixed)
    assert [result.name for result in verdict.criteria if result.status == "failed"] == ["asks_model"]
    assert verdict.status == "partial"


@pytest.mark.usefixtures("undiagnosed")
def test_a_mistake_costs_its_own_criterion_only() -> None:
    expected = {
        "not_rounded": "rounds_once",
        "details_expected": "missing_details",
        "reasoning_twice": "reasoning_once",
        "yields_none": "every_chunk",
        "breaks_without_choices": "every_chunk",
        "ends_at_reason": "every_chunk",
        "drops_space": "keeps_space",
        "RemembersTooEarly": "no_trace",
    }
    for task in (check.cost, check.stream, check.conversation):
        for wrong in task.misconceptions:
            if wrong.name in expected:
                failed = [result.name for result in task.run(wrong.build()).criteria if result.status != "passed"]
                assert failed == [expected.pop(wrong.name)], wrong.name
    assert not expected


def to_the_cent_where_cached(usage: Any, prices: Any) -> Any:
    fresh, cached, _reasoning = check._counts(usage)
    cents = Decimal(round(float(cached) * float(prices["cached_input"]) / 1e6, 2))
    rest = check._dollars(usage, prices, fresh, 0, usage.completion_tokens)
    return check._rounded(rest + cents)


def floats_where_cached(usage: Any, prices: Any) -> Any:
    fresh, cached, _reasoning = check._counts(usage)
    rest = check._dollars(usage, prices, fresh, 0, usage.completion_tokens)
    return check._rounded(rest + Decimal(cached * float(prices["cached_input"]) / 1e6))


def to_the_cent_where_it_thinks(usage: Any, prices: Any) -> Any:
    _fresh, _cached, reasoning = check._counts(usage)
    return round(check._right(usage, prices), 2) if reasoning else check._rounded(check._right(usage, prices))


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize("wrong", [to_the_cent_where_cached, floats_where_cached, to_the_cent_where_it_thinks])
def test_a_cost_is_exact_with_cached_and_reasoning_tokens_too(wrong: Any) -> None:
    for seed in range(10):
        verdict = check.cost.run(wrong, seed=seed)
        assert [result.name for result in verdict.criteria if result.status != "passed"] == ["rounds_once"]


@pytest.mark.usefixtures("undiagnosed")
def test_tokens_that_are_charged_wrongly_are_no_fault_of_the_rounding() -> None:
    expected = {
        "cached_twice": "cached_once",
        "cached_like_fresh": "cached_once",
        "cached_free": "cached_once",
        "reasoning_free": "reasoning_once",
    }
    for wrong in check.cost.misconceptions:
        for seed in range(10 if wrong.name in expected else 0):
            verdict = check.cost.run(wrong.build(), seed=seed)
            failed = [result.name for result in verdict.criteria if result.status != "passed"]
            assert failed == [expected[wrong.name]], wrong.name


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(("task", "expected"), [("stream", "same_messages"), ("conversation", "no_gap")])
def test_another_model_costs_a_criterion(task: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(honest._SETTINGS, "model", "no-such-model")
    verdict = getattr(check, task).run(getattr(honest, task))
    [failed] = [result for result in verdict.criteria if result.status != "passed"]
    assert failed.name == expected
    assert "another model" in failed.message


def test_a_precision_that_is_enough_is_enough() -> None:
    from decimal import localcontext

    def careful(usage: Any, prices: Any) -> Any:
        with localcontext(prec=12):
            return honest.cost(usage, prices)

    assert check.cost.run(careful).status == "passed"


def test_a_stream_that_asks_eagerly_passes_too() -> None:
    def eager(client: Any, question: str, instructions: str = "") -> Any:
        messages: Any = [{"role": "system", "content": instructions}, {"role": "user", "content": question}]
        chunks = client.chat.completions.create(model=gpt.model(), messages=messages, stream=True)
        texts = (choice.delta.content for chunk in chunks for choice in chunk.choices)
        return (piece for piece in texts if piece)

    assert check.stream.run(eager).status == "passed"


def test_who_collects_first_is_told_where_the_stream_stood_still() -> None:
    def collects(client: Any, question: str, instructions: str = "") -> Any:
        return iter(list(honest.stream(client, question, instructions)))

    [failed] = [result for result in check.stream.run(collects).criteria if result.status == "failed"]
    assert failed.name == "as_it_arrives"
    assert "wanted one more before it handed on piece 1" in failed.message


def test_a_stream_that_forgot_to_ask_for_one_is_told_so() -> None:
    def forgetful(client: Any, question: str, instructions: str = "") -> Any:
        messages: Any = [{"role": "system", "content": instructions}, {"role": "user", "content": question}]
        for chunk in client.chat.completions.create(model=gpt.model(), messages=messages):
            yield chunk.choices[0].delta.content

    assert "did not ask for a stream" in check.stream.run(forgetful).criteria[0].message


def test_a_question_kept_before_its_answer_came_is_named_whatever_the_style() -> None:
    class Hasty:
        def __init__(self, client: Any, instructions: str, budget: int, count_tokens: Any) -> None:
            self.client, self.budget, self.count_tokens = client, budget, count_tokens
            self.messages: list[Any] = [{"role": "system", "content": instructions}]

        def ask(self, question: str) -> Any:
            self.messages.append({"role": "user", "content": question})
            if self.tokens(self.messages[:1]) + self.tokens(self.messages[-1:]) > self.budget:
                raise ValueError("too long")
            while self.tokens(self.messages) > self.budget:
                del self.messages[1:3]
            reply = self.client.chat.completions.create(model=gpt.model(), messages=self.messages)
            self.messages.append({"role": "assistant", "content": reply.choices[0].message.content})
            return reply.choices[0].message.content

        def tokens(self, messages: list[Any]) -> Any:
            return sum(self.count_tokens(message["content"]) for message in messages)

    verdict = check.conversation.run(Hasty)
    [failed] = [result for result in verdict.criteria if result.status == "failed"]
    assert failed.name == "no_trace"
    assert "user: Q2" in failed.message
    assert "before it has got an answer" in verdict.diagnosis


def test_two_conversations_at_once_do_not_disturb_each_other() -> None:
    class Gossip(honest.conversation):
        shared: list[Any] = []  # noqa: RUF012

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._turns = self.shared

    verdict = check.conversation.run(Gossip)
    assert verdict.points == 0
    assert "all conversations" in verdict.diagnosis


def asked(client: Any, instructions: str, question: str, **options: Any) -> Any:
    messages: Any = [{"role": "system", "content": instructions}, {"role": "user", "content": question}]
    return client.chat.completions.create(model=gpt.model(), messages=messages, **options)


def first_line_of_reply(client: Any, question: str, instructions: str = "") -> Any:
    return asked(client, instructions, question).choices[0].message.content.splitlines()[0]


def squeezed_question(client: Any, question: str, instructions: str = "") -> Any:
    return honest.ask(client, " ".join(question.split()), instructions)


def first_line_of_instructions(client: Any, question: str, instructions: str = "") -> Any:
    return honest.ask(client, question, instructions.partition("\n")[0])


def without_a_default(client: Any, question: str, instructions: str) -> Any:
    return honest.ask(client, question, instructions)


def from_memory() -> Any:
    known: dict[str, Any] = {}

    def ask(client: Any, question: str, instructions: str = "") -> Any:
        known[question] = known.get(question) or honest.ask(client, question, instructions)
        return known[question]

    return ask


def output_by_subtraction(usage: Any, prices: Any) -> Any:
    fresh, cached, _reasoning = check._counts(usage)
    return check._rounded(check._dollars(usage, prices, fresh, cached, usage.total_tokens - usage.prompt_tokens))


def cached_for_a_quarter(usage: Any, prices: Any) -> Any:
    return check._rounded(check._right(usage, prices | {"cached_input": prices["input"] / 4}))


def at_least_something(usage: Any, prices: Any) -> Any:
    return max(Decimal("0.0001"), check._rounded(check._right(usage, prices)))


def rounded_twice(usage: Any, prices: Any) -> Any:
    return check._rounded(round(check._right(usage, prices), 6))


def stream_without_a_default(client: Any, question: str, instructions: str) -> Any:
    return honest.stream(client, question, instructions)


def stripped_at_the_start(client: Any, question: str, instructions: str = "") -> Any:
    started = False
    for piece in honest.stream(client, question, instructions):
        started = started or bool(piece.strip())
        if started:
            yield piece


def without_tabs(client: Any, question: str, instructions: str = "") -> Any:
    return (piece.replace("\t", " ") for piece in honest.stream(client, question, instructions))


def without_zeros(client: Any, question: str, instructions: str = "") -> Any:
    return (piece for piece in honest.stream(client, question, instructions) if piece != "0")


class EachQuestionOnce(check._Memory):
    """Keeps the exchanges in a dict, by question."""

    def ask(self, question: str) -> Any:
        reply = super().ask(question)
        self.exchanges = list(dict(self.exchanges).items())
        return reply


class AnswersFromMemory(check._Memory):
    def ask(self, question: str) -> Any:
        return dict(self.exchanges).get(question) or super().ask(question)


class CountsAllAsOneText(check._Memory):
    def kept(self, room: int) -> Any:
        texts = [[text for exchange in self.exchanges[start:] for text in exchange] for start in range(99)]
        fits = (self.count_tokens(" ".join(kept)) <= room for kept in texts)
        return self.exchanges[list(fits).index(True) :]


class TenAtMost(check._Memory):
    def kept(self, room: int) -> Any:
        return super().kept(room)[-10:]


class WrapsErrors(check._Memory):
    def complete(self, messages: Any) -> Any:
        try:
            return super().complete(messages)
        except openai.APIStatusError:
            raise openai.OpenAIError("the server failed") from None


def one_memory_emptied_by_each() -> Any:
    memory: list[Any] = []

    class Shared(check._Memory):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            memory.clear()
            self.exchanges = memory

    return Shared


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("task", "wrong", "expected"),
    [
        ("ask", first_line_of_reply, "returns_text"),
        ("ask", squeezed_question, "sends_question"),
        ("ask", first_line_of_instructions, "sends_instructions"),
        ("ask", without_a_default, "sends_instructions"),
        ("ask", from_memory(), "sends_nothing_else"),
        ("cost", output_by_subtraction, "missing_details"),
        ("cost", cached_for_a_quarter, "cached_once"),
        ("cost", at_least_something, "rounds_once"),
        ("cost", rounded_twice, "rounds_once"),
        ("stream", stream_without_a_default, "same_messages"),
        ("stream", stripped_at_the_start, "keeps_space"),
        ("stream", without_tabs, "keeps_space"),
        ("stream", without_zeros, "keeps_space"),
        ("conversation", EachQuestionOnce, "no_gap"),
        ("conversation", AnswersFromMemory, "no_gap"),
        ("conversation", CountsAllAsOneText, "inside_budget"),
        ("conversation", TenAtMost, "inside_budget"),
        ("conversation", WrapsErrors, "no_trace"),
        ("conversation", one_memory_emptied_by_each(), "remembers"),
    ],
)
def test_what_the_text_says_is_tried_where_it_is_rare(task: str, wrong: Any, expected: str) -> None:
    for seed in range(5):
        verdict = getattr(check, task).run(wrong, seed=seed)
        assert [result.name for result in verdict.criteria if result.status == "failed"] == [expected], verdict


def test_who_collects_and_returns_nothing_is_told_so() -> None:
    def collects(client: Any, question: str, instructions: str = "") -> Any:
        _pieces = list(honest.stream(client, question, instructions))

    verdict = check.stream.run(collects)
    assert "returned `None`" in verdict.criteria[0].message
    assert "prints or collects" in verdict.diagnosis


@pytest.mark.long
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_demonstration_runs_with_the_embedded_gpt(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = demonstrated("first_call", language, tmp_path, monkeypatch)
    assert len(shown.figures) == 5
    assert [text.startswith("Balken") for text in shown.figures[:2]] == [language == "de"] * 2
