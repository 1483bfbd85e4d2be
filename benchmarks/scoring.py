"""How many completions a second are scored on one core: read, judged and given points by every rule of the table.

    python -m benchmarks.scoring [completions]

Completions (2,000 of each size by default) of about 150 bytes and of about 1 kB, each with a request of its own and
five tools on offer, chosen from thirty; every outcome there is has an equal share. Beside it, on the same completions:
a pattern, json.loads and jsonschema.validate, and a pattern, json.loads and the checker of tests/bfcl_rules.py, which
judge less. All of them take turns over five rounds of new rows; rates are over CPU time,
the median with the lowest and the highest.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jsonschema

from data.dialects import native
from data.transcript import AcceptedCall, Expected, Message, Request, Tool, ToolCall
from rewards import OUTCOMES, RewardConfig, judge, points
from tests import bfcl_rules

ROUNDS = 5
CLOSE = "\n</tool_call>"
CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)
CITIES = ("Oslo", "Rome", "Lima", "Cairo", "Quito", "Delhi", "Tunis", "Osaka")
NOUNS = ("the river", "an old bridge", "two markets", "the harbour", "a quiet street", "the hill", "some gardens")
VERBS = ("lies behind", "was built before", "is larger than", "leads to", "can be seen from", "closes earlier than")
CATALOGUE = tuple(
    Tool(
        f"{verb}_{noun}",
        f"Does {verb} a {noun}.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 1},
                "unit": {"type": "string", "enum": ["metric", "imperial"]},
                "limit": {"type": "number"},
                "notes": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["city", "days"],
        },
    )
    for verb in ("get", "find", "book", "move", "list")
    for noun in ("hotel", "train", "forecast", "ticket", "parcel", "museum")
)
TABLE = RewardConfig()


class Row(NamedTuple):
    """A completion of a request, and the request as the checker of the benchmark's rules takes it."""

    request: Request
    text: str
    functions: list[dict[str, Any]]
    wanted: list[dict[str, dict[str, list[Any]]]]


def sentence(dice: random.Random) -> str:
    """A statement that is unlike the others by its numbers."""
    return f"{dice.choice(NOUNS).capitalize()} {dice.choice(VERBS)} {dice.choice(NOUNS)} by {dice.randrange(999)} m."


def prose(dice: random.Random, size: int) -> str:
    """Sentences of about this many characters."""
    text = sentence(dice)
    while len(text) < size - 25:
        text += f" {sentence(dice)}"
    return text


def written(call: ToolCall) -> str:
    """A call as the native dialect has it."""
    return native.write([call])


def row(outcome: str, size: int, dice: random.Random) -> Row:
    """A request and a completion of about `size` bytes that comes to this outcome."""
    tools = tuple(dice.sample(CATALOGUE, 5))
    city, days = f"{dice.choice(CITIES)} {dice.randrange(10_000)}", dice.randint(1, 500)
    notes = [sentence(dice) for _ in range((size - 150) // 52)]
    asked = f"What about {city} for {days} days, in metric units? {' '.join(notes)}"
    right = {"city": city, "days": days, "unit": "metric", "limit": 2.5} | ({"notes": notes} if notes else {})
    gold = ToolCall(tools[0].name, right)
    expected = Expected("call", (AcceptedCall(gold.name, {key: [value] for key, value in right.items()}),))
    fact = f"It is {days} metres (above the sea)."
    rest = prose(dice, size - len(fact))
    text = {
        "exact_call": lambda: written(gold),
        "right_tool_wrong_arguments": lambda: written(ToolCall(gold.name, right | {"city": "Bergen", "limit": 9.5})),
        "wrong_tool": lambda: written(ToolCall(tools[1].name, right)),
        "invalid_arguments": lambda: written(ToolCall(gold.name, right | {"days": str(days)})),
        "unknown_tool": lambda: written(ToolCall("teleport", right)),
        "malformed_call": lambda: written(gold)[: -len(CLOSE) - 2],
        "needless_call": lambda: written(gold),
        "right_answer": lambda: f"{fact} {rest}",
        "wrong_answer": lambda: f"{rest} (I took this from a map.)",
        "asked": lambda: f"{rest} Which of them (or which other one) do you mean?",
        "refused": lambda: f"I cannot look into {city} (no tool does). {rest}",
        "wrong_act": lambda: f"{rest} It is all there (see above).",
        "empty": lambda: f"{city} again and " * (size // 21),
    }.get(outcome, lambda: f"{rest} Let me know (or not) if that helps.")()
    if outcome in ("right_answer", "wrong_answer", "needless_call", "empty"):
        expected = Expected("answer", text=fact)
    elif outcome in ("asked", "refused", "wrong_act"):
        expected = Expected("ask" if outcome == "asked" else "refuse")
    request = Request("r", "benchmark", tools, (Message("user", asked),), expected)
    functions = [tool.as_function()["function"] for tool in tools]
    return Row(request, text, functions, [{call.name: call.arguments} for call in expected.calls])


def rows(count: int, size: int, seed: str) -> list[Row]:
    """So many rows, each outcome in turn."""
    dice = random.Random(seed)
    return [row(OUTCOMES[number % len(OUTCOMES)], size, dice) for number in range(count)]


def check(size: int) -> None:
    """ValueError where a completion does not come to the outcome that it was made for."""
    for one, wanted in zip(rows(20 * len(OUTCOMES), size, "check"), OUTCOMES * 20, strict=True):
        outcome = judge(one.request, native.read(one.text, one.request.tools)).outcome
        if outcome != wanted:
            raise ValueError(f"{one.text!r} was to be {wanted}, is {outcome}")


def scored(one: Row) -> float:
    """What stages do with a completion."""
    reading = native.read(one.text, one.request.tools)
    return points(judge(one.request, reading), TABLE, one.request, reading).points


def loaded(one: Row) -> list[tuple[str, dict[str, Any]]]:
    """The call that a text has, as a notebook reads it; none where it does not parse."""
    found = CALL.search(one.text)
    try:
        call = json.loads(found.group(1)) if found else None
    except ValueError:
        call = None
    if call is None:
        return []
    return [(call["name"], call["arguments"])]


def checked(one: Row) -> bool:
    """By the published rules of BFCL."""
    return bfcl_rules.accepts(one.functions, one.wanted, loaded(one))


def validated(one: Row) -> bool:
    """By JSON Schema."""
    for name, arguments in loaded(one):
        for tool in one.request.tools:
            if tool.name == name:
                try:
                    jsonschema.validate(arguments, tool.parameters)
                except jsonschema.ValidationError:
                    return False
    return True


def rate(score: Callable[[Row], object], made: list[Row]) -> float:
    """Rows a second of CPU time."""
    began = time.process_time()
    for one in made:
        score(one)
    return len(made) / (time.process_time() - began)


def main(count: int) -> None:
    """Make rows, let all of them take turns, and say what was measured."""
    contenders = {
        "ours": scored,
        "json.loads and the BFCL rules": checked,
        "json.loads and jsonschema.validate": validated,
    }
    for size in (150, 1000):
        check(size)  # compiles the schema of each tool as well, which is done once a run, whatever its length
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(ROUNDS):
            made = rows(count, size, f"{size} {turn}")
            for name, score in contenders.items():
                rates[name].append(rate(score, made))
        mean = statistics.mean(len(one.text.encode()) for one in made)
        print(f"completions of {mean:.0f} bytes on average, {count:,} a round")
        for name, found in rates.items():
            print(f"  {name}: {statistics.median(found):,.0f} a second ({min(found):,.0f} to {max(found):,.0f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
