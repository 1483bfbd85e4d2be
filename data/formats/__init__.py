"""How data sets write transcripts: one module a format.

A format has a function `read(row, place)` that maps one row to a Transcript and raises RowError where it cannot, and
may say TEST_SHARE, the share of a file held out where the data set has a custom of its own.
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
