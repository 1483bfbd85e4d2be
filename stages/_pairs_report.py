"""pairs/report.html: what stage=pairs made and left out, with pairs of each kind, from the files of its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stages import _report
from stages._charts import interval, percent
from stages._control import plain
from stages._examples import RIGHT
from stages._files import read_jsonl
from stages._report import CALL_OUTCOMES, TEXT_OUTCOMES

_EXAMPLES = 4  # of each kind

Fields = Mapping[str, Any]


class Reason(NamedTuple):
    """Why something makes no pair, and what to change where nothing else is left."""

    means: str
    way_out: str = ""


REASONS = {
    "balance": Reason(
        "more pairs for calling than against it, or fewer",
        "leave missed_call and needless_call in pairs.constructed, or set pairs.balance=false",
    ),
    "identical": Reason("both sides are the same text", "raise pairs.temperature"),
    "malformed_share": Reason("more calls that do not parse than there may be", "raise pairs.malformed_share"),
    "margin": Reason("too few points between the two sides", "lower pairs.margin"),
    "no_right_candidate": Reason(
        "no sample is right, nor is the turn of the data", "look at the data: python train.py stage=check"
    ),
    "not_as_constructed": Reason("a constructed mistake that this dialect or answer key reads as something else"),
    "per_prompt": Reason("more pairs of one request than there may be"),
    "prefix": Reason("one side is the beginning of the other", "raise pairs.temperature"),
    "tied": Reason("ranked as high as the chosen one"),
    "truncated": Reason(
        "cut off by the token limit: nothing tells how it would have ended", "raise pairs.max_new_tokens"
    ),
    "turn_refused_by_template": Reason("the chat template cannot write this turn", "choose another model.dialect"),
    "wrong_call_share": Reason(
        "more pairs of two calls than there may be", "raise pairs.wrong_call_share or pairs.anchor_share"
    ),
}
UNPAIRED = {
    "no_signal": "every sample was right",
    "no_fitting_pair": "no two candidates make a pair",
    "left_out": "its pairs were not needed, or balance and shares had no room for them",
}
# Where somebody else ranks: why a request got no ranks to make pairs of.
UNRANKED = {
    "not_ranked": Reason("no line of the file ranks it", "rank more: python train.py stage=rank"),
    "one_candidate": Reason("it has but one completion to rank", "raise pairs.samples or pairs.temperature"),
    "skipped": Reason("whoever ranks skipped it"),
    "stale": Reason("what was ranked are other completions than these", "rank these: python train.py stage=rank"),
    "tied": Reason("all its completions are ranked alike", "choose another judge, or see to the ranks"),
    "unreadable": Reason(
        "no reply of the judge could be read", "raise pairs.judge_max_tokens, or choose another pairs.judge_model"
    ),
}


def ways_out(report: Fields) -> str:
    """What to change where there is no pair at all, by what was left out."""
    ways = ["raise pairs.samples, pairs.temperature or pairs.anchor_share"]
    ways += [REASONS[reason].way_out for reason in report["filtered"] if REASONS[reason].way_out]
    if report["ranking"]:  # then they are all that matters
        known = [UNRANKED[reason] for reason in report["requests_without_pairs"] if reason in UNRANKED]
        ways = [reason.way_out for reason in known if reason.way_out] or ways
    return ", or ".join(dict.fromkeys(ways))


def page(folder: Path, report: Fields, facts: Mapping[str, str]) -> str:
    """The report; `report` is what stands in report.json, `facts` names what made it, line by line."""
    return _report.page(
        "_pairs_report.html",
        title=facts["run"],
        report=report,
        did=[_did(act, counts) for act, counts in report["outcomes"].items()],
        rejected={name: report["rejected_outcomes"][name] for name in _ordered(report["rejected_outcomes"])},
        reasons=REASONS,
        unpaired=UNPAIRED | {name: reason.means for name, reason in UNRANKED.items()},
        kinds=_examples(read_jsonl(folder / "pairs.jsonl")),
        facts=facts,
    )


def said_of(ranking: Fields) -> list[str]:
    """Who ranked, what is to be said of the judge, and who agrees with whom, in a few lines."""
    lines = []
    for source, reasons in ranking["unranked"].items():
        why = "".join(f", {count} {reason}" for reason, count in reasons.items())
        lines.append(f"{source}: {ranking['ranked'][source]} of {ranking['requests']} requests ranked{why}")
    if other := ranking["lines_of_other_requests"]:
        lines.append(f"human: {other} requests in the file are none of these")
    if judge := ranking["judge"]:
        lines.append(
            f"ai: of {judge['comparisons']} comparisons {judge['decided']} decided, {judge['ties']} ties,"
            f" {judge['disagreements']} ties for the orders disagree, {judge['unreadable']} unreadable; said A"
            f" {percent(judge['position_bias'])} {interval(judge['position_bias_ci'])}".rstrip()
        )
    for names, found in ranking["agreement"].items():
        tau = "-" if found["tau_b"] is None else f"{found['tau_b']:.2f}"
        lines.append(
            f"{names}: {percent(found['alike'])} {interval(found['alike_ci'])} of {found['same'] + found['opposite']}"
            f" pairs of candidates alike, tau-b {tau}"
        )
    return lines


def _did(act: str, counts: Mapping[str, int]) -> Fields:
    """What the samples did where this act was right, the best outcome first."""
    samples = sum(counts.values())
    return {
        "act": act,
        "samples": samples,
        "right": sum(counts.get(name, 0) for name in RIGHT) / samples,
        "outcomes": {name: counts[name] for name in _ordered(counts)},
    }


def _ordered(outcomes: Iterable[str]) -> list[str]:
    return sorted(outcomes, key=(*CALL_OUTCOMES, *TEXT_OUTCOMES).index)


def _examples(rows: Iterable[Fields]) -> dict[str, list[Fields]]:
    """The first pairs of each kind, one of each way that rejected sides came about in turn."""
    kinds: dict[str, list[Fields]] = {}
    for row in rows:
        kinds.setdefault(row["kind"], []).append(row)
    return {kind: [_example(row) for row in _varied(kinds[kind])[:_EXAMPLES]] for kind in sorted(kinds)}


def _varied(rows: Sequence[Fields]) -> list[Fields]:
    before: Counter[str] = Counter()
    turn = []
    for row in rows:
        made = f"{_made(row['provenance']['rejected'])} {row['outcomes']['rejected']}"
        turn.append(before[made])
        before[made] += 1
    return [rows[place] for place in sorted(range(len(rows)), key=turn.__getitem__)]


def _example(row: Fields) -> Fields:
    tools = row["tools"] and _report.offered([tool["function"] for tool in row["tools"]])
    return {
        "id": row["id"],
        "margin": row["margin"],
        "turns": [turn | {"text": plain(turn["text"])} for turn in _report.turns(row["prompt"])],
        "tools": tools and [{name: plain(text) for name, text in tool.items()} for tool in tools],
        "sides": [
            {
                "side": side,
                "text": plain(row[side]),
                "outcome": row["outcomes"][side],
                "made": _made(row["provenance"][side]),
                "logprob": row["provenance"][side]["logprob"],
            }
            for side in ("chosen", "rejected")
        ],
    }


def _made(provenance: Fields) -> str:
    """How one side came about: `policy`, `gold`, or `constructed: sibling_tool`."""
    return f"constructed: {provenance['recipe']}" if provenance["recipe"] else provenance["source"]
