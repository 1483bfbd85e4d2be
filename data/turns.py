"""Whether the turns of a conversation follow one another as they can; a RowError where training on them would be wrong.

An assistant speaks once where it is its turn, results answer the calls of the turn before them, and calls are answered
before the assistant goes on. Calls of the last turn need no answer, nor do calls without ids in a conversation that
holds no result at all: routers are trained on such. Left to warnings is what only looks unusual (stages/_content.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from data.transcript import Message, Request, RowError, Transcript


def check(found: Transcript | Request, place: str) -> None:
    """RowError with the first turn that cannot stand where it does."""
    messages = found.messages
    if isinstance(found, Request):  # an assistant is to speak next
        messages = (*messages, found.gold or Message("assistant"))
    before = ""
    waiting: list[str | None] = []  # ids of the calls without an answer yet
    called = 0  # calls of that turn
    for number, turn in enumerate(messages):
        role = turn.role
        if role == "tool":
            if turn.tool_call_id not in waiting:
                raise RowError(place, f"messages[{number}].tool_call_id", _orphan(turn, called), "orphan_result")
            waiting.remove(turn.tool_call_id)
        else:
            if waiting:
                _answered(messages, number, waiting, len(waiting) < called, place)
            if role == "assistant":
                if before == "assistant":
                    message = "must not be assistant again: nothing was said that it could answer"
                    raise RowError(place, f"messages[{number}].role", message, "role_order")
                waiting = [call.id for call in turn.tool_calls]
                called = len(waiting)
            else:
                waiting, called = [], 0
        before = role


def _orphan(turn: Message, called: int) -> str:
    if not called:
        return "is the result of no call: the assistant has made none before it"
    named = f"{turn.tool_call_id!r} " if turn.tool_call_id else "its place "
    return f"{named}is that of no call of the turn before it that still waits for a result"


def _answered(messages: Sequence[Message], number: int, waiting: list[str | None], partly: bool, place: str) -> None:
    """RowError if the calls in `waiting` should have been answered before turn `number`."""
    routed = messages[number].role != "assistant" and not any(waiting) and not partly
    if routed and all(turn.role != "tool" for turn in messages):
        return
    asking = next(n for n in range(number - 1, -1, -1) if messages[n].role == "assistant")
    named = ", ".join(repr(id_) for id_ in waiting if id_) or f"{len(waiting)} without an id"
    message = f"has calls that no result answers before messages[{number}]: {named}"
    raise RowError(place, f"messages[{asking}].tool_calls", message, "unanswered_call")
