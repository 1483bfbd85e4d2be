"""Dialects write calls, read them back, and see every attempt without ever raising."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data import dialects, jsontext
from data.dialects import hermes, native, pythonic, router
from data.dialects import json as json_dialect
from data.transcript import Message, Reading, Tool, ToolCall

WEATHER = Tool("get_weather", "Weather of a city.", {"type": "object", "properties": {"city": {"type": "string"}}})
TOOLS = (WEATHER, Tool("calculator", "Computes.", {"type": "object", "properties": {"expression": {"type": "string"}}}))
OSLO = ToolCall("get_weather", {"city": "Oslo"})
ROME = ToolCall("get_weather", {"city": "Rome"})
CALLED = ToolCall("get_weather", {"city": "Oslo"}, id="c1")
CONVERSATION = [
    Message("system", "Be brief."),
    Message("user", "Weather in Oslo and Rome?"),
    Message("assistant", "Let me look.", (CALLED, ROME)),
    Message("tool", "rain", tool_call_id="c1"),
    Message("tool", "sun"),
    Message("assistant", "Rain, sun."),
]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["</tool_call>", "<tool_call>", "```", '"}', "\\", "\n", "get_weather(", "\u2028", "<|im_end|>"]
)
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
CALL = st.builds(
    ToolCall, st.from_regex(r"[A-Za-z_][\w.-]{0,20}", fullmatch=True), st.dictionaries(TEXT, VALUE, max_size=3)
)
BROKEN = st.lists(
    st.sampled_from(
        ["<tool_call>", "</tool_call>", "\n", '{"name": "get_weather"', '"arguments": ', "{", "}", "[", "]", '"', "\\",
         ",", "NaN", "```", "get_weather(", "<think>", "</think>", "<|python_tag|>", "9" * 30,
         "\ud800", '{"a": 1, "a": 2}']
    ) | st.text(max_size=8),
    max_size=30,
).map("".join)  # fmt: skip


@pytest.fixture(params=dialects.names())
def dialect(request):
    return dialects.get(request.param)


def test_every_dialect_gives_back_the_calls_it_wrote(dialect):
    @given(st.lists(CALL, min_size=1, max_size=3))
    @example([ToolCall("f", {"small": 1e-07, "zero": -0.0, "long": -(2**63), "none": [None, [], {}], "": ""})])
    @example([ToolCall("f", {"code": "```python\nget_weather('x')\n```", "tag": "</tool_call>"})])
    def check(calls):
        reading = dialect.read(dialect.write(calls), TOOLS)
        assert reading.attempt
        assert reading.malformed == ()
        assert [call.name for call in reading.calls] == [call.name for call in calls]
        assert all(jsontext.same(a.arguments, b.arguments) for a, b in zip(reading.calls, calls, strict=True))

    check()


def test_no_text_makes_a_reader_raise(dialect):
    @given(BROKEN)
    def check(text):
        reading = dialect.read(text, TOOLS)
        assert bool(reading.calls or reading.malformed) if reading.attempt else not reading.calls

    check()


@pytest.mark.parametrize(
    "text",
    [
        "It is sunny.",
        "",
        "2 (two)",
        "The function f(x) = x.",
        '{"city": "Oslo", "population": 700000}',
        'A record: {"name": "Anna", "age": 7}',
        "```python\ndef calculator(a, b):\n    return a + b\n\nprint(calculator(1, 2))\n```",
        '```json\n{"name": "other_tool", "arguments": {}}\n```',
        "```html\n<tool_call>\n```",
        "I have no tool for the weather.",
    ],
)
def test_text_is_no_attempt(dialect, text):
    reading = dialect.read(text, TOOLS)
    assert not reading.attempt
    assert reading.text == text


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        "ok </tool_call>",
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}',
        '<tool_call>{"name": "get_weather", "arguments": {"city": NaN}}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {"city": "a", "city": "b"}}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": "{}"}</tool_call>',
        '<tool_call>{"name": "get_weather"}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {}, "x": 1}</tool_call>',
        '<tool_call>[{"name": "get_weather", "arguments": {}}]</tool_call>',
        'Sure: {"name": "get_weather", "arguments": {"city": "Oslo"}}',
        '{"name": "get_weather", "arguments": {"city": "Oslo"',
        "{'name': 'get_weather', 'arguments': {}}",
        '{"function": "get_weather", "arguments": {}}',
        '{"tool_calls": [{"function": {"name": "get_weather", "arguments": "{}"}}]}',
        '[{"name": "get_weather", "arguments": {}}, 3]',
        'get_weather(city="Oslo")',
        "Let me use get_weather(Oslo) for this.",
        '```json\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n```',
        '```\n<tool_call>{"name": "get_weather", "arguments": {}}</tool_call>\n```',
        '```python\nget_weather(city="Oslo")\n```',
        '[TOOL_CALLS] [{"name": "x"}]',
        '<function=get_weather>{"city": "Oslo"}</function>',
    ],
)
def test_an_attempt_that_does_not_parse_is_malformed(dialect, text):
    reading = dialect.read(text, TOOLS)
    assert reading.attempt
    assert reading.malformed
    assert reading.text == text


def test_text_before_blocks_is_kept_apart():
    reading = native.read(f"Let me look.\n{native.write([OSLO, ROME])}", TOOLS)
    assert reading.calls == (OSLO, ROME)
    assert reading.text == "Let me look."


def test_a_call_in_prose_beside_a_good_block_is_malformed():
    reading = native.read(f'{native.write([OSLO])}\nand get_weather("Rome")', TOOLS)
    assert reading.calls == (OSLO,)
    assert reading.malformed


def test_native_reads_the_bare_calls_of_llama():
    assert native.read('{"name": "get_weather", "parameters": {"city": "Oslo"}}', TOOLS).calls == (OSLO,)
    assert native.read('<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo"}}', TOOLS).calls == (OSLO,)


def test_the_name_of_a_call_need_not_be_on_offer():
    reading = native.read(native.write([ToolCall("teleport", {})]), TOOLS)
    assert reading.calls == (ToolCall("teleport", {}),)
    assert reading.malformed == ()


def test_thinking_is_no_part_of_the_answer(dialect):
    assert dialect.read("<think>get_weather( or not?</think>\n\nSunny.", TOOLS).text == "Sunny."
    assert not dialect.read("<think>get_weather(", TOOLS).attempt


def test_native_hands_tools_and_messages_to_the_template():
    tools, chat = native.show(TOOLS, [Message("user", "Hi"), Message("assistant", tool_calls=(OSLO,))])
    assert tools is not None
    assert tools[0]["function"]["name"] == "get_weather"
    assert chat[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}
    assert native.show((), [Message("user", "Hi")])[0] is None


def test_json_shows_schemas_calls_and_results_as_plain_turns():
    tools, chat = json_dialect.show(TOOLS, CONVERSATION)
    assert tools is None
    assert [turn["role"] for turn in chat] == ["system", "user", "assistant", "user", "assistant"]
    assert chat[0]["content"].startswith("Be brief.\n\n")
    assert jsontext.dumps(WEATHER.parameters) in chat[0]["content"]
    assert json_dialect.read(chat[2]["content"], TOOLS).calls == (OSLO, ROME)
    assert chat[3]["content"] == "Result of get_weather: rain\nResult of get_weather: sun"
    assert json_dialect.show((), [Message("user", "Hi")]) == (None, [{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize(
    "piece",
    [
        "<tool_call>",
        "<tool_call>{",
        '<tool_call>{"',
        "{",
        '{"name": "',
        "```",
        "```{",
        '"name": "',
        "get_weather(",
        "{}",
    ],
)
def test_reading_takes_time_in_proportion_to_the_text(dialect, piece):
    def seconds(times: int) -> float:
        best = 9.0
        for _ in range(3):
            start = time.process_time()
            dialect.read(piece * times, TOOLS)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(8_000) < max(0.02, 12 * seconds(1_000))


@pytest.mark.parametrize("brackets", range(6))
def test_a_tool_is_called_by_its_name_and_a_bracket_wherever_other_brackets_are(dialect, brackets):
    before, behind = "(so) " * (brackets // 2), " (see above)" * (brackets - brackets // 2)
    assert dialect.read(f"It is {before}get_weather(Oslo){behind}.", TOOLS).attempt
    assert not dialect.read(f"It is {before}get_weather (Oslo){behind}.", TOOLS).attempt
    assert not dialect.read(f"It is {before}forget_weather(Oslo){behind}.", TOOLS).attempt


def test_hermes_writes_tools_calls_and_results_in_tags():
    tools, chat = hermes.show(TOOLS, CONVERSATION)
    assert tools is None
    assert [turn["role"] for turn in chat] == ["system", "user", "assistant", "user", "assistant"]
    assert chat[0]["content"].startswith("Be brief.\n\n")
    assert f"<tools>\n{jsontext.dumps(WEATHER.as_function()['function'])}\n" in chat[0]["content"]
    reading = hermes.read(chat[2]["content"], TOOLS)
    assert (reading.text, reading.calls) == ("Let me look.", (OSLO, ROME))
    assert chat[3]["content"] == "<tool_response>\nrain\n</tool_response>\n<tool_response>\nsun\n</tool_response>"
    assert chat[4]["content"] == "Rain, sun."


def test_hermes_wants_the_tags_around_a_call():
    assert hermes.read('{"name": "get_weather", "arguments": {"city": "Oslo"}}', TOOLS).malformed


def test_pythonic_writes_calls_as_python_does():
    written = '[get_weather(city="Oslo"), get_weather(city="Rome")]'
    assert pythonic.show(TOOLS, CONVERSATION)[1][2]["content"] == pythonic.write([OSLO, ROME]) == written
    assert pythonic.read("[get_weather(city='Oslo')]", TOOLS).calls == (OSLO,)
    assert pythonic.read("[api.v1.find(tags=['a', None], deep={'x': -0.5}, **{'odd name': True})]", ()).calls == (
        ToolCall("api.v1.find", {"tags": ["a", None], "deep": {"x": -0.5}, "odd name": True}),
    )


@pytest.mark.parametrize(
    "text", ["[teleport(to='Mars'", "[teleport(to=Mars)]", "[teleport('Mars')]", "[teleport(", "[f(a=1)] and more"]
)
def test_pythonic_sees_that_a_call_was_begun(text):
    assert pythonic.read(text, TOOLS).malformed


@pytest.mark.parametrize("text", ["[1, 2]", "[]", "[see note (a)]", "[x] done (partly)", "[f (x) = 2]"])
def test_pythonic_takes_lists_and_brackets_in_prose_for_text(text):
    reading = pythonic.read(text, TOOLS)
    assert (reading.attempt, reading.text) == (False, text)


def test_pythonic_cannot_write_a_name_with_brackets():
    with pytest.raises(ValueError, match=r"cannot be written of a tool named 'f\(x\)'"):
        pythonic.write([ToolCall("f(x)", {})])


def test_router_says_everything_as_one_object():
    chat = router.show(TOOLS, CONVERSATION)[1]
    oslo, rome = (f'{{"tool": "get_weather", "arguments": {{"city": "{city}"}}}}' for city in ("Oslo", "Rome"))
    assert (router.write([OSLO]), chat[2]["content"]) == (oslo, f"[{oslo}, {rome}]")
    assert chat[4]["content"] == '{"tool": "no_tool", "reason": "Rain, sun."}'
    assert router.show((), [Message("assistant", "Hi.")])[1][0]["content"] == "Hi."  # nobody has asked for objects


@pytest.mark.parametrize("reason", ["Hello!", "", 'Say "calculator(1)" or {"tool": "get_weather"}', "a\nb\u2028"])
def test_router_reads_the_reason_back_as_the_text_and_no_attempt(reason):
    written = router.show(TOOLS, [Message("user", "Hi"), Message("assistant", reason)])[1][-1]["content"]
    assert router.read(written, TOOLS) == Reading(False, (), reason)


@pytest.mark.parametrize(
    "text", ['{"tool": "no_tool"}', '{"tool": "no_tool", "arguments": {}}', '{"tool": "no_tool", "reason": "I', "Hi!"]
)
def test_router_takes_what_no_application_could_read_for_malformed_text_and_no_attempt(text):
    reading = router.read(text, TOOLS)
    assert (reading.attempt, reading.text) == (False, text)
    assert reading.malformed
    assert not router.read("Hi!", ()).malformed


def test_router_has_no_room_for_a_tool_called_no_tool():
    with pytest.raises(ValueError, match="a tool cannot be called no_tool"):
        router.show([Tool("no_tool", "", {})], [])


def test_an_unknown_dialect_names_the_nearest_one():
    with pytest.raises(ValueError, match="did you mean native"):
        dialects.get("nativ")
