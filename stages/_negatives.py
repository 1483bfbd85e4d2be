"""Constructed mistakes, for what the policy never does wrong of itself: believable turns that a rule knows to be wrong.

missed_call        a refusal or an answer in place of the call that is needed, as another request got it
needless_ask       a question in place of a call whose values were all given
needless_call      a call of the offered tool that looks most related, with values at hand
sibling_tool       the same values sent to another tool on offer
invented_argument  the right call with one value that nobody said
wrong_enum         the right call with another of the values that an argument may have
missing_required   the right call without one of the arguments that its tool requires

PROMISED has the outcome of each. A dialect or an answer key may yet read one otherwise: who uses them has to look.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.jsontext import same
from data.transcript import Act, Message, Request, Tool, ToolCall
from rewards._words import ungrounded

_FALLBACK: dict[Act, str] = {
    "refuse": "I'm sorry, I can't help with that.",
    "answer": "Yes, that should be fine.",
}
_SPAN = re.compile(
    r"\"([^\"\n]{1,80})\"|'([^'\n]{1,80})'(?!\w)"  # what is quoted
    r"|(\d[\d\s.+*/()^-]*\d)"  # a sum
    r"|(?<![.?!] )(?<!^)\b([A-Z]\w*(?: [A-Z]\w*)*)"  # names, but for a sentence's first word
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_WORD = re.compile(r"[^\W\d_]{4,}")
_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Pool:
    """What the requests of a data set say and call, to make mistakes of: texts by act, values by argument name."""

    texts: dict[Act, list[tuple[frozenset[str], str]]] = field(default_factory=dict)
    values: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, requests: Sequence[Request]) -> Pool:
        pool = cls()
        for request in requests:
            if request.expected.act != "call" and request.gold and request.gold.content:
                offered = frozenset(tool.name for tool in request.tools)
                pool.texts.setdefault(request.expected.act, []).append((offered, request.gold.content))
            for call in request.expected.calls:
                for name, accepted in call.arguments.items():
                    pool.values.setdefault(name, []).extend(accepted[:1])
        return pool


def missed_call(request: Request, pool: Pool, dice: random.Random) -> Message | None:
    """A refusal or an answer where a call is needed, rather one that was said with the needed tool on offer."""
    if request.expected.act != "call":
        return None
    act = dice.choice(sorted(_FALLBACK))
    choices = _close(request, pool, act) or [text for _, text in pool.texts.get(act, [])] or [_FALLBACK[act]]
    return Message("assistant", dice.choice(choices))


def needless_ask(request: Request, pool: Pool, dice: random.Random) -> Message | None:
    """A question for what was given, rather one that another request got about the same arguments."""
    right = _right_calls(request)
    names = [name.replace("_", " ") for call in right for name in call.arguments]
    if not names or ungrounded(right, request):
        return None
    parts = {part for name in names for part in name.casefold().split()}
    close = [text for text in _close(request, pool, "ask") if parts & set(_LETTERS.findall(text.casefold()))]
    return Message("assistant", dice.choice(close or [f"Which {name} do you mean?" for name in names]))


def needless_call(request: Request, pool: Pool, dice: random.Random) -> Message | None:
    """A call where none is needed, of the offered tool that looks most related."""
    if request.expected.act == "call" or not request.tools:
        return None
    tool = _most_related(request, request.tools, dice)
    return Message("assistant", tool_calls=(ToolCall(tool.name, _arguments(tool, request, pool, dice)),))


def sibling_tool(request: Request, pool: Pool, dice: random.Random) -> Message | None:
    """The right call's values, as far as they fit, sent to another tool on offer."""
    needed = {call.name for call in request.expected.calls}
    others = [tool for tool in request.tools if tool.name not in needed]
    right = _right_calls(request)
    if not right or not others:
        return None
    tool = _most_related(request, others, dice)
    return Message(
        "assistant", tool_calls=(ToolCall(tool.name, _arguments(tool, request, pool, dice, right[0])), *right[1:])
    )


def invented_argument(request: Request, pool: Pool, dice: random.Random) -> Message | None:
    """The right call with one value replaced by one of another request that nobody said here.

    Arguments whose schema lists their values are left to wrong_enum.
    """
    right = _right_calls(request)
    said = _said(request)
    choices = [
        (number, name, value)
        for number, call in enumerate(right)
        for name, old in call.arguments.items()
        for value in pool.values.get(name, [])
        if type(value) is type(old) and not isinstance(value, bool) and str(value).casefold() not in said
        and not _enum(request, call.name, name) and not _accepted(request, number, name, value)
    ]  # fmt: skip
    if not choices:
        return None
    number, name, value = dice.choice(choices)
    return _instead(right, number, right[number].arguments | {name: value})


def wrong_enum(request: Request, pool: Pool, dice: random.Random) -> Message | None:
    """The right call with one value replaced by another one of its enum that is not accepted."""
    right = _right_calls(request)
    choices = [
        (number, name, value)
        for number, call in enumerate(right)
        for name in call.arguments
        for value in _enum(request, call.name, name)
        if not _accepted(request, number, name, value)
    ]
    if not choices:
        return None
    number, name, value = dice.choice(choices)
    return _instead(right, number, right[number].arguments | {name: value})


def missing_required(request: Request, pool: Pool, dice: random.Random) -> Message | None:
    """The right call without one of the arguments that its tool requires."""
    right = _right_calls(request)
    choices = [
        (number, name)
        for number, call in enumerate(right)
        for name in call.arguments
        if name in _parameters(request, call.name).get("required", ())
    ]
    if not choices:
        return None
    number, left_out = dice.choice(choices)
    kept = {name: value for name, value in right[number].arguments.items() if name != left_out}
    return _instead(right, number, kept)


RECIPES: dict[str, Callable[[Request, Pool, random.Random], Message | None]] = {
    recipe.__name__: recipe
    for recipe in (
        missed_call,
        needless_ask,
        needless_call,
        sibling_tool,
        invented_argument,
        wrong_enum,
        missing_required,
    )
}
PROMISED = {
    "missed_call": "missed_call",
    "needless_ask": "missed_call",
    "needless_call": "needless_call",
    "sibling_tool": "wrong_tool",
    "invented_argument": "right_tool_wrong_arguments",
    "wrong_enum": "right_tool_wrong_arguments",
    "missing_required": "invalid_arguments",
}


def construct(request: Request, pool: Pool, recipes: Sequence[str], seed: int) -> dict[str, Message]:
    """The mistakes of these recipes that fit the request; the same seed and request give the same ones.

    Their order is drawn, since of several that make a pair of the same kind the first is taken.
    """
    order = random.Random(f"{seed}/{request.id}").sample(recipes, len(recipes))
    made = {name: RECIPES[name](request, pool, random.Random(f"{seed}/{request.id}/{name}")) for name in order}
    return {name: turn for name, turn in made.items() if turn is not None}


def _close(request: Request, pool: Pool, act: Act) -> list[str]:
    """Texts of this act that were said with the tool that is needed here on offer."""
    needed = {call.name for call in request.expected.calls}
    return [text for offered, text in pool.texts.get(act, []) if offered & needed]


def _parameters(request: Request, name: str) -> Mapping[str, Any]:
    """The schema of an offered tool's arguments; an empty one where there is no such tool."""
    return next((tool.parameters for tool in request.tools if tool.name == name), {})


def _enum(request: Request, tool: str, argument: str) -> Sequence[Any]:
    """The values that an argument may have, where its schema lists them."""
    node = _parameters(request, tool).get("properties", {}).get(argument, {})
    values = node.get("enum") if isinstance(node, Mapping) else None
    return values if isinstance(values, list) else ()


def _accepted(request: Request, number: int, name: str, value: Any) -> bool:
    return any(same(value, right) for right in request.expected.calls[number].arguments[name])


def _instead(right: tuple[ToolCall, ...], number: int, arguments: dict[str, Any]) -> Message:
    """The right calls, one of them with other arguments."""
    wrong = ToolCall(right[number].name, arguments)
    return Message("assistant", tool_calls=(*right[:number], wrong, *right[number + 1 :]))


def _right_calls(request: Request) -> tuple[ToolCall, ...]:
    """The accepted calls with the first accepted value of each argument that is not optional."""
    return tuple(
        ToolCall(
            call.name,
            {name: values[0] for name, values in call.arguments.items() if values and name not in call.optional},
        )
        for call in request.expected.calls
    )


def _said(request: Request) -> str:
    return "\n".join(message.content for message in request.messages).casefold()


def _last_question(request: Request) -> str:
    return next((message.content for message in reversed(request.messages) if message.role == "user"), "")


def _most_related(request: Request, tools: Sequence[Tool], dice: random.Random) -> Tool:
    """The tool whose name and description share most words with the last question; any of those that share as many."""
    asked = set(map(str.casefold, _WORD.findall(_last_question(request))))
    shared = [len(asked & set(map(str.casefold, _WORD.findall(f"{tool.name} {tool.description}")))) for tool in tools]
    return dice.choice([tool for tool, count in zip(tools, shared, strict=True) if count == max(shared)])


def _arguments(
    tool: Tool, request: Request, pool: Pool, dice: random.Random, like: ToolCall | None = None
) -> dict[str, Any]:
    """A value for each required argument: one of the call `like`, one that was said, or one that other requests use."""
    properties = tool.parameters.get("properties", {})
    made: dict[str, Any] = {}
    for name in tool.parameters.get("required", ()):
        node = properties.get(name, {})
        if like and name in like.arguments:
            made[name] = like.arguments[name]
        else:
            made[name] = _value(name, node if isinstance(node, Mapping) else {}, request, pool, dice)
    return made


def _value(name: str, node: Mapping[str, Any], request: Request, pool: Pool, dice: random.Random) -> Any:
    for offered in (node.get("enum"), [node["const"]] if "const" in node else None, node.get("examples")):
        if isinstance(offered, list) and offered:
            return dice.choice(offered)
    kind = node.get("type")
    kind = next((entry for entry in kind if entry != "null"), None) if isinstance(kind, list) else kind
    question = _last_question(request)
    used = pool.values.get(name, [])
    if kind in ("integer", "number"):
        numbers = [float(number) if "." in number else int(number) for number in _NUMBER.findall(question)]
        fitting = [number for number in numbers if kind == "number" or isinstance(number, int)]
        fitting = fitting or [value for value in used if type(value) in (int, float)]
        return dice.choice(fitting) if fitting else 1
    if kind == "boolean":
        return dice.random() < 0.5
    if kind == "array":
        inner = node.get("items")
        return [_value(name, inner if isinstance(inner, Mapping) else {}, request, pool, dice)]
    if kind == "object":
        inner = node.get("properties")
        inner = inner if isinstance(inner, Mapping) else {}
        return {key: _value(key, inner.get(key, {}), request, pool, dice) for key in node.get("required", ())}
    spans = ["".join(groups) for groups in _SPAN.findall(question)]
    texts = spans or [value for value in used if isinstance(value, str)] or _WORD.findall(question)[-1:]
    return dice.choice(texts) if texts else name
