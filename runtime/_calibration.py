"""The threshold on P(call) that keeps false calls below a rate, from requests whose right act is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data.transcript import Request
from runtime._results import Calls, Policy
from runtime._router import Router


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold, and both errors on the requests it was found on: counts, and what they are out of.

    `before` is the count of false calls at threshold 0, that is, of the checks alone.
    """

    threshold: float
    false_calls: int
    no_call: int
    missed_calls: int
    call: int
    before: int


def calibrate(
    policy: Policy, requests: Iterable[Request], false_call_rate: float, grounded: bool = True
) -> Calibration:
    """Route each request, with the tools it offers, and take the smallest threshold that keeps to the rate.

    Use validation requests, not those of a test: the threshold fits them. A policy that tells no P(call) is a
    ValueError.
    """
    found: list[tuple[float | None, bool]] = []
    for request in requests:
        route = Router(policy, request.tools, threshold=0.0, grounded=grounded).route(request.messages)
        if isinstance(route, Calls) and route.probability is None:
            raise ValueError("the policy does not tell P(call): there is nothing to set a threshold on")
        found.append((route.probability if isinstance(route, Calls) else None, request.expected.act == "call"))
    threshold = threshold_for(found, false_call_rate)

    def passed(needed: bool, least: float) -> int:
        return sum(p is not None and p >= least for p, wanted in found if wanted == needed)

    call = sum(needed for _, needed in found)
    false = passed(False, threshold)
    missed = call - passed(True, threshold)
    return Calibration(threshold, false, len(found) - call, missed, call, passed(False, 0.0))


def threshold_for(found: Sequence[tuple[float | None, bool]], false_call_rate: float) -> float:
    """The smallest threshold t such that calls with P(call) >= t are at most this share of the no-call requests.

    `found` has, for each request, the P(call) of the call that was let through (None: none was), and whether a call is
    right there. Of the false calls' probabilities in falling order, as many as the rate allows may stay; t is the next
    number above the first one that may not, and 0 where all may. ValueError without a no-call request.
    """
    if not 0 <= false_call_rate <= 1:
        raise ValueError(f"false_call_rate must be between 0 and 1, got {false_call_rate}")
    no_call = sum(not needed for _, needed in found)
    if not no_call:
        raise ValueError("no request without a call among them: there is no false-call rate to keep to")
    false = sorted((p for p, needed in found if p is not None and not needed), reverse=True)
    allowed = math.floor(false_call_rate * no_call + 1e-9)  # 0.29 * 100 is 28.999…
    return math.nextafter(false[allowed], math.inf) if allowed < len(false) else 0.0
