"""TRL's preference rows: {prompt, chosen, rejected, tools}, as messages or as texts, the prompt stated or shared."""

from __future__ import annotations

from typing import Any

from data.formats import _rows, openai
from data.transcript import Message, Request, RowError, expected_of


def read(row: dict[str, Any], place: str) -> Request:
    """A request whose gold turn is the chosen one, with the rejected one beside it."""
    tools = _rows.tools(row.get("tools"), place)
    chosen = _messages(row.get("chosen"), "assistant", place, "chosen")
    rejected = _messages(row.get("rejected"), "assistant", place, "rejected")
    if "prompt" in row:
        prompt = _messages(row["prompt"], "user", place, "prompt")
    else:
        shared = next((n for n, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), len(chosen))
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    for field, turns in (("chosen", chosen), ("rejected", rejected)):
        if len(turns) != 1 or turns[0].role != "assistant":
            raise RowError(place, field, "must be one assistant turn behind the prompt")
    return request(row, place, tools, prompt, chosen[0], rejected[0])


def request(
    row: dict[str, Any], place: str, tools: Any, prompt: list[Message], chosen: Message, rejected: Message
) -> Request:
    """The request of a prompt and two answers to it."""
    if chosen == rejected:
        raise RowError(place, "rejected", "is the same as chosen, so nothing can be preferred", "same_pair")
    whole = _rows.transcript(row, place, tools, [*prompt, chosen])
    expected = expected_of(chosen)
    return Request(whole.id, expected.act, whole.tools, tuple(prompt), expected, chosen, rejected=rejected)


def write(request: Request) -> dict[str, Any]:
    """The row that reads back as this request, for TRL and others."""
    if request.gold is None or request.rejected is None:
        raise ValueError(f"{request.id} has no chosen and rejected turn")
    return {
        "id": request.id,
        "prompt": [message.as_chat() for message in request.messages],
        "chosen": [request.gold.as_chat()],
        "rejected": [request.rejected.as_chat()],
        "tools": [tool.as_function() for tool in request.tools],
    }


def recognised(row: dict[str, Any]) -> str | None:
    """Two answers to one prompt."""
    return "chosen and rejected" if {"chosen", "rejected"} <= set(row) and "messages" not in row else None


def _messages(value: Any, role: str, place: str, field: str) -> list[Message]:
    """Messages as they are, or the one that a text stands for."""
    if isinstance(value, str) and value.lstrip()[:1] not in ("[", "{"):
        value = [{"role": role, "content": value}]
    elif isinstance(value, dict):
        value = [value]
    return openai.messages_of(value, place, field)
