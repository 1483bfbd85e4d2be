"""Consecutive stages on the same requests: which pairs, clusters, Holm, and the bootstrap against exact values."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from data.dialects import native
from data.formats.world import write_request
from data.transcript import AcceptedCall, Expected, Message, Request, Tool
from rewards import RewardConfig
from stages._comparisons import cluster_places, comparisons, consecutive, difference, holm, resampled
from stages._sampling import Completion
from stages._scoring import measure_more, prediction, score_one

LOOK, SEND = (Tool(name, "Does.", {"type": "object", "properties": {}}) for name in ("look", "send"))
CALLED = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'


def request(number: int, tool: str | None = None, kind: str = "k", tools: tuple[Tool, ...] = (LOOK, SEND)) -> Request:
    expected = Expected("call", (AcceptedCall(tool, {}),)) if tool else Expected("answer")
    return Request(f"r{number}", kind, tools, (Message("user", "Go on."),), expected)


def test_each_model_is_held_against_the_one_it_was_made_from() -> None:
    assert consecutive(["base", "sft", "dpo", "kto", "merged"], "kto") == [
        ("base", "sft"), ("sft", "dpo"), ("sft", "kto"), ("kto", "merged"),
    ]  # fmt: skip
    assert consecutive(["base", "sft", "dpo", "merged"])[-1] == ("dpo", "merged")
    assert consecutive(["base", "dpo"]) == [("base", "dpo")]
    assert consecutive(["base", "merged"], "dpo") == [("base", "merged")]
    assert consecutive(["sft"]) == []
    assert consecutive(["sft", "dpo", "kto", "distill", "merged"], "distill", "kto")[-2:] == [
        ("kto", "distill"), ("distill", "merged"),
    ]  # fmt: skip
    assert consecutive(["base", "sft", "dpo", "distill"])[-1] == ("dpo", "distill")
    assert consecutive(["dpo", "merged"], "distill") == [("dpo", "merged")]


@pytest.mark.parametrize(
    ("ps", "adjusted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # R: p.adjust(c(0.01, 0.04, 0.03), "holm")
        ([0.5, 0.6, 0.001], [1.0, 1.0, 0.003]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_multiplies_by_how_many_are_left_and_never_falls(ps: list[float], adjusted: list[float]) -> None:
    assert holm(ps) == pytest.approx(adjusted)


def test_requests_of_one_right_tool_are_one_cluster_and_others_by_kind_and_offer() -> None:
    requests = [
        request(0, "look"),
        request(1, "send"),
        request(2, "look", kind="other", tools=(LOOK,)),
        request(3),
        request(4, tools=(SEND, LOOK)),
        request(5, kind="other"),
        request(6, tools=(LOOK,)),
    ]
    assert cluster_places(requests) == [0, 1, 0, 2, 2, 3, 4]


def test_requests_of_one_source_are_one_cluster_whatever_is_right() -> None:
    requests = [
        replace(request(0, "look"), source="look: See {}."),
        replace(request(1), source="look: See {}."),
        replace(request(2, "look"), source="look: Show {}."),
        request(3, "look"),
        replace(request(4, "send"), source="look"),  # bears a tool's name, and is of none
    ]
    assert cluster_places(requests) == [0, 0, 1, 2, 3]


def test_samples_are_of_whole_clusters_and_the_same_for_all_models() -> None:
    # Two clusters; call_ece adds one number a bin: a model whose gap is 0 in the first and 1 in the second.
    added = np.zeros((3, 16))
    added[:, 15], added[2, 0] = 1.0, 1.0
    values = resampled({"a": {"call_ece": added}, "b": {"call_ece": added}}, [0, 0, 1], draws=4000, seed=3)
    sampled = values["a"]["call_ece"]
    assert sampled[0] == pytest.approx(1 / 3)
    assert set(sampled[1:].round(6)) == {0.0, round(1 / 3, 6), 1.0}  # never two of the first cluster's rows apart
    assert (sampled[1:] == 1.0).mean() == pytest.approx(1 / 4, abs=0.03)
    assert np.array_equal(sampled, values["b"]["call_ece"])
    again = resampled({"a": {"call_ece": added}}, [0, 0, 1], draws=4000, seed=3)
    assert np.array_equal(sampled, again["a"]["call_ece"])
    other = resampled({"a": {"call_ece": added}}, [0, 0, 1], draws=4000, seed=4)
    assert not np.array_equal(sampled, other["a"]["call_ece"])


def test_the_bootstrap_interval_is_that_of_all_samples_there_can_be() -> None:
    # Five clusters of one request each: all 5^5 samples can be counted.
    tried, needed = np.array([1, 1, 1, 0, 1]), np.array([1, 1, 1, 1, 0])
    table = np.stack([tried * needed, tried * (1 - needed), (1 - tried) * needed, (1 - tried) * (1 - needed)], 1)
    every = np.array([table[list(places)].sum(0) for places in itertools.product(range(5), repeat=5)])
    f1 = 2 * every[:, 0] / (2 * every[:, 0] + every[:, 1] + every[:, 2])
    sampled = resampled({"a": {"call_f1": table.astype(float)}}, range(5), draws=20_000, seed=0)["a"]["call_f1"]
    assert np.quantile(sampled[1:], [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(f1, [0.1, 0.5, 0.9]), abs=0.03)
    assert sampled[1:].mean() == pytest.approx(f1.mean(), abs=0.005)


def test_a_difference_leaves_out_samples_without_a_value() -> None:
    first, second = np.array([0.5, 0.5, np.nan, 0.5]), np.array([0.75, 1.0, 0.1, 0.5])
    found = difference(first, second)
    assert (found["first"], found["second"], found["difference"]) == (0.5, 0.75, 0.25)
    assert found["difference_ci"] == pytest.approx([0.0125, 0.4875])
    nothing = difference(np.array([np.nan, 0.5]), np.array([0.75, 0.5]))
    assert nothing == {"first": None, "second": 0.75, "difference": None, "difference_ci": None}


def test_an_entry_has_both_models_on_the_same_requests() -> None:
    requests = [request(n, "look" if n < 6 else None, tools=(LOOK, SEND)[: 1 + n % 2]) for n in range(12)]
    table = RewardConfig()

    def answered(called: set[int]) -> list:
        return [
            score_one(each, Completion(CALLED if n in called else "Fine.", 0.0, 3, False, p_call=0.5), native, table)
            for n, each in enumerate(requests)
        ]

    did = {"base": answered(set()), "sft": answered(set(range(12))), "dpo": answered(set(range(6)))}
    metrics = {model: measure_more(requests, each) for model, each in did.items()}
    predictions = {
        model: {r.id: prediction(r, model, s) for r, s in zip(requests, each, strict=True)}
        for model, each in did.items()
    }
    rows = [write_request(each) for each in requests]
    first, second = comparisons(metrics, requests, did, rows, predictions, None, seed=0, draws=200)
    assert [(each["first"], each["second"]) for each in (first, second)] == [("base", "sft"), ("sft", "dpo")]
    assert second["clusters"] == 3  # one of look, and two offers where no call is right
    false, missed = (second["tests"][name] for name in ("false_tool_call_rate", "missed_call_rate"))
    assert (false["n"], false["only_first"], false["only_second"], false["difference"]) == (6, 6, 0, -1.0)
    assert (false["p"], false["p_holm"]) == pytest.approx((1 / 32, 3 / 32))
    assert (missed["p"], missed["p_holm"]) == (1.0, 1.0)
    f1 = second["resampled"]["call_f1"]
    assert (f1["first"], f1["second"]) == pytest.approx((2 / 3, 1.0))
    assert f1["difference_ci"][0] <= 1 / 3 <= f1["difference_ci"][1]
    assert second["resampled"]["mcc"]["first"] is None  # sft always calls
    assert second["resampled"]["call_ece"]["difference"] == 0.0
