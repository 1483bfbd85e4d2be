"""The worst answers of a model, and in words why each scored as it did, for evaluate/report.html."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from stages._examples import RIGHT, by_turns

Fields = Mapping[str, Any]


def worst(
    requests: Sequence[Fields], rows: Mapping[str, Fields], count: int = 6, but: Collection[str] = ()
) -> list[str]:
    """Ids of the wrong answers with the fewest points, one of each kind in turn; those in `but` are left out."""
    wrong = [each for each in requests if rows[each["id"]]["outcome"] not in RIGHT and each["id"] not in but]
    return by_turns(sorted(wrong, key=lambda request: rows[request["id"]]["points"]))[:count]


def sum_of(row: Fields) -> str:
    """The points of an answer and what they are the sum of.

    >>> sum_of({"outcome": "wrong_tool", "parts": {"outcome": -5.0, "ungrounded": -2.0}, "points": -7.0})
    '-7: wrong_tool -5, ungrounded -2'
    """
    parts = {row["outcome"] if name == "outcome" else name: value for name, value in row["parts"].items()}
    return f"{row['points']:g}: {', '.join(f'{name} {value:g}' for name, value in parts.items())}"


def found_in(row: Fields) -> str:
    """What the judge found in an answer, component by component.

    >>> found_in({"components": {"act": "call", "parsed": True, "argument_f1": 2 / 3, "surplus": 0}})
    'act call, parsed yes, argument f1 0.67, surplus 0'
    """
    return ", ".join(f"{name.replace('_', ' ')} {_word(value)}" for name, value in row["components"].items())


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
