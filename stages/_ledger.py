"""What stage=check keeps while it works: counts of each part of the data, and problems, each written down at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from data import jsontext
from data.transcript import RowError, Transcript
from stages._content import Found, split

if TYPE_CHECKING:
    from data.source import Row
    from stages._encoded import Encoded


Segments = list[tuple[str, bool]]  # a row's text in runs: those that are trained, True, and those that are not


@dataclass(slots=True)
class PartCounts:
    """Counts of one part; calls and what stands below them are of rows that are kept."""

    rows_in: int = 0
    rows_kept: int = 0
    rows_rejected: int = 0
    transcripts: int = 0
    requests: int = 0
    calls: int = 0
    without_call: int = 0
    transcripts_without_call: int = 0
    rows_encoded: int = 0
    rows_split_by_turn: int = 0
    tokens: int = 0
    tokens_trained: int = 0
    tokens_longest: int = 0
    tools: set[str] = field(default_factory=set)
    changes: Counter[str] = field(default_factory=Counter)

    def keep(self, row: Row, encoded: Encoded | None) -> None:
        value = row.value
        self.rows_kept += 1
        if isinstance(value, Transcript):
            calls = sum(len(turn.tool_calls) for turn in value.messages)
            self.transcripts += 1
            self.transcripts_without_call += not calls
        else:
            calls = len(value.expected.calls)
            self.requests += 1
        self.calls += calls
        self.without_call += not calls
        self.tools.update([tool.name for tool in value.tools])
        if row.changes:
            self.changes.update(row.changes)
        if encoded:
            lengths = [len(each.input_ids) for each in encoded.rows]
            self.rows_encoded += 1
            self.rows_split_by_turn += len(lengths) > 1
            self.tokens += sum(lengths)
            self.tokens_trained += sum(label >= 0 for each in encoded.rows for label in each.labels)
            self.tokens_longest = max(self.tokens_longest, *lengths)

    @property
    def no_tool_share(self) -> float | None:
        """Share of the rows to learn from that hold no call; of requests, where there are no transcripts."""
        if self.transcripts:
            return self.transcripts_without_call / self.transcripts
        return self.without_call / self.rows_kept if self.rows_kept else None

    def as_dict(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in self.__slots__}
        counts |= {"tools": len(self.tools), "changes": dict(sorted(self.changes.items()))}
        return counts | {"no_tool_share": self.no_tool_share}


class Ledger:
    """The open files of rejected rows, warnings and rows to show, and how many of each problem stand in them."""

    def __init__(self, rejected: BinaryIO, warnings: BinaryIO, shown: BinaryIO) -> None:
        self._rejected, self._warnings, self._shown = rejected, warnings, shown
        self.problems: Counter[str] = Counter()

    def reject(self, error: RowError) -> None:
        self._add(self._rejected, error.place, error.code, f"{error.field}: {error.message}")

    def warn(self, place: str, found: Found) -> None:
        self._add(self._warnings, place, *found)

    def show(self, place: str, segments: Segments) -> None:
        self._shown.write(_line(place, segments=segments))

    def _add(self, file: BinaryIO, place: str, code: str, reason: str) -> None:
        self.problems[code] += 1
        file.write(_line(place, code=code, reason=reason))


def _line(place: str, **more: Any) -> bytes:
    """A line of JSON that starts with the place of a row: its file and its line, or number where it has no line."""
    name, number = split(place)
    return f"{jsontext.dumps({'file': name, 'line': number} | more)}\n".encode("utf-8", "backslashreplace")
