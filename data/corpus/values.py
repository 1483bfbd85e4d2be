"""Values that a request can mention: made up at random, so that only copying them helps."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from .lexicon import CODAS, ONSETS, VOWELS, WORDS

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def invented(rng: random.Random, syllables: int | None = None) -> str:
    """A word of one to three random syllables that means nothing."""
    count = syllables or rng.choice((1, 2, 2, 2, 3))
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(count))


def altered(rng: random.Random, text: str) -> str:
    """A text of the same shape that nobody has met: other digits, invented words with the capitals of those there."""

    def other(match: re.Match[str]) -> str:
        word = match[0]
        if word[0].isdigit():
            return rng.choice("123456789") + "".join(rng.choice("0123456789") for _ in word[1:])
        if word.isupper():
            return "".join(rng.choice("ABCDEFGHIJKLMNOPRSTUVWXYZ") for _ in word)
        new = invented(rng)
        return new.capitalize() if word[0].isupper() else new

    return re.sub(r"\d+|[^\W\d_]{3,}|[A-Z]+", other, text)


def _name(rng: random.Random) -> str:
    return rng.choice((invented(rng), invented(rng), rng.choice(WORDS))).capitalize()


def _number(rng: random.Random, digits: int) -> int:
    return rng.randrange(10 ** (digits - 1), 10**digits)


def _date(rng: random.Random) -> str:
    month, day = rng.randrange(12), rng.randint(1, 28)
    return rng.choice(
        (
            f"{rng.randint(1990, 2039)}-{month + 1:02d}-{day:02d}",
            f"{MONTHS[month]} {day}",
            f"{day} {MONTHS[month]}",
            rng.choice(WEEKDAYS),
            f"next {rng.choice(WEEKDAYS)}",
            rng.choice(("tomorrow", "today", "tonight", "next week", "this weekend", "next month")),
        )
    )


def _time(rng: random.Random) -> str:
    return rng.choice(
        (f"{rng.randrange(24)}:{rng.randrange(60):02d}", f"{rng.randint(1, 12)} {rng.choice(('am', 'pm'))}", "noon")
    )


def _title(rng: random.Random) -> str:
    words = [
        rng.choice((rng.choice(WORDS), rng.choice(WORDS), invented(rng))) for _ in range(rng.choice((1, 1, 2, 2, 3, 4)))
    ]
    if rng.random() < 0.1:
        words.append(str(rng.randint(1, 99)))
    text = " ".join(words)
    return rng.choice((text, text.title(), text.capitalize()))


def _code(rng: random.Random) -> str:
    letters = "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(1, 4)))
    return rng.choice(
        (letters, f"{letters}{_number(rng, rng.randint(2, 5))}", f"{letters}-{_number(rng, 3)}", str(_number(rng, 6)))
    )


def sum_expression(rng: random.Random) -> str:
    """An expression that needs a calculator, such as `348 * 27`."""
    terms = [str(_number(rng, rng.choice((2, 3, 3, 4))))]
    for _ in range(rng.choice((1, 1, 1, 2))):
        terms += [rng.choice("+-*/"), str(_number(rng, rng.choice((2, 2, 3, 4))))]
    return " ".join(terms)


NUMBERS = {"integer": "integer", "year": "integer", "number": "number"}  # kinds that are no text, with their types


def schema_of(kind: str, choices: Sequence[str]) -> dict[str, Any]:
    """The JSON Schema of a field: one of its choices, or any value of its kind."""
    if choices:
        return {"type": "string", "enum": list(choices)}
    return {"type": NUMBERS.get(kind, "string")}


def value(rng: random.Random, kind: str) -> Any:
    """A value of one of the kinds that `lexicon.FIELDS` names: str, int or float."""
    match kind:
        case "place":
            return _name(rng) if rng.random() < 0.7 else f"{_name(rng)} {_name(rng)}"
        case "person":
            return _name(rng) if rng.random() < 0.5 else f"{_name(rng)} {_name(rng)}"
        case "address":
            number, street = _number(rng, rng.choice((1, 2, 3))), _name(rng)
            return f"{number} {street} {rng.choice(('Street', 'Road', 'Lane', 'Avenue', 'Square'))}"
        case "date":
            return _date(rng)
        case "time":
            return _time(rng)
        case "title":
            return _title(rng)
        case "words":
            return " ".join(
                rng.choice(WORDS) if rng.random() < 0.8 else invented(rng) for _ in range(rng.randint(2, 7))
            )
        case "word":
            return rng.choice((rng.choice(WORDS), invented(rng)))
        case "code":
            return _code(rng)
        case "email":
            user = invented(rng) + rng.choice(("", "." + invented(rng)))
            return f"{user}@{invented(rng)}.{rng.choice(('com', 'org', 'net', 'io'))}"
        case "phone":
            return rng.choice(
                (
                    f"{_number(rng, 3)}-{_number(rng, 4)}",
                    f"+{_number(rng, 2)} {_number(rng, 3)} {_number(rng, 6)}",
                    f"0{_number(rng, 8)}",
                )
            )
        case "url":
            host = f"{rng.choice(('https://', 'www.', ''))}{invented(rng)}"
            return f"{host}.{rng.choice(('com', 'org', 'net'))}{rng.choice(('', '/' + invented(rng)))}"
        case "file":
            name = invented(rng) + rng.choice(("", "_" + rng.choice(WORDS)))
            return f"{name}.{rng.choice(('txt', 'pdf', 'csv', 'md', 'png'))}"
        case "sum":
            return sum_expression(rng)
        case "integer":
            return _number(rng, rng.choice((1, 1, 2, 2, 3)))
        case "number":
            return rng.choice((_number(rng, rng.choice((1, 2, 3, 4))), round(rng.uniform(1, 500), rng.choice((1, 2)))))
        case "year":
            return rng.randint(1900, 2039)
    raise ValueError(f"no values of kind {kind!r}")
