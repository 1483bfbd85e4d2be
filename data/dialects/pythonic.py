"""Schemas as JSON in the system message; calls as Python writes them, in a list: [get_weather(city="Oslo", days=3)].

The answer is nothing but that list, or plain text. Results become a user turn. A turn that both speaks and calls is
shown as its calls alone, since the answer has no room for both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from data import _pythonic
from data.dialects import _attempt, _plain
from data.transcript import Message, Reading, Tool, ToolCall

INSTRUCTION = (
    "You can call these tools, one a line:\n{tools}\n"
    "To call some, answer with exactly [<tool>(<argument>=<value>, ...), ...], values as in Python, and nothing else. "
    "Where no tool is needed, or none fits, answer in plain text."
)
_BEGUN = re.compile(r"\[\s*+[^\W\d][\w.]*+\((?:\s*+(?:[^\W\d]\w*+\s*+=|\*\*|[\"')])|\Z)")


def show(tools: Sequence[Tool], messages: Sequence[Message]) -> tuple[None, list[dict[str, Any]]]:
    """No `tools=`, and a conversation any chat template can render; ValueError for a name that no call can hold."""
    return _plain.show(tools, messages, INSTRUCTION, lambda turn: write(turn.tool_calls) or turn.content)


def write(calls: Sequence[ToolCall]) -> str:
    """The list of these calls; nothing for none."""
    return _pythonic.write([(call.name, call.arguments) for call in calls]) if calls else ""


def read(text: str, tools: Sequence[Tool]) -> Reading:
    """What a completion did: calls if it is nothing but calls, a malformed attempt if it looks like one, else text."""
    text = _attempt.without_thinking(text[: _attempt.MAX_LENGTH]).strip()
    try:
        calls = tuple(ToolCall(name, arguments) for name, arguments in _pythonic.parse(text))
    except ValueError as error:
        return _attempt.reading(text, (), tools, begun=str(error) if _BEGUN.match(text) else None)
    return _attempt.reading(text, calls, tools)
