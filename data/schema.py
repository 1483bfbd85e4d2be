"""JSON Schema of tool parameters: schemas met in the wild made proper, and arguments held against them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jsonschema_rs

from data.jsontext import canonical

# Type names of Python, BFCL, xLAM and Seal-Tools. None stands for "any value".
_TYPES: dict[str, str | None] = {
    "dict": "object", "hashmap": "object", "map": "object",
    "float": "number", "double": "number", "decimal": "number",
    "int": "integer", "long": "integer",
    "str": "string", "char": "string", "text": "string", "date": "string", "datetime": "string",
    "bool": "boolean",
    "list": "array", "tuple": "array", "set": "array", "arraylist": "array",
    "nonetype": "null", "none": "null",
    "any": None,
}  # fmt: skip
_JSON_TYPES = frozenset({"object", "number", "integer", "string", "boolean", "array", "null"})
_NESTED = ("items", "additionalProperties", "not", "contains")
_NAMED = ("properties", "$defs", "definitions", "patternProperties")
_NESTED_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_COMBINED = frozenset({"anyOf", "oneOf", "allOf", "$ref", "if"})
_WRAPPER = frozenset({"properties", "$ref", "anyOf", "oneOf", "allOf"})
_ANNOTATIONS: dict[str, type] = {"title": str, "description": str, "$comment": str, "examples": list}
_MAX_DEPTH = 32
_KNOWN = 8192  # compiled schemas kept, of about 10 KiB each

Fault = tuple[str | None, str]
_validators: dict[bytes, Any] = {}
_by_identity: dict[int, tuple[Mapping[str, Any], Any]] = {}


def normalise(parameters: Mapping[str, Any] | None, changes: list[str] | None = None) -> dict[str, Any]:
    """A proper JSON Schema of type object out of what a source calls parameters; ValueError where that cannot be done.

    Type names become JSON Schema's ("dict" -> "object", "float" -> "number", "any" -> no type), "str, optional" and
    `"required": true` on a property move into the list of required ones, bare properties get their wrapper, and
    annotations that break the schema are left out. Each of these adds its kind to `changes`.
    """
    changes = [] if changes is None else changes
    if not parameters:
        return {"type": "object", "properties": {}}
    if not isinstance(parameters, Mapping):
        raise ValueError(f"parameters must be an object, got {type(parameters).__name__}")
    if not isinstance(parameters.get("type"), str | list) and not _WRAPPER & set(parameters):
        parameters = {"type": "object", "properties": dict(parameters)}
        changes.append("parameters without wrapper")
    schema = _proper(parameters, 0, changes)
    if schema.get("type", "object") != "object":
        raise ValueError(f"parameters must be of type object, not {schema['type']!r}")
    schema = {"type": "object"} | schema
    if not _COMBINED & set(schema):
        schema.setdefault("properties", {})
    return schema


def _proper(node: Any, depth: int, changes: list[str]) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise ValueError(f"schema nested deeper than {_MAX_DEPTH}")
    if isinstance(node, bool):
        return {} if node else {"not": {}}
    if isinstance(node, str):  # {"city": "string"}
        node = {"type": node}
        changes.append("type without wrapper")
    if not isinstance(node, Mapping):
        raise ValueError(f"a schema must be an object, got {type(node).__name__}")
    schema: dict[str, Any] = dict(node)
    _drop_noise(schema, changes)
    if "type" in schema:
        _set_type(schema, changes)
    for key in _NESTED:
        if isinstance(schema.get(key), Mapping):
            schema[key] = _proper(schema[key], depth + 1, changes)
    for key in _NESTED_LISTS:
        if isinstance(schema.get(key), list):
            schema[key] = [_proper(entry, depth + 1, changes) for entry in schema[key]]
    for key in ("$defs", "definitions"):
        if isinstance(schema.get(key), Mapping):
            schema[key] = {name: _proper(entry, depth + 1, changes) for name, entry in schema[key].items()}
    if "properties" in schema:
        _set_properties(schema, depth, changes)
    elif not isinstance(schema.get("required", []), list):
        del schema["required"]
    return schema


def _drop_noise(schema: dict[str, Any], changes: list[str]) -> None:
    """Leave out what says nothing and yet breaks a schema: null keywords, and annotations of a wrong type."""
    for key in [key for key, value in schema.items() if value is None and key not in ("default", "const")]:
        del schema[key]
        changes.append("null keyword")
    for key, kind in _ANNOTATIONS.items():
        if key in schema and not isinstance(schema[key], kind):
            del schema[key]
            changes.append(f"{key} of a wrong type")


def _set_type(schema: dict[str, Any], changes: list[str]) -> None:
    stated = schema["type"]
    kinds: list[str] = []
    for name in stated if isinstance(stated, list) else [stated]:
        if not isinstance(name, str):
            raise ValueError(f"type must be a name, got {name!r}")
        word = name.split(",")[0].strip().lower()
        word = word.split("[")[0]  # "list[str]": the element type is not carried over
        kind = word if word in _JSON_TYPES else _TYPES.get(word, word)
        if kind != name:
            changes.append(f"type {word}" if kind != word else "words behind a type")
        if kind is None:
            kinds = []
            break
        if kind not in _JSON_TYPES:
            raise ValueError(f"unknown type {name!r}")
        kinds.append(kind)
    if not kinds:
        del schema["type"]
    else:
        schema["type"] = kinds if isinstance(stated, list) else kinds[0]


def _set_properties(schema: dict[str, Any], depth: int, changes: list[str]) -> None:
    properties = schema["properties"]
    if not isinstance(properties, Mapping):
        raise ValueError(f"properties must be an object, got {type(properties).__name__}")
    stated = schema.pop("required", None)
    required = [name for name in stated if isinstance(name, str)] if isinstance(stated, list) else []
    for name, entry in properties.items():
        wanted = _wanted(entry)
        if wanted is not None:
            changes.append("required stated by a property")
        if wanted is True and name not in required:
            required.append(name)
        elif wanted is False and name in required:
            required.remove(name)
    schema["properties"] = {name: _proper(entry, depth + 1, changes) for name, entry in properties.items()}
    if required or stated == []:
        schema["required"] = required


def _wanted(entry: Any) -> bool | None:
    """What a property says of itself: `"required": true`, or "optional" behind its type's name; None if nothing."""
    kind = entry
    if isinstance(entry, Mapping):
        if isinstance(entry.get("required"), bool):
            return bool(entry["required"])
        kind = entry.get("type")
    return False if isinstance(kind, str) and kind.replace(" ", "").lower().endswith(",optional") else None


class _WholeNumber:
    """JSON Schema counts 3.0 as an integer; a tool written in Python does not."""

    def __init__(self, parent: Any, value: Any, path: Any) -> None:
        pass

    def validate(self, value: Any) -> None:
        if isinstance(value, float):
            raise ValueError(f'{value} is not of type "integer"')


def _strict(node: Any, close: bool = True, top: bool = False) -> Any:
    """The schema with every object closed to unknown keys, unless it opens itself, and every integer a whole one."""
    if not isinstance(node, Mapping):
        return node
    schema: dict[str, Any] = {}
    for key, value in node.items():
        if key in _NAMED and isinstance(value, Mapping):
            schema[key] = {name: _strict(entry) for name, entry in value.items()}
        elif key in _NESTED:
            schema[key] = _strict(value)
        elif key in _NESTED_LISTS and isinstance(value, list):
            # A branch beside properties, or one of allOf, speaks of some keys only: closed, it would forbid the others.
            alone = key == "prefixItems" or (key != "allOf" and "properties" not in node)
            schema[key] = [_strict(entry, close=alone) for entry in value]
        else:
            schema[key] = value
    kinds = schema.get("type")
    if kinds == "integer" or (isinstance(kinds, list) and "integer" in kinds and "number" not in kinds):
        schema["x-whole"] = True
    says = {"additionalProperties", "unevaluatedProperties", "patternProperties"} & set(schema)
    if close and not says and (top or "properties" in schema):
        schema["unevaluatedProperties" if _COMBINED & set(schema) else "additionalProperties"] = False
    return schema


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema that arguments are held against: closed to unknown keys where it does not open itself."""
    return dict(_strict(schema, top=True))


def each(node: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A schema with `change` made to it and to every schema in it, the inner ones first."""
    if not isinstance(node, Mapping):
        return node
    schema: dict[str, Any] = {}
    for key, value in node.items():
        if key in _NAMED and isinstance(value, Mapping):
            schema[key] = {name: each(entry, change) for name, entry in value.items()}
        elif key in _NESTED:
            schema[key] = each(value, change)
        elif key in _NESTED_LISTS and isinstance(value, list):
            schema[key] = [each(entry, change) for entry in value]
        else:
            schema[key] = value
    return change(schema)


def validator(schema: Mapping[str, Any]) -> Any:
    """The compiled validator of a schema, strict as above; ValueError if the schema is broken. Nothing is fetched."""
    known = _by_identity.get(id(schema))
    if known is not None and known[0] is schema:
        return known[1]
    key = canonical(schema)
    compiled = _validators.get(key)
    if compiled is None:
        try:
            compiled = jsonschema_rs.validator_for(closed(schema), keywords={"x-whole": _WholeNumber}, offline=True)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise ValueError(f"broken schema: {str(error).splitlines()[0]}") from None
        if len(_validators) >= _KNOWN:
            _validators.clear()
        _validators[key] = compiled
    if len(_by_identity) >= _KNOWN:
        _by_identity.clear()
    _by_identity[id(schema)] = (schema, compiled)
    return compiled


def fits(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    """Whether arguments fit a schema; ValueError as `validator` raises it."""
    return bool(validator(schema).is_valid(arguments))


def faults(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Fault]:
    """What breaks the schema: (argument, or None for a missing or unknown one, message). 3.0 is no integer."""
    compiled = validator(schema)
    if compiled.is_valid(arguments):
        return []
    return [(str(e.instance_path[0]) if e.instance_path else None, e.message) for e in compiled.iter_errors(arguments)]


def violations(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """What breaks the schema, one line each; empty when the arguments fit."""
    return [f"{key}: {message}" if key else message for key, message in faults(arguments, schema)]
