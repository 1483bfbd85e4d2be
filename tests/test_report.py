"""The report: whole, self-contained, honest about its choice of examples, and safe against what models and data say."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from data.dialects import native
from data.formats.world import write_request
from data.transcript import AcceptedCall, Expected, Message, Reading, Request, Tool, ToolCall
from rewards import OUTCOMES, Judgement, RewardConfig, judge, points
from stages import _charts, _evidence, _report
from stages._examples import clip, expected_text, instructive, most_better, one_line, visible
from stages._metrics import DENOMINATORS
from stages._sampling import Completion
from stages._scoring import Scored, measure_more, prediction
from stages._summary import expected_against_predicted, tables, verdict

VOID = {"meta", "br", "hr", "img", "input", "link"}
EVIL = (
    '</pre><script>alert(1)</script><img src=x onerror=alert(2)>"\' onload="alert(3)" {{ 7*7 }} {% raw %} \x1b[2J\u202e'
)
CALL = Expected("call", (AcceptedCall("look", {"q": ["a", "b"], "deep": [True]}, ("deep",)),))
RIGHT = '<tool_call>\n{"name": "look", "arguments": {"q": "a"}}\n</tool_call>'


class Page(HTMLParser):
    """The page as a browser takes it apart: its tags, checked to be closed, its attributes, its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def request(number: int, expected: Expected, kind: str = "plain", text: str = "hello", unseen: bool = False) -> Request:
    tool = Tool(
        "look", "Looks.", {"type": "object", "properties": {"q": {"type": "string"}, "deep": {"type": "boolean"}}}
    )
    return Request(f"r{number:03}", kind, (tool,), (Message("user", text),), expected, unseen=unseen)


def scored(asked: Request, text: str, reading: Reading, judgement: Judgement) -> Scored:
    """What a model said, with what it is worth by the default table."""
    score = points(judgement, RewardConfig(), asked, reading)
    return Scored(Completion(text, 0.0, len(text.split()), False), reading, judgement, score)


def evaluated(requests: list[Request], said: dict[str, list[str]]) -> tuple[dict, list, dict]:
    """metrics.json, requests.jsonl and predictions.jsonl (by model and id) for what these models said."""
    found, predictions = {}, {}
    for model, texts in said.items():
        readings = [native.read(text, each.tools) for each, text in zip(requests, texts, strict=True)]
        answers = [
            scored(each, text, reading, judge(each, reading))
            for each, text, reading in zip(requests, texts, readings, strict=True)
        ]
        found[model] = measure_more(requests, answers)
        predictions[model] = {
            each.id: prediction(each, model, answer) for each, answer in zip(requests, answers, strict=True)
        }
    return found, [write_request(each) for each in requests], predictions


def mixed() -> tuple[dict, list, dict]:
    requests = [request(n, CALL, "needed", unseen=n < 4) for n in range(12)]
    requests += [request(n, Expected("ask"), "vague", unseen=n < 14) for n in range(12, 24)]
    good = [RIGHT] * 12 + ["Which one?"] * 12
    dpo = ["no", *good[1:]]
    return evaluated(requests, {"base": ["no"] * 24, "sft": [RIGHT] * 24, "dpo": dpo, "merged": dpo})


def page(evaluation: tuple[dict, list, dict], **facts: str) -> str:
    return _report.render(*evaluation, {"run": "s0"} | facts)


def test_the_page_is_well_formed_and_fetches_nothing() -> None:
    text = page(mixed())
    parsed = Page(text)
    assert {"svg", "table", "article", "details"} <= set(parsed.tags)
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    assert not [
        each for each in parsed.attributes if each[1] in {"src", "href", "srcset", "action"} or each[1][:2] == "on"
    ]
    assert not re.search(r"https?:|//|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text


def test_the_page_shows_every_field_of_every_model() -> None:
    parsed = Page(page(mixed()))
    seen = " ".join(parsed.text)
    for name in (*DENOMINATORS, "balanced_accuracy"):
        assert name in seen
    for model in ("base", "sft", "dpo", "merged"):
        assert model in parsed.text
    assert "dpo gave the same completion to 24 of 24" in " ".join(seen.split())
    assert "On tools never seen in training" in parsed.text
    assert "On tools seen in training" in parsed.text


def test_the_verdict_names_both_errors_with_their_test() -> None:
    found, rows, predictions = mixed()
    assert verdict(found, rows, predictions) == [
        "sft -> dpo: false calls 100.0 % -> 0.0 %, missed calls 0.0 % -> 8.3 %",
        "  false calls: -100.0 points [-100.0, -58.7]; of 12, 12 put right and 0 newly wrong, McNemar p = 0.001",
        "  missed calls: +8.3 points [-16.8, +31.1]; of 12, 0 put right and 1 newly wrong, McNemar p = 1.00",
        "dpo and merged: the same completion to 24 of 24 requests",
    ]


def test_the_terminal_table_has_a_line_a_model_no_wider_than_a_terminal() -> None:
    lines = tables(mixed()[0])
    assert lines[0] == "24 held-out requests: 12 need a call, 12 do not"
    assert [line.split()[0] for line in lines[2:6]] == ["base", "sft", "dpo", "merged"]
    assert lines[7].startswith("on tools unseen in training, 6 held-out requests")
    assert max(map(len, lines)) <= 110


def test_what_models_and_data_say_is_shown_and_never_obeyed() -> None:
    tool = Tool(f"look{EVIL}", EVIL, {"type": "object", "properties": {"q": {"description": EVIL}}})
    turns = (Message("user", EVIL), Message("assistant", EVIL, (ToolCall(EVIL, {EVIL: EVIL}),)), Message("tool", EVIL))
    expected = Expected("call", (AcceptedCall(EVIL, {EVIL: [EVIL]}),))
    requests = [
        Request(f"1{EVIL}", EVIL, (tool,), turns, expected),
        Request("2", EVIL, (tool,), turns, Expected("answer", text=EVIL)),
    ]
    evaluation = evaluated(requests, {"sft": [EVIL, EVIL], "dpo": [f"{EVIL}?", f"<tool_call>{EVIL}"]})
    text = page(evaluation, reward=EVIL)
    parsed = Page(text)
    assert not {"script", "img"} & set(parsed.tags)
    assert not [each for each in parsed.attributes if each[1][:2] == "on"]
    assert "49" not in re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", text, flags=re.DOTALL)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert sum("alert(1)" in each for each in parsed.text) > 10
    for line in (*tables(evaluation[0]), *expected_against_predicted(evaluation[1], evaluation[2])):
        assert line.isprintable()


def test_without_dpo_the_verdict_is_about_base_and_sft_and_merged_is_held_against_sft() -> None:
    found, rows, predictions = mixed()
    found, predictions = ({name: part[name] for name in ("base", "sft", "merged")} for part in (found, predictions))
    lines = verdict(found, rows, predictions)
    assert lines[0] == "base -> sft: false calls 0.0 % -> 100.0 %, missed calls 100.0 % -> 0.0 %"
    assert lines[-1] == "sft and merged: the same completion to 11 of 24 requests"


def test_the_verdict_is_about_the_first_preference_stage_that_is_there() -> None:
    assert _report.compared(["base", "sft", "kto", "merged"]) == ("sft", "kto")
    assert _report.compared(["base", "sft", "dpo", "kto", "merged"]) == ("sft", "dpo")
    assert _report.compared(["dpo", "distill", "merged"]) == ("dpo", "distill")
    assert _report.compared(["dpo", "merged"]) == ("dpo", "merged")
    assert _report.compared(["merged"]) is None


def test_merged_is_held_against_the_model_it_was_made_from_where_that_is_known() -> None:
    _, _, predictions = mixed()
    assert _report.same_completions(predictions, "sft") == ("sft", 11)
    assert _report.same_completions(predictions, "kto") is None


def test_a_page_of_one_model_has_no_verdict_and_no_examples_but_its_worst_answers() -> None:
    found, rows, predictions = mixed()
    parsed = Page(page(({"base": found["base"]}, rows, {"base": predictions["base"]})))
    headings = " ".join(parsed.text)
    assert "instructive predictions" not in headings
    assert "The worst answers of base" in headings
    assert not [each for each in parsed.attributes if each[2] == "tiles"]


@pytest.mark.parametrize("expected", [CALL, Expected("refuse")])
def test_data_of_one_side_alone_makes_a_page_with_dashes(expected: Expected) -> None:
    requests = [request(n, expected, kind="") for n in range(3)]
    evaluation = evaluated(requests, {"base": [""] * 3, "sft": [RIGHT] * 3, "dpo": ["I cannot do that."] * 3})
    assert "-" in Page(page(evaluation)).text
    assert verdict(*evaluation)
    assert tables(evaluation[0])


def test_every_outcome_has_a_place_in_the_tables_and_a_colour() -> None:
    assert sorted((*_report.CALL_OUTCOMES, *_report.TEXT_OUTCOMES)) == sorted(OUTCOMES)
    text = page(mixed())
    for outcome in OUTCOMES:
        assert f".o-{outcome}" in text


def test_the_chart_says_in_words_what_it_shows() -> None:
    chart = _charts.error_rates(mixed()[0])
    assert "dpo: false calls 0.0 %, missed calls 8.3 %." in chart
    assert chart.count('class="bar') == 8


@pytest.mark.parametrize(
    ("highest", "top", "step"),
    [(0.0, 0.01, 0.01), (0.032, 0.04, 0.01), (0.18, 0.2, 0.05), (0.5, 0.5, 0.1), (1.0, 1.0, 0.2)],
)
def test_the_axis_ends_at_a_round_number_above_every_interval(highest: float, top: float, step: float) -> None:
    fields = {"false_tool_call_rate_ci": [0.0, highest], "missed_call_rate_ci": None}
    assert _charts._scale({"sft": fields}) == pytest.approx((top, step))


def rows_of(gains: list[tuple[str, float]]) -> tuple[list, dict[str, Any]]:
    """Requests of these kinds, where the second model gained so many points."""
    requests = [{"id": f"{n}", "kind": kind} for n, (kind, _) in enumerate(gains)]
    first = {f"{n}": {"points": 0.0, "outcome": "wrong_act"} for n in range(len(gains))}
    second = {f"{n}": {"points": gain, "outcome": "wrong_act"} for n, (_, gain) in enumerate(gains)}
    return requests, {"sft": first, "dpo": second}


def test_examples_show_gains_and_losses_the_largest_first_and_kind_by_kind() -> None:
    requests, predictions = rows_of([("a", 5), ("a", 9), ("b", 3), ("a", -1), ("a", 0)])
    chosen = instructive(requests, predictions, "sft", "dpo")
    assert [each.id for each in chosen] == ["1", "2", "0", "3", "4"]
    assert chosen[3].why == "dpo worse than sft"
    assert chosen[4].why == "wrong in both"


@pytest.mark.parametrize(
    ("gains", "losses", "shown"), [(20, 20, (6, 4)), (20, 1, (9, 1)), (2, 20, (2, 8)), (0, 3, (0, 3)), (0, 0, (0, 0))]
)
def test_the_side_that_is_short_is_filled_up_by_the_other(gains: int, losses: int, shown: tuple[int, int]) -> None:
    requests, predictions = rows_of([("a", 1.0)] * gains + [("a", -1.0)] * losses)
    why = [each.why for each in instructive(requests, predictions, "sft", "dpo")]
    assert (why.count("dpo better than sft"), why.count("dpo worse than sft")) == shown
    assert most_better(10) == 6


def test_expected_calls_show_alternatives_and_what_may_be_left_out() -> None:
    row = write_request(request(0, CALL))
    assert expected_text(row["expected"]) == 'call look {"q": "a" | "b", "deep"?: true}'
    assert expected_text({"act": "ask", "calls": [], "text": None}) == "ask (any wording)"


def test_hidden_characters_become_visible_and_scripts_stay_whole() -> None:
    assert visible("a\x1b[31m\u202eb\n") == "a\\u001b[31m\\u202eb\n"
    assert visible("می\u200cخواهم é") == "می\u200cخواهم é"
    assert visible("\ud800") == "\\ud800"
    assert one_line("a\n b\tc" + "d" * 200, 10) == "a b cdddd…"
    assert clip("x" * 12, 10) == "x" * 10 + " … (2 more characters)"


def test_calibration_and_comparisons_are_shown_where_they_are_known() -> None:
    found, rows, predictions = mixed()
    plain = page((found, rows, predictions))
    assert not {"Calibration", "Comparisons"} & set(Page(plain).text)
    for model, each in predictions.items():
        for row in each.values():
            row["p_call"] = 0.75 if row["attempt"] else 0.25
        found[model] |= {"n_p_call": 24, "call_ece": 0.125, "call_brier": 0.0625, "call_auroc": None}
    test = {"difference": -0.5, "difference_ci": [-0.75, -0.25], "p_holm": 0.012}
    change = {"difference": 0.25, "difference_ci": [0.125, 0.375]}
    unknown = {"difference": None, "difference_ci": None}
    entry = {
        "first": "sft", "second": "dpo", "clusters": 9, "draws": 2000,
        "tests": {"false_tool_call_rate": test},
        "resampled": dict.fromkeys(("call_f1", "act_macro_f1", "argument_f1", "mcc"), change) | {"call_ece": unknown},
    }  # fmt: skip
    parsed = Page(_report.render(found, rows, predictions, {"run": "s0"}, comparisons=[entry]))
    assert {"Calibration", "0.125", "0.062", "dpo, merged"} <= set(parsed.text)
    assert {"Comparisons", "sft → dpo", "-50.0", "[-75.0, -25.0]", "p = 0.012", "+0.250"} <= set(parsed.text)
    assert parsed.text.count("Calibration error") == 1  # of the table: no comparison knows it
    assert parsed.tags.count("svg") == 3  # both error rates, one against the other, risk and coverage


def test_rows_of_an_earlier_version_without_p_call_draw_no_curve() -> None:
    found, rows, predictions = mixed()
    predictions["base"] = {id_: row | {"p_call": 0.5} for id_, row in predictions["base"].items()}
    evidence = _evidence.sections(found, rows, predictions, ())
    assert list(evidence["hues"]) == ["base"]


def test_a_difference_that_rounds_to_nothing_has_no_minus() -> None:
    entry = {"difference": -1e-9, "difference_ci": [-0.0004, 0.0016]}
    assert (_evidence.shown_difference(entry), _evidence.shown_ends(entry)) == ("+0.000", "[+0.000, +0.002]")
    assert _evidence.shown_difference({"difference": -0.0625}, 100) == "-6.2"
    assert _evidence.shown_difference(None) == "-"
