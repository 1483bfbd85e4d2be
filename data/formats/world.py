"""Our own rows: all of a transcript with what is right at each assistant turn, or a request with what is right there;
also written, for files and digests. `source`, `language`, and `lacking` in what is expected, stand in rows that have
them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from data.formats import _rows, openai
from data.transcript import ACTS, AcceptedCall, Expected, RowError, Tool, Transcript
from data.transcript import Request as _Request


def read(row: dict[str, Any], place: str) -> Transcript | _Request:
    """An openai row with `id`, `kind` and `expected`: one entry an assistant turn, as `write` writes it, or null.

    Where `expected` is one entry and no list, the row is a request, as `write_request` writes it.
    """
    if isinstance(row.get("expected"), dict):
        return _request(row, place)
    plain = openai.read(row, place)
    entries = _rows.typed(row.get("expected", []), list, place, "expected")
    expected = tuple(
        None if entry is None else _expected(entry, place, f"expected[{number}]")
        for number, entry in enumerate(entries)
    )
    turns = sum(message.role == "assistant" for message in plain.messages)
    if expected and len(expected) != turns:
        raise RowError(
            place, "expected", f"must hold one entry for each of {turns} assistant turns, has {len(expected)}"
        )
    return replace(plain, expected=expected, source=_source(row, place))


def recognised(row: dict[str, Any]) -> str | None:
    """Messages with what is expected."""
    return "messages and expected" if {"messages", "expected"} <= set(row) else None


def write(transcript: Transcript) -> dict[str, Any]:
    """The row that reads back as this transcript."""
    row: dict[str, Any] = {
        "id": transcript.id,
        "kind": transcript.kind,
        "tools": [_tool(tool) for tool in transcript.tools],
    }
    row["messages"] = [message.as_chat() for message in transcript.messages]
    if transcript.expected:
        row["expected"] = [entry and write_expected(entry) for entry in transcript.expected]
    return row | _about(transcript)


def write_request(request: _Request) -> dict[str, Any]:
    """A request as evaluate/requests.jsonl has it."""
    return {
        "id": request.id,
        "kind": request.kind,
        "tools": [_tool(tool) for tool in request.tools],
        "messages": [message.as_chat() for message in request.messages],
        "unseen": request.unseen,
        "expected": write_expected(request.expected),
    } | _about(request)


def write_expected(expected: Expected) -> dict[str, Any]:
    """{act, calls: [{name, arguments: {argument: [accepted values]}, optional}], text}, and lacking: [argument]."""
    calls = [
        {"name": call.name, "arguments": call.arguments, "optional": list(call.optional)} for call in expected.calls
    ]
    lacking = {"lacking": list(expected.lacking)} if expected.lacking else {}
    return {"act": expected.act, "calls": calls, "text": expected.text} | lacking


def _request(row: dict[str, Any], place: str) -> _Request:
    messages = openai.messages_of(row.get("messages"), place, "messages")
    if not messages or messages[-1].role == "assistant":
        raise RowError(place, "messages", "must end where an assistant is to speak")
    kind = _rows.typed(row.get("kind", ""), str, place, "kind")
    expected = _expected(row["expected"], place, "expected")
    tools, source = _rows.tools(row.get("tools"), place), _source(row, place)
    return _Request(
        _rows.row_id(row, place), kind, tools, tuple(messages), expected, source=source, language=_rows.language(row)
    )


def _source(row: dict[str, Any], place: str) -> str | None:
    source = row.get("source")
    return None if source is None else _rows.words(source, place, "source")


def _about(value: Transcript | _Request) -> dict[str, str]:
    return {name: said for name in ("source", "language") if (said := getattr(value, name))}


def _tool(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}


def _expected(entry: Any, place: str, field: str) -> Expected:
    entry = _rows.typed(entry, dict, place, field)
    act = entry.get("act")
    if act not in ACTS:
        raise RowError(place, f"{field}.act", f"must be one of {', '.join(ACTS)}, is {act!r}")
    listed = _rows.typed(entry.get("calls", []), list, place, f"{field}.calls")
    calls = tuple(_accepted(call, place, f"{field}.calls[{number}]") for number, call in enumerate(listed))
    if (act == "call") != bool(calls):
        raise RowError(place, f"{field}.calls", "must hold calls where the act is call, and nowhere else")
    lacking = _rows.typed(entry.get("lacking", []), list, place, f"{field}.lacking")
    if lacking and act != "ask":
        raise RowError(place, f"{field}.lacking", "must name arguments where the act is ask, and nowhere else")
    asked = tuple(_rows.words(name, place, f"{field}.lacking[{number}]") for number, name in enumerate(lacking))
    text = entry.get("text")
    return Expected(act, calls, None if text is None else _rows.typed(text, str, place, f"{field}.text"), asked)


def _accepted(entry: Any, place: str, field: str) -> AcceptedCall:
    entry = _rows.typed(entry, dict, place, field)
    arguments = _rows.typed(entry.get("arguments"), dict, place, f"{field}.arguments")
    for key, values in arguments.items():
        _rows.typed(values, list, place, f"{field}.arguments.{key}")
    optional = _rows.typed(entry.get("optional", []), list, place, f"{field}.optional")
    for key in optional:
        if key not in arguments:
            raise RowError(place, f"{field}.optional", f"{key!r} is no argument of the call")
    return AcceptedCall(_rows.words(entry.get("name"), place, f"{field}.name"), arguments, tuple(optional))
