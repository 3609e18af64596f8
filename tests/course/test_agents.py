"""What is special about agents: schemas in any style, errors that say little, a real MCP server in demonstrations."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from kicourse.checks import agents as check
from kicourse.models import gpt
from tests.course.alternatives import agents as honest
from tests.course.demonstrations import demonstrated


def failed(verdict: Any) -> list[str]:
    return [result.name for result in verdict.criteria if result.status != "passed"]


@pytest.mark.long
def test_a_mistake_costs_its_own_criterion_only() -> None:
    expected = {
        "defaults_required": "requires",
        "literal_lost": "says_types",
        "whole_docstring": "describes",
        "further_allowed": "forbids_further",
        "not_validated": "refuses_arguments",
        "type_missing": "catches",
        "tools_not_named": "refuses_nonsense",
        "any_length": "bounds_results",
        "first_id": "parallel",
        "first_only": "parallel",
        "message_omitted": "goes_on",
        "compared_as_text": "repeats",
        "one_more": "budgets",
        "outcomes_not_recorded": "records",
        "forgotten": "remembers",
        "all_refused": "only_reading",
        "confirmed_for_ever": "confirmation_counts_once",
        "unknown_reads": "refuses_unknown",
    }
    for task in (check.tool_schema, check.call_tool, check.run_agent, check.authorise):
        for wrong in task.misconceptions:
            if wrong.name in expected:
                assert failed(task.run(wrong.build())) == [expected.pop(wrong.name)], wrong.name
    assert not expected


def test_the_schema_as_text_is_told_what_is_wanted() -> None:
    import json

    verdict = check.tool_schema.run(lambda function: json.dumps(honest.tool_schema(function)))
    assert verdict.points == 0
    assert "You returned str, not dict" in verdict.criteria[0].message


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {"$ref": "x"}},
        {"type": "nonsense"},
        {"$ref": "#"},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"type": "object", "additionalProperties": {"$ref": "file:///etc/passwd"}},
        {"enum": ["x" * 30_000]},
    ],
)
def test_a_schema_that_is_none_fails_with_words(parameters: dict[str, Any]) -> None:
    def tool_schema(function: Any) -> Any:
        tool = honest.tool_schema(function)
        properties = tool["function"]["parameters"]["properties"]
        tool["function"]["parameters"] = {"properties": properties} | parameters
        return tool

    verdict = check.tool_schema.run(tool_schema)
    assert "forbids_further" in failed(verdict)
    assert not [result for result in verdict.criteria if "fault of its own" in result.message]


def test_an_agent_without_a_request_is_told_so() -> None:
    verdict = check.run_agent.run(lambda client, question, schemas, call, max_steps=8, max_tokens=8000: None)
    assert verdict.points == 0
    assert "No request arrived" in verdict.criteria[0].message


def test_an_agent_that_writes_its_messages_by_hand_is_diagnosed_too() -> None:
    """Nulls and the order of fields are a matter of taste, not of behaviour."""

    def by_hand(client: Any, question: str, schemas: Any, call: Any, max_steps: int = 8, max_tokens: int = 8000) -> Any:
        create = client.chat.completions.create
        chat = [{"content": "Use the tools.", "role": "system"}, {"content": question, "role": "user"}]
        steps: list[Any] = []
        while True:
            reply = create(messages=chat, model=gpt.MODEL, tools=schemas)
            said, tokens = reply.choices[0].message, reply.usage.total_tokens if reply.usage else 0
            if not said.tool_calls:
                return check._Run(said.content, "answered", [*steps, check._Step(tokens, [])])
            wanted = said.model_dump()["tool_calls"]
            chat.append({"tool_calls": wanted, "content": said.content, "role": "assistant"})
            done = []
            for one in wanted:
                name, arguments = one["function"]["name"], one["function"]["arguments"]
                outcome = call(name, arguments)
                done.append(check._ToolRecord(name, arguments, outcome))
                content = check._json(outcome)
                chat.append({"tool_call_id": wanted[0]["id"], "content": content, "role": "tool"})
            steps.append(check._Step(tokens, done))

    verdict = check.run_agent.run(by_hand)
    assert "parallel" in failed(verdict)
    assert "under the id of the first call" in verdict.diagnosis


def test_a_call_with_its_arguments_swapped_is_none() -> None:
    def swapped(client: Any, question: str, schemas: Any, call: Any, **limits: Any) -> Any:
        return honest.run_agent(client, question, schemas, lambda name, arguments: call(arguments, name), **limits)

    verdict = check.run_agent.run(swapped)
    assert "goes_on" in failed(verdict)


@pytest.mark.long
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_demonstration_runs_and_leaves_no_process(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    shown = demonstrated("agents", language, tmp_path, monkeypatch)
    assert len(shown.figures) == 4
    assert shown.figures[0].startswith("Ein Kreislauf") == (language == "de")
    assert "error: False, 5" in shown.printed  # what the MCP server said
    assert "stopped: repeated" in shown.printed
    assert not warehouses()


def warehouses() -> list[str]:
    """Return the processes of MCP servers that are still there, where the system tells."""
    if sys.platform != "linux":
        return []
    commands = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                commands.append((process / "cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return [command for command in commands if "warehouse.py" in command]
