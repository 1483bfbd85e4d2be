"""BFCL: {id, question, function}, and the accepted calls in a file of answers; each row is a Request, to evaluate on.

Every argument has a list of accepted values, "" among them marks it as optional; values inside objects have such lists
too. Answers may also be written as Python calls. Where a file named irrelevance has no answers, no call is right and an
answer is expected: the benchmark takes any text, and does not say whether to answer or to refuse. Rows of several turns
are refused: their answers are states of a system, not calls.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data import _files, _pythonic
from data.formats import _rows, openai
from data.transcript import AcceptedCall, Expected, Request, RowError, ToolCall

BESIDE = "answers"
_MOST = 256  # values that the lists inside one object may be combined to


def read(row: dict[str, Any], place: str) -> Request:
    """A request; `ground_truth` holds the accepted calls, none where the right act is not to call."""
    turns = _rows.decoded(row.get("question"), list, place, "question")
    if len(turns) != 1:
        raise RowError(place, "question", f"must hold one turn, holds {len(turns)}; those of several are not read")
    chat = openai.messages_of(turns[0], place, "question[0]")
    if not chat or chat[-1].role != "user":
        raise RowError(place, "question[0]", "must end with what the user asks")
    tools = _rows.tools(row.get("function"), place, "function")
    entries = _rows.decoded(row.get("ground_truth"), list, place, "ground_truth")
    calls = tuple(_accepted(entry, place, f"ground_truth[{number}]") for number, entry in enumerate(entries))
    expected = Expected("call", calls) if calls else Expected("answer")
    row_id = _rows.row_id(row, place)
    return Request(row_id, row_id.rpartition("_")[0] or expected.act, tools, tuple(chat), expected)


def recognised(row: dict[str, Any]) -> str | None:
    """A question and its functions."""
    return "question and function" if {"question", "function"} <= set(row) else None


def companions(file: Path) -> tuple[Path, ...]:
    """`x_answer.jsonl` for `x.jsonl`, or the file of the same name in the folder possible_answer."""
    return file.with_name(f"{file.stem}_answer{file.suffix}"), file.parent / "possible_answer" / file.name


def completing(
    file: Path, companion: Path | None, seed: int, distractors: int
) -> Callable[[dict[str, Any], str], dict[str, Any]]:
    """Puts the accepted calls into a row, by its id."""
    if companion is None and "irrelevance" not in file.name:
        raise ValueError("the right calls stand in a file of their own")
    answers: dict[Any, Any] = {}
    for found in _files.read(companion) if companion else ():
        if isinstance(found, RowError):
            raise found
        answers[str(found[1].get("id"))] = found[1].get("ground_truth")

    def complete(row: dict[str, Any], place: str) -> dict[str, Any]:
        if "ground_truth" in row:
            return row
        if companion is None:
            return row | {"ground_truth": []}
        key = str(row.get("id"))
        if key not in answers:
            raise RowError(place, "id", f"{key!r} has no answer in {companion}", "answer")
        return row | {"ground_truth": answers[key]}

    return complete


def _accepted(entry: Any, place: str, field: str) -> AcceptedCall:
    if isinstance(entry, str):
        try:
            ((name, given),) = _pythonic.parse_row(entry)
        except ValueError as error:
            raise RowError(place, field, f"must be one call, name(arg=value); {error}") from None
        return AcceptedCall.exactly(ToolCall(name, given))
    entry = _rows.typed(entry, dict, place, field)
    if len(entry) != 1:
        raise RowError(place, field, f"must name one function, names {len(entry)}")
    ((name, arguments),) = entry.items()
    accepted: dict[str, list[Any]] = {}
    optional: list[str] = []
    for key, values in _rows.typed(arguments, dict, place, f"{field}.{name}").items():
        where = f"{field}.{name}.{key}"
        values = _rows.typed(values, list, place, where)
        if "" in values:
            optional.append(key)
        elif not values:
            raise RowError(place, where, "accepts no value and may not be left out, so that no call is right")
        accepted[key] = [one for value in values if value != "" for one in _values(value, place, where)]
    return AcceptedCall(name, accepted, tuple(optional))


def _values(value: Any, place: str, field: str) -> list[Any]:
    """The values that an accepted one stands for: objects hold a list of accepted values for each key."""
    if isinstance(value, dict):
        lists = [
            [(key, one) for entry in inner if entry != "" for one in _values(entry, place, field)]
            + ([None] if "" in inner else [])
            if isinstance(inner, list)
            else [(key, inner)]
            for key, inner in value.items()
        ]
        return [dict(filter(None, pairs)) for pairs in _product(lists, place, field)]
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        return [list(each) for each in _product([_values(entry, place, field) for entry in value], place, field)]
    return [value]


def _product(lists: list[list[Any]], place: str, field: str) -> list[tuple[Any, ...]]:
    if math.prod(map(len, lists)) > _MOST:
        raise RowError(place, field, f"accepts more than {_MOST} values")
    return list(itertools.product(*lists))
