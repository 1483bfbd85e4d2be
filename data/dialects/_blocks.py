"""Calls as <tool_call>{"name": …, "arguments": …}</tool_call> blocks in a text: what native and hermes share."""

from __future__ import annotations

import re
from collections.abc import Sequence

from data import jsontext
from data.dialects import _attempt
from data.transcript import Reading, Tool, ToolCall

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_MARK = re.compile(rf"{OPEN}|{CLOSE}|```")
_SPACE = re.compile(r"\s*")


def write(calls: Sequence[ToolCall]) -> str:
    """The blocks of these calls, one below the other."""
    return "\n".join(
        f"{OPEN}\n{jsontext.dumps({'name': call.name, 'arguments': call.arguments})}\n{CLOSE}" for call in calls
    )


def read(text: str, tools: Sequence[Tool], bare_keys: tuple[str, ...] = ()) -> Reading:
    """What a completion did. The first block that does not parse ends the reading: what follows is not guessed at.

    With `bare_keys`, a call object that is the whole completion counts too, its arguments under one of these keys.
    """
    text = _attempt.without_thinking(text[: _attempt.MAX_LENGTH])
    calls: list[ToolCall] = []
    rest: list[str] = []
    malformed: str | None = None
    place = 0
    marked = "<" in text or "`" in text  # seen sooner than the pattern looks through a text without any
    while marked and (mark := _MARK.search(text, place)):
        rest.append(text[place : mark.start()])
        if mark[0] == "```":  # a code block may speak of tags; whether it is an attempt is judged below
            end = text.find("```", mark.end())
            place = len(text) if end < 0 else end + 3
            rest.append(text[mark.start() : place])
            continue
        block = _block(text, mark.end()) if mark[0] == OPEN else f"{CLOSE} without {OPEN}"
        if isinstance(block, str):
            malformed = block
            break
        calls.append(block[0])
        place = block[1]
    prose = "".join(rest) + text[place:]
    if malformed is None:
        if bare_keys and not calls:
            value = _attempt.parsed(prose.replace("<|python_tag|>", "", 1).strip())
            bare = () if value is None else _attempt.calls_of(value, bare_keys)
            if bare:
                return Reading(True, bare)
        if not calls:
            return _attempt.reading(prose.strip(), (), tools)
        malformed, _ = _attempt.find(prose, tools)
    if malformed is not None:
        return Reading(True, tuple(calls), text.strip(), (malformed,))
    return Reading(True, tuple(calls), prose.strip())


def _block(text: str, start: int) -> tuple[ToolCall, int] | str:
    """The call of the block whose opening tag ends at `start`, with the end of the block; or what is wrong with it."""
    start = _SPACE.match(text, start).end()  # type: ignore[union-attr]
    if text[start : start + 1] != "{":
        return f"{OPEN} is not followed by an object"
    try:
        found = jsontext.loads_at(text, start)
    except jsontext.JsonError as error:
        return str(error)
    if found is None:
        return f"the object after {OPEN} never ends"
    value, end = found
    call = _attempt.call_of(value)
    if isinstance(call, str):
        return call
    close = _SPACE.match(text, end).end()  # type: ignore[union-attr]
    if not text.startswith(CLOSE, close):
        return f"{CLOSE} is missing"
    return call, close + len(CLOSE)
