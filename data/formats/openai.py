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
    kind = row.get("kind")
    tools = _rows.tools(row.get("tools", row.get("functions")), place)
    kind = kind if isinstance(kind, str) else ""
    return _rows.transcript(row, place, tools, messages_of(row.get("messages"), place, "messages"), kind)


def read_prompt(row: dict[str, Any], place: str) -> tuple[str, tuple[Tool, ...], tuple[Message, ...]]:
    """Id, tools and messages of a conversation that waits for an answer: it ends in a turn of the user or a result."""
    tools = _rows.tools(row.get("tools", row.get("functions")), place)
    messages = tuple(messages_of(row.get("messages"), place, "messages"))
    if not messages or messages[-1].role not in ("user", "tool"):
        raise RowError(place, "messages", "must end in a turn of the user or in a result, which waits for an answer")
    return _rows.row_id(row, place), tools, messages


def messages_of(listed: Any, place: str, field: str) -> list[Message]:
    """The messages of a list, or of its JSON; results without a name bear that of the call with their id."""
    rows = _rows.decoded(listed, list, place, field)
    names: dict[str, str] = {}
    return [_message(entry, place, f"{field}[{number}]", names) for number, entry in enumerate(rows)]


def recognised(row: dict[str, Any]) -> str | None:
    """Chat messages."""
    chat = row.get("messages")
    if isinstance(chat, list) and chat and all(isinstance(turn, dict) and "role" in turn for turn in chat):
        return "messages with roles"
    return None


def _message(entry: Any, place: str, field: str, names: dict[str, str]) -> Message:
    entry = _rows.typed(entry, dict, place, field)
    stated = entry.get("role")
    role = _ROLES.get(stated) if isinstance(stated, str) else None
    if role is None:
        _rows.typed(stated, str, place, f"{field}.role")
        raise RowError(place, f"{field}.role", f"must be one of {', '.join(_ROLES)}, is {stated!r}")
    content = entry.get("content")
    if not isinstance(content, str):
        content = _content(content, role, place, f"{field}.content")
    if role == "assistant":
        calls = _calls(entry, place, field)
        for call in calls:
            if call.id:
                names[call.id] = call.name
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
    """The text of what is not written as one."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        return "".join(_rows.typed(part.get("text"), str, place, f"{field}.text") for part in value)
    if role == "tool":  # a result written as the object it is
        return dumps(value)
    raise RowError(place, field, "must be text, or a list of text parts; images and sounds are not read")


def _calls(entry: dict[str, Any], place: str, field: str) -> tuple[ToolCall, ...]:
    listed = entry.get("tool_calls")
    if not listed and entry.get("function_call"):
        return (_rows.call(entry["function_call"], place, f"{field}.function_call"),)
    if not listed:
        return ()
    calls = _rows.decoded(listed, list, place, f"{field}.tool_calls")
    return tuple(_rows.call(call, place, f"{field}.tool_calls[{number}]") for number, call in enumerate(calls))
