"""The order of turns: what cannot stand where it does is refused by word and place, what may, passes."""

from __future__ import annotations

import pytest

from data import turns
from data.mend import mended
from data.transcript import Expected, Message, Request, RowError, Tool, ToolCall, Transcript

ASK, ANSWER = Message("user", "Weather?"), Message("assistant", "It rains.")
TOOLS = (Tool("look", "Look.", {"type": "object", "properties": {}}),)


def call(*ids: str | None) -> Message:
    return Message("assistant", tool_calls=tuple(ToolCall("look", {}, id_) for id_ in ids))


def result(id_: str | None = None) -> Message:
    return Message("tool", "rain", tool_call_id=id_)


def refused(*messages: Message) -> tuple[str, str] | None:
    """Field and code of the refusal of these turns, as they are after ids were made."""
    row, _ = mended(Transcript("t", TOOLS, messages), "x:1")
    try:
        turns.check(row, "x:1")
    except RowError as error:
        return error.field, error.code
    return None


@pytest.mark.parametrize(
    "messages",
    [
        (ASK, ANSWER),
        (ASK, call(None)),
        (ASK, call("a"), result("a"), ANSWER),
        (ASK, call(None), result(), ANSWER),
        (ASK, call("a", "b"), result("b"), result("a"), ANSWER),
        (ASK, call("a"), result("a"), call("a"), result("a"), ANSWER),
        (ASK, call("a"), result("a"), call("b")),  # a call of the last turn needs no answer
        (ASK, call("a"), result("a"), ASK, ANSWER),
        (ASK, call(None), ASK, call(None)),  # a router's conversation: no ids, no result anywhere
        (Message("system", "Be brief."), ASK, ASK, ANSWER, Message("system", "Be kind."), ASK, ANSWER),
        (ASK, ANSWER, ASK),
    ],
)
def test_turns_that_follow_one_another_as_they_can_pass(messages):
    assert refused(*messages) is None


@pytest.mark.parametrize(
    ("messages", "field", "code"),
    [
        ((ASK, ANSWER, ANSWER), "messages[2].role", "role_order"),
        ((ASK, result("a"), ANSWER), "messages[1].tool_call_id", "orphan_result"),
        ((ASK, ANSWER, result(), ANSWER), "messages[2].tool_call_id", "orphan_result"),
        ((ASK, call("a"), result("b"), ANSWER), "messages[2].tool_call_id", "orphan_result"),
        ((ASK, call("a"), result("a"), result("a"), ANSWER), "messages[3].tool_call_id", "orphan_result"),
        ((ASK, call("a"), result("a"), ASK, result("a"), ANSWER), "messages[4].tool_call_id", "orphan_result"),
        ((ASK, call(None), ANSWER), "messages[1].tool_calls", "unanswered_call"),
        ((ASK, call("a"), ASK, ANSWER), "messages[1].tool_calls", "unanswered_call"),
        ((ASK, call("a", "b"), result("a"), ANSWER), "messages[1].tool_calls", "unanswered_call"),
        ((ASK, call(None), ASK, call("b"), result("b"), ANSWER), "messages[1].tool_calls", "unanswered_call"),
    ],
)
def test_a_turn_that_cannot_stand_where_it_does_is_named(messages, field, code):
    assert refused(*messages) == (field, code)


def test_a_request_is_one_for_the_assistant_to_speak():
    request = Request("r", "", TOOLS, (ASK, call("a"), result("a")), Expected("answer"))
    turns.check(request, "x:1")
    turns.check(Request("r", "", TOOLS, (ASK,), Expected("answer"), gold=ANSWER), "x:1")
    for messages in ((ASK, ANSWER), (ASK, call("a"))):
        with pytest.raises(RowError):
            turns.check(Request("r", "", TOOLS, messages, Expected("answer")), "x:1")
