"""The AST evaluation of the Berkeley Function Calling Leaderboard, as its published description tells it.

Source: "Berkeley Function-Calling Leaderboard" (gorilla.cs.berkeley.edu/blogs/8_berkeley_function_calling_leaderboard),
section on evaluating by abstract syntax tree. A function is matched by its name and its required parameters; a
parameter that is not documented is an error; each value must be of its documented type, where an int also counts as a
float, and match one of the accepted values: texts without regard to case, spaces and , . / - _ * ^, lists in order,
dicts by key. "" among the accepted values marks what may be left out. Parallel calls match in any order, all or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Call = tuple[str, Mapping[str, Any]]
_DROPPED = str.maketrans("", "", " ,./-_*^")
_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "float": (float, int),
    "number": (float, int),
    "string": (str,),
    "boolean": (bool,),
    "array": (list,),
    "tuple": (list,),
    "dict": (dict,),
    "object": (dict,),
}


@dataclass(frozen=True)
class Rules:
    """Where the rules are wider or narrower than equality with an accepted value; False switches one off."""

    folds: bool = True
    """Texts are compared without case, spaces and some punctuation."""
    widens: bool = True
    """Numbers are compared by value alone, so that 3 is 3.0 where the type allows it."""
    blanks: bool = True
    """"" is an accepted value where it marks what may be left out."""
    documented: bool = True
    """Names, required parameters and types follow the documentation, also where the accepted calls break it."""


PUBLISHED = Rules()


def accepts(
    functions: Sequence[Mapping[str, Any]],
    wanted: Sequence[Mapping[str, Mapping[str, Sequence[Any]]]],
    calls: Sequence[Call],
    rules: Rules = PUBLISHED,
) -> bool:
    """Whether these are the accepted calls: `functions` and `wanted` as the rows and their answers hold them."""
    documented = {function["name"]: function["parameters"] for function in functions}
    if len(calls) != len(wanted):
        return False
    if not calls:
        return True
    (name, accepted), *others = (pair for entry in wanted for pair in entry.items())
    return any(
        _accepts_call(call, name, accepted, documented, rules)
        and accepts(functions, [dict([other]) for other in others], [*calls[:place], *calls[place + 1 :]], rules)
        for place, call in enumerate(calls)
    )


def _accepts_call(
    call: Call,
    name: str,
    accepted: Mapping[str, Sequence[Any]],
    documented: Mapping[str, Mapping[str, Any]],
    rules: Rules,
) -> bool:
    given = call[1]
    if call[0] != name or any(key not in accepted for key in given):
        return False
    if any(key not in given and "" not in values for key, values in accepted.items()):
        return False
    return (not rules.documented or (name in documented and _fits(given, documented[name]))) and all(
        _matches_any(value, accepted[key], rules) for key, value in given.items()
    )


def _fits(given: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    """Whether the required parameters are there, no others than the documented ones, and all of their types."""
    properties = parameters["properties"]
    return all(key in given for key in parameters.get("required", ())) and all(
        key in properties and _of_type(value, properties[key]) for key, value in given.items()
    )


def _of_type(value: Any, node: Mapping[str, Any]) -> bool:
    kinds = _TYPES.get(node.get("type", "any"))
    if kinds is None:
        return True
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return False
    if isinstance(value, list):
        return all(_of_type(entry, node.get("items", {})) for entry in value)
    if isinstance(value, dict):
        return all(_of_type(entry, node.get("properties", {}).get(key, {})) for key, entry in value.items())
    return True


def _matches_any(value: Any, accepted: Sequence[Any], rules: Rules) -> bool:
    return any(_matches(value, right, rules) for right in accepted if right != "" or rules.blanks)


def _matches(value: Any, right: Any, rules: Rules) -> bool:
    if isinstance(right, dict):
        lists = {key: inner if isinstance(inner, list) else [inner] for key, inner in right.items()}
        return (
            isinstance(value, dict)
            and all(key in lists and _matches_any(entry, lists[key], rules) for key, entry in value.items())
            and all(key in value or "" in inner for key, inner in lists.items())
        )
    if isinstance(right, list):
        return (
            isinstance(value, list)
            and len(value) == len(right)
            and all(_matches(entry, other, rules) for entry, other in zip(value, right, strict=True))
        )
    if isinstance(right, str):
        return isinstance(value, str) and (_folded(value) == _folded(right) if rules.folds else value == right)
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (value, right))
    return bool(value == right) and (type(value) is type(right) or (numbers and rules.widens))


def _folded(text: str) -> str:
    return text.lower().translate(_DROPPED)
