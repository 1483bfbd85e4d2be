"""What is put right in a row that was read, each change counted by kind; calls that cannot be put right are refused.

Put right are calls to be trained that break their schema: a text that is exactly the wanted number or boolean becomes
one, and null for an optional argument counts as absent. Calls that are answered get an id, and so does each answer, in
order. What an answer key accepts is right whatever the schema says, and so is a reference to an earlier call's result,
in formats that have such. Any other call that breaks its schema, or names no tool on offer, is a RowError.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from data import jsontext, schema
from data.transcript import (
    AcceptedCall,
    Message,
    Request,
    RowError,
    Tool,
    ToolCall,
    Transcript,
    expected_of,
)

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")  # what surely fits 64 bits
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "True": True, "false": False, "False": False}
T = TypeVar("T", Transcript, Request)


def mended(found: T, place: str, reference: re.Pattern[str] | None = None) -> tuple[T, tuple[str, ...]]:
    """The row as it can be used, and the kinds of what was put right, one entry a change; RowError where it cannot be.

    A text that `reference` matches fully stands for the result of an earlier call and fits any type.
    """
    changes = [change for tool in found.tools for change in tool.changes]
    row = _Row({tool.name: tool for tool in found.tools}, reference, changes, place)
    if isinstance(found, Request):
        return row.request(found), tuple(changes)
    return row.transcript(found), tuple(changes)


@dataclass(frozen=True, slots=True)
class _Row:
    tools: Mapping[str, Tool]
    reference: re.Pattern[str] | None
    changes: list[str]
    place: str

    def transcript(self, found: Transcript) -> Transcript:
        turns = list(found.messages)
        keys = iter(found.expected)
        answered = without_id = False
        for number, turn in enumerate(found.messages):
            if turn.role == "assistant":
                key = next(keys, None)
                if turn.tool_calls:
                    turns[number] = self._fitted(turn, key.calls if key else (), f"messages[{number}]")
                    without_id |= None in [call.id for call in turn.tool_calls]
            elif turn.role == "tool":
                answered = True
                without_id |= turn.tool_call_id is None
        if answered and without_id:
            _link(turns, self.changes)
        same = all(map(operator.is_, turns, found.messages))
        return found if same else replace(found, messages=tuple(turns))

    def request(self, found: Request) -> Request:
        for number, right in enumerate(found.expected.calls):
            self._tool(right.name, f"expected.calls[{number}].name")
        if found.gold is None or not found.gold.tool_calls:
            return found
        derived = found.expected.calls == expected_of(found.gold).calls  # then it is no key that knows better
        gold = self._fitted(found.gold, () if derived else found.expected.calls, "gold")
        if gold is found.gold:
            return found
        expected = replace(found.expected, calls=expected_of(gold).calls) if derived else found.expected
        return replace(found, gold=gold, expected=expected)

    def _tool(self, name: str, field: str) -> Tool:
        tool = self.tools.get(name)
        if tool is None:
            offered = ", ".join(list(self.tools)[:5]) + (", …" if len(self.tools) > 5 else "")
            message = f"{name!r} is not among the tools on offer: {offered or 'none (data.tools=FILE adds some)'}"
            raise RowError(self.place, field, message, "unknown_tool")
        return tool

    def _fitted(self, turn: Message, accepted: Sequence[AcceptedCall], field: str) -> Message:
        """The turn with the arguments of its calls put right; the same object where nothing had to be."""
        better: list[ToolCall] = []
        for number, call in enumerate(turn.tool_calls):
            where = f"{field}.tool_calls[{number}]"
            tool = self._tool(call.name, f"{where}.name")
            if not schema.validator(tool.parameters).is_valid(call.arguments) and not any(
                _accepts(right, call) for right in accepted
            ):
                call = replace(call, arguments=self._arguments(call, tool, f"{where}.arguments"))
            better.append(call)
        same = all(map(operator.is_, better, turn.tool_calls))
        return turn if same else replace(turn, tool_calls=tuple(better))

    def _arguments(self, call: ToolCall, tool: Tool, field: str) -> dict[str, Any]:
        arguments: dict[str, Any] = _fit(call.arguments, tool.parameters, self.changes)
        for error in schema.validator(tool.parameters).iter_errors(arguments):
            path = list(error.instance_path)
            value: Any = arguments
            for step in path:
                value = value[step]
            if not (self.reference and isinstance(value, str) and self.reference.fullmatch(value)):
                steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
                message = f"breaks the schema of {call.name}: {error.message[:200]}"
                raise RowError(self.place, field + steps, message, "arguments")
        return arguments


def _accepts(right: AcceptedCall, call: ToolCall) -> bool:
    """Whether the answer key accepts this call as it is."""
    return (
        right.name == call.name
        and all(key in call.arguments or key in right.optional for key in right.arguments)
        and all(
            any(jsontext.same(value, one) for one in right.arguments.get(key, ()))
            for key, value in call.arguments.items()
        )
    )


def _fit(value: Any, node: Any, changes: list[str]) -> Any:
    """The value as its schema wants it, where that takes no guessing; alternatives and references are not followed."""
    if not isinstance(node, Mapping):
        return value
    stated = node.get("type")
    kinds = stated if isinstance(stated, list) else [stated] if stated else []
    if isinstance(value, str) and kinds and "string" not in kinds:
        return _converted(value, kinds, changes)
    if isinstance(value, list):
        return [_fit(entry, node.get("items"), changes) for entry in value]
    if not isinstance(value, dict):
        return value
    properties = node.get("properties")
    if not isinstance(properties, Mapping):
        return value
    required = node.get("required", ())
    better = {}
    for key, entry in value.items():
        if entry is None and key in properties and key not in required and not _takes_null(properties[key]):
            changes.append("null left out")
        else:
            better[key] = _fit(entry, properties.get(key), changes)
    return better


def _takes_null(node: Any) -> bool:
    if not isinstance(node, Mapping) or "type" not in node:
        return True
    return "null" in (node["type"] if isinstance(node["type"], list) else [node["type"]])


def _converted(text: str, kinds: Sequence[str], changes: list[str]) -> Any:
    value: Any = text
    if ("integer" in kinds or "number" in kinds) and _INTEGER.fullmatch(text):
        value = int(text)
    elif "number" in kinds and len(text) <= 64 and _NUMBER.fullmatch(text) and abs(float(text)) < float("inf"):
        value = float(text)
    elif "boolean" in kinds:
        value = _BOOLEANS.get(text, text)
    if value is not text:
        changes.append("text to boolean" if isinstance(value, bool) else "text to number")
    return value


def _link(turns: list[Message], changes: list[str]) -> None:
    """Give answered calls and their answers the ids they lack.

    An answer belongs to the call of its id; without one, to the first of its turn that has no answer yet, of its name
    where it has one.
    """
    used = {call.id for turn in turns for call in turn.tool_calls}
    fresh = (name for name in map("call_{}".format, itertools.count()) if name not in used)
    waiting: list[tuple[int, int]] = []  # calls without an answer yet: turn, place in the turn
    for number, turn in enumerate(turns):
        if turn.role == "assistant":
            waiting = [(number, place) for place in range(len(turn.tool_calls))]
        elif turn.role == "tool":
            answered = next((one for one in waiting if _answers(turn, turns[one[0]].tool_calls[one[1]])), None)
            if answered is None:
                continue
            waiting.remove(answered)
            asking, place = answered
            call = turns[asking].tool_calls[place]
            if call.id is None:
                calls = list(turns[asking].tool_calls)
                calls[place] = call = replace(call, id=turn.tool_call_id or next(fresh))
                turns[asking] = replace(turns[asking], tool_calls=tuple(calls))
                changes.append("id made")
            if turn.tool_call_id is None:
                turns[number] = replace(turn, tool_call_id=call.id, name=turn.name or call.name)
                changes.append("id made")


def _answers(result: Message, call: ToolCall) -> bool:
    if result.tool_call_id is not None and call.id is not None:
        return result.tool_call_id == call.id
    return result.name is None or result.name == call.name
