"""When2Call: tools as JSON strings and four acts; fine-tuning rows, preference rows, and rows of one question each.

Fine-tuning rows are {tools, messages}, preference rows {tools, messages, chosen, rejected}, or chosen_response and
rejected_response; both write calls as <TOOLCALL>[{"name", "arguments"}]</TOOLCALL>. The multiple-choice and judge rows
are {tools, question, correct_answer, answers}: the right act, and one text an act, of which the right one is the gold
turn. Without answers, a row whose right act is a call cannot be used: nothing says which call. The texts of the other
acts are kept to choose from; one that cannot be read is no choice. `source_id`, where there is one, names the row of
another benchmark that a question was made from, often several from one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from data.formats import _rows, openai, preference
from data.transcript import Act, Expected, Message, Request, RowError, Transcript, expected_of

ACTS: dict[str, Act] = {"tool_call": "call", "request_for_info": "ask", "cannot_answer": "refuse", "direct": "answer"}
_PREFERENCES = (("chosen_response", "rejected_response"), ("chosen", "rejected"))
_OPEN, _CLOSE = "<TOOLCALL>", "</TOOLCALL>"


def read(row: dict[str, Any], place: str) -> Transcript | Request:
    """A transcript, or a request with the act that is right."""
    tools = _rows.tools(row.get("tools"), place)
    if "correct_answer" in row:
        return _question(row, tools, place)
    messages = [_said(turn, place) for turn in openai.messages_of(row.get("messages"), place, "messages")]
    fields = next((fields for fields in _PREFERENCES if fields[0] in row), None)
    if fields is None:
        return _rows.transcript(row, place, tools, messages)
    chosen, rejected = (_said(openai.messages_of([_turn(row.get(one))], place, one)[0], place) for one in fields)
    return preference.request(row, place, tools, messages, chosen, rejected)


def recognised(row: dict[str, Any]) -> str | None:
    """The fields of its questions and preferences, or its tag for calls."""
    if {"correct_answer", "question", "tools"} <= set(row):
        return "question, tools and correct_answer"
    for fields in _PREFERENCES:
        if {"messages", *fields} <= set(row):
            return f"messages, {fields[0]} and {fields[1]}"
    tools = row.get("tools")
    strings = isinstance(tools, list) and bool(tools) and all(isinstance(tool, str) for tool in tools)
    if "messages" in row and (strings or _OPEN in str(row["messages"])):
        return f"messages with tools as JSON strings or calls in {_OPEN}"
    return None


def _question(row: dict[str, Any], tools: Any, place: str) -> Request:
    question = _rows.words(row.get("question"), place, "question")
    right = _rows.typed(row["correct_answer"], str, place, "correct_answer")
    if right not in ACTS:
        raise RowError(place, "correct_answer", f"must be one of {', '.join(ACTS)}, is {right!r}")
    act = ACTS[right]
    answers = _rows.decoded(row.get("answers") or {}, dict, place, "answers")
    gold = None
    if right in answers:
        text = _rows.words(answers[right], place, f"answers.{right}")
        gold = _said(Message("assistant", text), place, f"answers.{right}", called=act == "call")
    if act == "call" and not (gold and gold.tool_calls):
        raise RowError(place, "answers.tool_call", "must hold the call that is right", "answer")
    if gold and gold.tool_calls and act != "call":
        raise RowError(place, f"answers.{right}", "must not be a call where another act is right")
    expected = Expected(act)  # any wording of a question or a refusal is right
    if gold and act in ("call", "answer"):
        expected = replace(expected_of(gold), act=act)
    row_id = _rows.row_id({"id": row.get("uuid", row.get("id"))}, place)
    read = {ACTS[name]: _other(text, ACTS[name], place) for name, text in answers.items() if name in {*ACTS} - {right}}
    others = {other: turn for other, turn in read.items() if turn}
    source = row.get("source_id")
    source = str(source) if isinstance(source, str | int) and str(source) else None
    return Request(row_id, act, tools, (Message("user", question),), expected, gold, others=others, source=source)


def _other(text: Any, act: Act, place: str) -> Message | None:
    """The turn of an act that is not right; None where it is lacking, or no turn of that act."""
    try:
        turn = _said(Message("assistant", _rows.words(text, place, "answers")), place, "answers", called=act == "call")
    except RowError:
        return None
    return turn if bool(turn.tool_calls) == (act == "call") else None


def _turn(value: Any) -> Any:
    return {"role": "assistant", "content": value} if isinstance(value, str) else value


def _said(turn: Message, place: str, field: str = "messages", called: bool = False) -> Message:
    """The turn with its calls taken out of their tags; `called` says that a text without tags is one, too."""
    text = turn.content.strip()
    if turn.role != "assistant" or not (called or _OPEN in text):
        return turn
    before, opened, rest = text.partition(_OPEN)
    block, closed, after = rest.partition(_CLOSE)
    if opened and not closed:
        raise RowError(place, field, f"has a {_OPEN} that never ends")
    calls = _rows.calls(block if opened else text, place, field)
    return Message("assistant", f"{before}{after}".strip() if opened else "", calls)
