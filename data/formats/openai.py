"""OpenAI and TRL chat rows: {messages, tools}, with arguments and tools as objects or as JSON strings, flat or not."""

from __future__ import annotations

from typing import Any

from data.formats import _rows
from data.jsontext import dumps
from data.transcript import Message, Role, RowError, Tool, ToolCall, Transcript

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def read(row: dict[str, Any], place: str) -> Transcript:
    """A conversation with at least one assistant turn; each of these must say or call something."""
    rows = _rows.typed(row.get("messages"), list, place, "messages")
    names: dict[str, str] = {}  # of calls, by id: tool results often name only the id
    messages = [_message(entry, place, f"messages[{number}]", names) for number, entry in enumerate(rows)]
    if not any(message.role == "assistant" for message in messages):
        raise RowError(place, "messages", "must hold an assistant turn, since that is what is learned")
    if messages[0].role == "assistant":
        raise RowError(place, "messages[0].role", "must not be assistant: there is nothing to answer yet")
    kind = row.get("kind")
    return Transcript(
        _rows.row_id(row, place), tools_of(row, place), tuple(messages), kind=kind if isinstance(kind, str) else ""
    )


def tools_of(row: dict[str, Any], place: str) -> tuple[Tool, ...]:
    """The tools of a row; none where it has none."""
    listed = row.get("tools", row.get("functions"))
    entries = _rows.decoded(listed, list, place, "tools") if listed else []
    tools = tuple(_tool(entry, place, f"tools[{number}]") for number, entry in enumerate(entries))
    names = [tool.name for tool in tools]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise RowError(place, f"tools[{number}].name", f"{name!r} is there twice")
    return tools


def _tool(entry: Any, place: str, field: str) -> Tool:
    entry = _rows.decoded(entry, dict, place, field)
    if "function" in entry:
        field = f"{field}.function"
        entry = _rows.typed(entry["function"], dict, place, field)
    parameters = entry.get("parameters")
    if isinstance(parameters, str):
        parameters = _rows.decoded(parameters, dict, place, f"{field}.parameters")
    return _rows.tool(entry.get("name"), entry.get("description"), parameters, place, field)


def _message(entry: Any, place: str, field: str, names: dict[str, str]) -> Message:
    entry = _rows.typed(entry, dict, place, field)
    role = _ROLES.get(_rows.typed(entry.get("role"), str, place, f"{field}.role"))
    if role is None:
        raise RowError(place, f"{field}.role", f"must be one of {', '.join(_ROLES)}, is {entry['role']!r}")
    content = _content(entry.get("content"), role, place, f"{field}.content")
    if role == "assistant":
        calls = _calls(entry, place, field)
        names.update((call.id, call.name) for call in calls if call.id)
        if not calls and not content.strip():
            raise RowError(place, field, "must have content or tool_calls: an empty turn teaches nothing")
        return Message("assistant", content, calls)
    if entry.get("tool_calls"):
        raise RowError(place, f"{field}.tool_calls", f"only an assistant calls tools, not the {role}")
    if role != "tool":
        return Message(role, content)
    call_id = entry.get("tool_call_id")
    call_id = _rows.typed(call_id, str, place, f"{field}.tool_call_id") if call_id is not None else None
    name = entry.get("name")
    name = _rows.typed(name, str, place, f"{field}.name") if name is not None else names.get(call_id or "")
    return Message("tool", content, tool_call_id=call_id, name=name)


def _content(value: Any, role: Role, place: str, field: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        return "".join(_rows.typed(part.get("text"), str, place, f"{field}.text") for part in value)
    if role == "tool":  # a result written as the object it is
        return dumps(value)
    raise RowError(place, field, "must be text, or a list of text parts; images and sounds are not read")


def _calls(entry: dict[str, Any], place: str, field: str) -> tuple[ToolCall, ...]:
    listed = entry.get("tool_calls")
    if not listed and entry.get("function_call"):
        return (_call(entry["function_call"], place, f"{field}.function_call"),)
    calls = _rows.decoded(listed, list, place, f"{field}.tool_calls") if listed else []
    return tuple(_call(call, place, f"{field}.tool_calls[{number}]") for number, call in enumerate(calls))


def _call(entry: Any, place: str, field: str) -> ToolCall:
    entry = _rows.typed(entry, dict, place, field)
    call_id = entry.get("id")
    if call_id is not None:
        _rows.typed(call_id, str, place, f"{field}.id")
    if "function" in entry:
        field = f"{field}.function"
        entry = _rows.typed(entry["function"], dict, place, field)
    name = _rows.words(entry.get("name"), place, f"{field}.name")
    arguments = entry.get("arguments")
    if arguments is None or arguments == "":  # a call of a tool without parameters
        arguments = {}
    return ToolCall(name, _rows.decoded(arguments, dict, place, f"{field}.arguments"), call_id or None)
