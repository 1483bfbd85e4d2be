"""Seal-Tools: {id, query, calling: [{api, parameters, responses}]}, with all tools in a file of their own.

Offered are the tools that are called and, drawn for each row by its id and data.seed, data.distractors others of the
same field; where the field has too few, of the same area (what stands before the / of a field). An argument may be the
name of an earlier call's response (API_call_0), whatever its type; it is kept as it is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data import _files
from data.formats import _rows
from data.transcript import Message, RowError, ToolCall, Transcript

BESIDE = "tools"
REFERENCE = re.compile(r"API_call_[0-9]+")
_PART = re.compile(r"_(?:dev|train|test)$")


def read(row: dict[str, Any], place: str) -> Transcript:
    """A question and its calls in one turn; `tools` are those on offer, as the file of tools writes them."""
    question = _rows.words(row.get("query"), place, "query")
    tools = tuple(
        _tool(entry, place, f"tools[{number}]")
        for number, entry in enumerate(_rows.decoded(row.get("tools") or [], list, place, "tools"))
    )
    entries = _rows.decoded(row.get("calling"), list, place, "calling")
    earlier: set[str] = set()  # names of the responses of calls before this one
    calls = []
    for number, entry in enumerate(entries):
        field = f"calling[{number}]"
        name = _rows.words(_rows.typed(entry, dict, place, field).get("api"), place, f"{field}.api")
        arguments = _rows.decoded(entry.get("parameters"), dict, place, f"{field}.parameters")
        for key, value in arguments.items():
            if isinstance(value, str) and REFERENCE.fullmatch(value) and value not in earlier:
                raise RowError(place, f"{field}.parameters.{key}", f"{value} is the response of no earlier call")
        earlier.update(map(str, _rows.typed(entry.get("responses", []), list, place, f"{field}.responses")))
        calls.append(ToolCall(name, arguments))
    if not calls:
        raise RowError(place, "calling", "must hold a call; the format has no way to say that none is right")
    return _rows.transcript(row, place, tools, (Message("user", question), Message("assistant", "", tuple(calls))))


def recognised(row: dict[str, Any]) -> str | None:
    """A query and its calling."""
    return "query and calling" if {"query", "calling"} <= set(row) else None


def companions(file: Path) -> tuple[Path, ...]:
    """`seal_tools_tools.jsonl` for `seal_tools_dev.jsonl`."""
    return (file.with_name(f"{_PART.sub('', file.stem)}_tools.jsonl"),)


def completing(
    file: Path, companion: Path | None, seed: int, distractors: int
) -> Callable[[dict[str, Any], str], dict[str, Any]]:
    """Puts the tools on offer into a row."""
    if companion is None:
        raise ValueError("the tools stand in a file of their own")
    tools: dict[str, dict[str, Any]] = {}
    by_field: dict[str, list[str]] = {}
    for found in _files.read(companion):
        if isinstance(found, RowError):
            raise found
        place, tool = found
        name = _rows.words(tool.get("api_name"), place, "api_name")
        tools[name] = tool
        for field in _fields(tool):
            by_field.setdefault(field, []).append(name)

    def complete(row: dict[str, Any], place: str) -> dict[str, Any]:
        calling = row.get("calling")
        entries = calling if isinstance(calling, list) else []
        called = [entry.get("api") for entry in entries if isinstance(entry, dict)]
        gold = [name for name in dict.fromkeys(map(str, called)) if name in tools]
        draw = random.Random(f"{seed} {_rows.row_id(row, place)}")
        offered = [*gold, *_others(gold, tools, by_field, distractors, draw)]
        draw.shuffle(offered)
        return row | {"tools": [tools[name] for name in offered]}

    return complete


def _others(
    gold: Sequence[str],
    tools: dict[str, dict[str, Any]],
    by_field: dict[str, list[str]],
    count: int,
    draw: random.Random,
) -> list[str]:
    """Tools beside the called ones: of their fields, then of their areas."""
    others: list[str] = []
    for depth in range(2):
        names = dict.fromkeys(name for one in gold for name in by_field[_fields(tools[one])[depth]])
        pool = [name for name in names if name not in gold and name not in others]
        others += draw.sample(pool, min(count - len(others), len(pool)))
    return others


def _fields(tool: dict[str, Any]) -> tuple[str, str]:
    """The field of a tool, and the area it lies in."""
    field = str(tool.get("field", ""))
    return f"{field}/", field.partition("/")[0]


def _tool(entry: Any, place: str, field: str) -> Any:
    entry = _rows.typed(entry, dict, place, field)
    parameters = entry.get("parameters")
    if isinstance(parameters, dict):  # a name in `required` is one of them; they have no wrapper
        parameters = {"type": "object", "properties": parameters, "required": entry.get("required")}
    return _rows.tool(entry.get("api_name"), entry.get("api_description"), parameters, place, field)
