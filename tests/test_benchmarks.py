"""Categories of bfcl, the leaderboard's layout, and acts by answer and by likelihood, against counts made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.dialects import native
from data.load import DataConfig, load
from data.transcript import AcceptedCall, Act, Expected, Message, Request, Tool, ToolCall
from rewards import RewardConfig
from stages import _benchmarks
from stages._benchmarks import (
    Answers,
    by_category,
    confusions,
    four_acts,
    lines,
    measure,
    result_of,
    tables,
    write_results,
)
from stages._likelihood import Likelihood, Likelihoods
from stages._metrics import wilson
from stages._sampling import Completion
from stages._scoring import Scored, score_one

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"
LOOK = Tool("maps.look", "Looks.", {"type": "object", "properties": {"q": {"type": "string"}}})
CALL = Expected("call", (AcceptedCall("maps.look", {"q": ["é"]}),))
RIGHT = native.write([ToolCall("maps.look", {"q": "é"})])
WRONG = native.write([ToolCall("maps.look", {"q": "a"}), ToolCall("maps.look", {"q": "b"})])


def asked(id_: str, expected: Expected, kind: str = "", others: dict[Act, Message] | None = None) -> Request:
    gold = Message("assistant", "Right.") if others else None
    return Request(id_, kind, (LOOK,), (Message("user", "Look!"),), expected, gold, others=others or {})


def scored(requests: list[Request], texts: list[str]) -> list[Scored]:
    return [
        score_one(request, Completion(text, 0.0, 1, False), native, RewardConfig())
        for request, text in zip(requests, texts, strict=True)
    ]


BFCL = [
    *(asked(f"multiple_{n}", CALL, "multiple") for n in range(3)),
    *(asked(f"irrelevance_{n}", Expected("answer"), "irrelevance") for n in range(4)),
]
SAID = [RIGHT, WRONG, "No.", "No.", "I cannot do that.", RIGHT, RIGHT[:-5]]


def test_a_category_counts_exact_calls_and_where_none_is_right_texts_of_any_kind() -> None:
    assert by_category(BFCL, scored(BFCL, SAID)) == {
        "irrelevance": {"n": 4, "accuracy": 0.5, "accuracy_ci": list(wilson(2, 4) or ())},
        "multiple": {"n": 3, "accuracy": 1 / 3, "accuracy_ci": list(wilson(1, 3) or ())},
    }


def test_calls_are_written_as_a_function_calling_model_gives_them_and_all_else_as_it_was_said() -> None:
    results = [result_of(each) for each in scored(BFCL, SAID)]
    assert results[0] == [{"maps.look": '{"q": "é"}'}]
    assert results[1] == [{"maps.look": '{"q": "a"}'}, {"maps.look": '{"q": "b"}'}]
    assert results[2:5] == SAID[2:5]
    assert results[6] == RIGHT[:-5]


def test_results_lie_in_a_file_a_category_with_the_ids_that_the_scorer_sorts(tmp_path: Path) -> None:
    live = asked("live_simple_19-3-15", CALL, "live_simple")
    again = asked("multiple_0~2", CALL, "multiple")
    requests = [*BFCL, live, again]
    assert write_results(tmp_path / "sft", requests, scored(requests, [*SAID, RIGHT, RIGHT])) == 1
    found = {
        path.relative_to(tmp_path).as_posix(): [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in tmp_path.rglob("*.*")
    }
    assert {name: [row["id"] for row in rows] for name, rows in found.items()} == {
        "sft/BFCL_v4_multiple_result.json": ["multiple_0", "multiple_1", "multiple_2"],
        "sft/BFCL_v4_irrelevance_result.json": [f"irrelevance_{n}" for n in range(4)],
        "sft/BFCL_v4_live_simple_result.json": ["live_simple_19-3-15"],
    }
    assert all(set(row) == {"id", "result"} for rows in found.values() for row in rows)


def test_every_published_row_has_its_category_and_an_id_that_the_scorer_sorts() -> None:
    counts = {"simple_python": 400, "multiple": 200, "parallel": 200, "irrelevance": 240}
    for category, count in counts.items():
        file = SAMPLES / f"bfcl_v4_{category}.jsonl"
        if not file.exists():
            pytest.skip("the sample rows are not beside this checkout")
        config = DataConfig(test=str(file), test_format="auto")
        assert _benchmarks.reads_bfcl(config)
        requests = load(config).test
        assert {request.kind for request in requests} == {category}
        assert sum(bool(_benchmarks._SCORED_ID.fullmatch(request.id)) for request in requests) == count
    assert not _benchmarks.reads_bfcl(DataConfig())


OTHERS: dict[Act, Message] = {"refuse": Message("assistant", "No.")}
CHOICES = [
    asked("a", CALL, others=OTHERS),
    asked("b", Expected("ask"), others=OTHERS),
    asked("c", Expected("answer", text="4"), others=OTHERS),
    asked("d", Expected("answer", text="5"), others=OTHERS),
]
WEIGHED: list[Likelihoods] = [
    {"call": Likelihood(-9.0, 9), "refuse": Likelihood(-2.0, 1)},  # -1 a token beats -2, though -9 is less than -2
    {"ask": Likelihood(-4.0, 2), "refuse": Likelihood(-3.0, 2)},
    {"answer": Likelihood(-1.0, 1), "refuse": Likelihood(-1.0, 1)},  # alike: the first of the acts
    {"answer": Likelihood(-1.0, 1)},  # nothing to choose between
]


def test_acts_are_told_by_answer_and_by_the_likeliest_turn_a_token() -> None:
    said = ["It is so.", "Right.", "It is 4. Anything else?", ""]  # the second is the data's own question
    assert four_acts(CHOICES, scored(CHOICES, said), WEIGHED) == {
        "by_answer": {
            "n": 4,
            "accuracy": 0.5,
            "accuracy_ci": list(wilson(2, 4) or ()),
            "confusion": {"call": {"answer": 1}, "answer": {"answer": 1, "empty": 1}, "ask": {"ask": 1}},
        },
        "by_likelihood": {
            "n": 3,
            "accuracy": 2 / 3,
            "accuracy_ci": list(wilson(2, 3) or ()),
            "confusion": {"call": {"call": 1}, "answer": {"answer": 1}, "ask": {"refuse": 1}},
        },
    }


def measured(requests: list[Request], texts: list[str], weighed: list[Likelihoods], categories: bool) -> dict[str, Any]:
    each = Answers(scored(requests, texts), weighed)
    return measure(requests, {"base": each, "sft": each}, categories)


def test_each_data_gets_what_it_is_made_for_and_no_more() -> None:
    plain = [asked("a", CALL), asked("b", Expected("ask"))]
    assert measured(plain, [RIGHT, "?"], [{}, {}], categories=False) == {"base": {}, "sft": {}}
    assert set(measured(BFCL, SAID, [{}] * 7, categories=True)["sft"]) == {"bfcl"}
    assert set(measured(CHOICES, [RIGHT] * 4, WEIGHED, categories=False)["sft"]) == {"four_acts", "ability"}


def test_tables_hold_what_was_measured_and_lines_show_them() -> None:
    metrics = measured(CHOICES, [RIGHT, "Which one?", "4", "4"], WEIGHED, categories=True)
    assert [table.title for table in tables(metrics)] == ["BFCL by category", "Four acts", "General ability"]
    by_title = {table.title: table for table in tables(metrics)}
    assert by_title["Four acts"].heads == ("told", "n", "base", "sft")
    assert [row[:3] for row in by_title["Four acts"].rows] == [
        ("by answer", "4", "100.0 % [51.0, 100.0]"),
        ("by likelihood", "3", "66.7 % [20.8, 93.9]"),
    ]
    assert [row[:3] for row in by_title["General ability"].rows] == [
        ("exact answers", "2", "50.0 % [9.5, 90.5]"),
        ("right answers", "2", "50.0 % [9.5, 90.5]"),
        ("perplexity", "2", "2.72"),
        ("times the base's", "2", "1.00 [1.00, 1.00]"),
    ]
    shown = lines(tables(metrics))
    assert shown[0] == ""
    assert shown[1].startswith("BFCL by category. ")
    assert "by likelihood  3  66.7 % [20.8, 93.9]" in "\n".join(shown)
    assert tables({"base": {}}) == confusions({"base": {}}) == []
    assert lines([]) == lines(tables({"base": {}})) == []


def test_a_confusion_shows_both_views_side_by_side() -> None:
    metrics = measured(CHOICES, ["It is so.", "Right.", "4", ""], WEIGHED, categories=False)
    first = confusions(metrics)[0]
    assert first.title == "Acts of base"
    assert first.heads == ("right", "call", "answer", "ask", "refuse", "empty")
    assert first.rows == [
        ("call", "0 / 1", "1 / 0", "0 / 0", "0 / 0", "0 / 0"),
        ("answer", "0 / 0", "1 / 1", "0 / 0", "0 / 0", "1 / 0"),
        ("ask", "0 / 0", "0 / 0", "1 / 0", "0 / 1", "0 / 0"),
    ]
