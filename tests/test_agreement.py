"""How far answers agree: by what they say, numbers as numbers, and never by saying nothing."""

from __future__ import annotations

import doctest

import pytest

from rewards import _agreement
from rewards._agreement import agreement


def test_the_worked_example_holds():
    assert doctest.testmod(_agreement) == (0, 1)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["Paris", "paris.", "It is Paris"], 1.0),
        (["1,000", "1000.0"], 1.0),  # numbers as numbers
        (["four", "It is 4."], 1.0),
        (["4", "5"], 0.0),
        (["It is 4", "It is 4 or 5"], 0.0),  # two answers are not one
        (["It is open", "It is not open"], 0.0),
        (["It is open", "It isn't open"], 0.0),
        (["Paris", "Rome"], 0.0),
        (["red and blue", "red and green"], 0.5),
        (["Paris", "Paris", "Rome"], 1 / 3),
        (["I don't have that.", "I don't have that."], 0.0),  # agreed, but no answer
        (["Which city?", "Which city?"], 0.0),
        (["", ""], 0.0),
        (["It is.", "It is."], 1.0),  # nothing but common words: then they count
    ],
)
def test_answers_agree_by_what_they_say(answers, expected):
    assert agreement(answers) == pytest.approx(expected)
    assert agreement(answers[::-1]) == pytest.approx(expected)


@pytest.mark.parametrize("answers", [[], ["Paris"]])
def test_fewer_than_two_answers_agree_on_nothing(answers):
    with pytest.raises(ValueError, match=f"got {len(answers)}"):
        agreement(answers)
