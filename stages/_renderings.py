"""The tools of a request shown in other ways; what is right stays, so that a model should do the same.

    reversed     the tools in the opposite order
    sorted_keys  the keys of their schemas in alphabetical order, and with them the arguments
    lower_case   the descriptions of tools and arguments in small letters
    shuffled     the tools in a random order, drawn from (seed, request)

A request with one tool looks the same where only the order differs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from data.transcript import Tool

if TYPE_CHECKING:
    from data.transcript import Request

Tools = tuple[Tool, ...]
USUAL = "usual"
# What schemas say about values: these are not for us to write in another way.
_VALUES = ("enum", "const", "default", "examples")


def _reversed(tools: Tools, _: str) -> Tools:
    return tools[::-1]


def _sorted_keys(tools: Tools, _: str) -> Tools:
    return tuple(replace(tool, parameters=in_order(tool.parameters)) for tool in tools)


def _lower_case(tools: Tools, _: str) -> Tools:
    return tuple(
        replace(tool, description=tool.description.lower(), parameters=lowered(tool.parameters)) for tool in tools
    )


def _shuffled(tools: Tools, seed: str) -> Tools:
    return tuple(random.Random(seed).sample(tools, len(tools)))


_OTHERS: dict[str, Callable[[Tools, str], Tools]] = {
    each.__name__.removeprefix("_"): each for each in (_reversed, _sorted_keys, _lower_case, _shuffled)
}
NAMES = (USUAL, *_OTHERS)


def rendered(request: Request, name: str, seed: int) -> Request:
    """The request with its tools shown in this way, which is one of NAMES."""
    if name == USUAL:
        return request
    return replace(request, tools=_OTHERS[name](request.tools, f"{seed} {request.id}"))


def drawn(requests: Sequence[Request], limit: int, seed: int) -> list[int]:
    """The places of at most `limit` requests that offer tools, in their order; without tools all ways are one."""
    places = [place for place, request in enumerate(requests) if request.tools]
    return sorted(random.Random(f"renderings {seed}").sample(places, min(limit, len(places))))


def in_order(schema: Any) -> Any:
    """The same with the keys of every object in it in alphabetical order.

    >>> in_order({"type": "object", "properties": {"b": {}, "a": {}}})
    {'properties': {'a': {}, 'b': {}}, 'type': 'object'}
    """
    if isinstance(schema, dict):
        return {key: in_order(schema[key]) for key in sorted(schema)}
    return [in_order(each) for each in schema] if isinstance(schema, list) else schema


def lowered(schema: Any) -> Any:
    """The same with every description in small letters; an argument may bear that name.

    >>> lowered({"properties": {"description": {"description": "What It Says", "enum": ["A"]}}})
    {'properties': {'description': {'description': 'what it says', 'enum': ['A']}}}
    """
    if isinstance(schema, dict):
        return {
            key: value.lower()
            if key == "description" and isinstance(value, str)
            else value
            if key in _VALUES and not isinstance(value, dict)  # which is the schema of an argument of that name
            else lowered(value)
            for key, value in schema.items()
        }
    return [lowered(each) for each in schema] if isinstance(schema, list) else schema
