"""Calls held against accepted calls: strict values, F1 over arguments, and the best assignment of one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from data.jsontext import same
from data.transcript import AcceptedCall, ToolCall

_EXACT_LIMIT = 8


@dataclass(frozen=True, slots=True)
class Matching:
    """`pairs` says which call stands for which accepted call, with its argument F1; the rest is surplus or lacking."""

    pairs: tuple[tuple[int, int, float], ...]
    surplus: tuple[int, ...]
    lacking: tuple[int, ...]
    f1: float


# Of one call, where one was needed: right, or of another tool.
_RIGHT, _OTHER = Matching(((0, 0, 1.0),), (), (), 1.0), Matching((), (0,), (0,), 0.0)


def accepted_keys(call: ToolCall, accepted: AcceptedCall) -> set[str]:
    """The arguments of a call whose values the answer key accepts, compared by type too: 3.0 is not 3, nor True 1."""
    found = set()
    for key, value in call.arguments.items():
        for right in accepted.arguments.get(key, ()):
            if same(value, right):
                found.add(key)
                break
    return found


def argument_f1(call: ToolCall, accepted: AcceptedCall) -> float:
    """F1 of a call's arguments, 1.0 exactly where the call is right; optional arguments count only where given.

    >>> argument_f1(ToolCall("f", {"a": 1, "b": 9}), AcceptedCall("f", {"a": [1], "b": [2], "c": [3]}, optional=("c",)))
    0.5
    """
    right, given, wanted = argument_counts(call, accepted)
    return 2 * right / (given + wanted) if given or wanted else 1.0


def argument_counts(call: ToolCall, accepted: AcceptedCall) -> tuple[int, int, int]:
    """How many arguments of a call are right, how many it gives, and how many were wanted."""
    wanted = len(accepted.arguments)
    if accepted.optional:
        wanted -= sum(key in accepted.optional and key not in call.arguments for key in accepted.arguments)
    return len(accepted_keys(call, accepted)), len(call.arguments), wanted


def match(calls: Sequence[ToolCall], accepted: Sequence[AcceptedCall]) -> Matching:
    """Assign calls to accepted calls of the same name so that the sum of argument F1 is greatest.

    Calls of one name form a group of their own. Up to 8 x 8 the assignment is exact; above that as many calls as can be
    right are, and the others take the best pair left, again and again, which can only cost a wrong call some credit.
    """
    if len(calls) == 1 == len(accepted):
        if calls[0].name != accepted[0].name:
            return _OTHER
        score = argument_f1(calls[0], accepted[0])
        return _RIGHT if score == 1.0 else Matching(((0, 0, score),), (), (), score)
    if not accepted:
        return Matching((), tuple(range(len(calls))), (), 0.0 if calls else 1.0)
    by_name: dict[str, tuple[list[int], list[int]]] = {}
    for place, call in enumerate(calls):
        by_name.setdefault(call.name, ([], []))[0].append(place)
    for place, right in enumerate(accepted):
        by_name.setdefault(right.name, ([], []))[1].append(place)
    pairs: list[tuple[int, int, float]] = []
    for made, wanted in by_name.values():
        if not made or not wanted:
            continue
        scores = [[argument_f1(calls[i], accepted[j]) for j in wanted] for i in made]
        assign = _exact if max(len(made), len(wanted)) <= _EXACT_LIMIT else _greedy
        pairs += [(made[i], wanted[j], scores[i][j]) for i, j in assign(scores)]
    used, met = {i for i, _, _ in pairs}, {j for _, j, _ in pairs}
    total = len(calls) + len(accepted)
    return Matching(
        tuple(sorted(pairs)),
        tuple(i for i in range(len(calls)) if i not in used),
        tuple(j for j in range(len(accepted)) if j not in met),
        2 * sum(score for _, _, score in pairs) / total if total else 1.0,
    )


def _exact(scores: list[list[float]]) -> list[tuple[int, int]]:
    """The assignment with the greatest sum, trying each column for each row; `taken` holds used columns as bits."""
    rows, columns = len(scores), len(scores[0])
    if rows == 1 == columns:
        return [(0, 0)]
    if rows > columns:
        return [(i, j) for j, i in _exact([list(column) for column in zip(*scores, strict=True)])]

    @cache
    def best(row: int, taken: int) -> tuple[float, tuple[int, ...]]:
        if row == rows:
            return 0.0, ()
        choice: tuple[float, tuple[int, ...]] = (-1.0, ())
        for column in range(columns):
            if not taken >> column & 1:
                rest, places = best(row + 1, taken | 1 << column)
                if rest + scores[row][column] > choice[0]:
                    choice = rest + scores[row][column], (column, *places)
        return choice

    return list(enumerate(best(0, 0)[1]))


def _greedy(scores: list[list[float]]) -> list[tuple[int, int]]:
    """As many pairs of score 1.0 as there can be, then the best pair left, again and again."""
    right = _right_pairs(scores)
    order = sorted(((-score, i, j) for i, row in enumerate(scores) for j, score in enumerate(row)))
    rows, columns = set(right), set(right.values())
    pairs = list(right.items())
    for _, i, j in order:
        if i not in rows and j not in columns:
            rows.add(i)
            columns.add(j)
            pairs.append((i, j))
    return pairs


def _right_pairs(scores: list[list[float]]) -> dict[int, int]:
    """A column for as many rows as can have one of score 1.0: augmenting paths (Berge, 1957)."""
    column_of: dict[int, int] = {}
    row_of: dict[int, int] = {}
    for start in range(len(scores)):
        reached_by: dict[int, int] = {}
        waiting = [start]
        free: int | None = None
        while waiting and free is None:
            row = waiting.pop()
            for column, score in enumerate(scores[row]):
                if score == 1.0 and column not in reached_by:
                    reached_by[column] = row
                    if column not in row_of:
                        free = column
                        break
                    waiting.append(row_of[column])
        while free is not None:  # each row of the path moves on to the column that was reached from it
            row = row_of[free] = reached_by[free]
            column_of[row], free = free, column_of.get(row)
    return column_of
