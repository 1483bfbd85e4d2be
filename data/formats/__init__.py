"""How data sets write transcripts: one module a format.

A format has a function `read(row, place)` that maps one row to a Transcript, or to a Request where the data says what
is right but holds no turn to learn from, and raises RowError where it cannot. It may have

    recognised(row)   why a row looks like this format, in words, or None; for data=auto
    TEST_SHARE        the share of a file held out, where the data set has a custom of its own
    REFERENCE         a pattern of texts that stand for the result of an earlier call and fit any type

and, where its rows are completed by another file,

    BESIDE            the setting that names that file: tools or answers
    companions(file)  where it is looked for, in order, if it is not named
    completing(file, companion, seed, distractors)  the function that makes (row, place) the row that `read` reads;
                      ValueError where it cannot do without the companion and has None
"""

from __future__ import annotations

import sys
from types import ModuleType

from data import _modules


def names() -> tuple[str, ...]:
    """The formats there are."""
    return _modules.names(sys.modules[__name__])


def get(name: str) -> ModuleType:
    """The format of this name; ValueError with the nearest one when there is none."""
    return _modules.get(sys.modules[__name__], name, "format")


def guess(rows: list[dict[str, object]]) -> tuple[str, str]:
    """The format that recognises all these rows, and why; ValueError where none does, or several.

    openai is what others are built on, and gives way to them.
    """
    found: dict[str, str] = {}
    for name in names():
        recognised = getattr(get(name), "recognised", None)
        reasons = [recognised(row) for row in rows] if recognised else []
        if reasons and all(reasons):
            found[name] = reasons[0]
    if len(found) > 1:
        found.pop("openai", None)
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        raise ValueError(f"the first rows fit several formats: {', '.join(found)}; say which: data=NAME")
    keys = ", ".join(sorted(map(str, rows[0]))[:8]) if rows else "no row"
    raise ValueError(f"the first rows fit no format (they have {keys}); say which: data=NAME, of {', '.join(names())}")
