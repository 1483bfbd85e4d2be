"""The rule against values from nowhere."""

from __future__ import annotations

from data.transcript import Reading, Request
from rewards._outcome import Judgement

_PARTLY_RIGHT = ("right_tool_wrong_arguments", "wrong_tool", "invalid_arguments")


def ungrounded(request: Request, reading: Reading, judgement: Judgement, *, at_least: int = 1) -> float:
    """1 where a call that was needed but is wrong holds a value that nobody said and no schema offers, else 0.

    "Weather in Oslo?" -> get_weather(city="Bergen"): 1. -> get_weather(town="Oslo"): 0, wrong but said.
    An exact call is never ungrounded; a needless or broken one costs the same whatever it holds, or breaking it would
    pay. `at_least` values must be from nowhere.
    """
    return float(judgement.outcome in _PARTLY_RIGHT and judgement.components.get("ungrounded", 0) >= at_least)
