"""The tasks of agents, solved in another style."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from openai import OpenAI

INSTRUCTIONS = "You are the service desk of Harz Pumpen. Use the tools to look things up; do not guess."
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}


def _written(annotation: Any) -> dict[str, Any]:
    """Return the JSON schema of a type, by hand."""
    if get_origin(annotation) is Literal:
        return {"type": "string", "enum": list(get_args(annotation))}
    if get_origin(annotation) is list:
        return {"type": "array", "items": _written(get_args(annotation)[0])}
    if get_origin(annotation) is UnionType:
        return {"anyOf": [_written(one) for one in get_args(annotation)]}
    return {"type": _TYPES[annotation]}


def tool_schema(function: Callable[..., Any]) -> dict[str, Any]:
    lines = inspect.cleandoc(function.__doc__ or "").splitlines()
    end = lines.index("Args:") if "Args:" in lines else len(lines)
    told = dict(line.strip().split(": ", 1) for line in lines[end + 1 :] if line.strip())
    types = {name: kind for name, kind in get_type_hints(function).items() if name != "return"}
    defaults = inspect.signature(function).parameters
    parameters = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {name: {"description": told[name], **_written(kind)} for name, kind in types.items()},
        "required": [name for name in types if defaults[name].default is inspect.Signature.empty],
        "additionalProperties": False,
    }
    described = {"name": function.__name__, "description": " ".join(lines[:end]), "strict": True}
    return {"type": "function", "function": {**described, "parameters": parameters}}


def _fits(value: Any, annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    if get_origin(annotation) is list:
        return type(value) is list and all(_fits(item, get_args(annotation)[0]) for item in value)
    if get_origin(annotation) is UnionType:
        return any(_fits(value, one) for one in get_args(annotation))
    return type(value) is annotation or (annotation is float and type(value) is int)


def _faults(function: Callable[..., Any], given: Any) -> list[str]:
    """Return what is wrong with arguments, by hand."""
    if type(given) is not dict:
        return ["a JSON object is wanted"]
    parameters = inspect.signature(function).parameters
    faults = [f"{name} is unknown" for name in given if name not in parameters]
    for name, parameter in parameters.items():
        if name not in given:
            faults += [f"{name} is missing"] * (parameter.default is parameter.empty)
        elif not _fits(given[name], parameter.annotation):
            faults.append(f"{name} must be {parameter.annotation}")
    return faults


def call_tool(tools: Mapping[str, Callable[..., Any]], name: str, arguments: str) -> dict[str, Any]:
    tool = tools.get(name)
    if tool is None:
        return {"error": "Known tools: " + ", ".join(sorted(tools))}
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return {"error": "The arguments are no JSON."}
    if faults := _faults(tool, given):
        return {"error": "; ".join(faults)[:500]}
    try:
        result = tool(**given)
    except Exception as error:
        return {"error": repr(error)[:400]}
    try:
        size = len(json.dumps(result, allow_nan=False, ensure_ascii=False))
    except (TypeError, ValueError) as error:
        return {"error": str(error)[:500]}
    return {"error": "too long"} if size > 2000 else {"result": result}


class ToolRecord(NamedTuple):
    name: str
    arguments: str
    outcome: dict[str, Any] | None


class Step(NamedTuple):
    calls: tuple[ToolRecord, ...]
    tokens: int


class Run(NamedTuple):
    steps: tuple[Step, ...]
    stopped: str
    answer: str | None


def _frozen(value: Any) -> Any:
    """Make JSON hashable; the order of fields is lost."""
    if isinstance(value, dict):
        return frozenset((key, _frozen(item)) for key, item in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def run_agent(
    client: OpenAI,
    question: str,
    schemas: Sequence[dict[str, Any]],
    call: Callable[[str, str], dict[str, Any]],
    max_steps: int = 8,
    max_tokens: int = 8000,
) -> Run:
    chat: list[Any] = [{"role": "developer", "content": [{"type": "text", "text": INSTRUCTIONS}]}]
    chat.append({"role": "user", "content": [{"type": "text", "text": question}]})
    steps: tuple[Step, ...] = ()
    before: list[Any] = []
    for number in range(1, max_steps + 1):
        create: Any = client.chat.completions.create
        reply = create(model="SmolLM2-135M-Instruct", messages=chat, tools=list(schemas), tool_choice="auto")
        said = reply.choices[0].message.model_dump(exclude_none=True)
        cost = getattr(reply.usage, "total_tokens", 0)
        asked = [(one["function"]["name"], one["function"]["arguments"]) for one in said.get("tool_calls", ())]
        if not asked:
            return Run((*steps, Step((), cost)), "answered", said["content"])
        data = []
        for name, arguments in asked:
            try:
                data.append((name, _frozen(json.loads(arguments))))
            except ValueError:
                data.append((name, arguments))
        spent = sum(step.tokens for step in steps) + cost
        reasons = {"repeated": any(one in before for one in data), "tokens": spent >= max_tokens}
        reasons["steps"] = number == max_steps
        for reason, holds in reasons.items():
            if holds:
                calls = tuple(ToolRecord(name, arguments, None) for name, arguments in asked)
                return Run((*steps, Step(calls, cost)), reason, None)
        before += data
        made = tuple(ToolRecord(name, arguments, call(name, arguments)) for name, arguments in asked)
        steps = (*steps, Step(made, cost))
        chat.append(said)
        for one, done in reversed(list(zip(said["tool_calls"], made, strict=True))):
            outcome = json.dumps(done.outcome, indent=1)
            chat.append({"role": "tool", "content": outcome, "tool_call_id": one["id"], "name": done.name})
    raise AssertionError


def authorise(
    call: Mapping[str, Any], made: Sequence[Any], confirmed: Sequence[Any], rights: Mapping[str, Mapping[str, bool]]
) -> str:
    match rights.get(call["name"]):
        case None:
            return "refuse"
        case {"writes": False}:
            return "allow"
    for one in made:
        if rights[one["name"]]["untrusted"]:
            return "refuse"
    left = list(confirmed)
    for one in made:
        if one in left:
            left.remove(one)
    return "allow" if call in left else "confirm"
