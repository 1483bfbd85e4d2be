"""Long work, shown: a bar with what is left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_LINE_EVERY = 15.0  # seconds between lines where there is no terminal: enough to see life, little in a log file
_DRAW_EVERY = 0.1


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(7.25), duration(205), duration(7400)
    ('7.2 s', '3 min 25 s', '2 h 03 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


class Bar:
    """Progress of `total` steps on stderr. `update(done, note)` sets how far it is; `close()` ends the line.

    A total of 0 is one that nobody knows. One that is not `visible` shows nothing.
    """

    def __init__(self, total: int, label: str, start: int = 0, visible: bool = True) -> None:
        self.total, self.label, self.done, self.note = total, label, start, ""
        self._first, self._began, self._shown = start, time.monotonic(), 0.0
        self._terminal, self._visible = sys.stderr.isatty(), visible

    def update(self, done: int, note: str = "") -> None:
        self.done, self.note = done, note
        now = time.monotonic()
        if self._visible and now - (self._shown or self._began) >= (_DRAW_EVERY if self._terminal else _LINE_EVERY):
            self._shown = now
            self._draw()

    def close(self) -> None:
        if self._visible and (self._terminal or self._shown):
            self._draw(end=True)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _draw(self, end: bool = False) -> None:
        spent = time.monotonic() - self._began
        fresh = self.done - self._first
        left = spent / fresh * max(self.total - self.done, 0) if fresh > 0 and self.total else None
        share = min(self.done / self.total, 1.0) if self.total else 1.0
        text = f"{self.label} {self.done}/{self.total}" if self.total else f"{self.label} {self.done}"
        if left is not None and not end:
            text += f", {duration(left)} left"
        if end:
            text += f" in {duration(spent)}"
        if self.note:
            text += f", {self.note}"
        if self._terminal:
            filled = round(20 * share)
            bar = "█" * filled + "░" * (20 - filled)
            print(f"\r\x1b[2K{bar} {text}", end="\n" if end else "", file=sys.stderr, flush=True)
        else:
            print(f"  {text}", file=sys.stderr, flush=True)


def progress(items: Iterable[T], total: int, label: str, visible: bool = True) -> Iterator[T]:
    """Pass the items on, showing how many are done."""
    with Bar(total, label, visible=visible) as bar:
        for number, item in enumerate(items, 1):
            yield item
            bar.update(number)
