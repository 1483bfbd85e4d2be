"""The tables: gold scores the maximum, hacks do not pay, rules behave."""

from __future__ import annotations

import importlib
import inspect
import json
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

import rewards
from data import dialects, formats
from data.dialects import native
from data.load import DataConfig
from data.source import Row, rows
from data.transcript import AcceptedCall, Expected, Message, Request, Tool, ToolCall, Transcript, requests_of
from data.world import WorldConfig, generate
from rewards import OUTCOMES, Judgement, RewardConfig, RuleError, judge, perfection, points, threshold
from tests.test_outcomes import OSLO, REFUSE, TOOLS, call

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


FLAT = {"name": "get_weather", "description": "d", "parameters": WEATHER_SCHEMA}
CALLED = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
LISTED = f"[{CALLED}]"
CHAT = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": f"<TOOLCALL>{LISTED}</TOOLCALL>"}]
ROUTED = '{"tool": "get_weather", "arguments": {"city": "Oslo"}}'
SEAL = {"api_name": "get_weather", "api_description": "d", "field": "Air", "parameters": {"city": {"type": "str"}}}
BFCL = {"id": "r", "question": [CHAT[:1]], "function": [FLAT]}
CLASSED = {"question": "Weather?", "tools": [json.dumps(FLAT)]}


def turns(*said: str) -> list[dict[str, str]]:
    return [{"from": who, "value": text} for who, text in zip(said[::2], said[1::2], strict=True)]


GOLD_ROWS = {
    "bfcl": [
        BFCL | {"ground_truth": [{"get_weather": {"city": ["Oslo", ""]}}]},
        BFCL | {"ground_truth": ["get_weather(city='Oslo')"]},
        BFCL | {"ground_truth": []},
    ],
    "hermes": [
        {"tools": [FLAT], "conversations": turns(
            "human", "Weather?", "gpt", f"Let me look. <tool_call>{CALLED}</tool_call>",
            "tool", "<tool_response>rain</tool_response>", "gpt", "It rains. Where else?")},
    ],
    "openai": [OPENAI_ROW],
    "preference": [
        {"prompt": "Weather?", "chosen": {"role": "assistant", "tool_calls": [json.loads(CALLED)]}, "rejected": "Fine.",
         "tools": [FLAT]},
        {"prompt": "Weather?", "chosen": "Where?", "rejected": "Fine.", "tools": [FLAT]},
        {"prompt": "Pizza?", "chosen": "I cannot do that.", "rejected": "Fine.", "tools": [FLAT]},
    ],
    "router": [
        {"messages": [{"role": "system", "content": "Route:\n- get_weather(city: str): d."}, CHAT[0],
                      {"role": "assistant", "content": ROUTED}]},
        {"messages": [{"role": "system", "content": "Route:\n- get_weather(city: str): d."}, CHAT[0],
                      {"role": "assistant", "content": '{"tool": "no_tool", "reason": "No get_weather(city) here?"}'}]},
    ],
    "seal_tools": [
        {"query": "Weather?", "tools": [SEAL], "calling": [{"api": "get_weather", "parameters": {"city": "Oslo"}}]},
        {"query": "Weather?", "tools": [SEAL], "calling": [{"api": "get_weather", "parameters": {"town": "Oslo"}}]},
    ],
    "sharegpt": [
        {"tools": [FLAT], "conversations": turns(
            "human", "Weather?", "gpt", "Let me look.", "function_call", CALLED, "observation", "rain",
            "gpt", "```python\nget_weather('Oslo')\n```")},
    ],
    "simple_tool_calling": [
        {"user_content": "Who won?", "tool_name": "search_google", "tool_arguments": '{"query": "winner"}'},
    ],
    "toolace": [
        {"system": json.dumps([FLAT]), "conversations": turns(
            "user", "Weather?", "assistant", "[get_weather(city='Oslo'), get_weather(city='Rome')]",
            "tool", '["rain", "sun"]', "assistant", "[Note] So (it is).")},
    ],
    "when2call": [
        CLASSED | {"correct_answer": "tool_call", "answers": {"tool_call": f"<TOOLCALL>{LISTED}</TOOLCALL>"}},
        CLASSED | {"correct_answer": "request_for_info", "answers": {"request_for_info": "Tell me the city."}},
        CLASSED | {"correct_answer": "cannot_answer", "answers": {"cannot_answer": "That is beyond me."}},
        CLASSED | {"correct_answer": "direct", "answers": {"direct": "It is 4."}},
        {"tools": [json.dumps(FLAT)], "messages": CHAT},
    ],
    "xlam": [{"query": "Weather?", "tools": json.dumps([FLAT]), "answers": LISTED}],
}  # fmt: skip


def requests_in(row: Transcript | Request) -> list[Request]:
    return [row] if isinstance(row, Request) else requests_of(row)


def gold_requests(name: str) -> list[Request]:
    """The requests of a format's rows; the world writes its own."""
    if name == "world":
        size = WorldConfig(sft_rows=60, preference_rows=150, validation_rows=1, test_rows=150, unseen_rows=60)
        drawn = generate(size, seed=0)
        return [*drawn.preference, *drawn.test, *(request for row in drawn.sft for request in requests_of(row))]
    reader = formats.get(name)
    return [request for row in GOLD_ROWS[name] for request in requests_in(reader.read(row, "rows:1"))]


def accepted(request: Request) -> Message:
    """A turn that the answer key accepts, for requests that have none."""
    calls = [
        ToolCall(call.name, {key: values[0] for key, values in call.arguments.items() if values})
        for call in request.expected.calls
    ]
    return Message("assistant", "" if calls else "It is so.", tuple(calls))


def check_gold(requests: list[Request]) -> None:
    assert requests
    for dialect in map(dialects.get, dialects.names()):
        for request in requests:
            gold = request.gold or accepted(request)
            turn = dialect.show(request.tools, (*request.messages, gold))[1][-1]
            text = turn["content"]
            if turn.get("tool_calls"):  # what the native template makes of them
                text = "\n".join(part for part in (text, dialect.write(gold.tool_calls)) if part)
            reading = dialect.read(text, request.tools)
            judgement = judge(request, reading)
            for name, table in TABLES.items():
                score = points(judgement, table, request, reading)
                assert score.points == perfection(request, table), (name, request.id, text)


@pytest.mark.parametrize("name", formats.names())
def test_gold_of_every_format_scores_the_maximum_under_every_shipped_table(name):
    check_gold(gold_requests(name))


@pytest.mark.parametrize("file", PUBLISHED)
def test_published_gold_scores_the_maximum_under_every_shipped_table(file):
    if not (SAMPLES / file).exists():
        pytest.skip("the sample rows are not beside this checkout")
    found = rows(DataConfig(format="auto", train=str(SAMPLES / file)), "train")
    kept = [row.value for row in found if isinstance(row, Row)]
    check_gold([request for row in kept for request in requests_in(row)])


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
    assert earned(OSLO, MUTATIONS[mutation], table) < perfection(OSLO, table)


@pytest.mark.parametrize("name", sorted(set(TABLES) - {"binary"}))
def test_a_broken_attempt_stays_just_above_a_miss(name):
    """But where no mistake stands above another."""
    table = TABLES[name]
    missed, broken, other = (
        earned(OSLO, text, table) for text in ("It rains.", "<tool_call>{", MUTATIONS["wrong tool"])
    )
    assert missed < broken < other
    assert broken - missed <= 0.1 * abs(missed)


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


# A rule of one's own, as two files in a copy of the project.
MINE = {
    "rewards/mine.py": '''
"""The rule against long texts."""


def mine(request, reading, judgement, *, longest: int = 100) -> float:
    """1 where a text is longer than that, else 0. "Paris." -> 0."""
    return float(len(reading.text) > longest)
''',
    "conf/reward/mine.yaml": "rules:\n  mine: {weight: -4, knobs: {longest: 20}}\n",
}
SCORE = """
import sys
from data.transcript import Expected, Reading, Request
from rewards import RewardConfig, judge, points
table, request = RewardConfig.model_validate_json(sys.argv[1]), Request("r", "", (), (), Expected("answer"))
for text in ("Paris.", "That would be Paris, the capital of France."):
    reading = Reading(False, (), text)
    score = points(judge(request, reading), table, request, reading)
    print(score.points, score.rules["mine"])
"""


def test_a_rule_of_the_users_own_is_one_file_and_its_weight(tmp_path):
    house = tmp_path / "house"
    for folder in ("conf", "data", "rewards", "stages"):
        shutil.copytree(ROOT / folder, house / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", house)
    for file, text in MINE.items():
        assert not (house / file).exists()
        (house / file).write_text(text.lstrip(), encoding="utf-8")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *command], cwd=house, capture_output=True, text=True, timeout=60)

    composed = run("train.py", "stage=pairs", "--cfg", "job", "reward=mine", "reward.rules.mine.weight=-5")
    assert composed.returncode == 0, composed.stderr
    reward = yaml.safe_load(composed.stdout)["reward"]
    assert reward["rules"]["mine"] == {"weight": -5, "knobs": {"longest": 20}}
    scored = run("-c", SCORE, json.dumps(reward))
    assert scored.stdout == "10.0 0.0\n5.0 1.0\n", scored.stderr
    misspelt = run("train.py", "stage=pairs", "reward=mine", "+reward.rules.mine.knobs.longst=1")
    assert misspelt.returncode == 2
    assert "mine has no knob 'longst'; it takes: longest" in misspelt.stderr


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
