"""Schemas as JSON in the system message; a call is the whole answer: {"name": …, "arguments": {…}}, or a list of these.

For models whose chat template knows no tools: calls in the history become that text, tool results a user turn. A turn
that both speaks and calls is shown as its calls alone, since the answer has no room for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data import jsontext
from data.dialects import _attempt, _plain
from data.transcript import Message, Reading, Tool, ToolCall

INSTRUCTION = (
    "You can call these tools, one a line:\n{tools}\n"
    'To call one, answer with exactly {"name": <tool>, "arguments": {<argument>: <value>}} and nothing else; '
    "to make several calls, with a list of such objects. Where no tool is needed, or none fits, answer in plain text."
)


def show(tools: Sequence[Tool], messages: Sequence[Message]) -> tuple[None, list[dict[str, Any]]]:
    """No `tools=`, and a conversation of system, user and assistant turns that any chat template can render."""
    return _plain.show(tools, messages, INSTRUCTION, lambda turn: write(turn.tool_calls) or turn.content)


def write(calls: Sequence[ToolCall]) -> str:
    """One call as an object, several as a list; nothing for none."""
    written = [{"name": call.name, "arguments": call.arguments} for call in calls]
    return jsontext.dumps(written[0] if len(written) == 1 else written) if written else ""


def read(text: str, tools: Sequence[Tool]) -> Reading:
    """What a completion did: calls if it is nothing but calls, a malformed attempt if it looks like one, else text."""
    text = _attempt.without_thinking(text[: _attempt.MAX_LENGTH]).strip()
    return _attempt.reading(text, _attempt.calls_of(_attempt.parsed(text)), tools)
