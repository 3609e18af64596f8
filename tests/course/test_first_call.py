"""What is special about first_call: answers that remember too much, and demonstrations that talk to the real GPT."""

from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from kicourse.checks import first_call as check
from kicourse.models import gpt
from kicourse.syllabus import course
from tests.course.alternatives import first_call as honest


def test_an_ask_that_remembers_earlier_questions_loses_a_point() -> None:
    earlier: list[Any] = []

    def growing(client: Any, question: str, instructions: str = "") -> Any:
        earlier.extend([{"role": "system", "content": instructions}, {"role": "user", "content": question}])
        return client.chat.completions.create(model="m", messages=earlier).choices[0].message.content

    verdict = check.ask.run(growing)
    assert [result.name for result in verdict.criteria if result.status == "failed"] == ["sends_nothing_else"]
    assert verdict.status == "partial"


def test_an_ask_that_asks_twice_is_told_so() -> None:
    def twice(client: Any, question: str, instructions: str = "") -> str:
        honest.ask(client, question, instructions)
        return honest.ask(client, question, instructions)

    assert check.ask.run(twice).points == 0


def test_a_precision_that_is_enough_is_enough() -> None:
    from decimal import localcontext

    def careful(usage: Any, prices: Any) -> Any:
        with localcontext(prec=12):
            return honest.cost(usage, prices)

    assert check.cost.run(careful).status == "passed"


def test_a_stream_that_asks_eagerly_passes_too() -> None:
    def eager(client: Any, question: str, instructions: str = "") -> Any:
        messages: Any = [{"role": "system", "content": instructions}, {"role": "user", "content": question}]
        chunks = client.chat.completions.create(model="m", messages=messages, stream=True)
        texts = (choice.delta.content for chunk in chunks for choice in chunk.choices)
        return (piece for piece in texts if piece)

    assert check.stream.run(eager).status == "passed"


def test_who_collects_first_is_told_where_the_stream_stood_still() -> None:
    def collects(client: Any, question: str, instructions: str = "") -> Any:
        return iter(list(honest.stream(client, question, instructions)))

    [failed] = [result for result in check.stream.run(collects).criteria if result.status == "failed"]
    assert failed.name == "as_it_arrives"
    assert "wanted the next one first" in failed.message


def test_two_conversations_at_once_do_not_disturb_each_other() -> None:
    class Gossip(honest.conversation):
        shared: list[Any] = []  # noqa: RUF012

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._turns = self.shared

    verdict = check.conversation.run(Gossip)
    assert verdict.points == 0
    assert "all conversations" in verdict.diagnosis


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_demonstration_runs_with_the_embedded_gpt(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KICOURSE_LANG", language)
    monkeypatch.setenv("KICOURSE_RECORD", "0")
    notebook = nbformat.read(course().unit("first_call").solution(language), as_version=4)
    folder = {"metadata": {"path": str(tmp_path)}}
    with gpt.running():  # the kernel inherits where it is
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=folder).execute()
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    figures = [data["text/plain"] for data in shown if "<img" in data.get("text/html", "")]
    assert len(figures) == 5
    assert [text.startswith("Balken") for text in figures[:2]] == [language == "de"] * 2
