"""Candidates become pairs in both directions, balanced, and sampling is never done twice."""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from data.dialects import native
from data.load import DataConfig
from data.transcript import AcceptedCall, Expected, Message, Request, Tool, ToolCall
from rewards import RewardConfig, judge, points
from stages import _negatives, _pairing
from stages._errors import UserError
from stages._pairing import Candidate, PairingConfig, pairs_of, select
from tests.toys import toy_tokenizer

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SUM = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
WEATHER, MAPS = Tool("get_weather", "Weather of a city.", CITY), Tool("show_map", "Shows the map of a city.", CITY)
CALCULATOR = Tool("calculator", "Computes an expression.", SUM)
TOOLS = (WEATHER, MAPS, CALCULATOR)
TABLE = RewardConfig()


def calling(id_: str, city: str = "Oslo") -> Request:
    call = ToolCall("get_weather", {"city": city})
    expected = Expected("call", (AcceptedCall.exactly(call),))
    gold = Message("assistant", tool_calls=(call,))
    return Request(id_, "weather", TOOLS, (Message("user", f"What is the weather in {city}?"),), expected, gold)


def texting(id_: str, act: str = "answer", gold: str = "2", question: str = "What is 1+1?") -> Request:
    expected = Expected(act, text=gold if act == "answer" else None)
    return Request(id_, act, TOOLS, (Message("user", question),), expected, Message("assistant", gold))


def call(name: str, **arguments) -> str:
    return native.write([ToolCall(name, arguments)])


def candidate(request: Request, text: str, source="policy", logprob=-1.0, truncated=False, recipe=None) -> Candidate:
    reading = native.read(text, request.tools)
    judgement = judge(request, reading, truncated)
    score = points(judgement, TABLE, request, reading).points
    return Candidate(text, judgement.outcome, score, source, recipe, logprob, truncated)


def gold(request: Request) -> Candidate:
    assert request.gold is not None
    return candidate(request, request.gold.content or native.write(request.gold.tool_calls), "gold", None)


def paired(request: Request, *candidates: Candidate, **settings):
    filtered: Counter[str] = Counter()
    return pairs_of(request, [*candidates, gold(request)], PairingConfig(**settings), filtered), filtered


OSLO = calling("oslo")
RIGHT = call("get_weather", city="Oslo")


@pytest.mark.parametrize(
    ("request_", "rejected", "kind"),
    [
        (OSLO, "It rains.", "call_over_text"),
        (OSLO, "Which city?", "call_over_text"),
        (OSLO, call("get_weather", city="Rome"), "right_call_over_wrong_call"),
        (OSLO, call("show_map", city="Oslo"), "right_call_over_wrong_call"),
        (OSLO, "<tool_call>{", "right_call_over_wrong_call"),
        (texting("q"), call("calculator", expression="1+1"), "answer_over_call"),
        (texting("q"), "<tool_call>{", "answer_over_call"),
        (texting("q"), "3", "answer_over_text"),
        (texting("q", "ask", "Which city?"), call("get_weather", city="Rome"), "ask_over_call"),
        (texting("q", "ask", "Which city?"), "It is sunny.", "ask_over_text"),
        (texting("q", "refuse", "I cannot do that."), call("show_map", city="x"), "refuse_over_call"),
        (texting("q", "refuse", "I cannot do that."), "Done, as you wished.", "refuse_over_text"),
    ],
)
def test_each_failure_makes_a_pair_of_its_kind_with_the_turn_of_the_data(request_, rejected, kind):
    pairs, _ = paired(request_, candidate(request_, rejected))
    assert [pair.kind for pair in pairs] == [kind]
    assert pairs[0].chosen.source == "gold"
    assert pairs[0].rejected.text == rejected
    assert pairs[0].margin >= 5


def test_chosen_is_the_likeliest_right_sample_of_the_policy_where_there_is_one():
    right = [candidate(OSLO, f"{prefix}{RIGHT}", logprob=likely) for prefix, likely in (("Hm.\n", -9.0), ("", -3.0))]
    cut = candidate(OSLO, f"Cut.\n{RIGHT}", logprob=-1.0, truncated=True)
    pairs, _ = paired(OSLO, *right, cut, candidate(OSLO, "It rains."))
    assert pairs[0].chosen is right[1]


def test_rejected_is_the_likeliest_sample_of_the_most_frequent_failure_not_the_worst_one():
    rome, bergen = (
        candidate(OSLO, call("get_weather", city=city), logprob=n) for city, n in (("Rome", -5), ("Bergen", -2))
    )
    broken = candidate(OSLO, "<tool_call>{", logprob=-0.1)
    pairs, _ = paired(OSLO, broken, rome, bergen)
    assert [pair.rejected for pair in pairs] == [bergen]


def test_a_request_can_yield_pairs_of_two_kinds_and_no_more_than_per_prompt():
    failures = [candidate(OSLO, "It rains."), candidate(OSLO, call("get_weather", city="Rome"))]
    assert len(paired(OSLO, *failures)[0]) == 2
    pairs, filtered = paired(OSLO, *failures, per_prompt=1)
    assert len(pairs) == 1
    assert filtered["per_prompt"] == 1


@pytest.mark.parametrize(
    ("rejected", "reason"),
    [
        (candidate(OSLO, "It rains and", truncated=True), "truncated"),
        (candidate(OSLO, ""), "prefix"),
        (candidate(OSLO, RIGHT[:20]), "prefix"),
    ],
)
def test_what_makes_no_pair_is_counted_by_reason(rejected, reason):
    pairs, filtered = paired(OSLO, rejected)
    assert pairs == []
    assert filtered == {reason: 1, "per_prompt": 0}


def test_a_small_margin_makes_no_pair():
    near = Candidate("close", "right_tool_wrong_arguments", 9.0, "policy")
    pairs, filtered = paired(OSLO, near)
    assert pairs == []
    assert filtered["margin"] == 1


def test_the_least_margin_is_half_of_what_the_chosen_one_earns_in_the_points_of_any_table():
    right = Candidate(RIGHT, "exact_call", 1.0, "policy")
    for worth, count in ((0.0, 1), (0.5, 1), (0.6, 0)):
        wrong = Candidate("It rains.", "missed_call", worth, "policy")
        assert len(pairs_of(OSLO, [right, wrong], PairingConfig(), Counter())) == count
        assert len(pairs_of(OSLO, [right, wrong], PairingConfig(margin=0.3), Counter())) == 1
    worthless = [replace(right, points=0.0), Candidate("It rains.", "missed_call", 0.0, "policy")]
    assert pairs_of(OSLO, worthless, PairingConfig(), Counter()) == []


def test_a_request_without_a_right_candidate_makes_no_pair():
    filtered: Counter[str] = Counter()
    assert pairs_of(OSLO, [candidate(OSLO, "It rains.")], PairingConfig(), filtered) == []
    assert filtered["no_right_candidate"] == 1


def test_a_constructed_mistake_serves_only_where_the_policy_makes_none_of_its_kind():
    made = candidate(OSLO, "I cannot look that up.", "constructed", None, recipe="missed_call")
    own = candidate(OSLO, "It rains.")
    assert paired(OSLO, made)[0][0].rejected is made
    assert paired(OSLO, made, own)[0][0].rejected is own


def many(calls: int, texts: int, call_failure: str | None = None, text_failure: str | None = None):
    """Pairs of so many requests of each side, with the policy's failure there, and constructed mistakes."""
    found = {}
    for side, count, failure, mistake in (
        ("c", calls, call_failure, "I cannot look that up."),
        ("t", texts, text_failure, call("get_weather", city="Rome")),
    ):
        for number in range(count):
            request = calling(f"{side}{number}") if side == "c" else texting(f"{side}{number}")
            candidates = [gold(request), candidate(request, mistake, "constructed", None, recipe="x")]
            candidates += [candidate(request, failure)] if failure else []
            if side == "c":
                candidates.append(candidate(request, call("show_map", city="Oslo"), "constructed", None, recipe="y"))
            found[request.id] = pairs_of(request, candidates, PairingConfig(), Counter())
    return found


def chosen_from(found, **settings):
    filtered: Counter[str] = Counter()
    return select(found, PairingConfig(**settings), 0, filtered), filtered


def test_missed_calls_are_constructed_until_both_directions_are_equally_many():
    pairs, _ = chosen_from(many(30, 20, None, call("calculator", expression="1+1")), anchor_share=0)
    assert Counter(pair.kind for pair in pairs) == {"answer_over_call": 20, "call_over_text": 20}
    assert _pairing.summary(pairs)["balance"] == {"call_over_text": 20, "text_over_call": 20, "ratio": 1.0}


def test_the_larger_direction_is_cut_where_the_other_cannot_be_filled():
    pairs, filtered = chosen_from(many(5, 20, None, call("calculator", expression="1+1")), anchor_share=0)
    assert Counter(pair.kind for pair in pairs) == {"answer_over_call": 5, "call_over_text": 5}
    assert filtered["balance"] == 15


def test_balance_can_be_switched_off():
    pairs, _ = chosen_from(many(30, 20, None, call("calculator", expression="1")), balance=False, anchor_share=0)
    assert Counter(pair.kind for pair in pairs) == {"answer_over_call": 20}


def test_pairs_of_two_calls_stay_within_their_share():
    found = many(90, 10, call("get_weather", city="Rome"), call("calculator", expression="1+1"))
    pairs, filtered = chosen_from(found, anchor_share=0)
    kinds = Counter(pair.kind for pair in pairs)
    assert kinds == {"answer_over_call": 10, "call_over_text": 10, "right_call_over_wrong_call": 8}
    assert filtered["wrong_call_share"] == 82


def test_broken_calls_stay_within_their_share():
    found = many(40, 10, "<tool_call>{", call("calculator", expression="1+1"))
    pairs, filtered = chosen_from(found, anchor_share=0, wrong_call_share=0.9)
    assert sum(pair.rejected.outcome == "malformed_call" for pair in pairs) == 5
    assert filtered["malformed_share"] == 35


def test_data_that_always_calls_is_not_held_to_a_balance_it_cannot_have():
    pairs, _ = chosen_from(many(20, 0, call("get_weather", city="Rome")), anchor_share=0)
    assert Counter(pair.kind for pair in pairs) == {"right_call_over_wrong_call": 20}


def test_a_policy_that_is_always_right_leaves_balanced_anchors():
    pairs, _ = chosen_from(many(30, 30), anchor_share=0.1)
    assert Counter(pair.kind for pair in pairs) == {
        "call_over_text": 2,
        "answer_over_call": 2,
        "right_call_over_wrong_call": 2,
    }
    assert chosen_from(many(30, 30), anchor_share=0)[0] == []


def test_the_same_seed_selects_the_same_pairs():
    found = many(30, 20, call("get_weather", city="Rome"), call("calculator", expression="1+1"))
    first, again = (select(found, PairingConfig(), 1, Counter()) for _ in range(2))
    other = select(found, PairingConfig(), 2, Counter())
    assert first == again
    assert [pair.request.id for pair in first] != [pair.request.id for pair in other]


REQUESTS = [
    *(calling(f"c{n}", city) for n, city in enumerate(("Oslo", "Rome", "Lima"))),
    texting("hi", "answer", "Hello there!", "Hello!"),
    texting("ask", "ask", "Which city?", "What is the weather?"),
    texting("no", "refuse", "I cannot order food.", "Order a pizza from Mario's place."),
    texting("sum", "answer", "12", "What is 3 * 4?"),
]


def test_constructed_mistakes_are_what_their_recipe_says():
    pool = _negatives.Pool.of(REQUESTS)
    wanted = {
        "missed_call": {"missed_call"},
        "needless_call": {"needless_call"},
        "sibling_tool": {"wrong_tool"},
        "invented_argument": {"right_tool_wrong_arguments"},
    }
    seen = Counter()
    for request in REQUESTS:
        for seed in range(5):
            for recipe, turn in _negatives.construct(request, pool, list(wanted), seed).items():
                reading = native.read(turn.content or native.write(turn.tool_calls), request.tools)
                judgement = judge(request, reading)
                assert judgement.outcome in wanted[recipe]
                if recipe != "missed_call":
                    assert judgement.components["schema_valid"]
                if recipe == "invented_argument":
                    assert judgement.components["ungrounded"] == 1
                seen[recipe] += 1
    assert set(seen) == set(wanted)


def test_a_needless_call_takes_the_most_related_tool_and_what_was_said():
    pool = _negatives.Pool.of(REQUESTS)
    turn = _negatives.needless_call(REQUESTS[-1], pool, random.Random(0))
    assert turn is not None
    assert turn.tool_calls[0].arguments.popitem()[1] in {"3 * 4", "Oslo", "Rome", "Lima", "3"}
    asked = _negatives.needless_call(REQUESTS[4], pool, random.Random(0))
    assert asked is not None
    assert asked.tool_calls[0].name == "get_weather"


def test_values_are_made_for_every_type_of_parameter():
    parameters = {
        "type": "object",
        "properties": {
            "unit": {"type": "string", "enum": ["C"]},
            "days": {"type": "integer"},
            "share": {"type": ["number", "null"]},
            "now": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "place": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            "any": {},
        },
        "required": ["unit", "days", "share", "now", "tags", "place", "any"],
    }
    request = Request(
        "r", "", (Tool("t", "d", parameters),), (Message("user", "How about 7 in Oslo?"),), Expected("answer")
    )
    turn = _negatives.needless_call(request, _negatives.Pool(), random.Random(0))
    assert turn is not None
    reading = native.read(native.write(turn.tool_calls), request.tools)
    assert judge(request, reading).components["schema_valid"]
    assert turn.tool_calls[0].arguments["days"] == 7


class StubJob:
    """As much of a job as the stage needs."""

    def __init__(self, folder, config, settings):
        self.folder, self.cache, self.config, self.settings, self.seed = folder, folder / "cache", config, settings, 0
        self.said, self.notes = [], {}

    def parent(self, name):
        adapter = self.folder / name / "adapter"
        adapter.mkdir(parents=True, exist_ok=True)
        return adapter.parent

    def say(self, text):
        self.said.append(text)

    def record(self, **facts):
        self.notes |= facts

    @contextlib.contextmanager
    def bar(self, total, label, start=0):
        yield SimpleNamespace(done=start, update=lambda done, note="": None)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """The stage with a policy that calls the weather for everything; `stage.asked` counts what it was asked."""
    from stages import pairs
    from stages._sampling import Completion

    rows = []
    for number in range(60):
        city = ["Oslo", "Rome", "Lima", "Bonn", "Kyiv"][number % 5]
        arguments = {"city": f"{city} {number}"}
        question = f"Weather in {city} {number}?" if number % 2 else f"Hello number {number}!"
        turn = {"role": "assistant", "content": "Hello to you!"}
        if number % 2:
            turn = {"role": "assistant", "tool_calls": [{"name": "get_weather", "arguments": arguments}]}
        tools = [{"name": tool.name, "description": tool.description, "parameters": tool.parameters} for tool in TOOLS]
        rows.append({"messages": [{"role": "user", "content": question}, turn], "tools": tools})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = toy_tokenizer()
    asked: list[str] = []

    def generate(model, tokenizer, dialect, requests, n, temperature, max_new_tokens, batch_size, seed):
        asked.extend(request.id for request in requests)
        if stage.stop_after is not None and len(asked) > stage.stop_after:
            raise KeyboardInterrupt
        answers = [
            call("get_weather", city=request.messages[-1].content.split(" in ")[-1][:-1]) for request in requests
        ]
        return [[Completion(text, -1.0 - k, 9, False) for k in range(n)] for text in answers]

    monkeypatch.setattr("stages._model.load_tokenizer", lambda config: tokenizer)
    monkeypatch.setattr("stages._model.load_policy", lambda config, adapter: None)
    monkeypatch.setattr("stages._model.model_digest", lambda config: "toy")
    monkeypatch.setattr("stages._sampling.generate", generate)

    def run(**changes):
        reward = changes.pop("reward", TABLE)
        settings = SimpleNamespace(
            model=SimpleNamespace(dialect="native", sample_batch=4, max_new_tokens=8),
            data=DataConfig(format="openai", train=str(path)),
            reward=reward,
        )  # fmt: skip
        job = StubJob(tmp_path, pairs.Config(**{"batch_size": 4, "samples": 2, **changes}), settings)
        return pairs.run(job), job

    stage = SimpleNamespace(run=run, asked=asked, stop_after=None, folder=tmp_path)
    return stage


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_stage_writes_candidates_pairs_and_a_report(stage):
    metrics, job = stage.run()
    candidates, pairs = read(stage.folder / "candidates.jsonl"), read(stage.folder / "pairs.jsonl")
    report = json.loads((stage.folder / "report.json").read_text())
    assert metrics["prompts"] == 51
    assert Counter(row["source"] for row in candidates)["policy"] == 102
    assert {row["outcome"] for row in candidates if row["source"] == "gold"} == {"exact_call", "right_answer"}
    assert all("points" not in row for row in candidates)
    assert report["balance"]["ratio"] == 1.0
    assert (
        report["by_kind"]["answer_over_call"] == report["by_kind"]["call_over_text"] == metrics["pairs_call_over_text"]
    )
    assert report["outcomes"]["answer"]["needless_call"] == report["never_right"] * 2
    row = next(row for row in pairs if row["kind"] == "answer_over_call")
    assert row["prompt"][0]["role"] == "user"
    assert row["tools"][0]["function"]["name"] == "get_weather"
    assert row["chosen"] == "Hello to you!"
    assert native.read(row["rejected"], TOOLS).attempt
    assert row["outcomes"] == {"chosen": "right_answer", "rejected": "needless_call"}
    assert row["provenance"]["rejected"]["source"] == "policy"
    assert row["margin"] == 20.0
    assert job.said[-1] == (
        "these rewards say: call when it is needed with p > 0.50;"
        " of a perfect policy's points, never calling earns -0.50, always calling 0.00"
    )
    assert report["blind_shares"] == {"never_call": -0.5, "always_call": 0.0}


def test_constructed_turns_are_written_as_the_template_writes_them(stage):
    stage.run()
    rows = read(stage.folder / "candidates.jsonl")
    own = {row["completion"] for row in rows if row["source"] == "policy" and row["outcome"] == "exact_call"}
    assert own >= {row["completion"] for row in rows if row["source"] == "gold" and row["outcome"] == "exact_call"}


def test_another_reward_table_or_pairing_rule_does_not_sample_again(stage):
    stage.run()
    asked = len(stage.asked)
    first = (stage.folder / "candidates.jsonl").read_bytes()
    metrics, _ = stage.run(reward=RewardConfig(needless_call=-30), margin=25.0)
    assert len(stage.asked) == asked
    assert (stage.folder / "candidates.jsonl").read_bytes() == first
    assert metrics["pairs_answer_over_call"] > 0
    stage.run(temperature=0.5)
    assert len(stage.asked) == 2 * asked


def test_interrupted_sampling_goes_on_where_it_was(stage):
    stage.run()
    whole, asked = (stage.folder / "candidates.jsonl").read_bytes(), list(stage.asked)
    for cache in (stage.folder / "cache").glob("*.jsonl"):
        cache.unlink()
    stage.asked.clear()
    stage.stop_after = 30
    with pytest.raises(KeyboardInterrupt):
        stage.run()
    stage.asked.clear()
    stage.stop_after = None
    _, job = stage.run()
    assert 0 < len(stage.asked) < len(asked)
    assert "have their samples already" in job.said[0]
    assert (stage.folder / "candidates.jsonl").read_bytes() == whole


def test_no_pairs_at_all_is_an_error_that_says_what_to_change(stage):
    with pytest.raises(UserError, match=r"pairs\.anchor_share, or lower pairs\.margin"):
        stage.run(margin=100.0)
