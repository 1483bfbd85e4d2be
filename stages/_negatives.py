"""Constructed mistakes, for what the policy never does wrong of itself: believable turns that a rule knows to be wrong.

missed_call        a text in place of the call that is needed: another request's question, refusal or answer
needless_call      a call of the offered tool that looks most related, with values at hand
sibling_tool       the same values sent to another tool on offer
invented_argument  the right call with one value that nobody said
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.jsontext import same
from data.transcript import Act, Message, Request, Tool, ToolCall

_FALLBACK: dict[Act, str] = {
    "ask": "Could you tell me a little more about that?",
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
    """A text where a call is needed, of any act, rather one that was said with the needed tool on offer."""
    if request.expected.act != "call":
        return None
    act = dice.choice(sorted(_FALLBACK))
    needed = {call.name for call in request.expected.calls}
    texts = pool.texts.get(act, [])
    close = [text for offered, text in texts if offered & needed]
    choices = close or [text for _, text in texts] or [_FALLBACK[act]]
    return Message("assistant", dice.choice(choices))


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
    """The right call with one value replaced by one of another request that nobody said here."""
    right = _right_calls(request)
    said = _said(request)
    choices = [
        (number, name, value)
        for number, call in enumerate(right)
        for name, old in call.arguments.items()
        for value in pool.values.get(name, [])
        if type(value) is type(old) and not isinstance(value, bool) and str(value).casefold() not in said
        and not any(same(value, accepted) for accepted in request.expected.calls[number].arguments[name])
    ]  # fmt: skip
    if not choices:
        return None
    number, name, value = dice.choice(choices)
    wrong = ToolCall(right[number].name, right[number].arguments | {name: value})
    return Message("assistant", tool_calls=(*right[:number], wrong, *right[number + 1 :]))


RECIPES: dict[str, Callable[[Request, Pool, random.Random], Message | None]] = {
    recipe.__name__: recipe for recipe in (missed_call, needless_call, sibling_tool, invented_argument)
}


def construct(request: Request, pool: Pool, recipes: Sequence[str], seed: int) -> dict[str, Message]:
    """The mistakes of these recipes that fit the request; the same seed and request give the same ones."""
    made = {name: RECIPES[name](request, pool, random.Random(f"{seed}/{request.id}/{name}")) for name in recipes}
    return {name: turn for name, turn in made.items() if turn is not None}


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
