"""Telling a try to call a tool from text, whether or not it parses, and reading call objects: shared by the dialects.

An attempt is a call tag of any model family, an object with the keys of a call, or `offered_name(`. Fenced code is one
only where it holds a tag or an object calling an offered tool, or nothing but calls of offered tools. A reader does not
know what was asked: where all of an attempt stands in such code it says so, and leaves it to those who know the request
to see code that the user asked for. All patterns are linear; a text is read up to MAX_LENGTH characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from data import jsontext
from data.transcript import Fenced, Reading, Tool, ToolCall

MAX_LENGTH = 16_384
_NAME_KEYS = ("name", "tool", "tool_name", "function", "function_name", "api")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "tool_arguments", "tool_input")
_TAG = re.compile(
    r"</?tool_calls?>|<\|?/?function_calls?\|?>|<function=|<start_function_call>|<\|python_tag\|>|\[TOOL_CALLS\]"
    r"|<\|START_ACTION\|>|<\|tool_calls?(?:_section)?(?:_begin|_start)?\|>"
)
_NAME_KEY = re.compile(rf"[\"'](?:{'|'.join(_NAME_KEYS)})[\"']\s{{0,8}}:\s{{0,8}}[\"']([^\"'\n]{{0,128}})")
_ARGUMENT_KEY = re.compile(rf"[\"'](?:{'|'.join(_ARGUMENT_KEYS)})[\"']\s{{0,8}}:")
_FENCE = "```"
_MENTION = re.compile(r"`[\w.]{1,128}\([^`{<\n]{0,128}`")  # `get_weather(city)`, as prose about code names a function
_OPENING = re.compile(r"\s*+[\w+#.-]*+\s*+([{\[<])")  # of a block that holds data, behind its language
_MAX_FENCES = 128  # a text with more is one piece: nobody writes so, and looking at each block would take long


def names_of(tools: Sequence[Tool]) -> tuple[str, ...]:
    return tuple([tool.name for tool in tools])


@lru_cache(maxsize=4096)
def _invocation(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, names))})\(" if names else r"(?!)")


def call_of(value: Any, argument_keys: tuple[str, ...] = ("arguments",), name_key: str = "name") -> ToolCall | str:
    """The call a JSON object makes, or what keeps it from being one."""
    if not isinstance(value, dict):
        return "a call must be an object"
    name = value.get(name_key)
    if not isinstance(name, str) or not name:
        return f"a call needs a {name_key}"
    keys = [key for key in argument_keys if key in value]
    if len(keys) != 1 or not isinstance(value[keys[0]], dict):
        return f"a call needs an object of {argument_keys[0]}"
    if len(value) != 2:
        return f"a call holds {name_key} and {keys[0]} and nothing else"
    return ToolCall(name, value[keys[0]])


def parsed(text: str) -> Any:
    """The object or list that is the whole of a stripped text; None when none is."""
    if text[:1] not in ("{", "[") or text[-1:] not in ("}", "]"):
        return None
    try:
        return jsontext.loads(text)
    except jsontext.JsonError:
        return None


def calls_of(
    value: Any, argument_keys: tuple[str, ...] = ("arguments",), name_key: str = "name"
) -> tuple[ToolCall, ...]:
    """The calls of a value that is nothing but one call object or a list of them; empty when it is not."""
    found = []
    for entry in value if isinstance(value, list) else [value]:
        call = call_of(entry, argument_keys, name_key)
        if isinstance(call, str):
            return ()
        found.append(call)
    return tuple(found)


def reading(text: str, calls: tuple[ToolCall, ...], tools: Sequence[Tool], begun: str | None = None) -> Reading:
    """The reading of a dialect whose answers are either calls or text: these calls if there are any, else the text.

    A text is a malformed attempt where a dialect knows what is wrong with the call that it begins, or `find` finds one.
    """
    if calls:
        return Reading(True, calls)
    if begun:
        return Reading(True, (), text, (begun,))
    found, fenced = find(text, tools)
    return Reading(found is not None, (), text, (found,) if found else (), fenced)


def without_thinking(text: str) -> str:
    """The text behind a leading <think> block; nothing, where the block never ends."""
    start = text.lstrip()
    if not start.startswith("<think>"):
        return text
    return start.partition("</think>")[2]


def find(text: str, tools: Sequence[Tool]) -> tuple[str | None, Fenced]:
    """What in a text is a try to call a tool, in words, or None; and what the code blocks hold if all of it is there.

    Prose that mentions a tool beside such blocks, as in `get_weather(city)`, does not take it out of them.
    """
    if not text or text.isspace():
        return None, ""
    names = names_of(tools)
    if "`" not in text:
        return _in_prose(text, names), ""
    parts = text.split(_FENCE, _MAX_FENCES + 1)
    if not 1 < len(parts) <= _MAX_FENCES + 1:
        return _in_prose(text, names), ""
    prose, blocks = parts[::2], parts[1::2]
    outside = next(filter(None, (_in_prose(part, names) for part in prose)), None)
    inside = {block: found for block in blocks if (found := _in_code(block, names))}
    if outside and any(_in_prose(_MENTION.sub("", part), names) for part in prose):
        return outside, ""
    if not outside and not inside:
        return None, ""
    kinds = {_kind(block) for block in inside} or {"code"}
    return outside or next(iter(inside.values())), kinds.pop() if len(kinds) == 1 else ""


def _kind(block: str) -> Fenced:
    """What a block holds that reads as an attempt; nothing anyone asks for, where it is tagged or labelled a call."""
    opening = _OPENING.match(block)
    if block.lstrip().startswith("tool") or (opening and opening[1] == "<"):
        return ""
    return "json" if opening else "code"


def _in_prose(text: str, names: tuple[str, ...]) -> str | None:
    if ("<" in text or "[" in text) and (tag := _TAG.search(text)):
        return f"a call tag {tag[0]}"
    if "{" in text and (found := _object(text, names, offered_only=False)):
        return found
    # Compiling the pattern of these tools takes long where each request has its own, and mostly none of them is named.
    if "(" in text and _named(text, names) and (invoked := _invocation(names).search(text)):
        return f"{invoked[0]}…) in the text"
    return None


def _named(text: str, names: tuple[str, ...]) -> bool:
    """Whether one of these names stands before a bracket. A few brackets are looked at sooner than many names."""
    brackets = text.count("(")
    if brackets > len(names):
        return any(f"{name}(" in text for name in names)
    place = -1
    for _ in range(brackets):
        place = text.find("(", place + 1)
        if text.endswith(names, 0, place):
            return True
    return False


def _in_code(text: str, names: tuple[str, ...]) -> str | None:
    if _TAG.search(text) and any(name in text for name in names):
        return "a call tag inside a code block"
    if "{" in text and (found := _object(text, names, offered_only=True)):
        return f"{found} inside a code block"
    first, _, rest = text.partition("\n")  # the first line of a block is its language
    lines = [line.strip() for line in (rest if rest.strip() else first).splitlines() if line.strip()]
    if lines and all(_invocation(names).match(line) for line in lines):
        return "calls inside a code block"
    return None


def _object(text: str, names: tuple[str, ...], offered_only: bool) -> str | None:
    rest, last = [], 0
    for start, end, found in jsontext.find_objects(text):
        try:
            value = jsontext.loads(found)
        except jsontext.JsonError:
            continue
        if _calls(value, names, offered_only):
            return "an object with the keys of a call"
        rest.append(text[last:start])
        last = end
    remains = "".join(rest) + text[last:]
    named = [match[1] for match in _NAME_KEY.finditer(remains)]
    if any(name in names for name in named) or (named and not offered_only and _ARGUMENT_KEY.search(remains)):
        return "a broken object with the keys of a call"
    return None


def _calls(value: Any, names: tuple[str, ...], offered_only: bool) -> bool:
    if isinstance(value, list):
        return any(_calls(entry, names, offered_only) for entry in value)
    if not isinstance(value, dict):
        return False
    named = [value[key] for key in _NAME_KEYS if isinstance(value.get(key), str)]
    if any(name in names for name in named):
        return True
    if named and not offered_only and any(key in value for key in _ARGUMENT_KEYS):
        return True
    if any(key in names and isinstance(entry, dict) for key, entry in value.items()):  # {"get_weather": {"city": …}}
        return True
    return any(_calls(entry, names, offered_only) for entry in value.values())
