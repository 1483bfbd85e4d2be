"""The tables: gold scores the maximum, hacks do not pay, rules behave."""

from __future__ import annotations

import importlib
import inspect
import pickle
import time
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

import rewards
from data import dialects
from data.dialects import native
from data.formats import openai, simple_tool_calling
from data.load import DataConfig
from data.source import Row, rows
from data.transcript import AcceptedCall, Expected, Message, Request, Tool, ToolCall, requests_of
from rewards import OUTCOMES, Judgement, RewardConfig, RuleError, judge, points, right_outcome, threshold
from tests.test_outcomes import OSLO, REFUSE, SUM, TOOLS, call

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT.parent / "shared" / "samples"
PUBLISHED = ["simple_tool_calling.jsonl", "sharegpt_glaive_demo.json", "seal_tools_dev.jsonl"]
PUBLISHED += [f"bfcl_v4_{part}.jsonl" for part in ("simple_python", "multiple", "parallel", "irrelevance")]
TABLES = {
    path.stem: RewardConfig(**(yaml.safe_load(path.read_text()) or {}))
    for path in sorted((ROOT / "conf/reward").glob("*.yaml"))
}


@pytest.fixture(params=sorted(TABLES))
def table(request):
    return TABLES[request.param]


def earned(request: Request, text: str, table: RewardConfig, truncated: bool = False) -> float:
    reading = native.read(text, request.tools)
    return points(judge(request, reading, truncated), table, request, reading).points


def most(request: Request, table: RewardConfig) -> float:
    return float(getattr(table, right_outcome(request)))


WEATHER_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OPENAI_ROW = {
    "tools": [{"name": "get_weather", "description": "d", "parameters": WEATHER_SCHEMA}],
    "messages": [
        {"role": "user", "content": "Weather in Oslo and Rome?"},
        {"role": "assistant", "content": "Let me look.", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}},
            {"id": "b", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}]},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
        {"role": "tool", "tool_call_id": "b", "content": "sun"},
        {"role": "assistant", "content": "Rain in Oslo, sun in Rome. Shall I look further?"},
        {"role": "user", "content": "How would I call it?"},
        {"role": "assistant", "content": 'Like this: get_weather(city="Oslo")'},
        {"role": "user", "content": "Thanks! Bye!"},
        {"role": "assistant", "content": "I'm sorry to see you go. Bye bye bye bye bye bye bye!"},
    ],
}  # fmt: skip


def gold_requests() -> list[Request]:
    rows = [{"user_content": "Who won?", "tool_name": "search_google", "tool_arguments": '{"query": "winner"}'}]
    transcripts = [simple_tool_calling.read(row, f"rows:{place}") for place, row in enumerate(rows)]
    return [
        request for transcript in [*transcripts, openai.read(OPENAI_ROW, "x:1")] for request in requests_of(transcript)
    ]


def accepted(request: Request) -> Message:
    """A turn that the answer key accepts, for requests that have none."""
    calls = [
        ToolCall(call.name, {key: values[0] for key, values in call.arguments.items() if values})
        for call in request.expected.calls
    ]
    return Message("assistant", "" if calls else "It is so.", tuple(calls))


def check_gold(requests: list[Request], table: RewardConfig) -> None:
    for name in dialects.names():
        dialect = dialects.get(name)
        for request in requests:
            gold = request.gold or accepted(request)
            turn = dialect.show(request.tools, (*request.messages, gold))[1][-1]
            text = turn["content"]
            if turn.get("tool_calls"):  # what the native template makes of them
                text = "\n".join(part for part in (text, dialect.write(gold.tool_calls)) if part)
            reading = dialect.read(text, request.tools)
            score = points(judge(request, reading), table, request, reading)
            assert score.points == most(request, table), (request.id, text)


def test_gold_scores_the_maximum_under_every_shipped_table(table):
    check_gold(gold_requests(), table)


@pytest.mark.parametrize("file", PUBLISHED)
def test_published_gold_scores_the_maximum_under_every_shipped_table(table, file):
    if not (SAMPLES / file).exists():
        pytest.skip("the sample rows are not beside this checkout")
    found = rows(DataConfig(format="auto", train=str(SAMPLES / file)), "train")
    kept = [row.value for row in found if isinstance(row, Row)]
    check_gold([r for row in kept for r in ([row] if isinstance(row, Request) else requests_of(row))], table)


def test_nothing_scores_above_the_right_outcome(table):
    calls = OUTCOMES[: OUTCOMES.index("missed_call") + 1]
    for act, right in rewards.ACT_OUTCOMES.items():
        for outcome in calls if act == "call" else set(OUTCOMES) - set(calls):
            judgement = Judgement(outcome, {"argument_f1": 1.0, "ungrounded": 0, "act": "answer"})
            request = Request("r", "", (), (), Expected(act))
            if outcome not in rewards.ACT_OUTCOMES.values():
                assert points(judgement, table, request, native.read("", ())).points < getattr(table, right)


MUTATIONS = {
    "wrong tool": call("send_mail", to="Oslo"),
    "unknown tool": call("teleport", city="Oslo", days=3),
    "missing argument": call("get_weather", days=3),
    "wrong value": call("get_weather", city="Bergen", days=3),
    "wrong type": call("get_weather", city="Oslo", days="3"),
    "number for integer": call("get_weather", city="Oslo", days=3.0),
    "unknown key": call("get_weather", city="Oslo", days=3, x=1),
    "called twice": call("get_weather", city="Oslo", days=3) * 2,
    "cut off": call("get_weather", city="Oslo", days=3)[:-4],
    "in prose": "Here: "
    + call("get_weather", city="Oslo", days=3).replace("<tool_call>", "").replace("</tool_call>", ""),
    "answered": "It rains.",
    "asked back": "Which city?",
    "nothing": "",
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_each_mutation_of_a_right_call_scores_strictly_less(mutation, table):
    assert earned(OSLO, MUTATIONS[mutation], table) < most(OSLO, table)


def test_a_broken_attempt_stays_just_above_a_miss(table):
    assert (
        earned(OSLO, "It rains.", table)
        < earned(OSLO, "<tool_call>{", table)
        < earned(OSLO, MUTATIONS["wrong tool"], table)
    )


def test_breaking_a_needless_call_gains_nothing(table):
    whole = earned(SUM, call("get_weather", city="Oslo"), table)
    assert (
        whole
        == earned(SUM, "<tool_call>{", table)
        == earned(SUM, call("get_weather", x=1), table)
        == table.needless_call
    )


def test_junk_beside_a_right_call_does_not_pay(table):
    gold = call("get_weather", city="Oslo", days=3)
    same_tool = gold + "".join(call("get_weather", city="Oslo", days=n + 4) for n in range(20))
    other_tool = gold + call("send_mail", to="Oslo") * 20
    assert earned(OSLO, same_tool, table) <= 0.02 * most(OSLO, table)
    assert earned(OSLO, other_tool, table) <= 0
    assert earned(OSLO, MUTATIONS["unknown key"], table) < 0


def balanced_set() -> list[Request]:
    return [OSLO, OSLO, OSLO, SUM, REFUSE, SUM]


def test_never_calling_and_always_calling_earn_nothing_under_the_default_table():
    table = TABLES["default"]
    requests = balanced_set()
    perfect = sum(most(request, table) for request in requests)
    always = sum(earned(request, call("get_weather", city="Oslo", days=3), table) for request in requests)
    never = sum(earned(request, "I cannot do that.", table) for request in requests)
    assert always <= 0
    assert never <= 0
    assert perfect > 0


def test_no_constant_policy_earns_more_than_half_of_a_perfect_one(table):
    requests = balanced_set()
    perfect = sum(most(request, table) for request in requests)
    for text in (call("get_weather", city="Oslo", days=3), "I cannot do that.", "2", "Which one?"):
        assert sum(earned(request, text, table) for request in requests) <= perfect / 2


def test_the_implied_call_threshold():
    assert threshold(TABLES["default"]) == 0.5
    assert threshold(TABLES["article"]) == pytest.approx(0.4)
    assert threshold(RewardConfig(needless_call=-30)) == pytest.approx(2 / 3)
    assert threshold(RewardConfig(needless_call=10, missed_call=10)) is None


def test_the_article_table_has_the_points_of_the_article():
    table = TABLES["article"]
    assert (table.needless_call, table.right_answer, table.exact_call) == (-5, 5, 10)


def test_every_outcome_is_a_knob_of_the_table_with_its_meaning():
    for outcome in OUTCOMES:
        assert RewardConfig.model_fields[outcome].description


def test_a_partly_right_call_earns_by_its_argument_f1():
    table = TABLES["default"]
    reading = native.read(call("get_weather", city="Bergen", days=3), TOOLS)
    score = points(judge(OSLO, reading), table, OSLO, reading)
    assert score.parts == {"outcome": -2.0, "argument_credit": 4.0, "ungrounded": -2.0, "invented_answer": 0.0}
    assert score.points == 0.0
    assert score.rules == {"ungrounded": 1.0, "invented_answer": 0.0}


def test_a_made_up_answer_costs_more_than_another_way_of_declining():
    table = TABLES["default"]
    assert earned(REFUSE, "Which pizza?", table) == 0.0
    assert earned(REFUSE, "It is on its way.", table) == -3.0


def test_weight_zero_only_logs():
    table = RewardConfig(rules={"ungrounded": {"weight": 0}})
    reading = native.read(call("get_weather", city="Bergen", days=3), TOOLS)
    score = points(judge(OSLO, reading), table, OSLO, reading)
    assert score.rules == {"ungrounded": 1.0}
    assert score.points == score.parts["outcome"] + score.parts["argument_credit"]


def test_the_same_input_gets_the_same_score(table):
    for text in MUTATIONS.values():
        assert earned(OSLO, text, table) == earned(OSLO, text, pickle.loads(pickle.dumps(table)))


@pytest.mark.parametrize("name", rewards.names())
def test_a_rule_bears_the_name_of_its_file_and_shows_an_example(name):
    rule = getattr(importlib.import_module(f"rewards.{name}"), name)
    assert rule.__doc__
    assert "->" in rule.__doc__
    parameters = list(inspect.signature(rule).parameters.values())
    assert [parameter.name for parameter in parameters[:3]] == ["request", "reading", "judgement"]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters[3:])


def test_a_rule_that_raises_or_leaves_its_bounds_stops_and_names_the_row(monkeypatch):
    reading = native.read("x", ())
    for broken in (lambda *_: 1 / 0, lambda *_: 2.0, lambda *_: float("nan")):
        monkeypatch.setattr("rewards._table.find_rule", lambda name, rule=broken: rule)
        with pytest.raises(RuleError, match=r"ungrounded .* request r"):
            points(Judgement("refused"), TABLES["default"], REFUSE, reading)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rules": {"ungroundd": {"weight": 1}}}, "did you mean ungrounded"),
        ({"rules": {"ungrounded": {"knobs": {"at_most": 1}}}}, "it takes: at_least"),
        ({"needles_call": -1}, "needles_call"),
        ({"needless_call": float("nan")}, "finite"),
        ({"argument_credit": -1}, "argument_credit"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        RewardConfig(**wrong)


def test_scoring_takes_at_most_fifty_microseconds():
    tools = tuple(Tool(f"tool_{n}", "d", WEATHER_SCHEMA) for n in range(5))
    accepted = Expected("call", (AcceptedCall("tool_1", {"city": ["Oslo"]}),))
    request = Request("r", "", tools, (Message("user", "Weather in Oslo?"),), accepted)
    texts = [native.write([ToolCall("tool_1", {"city": city})]) for city in ("Oslo", "Rome")] + ["It rains in Oslo."]
    readings = [native.read(text, tools) for text in texts]
    best = 9.0
    for _ in range(5):
        start = time.process_time()
        for _ in range(200):
            for reading in readings:
                points(judge(request, reading), TABLES["default"], request, reading)
        best = min(best, time.process_time() - start)
    assert best / 600 < 50e-6
