"""What is special about agents: schemas in any style, errors that say little, a real MCP server in demonstrations."""

import ast
import enum
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import validate_call

from kicourse.checks import agents as check
from kicourse.checks.help import reference_source
from kicourse.models import gpt
from tests.course.alternatives import agents as honest
from tests.course.demonstrations import demonstrated


def failed(verdict: Any) -> list[str]:
    return [result.name for result in verdict.criteria if result.status != "passed"]


@pytest.mark.long
@pytest.mark.usefixtures("undiagnosed")
def test_a_mistake_costs_its_own_criterion_only() -> None:
    expected = {
        "defaults_required": "requires",
        "literal_lost": "says_types",
        "whole_docstring": "describes",
        "cut_at_colon": "describes",
        "split_at_last_colon": "describes",
        "further_allowed": "forbids_further",
        "not_validated": "refuses_arguments",
        "type_missing": "catches",
        "traceback_end": "catches",
        "tools_not_named": "refuses_nonsense",
        "any_length": "bounds_results",
        "measured_as_str": "bounds_results",
        "first_id": "parallel",
        "first_only": "parallel",
        "message_omitted": "goes_on",
        "compared_as_text": "repeats",
        "without_name": "repeats",
        "only_last_step": "repeats",
        "tokens_above": "budgets",
        "limit_sent": "budgets",
        "error_swallowed": "budgets",
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
        chat = [{"content": check.INSTRUCTIONS, "role": "system"}, {"content": question, "role": "user"}]
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


@pytest.mark.parametrize(
    ("task", "before", "after", "diagnosis"),
    [
        ("run_agent", "json.dumps(json.loads(wanted.arguments), sort_keys=True)", "wanted.arguments", "as text"),
        ("run_agent", "made |= keys", "made = keys", "with the step before alone"),
        ("run_agent", "return wanted.name, json.dumps", 'return "", json.dumps', "without the tool's name"),
        ("run_agent", ">= max_tokens", "> max_tokens", "reached is enough"),
        ("run_agent", "sum(step.tokens for step in steps)", "tokens", "only the last reply's tokens"),
        ("run_agent", "json.dumps(record.outcome, ensure_ascii=False)", "str(record.outcome)", "Python's `str()`"),
        ("run_agent", 'return Run(None, "repeated", steps)', "pass", "repeats that are not noticed"),
        ("run_agent", "tools=schemas, temp", "tools=schemas, max_tokens=max_tokens, temp", "the API's `max_tokens`"),
        ("call_tool", "length > LONGEST_RESULT", "len(str(result)) > LONGEST_RESULT", "the length of `str(result)`"),
        ("call_tool", 'f"{type(error).__name__}: {error}"', "format_exc()[-500:]", "the end of a traceback"),
        ("call_tool", 'f"{type(error).__name__}: {error}"', "format_exc()", "a traceback as the text"),
        ("tool_schema", "= words.strip()", '= line.split(":")[-1].strip()', "split at its last colon"),
        ("call_tool", "{type(error).__name__}: {error}", "It broke: {error}", "without its type"),
        ("call_tool", "There are only these tools: {', '.join(tools)}", "unknown: {name}", "the ones that there are"),
    ],
)
def test_a_mistake_in_the_learners_own_words_is_named(task: str, before: str, after: str, diagnosis: str) -> None:
    """Whatever the learner tells the model, and however the JSON is written."""
    verdict = getattr(check, task).run(changed(task, before, after))
    assert verdict.points < verdict.max_points
    assert diagnosis in verdict.diagnosis
    assert "results of any length" not in verdict.diagnosis


def changed(task: str, before: str, after: str) -> Any:
    """Build the unit's own solution with one change."""
    source = reference_source("agents", task, "en")
    assert source.count(before) == 1
    namespace: dict[str, Any] = {"INSTRUCTIONS": check.INSTRUCTIONS, "MODEL": gpt.MODEL}
    namespace |= {"__name__": "notebook", "LONGEST_RESULT": 2000, "LONGEST_ERROR": 500}
    names = (
        "from dataclasses import dataclass\nfrom pydantic import *\nfrom collections.abc import *\nfrom typing import *"
    )
    names += "\nimport json, inspect\nfrom traceback import format_exc\nfrom openai import OpenAI"
    exec(names, namespace)
    namespace |= {"Run": check._Run, "Step": check._Step, "ToolRecord": check._ToolRecord}
    namespace |= {
        "Call": check.Call,
        "Rights": check.Rights,
        "without": without,
        "by_hand": by_hand,
        "lenient": lenient,
    }
    exec(source.replace(before, after), namespace)
    return namespace[task]


ERROR = 'f"{type(error).__name__}: {error}"[:LONGEST_ERROR]'
UNKNOWN = 'call["name"] not in rights'
TAINTED = 'any(rights[one["name"]]["untrusted"] for one in made)'
COUNTED = (
    "(keys := lambda calls: [{} for one in calls])(confirmed).count(*keys([call])) > keys(made).count(*keys([call]))"
)


def without(model: Any, part: str, only: Any = None) -> Any:
    """Return the schema of a model without a part, which is left out if it is `only`."""
    schema = model.model_json_schema()
    if only in (None, schema[part]):
        del schema[part]
    return schema


def lenient(arguments: str) -> Any:
    """Read JSON, and what Python writes in its place."""
    try:
        return json.loads(arguments)
    except ValueError:
        return ast.literal_eval(arguments)


def by_hand(function: Any) -> Any:
    """Check arguments as `validate_call` does, but take a whole number for no `float`."""

    def checked(**given: Any) -> Any:
        for name, value in given.items():
            if function.__annotations__.get(name) is float and type(value) is int:
                raise TypeError(f"{name} must be a float")
        return validate_call(function)(**given)

    return checked


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("task", "before", "after", "criterion"),
    [
        (
            "authorise",
            "confirmed.count(call)",
            '[one["arguments"] for one in confirmed].count(call["arguments"])',
            "confirmation_counts_once",
        ),
        (
            "authorise",
            "made.count(call)",
            '[one["arguments"] for one in made].count(call["arguments"])',
            "confirmation_counts_once",
        ),
        ("run_agent", "{as_data(one) for one in wanted}", "{as_data(wanted[0])}", "repeats"),
        ("run_agent", "if keys & made", "if as_data(wanted[0]) in made", "repeats"),
        ("run_agent", "if keys & made", "if keys <= made", "repeats"),
        ("run_agent", "made |= keys", "made.add(as_data(wanted[0]))", "repeats"),
        ("run_agent", "Step(tokens, done)", "Step(tokens, done[:1])", "records"),
        ("run_agent", 'Run(None, "steps", steps)', 'Run(None, "steps", steps[:-1])', "records"),
        ("run_agent", 'Run(None, "tokens", steps)', 'Run(None, "tokens", steps[:-1])', "records"),
        ("run_agent", 'Run(None, "repeated", steps)', 'Run(None, "repeated", [])', "records"),
        ("run_agent", "model=MODEL", 'model="no-such-model"', "goes_on"),
        ("run_agent", "append(message)", 'append(message.model_copy(update={"content": None}))', "goes_on"),
        ("call_tool", ERROR, f'"" if isinstance(error, json.JSONDecodeError) else {ERROR}', "refuses_nonsense"),
        (
            "call_tool",
            'raise TypeError("the arguments are not a JSON object")',
            'return {"error": ""}',
            "refuses_nonsense",
        ),
        ("call_tool", "{', '.join(tools)}", "{', '.join(tools)}, not {name}", "refuses_nonsense"),
        ("call_tool", ERROR, f"format_exc()[-500:] if isinstance(error, json.JSONDecodeError) else {ERROR}", "catches"),
        ("call_tool", ERROR, f"{ERROR[:-16]}[:None if isinstance(error, ValidationError) else 500]", "bounds_results"),
        ("call_tool", "json.loads(arguments)", 'json.loads(arguments or "{}") or {}', "refuses_nonsense"),
        ("call_tool", "json.loads(arguments)", "lenient(arguments)", "refuses_nonsense"),
        (
            "call_tool",
            "    except Exc",
            "    except RecursionError:\n        raise\n    except Exc",
            "refuses_nonsense",
        ),
        ("call_tool", "as error:", 'as error:\n        assert "digits" not in str(error)', "refuses_nonsense"),
        ("call_tool", ERROR, ERROR.replace(":LONGEST_ERROR", "-LONGEST_ERROR:"), "catches"),
        ("call_tool", ERROR, f"{ERROR} if len(str(error)) < 400 else 'The error is too long.'", "catches"),
        ("call_tool", "validate_call(tools[name])", "by_hand(tools[name])", "refuses_arguments"),
        (
            "tool_schema",
            "... if parameter.default is inspect.Parameter.empty",
            "... if parameter.default in (inspect.Parameter.empty, None)",
            "requires",
        ),
        ("tool_schema", "arguments.model_json_schema()", "without(arguments, 'type')", "forbids_further"),
        ("tool_schema", "arguments.model_json_schema()", "without(arguments, 'properties', {})", "forbids_further"),
        ("authorise", 'if call["name"] not in rights:', f"if {UNKNOWN} and not {TAINTED}:", "refuses_unknown"),
        (
            "authorise",
            'return "refuse"\n    if not',
            f'return "allow" if {TAINTED} else "refuse"\n    if not',
            "refuses_unknown",
        ),
        *(
            ("authorise", "confirmed.count(call) > made.count(call)", COUNTED.format(key), "confirmation_counts_once")
            for key in (
                '(one["name"], {(name, str(value)) for name, value in one["arguments"].items()})',
                "[*one.items()]",
                '(one["name"], frozenset(one["arguments"].items()))',
            )
        ),
        (
            "run_agent",
            "if reply.usage else 0",
            "if reply.usage or reply.choices[0].message.tool_calls else 0",
            "records",
        ),
        *(
            ("run_agent", "json.dumps(json.loads(wanted.arguments), sort_keys=True)", key, "repeats")
            for key in (
                "json.dumps(dict(json.loads(wanted.arguments).items()), sort_keys=True)",
                "str(sorted(json.dumps(json.loads(wanted.arguments))))",
                "json.dumps(json.loads(wanted.arguments, parse_int=str), sort_keys=True)",
            )
        ),
        ("run_agent", "return wanted.name, wanted.arguments", 'return wanted.name, "broken"', "repeats"),
        ("run_agent", "return wanted.name, json", "return wanted.name.lower(), json", "repeats"),
    ],
)
def test_a_branch_that_goes_wrong_costs_its_own_criterion_only(
    task: str, before: str, after: str, criterion: str
) -> None:
    assert failed(getattr(check, task).run(changed(task, before, after))) == [criterion]


@pytest.mark.usefixtures("undiagnosed")
def test_null_is_no_argument_of_another_type(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = honest._fits
    monkeypatch.setattr(honest, "_fits", lambda value, annotation: value is None or fits(value, annotation))
    assert failed(check.call_tool.run(honest.call_tool)) == ["refuses_arguments"]


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize("further", ["null", "object", "boolean"])
def test_a_schema_that_allows_another_type_as_well_says_too_little(further: str) -> None:
    def tool_schema(function: Any) -> Any:
        tool = honest.tool_schema(function)
        for stands in tool["function"]["parameters"]["properties"].values():
            if stands.get("type") in ("integer", "boolean", "number"):
                stands["type"] = sorted({stands["type"], further})
        return tool

    assert failed(check.tool_schema.run(tool_schema)) == ["says_types"]


def test_a_tuple_is_sent_as_a_list() -> None:
    def tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tuples(one) for key, one in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    assert not failed(check.tool_schema.run(lambda function: tuples(honest.tool_schema(function))))


def test_a_schema_that_cannot_be_sent_is_told_so() -> None:
    verdict = check.tool_schema.run(lambda function: honest.tool_schema(function) | {"strict": {True}})
    assert verdict.points == 0
    assert "something in it is no JSON" in verdict.criteria[0].message


class Decision(enum.StrEnum):
    ALLOW = "allow"


@pytest.mark.parametrize("decision", [None, "ALLOW", Decision.ALLOW])
def test_a_decision_that_is_none_of_the_three_texts_is_told_so(decision: Any) -> None:
    verdict = check.authorise.run(lambda call, made, confirmed, rights: decision)
    assert verdict.points == 0
    assert "one of three texts" in verdict.criteria[0].message


def test_a_text_that_is_missing_beside_calls_is_told_so() -> None:
    wrong = changed("run_agent", "append(message)", 'append(message.model_copy(update={"content": ""}))')
    [result] = [result for result in check.run_agent.run(wrong).criteria if result.status == "failed"]
    assert "the text is missing" in result.message


@pytest.mark.parametrize("cut", ["[:LONGEST_ERROR]", "[-LONGEST_ERROR:]"])
def test_a_traceback_is_told_from_a_type_that_is_missing(cut: str) -> None:
    wrong = changed("call_tool", 'f"{type(error).__name__}: {error}"[:LONGEST_ERROR]', f"format_exc(){cut}")
    [result] = [result for result in check.call_tool.run(wrong).criteria if result.name == "catches"]
    assert "a traceback or a part of one" in result.message


@pytest.mark.parametrize("limit", ["300", "max_tokens - sum(step.tokens for step in steps)"])
def test_a_limit_for_each_reply_is_a_matter_of_taste(limit: str) -> None:
    honestly = changed("run_agent", "tools=schemas, temp", f"tools=schemas, max_tokens={limit}, temp")
    assert not failed(check.run_agent.run(honestly))


def test_a_tool_without_parameters_needs_a_schema_too() -> None:
    def tool_schema(function: Any) -> Any:
        tool = honest.tool_schema(function)
        if not tool["function"]["parameters"]["properties"]:
            del tool["function"]["parameters"]
        return tool

    [result, *_rest] = check.tool_schema.run(tool_schema).criteria
    assert "one with empty `properties`" in result.message


def test_counting_a_calls_own_content_costs_only_what_it_touches() -> None:
    [wrong] = [wrong for wrong in check.authorise.misconceptions if wrong.name == "own_content"]
    assert failed(check.authorise.run(wrong.build())) == ["only_reading", "confirmation_counts_once"]


def test_a_verdict_shows_what_the_model_asked_for() -> None:
    verdict = check.run_agent.run(changed("run_agent", "sort_keys=True", "sort_keys=False"))
    [result] = [result for result in verdict.criteria if result.status == "failed"]
    assert "1: " in result.tried
    assert "usage.total_tokens" in result.tried
    assert "<make>" not in result.tried
    assert "after request 3, whose call is the same" in result.message
    assert result.expected == "3, stopped='repeated'"


def test_an_outcome_that_is_not_json_is_told_from_one_that_is_missing() -> None:
    wrong = changed("run_agent", "json.dumps(record.outcome, ensure_ascii=False)", "str(record.outcome)")
    [result] = [result for result in check.run_agent.run(wrong).criteria if result.status == "failed"]
    assert "not the outcome as JSON text" in result.message
    assert result.got.startswith("{'result': ")
    assert result.expected.startswith('{"result": ')


def test_a_tools_exception_is_told_from_one_of_the_learners() -> None:
    wrong = changed(
        "call_tool",
        "except Exception as error:",
        "except (ValidationError, TypeError, ValueError, RecursionError) as error:",
    )
    [result] = [result for result in check.call_tool.run(wrong).criteria if result.status == "failed"]
    assert "The tool raised an exception" in result.message
    assert "KeyError: " in result.got


def test_a_schema_is_shown_with_the_function_it_was_asked_for() -> None:
    [result, *_rest] = check.tool_schema.run(lambda function: dict[str, Any]()["kind"]).criteria
    assert "def " in result.tried
    assert "Args:" in result.tried


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
