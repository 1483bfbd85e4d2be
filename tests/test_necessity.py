"""Necessity without labels: each reason, where the rules must abstain, and how often they are right."""

from __future__ import annotations

import doctest
import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import necessity as benchmark
from data.transcript import Expected, Message, Request, Tool, ToolCall
from data.world import WorldConfig, generate
from rewards import _fit, _necessity
from rewards._necessity import Necessity, necessity

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"


def tool(name: str, description: str, required: tuple[str, ...] = (), **properties: dict) -> Tool:
    return Tool(name, description, {"type": "object", "properties": properties, "required": list(required)})


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
WEATHER = tool("get_weather", "Get the current weather in a city.", ("city",), city=TEXT)
TIMER = tool("start_timer", "Start a timer of some minutes.", ("minutes",), minutes=WHOLE)
CALCULATE = tool("calculate", "Calculate the value of an expression.", ("expression",), expression=TEXT)
WEB = tool("web_search", "Search the web to find things online.", ("query",), query=TEXT)
EMAIL = tool("send_email", "Send an email.", ("email", "subject"), email=TEXT, subject=TEXT)
FLIGHTS = tool("search_flights", "Search flights.", ("origin", "destination"), origin=TEXT, destination=TEXT)
DOOR = tool("lock_door", "Lock a door.", ("door",), door={"type": "string", "enum": ["front", "back"]})
OVEN = tool("start_oven", "Start the oven.", ("degrees",), degrees=WHOLE | {"default": 180})
HOTEL = tool("book_hotel", "Book a hotel.", ("date",), date=TEXT)

OSLO = (
    Message("user", "How is the weather in Oslo?"),
    Message("assistant", "", (ToolCall("get_weather", {"city": "Oslo"}),)),
    Message("tool", '{"sky": "clear"}', name="get_weather"),
)
TOLD = (*OSLO, Message("assistant", "It is clear in Oslo."))


def ask(text: str, *tools: Tool, before: tuple[Message, ...] = ()) -> Necessity:
    return necessity(Request("r", "", tools, (*before, Message("user", text)), Expected("answer")))


@pytest.mark.parametrize("module", [_fit, _necessity], ids=lambda module: module.__name__)
def test_the_worked_examples_hold(module):
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize(
    ("text", "tools", "act", "reason"),
    [
        ("What is 7 times 8?", [CALCULATE], "answer", "trivial_sum"),
        ("What’s 15 + 4?", [CALCULATE], "answer", "trivial_sum"),
        ("81 / 9", [CALCULATE], "answer", "trivial_sum"),
        ("Add two and three, please.", [CALCULATE], "answer", "trivial_sum"),
        ("What is 17 times 23?", [CALCULATE], "call", "tool_fits"),  # too hard for the head
        ("What is 2 + 3 + 4?", [CALCULATE], "call", "tool_fits"),  # two operations
        ("Good morning, how are you?", [WEATHER], "answer", "small_talk"),
        ("Thank you very much!", [WEATHER], "answer", "small_talk"),
        ("Hi, how is the weather in Rome?", [WEATHER], "call", "tool_fits"),  # a greeting is not all
        ("Do not check the weather, just say hi.", [WEATHER], "answer", "declined"),
        ("Just say hello rather than looking up the weather.", [WEATHER], "answer", "declined"),
        ("Don't forget to set a timer of 5 minutes.", [TIMER], "call", "tool_fits"),  # a negation that wants it
        ("Without delay, start a timer of 5 minutes.", [TIMER], "call", "tool_fits"),
        ("I was told the weather in Rome is bad. How is the weather in Rome?", [WEATHER], "answer", "answered"),
        ("Lock the front door.", [WEATHER], "refuse", "no_tool_fits"),
        ("What is the capital of Peru?", [WEATHER], None, "no_tool_fits"),  # no call, but it may be known
        ("Write me a poem.", [], None, "no_tool_fits"),
        ("How is the weather?", [WEATHER], "ask", "missing_argument"),
        ("Set a timer.", [TIMER], "ask", "missing_argument"),
        ("Send an email.", [EMAIL], "ask", "missing_argument"),
        ("Find me a flight to Lima.", [FLIGHTS], "ask", "missing_argument"),  # one city of two
        ("Lock the door.", [DOOR], "ask", "missing_argument"),
        ("Lock the back door.", [DOOR], "call", "tool_fits"),
        ("Find flights from Rome to Lima.", [FLIGHTS], "call", "tool_fits"),
        ("Send an email to ann@post.test, subject 'see you'", [EMAIL], "call", "tool_fits"),
        ("Lock the front door.", [WEB], "refuse", "no_tool_fits"),  # a deed is not searched for
        ("Start the oven.", [OVEN], "call", "tool_fits"),  # the schema has a default
        ("Book a hotel for 3 May.", [HOTEL], "call", "tool_fits"),
        ("Set a timer of ten minutes.", [TIMER, WEATHER], "call", "tool_fits"),
    ],
)
def test_each_reason_has_its_act(text, tools, act, reason):
    found = ask(text, *tools)
    assert (found.act, found.reason) == (act, reason)
    assert found.needs_tool == (act == "call")
    assert 0 < found.confidence < 1


@pytest.mark.parametrize(
    ("text", "tools"),
    [
        ("What is the capital of Peru?", [WEB]),  # may be known, may be searched for
        ("I heard that Oslo is pretty. How is the weather in Oslo?", [WEATHER]),  # told something else
        ("Wie wird das Wetter in Oslo?", [TIMER]),  # not English: missing words say nothing
        ("奥斯陆天气怎么样", [TIMER]),
        ("Let me know in 5 minutes.", [TIMER]),  # no word of the tool, but a value for it
        ("Going hiking, how is the weather?", [WEATHER]),  # is that a place?
        ("Weather, please. " + "The report says more. " * 200, [WEATHER]),
        ("Compose a cheerful speech for Rita's retirement, naming Oslo, weather, colleagues and gratitude.", [WEATHER]),
        ("Is it so?", [WEATHER]),
        ("   ", [WEATHER]),
    ],
)
def test_the_rules_abstain_where_they_cannot_know(text, tools):
    assert ask(text, *tools) == Necessity(None, "unknown", 0.0)
    assert ask(text, *tools).needs_tool is None


def test_what_stands_in_the_conversation_is_not_fetched_again():
    after = Request("r", "", (WEATHER,), OSLO, Expected("answer"))
    assert necessity(after).reason == "answered"
    failed = replace(after, messages=(*OSLO[:2], Message("tool", '{"error": "timed out"}')))
    assert necessity(failed).act is None
    assert ask("Can you say that again?", WEATHER, before=TOLD).reason == "answered"
    assert ask("Can you say that again?", WEATHER).reason != "answered"


def test_a_short_turn_asks_for_the_tool_of_the_turn_before():
    assert ask("And in Rome?", WEATHER, TIMER, before=TOLD).act == "call"
    assert ask("Do the same for Rome.", WEATHER, before=TOLD).act == "call"
    assert ask("And in Rome?", TIMER, before=TOLD).act != "call"  # no longer on offer


def test_an_argument_may_stand_in_an_earlier_turn_but_not_in_the_system_prompt():
    assert ask("How is the weather?", WEATHER, before=(Message("user", "I am in Oslo."),)).act is None
    assert ask("How is the weather?", WEATHER, before=(Message("system", "Be brief."),)).act == "ask"


def test_what_is_expected_is_never_looked_at():
    world = generate(WorldConfig(sft_rows=1, preference_rows=200, validation_rows=1, test_rows=1, unseen_rows=0), 5)
    for request in world.preference:
        blind = replace(request, id="r", kind="", expected=Expected("refuse"), gold=None, unseen=True)
        assert necessity(blind) == necessity(request)


@pytest.mark.parametrize(
    "parameters",
    [{}, {"properties": []}, {"properties": {"city": True}, "required": ["city", "day"]}, {"required": "city"}],
)
def test_odd_schemas_do_no_harm(parameters):
    assert ask("How is the weather in Oslo?", Tool("get_weather", "", parameters)).act == "call"


@pytest.mark.parametrize("piece", ["'a ", "I read. ", "say ", "1 + ", "not to ", "A.b-", '"', "and "])
def test_hostile_texts_take_no_time(piece):
    began = time.process_time()
    request = Request("r", "", (WEATHER, TIMER), (Message("user", piece * 50_000),), Expected("answer"))
    necessity(request)
    necessity(replace(request, messages=(*TOLD, Message("user", (piece * 2000)[:2000]))))
    assert time.process_time() - began < 2


def test_the_confidence_of_a_reason_is_its_measured_accuracy():
    world = generate(WorldConfig(sft_rows=1, preference_rows=3000, validation_rows=1, test_rows=1, unseen_rows=0), 3)
    right, told, stated = Counter(), Counter(), {}
    for request in world.preference:
        found = necessity(request)
        if found.needs_tool is not None:
            told[found.reason] += 1
            right[found.reason] += found.needs_tool == (request.expected.act == "call")
            stated[found.reason] = found.confidence
    assert len(told) == 7
    for reason, count in told.items():
        assert right[reason] / count == pytest.approx(stated[reason], abs=0.03), reason
    assert sum(told.values()) > 0.65 * len(world.preference)


def test_the_benchmark_reads_metatool_and_counts_both_errors(tmp_path):
    rows = [
        {"query": "Is the weather nice in Oslo?", "label": "positive", "tool": "WeatherTool"},
        {"query": "Lock the front door.", "label": "positive", "tool": "MapTool"},
        {"query": "Show the weather on a map of Oslo.", "label": "negative"},
        {"query": "Hello!", "label": "negative"},
    ]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    requests = benchmark.metatool(file)
    assert [each.name for each in requests[0].tools] == ["MapTool", "WeatherTool"]
    judged = [(request, necessity(request)) for request in requests]
    missed, needless = benchmark.errors(judged).splitlines()
    assert "50.0% of 2" in missed
    assert "50.0% of 2" in needless
    assert "covered 100.0% of 4" in benchmark.line("all", judged)
    assert "call  50.0% of 4" in benchmark.line("all", judged)


def test_published_metatool_rows_are_read():
    file = SAMPLES / "metatool_task1.json"
    if not file.exists():
        pytest.skip("the sample rows are not beside this checkout")
    requests = benchmark.metatool(file)
    assert Counter(request.kind for request in requests) == {"positive": 520, "negative": 520}
