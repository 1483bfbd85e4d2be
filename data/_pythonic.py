"""Calls as Python writes them, [name(argument=value, …), …]: read and written without ever running anything.

Values are JSON's: strings in either quotes, numbers, True, False, None, lists, and dicts with string keys. Names may
hold dots and spaces, as published rows have them; an argument whose name is no plain identifier is written as
**{"its name": …}.
Left out: arguments without a name, tuples, sets, bytes, prefixed and joined strings, \\N{…}, sums.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from data import jsontext

# As many as model presets train tokens a row. Each costs about a microsecond: without a bound a list could cost 10 ms.
MAX_VALUES = 2048

_NAME = re.compile(r"\s*+(\w[^()\[\]{}\"=,\n\r]{0,255}+)\(")
_ARGUMENT = re.compile(r"\s*+(?:(\*\*)|([^\W\d][\w.$ -]{0,127}+)=(?!=))")
_PLAIN = re.compile(r"[A-Za-z_]\w{0,127}", re.ASCII)
_VALUE = re.compile(
    r"""\s*+(?:
      (?P<text>"[^"\\]*+(?:\\.[^"\\]*+)*+"|'[^'\\]*+(?:\\.[^'\\]*+)*+')
    | (?P<real>[+-]?(?:\d++\.\d*+|\.\d++|\d++(?=[eE]))(?:[eE][+-]?\d++)?)(?![\w.])
    | (?P<whole>[+-]?(?:0|[1-9]\d*+))(?![\w.])
    | (?P<word>True|False|None|true|false|null)(?!\w)
    | (?P<list>\[)
    | (?P<dict>\{)
    )""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_MARK = re.compile(r"\s*+(\S)")
_WORDS = {"True": True, "False": False, "None": None}
_WORDS_OF_JSON = {"true": True, "false": False, "null": None}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPED = {
    "\n": "", "\\": "\\", "'": "'", '"': '"',
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
}  # fmt: skip


def parse(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The names and arguments of the calls in a list of them.

    ValueError for anything else, and for NaN, doubled names, nesting over 64, integers over 64 bits, lone surrogates.
    """
    return _Reader(text).calls()


def parse_row(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The calls of a row of data, which is read more gently: brackets may lack, and true, false and null are values."""
    return _Reader(text if text.lstrip().startswith("[") else f"[{text}]", lenient=True).calls()


def value_of_row(text: str) -> Any:
    """The value that is all of a text in a row of data; true, false and null are read too."""
    return _Reader(text, lenient=True).only()


def write(calls: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """The list of these calls; ValueError for a name or a value that no call can hold."""
    return f"[{', '.join(_call(name, arguments) for name, arguments in calls)}]"


def _call(name: str, arguments: Mapping[str, Any]) -> str:
    match = _NAME.fullmatch(f"{name}(")
    if not match or match[1].strip() != name:
        raise ValueError(
            f"a call cannot be written of a tool named {name!r}: brackets, quotes, commas and = end a name"
        )
    written = (
        f"{key}={_literal(value)}" if _PLAIN.fullmatch(key) else f"**{{{_literal(key)}: {_literal(value)}}}"
        for key, value in arguments.items()
    )
    return f"{name}({', '.join(written)})"


def _literal(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # JSON's escapes mean the same in Python
    if (isinstance(value, int) and -(2**63) <= value < 2**63) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_literal(key)}: {_literal(entry)}' for key, entry in value.items())}}}"
    raise ValueError(f"{value!r} is no value of a call")


class _Reader:
    """One pass over a text; `place` only ever grows."""

    def __init__(self, text: str, lenient: bool = False) -> None:
        if len(text) > jsontext.MAX_LENGTH:
            raise ValueError(f"{len(text)} characters; at most {jsontext.MAX_LENGTH} are read")
        _no_surrogate(text)
        self.text, self.place, self.values = text, 0, 0
        self.words = _WORDS | _WORDS_OF_JSON if lenient else _WORDS
        self.most = math.inf if lenient else MAX_VALUES

    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        found: list[tuple[str, dict[str, Any]]] = []
        self.expect("[")
        while not self.take("]"):
            if found:
                self.expect(",")
                if self.take("]"):
                    break
            name = _NAME.match(self.text, self.place)
            if not name:
                self.fail("a name and (")
            self.place = name.end()
            found.append((name[1].rstrip(), self.arguments()))
        self.end()
        return found

    def only(self) -> Any:
        found = self.value(0)
        self.end()
        return found

    def end(self) -> None:
        if self.text[self.place :].strip():
            self.fail("nothing more")

    def arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        first = True
        while not self.take(")"):
            if not first:
                self.expect(",")
                if self.take(")"):
                    break
            first = False
            match = _ARGUMENT.match(self.text, self.place)
            if not match:
                self.fail("<argument>=")
            self.place = match.end()
            value = self.value(0)
            if match[2]:
                self.put(found, match[2].rstrip(), value)
            elif not isinstance(value, dict):
                raise ValueError(f"** is not followed by a dict at character {match.end() + 1}")
            else:
                for key, entry in value.items():
                    self.put(found, key, entry)
        return found

    def value(self, depth: int) -> Any:
        match = _VALUE.match(self.text, self.place)
        if not match:
            self.fail("a value")
        self.values += 1
        if self.values > self.most:
            raise ValueError(f"more than {self.most} values")
        self.place = match.end()
        kind, written = match.lastgroup, match[0].lstrip()
        if kind == "text":
            return _unquoted(written)
        if kind == "whole":
            return jsontext.integer(written)
        if kind == "real":
            return jsontext.number(written)
        if kind == "word":
            if written not in self.words:
                self.fail("a value", match.start())
            return self.words[written]
        if depth == jsontext.MAX_DEPTH:
            raise ValueError(f"nested deeper than {jsontext.MAX_DEPTH}")
        return self.items(depth + 1) if kind == "list" else self.entries(depth + 1)

    def items(self, depth: int) -> list[Any]:
        found: list[Any] = []
        while not self.take("]"):
            if found:
                self.expect(",")
                if self.take("]"):
                    break
            found.append(self.value(depth))
        return found

    def entries(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self.take("}"):
            if found:
                self.expect(",")
                if self.take("}"):
                    break
            key = self.value(depth)
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is no string")
            self.expect(":")
            self.put(found, key, self.value(depth))
        return found

    def put(self, found: dict[str, Any], key: str, value: Any) -> None:
        if key in found:
            raise ValueError(f"{key!r} occurs twice")
        found[key] = value

    def take(self, mark: str) -> bool:
        match = _MARK.match(self.text, self.place)
        if match is None or match[1] != mark:
            return False
        self.place = match.end()
        return True

    def expect(self, mark: str) -> None:
        if not self.take(mark):
            self.fail(mark)

    def fail(self, wanted: str, place: int | None = None) -> NoReturn:
        place = self.place if place is None else place
        raise ValueError(f"expected {wanted} at character {place + 1}, found {self.text[place : place + 12]!r}")


def _unquoted(written: str) -> str:
    text = written[1:-1]
    if "\\" in text:
        text = _ESCAPE.sub(_character, text)
        _no_surrogate(text)
    return text


def _no_surrogate(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate is no character") from None


def _character(match: re.Match[str]) -> str:
    code = match[1]
    if code in _ESCAPED:
        return _ESCAPED[code]
    if code[0].isdigit():
        return chr(int(code, 8))
    if len(code) > 1:
        number = int(code[1:], 16)
        if number > 0x10FFFF:
            raise ValueError(f"\\{code} is no character")
        return chr(number)
    if code in "xuUN":
        raise ValueError(f"\\{code} is not followed by the digits of a character")
    return f"\\{code}"  # as Python reads it
