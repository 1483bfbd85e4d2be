"""What a completion did (its outcome) and how many points that is worth. Pure functions; one file a rule."""

from __future__ import annotations

import sys

from data import _modules
from rewards._outcome import ACT_OUTCOMES, OUTCOMES, Judgement, judge, right_outcome
from rewards._policies import blind, perfection, share
from rewards._table import RewardConfig, RuleConfig, RuleError, Score, points, threshold

__all__ = [
    "ACT_OUTCOMES",
    "OUTCOMES",
    "Judgement",
    "RewardConfig",
    "RuleConfig",
    "RuleError",
    "Score",
    "blind",
    "judge",
    "names",
    "perfection",
    "points",
    "right_outcome",
    "share",
    "threshold",
]


def names() -> tuple[str, ...]:
    """The rules there are."""
    return _modules.names(sys.modules[__name__])
