"""What readers of rows share: values of the right type or a RowError that says where, and schemas made proper."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from data import schema
from data.jsontext import JsonError, loads
from data.transcript import RowError, Tool

T = TypeVar("T")
_WORDS: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}


def typed(value: Any, kind: type[T], place: str, field: str) -> T:
    """The value, if it is of this type."""
    if isinstance(value, kind):
        return value
    shown = "missing" if value is None else f"{str(value)[:60]!r}"
    raise RowError(place, field, f"must be {_WORDS.get(kind, kind.__name__)}, is {shown}")


def decoded(value: Any, kind: type[T], place: str, field: str) -> T:
    """The value, read from JSON where it is a string of it."""
    if isinstance(value, str):
        try:
            value = loads(value)
        except JsonError as error:
            raise RowError(place, field, f"must be {_WORDS.get(kind, kind.__name__)} or its JSON; {error}") from None
    return typed(value, kind, place, field)


def words(value: Any, place: str, field: str) -> str:
    """A text that says something."""
    if not typed(value, str, place, field).strip():
        raise RowError(place, field, "must not be empty")
    return str(value)


def tool(name: Any, description: Any, parameters: Any, place: str, field: str) -> Tool:
    """A tool with its schema made proper; RowError where no schema can be made of it."""
    name = words(name, place, f"{field}.name")
    description = typed("" if description is None else description, str, place, f"{field}.description")
    try:
        proper = schema.normalise(parameters)
        schema.validator(proper)
    except ValueError as error:
        raise RowError(place, f"{field}.parameters", str(error)) from None
    return Tool(name, description, proper)


def row_id(row: dict[str, Any], place: str) -> str:
    """The row's own id, or its file's name and line."""
    own = row.get("id")
    return str(own) if isinstance(own, str | int) and not isinstance(own, bool) and str(own) else Path(place).name
