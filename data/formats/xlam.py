"""xLAM / APIGen: {query, tools, answers}, the last two as JSON strings; parameters as {name: {type, description}}.

Only "optional" behind a type says something about what must be given, so no parameter is made required.
"""

from __future__ import annotations

from typing import Any

from data.formats import _rows
from data.transcript import Message, RowError, Transcript


def read(row: dict[str, Any], place: str) -> Transcript:
    """A question and the calls that serve it, all in one turn."""
    question = _rows.words(row.get("query"), place, "query")
    entries = _rows.decoded(row.get("answers"), list, place, "answers")
    calls = tuple(_rows.call(entry, place, f"answers[{number}]") for number, entry in enumerate(entries))
    if not calls:
        raise RowError(place, "answers", "must hold a call; the format has no way to say that none is right")
    messages = (Message("user", question), Message("assistant", tool_calls=calls))
    return _rows.transcript(row, place, _rows.tools(row.get("tools"), place), messages)


def recognised(row: dict[str, Any]) -> str | None:
    """A query with its answers."""
    return "query, tools and answers" if {"query", "tools", "answers"} <= set(row) else None
