"""Right calls of BFCL rows, and what becomes of them by changes of every kind that a checker may tell apart.

Shared by test_bfcl_rules.py and benchmarks/bfcl.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from typing import Any

from data.dialects import native
from data.transcript import Request, ToolCall
from rewards import judge
from tests.bfcl_rules import PUBLISHED, Call, accepts

Case = tuple[str, list[Call]]

# Each rule of theirs that ours does not have, with what follows from it.
DIFFERENCES = {
    "folds": "theirs takes texts that differ in case, spaces and some punctuation; ours takes them as the key has them",
    "widens": "theirs compares numbers as Python does, 3 with 3.0 and, in a dict, 1 with true; ours by their type too",
    "blanks": 'theirs takes an empty text where "" marks what may be left out; ours takes the mark as no value',
    "documented": "theirs refuses accepted calls that break their own documentation; ours takes what the key accepts",
    "greedy": "theirs gives each accepted call the first that fits it; ours finds calls for all of them if it can",
}


def plain(value: Any) -> Any:
    """The first value that an accepted one stands for."""
    if isinstance(value, dict):
        lists = {key: inner if isinstance(inner, list) else [inner] for key, inner in value.items()}
        chosen = {key: next((one for one in inner if one != ""), "") for key, inner in lists.items()}
        return {key: plain(one) for key, one in chosen.items() if one != ""}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


def leaves_changed(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: leaves_changed(entry, change) for key, entry in value.items()}
    return [leaves_changed(entry, change) for entry in value] if isinstance(value, list) else change(value)


def text_change(change: Any) -> Any:
    return lambda value: change(value) if isinstance(value, str) else value


# What is done to the values of one argument.
CHANGES = {
    "case changed": text_change(str.swapcase),
    "spaces added": text_change(lambda text: f" {text.replace(' ', '  ')} "),
    "punctuation dropped": text_change(lambda text: "".join(sign for sign in text if sign not in ",./-_*^")),
    "punctuation added": text_change(lambda text: f"{text}."),
    "other punctuation added": text_change(lambda text: f"{text}!"),
    "int for float": lambda value: int(value) if isinstance(value, float) and value == int(value) else value,
    "float for int": lambda value: float(value) if type(value) is int else value,
    "text for a value": lambda value: value if isinstance(value, str) else json.dumps(value),
    "bool for int": lambda value: bool(value) if type(value) is int else value,
    "other value": lambda value: f"{value} too" if isinstance(value, str) else not value if isinstance(value, bool)
                   else (value or 0) + 1,
    "null": lambda _: None,
}  # fmt: skip


def cases(row: dict[str, Any]) -> Iterator[Case]:
    """The accepted calls of a row, and what becomes of them by each change; a case that changes nothing is left out."""
    wanted = [entry for call in row["ground_truth"] for entry in call.items()]
    gold: list[Call] = [(name, plain(accepted)) for name, accepted in wanted]
    yield "as accepted", gold
    for kind, calls in changed(row, wanted, gold):
        if json.dumps(calls) != json.dumps(gold):
            yield kind, calls


def changed(row: dict[str, Any], wanted: list[tuple[str, dict[str, list[Any]]]], gold: list[Call]) -> Iterator[Case]:
    yield "order of calls changed", gold[::-1]
    documented = {function["name"]: function["parameters"] for function in row["function"]}
    for place, (name, given) in enumerate(gold):

        def put(*calls: Call, place: int = place) -> list[Call]:
            return [*gold[:place], *calls, *gold[place + 1 :]]

        yield "call repeated", put((name, given), (name, given))
        yield "call dropped", put()
        yield "another's call instead", put(gold[place - 1])
        yield "function renamed", put((f"{name}_now", given))
        yield "function renamed", put((name.upper(), given))
        yield "extra parameter", put((name, {**given, "surely_unknown": 1}))
        for key in documented[name]["properties"]:
            if key not in wanted[place][1]:
                yield "documented parameter that is not accepted", put((name, {**given, key: "x"}))
        for key, values in wanted[place][1].items():
            without = {other: value for other, value in given.items() if other != key}
            yield ("optional left out" if "" in values else "missing required"), put((name, without))
            if "" in values:
                yield "optional given as an empty text", put((name, {**given, key: ""}))
            for value in values:
                if value != "":
                    yield "another accepted value", put((name, {**given, key: plain(value)}))
            if key not in given:
                yield "optional given wrongly", put((name, {**given, key: "surely wrong"}))
                continue
            for kind, change in CHANGES.items():
                named = "optional given wrongly" if kind == "other value" and "" in values else kind
                yield named, put((name, {**given, key: leaves_changed(given[key], change)}))
            if isinstance(given[key], list):
                yield "list reordered", put((name, {**given, key: given[key][::-1]}))
                yield "list cut", put((name, {**given, key: given[key][:-1]}))
            if isinstance(given[key], dict):
                yield "dict reordered", put((name, {**given, key: dict(reversed(given[key].items()))}))
                for inner in given[key]:
                    cut = {other: value for other, value in given[key].items() if other != inner}
                    yield "key of a dict left out", put((name, {**given, key: cut}))


def right(request: Request, calls: list[Call]) -> bool:
    """Whether these calls are right by our judgement, as a model would write them."""
    written = native.write([ToolCall(name, dict(given)) for name, given in calls])
    return judge(request, native.read(written, request.tools)).outcome == "exact_call"


def theirs(row: dict[str, Any], calls: list[Call], without: tuple[str, ...] = ()) -> bool:
    rules = dataclasses.replace(PUBLISHED, **dict.fromkeys(without, False))
    return accepts(row["function"], row["ground_truth"], calls, rules)


def explanation(row: dict[str, Any], calls: list[Call], ours: bool) -> tuple[str, ...]:
    """The fewest rules of theirs without which they say what we say; none where they say it as they are."""
    sets = (names for size in range(len(DIFFERENCES)) for names in itertools.combinations(DIFFERENCES, size))
    return next((names for names in sets if theirs(row, calls, names) == ours), tuple(DIFFERENCES))
