"""Rates, intervals and the paired test, against numbers from the literature and counts made by hand."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.dialects import native, router
from data.transcript import AcceptedCall, Expected, Message, Request, Tool
from rewards import OUTCOMES, judge
from stages import _metrics
from stages._metrics import DENOMINATORS, compare, contrast, mcnemar, metrics, paired_interval, wilson

WEATHER = Tool(
    "get_weather",
    "Weather at a place.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
)
CLOCK = Tool("get_time", "Time at a place.", {"type": "object", "properties": {"zone": {"type": "string"}}})
OSLO = Expected("call", (AcceptedCall("get_weather", {"city": ["Oslo", "oslo"]}),))
TWO = Expected("call", (*OSLO.calls, AcceptedCall("get_time", {"zone": ["CET"]})))
RIGHT_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def request(number: int, expected: Expected, kind: str = "k", unseen: bool = False) -> Request:
    return Request(
        f"r{number}", kind, (WEATHER, CLOCK), (Message("user", "Weather in Oslo?"),), expected, unseen=unseen
    )


def measured(*rows: tuple[Request, str], dialect: ModuleType = native) -> dict:
    requests = [request for request, _ in rows]
    readings = [dialect.read(text, request.tools) for request, text in rows]
    judgements = [judge(request, reading) for request, reading in zip(requests, readings, strict=True)]
    return metrics(requests, readings, judgements)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_intervals_are_those_of_the_literature(k: int, n: int, low: float, high: float) -> None:
    assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)


def test_an_interval_over_nothing_is_none() -> None:
    assert wilson(0, 0) is None


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_intervals_hold_their_share_and_stay_between_zero_and_one(count: tuple[int, int]) -> None:
    low, high = wilson(*count) or (math.nan, math.nan)
    assert 0 <= low <= count[0] / count[1] <= high <= 1


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (0, 0, 1.0),
        (0, 5, 0.0625),
        (5, 0, 0.0625),
        (1, 1, 1.0),
        (10, 2, 158 / 4096),
        (59, 6, 2 * 91_581_634 / 2**65),
        (3, 4, 1.0),
    ],
)
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(p, rel=1e-12)


def test_mcnemar_of_thousands_of_pairs_neither_overflows_nor_rounds_to_nothing_too_early() -> None:
    assert mcnemar(0, 1000) == pytest.approx(2.0**-999)
    assert mcnemar(0, 20_000) == 0.0
    assert mcnemar(10_000, 10_000) == 1.0


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_symmetric_and_a_probability(b: int, c: int) -> None:
    assert mcnemar(b, c) == mcnemar(c, b)
    assert 0 < mcnemar(b, c) <= 1


def test_compare_counts_discordant_pairs_in_order() -> None:
    first, second = [True, True, True, False, False], [True, False, False, True, False]
    assert compare(first, second)[:2] == (2, 1)
    assert compare(first, second).difference == pytest.approx(-1 / 5)
    assert compare([], [])[3:] == (None, None)


def test_the_paired_interval_is_that_of_bonett_and_price() -> None:
    # Complete response before and after consolidation therapy (Cavo 2012), as Fagerland's R contingencytables gives it.
    assert paired_interval(16, 6, 161) == pytest.approx((-0.1195, -0.0032), abs=5e-5)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_the_paired_interval_stays_between_minus_one_and_one_and_turns_with_the_pair(b: int, c: int, same: int) -> None:
    low, high = paired_interval(b, c, max(1, b + c + same)) or (math.nan, math.nan)
    assert -1 <= low <= high <= 1
    assert paired_interval(c, b, max(1, b + c + same)) == pytest.approx((-high, -low))


def test_each_rate_has_its_own_denominator() -> None:
    fields = measured(
        (request(0, OSLO), RIGHT_CALL),
        (request(1, OSLO), RIGHT_CALL.replace("Oslo", "Bergen")),  # valid, wrong argument
        (request(2, OSLO), RIGHT_CALL.replace("city", "town")),  # breaks the schema
        (request(3, OSLO), '<tool_call>\n{"name": "get_wea'),  # does not parse
        (request(4, OSLO), "It is mild."),  # missed
        (request(5, Expected("answer", text="mild")), "It is mild."),
        (request(6, Expected("answer", text="mild")), RIGHT_CALL),
        (request(7, Expected("ask")), "Which place?"),
        (request(8, Expected("refuse")), "get_weather(the the"),  # a broken attempt is an attempt
        (request(9, Expected("answer", text="mild")), ""),
    )
    assert (fields["n"], fields["n_call"], fields["n_no_call"], fields["n_valid_call"]) == (10, 5, 5, 2)
    assert fields["exact_call_rate"] == 1 / 5
    assert fields["tool_name_accuracy"] == 3 / 5
    assert fields["argument_match_accuracy"] == 1 / 2
    assert fields["missed_call_rate"] == 1 / 5
    assert fields["false_tool_call_rate"] == 2 / 5
    assert fields["balanced_accuracy"] == pytest.approx(1 - (2 / 5 + 1 / 5) / 2)
    assert fields["answer_accuracy"] == 2 / 5
    assert fields["malformed_rate"] == 2 / 10
    # Two valid calls where one was needed, a valid needless one, and three texts; the empty one declines nothing.
    assert fields["valid_tool_call_rate"] == 6 / 10
    assert fields["outcomes"] == {
        **dict.fromkeys(("exact_call", "right_tool_wrong_arguments", "invalid_arguments", "malformed_call"), 1),
        **{"missed_call": 1, "right_answer": 1, "needless_call": 2, "asked": 1, "empty": 1},
    }
    assert set(fields["outcomes"]) <= set(OUTCOMES)


def test_every_rate_has_an_interval_around_it() -> None:
    fields = measured((request(0, OSLO), RIGHT_CALL), (request(1, Expected("ask")), "Which place?"))
    for name in (*DENOMINATORS, "balanced_accuracy"):
        low, high = fields[f"{name}_ci"]
        assert 0 <= low <= fields[name] <= high <= 1


def test_rates_over_nothing_are_null_and_so_are_their_intervals() -> None:
    fields = measured((request(0, OSLO), "It is mild."))
    for name in ("false_tool_call_rate", "answer_accuracy", "argument_match_accuracy", "balanced_accuracy"):
        assert fields[name] is None
        assert fields[f"{name}_ci"] is None
    assert fields["unseen_tools"]["n"] == 0
    assert fields["unseen_tools"]["missed_call_rate"] is None


def test_lacking_surplus_and_twice_called_tools_make_the_names_wrong() -> None:
    both = f'{RIGHT_CALL}\n<tool_call>\n{{"name": "get_time", "arguments": {{"zone": "CET"}}}}\n</tool_call>'
    assert measured((request(0, TWO), both))["exact_call_rate"] == 1.0
    for text in (RIGHT_CALL, f"{RIGHT_CALL}\n{RIGHT_CALL}", f"{both}\n{RIGHT_CALL}", f"{both}\n<tool_call>"):
        fields = measured((request(0, TWO), text))
        assert fields["tool_name_accuracy"] == 0.0
        assert fields["exact_call_rate"] == 0.0


def test_a_tool_that_is_not_on_offer_is_no_valid_call() -> None:
    fields = measured((request(0, OSLO), RIGHT_CALL.replace("get_weather", "weather")))
    assert fields["valid_tool_call_rate"] == 0.0
    assert fields["argument_match_accuracy"] is None


def test_an_accepted_value_is_valid_whatever_the_schema_says() -> None:
    odd = request(0, Expected("call", (AcceptedCall("get_weather", {"city": [7]}),)))
    fields = measured((odd, RIGHT_CALL.replace('"Oslo"', "7")))
    assert fields["valid_tool_call_rate"] == fields["argument_match_accuracy"] == 1.0


def test_the_datas_own_turn_is_no_false_call_though_it_names_a_tool_with_brackets() -> None:
    text = "Use get_weather(city) for that."
    gold = Request(
        "r", "k", (WEATHER,), (Message("user", "How?"),), Expected("answer", text=text), Message("assistant", text)
    )
    fields = measured((gold, text))
    assert fields["false_tool_call_rate"] == 0.0
    assert fields["answer_accuracy"] == fields["valid_tool_call_rate"] == 1.0


def test_unseen_tools_and_kinds_are_measured_apart() -> None:
    fields = measured(
        (request(0, OSLO, "weather", unseen=True), RIGHT_CALL),
        (request(1, OSLO, "weather"), "Mild."),
        (request(2, Expected("ask"), "vague", unseen=True), RIGHT_CALL),
    )
    assert fields["unseen_tools"]["n"] == 2
    assert fields["unseen_tools"]["exact_call_rate"] == 1.0
    assert (fields["seen_tools"]["n"], fields["seen_tools"]["exact_call_rate"]) == (1, 0.0)
    assert list(fields["by_kind"]) == ["vague", "weather"]
    assert fields["by_kind"]["weather"]["exact_call_rate"] == 0.5
    assert fields["by_kind"]["vague"]["false_tool_call_rate"] == 1.0
    assert "by_kind" not in fields["unseen_tools"]


def test_contrast_reads_the_rows_of_the_files() -> None:
    requests = [{"id": "a", "expected": {"act": "call"}}, {"id": "b", "expected": {"act": "ask"}}]
    first = {"a": {"attempt": True, "outcome": "exact_call"}, "b": {"attempt": True, "outcome": "needless_call"}}
    second = {"a": {"attempt": False, "outcome": "missed_call"}, "b": {"attempt": False, "outcome": "asked"}}
    tests = contrast(requests, first, second)
    assert tests["false_tool_call_rate"][:2] == (1, 0)
    assert tests["missed_call_rate"][:2] == (0, 1)
    assert tests["exact_call_rate"][:2] == (1, 0)


def test_an_unread_outcome_would_be_noticed() -> None:
    assert set(OUTCOMES) >= _metrics.RIGHT_TEXTS


def test_a_right_text_outside_of_the_dialects_format_is_right_and_not_valid():
    hello = request(1, Expected("answer", text="Hello!"))
    said = '{"tool": "no_tool", "reason": "Hello!"}'
    found = measured((hello, "Hello!"), (hello, said), dialect=router)
    assert (found["answer_accuracy"], found["valid_tool_call_rate"], found["false_tool_call_rate"]) == (1.0, 0.5, 0.0)
    assert measured((hello, "Hello!"))["valid_tool_call_rate"] == 1.0


def test_each_rate_is_told_by_numerator_and_denominator() -> None:
    told = str(_metrics.__doc__).splitlines()
    for name in (*DENOMINATORS, "balanced_accuracy"):
        assert any(line.strip().startswith(f"{name} ") and "/" in line for line in told), name
