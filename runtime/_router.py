"""From a request to calls, no call, or nothing valid: held against schema and conversation, never guessed at."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from data import schema
from data.python_tools import tool_of
from data.transcript import Expected, Message, Request, Tool, ToolCall, text_act
from rewards import _words
from runtime._pull import pulled
from runtime._results import Answer, Calls, Invalid, NoCall, Policy, Route, messages_of

REPHRASE = "I could not make sure what to do. Could you say it in other words?"
_SHOWN = 80  # characters of a value that is told of


class Router:
    """Asks a policy and checks what it says; an invalid result is preferred to a wrong call.

    `tools`: tools, or functions with type hints and docstrings (data/python_tools.py). A call passes only where

    - all of the completion can be read, and it was not cut off;
    - the tool is on offer and the arguments fit its schema, strictly ("3" is no integer, unknown keys are none);
    - every value was said in the conversation or is offered by the schema, unless `grounded` is False
      (rewards/_words.py has the rule; it is one of words: "tomorrow" as a date is a value from nowhere);
    - P(call) is at least `threshold`, where the policy can tell. 0.5, the default, is where a call becomes likelier
      than not; `calibrate` finds the one that keeps false calls below a rate.

    ValueError for tools that cannot be offered. Routers hold no state and can be asked from several threads.
    """

    def __init__(
        self,
        policy: Policy,
        tools: Sequence[Tool | Callable[..., Any]],
        *,
        threshold: float = 0.5,
        grounded: bool = True,
    ) -> None:
        if not threshold >= 0:
            raise ValueError(f"threshold must be a probability, got {threshold}; above 1, no call passes")
        self.policy, self.threshold, self.grounded = policy, threshold, grounded
        self.functions: dict[str, Callable[..., Any]] = {}
        offered: list[Tool] = []
        for each in tools:
            tool = each if isinstance(each, Tool) else tool_of(each)
            if tool.name in (other.name for other in offered):
                raise ValueError(f"two tools are called {tool.name}")
            schema.validator(tool.parameters)  # raises here, not when somebody asks
            offered.append(tool)
            if not isinstance(each, Tool):
                self.functions[tool.name] = each
        self.tools = tuple(offered)
        self._schemas = {tool.name: tool.parameters for tool in offered}

    def route(self, request: str | Sequence[Message]) -> Route:
        """What to do about a request: a user's text, or a conversation that ends in the user's turn or in results."""
        return next(found for found in self.stream(request) if not isinstance(found, str))

    def stream(self, request: str | Sequence[Message]) -> Iterator[str | Route]:
        """Pieces of the completion as the model writes it, then the Route, once."""
        messages = messages_of(request)
        for found in self.policy.stream(self.tools, messages):
            if isinstance(found, Answer):
                yield self._judged(found, messages)
                return
            yield found
        raise RuntimeError("the policy ended without an Answer")

    async def aroute(self, request: str | Sequence[Message]) -> Route:
        """`route`, in a thread of the event loop's."""
        return await asyncio.to_thread(self.route, request)

    def astream(self, request: str | Sequence[Message]) -> AsyncIterator[str | Route]:
        """`stream`, each piece waited for in a thread of the event loop's."""
        return pulled(self.stream(request))

    def _judged(self, answer: Answer, messages: tuple[Message, ...]) -> Route:
        reading, probability = answer.reading, answer.probability
        request = Request("", "", self.tools, messages, Expected("answer"))

        def invalid(reason: str, ask: str = REPHRASE) -> Invalid:
            return Invalid(reason, ask, answer.text, probability)

        if answer.truncated:
            return invalid("the completion was cut off")
        if reading.attempt and not (reading.fenced and _words.asks_for(request, reading.fenced)):
            if reading.malformed or not reading.calls:
                return invalid(f"a call that cannot be read: {'; '.join(reading.malformed)}")
            for call in reading.calls:
                if fault := self._fault(call):
                    return invalid(*fault)
            made_up = _made_up(reading.calls, request) if self.grounded else {}
            if made_up:
                told = ", ".join(repr(value[:_SHOWN]) for values in made_up.values() for value in values)
                return invalid(f"values that nobody said: {told}", _needed(made_up))
            if probability is not None and probability < self.threshold:
                return invalid(f"P(call) is {probability:.3f}, below the threshold of {self.threshold:.3f}")
            return Calls(_with_ids(reading.calls, messages), reading.text, probability)
        if reading.malformed and not reading.attempt:
            return invalid("; ".join(reading.malformed))
        text = reading.text.strip()
        if not text:
            return invalid("the completion says nothing")
        if _words.repeats(text):
            return invalid("the completion repeats itself")
        return NoCall(text, text_act(text), probability)

    def _fault(self, call: ToolCall) -> tuple[str] | tuple[str, str] | None:
        """Why a call cannot be made, and what to ask the user where that is known."""
        parameters = self._schemas.get(call.name)
        if parameters is None:
            return (f"{call.name[:_SHOWN]!r} is not on offer",)
        faults = schema.violations(call.arguments, parameters)
        if not faults:
            return None
        reason = f"{call.name}: {'; '.join(fault[:200] for fault in faults[:3])}"
        missing = [key for key in parameters.get("required", ()) if key not in call.arguments]
        if not missing:
            return (reason,)
        return reason, _needed(missing)


def _needed(arguments: Iterable[str]) -> str:
    """What to ask for. Names alone: a made-up value that is told to the user would count as said from then on."""
    return f"I need to know more: {', '.join(name.replace('_', ' ') for name in arguments)}?"


def _made_up(calls: Sequence[ToolCall], request: Request) -> dict[str, list[str]]:
    """By argument, the values that come from nowhere."""
    found: dict[str, list[str]] = {}
    for call in calls:
        for name, value in call.arguments.items():
            if values := _words.ungrounded_values([ToolCall(call.name, {name: value})], request):
                found.setdefault(name, []).extend(values)
    return found


def _with_ids(calls: Sequence[ToolCall], messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    """The calls with ids that no call of the conversation has."""
    used = {call.id for message in messages for call in message.tool_calls}
    fresh = (name for name in map("call_{}".format, itertools.count()) if name not in used)
    return tuple(replace(call, id=name) for call, name in zip(calls, fresh, strict=False))
