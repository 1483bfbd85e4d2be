"""What a call may look like, as a grammar of llguidance: a name on offer, and arguments that fit that tool's schema.

A dialect's `Form` says where in an answer a call opens and what holds from there on. Schemas are those that arguments
are judged by (data/schema.py), so that what the grammar lets through is valid. It is narrower than they are: numbers
have no exponent and stay within 2^62, letters are not escaped, white space between tokens ends after 20 characters,
tokens that a tokenizer adds to its vocabulary are no text, and keys of inner objects, and of more than MOST_ORDERED
arguments, come in the schema's order. Left out: keys that a schema does not name may come twice, which no grammar can
tell; and calls in another form than the one that a dialect writes, as an object with its keys in another order, are not
seen to open and stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data import schema
from data.dialects import _blocks, router
from data.jsontext import dumps
from data.transcript import Tool

MOST_ORDERED = 6  # arguments that may come in any order: each more doubles the rules, of which 6 have 64
_LARGEST = 2**62  # the library's ranges end below 2^63, and integers above it are not read back
_SPACE = r"[ \t\r\n]"
_ANY_OBJECT = {"type": "object"}
_PLAIN = frozenset({
    "type", "properties", "required", "additionalProperties",
    "title", "description", "examples", "default", "$comment",
})  # fmt: skip
_DEFINITIONS = ("$defs", "definitions")
_ELSEWHERE = re.compile(r'"\$ref": "(?!#/(?:\$defs|definitions)/)')  # lost where a part of the schema stands alone
_MARK = re.compile(rf"{_blocks.OPEN}|```".encode())


@dataclass(frozen=True, slots=True)
class Form:
    """How a dialect writes a call: the key of its name, whether it stands in tags in a text or is the whole answer, and
    whether an object may say that no tool is called.
    """

    name_key: str
    tagged: bool = False
    declines: bool = False

    def opening(self, text: bytes, start: int) -> int | None:
        """From where on a call holds the text, if one has opened behind `start`; as the dialect's reader sees it, not
        in thoughts or code blocks.
        """
        if text.lstrip().startswith(b"<think>"):
            thought = text.find(b"</think>")
            if thought < 0:
                return None
            start = max(start, thought + len(b"</think>"))
        return self._tag(text, start) if self.tagged else self._answer(text, start)

    def _tag(self, text: bytes, start: int) -> int | None:
        while mark := _MARK.search(text, start):
            if mark[0] != b"```":
                return mark.end()
            end = text.find(b"```", mark.end())
            if end < 0:
                return None
            start = end + 3
        return None

    def _answer(self, text: bytes, start: int) -> int | None:
        begun = re.compile(rf'{_SPACE}*((?:\[{_SPACE}{{0,20}})?\{{{_SPACE}{{0,20}}"{self.name_key}")'.encode())
        match = begun.match(text, start)
        return match.start(1) if match else None


_TAGGED = Form("name", tagged=True)
#: The dialects whose calls are JSON; those of pythonic are not.
FORMS = {
    "hermes": _TAGGED,
    "json": Form("name"),
    "native": _TAGGED,
    "router": Form("tool", declines=True),
}


def grammar(form: Form, tools: Sequence[Tool], loose: Collection[str] = (), close_token: int | None = None) -> str:
    """What follows an opening, in llguidance's Lark. The arguments of tools named in `loose` are any JSON object.

    `close_token` is the id of the closing tag where the tokenizer has one for it.
    """
    lines = [
        "%llguidance {}",
        f"start: {_start(form, close_token)}",
        f"call: {' | '.join(f'call_{number}' for number in range(len(tools)))}",
        f"WS: /{_SPACE}{{1,20}}/",
    ]
    for number, tool in enumerate(tools):
        arguments = f"arguments_{number}"
        name, key = _text(dumps(tool.name)), _text(dumps(form.name_key))
        lines.append(
            f'call_{number}: "{{" WS? {key} WS? ":" WS? {name} WS? "," WS?'
            f' {_text(dumps("arguments"))} WS? ":" WS? {arguments} WS? "}}"'
        )
        lines += [_json(arguments, _ANY_OBJECT)] if tool.name in loose else _arguments(arguments, tool.parameters)
    if form.declines:
        lines.append(_json("decline", _declining(form.name_key)))
    return "\n".join(lines)


def _start(form: Form, close_token: int | None) -> str:
    if form.tagged:
        token = "" if close_token is None else f" | <[{close_token}]>"
        return f"WS? call WS? ({_text(_blocks.CLOSE)}{token})"
    several = '"[" WS? call WS? ("," WS? call WS?)* "]"'
    return f"call | {several} | decline" if form.declines else f"call | {several}"


def _declining(name_key: str) -> dict[str, Any]:
    """As data/dialects/router.py reads it."""
    return {
        "type": "object",
        "properties": {name_key: {"const": router.NO_TOOL}, "reason": {"type": "string"}},
        "required": [name_key, "reason"],
        "additionalProperties": False,
    }


def _arguments(rule: str, parameters: Mapping[str, Any]) -> Iterator[str]:
    """The rules of a tool's arguments; in any order where there are few and they depend on nothing but themselves."""
    whole = schema.each(schema.closed(parameters), _readable)
    fields = whole.get("properties", {})
    definitions = {key: whole[key] for key in _DEFINITIONS if key in whole}
    alone = whole.keys() <= _PLAIN | definitions.keys() and whole.get("additionalProperties") is False
    required = set(whole.get("required", ()))
    if (
        alone
        and 1 < len(fields) <= MOST_ORDERED
        and required <= fields.keys()
        and all(isinstance(field, Mapping) for field in fields.values())
        and not _ELSEWHERE.search(dumps(fields))
    ):
        yield from _any_order(rule, fields, required, definitions)
    else:
        yield _json(rule, whole)


def _any_order(
    rule: str, fields: Mapping[str, Any], required: Collection[str], definitions: Mapping[str, Any]
) -> Iterator[str]:
    """An object's rules: one for each set of keys that may be there already, by the bits of its number."""
    names = list(fields)
    needed = sum(1 << place for place, name in enumerate(names) if name in required)
    yield f'{rule}: "{{" WS? {rule}_0'
    for used in range(1 << len(names)):
        comma = '"," WS? ' if used else ""
        left = (place for place in range(len(names)) if not used >> place & 1)
        ways = [f"{comma}{rule}_field_{place} WS? {rule}_{used | 1 << place}" for place in left]
        if used & needed == needed:
            ways.append('"}"')
        yield f"{rule}_{used}: {' | '.join(ways)}"
    for place, name in enumerate(names):
        yield f'{rule}_field_{place}: {_text(dumps(name))} WS? ":" WS? {rule}_value_{place}'
        yield _json(f"{rule}_value_{place}", {**fields[name], **definitions})


def _readable(node: dict[str, Any]) -> dict[str, Any]:
    """A schema without `format` and x-whole, which the library would read otherwise than the validator does, and with
    its numbers within what is read back.
    """
    kept = {key: value for key, value in node.items() if key not in ("format", "x-whole")}
    kinds = node.get("type")
    if {"integer", "number"} & set(kinds if isinstance(kinds, list) else [kinds]):
        if not {"minimum", "exclusiveMinimum"} & kept.keys():
            kept["minimum"] = -_LARGEST
        if not {"maximum", "exclusiveMaximum"} & kept.keys():
            kept["maximum"] = _LARGEST
    return kept


def _json(rule: str, node: Mapping[str, Any]) -> str:
    return f"{rule}: %json {dumps({**node, 'x-guidance': {'whitespace_pattern': f'{_SPACE}{{0,20}}'}})}"


def _text(literal: str) -> str:
    """A string of Lark, which escapes as JSON does."""
    return dumps(literal)
