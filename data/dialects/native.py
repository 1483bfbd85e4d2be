"""The chat template's own tool format: <tool_call> blocks (Qwen, Hermes, the tiny model) or a bare JSON call (Llama 3).

A template that takes `tools=` shows them itself. A bare call counts only where it is the whole completion, as the
templates that use it write it; anything else that looks like a call is a malformed attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data.dialects import _blocks
from data.transcript import Message, Reading, Tool, ToolCall


def show(
    tools: Sequence[Tool], messages: Sequence[Message]
) -> tuple[list[dict[str, Any]] | None, list[dict[str, Any]]]:
    """`tools=` and the conversation for a chat template; None without tools, as some templates render []."""
    return [tool.as_function() for tool in tools] or None, [message.as_chat() for message in messages]


def write(calls: Sequence[ToolCall]) -> str:
    """The blocks of these calls, as templates of this family write them."""
    return _blocks.write(calls)


def read(text: str, tools: Sequence[Tool]) -> Reading:
    """What a completion did. The first block that does not parse ends the reading: what follows is not guessed at."""
    return _blocks.read(text, tools, bare_keys=("arguments", "parameters"))
