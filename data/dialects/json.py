"""Schemas as JSON in the system message; a call is the whole answer: {"name": …, "arguments": {…}}, or a list of these.

For models whose chat template knows no tools: calls in the history become that text, tool results a user turn. A turn
that both speaks and calls is shown as its calls alone, since the answer has no room for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data import jsontext
from data.dialects import _attempt
from data.transcript import Message, Reading, Tool, ToolCall

INSTRUCTION = (
    "You can call these tools, one a line:\n{tools}\n"
    'To call one, answer with exactly {{"name": <tool>, "arguments": {{<argument>: <value>}}}} and nothing else; '
    "to make several calls, with a list of such objects. Where no tool is needed, or none fits, answer in plain text."
)


def show(
    tools: Sequence[Tool], messages: Sequence[Message]
) -> tuple[list[dict[str, Any]] | None, list[dict[str, Any]]]:
    """No `tools=`, and a conversation of system, user and assistant turns that any chat template can render."""
    chat: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # of the calls answered below, by id
    waiting: list[str] = []  # and by order
    last_is_result = False
    for message in messages:
        content = message.content
        if message.tool_calls:
            content = write(message.tool_calls)
            names.update((call.id, call.name) for call in message.tool_calls if call.id)
            waiting = [call.name for call in message.tool_calls]
        is_result = message.role == "tool"
        if is_result:
            in_turn = waiting.pop(0) if waiting else "tool"
            content = f"Result of {message.name or names.get(message.tool_call_id or '', in_turn)}: {content}"
        role = "user" if is_result else message.role
        if last_is_result and role == "user":  # templates want user and assistant to take turns
            chat[-1]["content"] += f"\n{content}"
        else:
            chat.append({"role": role, "content": content})
        last_is_result = is_result
    if tools:
        lines = "\n".join(jsontext.dumps(tool.as_function()["function"]) for tool in tools)
        instruction = INSTRUCTION.format(tools=lines)
        if chat and chat[0]["role"] == "system":
            chat[0]["content"] += f"\n\n{instruction}"
        else:
            chat.insert(0, {"role": "system", "content": instruction})
    return None, chat


def write(calls: Sequence[ToolCall]) -> str:
    """One call as an object, several as a list."""
    written = [{"name": call.name, "arguments": call.arguments} for call in calls]
    return jsontext.dumps(written[0] if len(written) == 1 else written)


def read(text: str, tools: Sequence[Tool]) -> Reading:
    """What a completion did: calls if it is nothing but calls, a malformed attempt if it looks like one, else text."""
    text = _attempt.without_thinking(text[: _attempt.MAX_LENGTH]).strip()
    calls = _attempt.whole(text)
    if calls:
        return Reading(True, calls)
    found = _attempt.find(text, tools)
    return Reading(found is not None, (), text, (found,) if found else ())
