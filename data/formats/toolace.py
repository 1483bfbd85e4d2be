"""ToolACE: {system, conversations: [{from, value}]}, tools as JSON in the system text, calls as `[name(arg=value, …)]`.

The system text is about the tools and how to write calls: its tools are taken, the rest is left out, since a dialect
says this in its own way. Without a list of tools in it, it is kept.
"""

from __future__ import annotations

import re
from typing import Any

from data import _pythonic, jsontext
from data.formats import _rows
from data.transcript import Message, RowError, Transcript

_LIST = re.compile(r"\[\s*\{")
_CALL = re.compile(r"\[\s*[^\W\d][^\[\]{}\"'=\n]{0,128}\(")  # names may hold spaces and slashes


def read(row: dict[str, Any], place: str) -> Transcript:
    """A conversation; an assistant turn that begins as a call and is none is an error, not text."""
    tools = _rows.tools(row.get("tools"), place)
    messages: list[Message] = []
    turns = _rows.turns(row, place)
    if "system" in row:
        turns.insert(0, ("system", _rows.typed(row["system"], str, place, "system"), "system"))
    for speaker, text, field in turns:
        role = _rows.SPEAKERS[speaker]
        if role == "assistant":
            messages.append(_said(text, place, field))
        elif role == "system" and (listed := _listed(text)):
            tools = _rows.tools(listed, place, field)
        elif role == "tool":
            messages += _results(text, len(messages[-1].tool_calls) if messages else 0)
        elif text.strip():
            messages.append(Message(role, text))
    return _rows.transcript(row, place, tools, messages)


def recognised(row: dict[str, Any]) -> str | None:
    """A system text beside turns whose calls look like Python."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not isinstance(row.get("system"), str):
        return None
    listed = _listed(row["system"])
    said = (turn.get("value") for turn in turns if isinstance(turn, dict) and turn.get("from") in ("assistant", "gpt"))
    if listed or any(isinstance(text, str) and _CALL.match(text.strip()) for text in said):
        return "a system text with tools beside conversations, calls as [name(arg=value)]"
    return None


def _said(text: str, place: str, field: str) -> Message:
    plain = text.strip()
    if not _CALL.match(plain):
        return Message("assistant", text)
    try:
        calls = _pythonic.parse_row(plain)
    except ValueError as error:
        raise RowError(place, field, f"begins as a call and must be [name(arg=value, …)]; {error}") from None
    return Message("assistant", tool_calls=tuple(_rows.ToolCall(name, arguments) for name, arguments in calls))


def _listed(text: str) -> list[Any]:
    """The first list of objects with names in a text; empty where there is none."""
    for start in _LIST.finditer(text):
        end = jsontext.object_end(text, start.start())
        if end is None:
            break
        try:
            value = jsontext.loads(text[start.start() : end])
        except jsontext.JsonError:
            continue
        if all(isinstance(entry, dict) and ("name" in entry or "function" in entry) for entry in value):
            return list(value)
    return []


def _results(text: str, calls: int) -> list[Message]:
    """One result a call, where the text is a list of as many; else the whole text is one."""
    try:
        value = jsontext.loads(text)
    except jsontext.JsonError:
        value = None
    if calls > 1 and isinstance(value, list) and len(value) == calls:
        return [Message("tool", entry if isinstance(entry, str) else jsontext.dumps(entry)) for entry in value]
    return [Message("tool", text)]
