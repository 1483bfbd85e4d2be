"""Hermes function calling: {conversations: [{from, value}]} with <tools>, <tool_call> and <tool_response> in the text.

A system turn that holds <tools> is all about them and how to write calls: the tools are taken from it, the rest of it
is left out, since a dialect says this in its own way.
"""

from __future__ import annotations

from typing import Any

from data import _pythonic, jsontext
from data.formats import _rows
from data.transcript import Message, RowError, Tool, ToolCall, Transcript


def read(row: dict[str, Any], place: str) -> Transcript:
    """A conversation; what the assistant writes around its calls is kept as its text."""
    tools = _rows.tools(row.get("tools"), place)
    messages: list[Message] = []
    for speaker, text, field in _rows.turns(row, place):
        role = _rows.SPEAKERS[speaker]
        if role == "assistant":
            messages.append(_said(text, place, field))
        elif role == "tool":
            messages += [Message("tool", found) for found in _blocks(text, "tool_response")[0] or [text.strip()]]
        elif role == "system" and (listed := [block for block in _blocks(text, "tools")[0] if block]):
            tools = _offered(listed[-1], place, field)
        else:
            messages.append(Message(role, text))
    return _rows.transcript(row, place, tools, messages)


def recognised(row: dict[str, Any]) -> str | None:
    """Turns of text with Hermes' tags in them."""
    turns = row.get("conversations")
    if not isinstance(turns, list):
        return None
    texts = [str(turn.get("value", turn.get("content"))) for turn in turns if isinstance(turn, dict)]
    tags = [tag for tag in ("<tools>", "<tool_call>") if any(tag in text for text in texts)]
    return f"conversations with {' and '.join(tags)} in the text" if tags else None


def _said(text: str, place: str, field: str) -> Message:
    blocks, rest = _blocks(text, "tool_call")
    calls: list[ToolCall] = []
    for block in blocks:
        calls += _rows.calls(block, place, field)
    if not calls and "<tool_call>" in rest:
        raise RowError(place, field, "has a <tool_call> that never ends")
    return Message("assistant", rest, tuple(calls))


def _offered(listed: str, place: str, field: str) -> tuple[Tool, ...]:
    """The tools of a list in JSON or Python, or of objects one behind the other."""
    objects = [found for _, _, found in jsontext.find_objects(listed)]
    if listed[:1] == "{":
        return _rows.tools(objects, place, field)
    try:
        return _rows.tools(jsontext.loads(listed), place, field)
    except jsontext.JsonError as error:
        try:
            return _rows.tools(_pythonic.value_of_row(listed), place, field)
        except RowError:
            raise
        except ValueError:
            raise RowError(place, field, f"the list in <tools> must be JSON; {error}") from None


def _blocks(text: str, tag: str) -> tuple[list[str], str]:
    """The texts between <tag> and </tag>, and what remains without them; an opening tag without its end remains."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    found: list[str] = []
    rest: list[str] = []
    place = 0
    while (start := text.find(opening, place)) >= 0 and (end := text.find(closing, start)) >= 0:
        rest.append(text[place:start])
        found.append(text[start + len(opening) : end].strip())
        place = end + len(closing)
    return found, "".join((*rest, text[place:])).strip()
