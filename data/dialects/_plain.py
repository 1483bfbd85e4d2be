"""Conversations for chat templates that know no tools: tools in the system message, calls as text, results as users'.

Shared by the dialects that write all of it themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from data import jsontext
from data.transcript import Message, Tool

Chat = list[dict[str, Any]]


def show(
    tools: Sequence[Tool],
    messages: Sequence[Message],
    instruction: str,
    turn: Callable[[Message], str],
    result: Callable[[str, str], str] = "Result of {}: {}".format,
) -> tuple[None, Chat]:
    """No `tools=`, and a conversation of system, user and assistant turns that any chat template can render.

    `instruction` holds {tools}, which becomes their schemas, one a line; `turn` gives the text of an assistant turn,
    `result` that of a tool's result, from the tool's name and what it gave.
    """
    chat: Chat = []
    names: dict[str, str] = {}  # of the calls answered below, by id
    waiting: list[str] = []  # and by order
    last_is_result = False
    for message in messages:
        content = message.content
        if message.role == "assistant":
            content = turn(message)
        if message.tool_calls:
            names.update((call.id, call.name) for call in message.tool_calls if call.id)
            waiting = [call.name for call in message.tool_calls]
        is_result = message.role == "tool"
        if is_result:
            in_turn = waiting.pop(0) if waiting else "tool"
            content = result(message.name or names.get(message.tool_call_id or "", in_turn), content)
        role = "user" if is_result else message.role
        if last_is_result and role == "user":  # templates want user and assistant to take turns
            chat[-1]["content"] += f"\n{content}"
        else:
            chat.append({"role": role, "content": content})
        last_is_result = is_result
    if tools:
        lines = "\n".join(jsontext.dumps(tool.as_function()["function"]) for tool in tools)
        told = instruction.replace("{tools}", lines)
        if chat and chat[0]["role"] == "system":
            chat[0]["content"] += f"\n\n{told}"
        else:
            chat.insert(0, {"role": "system", "content": told})
    return None, chat
