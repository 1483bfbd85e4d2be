"""The AST evaluation of the Berkeley Function Calling Leaderboard, told in our own words.

Source: "Berkeley Function-Calling Leaderboard" (gorilla.cs.berkeley.edu/blogs/8_berkeley_function_calling_leaderboard),
section on evaluating by abstract syntax tree, made exact by what the checker of package bfcl_eval says of the cases of
test_bfcl_rules.py on all of its rows: `python -m benchmarks.bfcl` holds the two against each other. A function is
matched by its name and its required parameters; a parameter that is not documented is an error; each value must be of
its documented type, where an int also counts as a float, or of the type of the first value that is accepted, and equal
an accepted one: texts without regard to case, spaces and , . / - _ * ^, lists in order, dicts by key. "" among the
accepted values marks what may be left out. Parallel calls match in any order, all or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Call = tuple[str, Mapping[str, Any]]
_DROPPED = str.maketrans("'", '"', " ,./-_*^")
_TYPES: dict[str, type] = {
    "integer": int,
    "float": float,
    "string": str,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
    **{"number": float, "object": dict},  # of JSON Schema, which no row has
}


@dataclass(frozen=True)
class Rules:
    """Where the rules are wider or narrower than equality with an accepted value; False switches one off."""

    folds: bool = True
    """Texts are compared without case, spaces and some punctuation."""
    widens: bool = True
    """Values are compared as Python does, so that 3 is 3.0 and, inside of a dict, 1 is True."""
    blanks: bool = True
    """"" is an accepted value, for a list an empty one, where it marks what may be left out."""
    documented: bool = True
    """Names, required parameters and types follow the documentation, also where the accepted calls break it."""
    greedy: bool = True
    """Each accepted call, in order, takes the first call that it fits, also one that another has need of."""


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
    fitting = [place for place, call in enumerate(calls) if _accepts_call(call, name, accepted, documented, rules)]
    return any(
        accepts(functions, [dict([other]) for other in others], [*calls[:place], *calls[place + 1 :]], rules)
        for place in (fitting[:1] if rules.greedy else fitting)
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
    parameters = documented.get(name, {"properties": {}})
    properties = parameters["properties"]
    told = name in documented and all(key in given for key in parameters.get("required", ()))
    if rules.documented and not (told and all(key in properties for key in given)):
        return False
    return all(_accepts_value(value, accepted[key], properties.get(key, {}), rules) for key, value in given.items())


def _accepts_value(value: Any, accepted: Sequence[Any], node: Mapping[str, Any], rules: Rules) -> bool:
    documented = _TYPES.get(node.get("type", "any"), str)
    if documented is float and type(value) is int and rules.widens:
        value = float(value)
    if rules.documented and not _of_type(value, accepted, node, documented):
        return False
    same = _same(rules)
    first = _first_type(accepted)
    if first in (None, documented) and type(value) is documented:
        # What is accepted is of the documented type, too: texts fold.
        return any(_matches(value, right, node, rules) for right in accepted if right != "" or rules.blanks)
    return any(same(value, right) for right in accepted if right != "" or rules.blanks)


def _of_type(value: Any, accepted: Sequence[Any], node: Mapping[str, Any], documented: type) -> bool:
    """Whether a value is of the documented type, lists one level deep, or of that of the first accepted one."""
    if type(value) is not documented:
        return type(value) is _first_type(accepted)
    if documented is not list:
        return True
    entries = _TYPES.get(node.get("items", {}).get("type", "any"), str)
    return any(
        not isinstance(right, list) or all(type(entry) in (entries, _first_type(right)) for entry in value)
        for right in accepted
    )


def _first_type(accepted: Sequence[Any]) -> type | None:
    return next((type(right) for right in accepted if right != ""), None)


def _matches(value: Any, right: Any, node: Mapping[str, Any], rules: Rules) -> bool:
    if isinstance(value, list):
        right = [] if right == "" else right
        entry: Callable[[Any, Any], bool] = lambda one, other: _folds_to(one, other, rules)  # noqa: E731
        if node.get("items", {}).get("type") == "dict":
            entry = lambda one, other: _matches_dict(one, other, rules)  # noqa: E731
        return isinstance(right, list) and len(value) == len(right) and all(map(entry, value, right))
    return _matches_dict(value, right, rules) if isinstance(value, dict) else _folds_to(value, right, rules)


def _matches_dict(value: Any, right: Any, rules: Rules) -> bool:
    if not isinstance(value, dict) or not isinstance(right, dict):
        return False
    lists = {key: inner if isinstance(inner, list) else [inner] for key, inner in right.items()}
    return all(
        key in lists and any(_folds_to(entry, one, rules) for one in lists[key] if one != "" or rules.blanks)
        for key, entry in value.items()
    ) and all(key in value or "" in inner for key, inner in lists.items())


def _folds_to(value: Any, right: Any, rules: Rules) -> bool:
    if rules.folds and isinstance(value, str) and isinstance(right, str):
        return value.lower().translate(_DROPPED) == right.lower().translate(_DROPPED)
    return _same(rules)(value, right)


def _same(rules: Rules) -> Callable[[Any, Any], bool]:
    return (lambda one, other: bool(one == other)) if rules.widens else _strictly


def _strictly(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_strictly, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_strictly(value, other[key]) for key, value in one.items())
    return bool(one == other)
