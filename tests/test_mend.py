"""Calls to be trained are put right where that takes no guessing, each change counted, or refused with their place."""

from __future__ import annotations

import re

import pytest

from data.mend import mended
from data.transcript import (
    AcceptedCall,
    Expected,
    Message,
    Request,
    RowError,
    Tool,
    ToolCall,
    Transcript,
    expected_of,
)

PROPERTIES = {
    "city": {"type": "string"},
    "days": {"type": "integer"},
    "height": {"type": "number"},
    "now": {"type": "boolean"},
    "any": {},
    "maybe": {"type": ["integer", "null"]},
    "spots": {"type": "array", "items": {"type": "number"}},
    "to": {"type": "object", "properties": {"n": {"type": "integer"}, "m": {"type": "string"}}, "required": ["n"]},
}
TOOL = Tool("look", "", {"type": "object", "properties": PROPERTIES, "required": ["city"]})
REFERENCE = re.compile(r"call_[0-9]+")


def transcript(arguments, expected=(), tools=(TOOL,)):
    turn = Message("assistant", "", (ToolCall("look", {"city": "Oslo"} | arguments),))
    return Transcript("t", tools, (Message("user", "Look!"), turn), expected=expected)


@pytest.mark.parametrize(
    ("given", "becomes", "changes"),
    [
        ({"days": 3}, {"days": 3}, ()),
        ({"days": "3"}, {"days": 3}, ("text to number",)),
        ({"days": "-3"}, {"days": -3}, ("text to number",)),
        ({"height": "3"}, {"height": 3}, ("text to number",)),
        ({"height": "2.5e1"}, {"height": 25.0}, ("text to number",)),
        ({"now": "true"}, {"now": True}, ("text to boolean",)),
        ({"now": "False"}, {"now": False}, ("text to boolean",)),
        ({"days": None}, {}, ("null left out",)),
        ({"maybe": None}, {"maybe": None}, ()),  # null is what its schema allows
        ({"any": None}, {"any": None}, ()),
        ({"any": "3"}, {"any": "3"}, ()),  # nothing says that a number is wanted
        ({"spots": ["1", 2]}, {"spots": [1, 2]}, ("text to number",)),
        ({"to": {"n": "1", "m": None}}, {"to": {"n": 1}}, ("text to number", "null left out")),
        ({"days": None, "now": "true"}, {"now": True}, ("null left out", "text to boolean")),
    ],
)  # fmt: skip
def test_what_is_exactly_meant_is_put_right_and_counted(given, becomes, changes):
    better, told = mended(transcript(given), "x:1")
    assert better.messages[1].tool_calls[0].arguments == {"city": "Oslo"} | becomes
    assert told == changes


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"days": "three"}, ".days"),
        ({"days": "03"}, ".days"),
        ({"days": " 3"}, ".days"),
        ({"days": 3.0}, ".days"),
        ({"days": "3.0"}, ".days"),
        ({"days": "1" * 30}, ".days"),
        ({"height": "1e999"}, ".height"),
        ({"height": "NaN"}, ".height"),
        ({"now": "yes"}, ".now"),
        ({"now": 1}, ".now"),
        ({"city": None}, ".city"),  # it is required
        ({"city": 3}, ".city"),
        ({"spots": ["1", "x"]}, ".spots[1]"),
        ({"to": {"m": "x"}}, ".to"),
        ({"what": 1}, ""),
    ],
)  # fmt: skip
def test_what_would_have_to_be_guessed_is_refused_with_its_place(given, field):
    with pytest.raises(RowError) as caught:
        mended(transcript(given), "x:1")
    assert (caught.value.place, caught.value.code) == ("x:1", "arguments")
    assert caught.value.field == f"messages[1].tool_calls[0].arguments{field}"


def test_a_call_of_a_tool_that_is_not_on_offer_is_refused():
    for tools, words in (((), "data.tools"), ((Tool("other", "", {}),), "other")):
        with pytest.raises(RowError, match=words) as caught:
            mended(transcript({}, tools=tools), "x:1")
        assert caught.value.code == "unknown_tool"


def test_a_value_that_the_answer_key_accepts_is_right_even_outside_the_schema():
    key = AcceptedCall("look", {"city": ["Oslo"], "days": ["three", 3]})
    row = transcript({"days": "three"}, (Expected("call", (key,)),))
    assert mended(row, "x:1") == (row, ())
    for other in (
        AcceptedCall("look", {"city": ["Rome"], "days": ["three"]}),
        AcceptedCall("look", {"city": ["Oslo"]}),
    ):
        with pytest.raises(RowError):
            mended(transcript({"days": "three"}, (Expected("call", (other,)),)), "x:1")


def test_a_reference_to_an_earlier_result_fits_any_type_where_a_format_has_such():
    row = transcript({"days": "call_0", "spots": ["call_1", "2"]})
    better, changes = mended(row, "x:1", REFERENCE)
    assert better.messages[1].tool_calls[0].arguments == {"city": "Oslo", "days": "call_0", "spots": ["call_1", 2]}
    assert changes == ("text to number",)
    with pytest.raises(RowError):
        mended(row, "x:1")
    with pytest.raises(RowError, match="call_x"):
        mended(transcript({"days": "call_x"}), "x:1", REFERENCE)


def test_a_row_with_nothing_to_put_right_stays_the_same_object():
    row = transcript({})
    assert mended(row, "x:1")[0] is row


def test_what_was_put_right_in_the_tools_is_told_with_the_row():
    tool = Tool("look", "", TOOL.parameters, ("type dict", "type float"))
    assert mended(transcript({"days": "3"}, tools=(tool,)), "x:1")[1] == ("type dict", "type float", "text to number")


def chat(calls, results):
    made = tuple(ToolCall(name, {"city": "Oslo"}, call_id) for name, call_id in calls)
    told = tuple(Message("tool", "rain", tool_call_id=call_id, name=name) for name, call_id in results)
    tools = (TOOL, Tool("now", "", TOOL.parameters))
    return Transcript("t", tools, (Message("user", "Look!"), Message("assistant", "", made), *told))


@pytest.mark.parametrize(
    ("calls", "results", "links", "made"),
    [
        ([("look", None)], [], [], 0),  # the last turn's call is not unanswered, and needs no id
        ([("look", None)], [(None, None)], ["call_0"], 2),
        ([("look", "a")], [(None, None)], ["a"], 1),
        ([("look", None)], [(None, "a")], ["a"], 1),
        ([("look", "a")], [(None, "a")], ["a"], 0),
        ([("look", "a")], [(None, "b")], ["b"], 0),  # an answer to no call stays one, for the check to tell
        ([("look", None), ("now", None)], [("now", None), ("look", None)], ["call_0", "call_1"], 4),
        ([("look", None), ("look", "call_0")], [(None, None), (None, None)], ["call_1", "call_0"], 3),
        ([("look", "a")], [(None, None), (None, None)], ["a", None], 1),
    ],
)  # fmt: skip
def test_answered_calls_get_the_ids_they_lack(calls, results, links, made):
    better, changes = mended(chat(calls, results), "x:1")
    assert [turn.tool_call_id for turn in better.messages[2:]] == links
    assert changes == ("id made",) * made
    ids = [call.id for call in better.messages[1].tool_calls if call.id]
    assert len(set(ids)) == len(ids)
    if None not in links and links and links != ["b"]:
        assert set(links) <= set(ids)


def test_the_gold_turn_of_a_request_is_put_right_with_what_is_expected_of_it():
    gold = Message("assistant", "", (ToolCall("look", {"city": "Oslo", "days": "3"}),))
    request = Request("r", "", (TOOL,), (Message("user", "Look!"),), expected_of(gold), gold)
    better, changes = mended(request, "x:1")
    assert better.gold == Message("assistant", "", (ToolCall("look", {"city": "Oslo", "days": 3}),))
    assert better.expected == expected_of(better.gold)
    assert changes == ("text to number",)


def test_an_answer_key_may_break_the_schema_and_may_not_name_a_tool_that_is_not_on_offer():
    odd = Request("r", "", (TOOL,), (), Expected("call", (AcceptedCall("look", {"days": ["three"]}),)))
    assert mended(odd, "x:1") == (odd, ())
    with pytest.raises(RowError) as caught:
        mended(Request("r", "", (TOOL,), (), Expected("call", (AcceptedCall("find", {}),))), "x:1")
    assert caught.value.code == "unknown_tool"
