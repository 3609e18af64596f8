"""JSON schema, as far as descriptions of tools need it: does a schema allow a value?

The library `jsonschema` takes seconds to import, fetches what a `$ref` names, and runs any `pattern`: too much for a
schema that an answer wrote. Keywords that are not known here allow everything, as the standard says.
"""

from collections.abc import Callable
from typing import Any

_DEEPEST = 32

_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": lambda value: _is_number(value),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def allows(schema: Any, value: Any) -> bool:
    """Whether a schema allows a value. Raises ValueError if it is no schema."""
    return _allows(schema, value, schema, 0)


def _allows(schema: Any, value: Any, root: Any, depth: int) -> bool:
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, dict):
        raise ValueError(f"{_short(schema)} stands where a schema should")
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply, or refers to itself")

    def inside(part: Any, item: Any = value) -> bool:
        return _allows(part, item, root, depth + 1)

    return (
        ("$ref" not in schema or inside(_named(schema["$ref"], root)))
        and ("type" not in schema or _has_type(schema["type"], value))
        and ("enum" not in schema or any(_same(value, one) for one in _list(schema, "enum")))
        and ("const" not in schema or _same(value, schema["const"]))
        and all(inside(part) for part in _list(schema, "allOf"))
        and ("anyOf" not in schema or any(inside(part) for part in _list(schema, "anyOf")))
        and ("oneOf" not in schema or sum(inside(part) for part in _list(schema, "oneOf")) == 1)
        and ("not" not in schema or not inside(schema["not"]))
        and (not isinstance(value, list) or all(inside(schema.get("items", True), item) for item in value))
        and (not isinstance(value, dict) or _allows_object(schema, value, inside))
    )


def _allows_object(schema: dict[str, Any], value: dict[str, Any], inside: Callable[[Any, Any], bool]) -> bool:
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        raise ValueError('"properties" is no object')
    further = schema.get("additionalProperties", schema.get("unevaluatedProperties", True))
    return all(name in value for name in _list(schema, "required")) and all(
        inside(properties.get(name, further), item) and inside(schema.get("propertyNames", True), name)
        for name, item in value.items()
    )


def _named(reference: Any, root: Any) -> Any:
    """Return the part of the schema that a `$ref` names; it is looked for nowhere else."""
    path = str(reference).split("/")
    if path[0] != "#":
        raise ValueError(f"{_short(reference)} is no part of it")
    for key in path[1:]:
        if not isinstance(root, dict) or key not in root:
            raise ValueError(f"{_short(reference)} is no part of it")
        root = root[key]
    return root


def _has_type(wanted: Any, value: Any) -> bool:
    names = wanted if isinstance(wanted, list) else [wanted]
    unknown = [name for name in names if not isinstance(name, str) or name not in _TYPES]
    if unknown:
        raise ValueError(f"{_short(unknown[0])} is no type; there are {', '.join(_TYPES)}")
    return any(_TYPES[name](value) for name in names)


def _list(schema: dict[str, Any], keyword: str) -> list[Any]:
    found = schema.get(keyword, [])
    if not isinstance(found, list):
        raise ValueError(f'"{keyword}" is no array')
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON, where true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
