"""ShareGPT with calls (Glaive): {conversations: [{from, value}], tools}, calls and results as turns of their own."""

from __future__ import annotations

from typing import Any

from data.formats import _rows
from data.transcript import Message, RowError, Transcript


def read(row: dict[str, Any], place: str) -> Transcript:
    """A conversation. Calls that follow each other, or follow what the assistant says, are one turn with it."""
    messages: list[Message] = []
    if system := row.get("system"):
        messages.append(Message("system", _rows.typed(system, str, place, "system")))
    for speaker, text, field in _rows.turns(row, place):
        role = _rows.SPEAKERS[speaker]
        if speaker != "function_call":
            messages.append(Message(role, text))
            continue
        calls = _rows.calls(text, place, field)
        if not calls:
            raise RowError(place, field, "must hold a call")
        last = messages[-1] if messages else None
        if last and last.role == "assistant":
            messages[-1] = Message("assistant", last.content, (*last.tool_calls, *calls))
        else:
            messages.append(Message("assistant", tool_calls=calls))
    return _rows.transcript(row, place, _rows.tools(row.get("tools"), place), messages)


def recognised(row: dict[str, Any]) -> str | None:
    """Turns of from and value, without the marks of the formats that write calls into their text."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and "from" in turn for turn in turns):
        return None
    speakers = {str(turn["from"]) for turn in turns}
    if {"function_call", "observation"} & speakers:
        return "conversations of from and value, with calls as turns of function_call"
    if "tools" in row and speakers <= {"system", "human", "gpt"} and "<tool" not in str(turns):
        return "conversations of human and gpt, with tools beside them"
    return None
