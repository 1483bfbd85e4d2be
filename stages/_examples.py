"""Which predictions are worth a look, and how requests and completions are shown to people without trusting them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

RIGHT = frozenset({"exact_call", "right_answer", "asked", "refused"})
# What would move a terminal's cursor or reorder the text around it is shown as a code and never obeyed; joiners stay,
# because some scripts cannot be written without them.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Example(NamedTuple):
    """A request chosen for people to read, and why."""

    id: str
    why: str


def rule(first: str, second: str, count: int = 10) -> str:
    """The rule of `instructive` in words."""
    gains = most_better(count)
    return (
        f"Chosen by rule, not by hand: requests where {first} and {second} differ in points, up to {gains} where"
        f" {second} gained and {count - gains} where it lost, the largest change first and one of each kind in turn;"
        " where one side is short the other fills up, then requests that both got wrong, then others."
    )


def most_better(count: int) -> int:
    """How many of `count` examples may show a gain: rather more than half, so that losses stay in sight."""
    return count - 2 * count // 5


def instructive(
    requests: Sequence[Mapping[str, Any]],
    predictions: Mapping[str, Mapping[str, Mapping[str, Any]]],
    first: str,
    second: str,
    count: int = 10,
) -> list[Example]:
    """Choose requests by `rule`. `predictions` holds, by model and request id, the rows of predictions.jsonl."""
    gain = {r["id"]: predictions[second][r["id"]]["points"] - predictions[first][r["id"]]["points"] for r in requests}
    right = {r["id"]: predictions[second][r["id"]]["outcome"] in RIGHT for r in requests}
    order = sorted(requests, key=lambda request: -abs(gain[request["id"]]))
    better = by_turns([request for request in order if gain[request["id"]] > 0])
    worse = by_turns([request for request in order if gain[request["id"]] < 0])
    wrong = by_turns([r for r in requests if gain[r["id"]] == 0 and not right[r["id"]]])
    rest = by_turns([r for r in requests if gain[r["id"]] == 0 and right[r["id"]]])
    losses = min(len(worse), max(count - most_better(count), count - len(better)))
    gains = min(len(better), count - losses)
    chosen = [
        *(Example(id_, f"{second} better than {first}") for id_ in better[:gains]),
        *(Example(id_, f"{second} worse than {first}") for id_ in worse[:losses]),
        *(Example(id_, "wrong in both") for id_ in wrong),
        *(Example(id_, "right in both") for id_ in rest),
    ]
    return chosen[:count]


def by_turns(requests: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids with one of each kind in turn, kinds in their order of appearance."""
    kinds: dict[str, list[str]] = {}
    for request in requests:
        kinds.setdefault(request["kind"], []).append(request["id"])
    rounds = max(map(len, kinds.values()), default=0)
    return [ids[turn] for turn in range(rounds) for ids in kinds.values() if turn < len(ids)]


def visible(text: str) -> str:
    """Text with control, direction and surrogate characters written as codes; line breaks and tabs stay."""
    return "".join(f"\\u{ord(char):04x}" if _hidden(char) else char for char in text)


def _hidden(char: str) -> bool:
    return char not in "\n\t" and (char in _BIDI or unicodedata.category(char) in _UNPRINTABLE)


def clip(text: str, length: int) -> str:
    """The beginning of a long text, and how much was left out."""
    return text if len(text) <= length else f"{text[:length]} … ({len(text) - length:,} more characters)"


def one_line(text: str, length: int = 88) -> str:
    """Untrusted text on one line of a terminal."""
    flat = " ".join(visible(text[: 4 * length]).split())
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"


def expected_text(expected: Mapping[str, Any]) -> str:
    """What is right, in one line: `call weather {"city": "Oslo" | "oslo", "unit"?: "c"}`, or the act and its text."""
    if expected["act"] != "call":
        return f"{expected['act']}: {expected['text']}" if expected["text"] else f"{expected['act']} (any wording)"
    return "call " + " and ".join(map(_call, expected["calls"]))


def _call(call: Mapping[str, Any]) -> str:
    arguments = (_argument(key, values, call["optional"]) for key, values in call["arguments"].items())
    return f"{call['name']} {{{', '.join(arguments)}}}"


def _argument(key: str, values: Sequence[Any], optional: Sequence[str]) -> str:
    shown = " | ".join(json.dumps(value, ensure_ascii=False) for value in values[:4]) + (
        " | …" if len(values) > 4 else ""
    )
    return f"{json.dumps(key, ensure_ascii=False)}{'?' if key in optional else ''}: {shown}"


def asked(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the model was last told: the last message, with its role where it is not the user's."""
    if not messages:
        return ""
    last = messages[-1]
    return last["content"] if last["role"] == "user" else f"({last['role']}) {last['content']}"
