"""Schemas in <tools> in the system message, calls as <tool_call> blocks, results in <tool_response>, as Hermes does.

The native format of many models, for those whose chat template knows no tools: here it is written by us. A turn may
speak before its calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data.dialects import _blocks, _plain
from data.transcript import Message, Reading, Tool, ToolCall

INSTRUCTION = (
    "You can call the tools between <tools> and </tools>, one a line:\n<tools>\n{tools}\n</tools>\n"
    "To call one, write its name and arguments between <tool_call> and </tool_call>:\n"
    '<tool_call>\n{"name": <tool>, "arguments": {<argument>: <value>}}\n</tool_call>\n'
    "Several calls are several such blocks; results come between <tool_response> and </tool_response>. "
    "Where no tool is needed, or none fits, answer in plain text."
)


def show(tools: Sequence[Tool], messages: Sequence[Message]) -> tuple[None, list[dict[str, Any]]]:
    """No `tools=`, and a conversation of system, user and assistant turns that any chat template can render."""
    return _plain.show(
        tools,
        messages,
        INSTRUCTION,
        turn=lambda turn: "\n".join(part for part in (turn.content, write(turn.tool_calls)) if part),
        result=lambda name, content: f"<tool_response>\n{content}\n</tool_response>",
    )


def write(calls: Sequence[ToolCall]) -> str:
    """The blocks of these calls."""
    return _blocks.write(calls)


def read(text: str, tools: Sequence[Tool]) -> Reading:
    """What a completion did. The first block that does not parse ends the reading; a call without tags is malformed."""
    return _blocks.read(text, tools)
