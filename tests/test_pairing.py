"""Candidates become pairs in both directions, balanced, and sampling is never done twice."""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from data.dialects import native
from data.load import DataConfig
from data.transcript import AcceptedCall, Expected, Message, Request, Tool, ToolCall
from rewards import OUTCOMES, RewardConfig, judge, points
from stages import _negatives, _pairing, _pairs_report
from stages._errors import UserError
from stages._pairing import Candidate, PairingConfig, pairs_of, select
from tests.test_report import EVIL, Page
from tests.toys import ROOT, toy_tokenizer

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


def test_of_outcomes_that_are_as_frequent_the_likelier_is_rejected_not_the_worse():
    broken, rome = candidate(OSLO, "<tool_call>{", logprob=-9.0), candidate(OSLO, call("show_map", city="Oslo"))
    assert broken.points < rome.points
    assert [pair.rejected for pair in paired(OSLO, broken, rome)[0]] == [rome]


def test_likelihood_is_that_of_the_whole_text_however_long_it_is():
    short, long = candidate(OSLO, "It rains.", logprob=-4.0), candidate(OSLO, "It rains. " * 9, logprob=-5.0)
    assert paired(OSLO, long, short)[0][0].rejected is short


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
        (candidate(OSLO, f"{RIGHT} and more", "constructed"), "prefix"),
        (Candidate(f" {RIGHT}\n", "wrong_tool", 10.0, "policy"), "identical"),
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


def many(calls: int, texts: int, call_failure: str | None = None, text_failure: str | None = None, name: str = ""):
    """Pairs of so many requests of each side, with the policy's failure there, and constructed mistakes."""
    found = {}
    for side, count, failure, mistake in (
        ("c", calls, call_failure, "I cannot look that up."),
        ("t", texts, text_failure, call("get_weather", city="Rome")),
    ):
        for number in range(count):
            id_ = f"{name}{side}{number}"
            request = calling(id_) if side == "c" else texting(id_)
            candidates = [gold(request), candidate(request, mistake, "constructed", None, recipe="x")]
            candidates += [candidate(request, failure)] if failure else []
            if side == "c":
                candidates.append(candidate(request, call("show_map", city="Oslo"), "constructed", None, recipe="y"))
            found[request.id] = pairs_of(request, candidates, PairingConfig(), Counter())
    return found


def chosen_from(found, **settings):
    filtered: Counter[str] = Counter()
    both_sides = _pairing.has_both_sides(pair.request for pairs in found.values() for pair in pairs)
    return select(found, both_sides, PairingConfig(**settings), 0, filtered), filtered


def test_missed_calls_are_constructed_until_both_directions_are_equally_many():
    pairs, _ = chosen_from(many(30, 20, None, call("calculator", expression="1+1")), anchor_share=0)
    assert Counter(pair.kind for pair in pairs) == {"answer_over_call": 20, "call_over_text": 20}
    assert _pairing.summary(pairs, len)["balance"] == {"call_over_text": 20, "text_over_call": 20, "ratio": 1.0}


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


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("failure", [call("get_weather", city="Rome"), "<tool_call>{", None])
def test_shares_hold_among_all_pairs_anchors_too(share, failure):
    found = many(40, 30, failure, call("calculator", expression="1+1"))
    pairs, _ = chosen_from(
        found | many(30, 30, name="mastered"), anchor_share=0.5, wrong_call_share=share, malformed_share=0.1
    )
    assert any(pair.request.id.startswith("mastered") for pair in pairs)
    assert sum(pair.kind == "right_call_over_wrong_call" for pair in pairs) <= share * len(pairs)
    assert sum(pair.rejected.outcome == "malformed_call" for pair in pairs) <= 0.1 * len(pairs)


def test_broken_calls_stay_within_their_share():
    found = many(40, 10, "<tool_call>{", call("calculator", expression="1+1"))
    pairs, filtered = chosen_from(found, anchor_share=0, wrong_call_share=0.9)
    assert len(pairs) == 22
    assert sum(pair.rejected.outcome == "malformed_call" for pair in pairs) == 2
    assert filtered["malformed_share"] == 38
    assert len(chosen_from(found, anchor_share=0, wrong_call_share=0.9, malformed_share=1)[0]) == 60


def test_data_that_always_calls_is_not_held_to_a_balance_it_cannot_have():
    pairs, _ = chosen_from(many(20, 0, call("get_weather", city="Rome")), anchor_share=0)
    assert Counter(pair.kind for pair in pairs) == {"right_call_over_wrong_call": 20}


def test_one_side_without_any_pair_is_no_excuse_to_move_the_prior():
    found = many(0, 20, None, call("calculator", expression="1+1"))
    filtered: Counter[str] = Counter()
    assert select(found, True, PairingConfig(anchor_share=0), 0, filtered) == []
    assert filtered["balance"] == 20
    assert len(select(found, False, PairingConfig(anchor_share=0), 0, Counter())) == 20


def test_both_sides_are_requests_that_need_a_call_and_some_that_have_tools_and_need_none():
    bare = Request("bare", "", (), texting("q").messages, Expected("answer"))
    assert _pairing.has_both_sides([OSLO, texting("q")])
    assert not _pairing.has_both_sides([OSLO, bare])
    assert not _pairing.has_both_sides([texting("q"), bare])


def test_a_policy_that_is_always_right_leaves_balanced_anchors():
    pairs, _ = chosen_from(many(30, 30), anchor_share=0.1)
    assert Counter(pair.kind for pair in pairs) == {
        "call_over_text": 2,
        "answer_over_call": 2,
        "right_call_over_wrong_call": 1,
    }
    assert chosen_from(many(30, 30), anchor_share=0)[0] == []


def test_the_same_seed_selects_the_same_pairs():
    found = many(30, 20, call("get_weather", city="Rome"), call("calculator", expression="1+1"))
    first, again = (select(found, True, PairingConfig(), 1, Counter()) for _ in range(2))
    other = select(found, True, PairingConfig(), 2, Counter())
    assert first == again
    assert [pair.request.id for pair in first] != [pair.request.id for pair in other]


def test_every_request_without_a_pair_has_one_reason():
    asked = [calling("right"), calling("cut"), calling("near"), calling("paired")]
    says = [RIGHT, "It rains and", "It rains.", "It rains."]
    own = [
        [candidate(request, text, truncated=text.endswith("and"))] for request, text in zip(asked, says, strict=True)
    ]
    found = {
        request.id: pairs_of(request, [*row, gold(request)], PairingConfig(), Counter())
        for request, row in zip(asked, own, strict=True)
    }
    reasons = _pairing.unpaired(asked, own, found, found["paired"])
    assert reasons == {"no_signal": 1, "no_fitting_pair": 1, "left_out": 1}


def test_lengths_are_means_of_both_sides_by_kind_with_their_ratio():
    pairs = [
        *paired(OSLO, candidate(OSLO, "It rains."))[0],
        *paired(texting("q"), candidate(texting("q"), "three"))[0],
        *paired(texting("r"), candidate(texting("r"), "3"))[0],
    ]
    length = _pairing.summary(pairs, lambda text: len(text.split()))["length"]
    assert length["answer_over_text"] == {
        "characters": {"chosen": 1.0, "rejected": 3.0, "ratio": 0.33},
        "tokens": {"chosen": 1.0, "rejected": 1.0, "ratio": 1.0},
    }
    assert length["call_over_text"]["characters"]["chosen"] == len(RIGHT)


REQUESTS = [
    *(calling(f"c{n}", city) for n, city in enumerate(("Oslo", "Rome", "Lima"))),
    texting("hi", "answer", "Hello there!", "Hello!"),
    texting("ask", "ask", "Which city?", "What is the weather?"),
    texting("no", "refuse", "I cannot order food.", "Order a pizza from Mario's place."),
    texting("sum", "answer", "12", "What is 3 * 4?"),
]


LIGHT = Tool(
    "set_light",
    "Switches the light of a room.",
    {
        "type": "object",
        "properties": {"room": {"type": "string"}, "state": {"enum": ["on", "off"]}, "note": {"type": "string"}},
        "required": ["room", "state"],
    },
)


def lighting(*calls: AcceptedCall, question: str = "Light on in the hall and in the attic, please.") -> Request:
    return Request("light", "light", (*TOOLS, LIGHT), (Message("user", question),), Expected("call", calls))


HALL = AcceptedCall("set_light", {"room": ["hall"], "state": ["on"]})
ATTIC = AcceptedCall("set_light", {"room": ["attic"], "state": ["on"]})


def judged(request: Request, turn: Message):
    return judge(request, native.read(turn.content or native.write(turn.tool_calls), request.tools))


def test_there_is_a_recipe_and_a_promise_for_every_name_that_can_be_configured():
    assert list(_negatives.RECIPES) == list(_negatives.PROMISED) == PairingConfig().constructed
    assert set(_negatives.PROMISED.values()) <= set(OUTCOMES)


def test_constructed_mistakes_are_what_their_recipe_says():
    requests = [*REQUESTS, lighting(HALL), lighting(HALL, ATTIC)]
    pool = _negatives.Pool.of(requests)
    seen = Counter()
    for request in requests:
        for seed in range(5):
            for recipe, turn in _negatives.construct(request, pool, list(_negatives.RECIPES), seed).items():
                judgement = judged(request, turn)
                assert judgement.outcome == _negatives.PROMISED[recipe]
                if turn.tool_calls:
                    assert judgement.components["schema_valid"] == (recipe != "missing_required")
                if recipe == "invented_argument":
                    assert judgement.components["ungrounded"] == 1
                seen[recipe] += 1
    assert set(seen) == set(_negatives.RECIPES)


@pytest.mark.parametrize("seed", range(5))
def test_a_wrong_enum_changes_one_value_to_another_that_its_schema_offers(seed):
    turn = _negatives.wrong_enum(lighting(HALL, ATTIC), _negatives.Pool(), random.Random(seed))
    assert turn is not None
    states = [call.arguments["state"] for call in turn.tool_calls]
    assert sorted(states) == ["off", "on"]
    assert [call.arguments["room"] for call in turn.tool_calls] == ["hall", "attic"]


@pytest.mark.parametrize(
    "request_",
    [
        OSLO,  # no enum
        lighting(AcceptedCall("set_light", {"room": ["hall"], "state": ["on", "off"]})),  # all of them are right
        lighting(AcceptedCall("set_light", {"room": ["hall"], "state": ["on"]}, ("state",))),  # may be left out
        lighting(AcceptedCall("unknown", {"state": ["on"]})),  # nobody knows its schema
        texting("q"),
    ],
)
def test_no_wrong_enum_where_there_is_no_other_value_that_is_wrong(request_):
    assert _negatives.wrong_enum(request_, _negatives.Pool(), random.Random(0)) is None


def test_an_invented_argument_leaves_values_from_a_list_to_the_wrong_enum():
    pool = _negatives.Pool(values={"state": ["dimmed"], "room": ["cellar"]})
    for seed in range(5):
        turn = _negatives.invented_argument(lighting(HALL), pool, random.Random(seed))
        assert turn is not None
        assert turn.tool_calls[0].arguments == {"room": "cellar", "state": "on"}


@pytest.mark.parametrize("seed", range(5))
def test_a_missing_required_leaves_one_required_argument_out(seed):
    noted = AcceptedCall("set_light", {"room": ["hall"], "state": ["on"], "note": ["guests"]})
    turn = _negatives.missing_required(lighting(noted), _negatives.Pool(), random.Random(seed))
    assert turn is not None
    assert set(turn.tool_calls[0].arguments) in ({"room", "note"}, {"state", "note"})


@pytest.mark.parametrize(
    "request_",
    [
        lighting(AcceptedCall("set_light", {"room": ["hall"], "state": ["on"]}, ("room", "state"))),  # the key forgives
        lighting(AcceptedCall("set_light", {"note": ["guests"]})),  # not a required one
        lighting(AcceptedCall("unknown", {"room": ["hall"]})),
        texting("q"),
    ],
)
def test_no_missing_required_where_nothing_required_can_be_left_out(request_):
    assert _negatives.missing_required(request_, _negatives.Pool(), random.Random(0)) is None


def test_a_needless_ask_is_for_what_was_given_in_the_words_of_the_data_where_it_has_some():
    asks = [texting("1", "ask", "Which city, please?"), texting("2", "ask", "How much, in kilograms?")]
    turns = [
        _negatives.needless_ask(OSLO, _negatives.Pool.of(requests), random.Random(0)) for requests in (asks, asks[1:])
    ]
    assert [turn and turn.content for turn in turns] == ["Which city, please?", "Which city do you mean?"]


@pytest.mark.parametrize(
    "request_",
    [
        lighting(HALL, question="Light on, please."),  # the room was not said: asking may be right
        lighting(AcceptedCall("set_light", {})),  # nothing to ask for
        texting("q", "ask", "Which city?"),
        texting("q"),
    ],
)
def test_no_needless_ask_where_not_all_was_given_or_no_call_is_needed(request_):
    assert _negatives.needless_ask(request_, _negatives.Pool.of(REQUESTS), random.Random(0)) is None


def test_a_missed_call_leaves_asking_to_the_needless_ask():
    pool = _negatives.Pool.of(REQUESTS)
    said = {_negatives.missed_call(OSLO, pool, random.Random(seed)).content for seed in range(30)}
    assert said == {"Hello there!", "12", "I cannot order food."}
    bare = {_negatives.missed_call(OSLO, _negatives.Pool(), random.Random(seed)).content for seed in range(30)}
    assert not any(text.endswith("?") for text in bare)


def test_every_recipe_comes_first_now_and_then_and_the_same_seed_draws_the_same_order():
    pool, recipes = _negatives.Pool.of(REQUESTS), list(_negatives.RECIPES)
    orders = [list(_negatives.construct(OSLO, pool, recipes, seed)) for seed in range(40)]
    assert {order[0] for order in orders} == set(orders[0]) == set(recipes) - {"needless_call", "wrong_enum"}
    assert list(_negatives.construct(OSLO, pool, recipes, 3)) == orders[3]


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
        self.name = "pairs"
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
            model=SimpleNamespace(name="toy", path="toy", dialect="native", sample_batch=4, max_new_tokens=8),
            data=DataConfig(format="openai", train=str(path)),
            reward=reward, run="mine", seed=0, overrides=(),
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
    assert sum(report["requests_without_pairs"].values()) + report["requests_with_pairs"] == report["prompts"]
    assert set(report["constructed"]) == {
        *("missed_call", "needless_ask", "needless_call", "sibling_tool", "invented_argument", "missing_required"),
    }
    assert report["length"]["answer_over_call"]["tokens"]["ratio"] < 1
    assert job.said[-2] == (
        "these rewards say: call when it is needed with p > 0.50;"
        " of a perfect policy's points, never calling earns -0.50, always calling 0.00"
    )
    assert report["blind_shares"] == {"never_call": -0.5, "always_call": 0.0}


def test_prompts_that_nobody_labelled_join_where_they_need_no_call(stage):
    tools = [tool.as_function() for tool in TOOLS]
    said = ["Lock the front door.", "Weather in Oslo 7?"]
    file = stage.folder / "prompts.jsonl"
    file.write_text(
        "".join(json.dumps({"messages": [{"role": "user", "content": text}], "tools": tools}) + "\n" for text in said)
    )
    metrics, job = stage.run(unlabelled=str(file))
    report = json.loads((stage.folder / "report.json").read_text())
    assert metrics["prompts"] == 52
    assert report["unlabelled"] == {"prompts": 2, "joined": {"no_tool_fits": 1}, "left_out": {"tool_fits": 1}}
    assert job.said[0] == "of 2 unlabelled prompts 1 need no call (1 no_tool_fits); left out: 1 tool_fits"
    assert report["outcomes"]["refuse"] == {"needless_call": 2}
    assert (
        "Of 2 prompts that nobody labelled 1 join, where rules say that no call is right"
        in (stage.folder / "report.html").read_text()
    )


def test_prompts_for_which_rules_name_no_act_join_where_the_policy_knows_an_answer(stage, monkeypatch):
    from stages import _sampling

    tools = [tool.as_function() for tool in TOOLS]
    said = ["Who wrote Hamlet?", "What is a fjord?", "Lock the front door."]
    file = stage.folder / "prompts.jsonl"
    file.write_text(
        "".join(json.dumps({"messages": [{"role": "user", "content": text}], "tools": tools}) + "\n" for text in said)
    )
    own, without = _sampling.generate, []

    def generate(model, tokenizer, dialect, requests, n, **how):
        answers = own(model, tokenizer, dialect, requests, n, **how)
        for request, row in zip(requests, answers, strict=True):
            if not request.tools:
                without.append((request.messages[-1].content, n))
                same = "Hamlet" in request.messages[-1].content
                row[:] = [replace(one, text="Shakespeare." if same else f"A {k}.") for k, one in enumerate(row)]
        return answers

    monkeypatch.setattr(_sampling, "generate", generate)
    _, job = stage.run(unlabelled=str(file), probe=3)
    assert without == [("Who wrote Hamlet?", 3), ("What is a fjord?", 3)]
    assert job.said[0] == "asked without tools, the policy agrees with itself on 1 of 2 unlabelled prompts"
    assert job.said[1] == "of 3 unlabelled prompts 2 need no call (1 known, 1 no_tool_fits); left out: 1 no_tool_fits"
    assert job.notes["requests_sampled"] == 2 + 53
    rows = [row for row in read(stage.folder / "candidates.jsonl") if row["id"].startswith("unlabelled/0/")]
    assert {row["outcome"] for row in rows if row["source"] == "policy"} == {"needless_call"}


def test_constructed_turns_are_written_as_the_template_writes_them(stage):
    stage.run()
    rows = read(stage.folder / "candidates.jsonl")
    own = {row["completion"] for row in rows if row["source"] == "policy" and row["outcome"] == "exact_call"}
    assert own >= {row["completion"] for row in rows if row["source"] == "gold" and row["outcome"] == "exact_call"}


def test_another_reward_table_or_pairing_rule_does_not_sample_again(stage):
    stage.run()
    asked = len(stage.asked)
    first = (stage.folder / "candidates.jsonl").read_bytes()
    metrics, _ = stage.run(reward=RewardConfig(needless_call=-30), margin=20.0)
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


@pytest.mark.parametrize(
    ("changes", "way_out"),
    [
        (
            {"margin": 100.0},
            r"left out: \d+ margin\); raise pairs\.samples, .*pairs\.anchor_share, or lower pairs\.margin$",
        ),
        (
            {"constructed": [], "anchor_share": 0.0},
            r"\d+ balance\); .*, or leave missed_call .* or set pairs\.balance=false$",
        ),
    ],
)
def test_no_pairs_at_all_is_an_error_that_says_what_to_change(stage, changes, way_out):
    with pytest.raises(UserError, match=way_out):
        stage.run(**changes)


def test_a_mistake_that_is_read_as_another_one_is_left_out_and_counted(stage, monkeypatch):
    monkeypatch.setitem(_negatives.RECIPES, "missed_call", lambda request, *_: request.gold)
    stage.run(constructed=["missed_call"], balance=False, anchor_share=1.0)
    report = json.loads((stage.folder / "report.json").read_text())
    assert report["filtered"]["not_as_constructed"] == report["prompts"]
    assert report["constructed"] == {}


def test_every_reason_is_explained_and_there_is_none_that_never_counts():
    code = "".join((ROOT / "stages" / name).read_text() for name in ("pairs.py", "_pairing.py"))
    unfit = code[code.index("def _unfit") : code.index("def select")]
    counted = set(re.findall(r'filtered\["(\w+)"\]', code)) | set(re.findall(r'return "(\w+)"', unfit))
    assert counted == set(_pairs_report.REASONS)
    assert set(_pairing.unpaired([], [], {}, [])) == set(_pairs_report.UNPAIRED)


def test_the_page_shows_the_counts_and_a_few_pairs_of_each_kind(stage):
    stage.run()
    report = json.loads((stage.folder / "report.json").read_text())
    page = Page((stage.folder / "report.html").read_text())
    assert not {"script", "img", "a", "link"} & set(page.tags)
    seen = " ".join(" ".join(page.text).split())
    assert f"{report['pairs']} pairs of {report['requests_with_pairs']} requests" in seen
    for words in (*report["by_kind"], *report["by_source"], *report["filtered"], *report["rejected_outcomes"]):
        assert words in page.text
    for kind, count in report["by_kind"].items():
        assert page.text.count(kind) == 2 + min(4, count)
    assert page.tags.count("article") == sum(min(4, count) for count in report["by_kind"].values())
    assert "policy, log-probability -1.0" in seen
    assert "constructed: needless_ask" in seen
    assert "margin 20" in page.text
    assert "stage=pairs run=mine" in seen


def test_the_page_shows_each_way_a_rejected_side_came_about_before_it_repeats_one(stage):
    stage.run()
    rows = [row for row in read(stage.folder / "pairs.jsonl") if row["kind"] == "call_over_text"]
    recipes = [example["sides"][1]["made"] for example in _pairs_report._examples(rows)["call_over_text"]]
    assert set(recipes[:2]) == {"constructed: missed_call", "constructed: needless_ask"}


def test_the_page_obeys_nothing_that_data_and_models_say(stage):
    stage.run()
    report = json.loads((stage.folder / "report.json").read_text())
    row = read(stage.folder / "pairs.jsonl")[0]
    calls = [{"function": {"name": EVIL, "arguments": {EVIL: EVIL}}}]
    function = {"name": f"\ufdd0{EVIL}", "description": EVIL, "parameters": {"properties": {EVIL: {}}}}
    row |= {"id": EVIL, "chosen": EVIL, "rejected": f"\ufdd0{EVIL}", "tools": [{"function": function}]}
    row["prompt"] = [{"role": "assistant", "content": f"\ufdd0{EVIL}", "tool_calls": calls}]
    (stage.folder / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    text = _pairs_report.page(stage.folder, report, {"run": "mine", "data": EVIL})
    page = Page(text)
    assert not {"script", "img"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\ufdd0" not in text
    assert "{{ 7*7 }}" in " ".join(page.text)
