"""Measures beside the contract's rates, against counts made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from data.dialects import native
from data.transcript import AcceptedCall, Expected, Message, Request, Tool
from rewards import judge
from stages._behaviour import POOLED, behaviour, right_slot
from stages._metrics import Row

TOOLS = tuple(
    Tool(name, "Does.", {"type": "object", "properties": {key: {"type": "string"} for key in ("place", "day")}})
    for name in ("weather", "tides")
)
OSLO = AcceptedCall("weather", {"place": ["Oslo"], "day": ["today"]}, optional=("day",))
ONE = Expected("call", (OSLO,))
TWO = Expected("call", (OSLO, AcceptedCall("tides", {"place": ["Oslo"]})))
LACKS = Expected("ask", lacking=("place",))
ASK, REFUSE, ANSWER = Expected("ask"), Expected("refuse"), Expected("answer", text="mild")


def call(name: str, **arguments: str) -> str:
    inner = ", ".join(f'"{key}": "{value}"' for key, value in arguments.items())
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{{inner}}}}}\n</tool_call>'


def done(*pairs: tuple[Expected, str]) -> list[Row]:
    rows = []
    for number, (expected, text) in enumerate(pairs):
        request = Request(f"r{number}", "k", TOOLS, (Message("user", "Weather in Oslo today?"),), expected)
        reading = native.read(text, TOOLS)
        rows.append(Row(request, reading, judge(request, reading)))
    return rows


RIGHT = call("weather", place="Oslo")
TIDES = call("tides", place="Oslo")
MIXED = done(
    (ONE, RIGHT),  # right; the optional day left out
    (ONE, call("weather", place="Rome", day="today")),  # one argument of two, a value from nowhere
    (ONE, call("storms", place="Oslo")),  # not on offer
    (ONE, '<tool_call>\n{"name": "wea'),  # does not parse
    (ONE, "It is mild."),  # missed
    (TWO, f"{RIGHT}\n{TIDES}"),  # both right
    (TWO, f"{RIGHT}\n{RIGHT}\n{TIDES}"),  # one more
    (LACKS, "Which place?"),
    (ASK, RIGHT),  # needless; says not what lacks
    (REFUSE, "Which place?"),
    (REFUSE, "I cannot do that."),
    (ANSWER, "It is mild."),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "above", "below"),
    [
        ("attempt_rate", 7, 12),
        ("parse_rate", 6, 7),
        ("valid_attempt_rate", 4, 6),
        ("tool_name_accuracy_given_call", 3, 6),
        ("hallucinated_tool_rate", 1, 7),
        ("refusal_rate", 1, 12),
        ("ask_precision", 1, 2),
        ("ask_recall", 1, 2),
        ("right_slot_rate", 1, 1),
        ("parallel_count_accuracy", 1, 2),
        ("argument_precision", 6, 7),  # given: 1, 2, and 1 + 1 of each parallel one
        ("argument_recall", 6, 7),
        ("argument_f1", 12, 14),
        ("ungrounded_argument_rate", 1, 10),
        ("parallel_call_f1", 8, 9),  # 2 x 4 exact ones, of 2 + 3 made and 2 + 2 expected
        ("surplus_calls", 3, 12),  # storms, the third call, the needless one
        ("tool_productivity", 2, 9),
        ("mean_output_tokens", 66, 12),
        ("expected_utility_at_0.5", 2 - 0.5 * 5, 12),
        ("expected_utility_at_4", 2 - 4 * 5, 12),
        ("call_f1", 12, 12 + 1 + 1),
        ("mcc", 6 * 4 - 1 * 1, 7 * 5),
    ],
)
def test_each_measure_is_its_numerator_over_its_denominator(name: str, above: float, below: float) -> None:
    assert behaviour(MIXED, range(12))[name] == pytest.approx(above / below)


def test_the_f1_of_acts_is_the_mean_over_acts_that_are_right_somewhere() -> None:
    fields = behaviour(MIXED, range(12))
    # call 2 x 6 / (7 + 7), ask 2 x 1 / (2 + 2), refuse 2 x 1 / (1 + 2), answer 2 x 1 / (2 + 1)
    assert fields["act_macro_f1"] == pytest.approx((12 / 14 + 1 / 2 + 2 / 3 + 2 / 3) / 4)
    assert fields["acts"]["call"] == {"call": 6, "answer": 1, "ask": 0, "refuse": 0, "empty": 0}
    assert fields["acts"]["ask"] == {"call": 1, "answer": 0, "ask": 1, "refuse": 0, "empty": 0}
    some = behaviour(done((ONE, RIGHT), (ONE, "Which place?")), [1, 1])
    assert some["act_macro_f1"] == pytest.approx(2 / 3)
    assert some["act_macro_f1_all"] == pytest.approx(1 / 3)
    assert list(some["acts"]) == ["call"]


def test_shares_have_an_interval_and_bundles_have_none() -> None:
    fields = behaviour(MIXED, range(12))
    low, high = fields["parse_rate_ci"]
    assert 0 < low < 6 / 7 < high < 1
    assert not {f"{name}_ci" for name in (*POOLED, "surplus_calls", "tool_productivity")} & set(fields)


def test_over_nothing_a_measure_is_null() -> None:
    fields = behaviour(done((ANSWER, "It is mild.")), [3])
    for name in ("parse_rate", "valid_attempt_rate", "ask_precision", "argument_f1", "call_f1", "mcc"):
        assert fields[name] is None
    for name in ("parallel_call_f1", "tool_productivity", "ungrounded_argument_rate", "parse_rate_ci"):
        assert fields[name] is None
    nothing = behaviour([], [])
    assert {value for name, value in nothing.items() if name != "acts"} == {None}
    assert nothing["acts"] == {}


def test_a_right_answer_that_ends_in_a_question_is_an_answer() -> None:
    rows = done((ANSWER, "It is mild. Anything else you want to know?"))
    assert rows[0].judgement.components["act"] == "ask"
    assert behaviour(rows, [1])["acts"] == {"answer": {"call": 0, "answer": 1, "ask": 0, "refuse": 0, "empty": 0}}


@pytest.mark.parametrize(
    ("lacking", "gold", "said", "right"),
    [
        ("departureCity", None, "Which city is the departure from?", True),
        ("departureCity", None, "Which city?", False),  # every part has to be there
        ("party_size", None, "What size is your party?", True),
        ("party_size", "For how many people?", "How many people will it be?", True),  # words of the data's question
        ("party_size", "For how many people?", "How many tables?", False),
        ("guest", None, "How many guests?", True),  # number is ignored
        ("title", "What is the title?", "Which title?", True),
        ("title", "What is the title?", "What is the date?", False),  # made with the same words, about another thing
        ("place", None, "I need a place.", False),  # no question
        ("day", None, "On which Monday?", False),  # a word, not a piece of one
    ],
)
def test_a_question_is_for_an_argument_whose_name_or_question_stands_in_it(
    lacking: str, gold: str | None, said: str, right: bool
) -> None:
    (row,) = done((Expected("ask", lacking=(lacking,)), said))
    turn = Message("assistant", gold) if gold else None
    assert right_slot(row._replace(request=replace(row.request, gold=turn))) is right


def test_a_call_that_names_the_lacking_argument_asks_for_nothing() -> None:
    fields = behaviour(done((LACKS, call("weather", place="Oslo"))), [1])
    assert (fields["right_slot_rate"], fields["ask_recall"]) == (0.0, 0.0)
    assert behaviour(done((ASK, "Which place?")), [1])["right_slot_rate"] is None


@pytest.mark.parametrize(
    ("results", "said", "recovered"),
    [
        (['{"error": "no result within 5 s"}'], call("weather", place="Oslo"), 1.0),  # tried again
        (['{"error": "no result within 5 s"}'], "It is mild.", 0.0),
        (['{"sky": "mild"}', '{"error": {"code": 404}}'], "It is mild.", 0.0),  # one of several
        (['{"error": null, "sky": "mild"}'], RIGHT, None),
        (['{"sky": "mild"}'], RIGHT, None),
        (["error: no such place"], RIGHT, None),  # text says nothing for certain
        (["[1]"], RIGHT, None),
    ],
)
def test_recovery_is_what_is_right_after_a_call_that_failed(
    results: list[str], said: str, recovered: float | None
) -> None:
    (row,) = done((ONE, said))
    turns = (*row.request.messages, Message("assistant"), *(Message("tool", result) for result in results))
    row = row._replace(request=replace(row.request, messages=turns))
    assert behaviour([row], [1])["recovery_rate"] == recovered
    again = replace(row.request, messages=(*turns, Message("assistant", "It failed."), Message("user", "Really?")))
    assert behaviour([row._replace(request=again)], [1])["recovery_rate"] is None


def turns_of(conversation: str, *pairs: tuple[Expected, str]) -> list[Row]:
    """Turns of one conversation, each behind all that came before."""
    rows: list[Row] = []
    for number, row in enumerate(done(*pairs)):
        before = (*rows[-1].request.messages, Message("assistant", "Fine.")) if rows else ()
        request = replace(row.request, id=f"{conversation}/{number}", messages=(*before, *row.request.messages))
        rows.append(row._replace(request=request))
    return rows


def test_a_dialogue_is_right_when_all_its_turns_are() -> None:
    solved = turns_of("a", (ONE, RIGHT), (ANSWER, "It is mild."), (TWO, f"{RIGHT}\n{TIDES}"))
    failed = turns_of("b", (ONE, RIGHT), (ANSWER, RIGHT))
    alone = turns_of("c", (ONE, RIGHT))
    fields = behaviour([*failed[::-1], *solved, *alone], [1] * 6)
    assert fields["dialogue_accuracy"] == 1 / 2
    assert fields["calls_per_solved_dialogue"] == 3
    assert behaviour([*failed, *alone], [1] * 3)["calls_per_solved_dialogue"] is None

    # Ids alone make no dialogue: these do not go on from one another.
    others = [row._replace(request=replace(row.request, id=f"d/{n}")) for n, row in enumerate(done((ONE, RIGHT)) * 2)]
    fields = behaviour(others, [1, 1])
    assert (fields["dialogue_accuracy"], fields["dialogue_accuracy_ci"]) == (None, None)
