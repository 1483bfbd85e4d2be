"""Texts compared by words and numbers: right answers, degenerate repetition, values that stand in a conversation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from data.transcript import Fenced, Message, Request, ToolCall

_NUMBER = r"\d++(?:[.,]\d++)*+"
_TOKEN = re.compile(rf"[^\W\d_]++|{_NUMBER}|(?<![\w)])-{_NUMBER}")
_ASCII_TOKEN = re.compile(rf"[a-z]++|{_NUMBER}|(?<![\w)])-{_NUMBER}", re.ASCII)  # the same, in half the time
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_SENTENCE = 6  # a reference of more words is a sentence, which may be worded otherwise

_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_SPELLED = {word: str(number) for number, word in enumerate(_NAMES.split())}
_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = {word: str(number) for number, word in enumerate(_MONTH_NAMES.split(), start=1)}

_CODE = r"(?:code|function|script|snippet|program|class|method|one-liner|module)s?"
_LANGUAGE = r"(?:python|javascript|typescript|java|kotlin|rust|ruby|php|bash|shell|golang|c\+\+|c#)"
# Conservative, because what they find is forgiven: "the code of the airport in Java" asks for no program.
_ASKS: dict[Fenced, re.Pattern[str]] = {
    "code": re.compile(
        rf"\b(?:write|implement|refactor|debug)\b[^.?!\n]{{0,60}}\b{_CODE}\b|\b{_LANGUAGE} (?:{_CODE}|example|line)\b"
        rf"|\b{_CODE} (?:\w+ )?in {_LANGUAGE}(?!\w)|\bcode (?:example|sample|snippet|block)\b"
        r"|\bin (?:python|javascript)\b",
        re.IGNORECASE,
    ),
    "json": re.compile(
        r"\bjson (?:object|body|payload|request|call|message|example|snippet)\b"
        r"|\b(?:call|request|payload|body|example)\b[^.?!\n]{0,40}\b(?:as|in) json\b",
        re.IGNORECASE,
    ),
}


def asks_for(request: Request, what: Fenced) -> bool:
    """Whether the user's last turn asks for a program ("code") or for JSON to be written ("json")."""
    said = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
    return what in _ASKS and bool(_ASKS[what].search(said))


def words(text: str) -> list[str]:
    """The words and numbers of a text, folded: case and punctuation go, 1,000 is 1000, 2.0 and 02 are 2."""
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").casefold()
    tokens = (_ASCII_TOKEN if text.isascii() else _TOKEN).findall(text)
    return [token if token.isalpha() else _number(token) for token in tokens]


def _number(token: str) -> str:
    if token.isdecimal():
        return token.lstrip("0") or "0"
    if _THOUSANDS.fullmatch(token):
        token = token.replace(",", "")
    whole, point, part = token.partition(".")
    sign, whole = ("-", whole[1:]) if whole[:1] == "-" else ("", whole)
    part = part.rstrip("0") if point and part.isdigit() else part
    return sign + (whole.lstrip("0") or "0") + (f".{part}" if part else "")


def digits(word: str) -> str:
    """A folded word, in digits if it spells a number up to twenty: "seven" is 7."""
    return _SPELLED.get(word, word)


def is_number(word: str) -> bool:
    """Whether a folded word is a number."""
    return word[-1].isdigit()


def answers(text: str, reference: str, request: Request) -> bool:
    """Whether a text gives the reference answer.

    A number must be there, and no other number that the request did not bring up: 1 + 1 is not "2 or 3".
    Other references must occur word for word. A reference longer than 6 words is a sentence that can be worded
    otherwise: there, all its numbers and at least half of its words must occur.
    """
    given, wanted = words(text), words(reference)
    if not wanted:
        return text.strip() == reference.strip()
    if len(wanted) == 1 and is_number(wanted[0]):
        if wanted[0] not in given:
            return False
        others = {word for word in given if is_number(word) and word != wanted[0]}
        return not others or others <= {word for message in request.messages for word in words(message.content)}
    if f" {' '.join(wanted)} " in f" {' '.join(given)} ":
        return True
    if len(wanted) <= _SENTENCE:
        return False
    distinct, there = set(wanted), set(given)
    numbers = {word for word in distinct if is_number(word)}
    return numbers <= there and 2 * len(distinct & there) >= len(distinct)


def repeats(text: str) -> bool:
    """Whether a text ends in a loop: the same words three times or more (six at least), or 24 signs of one pattern."""
    ending = text.rsplit(None, 48)[-48:]
    for size in range(1, len(ending) // 3 + 1):
        if ending[-1] != ending[-1 - size]:
            continue
        times = max(3, -(-6 // size))
        if size * times <= len(ending) and ending[-size * times :] == ending[-size:] * times:
            return True
    tail = text.rstrip()[-24:]
    return len(tail) == 24 and any(tail[:-size] == tail[size:] for size in range(1, 5))


_conversations: dict[int, tuple[Sequence[Message], frozenset[str]]] = {}


def _conversation(request: Request) -> frozenset[str]:
    """Every word of a request's messages, with digits for spelled numbers and months; kept, as K samples ask for it."""
    known = _conversations.get(id(request.messages))
    if known is not None and known[0] is request.messages:
        return known[1]
    parts = [message.content for message in request.messages]
    parts += [str(call.arguments) for message in request.messages for call in message.tool_calls]
    said = set(words("\n".join(parts)))
    found = frozenset(said.union(names[word] for names in (_SPELLED, _MONTHS) for word in names.keys() & said))
    if len(_conversations) > 10_000:
        _conversations.clear()
    _conversations[id(request.messages)] = (request.messages, found)
    return found


def _leaves(value: Any, node: Any) -> list[tuple[Any, Any]]:
    """The plain values inside a value, each with its piece of the schema."""
    node = node if isinstance(node, dict) else {}
    if isinstance(value, dict):
        properties = node.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        return [leaf for key, entry in value.items() for leaf in _leaves(entry, properties.get(key))]
    if isinstance(value, list):
        return [leaf for entry in value for leaf in _leaves(entry, node.get("items"))]
    return [(value, node)]


def plain_values(value: Any) -> int:
    """How many plain values there are inside a value: what `ungrounded` may count, and those that are never counted."""
    return len(_leaves(value, None))


def ungrounded(calls: Sequence[ToolCall], request: Request) -> int:
    """How many argument values come from nowhere: not said in the conversation, nor offered by the schema."""
    return len(ungrounded_values(calls, request))


def ungrounded_values(calls: Sequence[ToolCall], request: Request) -> list[str]:
    """The argument values that come from nowhere, as texts.

    Defaults, enums and constants are offered; booleans and null never count. A text is said when each of its words is,
    or begins a word that is, or is begun by one ("DAL" for Dallas, "reports" for report); numbers may be spelled out,
    months written as numbers.
    """
    schemas = {tool.name: tool.parameters for tool in request.tools}
    texts = [
        str(value)
        for call in calls
        for value, node in _leaves(call.arguments, schemas.get(call.name))
        if not _offered(value, node)
    ]
    if not texts:
        return []
    said = _conversation(request)
    return [text for text in texts if not all(_begins(word, said) for word in set(words(text)) - said)]


def _offered(value: Any, node: dict[str, Any]) -> bool:
    if value is None or isinstance(value, bool):
        return True
    enum = node.get("enum")
    return value == node.get("default") or value == node.get("const") or (isinstance(enum, list) and value in enum)


def _begins(word: str, said: frozenset[str]) -> bool:
    """Whether a word that was not said is another form of one that was."""
    if is_number(word):
        return word.startswith("-") and word[1:] in said
    if len(word) < 3:
        return False
    return any(other.startswith(word) or (len(other) > 3 and word.startswith(other)) for other in said)
