"""Each format reads its rows into transcripts, and says of a bad row where and what."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import formats, jsontext
from data.formats import openai, simple_tool_calling, world
from data.transcript import (
    AcceptedCall,
    Expected,
    Message,
    RowError,
    Tool,
    ToolCall,
    Transcript,
    requests_of,
)

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NESTED = {"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": SCHEMA}}
FLAT = {"name": "get_weather", "description": "Weather.", "parameters": SCHEMA}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}


def row(**changes):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "assistant", "content": "It rains."},
    ]
    return {"messages": messages, "tools": [NESTED]} | changes


def with_call(call):
    changed = row()
    changed["messages"][2] = {"role": "assistant", "tool_calls": [call]}
    return changed


def test_an_openai_row_becomes_a_transcript_with_a_request_for_each_assistant_turn():
    transcript = openai.read(row(), "rows.jsonl:3")
    assert transcript.id == "rows.jsonl:3"
    assert transcript.tools == (Tool("get_weather", "Weather.", SCHEMA),)
    assert transcript.messages[3] == Message("tool", "rain", tool_call_id="c1", name="get_weather")
    first, second = requests_of(transcript)
    assert first.expected == Expected("call", (AcceptedCall("get_weather", {"city": ["Oslo"]}),))
    assert (second.expected.act, second.expected.text) == ("answer", "It rains.")
    assert len(second.messages) == 4


@pytest.mark.parametrize(
    "same",
    [
        row(tools=[FLAT]),
        row(tools=json.dumps([NESTED])),
        row(tools=[json.dumps(FLAT)]),
        row(tools=[FLAT | {"parameters": json.dumps(SCHEMA)}]),
        row(tools=[FLAT | {"parameters": SCHEMA | {"type": "dict", "properties": {"city": {"type": "str"}}}}]),
        row(tools=[FLAT | {"parameters": {"city": {"type": "str", "required": True}}}]),
        row(tools=None, functions=[FLAT]),
        with_call(CALL | {"function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}),
        with_call({"id": "c1", "name": "get_weather", "arguments": {"city": "Oslo"}}),
        row(id=None, extra="x"),
    ],
)  # fmt: skip
def test_variants_of_a_row_read_the_same(same):
    same = {key: value for key, value in same.items() if value is not None}
    assert openai.read(same, "x:1") == openai.read(row(), "x:1")


def test_flat_calls_without_ids_and_legacy_function_calls_are_read():
    transcript = openai.read(with_call({"name": "get_weather", "arguments": {"city": "Oslo"}}), "x:1")
    assert transcript.messages[2].tool_calls == (ToolCall("get_weather", {"city": "Oslo"}),)
    legacy = row()
    legacy["messages"][2] = {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "get_weather", "arguments": "{}"},
    }
    legacy["messages"][3] = {"role": "function", "name": "get_weather", "content": {"sky": ["rain"]}}
    transcript = openai.read(legacy, "x:1")
    assert transcript.messages[2].tool_calls == (ToolCall("get_weather", {}),)
    assert transcript.messages[3] == Message("tool", '{"sky": ["rain"]}', name="get_weather")


def test_text_parts_are_joined_and_a_row_without_tools_has_none():
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    chat = [{"role": "user", "content": parts}, {"role": "assistant", "content": "Hi."}]
    transcript = openai.read({"messages": chat, "id": 7}, "x:1")
    assert transcript.messages[0].content == "Hello"
    assert transcript.tools == ()
    assert transcript.id == "7"


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "bot", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [3]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}, "messages[1]"),
        ({"messages": [{"role": "user", "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
        (with_call({"name": ""}), "messages[2].tool_calls[0].name"),
        (with_call({"function": {"name": "f", "arguments": "{"}}), "messages[2].tool_calls[0].function.arguments"),
        (with_call({"function": {"name": "f", "arguments": "[1]"}}), "messages[2].tool_calls[0].function.arguments"),
        (with_call({"name": "f", "arguments": '{"a": 1, "a": 2}'}), "messages[2].tool_calls[0].arguments"),
        (with_call("f()"), "messages[2].tool_calls[0]"),
        (row(tools="[{"), "tools"),
        (row(tools=[{"description": "x"}]), "tools[0].name"),
        (row(tools=[FLAT, FLAT]), "tools[1].name"),
        (row(tools=[FLAT | {"parameters": {"type": "string"}}]), "tools[0].parameters"),
        (row(tools=[FLAT | {"parameters": {"x": {"type": "colour"}}}]), "tools[0].parameters"),
    ],
)
def test_a_bad_openai_row_names_its_place_and_field(bad, field):
    with pytest.raises(RowError) as caught:
        openai.read(bad, "rows.jsonl:12")
    assert (caught.value.place, caught.value.field) == ("rows.jsonl:12", field)


def test_a_simple_row_is_a_question_with_one_call_and_both_tools_on_offer():
    simple = {"user_content": "Who won?", "tool_name": "search_google", "tool_arguments": '{"query": "winner"}'}
    transcript = simple_tool_calling.read(simple, "dir/rows.jsonl:1")
    assert transcript.id == "rows.jsonl:1"
    assert [tool.name for tool in transcript.tools] == ["search_knowledge_base", "search_google"]
    assert transcript.messages[1].tool_calls == (ToolCall("search_google", {"query": "winner"}),)
    assert simple_tool_calling.read(simple | {"tool_arguments": {"query": "winner"}}, "dir/rows.jsonl:1") == transcript


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user_content": None}, "user_content"),
        ({"user_content": " "}, "user_content"),
        ({"tool_name": "search_bing"}, "tool_name"),
        ({"tool_arguments": "query"}, "tool_arguments"),
        ({"tool_arguments": None}, "tool_arguments"),
    ],
)
def test_a_bad_simple_row_names_its_field(change, field):
    simple = {"user_content": "Who won?", "tool_name": "search_google", "tool_arguments": '{"query": "winner"}'}
    with pytest.raises(RowError) as caught:
        simple_tool_calling.read(simple | change, "x:1")
    assert caught.value.field == field


def test_every_published_simple_row_reads():
    path = SAMPLES / "simple_tool_calling.jsonl"
    if not path.exists():
        pytest.skip("the sample rows are not beside this checkout")
    rows = [
        simple_tool_calling.read(json.loads(line), f"x:{n}") for n, line in enumerate(path.read_text().splitlines())
    ]
    assert len(rows) == 40
    assert {transcript.messages[1].tool_calls[0].name for transcript in rows} == {tool.name for tool in rows[0].tools}


WORD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NAME = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
VALUE = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | WORD | st.lists(st.integers(0, 9), max_size=2)
CALLS = st.lists(st.builds(ToolCall, NAME, st.dictionaries(WORD, VALUE, max_size=3)), min_size=1, max_size=2).map(tuple)
TURN = st.builds(lambda text: Message("assistant", text), WORD.filter(str.strip)) | st.builds(
    lambda calls: Message("assistant", "", calls), CALLS
)
TOOL = st.builds(Tool, NAME, WORD, st.just(SCHEMA))


@given(
    st.lists(st.tuples(WORD, TURN), min_size=1, max_size=3),
    st.lists(TOOL, max_size=2, unique_by=lambda t: t.name),
    WORD,
)
def test_a_transcript_of_the_world_survives_being_written_and_read(turns, tools, kind):
    messages = [message for text, turn in turns for message in (Message("user", text), turn)]
    expected = tuple(
        Expected("call", tuple(AcceptedCall.exactly(call) for call in turn.tool_calls))
        if turn.tool_calls
        else Expected("answer", text=turn.content)
        for _, turn in turns
    )
    transcript = Transcript("t1", tuple(tools), tuple(messages), kind, expected)
    line = jsontext.dumps(world.write(transcript))
    assert world.read(jsontext.loads(line), "x:1") == transcript


def test_a_world_row_with_a_wrong_answer_key_is_refused():
    good = world.write(openai.read(row(), "x:1"))
    entry = {"act": "call", "calls": [{"name": "f", "arguments": {"a": [1]}, "optional": ["a"]}]}
    answer = {"act": "answer", "text": "x"}
    assert len(world.read(good | {"expected": [entry, answer]}, "x:1").expected) == 2
    wrong = {
        "expected": [answer],
        "expected[0].act": [{"act": "sing"}, answer],
        "expected[0].calls": [{"act": "call"}, answer],
        "expected[1].calls": [entry, answer | {"calls": entry["calls"]}],
        "expected[0].calls[0].arguments.a": [entry | {"calls": [{"name": "f", "arguments": {"a": 1}}]}, answer],
        "expected[0].calls[0].optional": [
            entry | {"calls": [{"name": "f", "arguments": {}, "optional": ["a"]}]},
            answer,
        ],
    }
    for field, expected in wrong.items():
        with pytest.raises(RowError) as caught:
            world.read(good | {"expected": expected}, "x:1")
        assert caught.value.field == field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | WORD | st.sampled_from(["user", "assistant", "tool", "{}", "[]"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "role", "content", "tool_calls", "function", "name", "arguments", "tools", "expected"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    st.dictionaries(
        st.sampled_from(["messages", "tools", "expected", "user_content", "tool_name", "tool_arguments"]), JSON
    )
)
def test_no_row_raises_anything_but_a_row_error(anything):
    for name in formats.names():
        with contextlib.suppress(RowError):
            formats.get(name).read(anything, "x:1")
