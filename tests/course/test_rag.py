"""What is special about rag: forged sources, gates before the model, and a measure that is measured."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kicourse.checks import rag as check
from kicourse.checks.help import reference_source
from kicourse.models import gpt
from kicourse.syllabus import course
from tests.course.alternatives import rag as honest
from tests.course.conftest import code_cells
from tests.course.demonstrations import demonstrated


def failed(verdict: Any) -> list[str]:
    return [result.name for result in verdict.criteria if result.status != "passed"]


@pytest.mark.usefixtures("undiagnosed")
def test_a_mistake_costs_its_own_criterion_only() -> None:
    expected = {
        "marks_forged": "no_forged_marks",
        "instructions_changed": "no_forged_marks",
        "counted_as_one": "within_budget",
        "counted_before": "stays_on_line",
        "lines_forged": "stays_on_line",
        "instructions_not_counted": "within_budget",
        "changed_listed": "best_kept",
        "parts_added": "best_kept",
        "too_long_sent": "question_too_long",
        "unknown_accepted": "unknown_refused",
        "sorted_numbers": "once_in_order",
        "any_digits": "other_numbers",
        "last_of_group": "every_way",
        "asks_without_source": "no_source",
        "wrong_score": "good_hits_only",
        "looked_up_in_all": "good_hits_only",
        "own_threshold": "good_hits_only",
        "found_not_shown": "unverified",
        "reply_believed": "unverified",
        "trimmed": "reply_unchanged",
        "catches_everything": "server_error",
        "catches_too_long": "server_error",
        "dot_product": "any_length",
        "zeros_divided": "nothing_to_measure",
        "empty_embedded": "nothing_to_measure",
        "full_stops_only": "inside_long_source",
        "sources_joined": "inside_long_source",
    }
    for task in (check.build_prompt, check.cited_sources, check.answer, check.faithfulness):
        for wrong in task.misconceptions:
            if wrong.name in expected:
                assert failed(task.run(wrong.build())) == [expected.pop(wrong.name)], wrong.name
    assert not expected


CITATIONS = r'r"\[ *([0-9]+(?: *, *[0-9]+)*) *\]"'
PARTS = r'[p for b in re.findall(r"\[([^][]*)\]", reply) for p in b.split(",") if re.fullmatch(" *[0-9]+ *", p)]'

NUMBERED_BY_INDEX = "in ((sources.index(text) + 1, text) for text in sources[:shown])"
FIRST_PAIR = '.replace("[", "(", 1).replace("]", ")", 1)'
GLUED = '[{"role": "user", "content": "\\n".join(message["content"] for message in prompt.messages)}]'
UNNUMBERED = '[m | {"content": re.sub(r"(?m)^\[[0-9]+\] ", "", m["content"])} for m in prompt.messages]'
WITH_MARKS = r'[sentence for sentence in re.split(r"(?<=[.!?])\s+", answer.strip()) if sentence]'
SWALLOWED = """try:
        directions(claims), directions(evidence)
    except ValueError:"""


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("task", "before", "after", "criterion"),
    [
        (
            "build_prompt",
            "count_tokens(instructions) + count_tokens(user) <= budget",
            "count_tokens(instructions) * bool(shown) + count_tokens(user) <= budget",
            "question_too_long",
        ),
        ("cited_sources", f"re.findall({CITATIONS}, reply)", PARTS, "other_numbers"),
        ("build_prompt", "in enumerate(sources[:shown], start=1)", NUMBERED_BY_INDEX, "no_forged_marks"),
        ("build_prompt", "for shown", "sources = list(dict.fromkeys(sources))\n    for shown", "no_forged_marks"),
        ("build_prompt", '.replace("[", "(").replace("]", ")")', FIRST_PAIR, "no_forged_marks"),
        ("build_prompt", "for shown", "sources[0]\n    for shown", "best_kept"),
        ("build_prompt", '" ".join(text.split())', r're.sub(r"[ \t\r\n\u2028]+", " ", text).strip()', "stays_on_line"),
        ("cited_sources", CITATIONS, CITATIONS.replace(r" *\]", r" *,? *\]"), "other_numbers"),
        ("cited_sources", CITATIONS, CITATIONS.replace(r"\[ *", r"\[[ ,]*"), "other_numbers"),
        ("cited_sources", CITATIONS, CITATIONS.replace(r"\[ *", r"\[ *#?"), "other_numbers"),
        (
            "cited_sources",
            CITATIONS,
            CITATIONS.replace(r"\[ *", r"[\[【] *").replace(r"*\]", r"*[\]】]"),
            "other_numbers",
        ),
        ("cited_sources", CITATIONS, CITATIONS.replace(r"*, *", r"*,[, ]*"), "other_numbers"),
        *(
            ("cited_sources", f"{CITATIONS}, reply", f"{CITATIONS}, {separated}", "other_numbers")
            for separated in ('reply.replace(";", ",")', r're.sub("(?<=[0-9])[-.](?=[0-9])", ",", reply)')
        ),
        ("cited_sources", CITATIONS, CITATIONS.replace(")*)", "){0,3})"), "every_way"),
        ("answer", "model=MODEL", 'model="no-such-model"', "good_hits_only"),
        ("answer", "= prompt.messages", "= prompt.messages[-1:]", "good_hits_only"),
        ("answer", "build_prompt(INSTRUCTIONS,", 'build_prompt("Be kind.",', "good_hits_only"),
        ("answer", "= prompt.messages", f"= {GLUED}", "good_hits_only"),
        ("answer", "= prompt.messages", f"= {UNNUMBERED}", "good_hits_only"),
        ("answer", "= prompt.messages", "= HISTORY.extend(prompt.messages) or list(HISTORY)", "good_hits_only"),
        ("answer", ">= threshold]", ">= threshold][:3]", "good_hits_only"),
        ("answer", "[prompt.sources[number - 1]", "[harmless(prompt.sources[number - 1])", "reply_unchanged"),
        ("faithfulness", "claims = sentences(answer)", "claims = list(set(sentences(answer)))", "nothing_to_measure"),
        ("faithfulness", "claims = sentences(answer)", f"claims = {WITH_MARKS}", "inside_long_source"),
        ("faithfulness", "if not claims or not evidence:", SWALLOWED, "nothing_to_measure"),
    ],
)
def test_a_branch_that_goes_wrong_costs_its_own_criterion_only(
    task: str, before: str, after: str, criterion: str
) -> None:
    for seed in range(3):
        assert failed(getattr(check, task).run(changed(task, before, after), seed=seed)) == [criterion]


def changed(task: str, before: str, after: str) -> Any:
    """Build the unit's own solution with one change."""
    source = reference_source("rag", task, "en")
    assert source.count(before) == 1
    namespace: dict[str, Any] = {name: getattr(check, name) for name in ("INSTRUCTIONS", "BUDGET", "NOT_FOUND", "Hit")}
    namespace |= {name: getattr(honest, name) for name in ("cited_sources", "CitationError")}
    namespace |= {"build_prompt": check._building, "Prompt": check._Prompt, "Answer": check._Answer, "MODEL": gpt.MODEL}
    namespace |= {"estimate_tokens": check._count_quarters, "sentences": check._split, "harmless": check._harmless}
    namespace |= {"np": np, "HISTORY": [], "__name__": "notebook"}
    exec("import re\nfrom collections.abc import *\nfrom typing import *\nfrom openai import OpenAI", namespace)
    exec(source.replace(before, after), namespace)
    return namespace[task]


def test_the_checks_know_the_notebooks_words() -> None:
    words = [
        f'"{check.NOT_FOUND}"',
        f"BUDGET = {check.BUDGET}\n",
        f"THRESHOLD = {check.THRESHOLD}\n",
        *check.INSTRUCTIONS.split(". "),
    ]
    cells = "\n".join(code_cells(course().unit("rag").exercise("en"))).replace('"\n    "', "")
    assert [word for word in words if word not in cells] == []


def test_a_forged_source_is_shown_where_it_differs() -> None:
    def naive(instructions: str, question: str, sources: list[str], budget: int, count: Any) -> Any:
        right = honest.build_prompt(instructions, question, [], budget, count)
        lines = [f"[{number}] {source}" for number, source in enumerate(sources, start=1)]
        right.messages[1]["content"] = "\n".join([*lines, f"Question: {question}"])
        return honest.Prompt(sources, right.messages)

    verdict = check.build_prompt.run(naive)
    [result] = [result for result in verdict.criteria if result.name == "no_forged_marks"]
    assert "(2)" in result.expected
    assert "[2]" in result.got


@pytest.mark.parametrize(("change", "name", "words"), [
    ("refused", "within_budget", "That fits: with 0 of 7 sources"),
    ("none", "question_too_long", "must raise ValueError"),
    ("longer", "numbers_sources", "goes on after the question, with '\\n'"),
    ("cleaned", "best_kept", "as they were given; these were changed"),
])  # fmt: skip
def test_a_prompt_with_a_fault_is_told_which(change: str, name: str, words: str) -> None:
    def faulty(instructions: str, question: str, sources: list[str], budget: int, count: Any) -> Any:
        try:
            right = honest.build_prompt(instructions, question, sources, budget - (change == "refused"), count)
        except ValueError:
            if change == "none":
                return None
            raise
        shown = [honest._plain(source) if change == "cleaned" else source for source in right.sources]
        user = "".join(part["text"] for part in right.messages[1]["content"]) + "\n" * (change == "longer")
        return honest.Prompt(shown, [right.messages[0], {"role": "user", "content": user}])

    [result] = [result for result in check.build_prompt.run(faulty).criteria if result.name == name]
    assert words in result.message


@pytest.mark.parametrize(("budget", "count"), [(300, lambda text: -(-len(text) // 4)), (600, len)])
def test_an_answer_that_leaves_the_budget_unused_is_told_so(
    budget: int, count: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = honest.build_prompt

    def thrifty(instructions: str, question: str, sources: list[str], _budget: int, _count: Any) -> Any:
        return build(instructions, question, sources, budget, count)

    monkeypatch.setattr(honest, "build_prompt", thrifty)
    verdict = check.answer.run(honest.answer)
    assert failed(verdict) == ["good_hits_only"]
    assert "`BUDGET`" in verdict.criteria[2].message


def test_a_similarity_below_zero_is_no_support() -> None:
    def unsigned(answer: str, sources: list[str], embed: Any, threshold: float) -> Any:
        def share(similarities: Any, low: float) -> Any:
            return (abs(similarities).max(axis=1) >= low).mean()

        return check._measuring(answer, sources, embed, threshold, share=share)

    assert "share_supported" in failed(check.faithfulness.run(unsigned))


def test_an_answer_whose_prompt_has_a_fault_of_its_own_loses_nothing() -> None:
    """Too long a source, shown all the same, is the fault of `build_prompt`; `answer` is judged by what it does."""

    def answer(client: Any, question: str, retrieve: Callable[[str], Any], threshold: float) -> Any:
        good = [hit["text"] for hit in retrieve(question) if hit["similarity"] >= threshold]
        if not good:
            return honest.Answer(outcome="not_found")
        messages = honest._messages(honest.INSTRUCTIONS, question, good)
        reply = client.chat.completions.create(model=gpt.MODEL, messages=messages).choices[0].message.content
        try:
            numbers = honest.cited_sources(reply, len(good))
        except honest.CitationError:
            return honest.Answer(outcome="unverified")
        return honest.Answer(outcome="answered", text=reply, sources=tuple(good[number - 1] for number in numbers))

    assert failed(check.answer.run(answer)) == []


def test_an_answer_without_a_request_is_told_so() -> None:
    def silent(client: Any, question: str, retrieve: Callable[[str], Any], threshold: float) -> Any:
        retrieve(question)
        return honest.Answer(outcome="not_found")

    verdict = check.answer.run(silent)
    assert verdict.points == 0
    assert "sent by your code: 0" in verdict.criteria[0].message


def test_an_answer_that_waits_for_another_task_is_told_so() -> None:
    def waiting(client: Any, question: str, retrieve: Callable[[str], Any], threshold: float) -> Any:
        retrieve(question)
        raise NotImplementedError

    verdict = check.answer.run(waiting)
    assert verdict.status == "failed"
    assert "`build_prompt` or `cited_sources`" in verdict.criteria[0].message


def test_a_failed_answer_shows_what_was_found_and_replied() -> None:
    [wrong] = [wrong for wrong in check.answer.misconceptions if wrong.name == "all_sources"]
    message = check.answer.run(wrong.build()).criteria[0].message
    assert "0.80 " in message
    assert "[1]." in message


def test_an_empty_list_is_called_one() -> None:
    [wrong] = [wrong for wrong in check.faithfulness.misconceptions if wrong.name == "empty_embedded"]
    message = check.faithfulness.run(wrong.build()).criteria[-1].message
    assert "empty list" in message


def test_an_answer_that_blocks_is_told_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.cited_sources, "seconds", 0.2)

    def endless(reply: str, count: int) -> Any:
        while reply:
            pass

    result = check.cited_sources.run(endless).criteria[0]
    assert "did not come back" in result.message


def test_faithfulness_may_embed_one_sentence_at_a_time_and_return_any_number() -> None:
    assert failed(check.faithfulness.run(honest.faithfulness)) == []


def test_the_made_up_embedder_behaves_like_one() -> None:
    meaning = check._Meaning(np.random.default_rng(0), ["A1", "B2", "C3"], {"D4": (1, 0.8)})
    one, two, mean, unknown = meaning.embed(["A1.", "D4.", "A1. B2.", "Z9."])
    assert one @ two == pytest.approx(0)
    assert two @ meaning.embed(["B2"])[0] == pytest.approx(0.8)
    assert one @ mean / np.linalg.norm(mean) == pytest.approx(math.sqrt(0.5))
    assert not unknown.any()


@pytest.mark.long
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_demonstration_runs_with_the_embedded_models(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = demonstrated("rag", language, tmp_path, monkeypatch)
    assert len(shown.figures) == 4
    assert shown.figures[0].startswith("Ein Ablauf") == (language == "de")
