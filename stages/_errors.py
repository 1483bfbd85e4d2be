"""What a user can cause, told without a traceback, and being interrupted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from stages._secrets import redacted


class UserError(Exception):
    """A mistake of the user: every line says where, what was found, and the way out. train.py exits 2 on it."""

    def __init__(self, *lines: str) -> None:
        self.lines = tuple(redacted(line) for line in lines)
        super().__init__("\n".join(self.lines))

    def __reduce__(self) -> tuple[type[UserError], tuple[str, ...]]:
        return type(self), self.lines


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM. Not an Exception, so that neither Hydra's sweeps nor libraries go on after it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum}")
        self.signum = signum


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the known name most like this one, or nothing.

    >>> nearest("needles_call", ["needless_call", "missed_call"])
    '; did you mean needless_call?'
    """
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {match[0]}?" if match else ""
