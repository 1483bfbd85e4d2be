"""How far several answers to one request agree: evidence that a policy can add to the rules of `rewards._necessity`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from data.transcript import text_act
from rewards import _words

_COMMON = (
    "a an the and or so is are was were be am it its it's this that there of to in on at for as by with i you my your"
)
_DROPPED = frozenset((*_COMMON.split(), "answer", "result", "yes"))
_NEGATIONS = frozenset(("no", "not", "never", "none", "nothing", "nobody", "neither", "nor", "cannot", "without"))


def agreement(answers: Sequence[str]) -> float:
    """How far answers that a policy gave without tools agree with each other, from 0 to 1: the mean over all pairs.

    Two answers agree as far as the shorter one's words that say something stand in the other. Answers of different
    numbers, or of which one denies more than the other, do not agree at all; nor does an empty answer, a refusal or a
    question back with any. What all answers repeat of the question counts as agreement: short answers tell most. A
    policy that agrees with itself may need no tool; it may also be wrong each time.
    ValueError for fewer than two answers.

    >>> agreement(["Paris", "It is Paris.", "The capital is Paris"]), agreement(["It is 4.", "four", "5"])
    (1.0, 0.3333333333333333)
    """
    if len(answers) < 2:
        raise ValueError(f"agreement is between two answers or more, got {len(answers)}")
    pairs = list(itertools.combinations([_said(answer) for answer in answers], 2))
    return sum(_agree(one, other) for one, other in pairs) / len(pairs)


def _said(answer: str) -> frozenset[str]:
    """The words of an answer that say something; none where it answers nothing."""
    if text_act(answer) != "answer":
        return frozenset()
    said = {_words.digits(word) for word in _words.words(re.sub(r"n['’]t\b", " not", answer))}
    telling = {word for word in said if word in _NEGATIONS or word not in _DROPPED}
    return frozenset(telling or said)


def _agree(one: frozenset[str], other: frozenset[str]) -> float:
    if not one or not other or any(word in _NEGATIONS or _words.is_number(word) for word in one ^ other):
        return 0.0
    return len(one & other) / min(len(one), len(other))
