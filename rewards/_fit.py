"""Which tool on offer a request is about, and what in it could fill that tool's arguments: by words, in English.

Nothing here knows what words mean, apart from a short list of everyday synonyms: a low score says little about a
request in unusual words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from data.transcript import Tool

_WORD = re.compile(r"[^\W_]+(?:[@._'’/:-]+[^\W_]+)*")
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")
_QUOTED = re.compile(r"(?<!\w)(['\"‘“])(?=\S)(.{1,300}?)(?<=\S)['\"’”](?!\w)")

_COMMON = (
    "a an the and or but if then than so as at by for from in into of off on onto out over to up with without within"
    " about after before between until near around per via i me my mine myself we us our you your he him his she her"
    " it its they them their this that these those there here who whom whose which what when where why how is am are"
    " was were be been being do does did done doing have has had having can could will would shall should may might"
    " must not no nor only just also too very some any all each every one ones other another same again more most much"
    " many few little lot please kindly now right today ok okay yes well let lets want wants wanted need needs needed"
    " like likes wish know tell give show get gets got find look see say go going come make made take put use help"
    " thing things something anything someone however whether while because since ever never still yet already good"
    " new sort kind back far really able wonder wondering mind sure thanks thank hello hi hey s t m d re ll ve don"
    " doesn didn isn aren wasn won can't don't i'm i'd i'll i've it's that's what's let's tool tools api plugin app"
    " user value values string name number given current currently latest information data"
)
STOP = frozenset(_COMMON.split())  # words that are said of any request and any tool
_LIGHT = "add create set send open start write read list check search change turn book move save"

# Everyday words for what tools are usually named after; each group is one word to the score.
_SYNONYMS = (
    "delete remove erase discard",
    "cancel annul scrap revoke undo",
    "buy purchase order",
    "email mail inbox",
    "message text sms",
    "phone telephone caller call",
    "reminder remind alert",
    "alarm wake",
    "timer countdown stopwatch",
    "calendar agenda schedule appointment meeting event",
    "task todo to-do",
    "note memo",
    "shop shopping store",
    "cart basket",
    "package parcel shipment delivery order",
    "booking reservation reserve book",
    "trip travel journey",
    "flight fly plane airline",
    "hotel room accommodation lodging",
    "restaurant eat dine food dining",
    "recipe cook dish cooking",
    "song music track tune",
    "light lamp",
    "volume loud loudness sound",
    "thermostat temperature heating heat",
    "lock bolt secure",
    "weather forecast rain snow temperature",
    "air smog pollution polluted",
    "stock share shares",
    "currency money exchange worth",
    "transfer pay payment",
    "balance account bank",
    "price cost quote",
    "translate translation say",
    "define definition meaning mean meant",
    "calculate compute calculator arithmetic math maths expression sum solve equation",
    "convert conversion equivalent express",
    "random dice draw roll",
    "web internet online google",
    "summary summarize summarise overview gist",
    "news headline headlines newspaper",
    "file document",
    "ticket issue support",
    "workout training exercise fitness gym",
    "medicine pill medication drug",
    "doctor dentist physician",
    "score match game",
    "directions route way navigate navigation guide",
    "nearby near nearest closest close locate",
    "traffic road roads jam jams",
    "film movie cinema",
    "image picture photo",
    "job career hiring vacancy",
    "time clock",
    "distance length",
)  # fmt: skip
_SUFFIXES = "ments ment ings ing ions ion ers er ors or ies ied es ed s e y"
_ENDINGS = tuple(_SUFFIXES.split())

_DATE = re.compile(
    r"\b(?:\d{4}-\d{2}-\d{2}|\d{1,2}[./]\d{1,2}(?:[./]\d{2,4})?|to(?:day|night|morrow)|next (?:week|month|year)"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)day|may \d{1,2}|\d{1,2} may|(?:\d{1,2}(?:st|nd|rd|th)? )?(?:january"
    r"|february|march|april|june|july|august|september|october|november|december)(?: \d{1,2}(?:st|nd|rd|th)?)?)\b",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"\b(?:\d{1,2}[:.]\d{2}(?:\s*[ap]\.?m\b)?|\d{1,2}\s*(?:[ap]\.?m\b|o'clock)|noon|midnight)", re.I)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_NUMBER = re.compile(
    r"(?<![\w.])-?\d+(?:[.,]\d+)*(?!\w)|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty"
    r"|thirty|forty|fifty|hundred|half)\b",
    re.IGNORECASE,
)
_PREPOSITIONS = "for of in into about on with at from by named called titled under regarding"
_BEFORE_A_VALUE = frozenset((":", *_PREPOSITIONS.split()))


def stem(word: str) -> str:
    """A word without its ending: enough to bring "booking", "booked" and "book" together.

    >>> [stem(word) for word in ("Translations", "translated", "cancelled", "cities", "city")]
    ['translat', 'translat', 'cancel', 'cit', 'cit']
    """
    word = unicodedata.normalize("NFKC", word).casefold().replace("’", "'").removesuffix("'s")
    while ending := next((each for each in _ENDINGS if word.endswith(each) and len(word) - len(each) >= 3), None):
        word = word.removesuffix(ending)  # again, so that "ordered" and "order" end alike
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


_LIGHT_STEMS = frozenset(map(stem, _LIGHT.split()))
_SAME: dict[str, frozenset[str]] = {}
for _group in _SYNONYMS:
    for _word in _group.split():
        _SAME[stem(_word)] = _SAME.get(stem(_word), frozenset()) | {stem(each) for each in _group.split()}


def stems(text: str) -> list[str]:
    """The stems of a text's words that say something, in order.

    >>> stems("Could you tell me the weather in Oslo?")
    ['weath', 'oslo']
    """
    return [stem(word) for word in _WORD.findall(text) if word.casefold().replace("’", "'") not in STOP]


def is_english(text: str) -> bool:
    """Whether a quarter of a text's words are common English ones: of others, missing words in common say nothing.

    >>> is_english("Lock the front door."), is_english("Wie ist das Wetter in Oslo?")
    (True, False)
    """
    said = [word.casefold().replace("’", "'") for word in _WORD.findall(without_quotes(text))]
    return 4 * sum(word in STOP for word in said) >= len(said)


def _pieces(name: str) -> str:
    """A name in words: get_airQuality is "get air Quality".

    >>> _pieces("get_airQuality2")
    'get air Quality'
    """
    return " ".join(_PIECE.findall(name))


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The stems a tool is known by: those of its name, and all others."""

    name: frozenset[str]
    other: frozenset[str]


def vocabulary(tool: Tool) -> Vocabulary:
    """The stems of a tool's name; of its description and the names, descriptions and enums of its arguments."""
    told = [tool.description]
    for key, node in _properties(tool).items():
        told += [_pieces(key), str(node.get("description", "")), *map(str, _enum(node))]
    return _vocabulary(tool.name, " ".join(told))


@lru_cache(4096)
def _vocabulary(name: str, told: str) -> Vocabulary:
    named = frozenset(stems(_pieces(name)))
    return Vocabulary(named, frozenset(stems(told)) - named)


def without_quotes(text: str) -> str:
    """A text without what stands in quotation marks: it is a value, whatever it says.

    >>> without_quotes("Say 'play a song' to Ann, it's fine")
    "Say   to Ann, it's fine"
    """
    return _QUOTED.sub(" ", text)


def score(text: str, tool: Tool) -> float:
    """How much of a tool a text speaks of: 1 for each word of its name, 0.5 for each of the rest, light words half.

    >>> tool = Tool("get_weather", "Get the current weather in a city.", {})
    >>> score("Will the weather be good in that city?", tool), score("Play a song.", tool)
    (1.5, 0.0)
    """
    return worth(set(stems(without_quotes(text))), tool)


def worth(said: Iterable[str], tool: Tool) -> float:
    """What `score` says of a text, of its stems."""
    known = vocabulary(tool)
    total = 0.0
    for each in said:
        same = _SAME.get(each, frozenset()) | {each}
        points = 1.0 if same & known.name else 0.5 if same & known.other else 0.0
        total += points / 2 if each in _LIGHT_STEMS else points
    return total


def _properties(tool: Tool) -> Mapping[str, Mapping[str, Any]]:
    found = tool.parameters.get("properties")
    found = found if isinstance(found, dict) else {}
    return {key: node if isinstance(node, dict) else {} for key, node in found.items()}


def _enum(node: Mapping[str, Any]) -> Sequence[Any]:
    enum = node.get("enum")
    return enum if isinstance(enum, list) else ()


def lacking(text: str, tool: Tool) -> bool | None:
    """Whether a required argument of a tool has nothing in a text that could fill it; None where words do not tell.

    Numbers, dates, times, addresses and enum values are looked for by their looks. Any other argument takes a
    quotation, a word with a capital or a digit, or a word that the tool does not use and that stands where values do
    (behind "for" or "in"). Unknown words elsewhere may be a value or mere talk: None.

    >>> city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    >>> tool = Tool("get_weather", "Get the weather in a city.", city)
    >>> lacking("How is the weather?", tool), lacking("How is the weather in Oslo?", tool)
    (True, False)
    >>> lacking("We go hiking, how is the weather?", tool)  # None: no place, but who knows
    """
    needed, rest, free, unsure = _required(tool), text, 0, False
    for key, node in _properties(tool).items():
        looks = _looks(key, node)
        if enum := _enum(node):
            if key in needed and not any(_says(text, str(value)) for value in enum):
                return True
        elif looks is None:
            free += key in needed and node.get("type") != "boolean"
        elif found := looks.search(rest):
            rest = f"{rest[: found.start()]} , {rest[found.end() :]}"
        elif key in needed and looks in (_NUMBER, _EMAIL):
            return True
        elif key in needed:
            unsure = True  # dates and times have too many forms
    strong, weak = _values(rest, tool)
    if unsure:
        return None if weak or strong > free else True
    if strong >= free:
        return False
    return None if weak else True


def fills(text: str, tool: Tool) -> bool:
    """Whether a text holds what looks like a value of a required argument: a number, date, time or address for one.

    >>> minutes = {"type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]}
    >>> fills("Count down 5, please.", Tool("start_timer", "Start a timer.", minutes))
    True
    """
    properties = _properties(tool)
    looks = (_looks(key, properties[key]) for key in _required(tool))
    return any(look.search(text) for look in looks if look)


def _says(text: str, value: str) -> bool:
    """Whether a text says a listed value, in this form or another: "drive" for driving."""
    if re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE):
        return True
    wanted = set(stems(value))
    return bool(wanted) and wanted <= set(stems(text))


def _required(tool: Tool) -> list[str]:
    """The arguments that a call cannot do without."""
    properties, listed = _properties(tool), tool.parameters.get("required")
    listed = listed if isinstance(listed, list) else []
    return [key for key in listed if key in properties and "default" not in properties[key]]


def _looks(key: str, node: Mapping[str, Any]) -> re.Pattern[str] | None:
    """What values of an argument look like; None where they may be any text, or are listed."""
    hints = set(_pieces(key).casefold().split())
    if _enum(node) or node.get("type") == "boolean":
        return None
    if node.get("type") in ("integer", "number"):
        return _NUMBER
    if hints & {"date", "day", "due", "deadline"} or node.get("format") in ("date", "date-time"):
        return _DATE
    if hints & {"time", "hour", "clock"} or node.get("format") == "time":
        return _CLOCK
    if hints & {"email", "mail"} or node.get("format") == "email":
        return _EMAIL
    return None


def _values(text: str, tool: Tool) -> tuple[int, int]:
    """How many stretches of a text look like values of a tool, and how many other words are not the tool's."""
    known = vocabulary(tool)
    known_stems = known.name | known.other
    strong = weak = 0
    for quoted in _QUOTED.finditer(text):
        strong += bool(quoted[2].strip())
    text = without_quotes(text)
    for sentence in re.split(r"(?<=[.!?])\s+|\n", text):
        for run in _runs(sentence, known_stems):
            looks = any(
                any(sign.isdigit() for sign in word) or "@" in word or (word[0].isupper() and (place or len(run) > 1))
                for place, word, _ in run
            )
            if looks or run[0][2] in _BEFORE_A_VALUE:
                strong += 1
            else:
                weak += 1
    return strong, weak


def _runs(sentence: str, known: frozenset[str]) -> Iterator[list[tuple[int, str, str]]]:
    """Neighbouring words of a sentence that are neither common nor the tool's: (place, word, what stands before it)."""
    run: list[tuple[int, str, str]] = []
    before, end = "", 0
    for place, found in enumerate(_WORD.finditer(sentence)):
        word, gap = found[0], sentence[end : found.start()]
        end = found.end()
        before = ":" if ":" in gap else before
        own = stem(word)
        if run and gap.strip(" '\""):
            yield run
            run = []
        if word.casefold().replace("’", "'") in STOP or (_SAME.get(own, frozenset()) | {own}) & known:
            if run:
                yield run
            run = []
        else:
            run.append((place, word, before))
        before = word.casefold() if word.casefold() not in ("the", "a", "an") else before
    if run:
        yield run
