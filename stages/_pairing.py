"""From scored candidates to preference pairs, in both directions. Pure functions.

Each request yields at most one pair of a kind:

    call_over_text              the right call beats a text where a call is needed (a missed call)
    right_call_over_wrong_call  the right call beats another one (tool, arguments, schema, form)
    answer_over_call, ask_over_call, refuse_over_call      the right text beats a needless call
    answer_over_text, ask_over_text, refuse_over_text      the right text beats a wrong one

Chosen is a right sample of the policy, or else the turn of the data; rejected is the policy's likeliest sample of its
most frequent failure of that kind, or else a constructed mistake. Likeliest is by the log-probability of the whole
text: how often an outcome occurs says how likely it is, and among samples of one outcome the sum is what preference
losses see too, while a mean over tokens would favour long texts. `select` then sees to it that pairs for calling and
pairs against it are equally many: without, the prior of the first token moves, and one error is bought with the other.

Where somebody else ranked the candidates (stages/_ranking.py), chosen is what they put first, of what they put as high
the policy's likeliest; rejected is chosen as above among what they put lower. What the two did still tells the kind; a
pair whose chosen side is not right, or whose rejected side is, is of call_over_text, call_over_call, text_over_call or
text_over_text.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from data.transcript import Request
from rewards._outcome import right_outcome

Source = Literal["policy", "gold", "constructed"]
Recipe = Literal[
    "missed_call",
    "needless_ask",
    "needless_call",
    "sibling_tool",
    "invented_argument",
    "wrong_enum",
    "missing_required",
]
CALL_OVER_TEXT, WRONG_CALL = "call_over_text", "right_call_over_wrong_call"
CALL_OVER_CALL = (WRONG_CALL, "call_over_call")
TEXT_OVER_CALL = ("answer_over_call", "ask_over_call", "refuse_over_call", "text_over_call")
TEXT_OVER_TEXT = ("answer_over_text", "ask_over_text", "refuse_over_text", "text_over_text")
_CALLS = frozenset(
    {
        *("exact_call", "right_tool_wrong_arguments", "wrong_tool", "invalid_arguments", "unknown_tool"),
        *("malformed_call", "needless_call"),
    }
)


class PairingConfig(BaseModel):
    """How candidates become pairs."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)

    margin: float | None = Field(None, gt=0)
    """Fewest points between chosen and rejected; by default half of what the chosen one earns. With pairs.rank=human or
    ai these are Copeland points, and by default any difference will do."""
    per_prompt: int = Field(2, ge=1)
    """Most pairs of one request, each of another kind."""
    balance: bool = True
    """As many pairs for calling (call_over_text) as against it (text over call): constructed mistakes fill the smaller
    side, and what is still too many on the other is left out."""
    wrong_call_share: float = Field(0.3, ge=0, lt=1)
    """Largest share of pairs of two calls among all pairs: two nearly equal calls push both down."""
    malformed_share: float = Field(0.1, ge=0, le=1)
    """Largest share of pairs whose rejected side is a needed call that does not parse."""
    anchor_share: float = Field(0.1, ge=0, le=1)
    """Share of the requests the policy always gets right that are kept, against constructed mistakes."""
    constructed: list[Recipe] = list(get_args(Recipe))
    """Mistakes that may be constructed where the policy makes none of their kind (stages/_negatives.py has each)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A completion of one request, what it did and what it is worth; `recipe` says how a constructed one was made.

    Points are those of the reward table, or the Copeland points of its place in a ranking.
    """

    text: str
    outcome: str
    points: float
    source: Source
    recipe: str | None = None
    logprob: float | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """Two candidates of one request, the first better than the second by `margin` points."""

    request: Request
    chosen: Candidate
    rejected: Candidate
    kind: str

    @property
    def margin(self) -> float:
        return self.chosen.points - self.rejected.points

    @property
    def constructed(self) -> bool:
        return self.rejected.source == "constructed"


def kind_of(request: Request, outcome: str) -> str:
    """The kind of a pair whose rejected side has this outcome."""
    if request.expected.act == "call":
        return CALL_OVER_TEXT if outcome == "missed_call" else WRONG_CALL
    return f"{request.expected.act}_over_{'call' if outcome == 'needless_call' else 'text'}"


def kind_of_ranked(request: Request, chosen: str, rejected: str) -> str:
    """The kind of a pair that somebody else's ranks made, by both outcomes: that of rules where they could make it."""
    if chosen == right_outcome(request) != rejected:
        return kind_of(request, rejected)
    return f"{_act(chosen)}_over_{_act(rejected)}"


def _act(outcome: str) -> str:
    """Whether this is what a call did, or a text."""
    return "call" if outcome in _CALLS else "text"


def pairs_of(
    request: Request, candidates: Sequence[Candidate], config: PairingConfig, filtered: Counter[str]
) -> list[Pair]:
    """The pairs that one request can yield, the policy's own failures first; reasons against others are counted."""
    chosen = _chosen(request, candidates)
    if chosen is None:
        filtered["no_right_candidate"] += 1
        return []
    wrong = [each for each in candidates if each.outcome != right_outcome(request)]
    pairs = [
        Pair(request, chosen, rejected, kind_of(request, rejected.outcome))
        for rejected in (*_likeliest_failures(wrong), *_from(candidates, "constructed"))
    ]
    # Tables count in units of their own, so that no number of points would suit all of them.
    return _fitting(pairs, config, abs(chosen.points) / 2, filtered)


def ranked_pairs_of(
    request: Request, ranked: Sequence[Candidate], config: PairingConfig, filtered: Counter[str]
) -> list[Pair]:
    """The pairs that somebody else's ranks yield; `points` of each candidate are those of its place."""
    best = [each for each in ranked if each.points == max(other.points for other in ranked)]
    if not best:
        return []
    order: tuple[Source, ...] = ("policy", "gold", "constructed")
    chosen = max(best, key=lambda each: (-order.index(each.source), _likelihood(each)))
    tied = {each.text.strip() for each in best} - {chosen.text.strip()}
    filtered["tied"] += len(tied)
    lower = [each for each in ranked if each not in best]
    pairs = [
        Pair(request, chosen, rejected, kind_of_ranked(request, chosen.outcome, rejected.outcome))
        for rejected in (*_likeliest_failures(lower), *_from(lower, "gold", "constructed"))
    ]
    return _fitting(pairs, config, 0.0, filtered)


def _fitting(found: Sequence[Pair], config: PairingConfig, least: float, filtered: Counter[str]) -> list[Pair]:
    """The first pair of each kind that is fit to be one; `least` is the margin unless the configuration has one."""
    pairs: dict[str, Pair] = {}
    for pair in found:
        if pair.kind in pairs:
            continue
        if reason := _unfit(pair, least if config.margin is None else config.margin):
            filtered[reason] += 1
        else:
            pairs[pair.kind] = pair
    filtered["per_prompt"] += max(0, len(pairs) - config.per_prompt)
    return list(pairs.values())[: config.per_prompt]


def _from(candidates: Sequence[Candidate], *sources: Source) -> list[Candidate]:
    return [candidate for source in sources for candidate in candidates if candidate.source == source]


def _chosen(request: Request, candidates: Sequence[Candidate]) -> Candidate | None:
    """The policy's likeliest right sample, or else the turn of the data where it is right."""
    right = [each for each in candidates if each.outcome == right_outcome(request) and not each.truncated]
    best = max((each.points for each in right), default=0.0)
    own = [each for each in right if each.source == "policy" and each.points == best]
    gold = [each for each in right if each.source == "gold"]
    return max(own, key=_likelihood, default=gold[0] if gold else None)


def _likelihood(candidate: Candidate) -> float:
    return candidate.logprob if candidate.logprob is not None else float("-inf")


def _likeliest_failures(worse: Sequence[Candidate]) -> list[Candidate]:
    """The policy's likeliest sample of each outcome among these, the most frequent outcome first."""
    failures: dict[str, list[Candidate]] = {}
    for candidate in _from(worse, "policy"):
        failures.setdefault(candidate.outcome, []).append(candidate)
    frequent = sorted(failures.values(), key=lambda group: (len(group), max(map(_likelihood, group))), reverse=True)
    return [max(group, key=lambda each: (not each.truncated, _likelihood(each))) for group in frequent]


def _unfit(pair: Pair, least: float) -> str | None:
    """Why two candidates make no pair; `least` is the smallest margin."""
    chosen, rejected = pair.chosen.text.strip(), pair.rejected.text.strip()
    if pair.rejected.truncated:  # nothing tells how it would have ended
        return "truncated"
    if chosen == rejected:
        return "identical"
    if chosen.startswith(rejected) or rejected.startswith(chosen):
        return "prefix"
    return "margin" if pair.margin < least or pair.margin <= 0 else None


def has_both_sides(requests: Iterable[Request]) -> bool:
    """Whether there can be pairs for calling and against it: some requests need a call, others only offer tools."""
    return {request.expected.act == "call" for request in requests if request.tools} == {True, False}


def select(
    found: Mapping[str, Sequence[Pair]], both_sides: bool, config: PairingConfig, seed: int, filtered: Counter[str]
) -> list[Pair]:
    """Choose among the pairs of each request (by id) so that the shares of the configuration hold.

    The policy's own failures come first, constructed ones fill up; `seed` draws which are left out, and why is counted.
    Balance and the share of wrong calls need requests of both sides: data that always calls is not held to them.
    """
    dice = random.Random(f"pairs {seed}")
    pairs = [pair for request in found.values() for pair in request]
    dice.shuffle(pairs)
    own = [pair for pair in pairs if not pair.constructed]
    made = [pair for pair in pairs if pair.constructed]

    calls, against = _of(own, CALL_OVER_TEXT), _of(own, *TEXT_OVER_CALL)
    if config.balance and both_sides:
        goal = max(len(calls), len(against))
        calls = [*calls, *_of(made, CALL_OVER_TEXT)][:goal]
        against = [*against, *_of(made, *TEXT_OVER_CALL)][:goal]
        fewer = min(len(calls), len(against))
        filtered["balance"] += len(calls) + len(against) - 2 * fewer
        calls, against = calls[:fewer], against[:fewer]
    kept = [*calls, *against, *_of(own, *TEXT_OVER_TEXT)]
    anchors = _anchors(made, kept, found, config, both_sides)
    kept += [pair for pair in anchors if pair.kind not in CALL_OVER_CALL]
    wrong = [*_of(own, *CALL_OVER_CALL), *_of(anchors, *CALL_OVER_CALL)]
    kept += _wrong_calls(wrong, len(kept), config, both_sides, filtered)
    place = {id_: number for number, id_ in enumerate(found)}
    return sorted(kept, key=lambda pair: (place[pair.request.id], pair.kind))


def _of(pairs: Iterable[Pair], *kinds: str) -> list[Pair]:
    return [pair for pair in pairs if pair.kind in kinds]


def _wrong_calls(
    wrong: Sequence[Pair], others: int, config: PairingConfig, both_sides: bool, filtered: Counter[str]
) -> list[Pair]:
    """As many pairs of two calls as their shares allow beside so many others, those that parse first."""
    parsed = [pair for pair in wrong if pair.rejected.outcome != "malformed_call"]
    broken = [pair for pair in wrong if pair.rejected.outcome == "malformed_call"]
    room = _room(others, config.wrong_call_share, len(wrong)) if both_sides else len(wrong)
    fitting = broken[: _room(others + min(len(parsed), room), config.malformed_share, len(broken))]
    kept = [*parsed, *fitting][:room]
    filtered["malformed_share"] += len(broken) - len(fitting)
    filtered["wrong_call_share"] += len(parsed) + len(fitting) - len(kept)
    return kept


def _room(others: int, share: float, wanted: int) -> int:
    """How many of the wanted pairs there may be beside so many others without being more than this share of all."""
    return min(wanted, int(others * share / (1 - share))) if share < 1 else wanted


def _anchors(
    made: Sequence[Pair],
    kept: Sequence[Pair],
    found: Mapping[str, Sequence[Pair]],
    config: PairingConfig,
    both_sides: bool,
) -> list[Pair]:
    """Pairs against constructed mistakes on a share of the requests that the policy always gets right.

    As many for calling as against it, where there are both, and as many of right over wrong calls.
    """
    mastered = {id_ for id_, pairs in found.items() if all(pair.constructed for pair in pairs)}
    taken = {(pair.request.id, pair.kind) for pair in kept}
    left = [pair for pair in made if pair.request.id in mastered and (pair.request.id, pair.kind) not in taken]
    each = math.ceil(config.anchor_share * len(mastered) / 3)
    calls, against = _of(left, CALL_OVER_TEXT)[:each], _of(left, *TEXT_OVER_CALL)[:each]
    if config.balance and both_sides:
        fewer = min(len(calls), len(against))
        calls, against = calls[:fewer], against[:fewer]
    return [*calls, *against, *_of(left, *CALL_OVER_CALL)[:each]]


def behaviour(requests: Sequence[Request], sampled: Sequence[Sequence[Candidate]]) -> dict[str, Any]:
    """What the policy's samples did: outcomes by the act that was right, and requests that give no signal."""
    outcomes: dict[str, Counter[str]] = {}
    always = never = tied = 0
    for request, row in zip(requests, sampled, strict=True):
        outcomes.setdefault(request.expected.act, Counter()).update(candidate.outcome for candidate in row)
        right = sum(candidate.outcome == right_outcome(request) for candidate in row)
        always += right == len(row)
        never += right == 0
        tied += len({candidate.points for candidate in row}) == 1
    return {
        "samples": sum(len(row) for row in sampled),
        "always_right": always,
        "never_right": never,
        "tied": tied,
        "outcomes": {act: dict(sorted(counted.items())) for act, counted in sorted(outcomes.items())},
    }


def unpaired(
    requests: Sequence[Request],
    sampled: Sequence[Sequence[Candidate]],
    found: Mapping[str, Sequence[Pair]],
    pairs: Sequence[Pair],
    unranked: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Requests without a pair, by the reason.

    no_signal: every sample was right; no_fitting_pair: no two candidates make one; left_out: those there were are not
    needed, or balance and shares had no room for them. Where somebody else ranks, right samples can make pairs, so that
    there is no no_signal; `unranked` has the reasons, by id, of requests that got no ranks to make pairs of.
    """
    paired = {pair.request.id for pair in pairs}
    counts = {"no_signal": 0, "no_fitting_pair": 0, "left_out": 0}
    for request, row in zip(requests, sampled, strict=True):
        if request.id not in paired:
            always = unranked is None and all(each.outcome == right_outcome(request) for each in row)
            reason = "no_signal" if always else "left_out" if found[request.id] else "no_fitting_pair"
            reason = (unranked or {}).get(request.id, reason)
            counts[reason] = counts.get(reason, 0) + 1
    return counts


def summary(pairs: Sequence[Pair], tokens: Callable[[str], int]) -> dict[str, Any]:
    """Pairs by kind, where their sides come from, the balance of the first token, and lengths: for report.json.

    `tokens` counts those of a completion. Ratios are those of chosen to rejected, of means and of counts.
    """
    kinds = Counter(pair.kind for pair in pairs)
    call, text = kinds[CALL_OVER_TEXT], sum(kinds[kind] for kind in TEXT_OVER_CALL)
    return {
        "pairs": len(pairs),
        "requests_with_pairs": len({pair.request.id for pair in pairs}),
        "by_kind": dict(sorted(kinds.items())),
        "by_source": dict(sorted(Counter(_sources(pair) for pair in pairs).items())),
        "rejected_outcomes": dict(sorted(Counter(pair.rejected.outcome for pair in pairs).items())),
        "balance": {"call_over_text": call, "text_over_call": text, "ratio": call / text if text else None},
        "length": {
            kind: {"characters": _lengths(_of(pairs, kind), len), "tokens": _lengths(_of(pairs, kind), tokens)}
            for kind in sorted(kinds)
        },
        "margin": _mean(pair.margin for pair in pairs),
    }


def _lengths(pairs: Sequence[Pair], length: Callable[[str], int]) -> dict[str, float | None]:
    """Mean lengths of both sides, and their ratio."""
    chosen = sum(length(pair.chosen.text) for pair in pairs)
    rejected = sum(length(pair.rejected.text) for pair in pairs)
    return {
        "chosen": round(chosen / len(pairs), 1),
        "rejected": round(rejected / len(pairs), 1),
        "ratio": round(chosen / rejected, 2) if rejected else None,
    }


def _sources(pair: Pair) -> str:
    return f"{pair.chosen.source} over {pair.rejected.recipe or pair.rejected.source}"


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return round(sum(listed) / len(listed), 1) if listed else None
