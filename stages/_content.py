"""What rows say, looked at without a tokenizer: unusual turns, doubtful pairs, duplicates, overlap of train and test.

Rows that cannot be used at all never come here: data/source.py gives a RowError in their place. What is seen is kept
as digests of 60 bits, so that files of millions of rows fit: 130 to 170 bytes a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from data.transcript import Message, Reading, Request, Transcript
from rewards import judge, points

if TYPE_CHECKING:
    from rewards import RewardConfig

Found = tuple[str, str]  # the code of a problem, and what it is in this row
# Public mixes hold 10 to 20 % of rows without a call.
_NO_TOOL_SHARE = (0.1, 0.2)
_EXACT = 0xFFFFFF  # the bits of an exact digest that are kept
# What two texts may differ in and still say the same, beside case. It parts words, so that 1.5 is not 15.
_PUNCTUATION = b".,;:!?'\"`()"
_AS_SPACES = bytes.maketrans(_PUNCTUATION, b" " * len(_PUNCTUATION))
_BETWEEN = "\n\0\n"  # parts of a conversation


def unusual(value: Transcript | Request) -> Iterator[Found]:
    """Turns that may stand where they do, and seldom should."""
    before = ""
    for number, turn in enumerate(value.messages):
        role = turn.role
        if role in ("user", "system"):
            if not turn.content or turn.content.isspace():
                yield "empty_turn", f"messages[{number}]: the {role} says nothing"
            if role == "user" == before:
                yield "unusual_order", f"messages[{number}]: the user speaks twice running"
            elif role == "system" and number:
                yield "unusual_order", f"messages[{number}]: a system turn behind the first turn"
        before = role


def doubtful_pair(request: Request, table: RewardConfig) -> Iterator[Found]:
    """Chosen and rejected, if the request has both: is one the beginning of the other, and is chosen worth more?"""
    chosen, rejected = request.gold, request.rejected
    if chosen is None or rejected is None:
        return
    for short, long, name in ((chosen, rejected, "chosen"), (rejected, chosen, "rejected")):
        calls = long.tool_calls[: len(short.tool_calls)]
        if short.tool_calls == calls and long.content.startswith(short.content) and (calls or not long.tool_calls):
            yield "prefix_pair", f"{name} is how the other begins"
            break
    worth = [_worth(request, turn, table) for turn in (chosen, rejected)]
    if worth[1] >= worth[0]:
        yield "swapped_pair", f"chosen earns {worth[0]:g} points, rejected {worth[1]:g}"


def _worth(request: Request, turn: Message, table: RewardConfig) -> float:
    reading = Reading(bool(turn.tool_calls), turn.tool_calls, turn.content)
    return points(judge(request, reading), table, request, reading).points


def no_tool_warning(share: float | None) -> list[str]:
    """A line about the share of rows without a call, where a model would learn the wrong habit from it."""
    low, high = _NO_TOOL_SHARE
    if share is None or low <= share <= high:
        return []
    learns = "call where it should not" if share < low else "answer where it should call"
    return [f"{share:.1%} of the rows hold no call, {low:.0%} to {high:.0%} are usual: a model may learn to {learns}"]


class Seen:
    """Conversations met so far, to find those that come again, and the questions of data.test."""

    def __init__(self) -> None:
        self._files: list[str] = []
        self._rows: dict[int, int] = {}  # digest of a loose reading -> where it stood, and a digest of the exact one
        self._asked: dict[int, int] = {}  # the same of what the rows of data.test ask

    def test(self, place: str, value: Transcript | Request) -> None:
        """Remember what a row of data.test asks."""
        if asked := _question(value.messages):
            exact, loose = _digests(asked)
            self._asked.setdefault(loose, self._packed(place, exact))

    def again(self, place: str, value: Transcript | Request) -> Iterator[Found]:
        """Whether this row of data.train was there before; from now on it was."""
        exact, loose = _digests(_whole(value))
        packed = self._packed(place, exact)
        first = self._rows.setdefault(loose, packed)
        if first is not packed:  # not the one just put there
            same = "the same as" if first & _EXACT == packed & _EXACT else "but for case and punctuation the same as"
            yield "duplicate", f"{same} {self._place(first)}"

    def overlap(self, value: Transcript | Request) -> Iterator[Found]:
        """Whether a row of data.test asks the same."""
        if self._asked and (asked := _question(value.messages)):
            exact, loose = _digests(asked)
            first = self._asked.get(loose)
            if first is not None:
                same = "the same as" if first & _EXACT == exact & _EXACT else "but for case and punctuation the same as"
                yield "overlap", f"asks {same} {self._place(first)}"

    def _packed(self, place: str, exact: int) -> int:
        """File, line and 24 bits of the exact digest in one number: a third of what a tuple of them would take."""
        file, line = split(place)
        if not self._files or self._files[-1] != file:
            self._files.append(file)
        return (len(self._files) - 1) << 64 | (line or 0) << 24 | exact & _EXACT

    def _place(self, packed: int) -> str:
        line = packed >> 24 & 0xFFFFFFFFFF
        return f"{self._files[packed >> 64]}:{line}"


def split(place: str) -> tuple[str, int | None]:
    """File and line of a row's place, `x.jsonl:3` or `x.json:row 3`."""
    file, _, line = place.rpartition(":")
    line = line.removeprefix("row ")
    return (file, int(line)) if line.isdigit() else (place, None)


def _digests(text: str) -> tuple[int, int]:
    """A digest of the text as it is, and one of its words without case and punctuation."""
    exact = text.encode("utf-8", "surrogatepass")
    loose = text.casefold().encode("utf-8", "surrogatepass").translate(_AS_SPACES)
    return _digest(exact), _digest(b" ".join(loose.split()))


def _digest(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 4  # 60 bits: two digits of Python's


def _whole(value: Transcript | Request) -> str:
    """A conversation as one text: tools by name, turns with their calls; ids are left out."""
    parts = [tool.name for tool in value.tools]
    turns = value.messages
    if isinstance(value, Request):
        turns = (*turns, *filter(None, (value.gold, value.rejected)))
    for turn in turns:
        parts += turn.role, turn.content
        parts += (f"{call.name}{call.arguments}" for call in turn.tool_calls)
    return _BETWEEN.join(parts)


def _question(messages: Sequence[Message]) -> str:
    """What users say in a conversation, as one text."""
    return _BETWEEN.join(turn.content for turn in messages if turn.role == "user")
