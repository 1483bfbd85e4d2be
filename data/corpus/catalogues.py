"""Made-up catalogues and requests for their entries: verbs, things and fields drawn at random, often of invented words.

Nothing here can be answered from memory: an entry exists in one document only, so its description has to be read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..transcript import Tool
from .lexicon import CHOICES, CLOSINGS, DONE, FIELDS, OPENINGS, THINGS, VERBS, WORDS
from .values import invented, schema_of, value

# Two fields of one kind are told apart by their phrases only in these pairs; else an entry has one field of a kind.
PAIRS = (("origin", "destination"), ("start_date", "end_date"), ("date", "time"), ("title", "text"))
QUESTIONS = ("what ", "how ", "is ", "are ", "do ", "where ", "which ", "can ", "Can ", "Could ", "Would ")
CLAUSES = ("how ", "when ", "what ", "where ", "who ", "which ", "something ", "wake ")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an entry: how its values are made, and the phrases that carry them."""

    name: str
    kind: str
    phrases: tuple[str, ...]
    required: bool
    choices: tuple[str, ...] = ()

    def draw(self, rng: random.Random) -> Any:
        return rng.choice(self.choices) if self.choices else value(rng, self.kind)

    def schema(self) -> dict[str, Any]:
        return schema_of(self.kind, self.choices)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a catalogue, and the ways to ask for it."""

    tool: Tool
    group: str
    thing: str
    verbs: tuple[str, ...]
    names: tuple[str, ...]
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request in words, and what it mentions."""

    text: str
    values: dict[str, Any] = field(default_factory=dict)


def _draw_fields(rng: random.Random) -> tuple[Field, ...]:
    names: list[str] = []
    if rng.random() < 0.25:
        names += rng.choice(PAIRS)
    kinds = {FIELDS[name][0] for name in names}
    while len(names) < 4 and rng.random() < (0.93, 0.6, 0.4, 0.25)[len(names)]:
        name = rng.choice(list(FIELDS))
        if FIELDS[name][0] not in kinds:
            names.append(name)
            kinds.add(FIELDS[name][0])
    rng.shuffle(names)
    fields = []
    for place, name in enumerate(names):
        kind, phrases = FIELDS[name]
        if rng.random() < 0.15:
            name, phrases = invented(rng), ("with {f} {}", "{f} {}", "whose {f} is {}", "and {f} {}")
        elif rng.random() < 0.25:
            phrases = ("with {f} {}", "{f} {}", "with the {f} {}", "for {f} {}")
        # The first field is nearly always required; what follows is often not.
        fields.append(Field(name, kind, phrases, rng.random() < (0.95, 0.6, 0.45, 0.4)[place]))
    if rng.random() < 0.22:
        name = rng.choice(list(CHOICES))
        choices, phrases = CHOICES[name]
        if rng.random() < 0.3:
            choices = tuple(rng.choice((invented(rng), rng.choice(WORDS))) for _ in range(rng.randint(2, 4)))
        chosen = tuple(rng.sample(choices, min(len(choices), rng.randint(2, 4))))
        fields.append(Field(name, "choice", phrases, rng.random() < 0.4, chosen))
    return tuple(sorted(fields, key=lambda one: not one.required))


def _describe(rng: random.Random, verb: str, name: str, fields: Sequence[Field]) -> str:
    article = "" if name.startswith(CLAUSES) else rng.choice(("the ", "the ", "a ", "an existing ", "your ", ""))
    text = f"{verb.capitalize()} {article}{name}"
    if fields and rng.random() < 0.6:
        first = fields[0].name.replace("_", " ")
        text += rng.choice((f" by {first}", f" for a {first}", f" of a {first}", f" with a {first}", f" in a {first}"))
        if len(fields) > 1 and rng.random() < 0.5:
            text += f" and {fields[1].name.replace('_', ' ')}"
    elif rng.random() < 0.3:
        text += rng.choice((" in the system", " for the user", " online", " from the list", " right now", " at home"))
    return text + "."


def draw_entry(rng: random.Random, group: str, thing: str, names: tuple[str, ...]) -> Entry:
    """An entry of a verb group for a thing; `names` are the words for the thing, its own name first."""
    verbs, phrases = VERBS[group]
    if rng.random() < 0.12:
        verbs = phrases = (invented(rng),)
    fields = _draw_fields(rng)
    noun = thing.replace(" ", "_")
    name = rng.choice((f"{rng.choice(verbs)}_{noun}",) * 8 + (f"{noun}_{rng.choice(verbs)}", noun))
    described = rng.choice((thing, thing, rng.choice(names)))
    tool = Tool(
        name,
        _describe(rng, rng.choice(phrases[:4]), described, fields),
        {
            "type": "object",
            "properties": {one.name: one.schema() for one in fields},
            "required": [one.name for one in fields if one.required],
        },
    )
    return Entry(tool, group, thing, phrases, names, fields)


def draw_catalogue(rng: random.Random, size: int) -> tuple[list[Entry], list[Entry]]:
    """Entries on offer, and entries of the same kind that are not, for requests that nothing on offer serves."""
    things: list[tuple[str, tuple[str, ...]]] = []
    taken: set[str] = set()
    made_up = rng.choice((0.0, 0.3, 0.6, 1.0))
    while len(things) < max(2, round(size * rng.choice((0.4, 0.7, 1.0)))) + 2:
        if rng.random() < made_up:
            thing = " ".join(invented(rng) for _ in range(rng.choice((1, 1, 1, 2))))
            names: tuple[str, ...] = (thing, thing, f"{thing}s")
        else:
            thing = rng.choice(list(THINGS))
            names = (thing, thing, thing, *THINGS[thing])
        if not taken & {thing, *names}:
            taken |= {thing, *names}
            things.append((thing, names))
    entries: list[Entry] = []
    used: set[tuple[str, str]] = set()
    absent: list[Entry] = []
    hidden = things[-2:]
    while len(entries) < size:
        group = rng.choice(list(VERBS))
        thing, names = rng.choice(things[:-2])
        if (group, thing) not in used:
            used.add((group, thing))
            entry = draw_entry(rng, group, thing, names)
            if all(entry.tool.name != other.tool.name for other in entries):
                entries.append(entry)
    for _ in range(3):
        group = rng.choice(list(VERBS))
        # Half of what is missing has a thing that the catalogue knows, under another verb.
        thing, names = rng.choice(things[:-2] if rng.random() < 0.5 else hidden)
        if (group, thing) not in used:
            absent.append(draw_entry(rng, group, thing, names))
    return entries, absent or [draw_entry(rng, rng.choice(list(VERBS)), *hidden[0])]


def _verb_for(rng: random.Random, entry: Entry, others: Sequence[Entry]) -> str | None:
    """A verb phrase that no other entry for the same thing would use; None where there is none."""
    foreign = {verb for other in others if other is not entry and other.thing == entry.thing for verb in other.verbs}
    free = [verb for verb in entry.verbs if verb not in foreign]
    return rng.choice(free) if free else None


def _phrase(rng: random.Random, one: Field, drawn: Any, bare: bool) -> str:
    """A phrase that carries a value; words are sometimes quoted, and `bare` says that a naked value stands already."""
    form = rng.choice([form for form in one.phrases if form != "{}" or not bare] or ["with {f} {}"])
    shown = str(drawn)
    if one.kind in ("title", "words") and rng.random() < 0.25:
        shown = rng.choice(("'{}'", "'{}'", '"{}"')).format(shown)
    return form.replace("{f}", one.name.replace("_", " ")).replace("{}", shown)


def _frame(rng: random.Random, entry: Entry, verb: str, thing: str, phrases: list[str], alone: bool) -> str:
    """The request without its punctuation; `alone`: naming the thing is enough to tell which entry is meant."""
    tail = " ".join(phrases)
    kind = rng.random()
    if kind < 0.10 and entry.group in DONE and entry.verbs is VERBS[entry.group][1]:
        duty = rng.choice(("should be", "must be", "needs to be", "has to be", "is to be"))
        return f"{thing} {tail} {duty} {rng.choice(DONE[entry.group])}"
    if kind < 0.16 and not verb.startswith(QUESTIONS):
        return f"{rng.choice(('there is', 'I have', 'it is about', 'you see'))} {thing} {tail}, {verb} it"
    if kind < 0.28 and alone:
        start = rng.choice(
            ("I need", "I want", "I would like", "is there", "can I have", "do you have", "I am looking for", "any", "")
        )
        return f"{start} {thing} {tail}".strip()
    if kind < 0.42 and phrases:
        first, *rest = phrases
        return f"{first}, {' '.join([verb, thing, *rest])}"
    return f"{verb} {thing} {tail}"


# Kinds whose values tell by themselves where they end; the others get punctuation or quotes around them when the words
# beside them are any.
_CLEAR = frozenset(
    ("place", "person", "code", "email", "phone", "url", "file", "date", "time", "integer", "year", "number")
) | {"sum", "address", "choice"}
_SUBJECTS = (
    "I",
    "we",
    "my friend",
    "she",
    "he",
    "they",
    "the boss",
    "somebody",
    "the children",
    "you",
    "it",
    "the man",
)
_PREDICATES = (
    "was late", "forgot about it", "will be there", "wanted that", "asked me", "had no time", "said so", "can wait",
    "would be glad", "came home", "saw it before", "must go soon", "did not know", "should help", "could be better",
    "is not here", "gives a lot", "thought of this", "works today", "needs more", "made it", "is ready now", "got it",
    "might be wrong", "has to be sure", "looks good", "takes long", "went away", "likes that", "stands there",
)  # fmt: skip
_BITS = (
    "too", "now", "then", "again", "at last", "as before", "for once", "just that", "no more", "what else", "of course",
    "if possible", "one thing", "some other time", "in short", "here it is", "so far", "and yes", "like that", "by me",
)  # fmt: skip


def _filler(rng: random.Random) -> str:
    """Words that say nothing about what is asked."""
    if rng.random() < 0.4:
        return rng.choice(_BITS)
    return f"{rng.choice(_SUBJECTS)} {rng.choice(_PREDICATES)}"


def _loose_phrase(rng: random.Random, one: Field, drawn: Any, paired: bool) -> str:
    """A phrase that carries a value in any way; a value may stand alone where no other field is of its kind."""
    name, shown = one.name.replace("_", " "), str(drawn)
    if one.kind not in _CLEAR and rng.random() < 0.5:
        shown = rng.choice(("'{}'", '"{}"')).format(shown)
    forms = [f"{name}: {shown}", f"the {name} is {shown}", f"{shown} is the {name}", f"{shown} as {name}"]
    forms += [f"{name} {shown}", f"{shown} for the {name}", f"the {name} should be {shown}", f"{shown} ({name})"]
    if not paired and (one.kind in _CLEAR or shown[0] in "'\""):
        forms += [shown] * 4
    if one.kind in ("integer", "number"):
        forms += [f"{shown} {name}"] * 2
    return rng.choice(forms)


def _loosely(rng: random.Random, verb: str, thing: str, phrases: list[tuple[str, bool]]) -> str:
    """What is asked and its values in any order, with other words between: nobody speaks by one grammar.

    Each phrase comes with whether its value tells where it ends.
    """
    core = rng.choice((f"{verb} {thing}",) * 3 + (f"{thing}, {verb} it", f"{thing}: {verb}", f"{verb} it, {thing}"))
    pieces = [(core, True), *phrases]
    pieces += [(_filler(rng), True) for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))]
    rng.shuffle(pieces)
    text, clear = pieces[0]
    for piece, next_clear in pieces[1:]:
        loose = clear and next_clear and rng.random() < 0.4
        text += (" " if loose else rng.choice((", ", ", ", ": ", ". ", "; ", " - ", "? ", "! "))) + piece
        clear = next_clear
    return text


def ask_for(rng: random.Random, entry: Entry, others: Sequence[Entry], lacking: bool = False) -> Ask | None:
    """A request for an entry, with its required fields and some others; `lacking` leaves one required field out."""
    verb = _verb_for(rng, entry, others)
    if verb is None:
        return None
    required = [one.name for one in entry.fields if one.required]
    left_out = rng.choice(required) if lacking and required else None
    mentioned = [one for one in entry.fields if one.name != left_out and (one.required or rng.random() < 0.4)]
    rng.shuffle(mentioned)
    values: dict[str, Any] = {one.name: one.draw(rng) for one in mentioned}
    phrases: list[str] = []
    name = rng.choice(entry.names)
    thing = name if name.startswith(CLAUSES) else rng.choice(("the ", "the ", "a ", "my ", "", "our ", "that ")) + name
    ordered = {one.name: values[one.name] for one in entry.fields if one.name in values}
    if rng.random() < 0.5:
        paired = {one for pair in PAIRS for one in pair if set(pair) <= {other.name for other in entry.fields}}
        loose = [
            (_loose_phrase(rng, one, values[one.name], one.name in paired), one.kind in _CLEAR) for one in mentioned
        ]
        text = _loosely(rng, verb, thing, loose)
        if text.startswith((verb, thing)) and rng.random() < 0.8:  # a value stays as it is written
            text = text[0].upper() + text[1:]
        return Ask(text + rng.choice((".", ".", "?", "", "!")), ordered)
    for one in mentioned:
        phrases.append(_phrase(rng, one, values[one.name], bare=any(not phrase.count(" ") for phrase in phrases)))
    alone = all(other is entry or other.thing != entry.thing for other in others)
    core = " ".join(_frame(rng, entry, verb, thing, phrases, alone).split())
    opening = rng.choice(OPENINGS) if core.startswith(verb) else rng.choice(("", "", "", "Hi, ", "Hello, ", "Hey, "))
    question = core.startswith(QUESTIONS) or opening.startswith(QUESTIONS)
    if core.startswith(QUESTIONS):
        opening = rng.choice(("", "", "", "Hi, ", "Hello, ", "Hey, "))
    text = f"{opening}{core}{rng.choice(CLOSINGS)}"
    if rng.random() < 0.85:
        text = text[0].upper() + text[1:]
    text += "?" if question else rng.choice((".", ".", "", "!"))
    return Ask(text, ordered)
