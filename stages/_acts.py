"""Which act was right and which one a model chose: the confusion matrix of acts, for evaluate/report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages._examples import RIGHT

Fields = Mapping[str, Any]
ACTS = ("call", "answer", "ask", "refuse")
NOTHING = "nothing"


def chosen(right: str, row: Fields) -> str:
    """The act of an answer, a row of predictions.jsonl: `nothing` where its text is empty, cut off or repeats itself.

    A text that was judged right has the right act, whatever rules would make of its wording: "It is 2. Anything else?"
    ends in a question and yet answers.

    >>> chosen("answer", {"attempt": False, "outcome": "right_answer", "components": {"act": "ask"}})
    'answer'
    """
    if row["attempt"]:
        return "call"
    if row["outcome"] in RIGHT:
        return right
    act = row["components"]["act"]
    return NOTHING if row["outcome"] == "empty" or act == "empty" else str(act)


def confusion(requests: Sequence[Fields], rows: Mapping[str, Fields]) -> dict[str, dict[str, int]]:
    """How often a model chose each act, by the act that was right; acts that are right nowhere are left out."""
    counts = {act: dict.fromkeys((*ACTS, NOTHING), 0) for act in ACTS}
    for request in requests:
        right = request["expected"]["act"]
        counts[right][chosen(right, rows[request["id"]])] += 1
    return {act: row for act, row in counts.items() if any(row.values())}
