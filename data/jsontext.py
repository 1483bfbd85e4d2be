"""Strict JSON: what is read is what was written, and no text can cost more than its length."""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any, Never

MAX_LENGTH = 1_000_000
MAX_DEPTH = 64
_INT_LIMIT = 2**63

# The string branch takes an unclosed string to the end of its line (JSON strings hold no raw newline): it always
# matches and never gives back what it took, so that a scan stays linear on any text.
_STRING = r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"?'
_TOKEN = re.compile(rf"{_STRING}|[{{}}\[\]]")
_BRACE = re.compile(rf"{_STRING}|[{{}}]")
_NO_BRACKET = re.compile(rf"(?:{_STRING}|[^{{}}\[\]\"]++)++")
_STEP = {"{": 1, "[": 1, "}": -1, "]": -1}
_MAX_OBJECTS = 256


class JsonError(ValueError):
    """A text that is no strict JSON, and why."""


def _no_constant(name: str) -> Never:
    raise JsonError(f"{name} is no JSON number")


def integer(digits: str) -> int:
    """The number of these digits; JsonError where it does not fit 64 bits."""
    if len(digits) > 20 or not -_INT_LIMIT <= (value := int(digits)) < _INT_LIMIT:
        raise JsonError(f"integer {digits[:24]} does not fit 64 bits")
    return value


def number(digits: str) -> float:
    """The number of these digits; JsonError where it is too large."""
    value = float(digits)
    if math.isinf(value):
        raise JsonError(f"number {digits[:24]} is too large")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise JsonError(f"key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=integer, parse_float=number, parse_constant=_no_constant
)


def _too_deep(text: str) -> bool:
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return False
    brackets = _NO_BRACKET.sub("", text)
    depths = accumulate(map(_STEP.__getitem__, brackets))
    return next(filter(MAX_DEPTH.__lt__, depths), None) is not None


def loads(text: str, max_length: int | None = MAX_LENGTH) -> Any:
    """Parse strict JSON.

    JsonError on NaN, Infinity, doubled keys, nesting over 64, integers over 64 bits, lone surrogates.
    """
    if max_length is not None:
        _check_length(len(text), max_length)
    if _too_deep(text):
        raise JsonError(f"nested deeper than {MAX_DEPTH}")
    return _decoded(text)


def _check_length(length: int, most: int) -> None:
    if length > most:
        raise JsonError(f"{length} characters; at most {most} are read")


def _decoded(text: str) -> Any:
    """What a text says whose length and depth have been looked at."""
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(f"{error.msg} at character {error.pos + 1}") from None
    if ("\\u" in text or not text.isascii()) and _surrogate(value):
        raise JsonError("a lone surrogate is no character")
    return value


def _surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def dumps(value: Any) -> str:
    """Write JSON as chat templates' `tojson` does: key order kept, no escapes, `{"a": 1}`."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> bytes:
    """Bytes that are equal for equal values, whatever the order of their keys: for digests."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


def same(a: Any, b: Any) -> bool:
    """Deep equality that tells types apart: True is not 1, 3.0 is not 3. Key order does not matter, list order does."""
    if type(a) is not type(b) or a != b:
        return False
    return isinstance(a, str) or _alike(a, b)


def _alike(a: Any, b: Any) -> bool:
    """Whether values that are equal are so by type as well; texts, of which most lists are made, always are."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return all(isinstance(value, str) or _alike(value, b[key]) for key, value in a.items())
    if isinstance(a, list):
        return all(isinstance(left, str) or _alike(left, right) for left, right in zip(a, b, strict=True))
    return bool(a == b)  # a number that is not equal to itself is the same as none, and yet equal inside a list


def loads_at(text: str, start: int) -> tuple[Any, int] | None:
    """The object or list that opens at `start`, as `loads` parses it, and its end; None as `object_end` gives it."""
    # With so few brackets nothing can nest too deep, and one pass finds both; where that fails, the long way says why.
    if len(text) <= MAX_LENGTH and text.isascii() and text.count("{", start) + text.count("[", start) <= MAX_DEPTH:
        try:
            value, stop = _DECODER.raw_decode(text, start)
        except ValueError:
            pass
        else:
            if "\\u" not in text:
                return value, stop
    end = object_end(text, start)
    if end is None:
        return None
    _check_length(end - start, MAX_LENGTH)
    return _decoded(text[start:end]), end  # that it ends says that it is not too deep


def object_end(text: str, start: int) -> int | None:
    """Where the balanced object or list that opens at `start` ends, or None when it does not end or nests over 64."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        mark = token[0]
        if mark in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                return None
        elif mark in "}]":
            depth -= 1
            if depth == 0:
                return token.end()
    return None


def find_objects(text: str) -> list[tuple[int, int, str]]:
    """The outermost balanced {...} of a text as (start, end, text), in one pass; braces in JSON strings do not count.

    An opening brace that never closes hides nothing behind it: `{ see {"a": 1}` yields `{"a": 1}`.
    """
    found: list[tuple[int, int]] = []
    opened: list[int] = []
    place = text.find("{")
    while place >= 0:
        token = _BRACE.search(text, place)
        if token is None:
            break
        place = token.end()
        mark = token[0]
        if mark == "{":
            opened.append(token.start())
            if len(opened) > MAX_DEPTH:
                break
        elif mark == "}" and opened:
            start = opened.pop()
            while found and found[-1][0] > start:
                found.pop()
            found.append((start, token.end()))
            if len(found) >= _MAX_OBJECTS:
                break
        if not opened:  # prose between objects holds quotes that are no JSON strings
            place = text.find("{", place)
    return [(start, end, text[start:end]) for start, end in found]
