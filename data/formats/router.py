"""Router rows: {messages}, answers {"tool", "arguments"} or {"tool": "no_tool", "reason"}, tools in the system turn.

The catalogue is JSON, or prose with a line a tool: `- track_order(order_id: str, days: int = 3): where an order is`. A
system turn with a catalogue is all about it and how to answer: the rest is left out, since a dialect says this in its
own way. A tool of whose arguments the line says nothing takes any. A reason is the text of its turn; any other wording
of the same act is as right.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from data import _pythonic, jsontext
from data.formats import _rows, openai
from data.transcript import Expected, Message, RowError, Tool, ToolCall, Transcript, text_act

NO_TOOL = "no_tool"
_LINE = re.compile(
    r"[ \t]*+(?:[-*•]|\d{1,3}[.)])[ \t]*+`?([^\W\d][\w.-]*+)`?(?:\(([^()\n]*+)\))?`?[ \t]*+(?::|—|–|-)[ \t]*+(\S.*)"
)
_MOST = 400  # characters of an argument: its pattern is not linear
_ARGUMENT = re.compile(r"([^\W\d][\w-]*+)(\?)?\s*+(?::\s*+([\w\[\], .|]+?))?\s*+(?:=\s*+(.+))?")


def read(row: dict[str, Any], place: str) -> Transcript:
    """A conversation whose assistant turns are each one call or none."""
    tools = _rows.tools(row.get("tools"), place)
    messages: list[Message] = []
    expected: list[Expected | None] = []
    for number, turn in enumerate(openai.messages_of(row.get("messages"), place, "messages")):
        field = f"messages[{number}].content"
        if turn.role == "system" and (found := _catalogue(turn.content, place, field)):
            tools = found
            continue
        if turn.role == "assistant":
            turn = _answer(turn.content, place, field)
            any_wording = None if turn.tool_calls else Expected(text_act(turn.content))
            expected.append(any_wording)
        messages.append(turn)
    return replace(_rows.transcript(row, place, tools, messages), expected=tuple(expected))


def recognised(row: dict[str, Any]) -> str | None:
    """Chat messages whose every answer is an object with "tool"."""
    chat = row.get("messages")
    if not isinstance(chat, list):
        return None
    said = [turn.get("content") for turn in chat if isinstance(turn, dict) and turn.get("role") == "assistant"]
    if said and all(isinstance(text, str) and re.match(r'\s*\{\s*"tool"\s*:', text) for text in said):
        return 'messages whose every answer is {"tool": …}'
    return None


def _answer(text: str, place: str, field: str) -> Message:
    answer = _rows.decoded(text, dict, place, field)
    name = _rows.words(answer.get("tool"), place, f"{field}.tool")
    if name == NO_TOOL:
        return Message("assistant", _rows.words(answer.get("reason"), place, f"{field}.reason"))
    arguments = _rows.typed(answer.get("arguments", {}), dict, place, f"{field}.arguments")
    return Message("assistant", tool_calls=(ToolCall(name, arguments),))


def _catalogue(text: str, place: str, field: str) -> tuple[Tool, ...]:
    """The tools of a system turn, as JSON or as prose; none where it lists none. no_tool is no tool."""
    listed = _listed(text) or [
        {"name": line[1], "description": line[3].strip(), "parameters": _parameters(line[2], place, field)}
        for line in map(_LINE.match, text.splitlines())
        if line and (line[2] is not None or line[1][0].islower())  # "- Note: …" is no tool
    ]
    entries = [entry.get("function", entry) for entry in listed]
    entries = [entry | {"name": entry.get("name", entry.get("tool"))} for entry in entries if isinstance(entry, dict)]
    return _rows.tools([entry for entry in entries if entry["name"] != NO_TOOL], place, field)


def _listed(text: str) -> list[dict[str, Any]]:
    """The objects of a text that describe tools: of one list, or one behind the other."""
    found = []
    for _, _, part in jsontext.find_objects(text):
        try:
            value = jsontext.loads(part)
        except jsontext.JsonError:
            continue
        if "function" in value or ({"name", "tool"} & set(value) and {"description", "parameters"} & set(value)):
            found.append(value)
    return found


def _parameters(listed: str | None, place: str, field: str) -> dict[str, Any]:
    if listed is None:
        return {"type": "object", "properties": {}, "additionalProperties": True}
    properties: dict[str, Any] = {}
    required: list[str] = []
    for part in _parts(listed):
        argument = _ARGUMENT.fullmatch(part) if len(part) <= _MOST else None
        if argument is None:
            raise RowError(place, field, f"{part[:60]!r} must be an argument: name: type, or name: type = default")
        name, mark, kind, default = argument.groups()
        properties[name] = {"type": kind.strip()} if kind else {}
        if default is not None:
            properties[name]["default"] = _default(default)
        if not mark and default is None and not (kind and "optional" in kind):
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def _parts(listed: str) -> list[str]:
    """The arguments of a line, split at commas outside brackets; "str, optional" is one."""
    parts: list[str] = []
    depth = 0
    for piece in re.split(r"(,)", listed):
        if parts and piece != "," and (depth > 0 or piece.strip() == "optional"):
            parts[-1] += f",{piece}"
        elif piece != "," and piece.strip():
            parts.append(piece)
        depth += piece.count("[") - piece.count("]")
    return [part.strip() for part in parts]


def _default(text: str) -> Any:
    try:
        return _pythonic.value_of_row(text)
    except ValueError:
        return text.strip()
