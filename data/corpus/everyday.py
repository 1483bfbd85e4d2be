"""Catalogues of everyday purposes with requests as people word them: `entries/*.yaml`, written by hand.

The grammar of `catalogues.py` gives endless catalogues in a narrow language; these hundreds of entries give breadth of
language. Names of entries and fields are drawn among several and values are drawn or altered, so that the catalogue
still has to be read. No purpose and no wording of the built-in world is among them (a test compares the wordings).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..transcript import Tool
from .catalogues import Ask
from .values import NUMBERS, altered, schema_of, value

_BEFORE = ("Hi, ", "Hello! ", "Hey, ", "Good morning. ", "Sorry to bother you. ", "One question: ", "Okay, ", "So, ")
_VAGUE = ("the {}", "the {}", "a {}", "some {}", "that {}", "this {}", "it", "something", "one of them")
_BEHIND = (" Thanks.", " Thank you!", " Thanks a lot.", " It is urgent.", " No hurry.", " Please.", " I mean it.")


@dataclass(frozen=True, slots=True)
class Field:
    """One field as the file has it. `like` are values of its kind, `also` are other names for it."""

    name: str
    kind: str
    required: bool
    choices: tuple[str, ...]
    like: tuple[str, ...]
    also: tuple[str, ...]
    about: str

    def schema(self) -> dict[str, Any]:
        return schema_of(self.kind, self.choices) | ({"description": self.about} if self.about else {})

    def draw(self, rng: random.Random) -> Any:
        if self.choices:
            return rng.choice(self.choices)
        if self.like and (self.kind == "text" or rng.random() < 0.6):
            drawn = rng.choice(self.like)
            if self.kind == "text" and rng.random() < 0.3:
                return _phrase(rng, drawn, any(len(one.split()) > 3 for one in self.like))
            drawn = altered(rng, drawn) if rng.random() < 0.35 else drawn
            return json.loads(drawn) if self.kind in NUMBERS else drawn
        return value(rng, self.kind)


@dataclass(frozen=True, slots=True)
class Purpose:
    """One purpose as the file has it: names, descriptions, fields, requests whole and requests that lack a field."""

    area: str
    names: tuple[str, ...]
    says: tuple[str, ...]
    fields: tuple[Field, ...]
    asks: tuple[str, ...]
    bare: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A purpose with the names drawn for one catalogue; `keys` are the names of its fields by those in the wordings."""

    tool: Tool
    purpose: Purpose
    keys: dict[str, str]
    fields: tuple[Field, ...]


@cache
def purposes() -> tuple[Purpose, ...]:
    """All of `entries/*.yaml`, in the order of the files' names."""
    import yaml

    found = []
    for file in sorted((Path(__file__).parent / "entries").glob("*.yaml")):
        for row in yaml.safe_load(file.read_text(encoding="utf-8")):
            fields = tuple(
                Field(
                    name=name,
                    kind=one.get("kind", "choice"),
                    required=bool(one.get("required")),
                    choices=tuple(one.get("choices", ())),
                    like=tuple(one.get("like", ())),
                    also=tuple(one.get("also", ())),
                    about=one.get("about", ""),
                )
                for name, one in (row.get("fields") or {}).items()
            )
            found.append(
                Purpose(
                    area=file.stem,
                    names=tuple(row["names"]),
                    says=tuple(row["says"]),
                    fields=fields,
                    asks=tuple(row["asks"]),
                    bare=tuple(row.get("bare") or ()),
                )
            )
    return tuple(found)


_BRACES = re.compile(r"\{[^}]*\}")


@cache
def _said() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Everyday words to make values of: those of the text fields, and what wordings say between their fields."""
    values = {one for purpose in purposes() for field in purpose.fields if field.kind == "text" for one in field.like}
    words = {word for one in values for word in one.split() if len(word) > 3}
    parts = {part.strip(" .,:;?!") for purpose in purposes() for one in purpose.asks for part in _BRACES.split(one)}
    return tuple(sorted(words)), tuple(sorted(part for part in parts if len(part.split()) > 2))


def _phrase(rng: random.Random, like: str, sentences: bool) -> str:
    """A value of plain words in an order nobody has met, as long as `like`; a piece of a sentence where those fit.

    Invented words teach to copy what is strange. Pieces of values ("Aunt" of "Aunt May") and known phrases that go on
    otherwise ("tell me about") are left to be learnt.
    """
    words, parts = _said()
    if sentences and rng.random() < 0.6:
        part, length = rng.choice(parts).split(), rng.randint(3, 8)
        first = rng.randrange(max(1, len(part) - length + 1))
        return " ".join(part[first : first + length]).strip(" .,:;?!")
    return " ".join(rng.choice(words) for _ in like.split())


def draw_entry(rng: random.Random, purpose: Purpose) -> Entry:
    """An entry for a purpose, under one of its names and one of its descriptions."""
    keys: dict[str, str] = {}
    for one in purpose.fields:
        free = [name for name in (one.name, one.name, *one.also) if name not in keys.values()]
        keys[one.name] = rng.choice(free)
    # A field that may be left out is sometimes not on offer at all; requests that mention it are not drawn then.
    kept = tuple(one for one in purpose.fields if one.required or rng.random() < 0.85)
    tool = Tool(
        rng.choice(purpose.names),
        rng.choice(purpose.says),
        {
            "type": "object",
            "properties": {keys[one.name]: one.schema() for one in kept},
            "required": [keys[one.name] for one in kept if one.required],
        },
    )
    return Entry(tool, purpose, keys, kept)


def draw_catalogue(rng: random.Random, size: int) -> tuple[list[Entry], list[Entry]]:
    """Entries on offer, and entries that are not, for requests that nothing on offer serves."""
    known = purposes()
    area = rng.choice(known).area
    siblings = [one for one in known if one.area == area]
    chosen: list[Purpose] = []
    while len(chosen) < size + 3:
        one = rng.choice(siblings if rng.random() < 0.5 else known)
        if one not in chosen:
            chosen.append(one)
    entries = [draw_entry(rng, one) for one in chosen]
    if len({entry.tool.name for entry in entries}) < len(entries):
        return draw_catalogue(rng, size)
    return entries[:size], entries[size:]


def _fields(template: str) -> list[str]:
    return re.findall(r"\{([^}]*)\}", template)


def ask_for(rng: random.Random, entry: Entry, others: Sequence[Entry], lacking: bool = False) -> Ask | None:
    """A request for an entry, in one of its wordings; `lacking` takes one that leaves a required field out."""
    offered = {one.name for one in entry.fields}
    bare = lacking and entry.purpose.bare and rng.random() < 0.6
    wordings = entry.purpose.bare if bare else entry.purpose.asks
    fitting = [one for one in wordings if offered.issuperset(_fields(one))]
    if not fitting:
        return None
    template = rng.choice(fitting)
    if lacking and not bare:
        template = _vague(rng, template, entry)
    values: dict[str, Any] = {}
    for one in entry.fields:
        if one.name in _fields(template):
            drawn = one.draw(rng)
            while drawn in values.values():
                drawn = one.draw(rng)
            values[one.name] = drawn
    return Ask(_varied(rng, template).format(**values), {entry.keys[name]: drawn for name, drawn in values.items()})


def _vague(rng: random.Random, template: str, entry: Entry) -> str:
    """The wording with words that say nothing in place of the value of a required field, where it has one."""
    given = set(_fields(template))
    replaced = [one for one in entry.fields if one.required and one.name in given and not one.choices]
    replaced = [one for one in replaced if one.kind not in NUMBERS]
    if not replaced:
        return template
    one = rng.choice(replaced)
    word = rng.choice((one.name, *one.also)).replace("_", " ")
    return template.replace(f"{{{one.name}}}", rng.choice(_VAGUE).format(word))


_TAIL = re.compile(
    r"(?P<rest>[A-Z][^{}]*?(?:\{[^}]*\}[^{}]*?)??)"
    r"(?P<tail>(?: (?:in|for|to|from|at|on|by|with|about|near|between|under|into|until|before|after) \{[^}]*\})+)"
    r"(?P<end>[.?!]?)"
)


def _fronted(rng: random.Random, template: str) -> str:
    """The wording with what it ends in at its beginning: "In {city}, what ...?" or, for one field, "{city}: what ...?".

    It stays as it is where it does not end so.
    """
    found = _TAIL.fullmatch(template)
    if found is None or found["rest"].rstrip()[-1] in ".,:;?!":
        return template
    rest, tail = found["rest"], found["tail"].strip()
    rest = rest if rest.split()[0].rstrip("'dmvel") == "I" else rest[0].lower() + rest[1:]
    if len(_fields(tail)) == 1 and rng.random() < 0.35:
        return f"{tail.split(maxsplit=1)[1]}: {rest}{found['end']}"
    return f"{tail[0].upper()}{tail[1:]}, {rest}{found['end']}"


def _varied(rng: random.Random, template: str) -> str:
    """The wording with a word before or behind it, or with less care for capitals and stops."""
    if rng.random() < 0.25:
        template = _fronted(rng, template)
    chance = rng.random()
    if chance < 0.08:
        first = template.split()[0]
        return rng.choice(_BEFORE) + (
            template[0].lower() + template[1:] if first.isalpha() and first != "I" else template
        )
    if chance < 0.14 and template[-1] in ".?!":
        return template + rng.choice(_BEHIND)
    if chance < 0.22:
        return template.rstrip(".?!")
    if chance < 0.26:
        return re.sub(r"(^|\})([^{]*)", lambda part: part[1] + part[2].lower(), template)
    return template
