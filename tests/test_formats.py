"""Each format reads its rows into transcripts, and says of a bad row where and what."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import formats, jsontext
from data.formats import bfcl, openai, preference, router, seal_tools, simple_tool_calling, when2call, world
from data.load import DataConfig, load
from data.source import rows
from data.transcript import (
    AcceptedCall,
    Expected,
    Message,
    Request,
    RowError,
    Tool,
    ToolCall,
    Transcript,
    requests_of,
    transcript_of,
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


def said(name, text):
    return {"from": name, "value": text}


WEATHER = Tool("get_weather", "Weather.", SCHEMA)
OSLO = ToolCall("get_weather", {"city": "Oslo"})
ROME = ToolCall("get_weather", {"city": "Rome"})
ASK = Message("user", "Weather?")
CALLS = Message("assistant", "", (OSLO,))
BOTH = Message("assistant", "", (OSLO, ROME))
DONE = (Message("tool", "rain"), Message("assistant", "It rains."))
HERMES_SYSTEM = (
    "You call functions inside <tools></tools> tags. Here they are: <tools> {} </tools> Answer in <tool_call>."
)
PROSE = "Route it:\n- get_weather(city: str, days: int = 3): Weather.\n- now: The time.\n- Note: else no_tool."
SEAL_TOOL = {
    "api_name": "get_weather", "api_description": "Weather.", "field": "Air/Weather",
    "parameters": {"city": {"type": "str"}, "days": {"type": "int"}}, "required": ["city"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given", "messages", "why"),
    [
        ("sharegpt", {"tools": json.dumps([FLAT]), "conversations": [
            said("human", "Weather?"), said("function_call", '{"name": "get_weather", "arguments": {"city": "Oslo"}}'),
            said("observation", "rain"), said("gpt", "It rains.")]},
         (ASK, CALLS, *DONE), "calls and results are turns of their own"),
        ("sharegpt", {"tools": "", "system": "Be brief.", "conversations": [said("human", "Hi"), said("gpt", "Hi!")]},
         (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hi!")), "no tool, no call"),
        ("sharegpt", {"tools": [FLAT], "conversations": [said("human", "Weather?"), said("gpt", "Let me look."),
            said("function_call", '[{"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}]'),
            said("function_call", '{"name": "get_weather", "arguments": {"city": "Rome"}}')]},
         (ASK, Message("assistant", "Let me look.", (OSLO, ROME))), "text and calls one behind the other are one turn"),
        ("hermes", {"conversations": [said("system", HERMES_SYSTEM.replace("{}", json.dumps([NESTED]))),
            said("human", "Weather?"),
            said("gpt", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'),
            said("tool", "<tool_response>\nrain\n</tool_response>"), said("gpt", "It rains.")]},
         (ASK, CALLS, *DONE), "tools and calls stand in tags in the text"),
        ("hermes", {"conversations": [said("system", HERMES_SYSTEM.replace("{}", json.dumps(FLAT) * 1)),
            said("human", "Weather?"),
            said("gpt", "<tool_call>{'arguments': {'city': 'Oslo'}, 'name': 'get_weather'}</tool_call>\n"
                        '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'),
            said("tool", "<tool_response>rain</tool_response><tool_response>sun</tool_response>"),
            said("gpt", "Mixed.")]},
         (ASK, BOTH, Message("tool", "rain"), Message("tool", "sun"), Message("assistant", "Mixed.")),
         "two calls, one as Python prints it; a result each"),
        ("hermes", {"tools": json.dumps([FLAT]), "conversations": [
            said("system", "Be brief."), said("human", "Weather?"),
            said("gpt", 'Let me look. <tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>')]},
         (Message("system", "Be brief."), ASK, Message("assistant", "Let me look.", (OSLO,))),
         "a system turn without tools is kept, and so is text beside a call"),
        ("xlam", {"query": "Weather?", "tools": json.dumps([FLAT]),
                  "answers": '[{"name": "get_weather", "arguments": {"city": "Oslo"}}]'},
         (ASK, CALLS), "tools and answers are JSON strings"),
        ("toolace", {"system": f"You compose functions. Here they are: {json.dumps([FLAT])} Use [f(a=b)].",
            "conversations": [said("user", "Weather?"), said("assistant", "[get_weather(city='Oslo')]"),
                              said("tool", "rain"), said("assistant", "It rains.")]},
         (ASK, CALLS, *DONE), "tools in prose, calls as Python"),
        ("toolace", {"system": json.dumps([FLAT]), "conversations": [said("user", "Weather?"),
            said("assistant", '[get_weather(city="Oslo"), get_weather(city="Rome")]'),
            said("tool", '["rain", {"s": 1}]'), said("assistant", "[Note] So (it is).")]},
         (ASK, BOTH, Message("tool", "rain"), Message("tool", '{"s": 1}'), Message("assistant", "[Note] So (it is).")),
         "a list of as many results is one each; brackets alone are no call"),
        ("router", {"messages": [{"role": "system", "content": PROSE}, {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": '{"tool": "get_weather", "arguments": {"city": "Oslo"}}'}]},
         (ASK, CALLS), "the catalogue is prose"),
        ("router", {"messages": [{"role": "system", "content": f"Tools: {json.dumps(FLAT)} or no_tool"},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": '{"tool": "no_tool", "reason": "It is a greeting."}'}]},
         (Message("user", "Hi"), Message("assistant", "It is a greeting.")), "a reason is the text of its turn"),
        ("seal_tools", {"query": "Weather?", "tools": [SEAL_TOOL], "calling": [
            {"api": "get_weather", "parameters": {"city": "Oslo"}, "responses": ["API_call_0"]},
            {"api": "get_weather", "parameters": {"city": "API_call_0", "days": "API_call_0"}, "responses": []}]},
         (ASK, Message("assistant", "", (OSLO, ToolCall("get_weather", {"city": "API_call_0", "days": "API_call_0"})))),
         "a reference to an earlier response is kept as it is"),
        ("when2call", {"tools": [json.dumps(FLAT | {"parameters": SCHEMA | {"type": "dict"}})], "messages": [
            {"role": "user", "content": "Weather?"}, {"role": "assistant", "content":
             '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Oslo"}}]</TOOLCALL>'}]},
         (ASK, CALLS), "calls stand in a tag"),
    ],
)  # fmt: skip
def test_a_row_becomes_a_transcript(name, given, messages, why):
    transcript = formats.get(name).read(given, "rows.jsonl:3")
    assert transcript.messages == messages, why
    assert transcript.id == "rows.jsonl:3"
    if transcript.tools:
        assert [tool.name for tool in transcript.tools] in (["get_weather"], ["get_weather", "now"])
        assert transcript.tools[0].parameters["required"] == ["city"]


@pytest.mark.parametrize(
    ("line", "parameters", "why"),
    [
        ("- f(a: str, b: int = 3): X.",
         {"properties": {"a": {"type": "string"}, "b": {"type": "integer", "default": 3}}, "required": ["a"]},
         "a default makes an argument optional"),
        ("* `f(a, b?)` - X.", {"properties": {"a": {}, "b": {}}, "required": ["a"]}, "types may lack; ? is optional"),
        ("1. f(a: str, optional, c: list[str]) — X.", {"properties": {"a": {"type": "string"}, "c": {"type": "array"}},
                                                       "required": ["c"]}, "commas inside a type"),
        ("- f(): X.", {"properties": {}}, "nothing to give"),
        ("- f: X.", {"properties": {}, "additionalProperties": True}, "of whose arguments nothing is said"),
    ],
)  # fmt: skip
def test_a_line_of_a_catalogue_in_prose_is_a_tool(line, parameters, why):
    chat = [
        {"role": "system", "content": f"You route.\n{line}"},
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": '{"tool": "no_tool", "reason": "x"}'},
    ]
    tool = router.read({"messages": chat}, "x:1").tools[0]
    assert (tool.name, tool.description) == ("f", "X.")
    assert {key: value for key, value in tool.parameters.items() if key != "type" and value != []} == parameters, why


def test_any_wording_of_a_reason_not_to_call_is_right():
    chat = [{"role": "system", "content": PROSE}, {"role": "user", "content": "Hi"}]
    answers = ('{"tool": "no_tool", "reason": "A greeting."}', '{"tool": "get_weather", "arguments": {"city": "Oslo"}}')
    turns = [{"role": "assistant", "content": text} for text in answers]
    first, second = requests_of(router.read({"messages": [*chat, turns[0], chat[1], turns[1]]}, "x:1"))
    assert first.expected == Expected("answer")
    assert second.expected == Expected("call", (AcceptedCall("get_weather", {"city": ["Oslo"]}),))


def bfcl_row(**changes):
    function = FLAT | {"parameters": SCHEMA | {"type": "dict"}}
    return {
        "id": "multiple_7",
        "question": [[{"role": "user", "content": "Weather?"}]],
        "function": [function],
    } | changes


@pytest.mark.parametrize(
    ("truth", "arguments", "optional", "why"),
    [
        ({"city": ["Oslo", "oslo"]}, {"city": ["Oslo", "oslo"]}, (), "any of these"),
        ({"city": ["Oslo", ""]}, {"city": ["Oslo"]}, ("city",), '"" marks an optional argument'),
        ({"city": [""]}, {"city": []}, ("city",), "best left out"),
        ({"to": [{"a": [1, 2], "b": [3, ""]}]}, {"to": [{"a": 1, "b": 3}, {"a": 1}, {"a": 2, "b": 3}, {"a": 2}]}, (),
         "objects hold accepted values themselves"),
        ({"to": [[{"a": [1, 2]}, {"a": [3]}]]}, {"to": [[{"a": 1}, {"a": 3}], [{"a": 2}, {"a": 3}]]}, (),
         "and so do lists of them"),
        ({"to": [[1, 2], [2, 1]]}, {"to": [[1, 2], [2, 1]]}, (), "plain lists are values"),
    ],
)  # fmt: skip
def test_an_accepted_call_of_bfcl_lists_every_value_that_is_right(truth, arguments, optional, why):
    request = bfcl.read(bfcl_row(ground_truth=[{"get_weather": truth}]), "x:1")
    assert request.expected == Expected("call", (AcceptedCall("get_weather", arguments, optional),)), why
    assert (request.id, request.kind, request.gold) == ("multiple_7", "multiple", None)
    assert request.tools == (WEATHER,)


def test_a_bfcl_row_may_have_python_calls_for_answers_or_none():
    request = bfcl.read(bfcl_row(ground_truth=["get_weather(city='Oslo')"]), "x:1")
    assert request.expected.calls == (AcceptedCall("get_weather", {"city": ["Oslo"]}),)
    assert bfcl.read(bfcl_row(ground_truth=[]), "x:1").expected == Expected("answer")


@pytest.mark.parametrize(
    ("right", "text", "expected"),
    [
        ("tool_call", '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Oslo"}}]</TOOLCALL>',
         Expected("call", (AcceptedCall("get_weather", {"city": ["Oslo"]}),))),
        ("tool_call", '{"name": "get_weather", "arguments": {"city": "Oslo"}}',
         Expected("call", (AcceptedCall("get_weather", {"city": ["Oslo"]}),))),
        ("request_for_info", "Which city?", Expected("ask")),
        ("cannot_answer", "I have no tool for this.", Expected("refuse")),
        ("direct", "It is 4.", Expected("answer", text="It is 4.")),
        ("cannot_answer", None, Expected("refuse")),  # answers may be lacking
    ],
)  # fmt: skip
def test_a_question_of_when2call_is_a_request_with_one_of_four_acts(right, text, expected):
    row = {"uuid": "u", "question": "Weather?", "correct_answer": right, "tools": [json.dumps(FLAT)]}
    request = when2call.read(row | ({"answers": {right: text, "other": "x"}} if text else {}), "x:1")
    assert (request.id, request.kind, request.expected) == ("u", expected.act, expected)
    assert request.messages == (ASK,)
    assert (request.gold is None) == (text is None)


def test_a_question_of_when2call_keeps_a_turn_for_each_act_that_is_not_right():
    answers = {
        "direct": "It is 4.",
        "tool_call": '[{"name": "get_weather", "arguments": {"city": "Oslo"}}]',
        "request_for_info": "Which city?",
        "cannot_answer": "<TOOLCALL>[]</TOOLCALL>",  # no refusal, and no call either
        "other": "x",
    }
    row = {"question": "Weather?", "correct_answer": "request_for_info", "tools": [json.dumps(FLAT)]}
    request = when2call.read(row | {"answers": answers}, "x:1")
    assert request.gold == Message("assistant", "Which city?")
    assert request.others == {
        "answer": Message("assistant", "It is 4."),
        "call": Message("assistant", tool_calls=(ToolCall("get_weather", {"city": "Oslo"}),)),
        "refuse": Message("assistant"),
    }
    for broken in ("get weather", None, "[]"):
        other = when2call.read(row | {"answers": answers | {"tool_call": broken}}, "x:1").others
        assert set(other) == {"answer", "refuse"}


ASKED = {"role": "user", "content": "Weather?"}
CHOSEN = {"role": "assistant", "content": "", "tool_calls": [CALL]}
REJECTED = {"role": "assistant", "content": "It is fine."}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("preference", {"prompt": [ASKED], "chosen": [CHOSEN], "rejected": [REJECTED]}),
        ("preference", {"prompt": "Weather?", "chosen": CHOSEN, "rejected": "It is fine."}),
        ("preference", {"chosen": [ASKED, CHOSEN], "rejected": [ASKED, REJECTED]}),
        ("when2call", {"messages": [ASKED], "chosen_response": CHOSEN, "rejected_response": "It is fine."}),
        ("when2call", {"messages": [ASKED], "chosen": CHOSEN, "rejected": REJECTED}),
    ],
)
def test_a_preference_row_is_a_request_with_both_answers(name, given):
    request = formats.get(name).read(given | {"tools": [NESTED]}, "rows.jsonl:3")
    chosen = Message("assistant", "", (ToolCall("get_weather", {"city": "Oslo"}, "c1"),))
    assert (request.messages, request.gold, request.rejected) == ((ASK,), chosen, Message("assistant", "It is fine."))
    assert preference.read(jsontext.loads(jsontext.dumps(preference.write(request))), "x:1") == request
    assert transcript_of(request).messages == (ASK, chosen)


@pytest.mark.parametrize(
    ("name", "given", "field"),
    [
        ("sharegpt", {"conversations": [said("robot", "x")]}, "conversations[0].from"),
        ("sharegpt", {"conversations": [said("human", "x"), said("function_call", "f(x)")]}, "conversations[1].value"),
        ("sharegpt", {"conversations": [said("human", "x"), said("function_call", "[]")]}, "conversations[1].value"),
        ("sharegpt", {"conversations": [said("human", "x")]}, "messages"),
        ("hermes", {"conversations": [said("human", "x"), said("gpt", "<tool_call>{")]}, "conversations[1].value"),
        ("hermes", {"conversations": [said("system", "<tools>nothing</tools>")]}, "conversations[0].value"),
        ("xlam", {"query": "", "answers": "[]"}, "query"),
        ("xlam", {"query": "x", "answers": "[]"}, "answers"),
        ("xlam", {"query": "x", "answers": "get_weather()"}, "answers"),
        ("toolace", {"system": "", "conversations": [said("user", "x"), said("assistant", "[f(1)]")]},
         "conversations[1].value"),
        ("toolace", {"system": 3, "conversations": []}, "system"),
        ("router", {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Hi"}]},
         "messages[1].content"),
        ("router", {"messages": [{"role": "user", "content": "x"},
                                 {"role": "assistant", "content": '{"tool": "no_tool"}'}]},
         "messages[1].content.reason"),
        ("seal_tools", {"query": "x", "calling": []}, "calling"),
        ("seal_tools", {"query": "x", "calling": [{"api": "f", "parameters": {"a": "API_call_0"}, "responses": []}]},
         "calling[0].parameters.a"),
        ("bfcl", bfcl_row(), "ground_truth"),
        ("bfcl", bfcl_row(question=[[], []]), "question"),
        ("bfcl", bfcl_row(question=[[]], ground_truth=[]), "question[0]"),
        ("bfcl", bfcl_row(ground_truth=[{"f": {"a": "Oslo"}}]), "ground_truth[0].f.a"),
        ("bfcl", bfcl_row(ground_truth=[{"f": {"a": []}}]), "ground_truth[0].f.a"),
        ("bfcl", bfcl_row(ground_truth=["f(a)"]), "ground_truth[0]"),
        ("bfcl", bfcl_row(ground_truth=[{"f": {"a": [{str(n): [1, 2, 3] for n in range(9)}]}}]), "ground_truth[0].f.a"),
        ("when2call", {"question": "x", "correct_answer": "sing"}, "correct_answer"),
        ("when2call", {"question": "x", "correct_answer": "tool_call"}, "answers.tool_call"),
        ("when2call", {"question": "x", "correct_answer": "tool_call", "answers": {"tool_call": "It rains."}},
         "answers.tool_call"),
        ("preference", {"prompt": "x", "chosen": "a", "rejected": "a"}, "rejected"),
        ("preference", {"prompt": "x", "chosen": [], "rejected": "a"}, "chosen"),
        ("preference", {"prompt": "x", "chosen": "a"}, "rejected"),
    ],
)  # fmt: skip
def test_a_bad_row_of_any_format_names_its_place_and_field(name, given, field):
    with pytest.raises(RowError) as caught:
        formats.get(name).read(given, "rows.jsonl:12")
    assert (caught.value.place, caught.value.field) == ("rows.jsonl:12", field)


def test_seal_tools_offers_others_of_the_field_and_then_of_its_area(tmp_path):
    tools = [
        SEAL_TOOL | {"api_name": name, "field": field}
        for name, field in (
            ("get_weather", "Air/Weather"),
            ("wind", "Air/Weather"),
            ("fly", "Air/Travel"),
            ("eat", "Food"),
        )
    ]
    path = tmp_path / "seal_tools.jsonl"
    path.write_text("".join(json.dumps(tool) + "\n" for tool in tools))
    row = {"id": "r", "query": "x", "calling": [{"api": "get_weather", "parameters": {"city": "Oslo"}}]}
    for count, names in ((0, {"get_weather"}), (1, {"get_weather", "wind"}), (4, {"get_weather", "wind", "fly"})):
        complete = seal_tools.completing(path, path, 0, count)
        assert {tool["api_name"] for tool in complete(row, "x:1")["tools"]} == names
        assert complete(row, "x:1") == complete(row, "x:9")
    orders = {
        tuple(t["api_name"] for t in seal_tools.completing(path, path, s, 4)(row, "x:1")["tools"]) for s in range(9)
    }
    assert len(orders) > 1


RECOGNISED = [
    ("openai", row()),
    ("world", row(expected=[])),
    ("sharegpt", {"tools": "[]", "conversations": [said("human", "x"), said("gpt", "y")]}),
    ("hermes", {"tools": "[]", "conversations": [said("human", "x"), said("gpt", "<tool_call>{}</tool_call>")]}),
    ("xlam", {"id": 1, "query": "x", "tools": "[]", "answers": "[]"}),
    ("toolace", {"system": "[{\"name\": \"f\"}]", "conversations": [said("user", "x"), said("assistant", "[f()]")]}),
    ("simple_tool_calling", {"user_content": "x", "tool_name": "y", "tool_arguments": "{}"}),
    ("router", {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": '{"tool": "f"}'}]}),
    ("seal_tools", {"id": "r", "query": "x", "calling": []}),
    ("bfcl", bfcl_row()),
    ("when2call", {"tools": ["{}"], "messages": [{"role": "user", "content": "x"}]}),
    ("when2call", {"tools": ["{}"], "messages": [], "chosen_response": {}, "rejected_response": {}}),
    ("when2call", {"tools": [], "messages": [], "chosen": {}, "rejected": {}}),
    ("when2call", {"tools": ["{}"], "question": "x", "correct_answer": "direct"}),
    ("preference", {"prompt": "x", "chosen": "a", "rejected": "b"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given"), RECOGNISED)
def test_a_format_is_guessed_from_its_rows_with_a_reason(name, given):
    guessed, why = formats.guess([given, given])
    assert guessed == name
    assert why


def test_every_format_can_be_guessed_and_what_cannot_be_says_so():
    assert {name for name, _ in RECOGNISED} == set(formats.names())
    with pytest.raises(ValueError, match=r"fit no format \(they have text\).*openai"):
        formats.guess([{"text": "x"}])
    with pytest.raises(ValueError, match="several formats: bfcl, xlam"):
        formats.guess([bfcl_row() | {"query": "x", "tools": "[]", "answers": "[]"}])


PUBLISHED = {
    "simple_tool_calling.jsonl": 40, "sharegpt_glaive_demo.json": 300, "seal_tools_dev.jsonl": 700,
    "bfcl_v4_simple_python.jsonl": 400, "bfcl_v4_multiple.jsonl": 200, "bfcl_v4_parallel.jsonl": 200,
    "bfcl_v4_irrelevance.jsonl": 240,
}  # fmt: skip


@pytest.mark.parametrize(("file", "count"), PUBLISHED.items())
def test_published_rows_are_read_with_at_most_two_per_cent_rejected(file, count):
    if not (SAMPLES / file).exists():
        pytest.skip("the sample rows are not beside this checkout")
    found = list(rows(DataConfig(format="auto", train=str(SAMPLES / file)), "train"))
    rejected = [row for row in found if isinstance(row, RowError)]
    assert len(found) == count
    assert len(rejected) <= 0.02 * count, [str(error) for error in rejected]
    assert {error.code for error in rejected} <= {"arguments"}  # what is left breaks its own schema


WORD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NAME = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
VALUE = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | WORD | st.lists(st.integers(0, 9), max_size=2)
MADE = st.lists(st.builds(ToolCall, NAME, st.dictionaries(WORD, VALUE, max_size=3)), min_size=1, max_size=2).map(tuple)
TURN = st.builds(lambda text: Message("assistant", text), WORD.filter(str.strip)) | st.builds(
    lambda calls: Message("assistant", "", calls), MADE
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


def test_a_request_survives_being_written_and_read_as_a_row_of_the_world():
    calls = (AcceptedCall("get_weather", {"city": ["Oslo", "oslo"], "days": [3]}, ("days",)),)
    tool = Tool("get_weather", "Weather.", SCHEMA)
    request = Request("r1", "needed", (tool,), (Message("system", "Be brief."), ASK), Expected("call", calls))
    assert world.read(jsontext.loads(jsontext.dumps(world.write_request(request))), "x:1") == request
    assert formats.guess([world.write_request(request)])[0] == "world"
    asked = replace(request, source="get_weather: Weather?", expected=Expected("ask", lacking=("city",)))
    assert world.read(jsontext.loads(jsontext.dumps(world.write_request(asked))), "x:1") == asked
    assert not {"source", "lacking"} & {*world.write_request(request), *world.write_request(request)["expected"]}


@pytest.mark.parametrize("name", ["openai", "world"])
def test_the_language_that_a_row_names_goes_with_its_requests_and_into_no_digest(name, tmp_path):
    read = {"openai": openai, "world": world}[name].read
    assert read(row(), "x:1").language is None
    spoken = read(row(language="no"), "x:1")
    (request, *_) = requests_of(spoken)
    assert (spoken.language, request.language) == ("no", "no")
    assert world.read(world.write(spoken), "x:1").language == "no"
    assert world.read(world.write_request(request), "x:1").language == "no"
    digests = set()
    for more in ({}, {"language": "no"}):
        test = tmp_path / "test.jsonl"
        test.write_text(json.dumps(row(**more)))
        digests.add(load(DataConfig(test=str(test), test_format="openai")).digest)
    assert len(digests) == 1


def test_requests_of_one_conversation_or_of_one_id_are_of_one_source(tmp_path):
    (alone,) = requests_of(openai.read(row() | {"id": "a", "messages": [ASKED, CHOSEN]}, "x:1"))
    both = requests_of(openai.read(row() | {"id": "b", "messages": [ASKED, CHOSEN, ASKED, CHOSEN]}, "x:1"))
    assert [each.source for each in (alone, *both)] == [None, "b", "b"]
    assert requests_of(replace(openai.read(row(), "x:1"), source="made"))[0].source == "made"
    lines = [row() | {"id": name, "messages": [ASKED, CHOSEN]} for name in ("a", "c", "a")]
    (tmp_path / "rows.jsonl").write_text("".join(jsontext.dumps(line) + "\n" for line in lines))
    config = DataConfig(format="openai", train=f"{tmp_path}/rows.jsonl", test=f"{tmp_path}/rows.jsonl")
    assert [(each.id, each.source) for each in load(config).test] == [("a", "a"), ("c", None), ("a~2", "a")]


def test_a_question_of_when2call_says_the_row_it_was_made_from():
    question = {"question": "Weather?", "correct_answer": "cannot_answer", "tools": [], "uuid": "u1"}
    assert when2call.read(question | {"source_id": "live_simple_19-3-15"}, "x:1").source == "live_simple_19-3-15"
    assert when2call.read(question, "x:1").source is None


def test_a_request_must_end_where_an_assistant_is_to_speak():
    for messages in ([], [ASKED, CHOSEN]):
        with pytest.raises(RowError) as caught:
            world.read({"messages": messages, "expected": {"act": "answer"}}, "x:1")
        assert caught.value.field == "messages"


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
        "expected[0].lacking": [entry | {"lacking": ["a"]}, answer],
        "expected[1].lacking[0]": [entry, {"act": "ask", "lacking": [""]}],
        "expected[0].calls[0].optional": [
            entry | {"calls": [{"name": "f", "arguments": {}, "optional": ["a"]}]},
            answer,
        ],
    }
    for field, expected in wrong.items():
        with pytest.raises(RowError) as caught:
            world.read(good | {"expected": expected}, "x:1")
        assert caught.value.field == field
    with pytest.raises(RowError) as caught:
        world.read(good | {"source": 3}, "x:1")
    assert caught.value.field == "source"


KEYS = ["messages", "role", "content", "tool_calls", "function", "name", "arguments", "tools", "expected"]
KEYS += ["from", "value", "api", "parameters", "api_name", "responses"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | WORD
    | st.sampled_from(["user", "assistant", "tool", "{}", "[]", "[f()]", "<tool_call>{}</tool_call>", "direct"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


FIELDS = ["messages", "tools", "expected", "user_content", "tool_name", "tool_arguments", "conversations", "system"]
FIELDS += ["query", "answers", "calling", "question", "function", "ground_truth", "correct_answer"]
FIELDS += ["prompt", "chosen", "rejected", "chosen_response", "rejected_response"]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_no_row_raises_anything_but_a_row_error(anything):
    for name in formats.names():
        reader = formats.get(name)
        with contextlib.suppress(RowError):
            reader.read(anything, "x:1")
        assert isinstance(reader.recognised(anything), str | None)
