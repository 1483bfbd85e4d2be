"""The kinds of document: catalogues with requests, copying, sums, facts, reading, small talk."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import jsontext
from ..transcript import Tool
from ..world import knowledge, phrases
from . import catalogues, everyday
from .catalogues import Ask
from .lexicon import FIELDS, VERBS, WORDS
from .values import invented, value


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer; `skill` names what it takes, for the probes."""

    skill: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Document:
    """A catalogue (or none), and turns of question and answer. The loss is on the answers alone."""

    kind: str
    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()
    system: str = ""


def _record(values: dict[str, Any]) -> str:
    return jsontext.dumps(values)


def _shown(drawn: Any) -> str:
    return drawn if isinstance(drawn, str) else jsontext.dumps(drawn)


def _questions(rng: random.Random, ask: Ask, entry: Any, left_out: bool) -> list[Turn]:
    """What is asked about one request: which entry serves it, what is missing, single fields, the whole record.

    `entry` is one of the catalogue's, or None where none of them serves.
    """
    name = entry.tool.name if entry else "none"
    first = rng.choice(("{}\nEntry?", "{}\nEntry?", "Entry? {}", "Which entry serves: {}", "{}\nWhich entry?"))
    turns = [Turn("choose" if entry else "choose_none", first.format(ask.text), name)]
    if entry is None:
        return turns
    lacking = _lacking(entry, ask)
    if left_out or rng.random() < 0.2:
        turns.append(Turn("missing", "Missing?", ", ".join(lacking) or "nothing"))
    for name in entry.tool.parameters["properties"]:
        if rng.random() < 0.1:
            turns.append(Turn("field", f"{name}?", _shown(ask.values[name]) if name in ask.values else "none"))
    if not lacking and rng.random() < 0.8:
        turns.append(Turn("record", "Record?", _record(ask.values)))
    return turns


def _lacking(entry: Any, ask: Ask) -> list[str]:
    """Required fields that a request does not mention."""
    return [name for name in entry.tool.parameters["required"] if name not in ask.values]


def _source(rng: random.Random) -> Any:
    """Where a catalogue and its requests come from: everyday purposes, or the grammar."""
    return everyday if rng.random() < 0.75 else catalogues


def catalogue(rng: random.Random) -> Document:
    """A catalogue and several requests, each with questions; a quarter of the requests fit no entry."""
    source = _source(rng)
    entries, absent = source.draw_catalogue(rng, rng.choice((1, 2, 3, 3, 4, 4, 5, 6, 7)))
    turns: list[Turn] = []
    for _ in range(rng.randint(4, 10)):
        if rng.random() < 0.22:
            ask = source.ask_for(rng, rng.choice(absent), [*entries, *absent])
            if ask is not None:
                turns += _questions(rng, ask, None, False)
            continue
        entry = rng.choice(entries)
        left_out = rng.random() < 0.15
        ask = source.ask_for(rng, entry, entries, lacking=left_out)
        if ask is None:
            continue
        if rng.random() < 0.12 and not left_out:
            other = rng.choice(entries)
            second = source.ask_for(rng, other, entries)
            if second is not None:
                joined = _joined(rng, ask, second)
                turns.append(Turn("choose_two", f"{joined}\nEntries?", f"{entry.tool.name}, {other.tool.name}"))
                turns.append(Turn("record_two", "Records?", f"{_record(ask.values)}\n{_record(second.values)}"))
                continue
        if rng.random() < 0.15 and not left_out:
            # The record at once: which entry it is has to be worked out on the way.
            turns.append(Turn("record_at_once", f"{ask.text}\nRecord?", _record(ask.values)))
            continue
        turns += _questions(rng, ask, entry, left_out)
    if not turns:
        return catalogue(rng)
    return Document("catalogue", tuple(turns), tuple(entry.tool for entry in entries))


# How an answer to a bare request is written: keys of the entry and of its record, and what stands around the object.
# None of these keys makes an object a call (data/dialects/_attempt.py); the first form is used where none is asked for.
_KEYS = (("entry", "record"), ("choice", "fields"), ("pick", "details"), ("item", "values"), ("select", "data"))
_AROUND = (("", ""), ("=> ", ""), ("[", "]"), ("<<\n", "\n>>"), ("start\n", "\nend"))


def dispatch(rng: random.Random) -> Document:
    """A catalogue and bare requests, each answered by the entry and its record in one object.

    Where no entry serves, `none`; where a required field lacks, that field as a question; both in whole sentences where
    no other form was asked for. What fine-tuning then has to teach is another way of writing, not another skill.
    """
    source = _source(rng)
    entries, absent = source.draw_catalogue(rng, rng.choice((1, 2, 3, 3, 4, 4, 5, 6, 7)))
    stated = rng.random() < 0.4
    (entry_key, record_key), (before, behind) = (
        (rng.choice(_KEYS), rng.choice(_AROUND)) if stated else (_KEYS[0], _AROUND[0])
    )

    def shown(entry: Any, values: Any) -> str:
        return f"{before}{_record({entry_key: entry, record_key: values})}{behind}"

    turns: list[Turn] = []
    for _ in range(rng.randint(4, 10)):
        if rng.random() < 0.18:
            turns.append(_aside(rng, entries, source.ask_for(rng, rng.choice(entries), entries)))
            continue
        kind = rng.random()
        if kind < 0.22:
            ask = source.ask_for(rng, rng.choice(absent), [*entries, *absent])
            turns += [Turn("dispatch_none", ask.text, "none" if stated else "I have nothing for that.")] if ask else []
            continue
        entry = rng.choice(entries)
        ask = source.ask_for(rng, entry, entries, lacking=kind < 0.38)
        if ask is None:
            continue
        if lacking := _lacking(entry, ask):
            name = lacking[0].replace("_", " ")
            turns.append(Turn("dispatch_missing", ask.text, f"{name}?" if stated else f"Which {name}?"))
            continue
        answer = shown(entry.tool.name, ask.values)
        if len(ask.values) == 1 and rng.random() < 0.25:
            again = source.ask_for(rng, entry, entries)
            if again is not None and again.values.keys() == ask.values.keys() and not _lacking(entry, again):
                turns.append(Turn("dispatch", ask.text, answer))
                (one,) = again.values.values()
                turns.append(
                    Turn("dispatch_again", rng.choice(_AGAIN).format(_shown(one)), shown(entry.tool.name, again.values))
                )
                continue
        other = rng.choice(entries)
        second = source.ask_for(rng, other, entries) if kind > 0.85 else None
        if second is None:
            turns.append(Turn("dispatch", ask.text, answer))
            if not stated and rng.random() < 0.3:
                turns += _told(rng)
        else:
            both = f"{answer}\n{shown(other.tool.name, second.values)}"
            turns.append(Turn("dispatch_two", _joined(rng, ask, second), both))
    if not turns:
        return dispatch(rng)
    if stated:
        first = turns[0]
        turns[0] = Turn(first.skill, f"Answer as {shown('-', '-')} or none.\n{first.question}", first.answer)
    return Document("dispatch", tuple(turns), tuple(entry.tool for entry in entries))


def _told(rng: random.Random) -> list[Turn]:
    """A record of what something came to, told in a sentence, and sometimes said again when that is asked for."""
    names = rng.sample([name for name, (kind, _) in FIELDS.items() if kind not in ("words", "sum")], rng.randint(1, 3))
    found = {name: value(rng, FIELDS[name][0]) for name in names}
    name = rng.choice(names)
    shown, noun = _shown(found[name]), name.replace("_", " ")
    first = Turn("tell", f"{_record(found)}\n{name}, in words?", f"The {noun} is {shown}.")
    if rng.random() < 0.6:
        return [first]
    return [first, Turn("repeat", rng.choice(phrases.REPEATS), first.answer)]


def _known(rng: random.Random) -> Turn:
    """A question whose answer was told just before it."""
    name, about = rng.choice(list(FIELDS)), invented(rng).capitalize()
    noun = name.replace("_", " ")
    told = f"The {noun} of {about} is {_shown(value(rng, FIELDS[name][0]))}."
    asked = rng.choice(("What is the {} of {}?", "Please find the {} of {}.", "I need the {} of {}.", "The {} of {}?"))
    return Turn("known", rng.choice(phrases.TOLD).format(reply=told, request=asked.format(noun, about)), told)


def _not_wanted(rng: random.Random, entries: Sequence[Any]) -> Turn:
    """A deed that is named and not wanted: a word is to be said instead."""
    said = [entry.tool.description.rstrip(".") for entry in entries]
    said = [one[0].lower() + one[1:] for one in said]
    deed = rng.choice([one for one in said if one.split()[0] in _VERBS] or ["do this"])
    word = rng.choice((invented(rng), rng.choice(WORDS)))
    return Turn("not_wanted", rng.choice(phrases.DECLINES).format(deed=deed, word=word), f"{word.capitalize()}.")


# What a description can begin with that names a deed: "Set an alarm", not "Sets an alarm" or "The alarm".
_VERBS = {word for _, verbs in VERBS.values() for phrase in verbs for word in phrase.split()[:1]}
_VERBS -= {"I", "are", "do", "is", "how", "new", "status", "what", "where", "which"}


def _aside(rng: random.Random, entries: Sequence[Any], ask: Ask | None) -> Turn:
    """Something said in between that has nothing to do with the catalogue, or takes a request back."""
    kind = rng.randrange(8)
    if kind == 0:
        expression, result = knowledge.draw_sum(rng)
        return Turn("sum", rng.choice(knowledge.SUM_TRAIN).format(expression), str(result))
    if kind == 1:
        return Turn("fact", *knowledge.draw_fact(rng, test=False, anything=True))
    if kind == 2:
        return Turn("talk", *knowledge.draw_small_talk(rng, test=False))
    if kind == 5:
        return _known(rng)
    if kind >= 6:
        return _not_wanted(rng, entries)
    word = rng.choice((invented(rng), rng.choice(WORDS)))
    said = f"{word.capitalize()}."
    if kind == 3 or ask is None:
        return Turn("say", rng.choice(_SAY).format(word), said)
    return Turn("say_instead", rng.choice(_INSTEAD).format(ask.text, word), said)


_SAY = ("Say {}.", "Please say {}.", "Can you say {}?", "I want to hear {}.", "Now say {}!", "Would you say {}?")
_INSTEAD = (
    "{} No, leave that. Say {}.",
    "Never mind this: {} Say {}.",
    "My friend asked: {} But I only want to hear {}.",
    "{} Wait, stop, not that. {} is all you have to say.",
    "Nothing has to be done about this: {} Say {}.",
    "{} Forget it, say {}.",
    "I would never ask you this: {} So say {}.",
    "Ignore what comes now: {} And then say {}.",
)
_AGAIN = (
    "Now {}.",
    "Next: {}",
    "{} as well.",
    "How about {}?",
    "The same, but with {}.",
    "And then {}, please.",
    "Once more, this time {}.",
    "{} too, please.",
    "Okay. {}?",
    "Could you also take {}?",
    "I meant {}.",
    "Same question, {}.",
    "Try {} now.",
    "Sorry, {} is what I need.",
    *phrases.AGAIN,
)
_LINKS = (
    " and ", ", and ", ". Also, ", " and then ", ", then ", "; ", ". After that, ", ". And ", " plus ", ". Next, ",
)  # fmt: skip
_STARTS = (
    ". ", "? ", "! ", ". Another thing: ", ". One more: ", ". In addition, ", ". Secondly: ", ". While you are at it: ",
)  # fmt: skip


def _joined(rng: random.Random, first: Ask, second: Ask) -> str:
    """Two requests as one: the second goes on in small letters, or begins anew. Values stay as they are written."""
    start, end = first.text, second.text
    if not any(start.endswith(_shown(one)) for one in first.values.values()):
        start = start.rstrip(".!?")
    word = end.split()[0]
    value_first = any(_shown(one).startswith(word.strip(",:'\"")) for one in second.values.values())
    stays = value_first or not word.isalpha() or word == "I"
    lowered = end if stays else end[0].lower() + end[1:]
    if rng.random() < 0.3:  # the first one with its own stop, or none
        return first.text + rng.choice(phrases.JOINS).format(lowered)
    if rng.random() < 0.4 or stays:
        return start + rng.choice(_STARTS) + end
    return start + rng.choice(_LINKS) + lowered


def _span(rng: random.Random) -> str:
    kind = rng.choice(
        ("title", "words", "place", "person", "code", "email", "phone", "url", "file", "date", "address", "mixed")
    )
    if kind == "mixed":
        return " ".join(invented(rng) for _ in range(rng.randint(2, 8)))
    return _shown(value(rng, kind))


def copying(rng: random.Random) -> Document:
    """Spans to repeat as they are, bare or out of a list or a record."""
    turns: list[Turn] = []
    for _ in range(rng.randint(3, 6)):
        span = _span(rng)
        form = rng.randrange(4)
        if form == 0:
            turns.append(Turn("copy", f"Repeat: {span}", span))
        elif form == 1:
            turns.append(Turn("copy", f"Quote: {span}", f'"{span}"'))
        elif form == 2:
            keys = rng.sample(WORDS, rng.randint(2, 4))
            spans = {key: _span(rng) for key in keys}
            wanted = rng.choice(keys)
            turns.append(Turn("copy", f"{_record(spans)}\n{wanted}?", spans[wanted]))
        else:
            names = rng.sample(list(FIELDS), rng.randint(1, 3))
            spans = {name: value(rng, FIELDS[name][0]) for name in names}
            turns.append(
                Turn(
                    "copy",
                    "; ".join(f"{name}: {_shown(one)}" for name, one in spans.items()) + "\nRecord?",
                    _record(spans),
                )
            )
    return Document("copying", tuple(turns))


def sums(rng: random.Random) -> Document:
    """Sums of single digits, asked in the wordings of training."""
    turns = []
    for _ in range(rng.randint(5, 9)):
        expression, result = knowledge.draw_sum(rng)
        turns.append(Turn("sum", rng.choice(knowledge.SUM_TRAIN).format(expression), str(result)))
    return Document("sums", tuple(turns))


def facts(rng: random.Random) -> Document:
    """Plain facts, mixed with what is said in passing."""
    turns = [Turn("fact", *knowledge.draw_fact(rng, test=False, anything=True)) for _ in range(rng.randint(4, 7))]
    if rng.random() < 0.5:
        turns.insert(rng.randrange(len(turns) + 1), Turn("talk", *knowledge.draw_small_talk(rng, test=False)))
    return Document("facts", tuple(turns))


def reading(rng: random.Random) -> Document:
    """A few sentences or a record, and questions about them; what they do not say is answered with `unknown`."""
    people = [invented(rng).capitalize() for _ in range(rng.randint(2, 4))]
    told = {
        "lives in": ("Where does {} live?", lambda: value(rng, "place")),
        "likes": ("What does {} like?", lambda: rng.choice(WORDS)),
        "arrives on": ("When does {} arrive?", lambda: value(rng, "date")),
        "has the number": ("What number does {} have?", lambda: str(value(rng, "integer"))),
        "called about": ("What did {} call about?", lambda: value(rng, "title")),
        "works at": ("Where does {} work?", lambda: value(rng, "place")),
    }
    sentences: list[str] = []
    asked: list[tuple[str, str]] = []
    for person in people:
        for verb in rng.sample(list(told), 2):
            question, draw_value = told[verb]
            drawn = draw_value()
            if rng.random() < 0.8:
                sentences.append(f"{person} {verb} {drawn}.")
                asked.append((question.format(person), str(drawn)))
            else:
                asked.append((question.format(person), "unknown"))
    rng.shuffle(sentences)
    rng.shuffle(asked)
    turns = [Turn("read", question, answer) for question, answer in asked[:5]]
    turns[0] = Turn("read", f"{' '.join(sentences)}\n{asked[0][0]}", asked[0][1])
    return Document("reading", tuple(turns))


# How often each kind is drawn. Choosing an entry takes far more examples than anything else.
SHARES: dict[str, float] = {
    "dispatch": 0.68,
    "catalogue": 0.18,
    "copying": 0.04,
    "sums": 0.03,
    "facts": 0.03,
    "reading": 0.04,
}
KINDS: dict[str, Callable[[random.Random], Document]] = {
    "dispatch": dispatch,
    "catalogue": catalogue,
    "copying": copying,
    "sums": sums,
    "facts": facts,
    "reading": reading,
}


def draw(rng: random.Random, shares: dict[str, float] = SHARES) -> Document:
    """One document; the same generator state gives the same document."""
    kind = rng.choices(list(shares), weights=list(shares.values()))[0]
    return KINDS[kind](rng)
