"""What a table pays policies that never look at the request: a reward that can be had blindly teaches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from data.transcript import Reading, Request, ToolCall
from rewards._outcome import judge, right_outcome
from rewards._table import RewardConfig, points

NEVER = ("I cannot do that.", "It is so.")  # a constant refusal, a constant answer
Blind = Literal["never_call", "always_call"]


def share(earned: Sequence[float], requests: Sequence[Request], table: RewardConfig) -> float | None:
    """Points, one number a request, in units of what a perfect policy earns on average over the same requests.

    A perfect policy has a share of 1. As on a balanced set, requests that need a call and those that need none weigh
    the same as a whole; without requests of one side, the other has all the weight. None where right pays nothing.
    """
    perfect = _mean([perfection(request, table) for request in requests], requests)
    return _mean(earned, requests) / perfect if perfect > 0 else None


def perfection(request: Request, table: RewardConfig) -> float:
    """The points of doing what is right."""
    return float(getattr(table, right_outcome(request)))


def blind(requests: Sequence[Request], table: RewardConfig) -> dict[Blind, float | None]:
    """The `share` of never calling, whichever of two constant texts earns more, and of always calling.

    Whoever always calls makes the right calls where calls are right, and calls an offered tool everywhere else.
    Shown beside the table's call threshold: above 0, calls or texts pay without a look at the request.
    """
    texts = [
        share([_earned(each, Reading(False, (), text), table) for each in requests], requests, table) for text in NEVER
    ]
    calls = share([_calling(request, table) for request in requests], requests, table)
    return {"never_call": max((each for each in texts if each is not None), default=None), "always_call": calls}


def _calling(request: Request, table: RewardConfig) -> float:
    if request.expected.act == "call":
        return perfection(request, table)
    name = request.tools[0].name if request.tools else "tool"
    return _earned(request, Reading(True, (ToolCall(name, {}),)), table)


def _earned(request: Request, reading: Reading, table: RewardConfig) -> float:
    return points(judge(request, reading), table, request, reading).points


def _mean(values: Sequence[float], requests: Sequence[Request]) -> float:
    """The mean of the two sides' means; ValueError where there are no requests."""
    sides: dict[bool, list[float]] = {}
    for value, request in zip(values, requests, strict=True):
        sides.setdefault(request.expected.act == "call", []).append(value)
    if not sides:
        raise ValueError("no requests")
    return sum(sum(side) / len(side) for side in sides.values()) / len(sides)
