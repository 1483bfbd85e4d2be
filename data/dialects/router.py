"""Every answer is a JSON object: {"tool": …, "arguments": {…}}, or {"tool": "no_tool", "reason": …} for no call.

The format of an application that routes requests to tools: it can always parse, validate, and call or say the reason.
Schemas stand in the system message. A text turn of the data is shown as its reason and read back from there; a list
holds several calls, and a turn that both speaks and calls is shown as its calls alone. Without tools nobody asks for
the format, and texts are texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data import jsontext
from data.dialects import _attempt, _plain
from data.transcript import Message, Reading, Tool, ToolCall

NO_TOOL = "no_tool"
INSTRUCTION = (
    "You can call these tools, one a line:\n{tools}\n"
    'Answer with one JSON object and nothing else. To call a tool: {"tool": <tool>, "arguments": {<argument>: '
    "<value>}}; to make several calls, a list of such objects. Where no tool is needed, or none fits: "
    '{"tool": "no_tool", "reason": <your answer>}.'
)


def show(tools: Sequence[Tool], messages: Sequence[Message]) -> tuple[None, list[dict[str, Any]]]:
    """No `tools=`, and a conversation any chat template can render; ValueError for a tool that is called no_tool."""
    if any(tool.name == NO_TOOL for tool in tools):
        raise ValueError(f"a tool cannot be called {NO_TOOL}: that is how this dialect says that it calls none")
    decline = _decline if tools else str
    return _plain.show(tools, messages, INSTRUCTION, lambda turn: write(turn.tool_calls) or decline(turn.content))


def write(calls: Sequence[ToolCall]) -> str:
    """One call as an object, several as a list; nothing for none."""
    written = [{"tool": call.name, "arguments": call.arguments} for call in calls]
    return jsontext.dumps(written[0] if len(written) == 1 else written) if written else ""


def _decline(reason: str) -> str:
    return jsontext.dumps({"tool": NO_TOOL, "reason": reason})


def read(text: str, tools: Sequence[Tool]) -> Reading:
    """What a completion did. `text` is the reason where no tool is called.

    A text outside of the format is no attempt to call, but malformed where tools are on offer: it declines in no way
    that an application could read.
    """
    text = _attempt.without_thinking(text[: _attempt.MAX_LENGTH]).strip()
    value = _attempt.parsed(text)
    if isinstance(value, dict) and value.get("tool") == NO_TOOL:
        if value.keys() == {"tool", "reason"} and isinstance(value["reason"], str):
            return Reading(False, (), value["reason"])
        return Reading(False, (), text, (f"{NO_TOOL} comes with a reason and nothing else",))
    reading = _attempt.reading(text, _attempt.calls_of(value, name_key="tool"), tools)
    if tools and not reading.attempt:
        return Reading(False, (), text, ("neither a call nor no_tool with a reason",))
    return reading
