"""How far P(call) can be relied on: of requests whose answer tells it, against whether a call is right there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

BINS = 15


def reliability(told: Sequence[float | None], needed: Sequence[bool]) -> dict[str, Any]:
    """n_p_call, the answers that tell P(call), and over them call_ece, call_brier and call_auroc; null over nothing."""
    pairs = [(p, right) for p, right in zip(told, needed, strict=True) if p is not None]
    return {
        "n_p_call": len(pairs),
        "call_ece": expected_calibration_error(pairs),
        "call_brier": brier(pairs),
        "call_auroc": auroc(pairs),
    }


def expected_calibration_error(pairs: Sequence[tuple[float, bool]]) -> float | None:
    """Over 15 bins of equal width: the sum of |sum of P(call) - requests that need a call| in each / all requests.

    A bin holds its lower end, the last one both (Guo et al. 2017, arXiv 1706.04599, equation 3).
    """
    import numpy as np

    if not pairs:
        return None
    return float(error_of_bins(np.array([bin_counts(p, right) for p, right in pairs]).sum(0)))


def bin_counts(p: float | None, right: bool) -> list[float]:
    """What one request adds to the calibration error: P(call) less 1 where a call is right, in its bin; and 1."""
    counts = [0.0] * (BINS + 1)
    if p is not None:
        counts[min(int(p * BINS), BINS - 1)] = p - right
        counts[BINS] = 1.0
    return counts


def error_of_bins(sums: np.ndarray) -> np.ndarray:
    """The calibration error of sums of `bin_counts`, [..., bins + 1] to [...]; NaN over nothing."""
    return ratio(abs(sums[..., :BINS]).sum(-1), sums[..., BINS])


def brier(pairs: Sequence[tuple[float, bool]]) -> float | None:
    """The sum of (P(call) - 1 where a call is right, else - 0) squared / requests (Brier 1950)."""
    return sum((p - right) ** 2 for p, right in pairs) / len(pairs) if pairs else None


def auroc(pairs: Sequence[tuple[float, bool]]) -> float | None:
    """Pairs of a request that needs a call and one that does not in which the former has the greater P(call), ties
    counted half / all such pairs (Hanley and McNeil 1982); None where either is lacking.
    """
    import numpy as np

    need, others = (np.sort([p for p, right in pairs if right == which]) for which in (True, False))
    if not len(need) or not len(others):
        return None
    below = np.searchsorted(others, need, "left") + np.searchsorted(others, need, "right")
    return float(below.sum() / 2 / len(need) / len(others))


def risk_coverage(rows: Sequence[tuple[float, bool, bool]]) -> list[tuple[float, float]]:
    """The share of wrong decisions among the surest ones, for each share of them: (coverage, risk).

    A row has P(call), whether a call was tried and whether it was needed; how sure the decision is, is P(call) of a
    call and 1 - P(call) of a text. Decisions that are equally sure come together (El-Yaniv and Wiener 2010).
    """
    order = sorted((-(p if tried else 1 - p), tried != needed) for p, tried, needed in rows)
    points, wrong = [], 0
    for place, (sure, failed) in enumerate(order, 1):
        wrong += failed
        if place == len(order) or order[place][0] != sure:
            points.append((place / len(order), wrong / place))
    return points


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN over nothing."""
    import numpy as np

    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=np.asarray(below) > 0)
