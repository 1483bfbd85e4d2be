"""Ranks from a person and from a judge decide the pairs; how far they and the rules agree is counted, not guessed."""

from __future__ import annotations

import json
import math
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data import load
from data.dialects import native
from data.load import DataConfig
from data.transcript import Message, Request
from rewards import RewardConfig, judge, points
from stages import _judge, _pairing, _ranking
from stages._errors import UserError
from stages._files import read_jsonl, write_jsonl
from stages._judge import Reply
from stages._metrics import wilson
from stages._pairing import Candidate, PairingConfig, kind_of_ranked, ranked_pairs_of
from stages._refusals import compose, settings_of
from stages._schema import publish
from tests import test_endpoint
from tests.test_endpoint import KEY, Endpoint, Pairs, chat, holding
from tests.test_endpoint import Reply as HttpReply
from tests.test_pairing import OSLO, RIGHT, call, candidate, gold, texting
from tests.test_report import Page

endpoint, checkpoint, pairs = test_endpoint.endpoint, test_endpoint.checkpoint, test_endpoint.pairs
ROME, RAIN = call("get_weather", city="Rome"), "It rains."
SMALL = {"prompts": 6, "rank_limit": 3}


def ballot(*texts: str, request: Request = OSLO) -> _ranking.Ballot:
    return _ranking.Ballot(request, dict(zip("abcdefghi", texts, strict=False)))


# What is ranked


def test_distinct_completions_are_ranked_the_frequent_first_the_turn_of_the_data_among_them():
    own = [candidate(OSLO, text) for text in (ROME, RAIN, RAIN, " It rains.\n", "Which city?")]
    made = [candidate(OSLO, "Hello!", "constructed", None, recipe="missed_call")]
    cut = candidate(OSLO, "It rains and", truncated=True)
    every = [*own, cut, gold(OSLO), *made]

    def texts(candidates: list[Candidate], limit: int) -> list[str]:
        return _ranking._distinct(candidates, limit)

    assert texts(every, 2) == [RAIN, RIGHT]
    assert texts(every, 3) == [RAIN, ROME, RIGHT]
    assert texts(every, 5) == [RAIN, ROME, "Which city?", RIGHT, "Hello!"]
    assert texts([*own, candidate(OSLO, RIGHT), gold(OSLO)], 9) == [RAIN, ROME, "Which city?", RIGHT]
    assert texts([*own[:2], candidate(OSLO, RIGHT), gold(OSLO)], 3) == [ROME, RAIN, RIGHT]


def test_keys_do_not_tell_where_a_completion_came_from_and_the_seed_alone_draws_them():
    requests = [replace(OSLO, id=f"r{number}") for number in range(60)]
    row = [candidate(OSLO, RAIN), gold(OSLO)]

    def drawn(seed: int) -> list[dict[str, str]]:
        return [each.candidates for each in _ranking.ballots_of(requests, [row] * 60, 4, seed).values()]

    keys = Counter(key for each in drawn(0) for key, text in each.items() if text == RIGHT)
    assert set(keys) == {"a", "b"}
    assert min(keys.values()) >= 15
    assert drawn(0) == drawn(0) != drawn(1)


def test_a_request_with_one_completion_has_nothing_to_rank():
    assert _ranking.ballots_of([OSLO], [[gold(OSLO), candidate(OSLO, f"{RIGHT}\n")]], 4, 0) == {}


def test_other_completions_or_other_keys_are_another_ballot():
    assert ballot(RAIN, ROME).of == ballot(RAIN, ROME).of
    assert len({ballot(RAIN, ROME).of, ballot(ROME, RAIN).of, ballot(RAIN, RIGHT).of}) == 3


# Points and agreement, by hand


def test_copeland_points_are_the_beaten_less_the_beating():
    assert _ranking.copeland([["b"], ["a", "c"], ["d"]]) == {"b": 3, "a": 0, "c": 0, "d": -3}
    assert _ranking.copeland([["a", "b"]]) == {"a": 0, "b": 0}


def replied(verdicts: dict[tuple[str, str], str | None]) -> dict[tuple[str, str, str], Reply]:
    return {(OSLO.id, *order): Reply(better, 1 if better else 3) for order, better in verdicts.items()}


def test_of_two_orders_agreement_wins_disagreement_ties_and_what_cannot_be_read_decides_nothing():
    said = {
        ("x", "y"): "A", ("y", "x"): "B",  # x wins
        ("x", "z"): "A", ("z", "x"): "A",  # the orders disagree
        ("y", "z"): "tie", ("z", "y"): "tie",
        ("x", "w"): "B", ("w", "x"): "tie",  # half a win is none
        ("y", "w"): None, ("w", "y"): "A",
        ("z", "w"): "B", ("w", "z"): "A",  # w wins
    }  # fmt: skip
    points_, reasons, report = _judge.points_of({OSLO.id: ballot("x", "y", "z", "w")}, replied(said))
    assert points_ == {OSLO.id: {"x": 1, "y": -1, "z": -1, "w": 1}}
    assert reasons == {}
    counts = {"comparisons": 6, "decided": 2, "ties": 1, "disagreements": 2, "unreadable": 1}
    assert {name: report[name] for name in counts} == counts
    assert (report["unreadable_replies"], report["corrections"]) == (1, 2)
    assert report["said"] == {"A": 5, "B": 3, "tie": 3}
    assert report["position_bias"] == 5 / 8
    assert report["position_bias_ci"] == list(wilson(5, 8) or ())
    assert report["disagreement"] == 2 / 5


def test_a_cycle_leaves_all_of_it_tied():
    said = {("x", "y"): "A", ("y", "x"): "B", ("y", "z"): "A", ("z", "y"): "B", ("x", "z"): "B", ("z", "x"): "A"}
    points_, _, report = _judge.points_of({OSLO.id: ballot("x", "y", "z")}, replied(said))
    assert points_ == {OSLO.id: {"x": 0, "y": 0, "z": 0}}
    assert report["decided"] == 3


def test_a_request_of_which_no_reply_could_be_read_is_unreadable_not_tied():
    points_, reasons, report = _judge.points_of(
        {OSLO.id: ballot("x", "y")}, replied({("x", "y"): "A", ("y", "x"): None})
    )
    assert (points_, reasons) == ({}, {OSLO.id: "unreadable"})
    assert report["disagreement"] is report["disagreement_ci"] is None
    assert report["position_bias"] == 1.0


def test_agreement_by_hand():
    # Request 1, pairs ab ac bc: first > > >, second > = <: one alike, one tied by the second, one opposite.
    # Request 2, pairs ab ac bc: first = < <, second = < <: one tied by both, two alike. Request 3 is the first's alone.
    first = {"1": {"a": 3.0, "b": 2.0, "c": 1.0}, "2": {"a": 0.0, "b": 0.0, "c": 1.0}, "3": {"a": 0.0, "b": 1.0}}
    second = {"1": {"a": 1.0, "b": 0.0, "c": 1.0, "d": 9.0}, "2": {"a": -1.0, "b": -1.0, "c": 2.0}}
    found = _ranking.agreement(first, second)
    assert (found["requests"], found["pairs"]) == (2, 6)
    assert (found["same"], found["opposite"]) == (3, 1)
    assert (found["tied_by_first"], found["tied_by_second"], found["tied_by_both"]) == (0, 1, 1)
    assert found["alike"] == 3 / 4
    assert found["alike_ci"] == list(wilson(3, 4) or ())
    # (3 - 1) over the root of 5 pairs that the first orders times 4 that the second orders
    assert found["tau_b"] == pytest.approx(2 / math.sqrt(5 * 4))


def test_agreement_over_nothing_is_none():
    found = _ranking.agreement({"1": {"a": 0.0, "b": 0.0}}, {"1": {"a": 1.0, "b": 0.0}})
    assert (found["alike"], found["alike_ci"], found["tau_b"], found["tied_by_first"]) == (None, None, None, 1)
    assert _ranking.agreement({}, {})["pairs"] == 0


# Ranks become pairs


def ranks(request: Request, *groups: list[Candidate], **settings: Any) -> tuple[list[_pairing.Pair], Counter[str]]:
    every = [each for group in groups for each in group]
    worth = _ranking.copeland([[str(every.index(each)) for each in group] for group in groups])
    ranked = [replace(each, points=worth[str(place)]) for place, each in enumerate(every)]
    filtered: Counter[str] = Counter()
    return ranked_pairs_of(request, ranked, PairingConfig(**settings), filtered), filtered


def test_ranks_decide_against_the_table_and_the_margin_is_theirs():
    right, rome, rain = (candidate(OSLO, text) for text in (RIGHT, ROME, RAIN))
    pairs_, _ = ranks(OSLO, [rain], [rome], [right])
    assert [(pair.chosen.text, pair.rejected.text, pair.kind, pair.margin) for pair in pairs_] == [
        (RAIN, ROME, "text_over_call", 2.0)
    ]
    pairs_, _ = ranks(OSLO, [right], [rain], [rome])
    assert [(pair.kind, pair.margin) for pair in pairs_] == [
        ("call_over_text", 2.0),
        ("right_call_over_wrong_call", 4.0),
    ]


def test_of_what_is_tied_first_the_policys_likeliest_is_chosen_and_the_others_make_no_pair():
    rain, rome = candidate(OSLO, RAIN, logprob=-5.0), candidate(OSLO, ROME, logprob=-2.0)
    pairs_, filtered = ranks(OSLO, [gold(OSLO), rain, rome], [candidate(OSLO, "Which city?")])
    assert [(pair.chosen.text, pair.kind) for pair in pairs_] == [(ROME, "call_over_text")]
    assert filtered["tied"] == 2
    pairs_, filtered = ranks(OSLO, [rain, rome, gold(OSLO)])
    assert pairs_ == []
    assert filtered["tied"] == 2


def test_the_turn_of_the_data_can_be_rejected():
    pairs_, _ = ranks(OSLO, [candidate(OSLO, RAIN)], [gold(OSLO)])
    assert [(pair.rejected.source, pair.kind) for pair in pairs_] == [("gold", "text_over_call")]


def test_prefixes_and_margins_that_are_too_small_make_no_pair_whoever_ranks():
    pairs_, filtered = ranks(OSLO, [candidate(OSLO, RIGHT)], [candidate(OSLO, RIGHT[:20])])
    assert (pairs_, filtered["prefix"]) == ([], 1)
    pairs_, filtered = ranks(OSLO, [candidate(OSLO, RIGHT)], [candidate(OSLO, RAIN)], margin=2.5)
    assert (pairs_, filtered["margin"]) == ([], 1)
    assert len(ranks(OSLO, [candidate(OSLO, RIGHT)], [candidate(OSLO, RAIN)], margin=2.0)[0]) == 1


@pytest.mark.parametrize(
    ("request_", "chosen", "rejected", "kind"),
    [
        (OSLO, "exact_call", "missed_call", "call_over_text"),
        (OSLO, "exact_call", "wrong_tool", "right_call_over_wrong_call"),
        (OSLO, "wrong_tool", "malformed_call", "call_over_call"),
        (OSLO, "wrong_tool", "exact_call", "call_over_call"),
        (OSLO, "exact_call", "exact_call", "call_over_call"),
        (OSLO, "missed_call", "exact_call", "text_over_call"),
        (OSLO, "missed_call", "missed_call", "text_over_text"),
        (texting("q"), "right_answer", "needless_call", "answer_over_call"),
        (texting("q"), "right_answer", "right_answer", "text_over_text"),
        (texting("q"), "wrong_answer", "needless_call", "text_over_call"),
        (texting("q"), "needless_call", "right_answer", "call_over_text"),
        (texting("q", "ask", "Which?"), "asked", "wrong_act", "ask_over_text"),
    ],
)
def test_what_both_did_tells_the_kind(request_, chosen, rejected, kind):
    assert kind_of_ranked(request_, chosen, rejected) == kind


def test_kinds_of_ranks_are_held_to_balance_and_shares_as_those_of_rules_are():
    found = {}
    for number in range(20):
        request = replace(OSLO, id=f"c{number}")
        found[request.id] = ranks(request, [candidate(request, ROME)], [candidate(request, RIGHT)])[0]
    for number in range(12):
        request = texting(f"t{number}")
        found[request.id] = ranks(request, [candidate(request, "3")], [candidate(request, call("calculator"))])[0]
    for number in range(8):
        request = replace(OSLO, id=f"m{number}")
        found[request.id] = ranks(request, [candidate(request, ROME)], [candidate(request, RAIN)])[0]
    filtered: Counter[str] = Counter()
    kept = _pairing.select(found, True, PairingConfig(anchor_share=0), 0, filtered)
    assert Counter(pair.kind for pair in kept) == {"text_over_call": 8, "call_over_text": 8, "call_over_call": 6}
    assert (filtered["balance"], filtered["wrong_call_share"]) == (4, 14)
    assert _pairing.summary(kept, len)["balance"]["ratio"] == 1.0


# A person's file


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", r":2: .* at character 2"),
        ("[]", r":2: must be an object, not list; a line is {"),
        ('{"id": "q", "rank": [["a"]]}', r":2: no such field 'rank'; did you mean ranks\?"),
        ('{"ranks": [["a"]]}', r":2: id must be the text that to_rank.jsonl has"),
        ('{"id": "q"}', r":2: ranks must be a list of keys or of groups"),
        ('{"id": "q", "ranks": []}', r":2: ranks must be a list of keys or of groups"),
        ('{"id": "q", "ranks": [[]]}', r":2: ranks must hold keys such as \"a\", in groups that are not empty"),
        ('{"id": "q", "ranks": [[1]]}', r":2: ranks must hold keys such as \"a\""),
        ('{"id": "q", "ranks": [["a"], ["b", "a"]]}', r":2: ranks: 'a' stands there more than once"),
        ('{"id": "q", "skip": false}', r":2: skip must be true"),
        ('{"id": "q", "skip": true, "ranks": [["a"]]}', r":2: skip must be true, and stand where no ranks"),
        ('{"id": "q", "of": 3, "ranks": [["a"]]}', r":2: of must be the text"),
        ('{"id": "q", "id": "q", "ranks": [["a"]]}', r":2: key 'id' occurs twice"),
    ],
)
def test_a_line_that_is_wrong_is_named_with_its_number(tmp_path, line, told):
    path = tmp_path / "ranks.jsonl"
    path.write_text(f'{{"id": "p", "ranks": ["a"]}}\n{line}\n')
    with pytest.raises(UserError) as refusal:
        _ranking.parse_ranks(path)
    (only,) = refusal.value.lines
    assert only.startswith(f"pairs.ranks: {path}:2: ")
    assert re.search(told, only)


def test_a_file_is_read_without_its_last_line_break_and_with_empty_lines_and_all_its_mistakes_are_told(tmp_path):
    path = tmp_path / "ranks.jsonl"
    path.write_text('\n{"id": "p", "ranks": ["b", ["a", "c"]]}\n\n{"id": "q", "skip": true}')
    lines = _ranking.parse_ranks(path)
    assert [(line.number, line.id, line.groups) for line in lines] == [(2, "p", [["b"], ["a", "c"]]), (4, "q", None)]
    path.write_text("{\n" * 13)
    with pytest.raises(UserError) as refusal:
        _ranking.parse_ranks(path)
    assert len(refusal.value.lines) == 11
    assert refusal.value.lines[-1] == "and 3 lines more"
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="no UTF-8 text"):
        _ranking.parse_ranks(path)


def test_the_last_line_counts_ranks_of_other_completions_do_not_and_an_unknown_key_is_named(tmp_path):
    path, asked = tmp_path / "ranks.jsonl", {OSLO.id: ballot(RAIN, ROME, RIGHT)}
    rows: list[dict[str, Any]] = [
        {"id": OSLO.id, "ranks": [["a"], ["b"]]},
        {"id": OSLO.id, "of": asked[OSLO.id].of, "ranks": [["c"], ["b"]]},
        {"id": OSLO.id, "of": "others", "ranks": [["z"]]},
        {"id": "elsewhere", "ranks": [["z"]]},
    ]
    write_jsonl(path, rows)
    points_, reasons, strange = _ranking.matched(path, _ranking.parse_ranks(path), asked)
    assert points_ == {OSLO.id: {RIGHT: 1.0, ROME: -1.0}}
    assert (reasons, strange) == ({}, 1)
    write_jsonl(path, rows[2:])
    assert _ranking.matched(path, _ranking.parse_ranks(path), asked)[1] == {OSLO.id: "stale"}
    assert _ranking.matched(path, [], asked)[1] == {OSLO.id: "not_ranked"}
    write_jsonl(path, [{"id": OSLO.id, "ranks": [["z"], ["a"]]}])
    with pytest.raises(UserError, match=r"ranks.jsonl:1: ranks: no candidate 'z'; there are a, b, c$"):
        _ranking.matched(path, _ranking.parse_ranks(path), asked)


def to_rank(pairs_: Pairs) -> list[dict[str, Any]]:
    return list(read_jsonl(pairs_.run / "pairs" / "to_rank.jsonl"))


def report_of(pairs_: Pairs) -> dict[str, Any]:
    return json.loads((pairs_.run / "pairs" / "report.json").read_text())


def waiting(pairs_: Pairs, **settings: Any) -> list[dict[str, Any]]:
    """What a first call gives a person to rank."""
    with pytest.raises(UserError, match="wait for a person"):
        pairs_(rank="human", **SMALL, **settings)
    return to_rank(pairs_)


def test_a_first_call_writes_what_to_rank_and_says_what_to_do(pairs, endpoint):
    with pytest.raises(UserError) as refusal:
        pairs(rank="human", **SMALL)
    (line,) = refusal.value.lines
    rows = to_rank(pairs)
    assert line.startswith(f"pairs.ranks: {len(rows)} requests in {pairs.run / 'pairs' / 'to_rank.jsonl'} wait")
    assert "python train.py stage=rank run=toy" in line
    assert line.endswith("then add pairs.ranks=FILE to this command")
    assert all(set(row) == {"id", "of", "tools", "messages", "candidates"} for row in rows)
    assert all(2 <= len(row["candidates"]) <= 3 for row in rows)
    assert not (pairs.run / "pairs" / "pairs.jsonl").exists()


@pytest.mark.parametrize("rank", ["human", "ai"])
def test_where_nothing_can_be_ranked_nobody_is_asked(pairs, endpoint, rank):
    endpoint.before = lambda number: (200, {}, chat("It rains and", finish="length"))
    judging = {"judge_url": endpoint.url, "judge_model": "judge"} if rank == "ai" else {}
    with pytest.raises(UserError, match=r"pairs\.rank: none of 6 requests has two distinct completions to rank; raise"):
        pairs(rank=rank, constructed=[], **judging, **SMALL)
    assert {body["model"] for body in endpoint.bodies} == {"teacher"}


def test_a_persons_ranks_decide_the_pairs_and_what_has_none_is_counted(pairs, endpoint, tmp_path):
    rows, path = waiting(pairs), tmp_path / "ranks.jsonl"
    asked = len(endpoint.bodies)
    longest_first = [sorted(row["candidates"], key=lambda key: -len(row["candidates"][key])) for row in rows]
    given = [{"id": row["id"], "ranks": order} for row, order in zip(rows, longest_first, strict=True)]
    given[0] = {"id": rows[0]["id"], "skip": True}
    given[1] = {"id": rows[1]["id"], "ranks": [longest_first[1]]}  # all tied
    write_jsonl(path, [*given[:-1], {"id": "elsewhere", "ranks": ["a", "b"]}])
    metrics = pairs(again=True, rank="human", ranks=str(path), balance=False, wrong_call_share=0.9, **SMALL)
    assert len(endpoint.bodies) == asked, "other ranks never sample again"
    made, report = list(read_jsonl(pairs.run / "pairs" / "pairs.jsonl")), report_of(pairs)
    assert metrics["pairs"] == len(made) > 0
    texts = {row["id"]: list(row["candidates"].values()) for row in rows}
    for pair in made:
        assert len(pair["chosen"].strip()) == max(map(len, texts[pair["id"]]))
        assert 0 < pair["margin"] <= 4
        assert {pair["chosen"].strip(), pair["rejected"].strip()} <= set(texts[pair["id"]])
    reasons = report["requests_without_pairs"]
    assert (reasons["skipped"], reasons["tied"], reasons["not_ranked"]) == (1, 1, 1)
    assert sum(reasons.values()) + report["requests_with_pairs"] == 6
    assert report["ranking"]["unranked"] == {"human": {"not_ranked": 1, "skipped": 1}}
    assert report["ranking"]["lines_of_other_requests"] == 1
    assert report["ranking"]["agreement"]["rules and human"]["requests"] == len(rows) - 2
    outcomes = {row["outcome"] for row in read_jsonl(pairs.run / "pairs" / "candidates.jsonl")}
    assert {pair["outcomes"]["chosen"] for pair in made} <= outcomes
    page = Page((pairs.run / "pairs" / "report.html").read_text())
    seen = " ".join(" ".join(page.text).split())
    assert "rules and human" in seen
    assert "1 not_ranked , 1 skipped" in seen or "1 not_ranked, 1 skipped" in seen


def test_the_same_file_elsewhere_is_done_and_another_content_is_not(pairs, endpoint, tmp_path, capsys):
    rows, path = waiting(pairs), tmp_path / "ranks.jsonl"
    write_jsonl(path, [{"id": row["id"], "ranks": sorted(row["candidates"])} for row in rows])
    settings = {"rank": "human", "balance": False, "wrong_call_share": 0.9, **SMALL}
    pairs(again=True, ranks=str(path), **settings)
    moved = path.rename(tmp_path / "moved.jsonl")
    capsys.readouterr()
    pairs(again=True, ranks=str(moved), **settings)
    assert "done already with the same inputs" in capsys.readouterr().out
    write_jsonl(moved, [{"id": row["id"], "ranks": sorted(row["candidates"], reverse=True)} for row in rows])
    pairs(again=True, ranks=str(moved), **settings)
    assert re.search(r"replacing .*\(pairs\.ranks: \w+ -> \w+\)", capsys.readouterr().out)


def test_ranks_that_cannot_be_used_are_refused_before_anything_is_replaced(pairs, endpoint, tmp_path):
    waiting(pairs)
    before = (pairs.run / "pairs" / "to_rank.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"no\.jsonl cannot be read \(No such file or directory\); a line is"):
        pairs(again=True, rank="human", ranks=str(tmp_path / "no.jsonl"), **SMALL)
    inside = pairs.run / "pairs" / "ranks.jsonl"
    inside.write_text("")
    with pytest.raises(UserError, match="lies in the folder that this stage replaces"):
        pairs(again=True, rank="human", ranks=str(inside), **SMALL)
    assert (pairs.run / "pairs" / "to_rank.jsonl").read_bytes() == before


def test_a_file_of_ranks_beside_rules_changes_no_pair_and_agreement_is_reported(pairs, endpoint, tmp_path):
    pairs(**SMALL)
    rules = (pairs.run / "pairs" / "pairs.jsonl").read_bytes()
    assert report_of(pairs)["ranking"] is None
    rows, path = waiting(pairs), tmp_path / "ranks.jsonl"
    write_jsonl(path, [{"id": row["id"], "ranks": sorted(row["candidates"])} for row in rows])
    pairs(again=True, ranks=str(path), **SMALL)
    assert (pairs.run / "pairs" / "pairs.jsonl").read_bytes() == rules
    ranking = report_of(pairs)["ranking"]
    assert ranking["by"] == "rules"
    found = ranking["agreement"]["rules and human"]
    assert found["requests"] == len(rows)
    assert found["same"] + found["opposite"] + found["tied_by_first"] == found["pairs"] > 0


# A judge at an endpoint


Verdict = Callable[[str, str, dict[str, Any]], str]  # the answers A and B, and the whole question -> what it says


class Judging:
    """Makes the server answer the judge's questions by `verdict`; samples are as in test_endpoint."""

    def __init__(self, endpoint: Endpoint, verdict: Verdict) -> None:
        self.endpoint, self.verdict = endpoint, verdict
        self.instead: Callable[[int, dict[str, Any]], HttpReply | None] = lambda number, body: None
        self.settings = {"rank": "ai", "judge_url": endpoint.url, "judge_model": "judge", **SMALL}
        endpoint.before = self.before

    def before(self, number: int) -> HttpReply | str:
        body = self.endpoint.bodies[number]
        if body["model"] != "judge":
            return "hashed"
        return self.instead(len(self.bodies), body) or (200, {}, chat(self.said(body)))

    def said(self, body: dict[str, Any]) -> str:
        question = json.loads(body["messages"][1]["content"])
        return json.dumps({"better": self.verdict(question["answers"]["A"], question["answers"]["B"], question)})

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for body in self.endpoint.bodies if body["model"] == "judge"]


def longer(one: str, other: str, _: Any) -> str:
    return "tie" if len(one) == len(other) else "A" if len(one) > len(other) else "B"


def by_rules(folder: Path) -> Verdict:
    """A judge that computes the points of the reward table for both answers, from the conversation it is shown."""
    data = DataConfig(format="openai", train=str(folder / "rows.jsonl"), test_share=0.2, validation_share=0.2)
    known = {json.dumps([message.as_chat() for message in each.messages]): each for each in load.load(data).preference}

    def worth(text: str, question: dict[str, Any]) -> float:
        request = known[json.dumps(question["conversation"])]
        reading = native.read(text, request.tools)
        return points(judge(request, reading), RewardConfig(), request, reading).points

    def verdict(one: str, other: str, question: dict[str, Any]) -> str:
        a, b = worth(one, question), worth(other, question)
        return "tie" if a == b else "A" if a > b else "B"

    return verdict


def test_a_judge_that_follows_the_rules_agrees_with_them_wholly(pairs, endpoint):
    pairs(**SMALL)  # puts the rows there
    judging = Judging(endpoint, by_rules(pairs.run.parents[1]))
    metrics = pairs(again=True, **judging.settings)
    report = report_of(pairs)
    found, judged = report["ranking"]["agreement"]["rules and ai"], report["ranking"]["judge"]
    assert found["alike"] == 1.0
    assert found["tau_b"] == 1.0
    assert found["same"] > 5
    assert judged["disagreements"] == judged["unreadable"] == judged["corrections"] == 0
    assert judged["position_bias"] == 0.5
    assert judged["comparisons"] == found["pairs"] == len(judging.bodies) / 2
    assert metrics["pairs"] > 0
    assert all(pair["kind"] not in ("call_over_call", "text_over_text") for pair in rows_of(pairs))
    manifest = json.loads((pairs.run / "pairs" / "manifest.json").read_text())
    assert manifest["facts"]["judged_by"]["model"] == "judge"


def rows_of(pairs_: Pairs) -> list[dict[str, Any]]:
    return list(read_jsonl(pairs_.run / "pairs" / "pairs.jsonl"))


def test_a_judge_that_always_says_a_yields_ties_alone_and_a_position_bias_of_one(pairs, endpoint, capsys):
    judging = Judging(endpoint, lambda *_: "A")
    with pytest.raises(UserError, match=r"pairs: none from 6 requests \(.*; of the requests \d+ tied.*choose another"):
        pairs(**judging.settings)
    report = report_of(pairs)
    judged = report["ranking"]["judge"]
    assert judged["disagreements"] == judged["comparisons"] > 0
    assert judged["decided"] == 0
    assert (judged["position_bias"], judged["disagreement"]) == (1.0, 1.0)
    assert judged["position_bias_ci"] == list(wilson(len(judging.bodies), len(judging.bodies)) or ())
    assert report["requests_without_pairs"]["tied"] == report["ranking"]["requests"]
    found = report["ranking"]["agreement"]["rules and ai"]
    assert (found["alike"], found["tau_b"], found["same"]) == (None, None, 0)
    assert "said A 100.0 %" in capsys.readouterr().out


def test_each_two_are_asked_twice_with_places_swapped_as_json_that_no_answer_can_leave(pairs, endpoint):
    judging = Judging(endpoint, longer)
    pairs(**judging.settings, judge_max_tokens=9, balance=False)
    asked = []
    for body in judging.bodies:
        system, user = body["messages"]
        assert (body["temperature"], body["max_tokens"], "tools" in body) == (0, 9, False)
        assert system["content"] == _judge.RUBRIC + _judge._FORM
        question = json.loads(user["content"])
        assert set(question) == {"tools", "conversation", "answers"}
        asked.append((json.dumps(question["conversation"]), question["answers"]["A"], question["answers"]["B"]))
    assert len(set(asked)) == len(asked) > 10
    assert {(chat_, b, a) for chat_, a, b in asked} == set(asked)


def test_what_is_no_json_object_is_asked_for_again_with_what_was_wrong(pairs, endpoint):
    judging = Judging(endpoint, longer)
    pairs(**judging.settings, balance=False)
    whole, count = pairs.bytes(), len(judging.bodies)
    endpoint.forget()
    judging.instead = lambda number, body: (200, {}, chat("Sure! A is better.")) if len(body["messages"]) == 2 else None
    pairs(**judging.settings, balance=False)
    assert len(judging.bodies) == 2 * count
    assert pairs.bytes()[:2] == whole[:2]
    assert report_of(pairs)["ranking"]["judge"]["corrections"] == count
    corrected = [body["messages"] for body in judging.bodies if len(body["messages"]) > 2]
    assert all(turns[2] == {"role": "assistant", "content": "Sure! A is better."} for turns in corrected)
    assert all(turns[3]["content"].startswith("Your reply could not be read: ") for turns in corrected)


def test_after_three_readings_a_reply_is_unreadable_and_counted(pairs, endpoint):
    judging = Judging(endpoint, longer)
    judging.instead = lambda number, body: (200, {}, chat('```json\n{"better": "A"}\n```'))
    with pytest.raises(
        UserError, match=r"\d+ unreadable\); raise pairs\.judge_max_tokens, or choose another pairs\.judge_model"
    ):
        pairs(**judging.settings)
    report = report_of(pairs)["ranking"]
    assert report["judge"]["unreadable"] == report["judge"]["comparisons"]
    assert len(judging.bodies) == 3 * 2 * report["judge"]["comparisons"]
    assert report["unranked"]["ai"] == {"unreadable": report["requests"]}


@pytest.mark.parametrize("reply", [(429, {"Retry-After": "0"}, ""), (500, {}, "oops")], ids=["429", "500"])
def test_what_may_pass_is_tried_again(pairs, endpoint, reply):
    judging = Judging(endpoint, longer)
    pairs(**judging.settings, balance=False)
    whole, count = pairs.bytes(), len(judging.bodies)
    endpoint.forget()
    judging.instead = lambda number, body: reply if number % 4 == 1 else None
    pairs(**judging.settings, balance=False)
    assert len(judging.bodies) > count
    assert pairs.bytes() == whole


def test_interrupted_it_goes_on_with_what_is_left_and_ends_in_the_same_files(pairs, endpoint):
    judging = Judging(endpoint, longer)
    settings = {**judging.settings, "balance": False, "concurrency": 1}
    pairs(**settings)
    whole, count = pairs.bytes(), len(judging.bodies)
    endpoint.forget()
    judging.instead = lambda number, body: (400, {}, "no more") if number > 7 else None
    with pytest.raises(UserError) as refusal:
        pairs(**settings)
    (line,) = refusal.value.lines
    assert line.startswith(f"pairs.judge_url: {endpoint.url}/chat/completions answered 400 (no more) (request ")
    assert "see to pairs.judge_model" in line
    assert line.endswith(f"; 7 of {count} replies are kept, the same command goes on there")
    endpoint.forget()
    judging.instead = lambda number, body: None
    pairs(again=True, **settings)
    assert len(judging.bodies) == len(endpoint.bodies) == count - 7
    assert pairs.bytes() == whole


def test_another_rubric_asks_anew_and_other_pairing_rules_do_not(pairs, endpoint, tmp_path):
    judging = Judging(endpoint, longer)
    settings = {**judging.settings, "balance": False}
    pairs(**settings)
    count = len(judging.bodies)
    pairs(again=True, **settings, margin=2.0)
    assert len(judging.bodies) == count
    path = tmp_path / "rubric.txt"
    path.write_text("The longer answer is better.\n")
    pairs(again=True, **settings, rubric=str(path))
    assert len(judging.bodies) == 2 * count
    assert judging.bodies[-1]["messages"][0]["content"].startswith("The longer answer is better.\n\nWhat stands in")
    path.write_text(" \n")
    with pytest.raises(UserError, match=r"pairs\.rubric: .*rubric\.txt is empty"):
        pairs(again=True, **settings, rubric=str(path))
    with pytest.raises(UserError, match=r"pairs\.rubric: .*no\.txt is no text that can be read"):
        pairs(again=True, **settings, rubric=str(tmp_path / "no.txt"))


def test_person_judge_and_rules_are_held_against_each_other_and_the_key_of_the_judge_is_in_no_file(
    pairs, endpoint, tmp_path, monkeypatch
):
    monkeypatch.setenv("JUDGE_KEY", f"{KEY}9")
    rows, path = waiting(pairs), tmp_path / "ranks.jsonl"
    given = [
        {"id": row["id"], "ranks": sorted(row["candidates"], key=lambda key: -len(row["candidates"][key]))}
        for row in rows
    ]
    write_jsonl(path, given)
    judging = Judging(endpoint, longer)
    settings = {**judging.settings, "balance": False, "wrong_call_share": 0.9, "judge_key_variable": "JUDGE_KEY"}
    pairs(again=True, ranks=str(path), **settings)
    agreement = report_of(pairs)["ranking"]["agreement"]
    assert set(agreement) == {"rules and human", "rules and ai", "human and ai"}
    assert agreement["human and ai"]["alike"] == 1.0
    assert endpoint.keys == {f"Bearer {KEY}", f"Bearer {KEY}9"}
    assert not holding(pairs.run, KEY)


@pytest.mark.parametrize(
    "reply",
    ["", "A", "tie", '{"better": "C"}', '{"better": "a"}', '{"better": ["A"]}', '{"better": "A", "why": "x"}', "[]",
     '"A"', '{"better": "A"} {"better": "A"}', '{"better": "A", "better": "B"}', "{'better': 'A'}", "[" * 100_000],
)  # fmt: skip
def test_a_reply_that_is_not_the_object_asked_for_is_no_verdict(reply):
    with pytest.raises(ValueError, match=r".+"):
        _judge.verdict(reply)


@pytest.mark.parametrize("better", ["A", "B", "tie"])
def test_a_verdict_may_have_white_space_around_it(better):
    assert _judge.verdict(f' \n{{"better":"{better}"}}\n') == better


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["pairs.rank=ai"], "pairs: the judge lacks judge_url and judge_model: "),
        (["pairs.judge_model=m"], "pairs: the judge lacks judge_url: "),
        (["pairs.rank=ai", "pairs.judge_url=http://h/v1"], "pairs: the judge lacks judge_model: "),
        (["pairs.rubric=r.txt"], "pairs: rubric and judge_key_variable: only a judge needs them"),
        (["pairs.judge_model=m", "pairs.judge_url=http://secret@h/v1"], "pairs: judge_url: must hold no user"),
        (
            ["pairs.judge_model=m", "pairs.judge_url=http://h/v1", "pairs.judge_key_variable=secret-1"],
            "pairs: judge_key_variable: must be the name of an environment variable",
        ),
        (["pairs.rank=person"], "pairs.rank: Input should be 'rules', 'human' or 'ai'"),
        (["pairs.rank_limit=10"], "pairs.rank_limit: Input should be less than or equal to 9"),
    ],
)
def test_what_lacks_or_may_hold_a_key_is_refused_in_one_line(words, line):
    publish()
    with pytest.raises(UserError) as refusal:
        settings_of(*compose(["stage=pairs", *words]))
    first, told = refusal.value.lines
    assert first == "invalid configuration:"
    assert told.strip().startswith(line)
    assert "secret" not in told


def test_a_model_of_ours_behind_the_server_talks_nonsense_and_the_report_says_so(pairs, endpoint, checkpoint, capsys):
    """The server generates every sample and every verdict with a toy checkpoint."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from data.transcript import Expected
    from stages._control import plain
    from stages._sampling import generate

    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), AutoModelForCausalLM.from_pretrained(checkpoint)
    one_at_a_time = threading.Lock()

    def before(number: int) -> HttpReply:
        body = endpoint.bodies[number]
        turns = tuple(
            Message(turn["role"], turn["content"] or "") for turn in body["messages"] if turn["role"] != "tool"
        )
        request = Request(str(number), "", (), turns, Expected("answer"))
        with one_at_a_time:
            ((made,),) = generate(
                model, tokenizer, native, [request], max_new_tokens=min(6, body["max_tokens"]), batch_size=1
            )
        return 200, {}, chat(plain(made.text))

    endpoint.before = before
    with pytest.raises(
        UserError,
        match=r"of the requests 2 unreadable\); raise pairs\.judge_max_tokens, or choose another pairs\.judge_model$",
    ):
        pairs(rank="ai", judge_url=endpoint.url, judge_model="judge", prompts=2, samples=1, rank_limit=2)
    judged = report_of(pairs)["ranking"]["judge"]
    assert judged["comparisons"] == judged["unreadable"] == 2
    assert (judged["unreadable_replies"], judged["corrections"], judged["position_bias"]) == (4, 8, None)
    assert "ai: 0 of 2 requests ranked, 2 unreadable" in capsys.readouterr().out
