"""Rates of the contract with their intervals, and the paired test that compares two models on the same requests.

    valid_tool_call_rate     valid calls, and answers without one in the dialect's way of not calling / requests
    tool_name_accuracy       the called tools are the right ones / requests that need a call
    argument_match_accuracy  exact calls / requests that need a call and got a valid one
    exact_call_rate          all calls right, and no other / requests that need a call
    false_tool_call_rate     attempts / requests that need no call
    missed_call_rate         no attempt / requests that need a call
    answer_accuracy          right answers, questions and refusals, each where it is right / requests that need no call
    malformed_rate           attempts that do not parse / requests
    balanced_accuracy        1 - (false_tool_call_rate + missed_call_rate) / 2

An attempt is what was meant as a call, whether it parses or not; a valid call parses, is of a tool on offer and fits
its schema; what is right is the reward's judgement (rewards/_outcome.py). Over nothing each is null. Requests are
counted in n, those that need a call in n_call, those that do not in n_no_call, the third denominator in n_valid_call.
scipy computes both, at one or two milliseconds each: what one evaluation asks a thousand times is kept.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from data.transcript import Reading, Request
    from rewards._outcome import Judgement

Z95 = 1.959963984540054
Interval = tuple[float, float]

#: Each rate and the count it is over, in the order of the contract.
DENOMINATORS = {
    "valid_tool_call_rate": "n",
    "tool_name_accuracy": "n_call",
    "argument_match_accuracy": "n_valid_call",
    "exact_call_rate": "n_call",
    "false_tool_call_rate": "n_no_call",
    "missed_call_rate": "n_call",
    "answer_accuracy": "n_no_call",
    "malformed_rate": "n",
}
RIGHT_TEXTS = frozenset({"right_answer", "asked", "refused"})


class Row(NamedTuple):
    """One request with what a model did on it."""

    request: Request
    reading: Reading
    judgement: Judgement


class Change(NamedTuple):
    """A yes/no fact about two models on the same requests: discordant pairs, McNemar's exact two-sided p value, and by
    how much the second model's share is greater, with its interval (None over nothing).
    """

    only_first: int
    only_second: int
    p: float
    difference: float | None
    interval: Interval | None


@functools.cache
def wilson(k: int, n: int) -> Interval | None:
    """Score interval of a share k/n at 95 % (Wilson 1927); None where there is nothing to count."""
    if n == 0:
        return None
    from scipy.stats import binomtest

    ends = binomtest(k, n).proportion_ci(method="wilson")
    return float(ends.low), float(ends.high)


def sign(difference: float) -> int:
    """-1, 0 or 1."""
    return (difference > 0) - (difference < 0)


def kendall(signs: Sequence[tuple[int, int]]) -> float | None:
    """Kendall's tau-b over pairs of things, of which are known the signs of their differences by two sources; None
    where a source ties all pairs.

    The sum of the products of both signs over the root of the product of their sums of squares (The treatment of ties
    in ranking problems, Biometrika 33, 1945).

    >>> kendall([(1, 1), (1, -1), (-1, -1), (1, 0)])
    0.2886751345948129
    """
    squares = sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs)
    return sum(a * b for a, b in signs) / math.sqrt(squares) if squares else None


@functools.cache
def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p value of McNemar's test: b and c discordant pairs under a fair coin; 1.0 without any."""
    from scipy.stats import binomtest

    return float(binomtest(min(b, c), b + c).pvalue) if b + c else 1.0


def compare(first: Sequence[bool], second: Sequence[bool]) -> Change:
    """The change from one model to another, request by request in the same order."""
    pairs = list(zip(first, second, strict=True))
    b, c = sum(one and not two for one, two in pairs), sum(two and not one for one, two in pairs)
    n = len(pairs)
    return Change(b, c, mcnemar(b, c), (c - b) / n if n else None, paired_interval(b, c, n))


def paired_interval(b: int, c: int, n: int, z: float = Z95) -> Interval | None:
    """Interval of the difference (c - b) / n of two paired shares (Bonett and Price 2012); None over nothing."""
    if n == 0:
        return None
    down, up = (b + 1) / (n + 2), (c + 1) / (n + 2)
    half = z * math.sqrt((down + up - (up - down) ** 2) / (n + 2))
    return (max(-1.0, up - down - half), min(1.0, up - down + half))


def contrast(
    requests: Sequence[Mapping[str, Any]],
    first: Mapping[str, Mapping[str, Any]],
    second: Mapping[str, Mapping[str, Any]],
) -> dict[str, Change]:
    """Two models by the rows of requests.jsonl and of predictions.jsonl (by id): both errors, and exact calls."""

    def on(ids: list[str], test: Callable[[Mapping[str, Any]], bool]) -> Change:
        return compare([test(first[id_]) for id_ in ids], [test(second[id_]) for id_ in ids])

    call = [request["id"] for request in requests if request["expected"]["act"] == "call"]
    no_call = [request["id"] for request in requests if request["expected"]["act"] != "call"]
    return {
        "false_tool_call_rate": on(no_call, lambda row: row["attempt"]),
        "missed_call_rate": on(call, lambda row: not row["attempt"]),
        "exact_call_rate": on(call, lambda row: row["outcome"] == "exact_call"),
    }


def metrics(
    requests: Sequence[Request], readings: Sequence[Reading], judgements: Sequence[Judgement]
) -> dict[str, Any]:
    """Fields of one model in evaluate/metrics.json: rates, `<rate>_ci` and counts, of all requests and, in
    `unseen_tools`, `seen_tools` and `by_kind`, of some.
    """
    rows = [Row(*row) for row in zip(requests, readings, judgements, strict=True)]
    kinds = sorted({request.kind for request in requests})
    return block(rows) | {
        "unseen_tools": block([row for row in rows if row.request.unseen]),
        "seen_tools": block([row for row in rows if not row.request.unseen]),
        "by_kind": {kind: block([row for row in rows if row.request.kind == kind]) for kind in kinds},
    }


def block(rows: Sequence[Row]) -> dict[str, Any]:
    """The flat fields over some rows. A rate over nothing is null, and so is its interval."""
    call = [row for row in rows if needs_call(row.request)]
    no_call = [row for row in rows if not needs_call(row.request)]
    valid = [row for row in call if valid_call(row)]
    n = {"n": len(rows), "n_call": len(call), "n_no_call": len(no_call), "n_valid_call": len(valid)}
    hits = {
        "valid_tool_call_rate": sum(valid_call(row) or declined(row) for row in rows),
        "tool_name_accuracy": sum(right_names(row) for row in call),
        "argument_match_accuracy": sum(row.judgement.outcome == "exact_call" for row in valid),
        "exact_call_rate": sum(row.judgement.outcome == "exact_call" for row in call),
        "false_tool_call_rate": sum(attempted(row.judgement) for row in no_call),
        "missed_call_rate": sum(not attempted(row.judgement) for row in call),
        "answer_accuracy": sum(row.judgement.outcome in RIGHT_TEXTS for row in no_call),
        "malformed_rate": sum(attempted(row.judgement) and not parsed(row.judgement) for row in rows),
    }
    fields: dict[str, Any] = dict(n)
    for name, over in DENOMINATORS.items():
        interval = wilson(hits[name], n[over])
        fields[name] = hits[name] / n[over] if n[over] else None
        fields[f"{name}_ci"] = list(interval) if interval else None
    outcomes = Counter(row.judgement.outcome for row in rows)
    return fields | balanced(hits, n) | {"outcomes": dict(sorted(outcomes.items()))}


def balanced(hits: dict[str, int], n: dict[str, int]) -> dict[str, Any]:
    """Balanced accuracy. No single share, so its interval joins the two Wilson ones (Newcombe 1998, method 10)."""
    false, missed = hits["false_tool_call_rate"], hits["missed_call_rate"]
    around_false, around_missed = wilson(false, n["n_no_call"]), wilson(missed, n["n_call"])
    if around_false is None or around_missed is None:
        return {"balanced_accuracy": None, "balanced_accuracy_ci": None}
    p, q = false / n["n_no_call"], missed / n["n_call"]
    value = 1 - (p + q) / 2
    down = math.hypot(around_false[1] - p, around_missed[1] - q) / 2
    up = math.hypot(p - around_false[0], q - around_missed[0]) / 2
    return {"balanced_accuracy": value, "balanced_accuracy_ci": [max(0.0, value - down), min(1.0, value + up)]}


def needs_call(request: Request) -> bool:
    """Whether a call is the right act."""
    return request.expected.act == "call"


def attempted(judgement: Judgement) -> bool:
    """Whether the model tried to call, parseable or not. The data's own turn is what it is meant to be, even where it
    explains a tool by its name and brackets.
    """
    return judgement.components["act"] == "call"


def parsed(judgement: Judgement) -> bool:
    """Whether all of an attempt parses."""
    return bool(judgement.components["parsed"])


def valid_call(row: Row) -> bool:
    """The output parses as calls, each of a tool on offer whose schema it satisfies."""
    done, components = row.judgement, row.judgement.components
    if done.outcome == "exact_call":  # an accepted value is valid whatever the schema says
        return True
    offered = {tool.name for tool in row.request.tools}
    return (
        attempted(done)
        and parsed(done)
        and bool(components["schema_valid"])
        and all(call.name in offered for call in row.reading.calls)
    )


def declined(row: Row) -> bool:
    """The output is no call and reads as the dialect's way of not calling: no text at all declines nothing."""
    if row.reading.malformed and not row.reading.attempt:
        return False
    if row.judgement.outcome in RIGHT_TEXTS:
        return True
    return not attempted(row.judgement) and bool(row.reading.text.strip())


def right_names(row: Row) -> bool:
    """The multiset of called names is right; a part that does not parse names nothing, so it makes it wrong."""
    return attempted(row.judgement) and parsed(row.judgement) and bool(row.judgement.components["names_right"])
