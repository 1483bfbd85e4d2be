"""What is left of the base's general ability, against counts and values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from data.dialects import native
from data.transcript import Expected, Message, Request
from rewards import RewardConfig
from stages._ability import Answers, measure, perplexity, ratio, warnings
from stages._likelihood import Likelihood
from stages._metrics import paired_interval, wilson
from stages._sampling import Completion
from stages._scoring import score_one

LN2 = math.log(2)


def asked(number: int, expected: Expected) -> Request:
    return Request(f"r{number}", "", (), (Message("user", "How much is it?"),), expected)


def answers(requests: list[Request], texts: list[str], lost: list[tuple[float, int] | None]) -> Answers:
    scored = [
        score_one(request, Completion(text, 0.0, 1, False), native, RewardConfig())
        for request, text in zip(requests, texts, strict=True)
    ]
    return Answers(scored, [{"answer": Likelihood(-each[0], each[1])} if each else {} for each in lost])


REQUESTS = [
    asked(0, Expected("answer", text="4")),
    asked(1, Expected("answer", text="Oslo")),
    asked(2, Expected("answer")),  # no known text
    asked(3, Expected("refuse")),
    asked(4, Expected("answer", text="red")),
]
CALL = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'


def test_perplexity_is_over_all_tokens_of_all_texts() -> None:
    assert perplexity([Likelihood(-3 * LN2, 1), Likelihood(-LN2, 3)]) == pytest.approx(2.0)  # 4 ln 2 over 4 tokens
    assert perplexity([]) is None


def test_the_ratio_of_perplexities_and_its_interval_are_those_worked_out_by_hand() -> None:
    base, model = [Likelihood(-1.0, 2), Likelihood(-2.0, 2)], [Likelihood(-2.0, 2), Likelihood(-5.0, 2)]
    # Lost 1 and 3 over 2 tokens each: 1 a token. Residuals -1 and 1, variance 2 * 2 / 4**2, standard error 0.5.
    value, interval = ratio(base, model)
    assert value == pytest.approx(math.e)
    assert interval == pytest.approx((math.exp(1 - 1.959964 * 0.5), math.exp(1 + 1.959964 * 0.5)), rel=1e-6)
    assert value == pytest.approx((perplexity(model) or 0) / (perplexity(base) or 1))
    assert ratio(base, base) == (1.0, (1.0, 1.0))
    assert ratio(base[:1], model[:1]) == (pytest.approx(math.exp(0.5)), None)
    assert ratio([], []) == (None, None)


def test_answers_are_held_against_the_bases_on_requests_with_a_known_text_alone() -> None:
    base = answers(REQUESTS, ["It is 4.", "Rome", "x", "x", "red"], [(1.0, 1), None, None, None, (2.0, 2)])
    sft = answers(REQUESTS, ["4", "Oslo", "x", "x", f"red\n{CALL}"], [(2.0, 1), None, None, None, (4.0, 2)])
    found = measure(REQUESTS, {"base": base, "sft": sft})
    assert (found["base"]["n"], found["base"]["n_weighed"], found["base"]["n_tokens"]) == (3, 2, 3)
    assert (found["base"]["exact_answer_rate"], found["base"]["right_answer_rate"]) == (1 / 3, 2 / 3)
    assert found["base"]["exact_answer_rate_ci"] == list(wilson(1, 3) or ())
    assert found["base"]["exact_answer_change"] == 0.0
    assert found["base"]["perplexity"] == pytest.approx(math.e)
    assert (found["sft"]["exact_answer_rate"], found["sft"]["right_answer_rate"]) == (2 / 3, 2 / 3)
    assert found["sft"]["exact_answer_change"] == pytest.approx(1 / 3)  # two gained, one lost by a call beside it
    assert found["sft"]["exact_answer_change_ci"] == list(paired_interval(1, 2, 3) or ())
    assert found["sft"]["perplexity"] == pytest.approx(math.exp(2))
    assert found["sft"]["perplexity_ratio"] == pytest.approx(math.e)
    assert found["sft"]["perplexity_ratio_ci"] == pytest.approx([math.e, math.e])  # each text lost alike


def test_without_a_base_nothing_is_compared_and_without_known_texts_nothing_is_measured() -> None:
    alone = measure(REQUESTS, {"sft": answers(REQUESTS, ["4"] * 5, [None] * 5)})["sft"]
    assert (alone["exact_answer_rate"], alone["n_weighed"]) == (1 / 3, 0)
    for name in ("exact_answer_change", "right_answer_change_ci", "perplexity", "perplexity_ratio"):
        assert alone[name] is None
    assert measure(REQUESTS[2:4], {"base": answers(REQUESTS[2:4], ["x", "x"], [None, None])}) == {}


def test_only_a_ratio_above_the_threshold_is_warned_of() -> None:
    metrics = {
        "base": {"ability": {"perplexity_ratio": 1.0, "perplexity_ratio_ci": [1.0, 1.0]}},
        "sft": {"ability": {"perplexity_ratio": 1.51, "perplexity_ratio_ci": [1.2, 1.94]}},
        "dpo": {"ability": {"perplexity_ratio": 1.5, "perplexity_ratio_ci": None}},
        "kto": {"ability": {"perplexity_ratio": None}},
        "ppo": {},
    }
    (line,) = warnings(metrics, 1.5)
    assert line.startswith("warning: sft ")
    assert "1.51 [1.20, 1.94] times" in line
    assert "evaluate.max_perplexity_ratio=1.5" in line
    assert warnings(metrics, None) == []
    (line,) = warnings({"sft": metrics["sft"]}, 1.5)
    assert line.startswith("base is not among evaluate.models")


def test_each_language_that_rows_name_is_told_and_warned_of_by_itself() -> None:
    spoken = [replace(REQUESTS[0], language="no"), replace(REQUESTS[1], language="sv"), REQUESTS[4]]
    base = answers(spoken, ["4", "Oslo", "red"], [(1.0, 1), (1.0, 1), (1.0, 1)])
    dpo = answers(spoken, ["4", "x", "red"], [(1.0, 1), (3.0, 1), (1.0, 1)])
    found = measure(spoken, {"base": base, "dpo": dpo})["dpo"]
    assert (found["n"], found["exact_answer_rate"]) == (3, 2 / 3)
    apart = found["by_language"]
    assert {name: (each["n"], each["exact_answer_rate"]) for name, each in apart.items()} == {
        "no": (1, 1),
        "sv": (1, 0),
    }
    assert apart["sv"]["perplexity_ratio"] == pytest.approx(math.exp(2))
    (line,) = warnings({"base": {}, "dpo": {"ability": found}}, 2.0)
    assert line.startswith("warning: dpo (sv) ")
    assert "by_language" not in measure(REQUESTS, {"base": answers(REQUESTS, ["4"] * 5, [None] * 5)})["base"]
