from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pydantic import ConfigDict, Field, TypeAdapter, create_model

from kicourse.checks.json_schema import allows

VALUES: list[Any] = [None, True, False, 0, 1, 2.0, 2.5, -3, "", "a", "b", "1", [], ["a"], [1], [True], [["a"]], {}]
VALUES += [{"a": 1}, {"a": 1, "b": 2}, {"a": "x"}, {"a": None}, {"b": 1}, {"next": {"a": 1}}]

KINDS: list[Any] = [str, int, float, bool, list[str], list[int], str | None, int | str, Literal["a", "b"], Literal["a"]]
KINDS += [list[Literal["a"]], dict[str, int], Literal[1, "a"] | None, Any]

SCHEMAS: list[Any] = [TypeAdapter(kind).json_schema() for kind in KINDS]
SCHEMAS += [
    create_model("Both", __config__=ConfigDict(extra="forbid"), a=(int, ...), b=(int, Field(1))).model_json_schema(),
    {"$ref": "#/$defs/A", "$defs": {"A": {"type": "integer"}}},
    {"type": ["string", "null"]},
    {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    {"allOf": [{"required": ["a"]}, {"propertyNames": {"enum": ["a"]}}]},
    {"not": {"type": "string"}},
    {"enum": [1, "a", None, ["a"]]},
    {"const": True},
    {"properties": {"next": {"$ref": "#"}, "a": True}, "additionalProperties": False},
    {"items": False},
    True,
    False,
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_it_agrees_with_the_library(schema: Any) -> None:
    validator = Draft202012Validator(schema)
    assert [allows(schema, value) for value in VALUES] == [validator.is_valid(value) for value in VALUES]


@pytest.mark.parametrize(
    "schema",
    [
        None,
        "string",
        {"type": "str"},
        {"type": [["string"]]},
        {"$ref": "#"},
        {"$ref": "#/$defs/A"},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"anyOf": {"type": "string"}},
        {"properties": []},
        {"required": "a"},
        {"properties": {"a": 17}},
    ],
)
def test_what_is_no_schema_is_told_so(schema: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        allows(schema, {"a": 1})
