"""Our judgement of BFCL rows against the published rules of the benchmark, on right calls and on changed ones.

Each case where the two differ must belong to one of DIFFERENCES; without those rules the two agree on every case.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data.dialects import native
from data.formats import bfcl
from data.transcript import ToolCall
from rewards import judge, right_outcome
from tests.bfcl_cases import CHANGES, DIFFERENCES, cases, explanation, right, theirs
from tests.bfcl_rules import Rules, accepts

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"

# The same where no call is right, and theirs asks for none and nothing more.
TEXT_DIFFERENCES = {
    "unreadable": "theirs takes an attempt that does not parse for no call; ours counts every attempt",
    "wrong_act": "theirs takes any text; ours tells a question and a refusal from the answer that the row is read as",
    "empty": "theirs takes an empty text for a text; ours does not",
}


def function(name: str, required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    listed = {key: {"description": key, **({"type": kind} if isinstance(kind, str) else kind)}
              for key, kind in properties.items()}  # fmt: skip
    parameters = {"type": "dict", "properties": listed, "required": list(required)}
    return {"name": name, "description": name, "parameters": parameters}


def row(name: str, functions: list[dict[str, Any]], *wanted: dict[str, Any]) -> dict[str, Any]:
    question = [[{"role": "user", "content": "Do it, please."}]]
    return {"id": f"own_{name}", "question": question, "function": functions, "ground_truth": list(wanted)}


BOOK = function("hotel.book", ("city", "nights"), city="string", nights="integer", price="float", breakfast="boolean")
MOVE = function("move", ("path",), path={"type": "array", "items": {"type": "float"}}, names={
    "type": "array", "items": {"type": "string"}}, speed="float")  # fmt: skip
FIND = function("find", ("where",), where={"type": "dict", "properties": {
    "min": {"type": "integer"}, "tag": {"type": "string"}}}, rows={"type": "array", "items": {"type": "dict"}},
    at={"type": "tuple", "items": {"type": "float"}}, what="any")  # fmt: skip
OWN = [
    row("simple", [BOOK], {"hotel.book": {"city": ["St. John's", "Saint John's, NL"], "nights": [3],
        "price": [80.0, 80.5, ""], "breakfast": [True, ""]}}),
    row("lists", [MOVE, BOOK], {"move": {"path": [[1.0, 2.5], [1.0, 3.0]], "names": [["a-1", "b_2"], ""],
        "speed": [4, ""]}}),
    row("dicts", [FIND], {"find": {"where": [{"min": [1, 2], "tag": ["new", ""]}], "rows": [[{"k": [1], "t": ["x"]},
        {"k": [2], "t": [["x", "y"]]}], ""], "at": [[0.5, 1.0], ""], "what": ["all", 7, ""]}}),
    row("parallel", [BOOK, MOVE], {"hotel.book": {"city": ["Oslo", "Oslo, Norway"], "nights": [2, 3]}},
        {"hotel.book": {"city": ["Oslo"], "nights": [2]}}, {"move": {"path": [[0.0]]}}),
    row("many", [MOVE], *({"move": {"path": [[float(n)]]}} for n in range(2, 9)), {"move": {"path": [[1.0], [0.0]]}},
        {"move": {"path": [[0.0]]}}),
    row("breaking", [BOOK], {"hotel.book": {"city": [7, "Rome"], "nights": [2, ""], "price": [None, 5.5]}}),
    row("unlisted", [BOOK], {"hotel.book": {"city": ["Rome"], "rooms": [2]}}),
]  # fmt: skip


def published(part: str) -> list[dict[str, Any]]:
    file = SAMPLES / f"bfcl_v4_{part}.jsonl"
    if not file.exists():
        pytest.skip("the sample rows are not beside this checkout")
    complete = bfcl.completing(file, next((path for path in bfcl.companions(file) if path.is_file()), None), 0, 0)
    return [complete(json.loads(line), f"{file}:1") for line in file.read_text(encoding="utf-8").splitlines()]


KINDS = {
    *("as accepted", "order of calls changed", "call repeated", "call dropped", "another's call instead"),
    *("function renamed", "extra parameter", "documented parameter that is not accepted", "optional left out"),
    *("missing required", "optional given as an empty text", "another accepted value", "optional given wrongly"),
    *("list reordered", "list cut", "dict reordered", "key of a dict left out", *CHANGES),
}


def compared(rows: list[dict[str, Any]]) -> Counter[tuple[str, tuple[str, ...]]]:
    """How many cases there are of each kind and each set of DIFFERENCES that explains them; () where both agree."""
    counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for found in rows:
        request = bfcl.read(found, found["id"])
        for kind, calls in cases(found):
            ours = right(request, calls)
            assert ours == theirs(found, calls, tuple(DIFFERENCES)), (found["id"], kind, calls, ours)
            counts[kind, explanation(found, calls, ours)] += 1
    return counts


def test_the_differences_are_the_rules_that_can_be_switched_off():
    assert set(DIFFERENCES) == {field.name for field in dataclasses.fields(Rules)}


def test_both_agree_on_rows_of_our_own_but_for_the_known_differences():
    counts = compared(OWN)
    assert {kind for kind, _ in counts} == KINDS
    assert {name for _, why in counts for name in why} == set(DIFFERENCES)  # each of them does occur


@pytest.mark.parametrize("part", ["simple_python", "multiple", "parallel"])
def test_both_agree_on_published_rows_but_for_the_known_differences(part):
    counts = compared(published(part))
    assert all(len(why) <= 1 for _, why in counts)  # one difference explains each case
    assert not any(why for kind, why in counts if kind == "as accepted")


@pytest.mark.parametrize("part", ["own", "irrelevance"])
def test_where_no_call_is_right_both_refuse_calls(part):
    rows = published(part) if part != "own" else [row("nothing", [BOOK, MOVE])]
    differences: Counter[str] = Counter()
    for found in rows:
        request = bfcl.read(found, found["id"])
        call = native.write([ToolCall(request.tools[0].name, {})])
        for text in ("It is so.", "I cannot do that.", "Which one?", "", call, call[:-1], f"{request.tools[0].name}("):
            reading = native.read(text, request.tools)
            judgement = judge(request, reading)
            ours = judgement.outcome == right_outcome(request)
            if accepts(found["function"], [], [(each.name, each.arguments) for each in reading.calls]) != ours:
                assert not ours
                differences["unreadable" if reading.malformed else judgement.outcome] += 1
    assert set(differences) == set(TEXT_DIFFERENCES)
