"""Texts compared by words and numbers: right answers, degenerate repetition, values that stand in a conversation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
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
_NAMED = frozenset((*_SPELLED.values(), *_MONTHS.values()))

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
    return _words_of(_folded(text))


def _folded(text: str) -> str:
    """A text as its words are looked for in it."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", text).replace("\u2212", "-").casefold()


def _words_of(folded: str) -> list[str]:
    """The words and numbers of a folded text."""
    if folded.isalpha():
        return [folded]
    tokens = (_ASCII_TOKEN if folded.isascii() else _TOKEN).findall(folded)
    return [token if token.isalpha() else _number(token) for token in tokens]


def _stands_in(part: str, folded: str) -> bool:
    """Whether a folded text holds another one whole, seen at once: then it holds its words too, one behind the other.

    False says nothing: only the first places are looked at, and only those that cut no word and no number.
    """
    place = folded.find(part)
    for _ in range(3):
        if place < 0:
            return False
        end = place + len(part)
        before, behind = folded[place - 1 : place] or " ", folded[end : end + 1] or " "
        if behind in ".,":  # a full stop, or what a number goes on with
            behind = folded[end + 1 : end + 2] or " "
        if not (before.isalnum() or before in "_.,-)" or behind.isalnum()):
            return True
        place = folded.find(part, place + 1)
    return False


def _cannot_be_in(word: str, folded: str) -> bool:
    """Whether neither a word nor a form of it (`_begins`) can be among the words of a folded text, seen at once."""
    if is_number(word):  # 1,000 is 1000, and what `_number` takes off stands around what is left
        return word.lstrip("-").replace(",", "") not in folded.replace(",", "")
    return word[:4] not in folded  # words that begin alike share as much, or all of a shorter one


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
    folded, sought = _folded(text), _folded(reference)
    wanted = _words_of(sought)
    if not wanted:
        return text.strip() == reference.strip()
    numeric = len(wanted) == 1 and is_number(wanted[0])
    if not numeric and _stands_in(sought, folded):
        return True
    needed = wanted if len(wanted) <= _SENTENCE else [word for word in wanted if is_number(word)]
    if any(_cannot_be_in(word, folded) for word in needed):
        return False
    given = _words_of(folded)
    if numeric:
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
    last = text.rsplit(None, 1)[-1:]
    # Most texts end in a word that does not occur three times: they need not be taken apart.
    ending = text.rsplit(None, 48)[-48:] if last and text.count(last[0]) >= 3 else []
    for size in range(1, len(ending) // 3 + 1):
        if ending[-1] != ending[-1 - size]:
            continue
        times = max(3, -(-6 // size))
        if size * times <= len(ending) and ending[-size * times :] == ending[-size:] * times:
            return True
    tail = text.rstrip()[-24:]
    return len(tail) == 24 and (tail[:-3] == tail[3:] or tail[:-4] == tail[4:])  # a pattern of 1 or 2 is one of 4 too


_FEW = 16  # words are looked for one by one; of more, taking the conversation apart once is sooner


class _Conversation:
    """What the messages of a request say, folded; its words are looked for where that does not tell."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        parts = [message.content for message in messages]
        parts += [str(call.arguments) for message in messages for call in message.tool_calls]
        self.text = _folded("\n".join(parts))

    @cached_property
    def words(self) -> frozenset[str]:
        """Every word, with digits for spelled numbers and months."""
        said = set(_words_of(self.text))
        return frozenset(said.union(names[word] for names in (_SPELLED, _MONTHS) for word in names.keys() & said))

    def says(self, text: str) -> bool:
        """Whether a text is said: each of its words, or another form of it, is."""
        folded = _folded(text)
        if _stands_in(folded, self.text):
            return True
        words = set(_words_of(folded))
        if len(words) <= _FEW:
            for word in words:
                if _cannot_be_in(word, self.text) and word.lstrip("-") not in _NAMED:
                    return False
        return all(_begins(word, self.words) for word in words - self.words)


_KEPT = 256  # conversations: as many as are scored beside each other, and no more of what users said than that
_conversations: dict[int, _Conversation] = {}


def _conversation(request: Request) -> _Conversation:
    """What is said in a request; kept, as K samples ask for it."""
    known = _conversations.get(id(request.messages))
    if known is not None and known.messages is request.messages:
        return known
    if len(_conversations) >= _KEPT:
        _conversations.clear()
    found = _conversations[id(request.messages)] = _Conversation(request.messages)
    return found


_INNER = (dict, list)


def _leaves(value: Any, node: Any) -> list[tuple[Any, Any]]:
    """The plain values inside a value, each with its piece of the schema."""
    node = node if isinstance(node, dict) else {}
    if isinstance(value, dict):
        properties = node.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        inner = [(entry, properties.get(key)) for key, entry in value.items()]
    elif isinstance(value, list):
        items = node.get("items")
        inner = [(entry, items) for entry in value]
    else:
        return [(value, node)]
    found = []
    for pair in inner:
        if isinstance(pair[0], _INNER):
            found += _leaves(*pair)
        else:
            found.append(pair)
    return found


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
    conversation = _conversation(request)
    return [text for text in texts if not conversation.says(text)]


_OFFERING = frozenset(("default", "const", "enum"))


def _offered(value: Any, node: Any) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if not isinstance(node, dict) or _OFFERING.isdisjoint(node):
        return False
    enum = node.get("enum")
    return value == node.get("default") or value == node.get("const") or (isinstance(enum, list) and value in enum)


def _begins(word: str, said: frozenset[str]) -> bool:
    """Whether a word that was not said is another form of one that was."""
    if is_number(word):
        return word.startswith("-") and word[1:] in said
    if len(word) < 3:
        return False
    return any(other.startswith(word) or (len(other) > 3 and word.startswith(other)) for other in said)
