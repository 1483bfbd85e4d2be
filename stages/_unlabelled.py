"""Prompts that nobody labelled, as requests for preference pairs: where rules are sure that no call is right.

A row is {messages, tools} as openai rows write them, without the assistant's last turn. The rules of
rewards/_necessity.py give the act; what it does not give is which text, or which call, would be right. So a prompt that
needs a tool makes no request, and of one that needs none every text of the right act is as good as any other: its pairs
set an answer, a question or a refusal of the policy's own against a needless call. A policy that calls for everything
refuses nothing, so that a refusal may also be one that the data has for another request. What makes no request is
counted, by the reason.

Where the rules name no act, the policy can be asked what it knows of itself: with pairs.probe=N it answers the prompt N
times without tools, and where all of them say the same the prompt is a request to answer just that. A policy may agree
with itself on what is wrong: benchmarks/necessity.py says how often.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.transcript import DataError, Expected, Request
from stages._errors import UserError

if TYPE_CHECKING:
    from types import ModuleType

    from rewards._necessity import Necessity
    from stages._sampling import Completion

_SHOWN = 20  # mistakes that are listed; the rest is counted


def read(file: str) -> list[Request]:
    """The prompts of a file, each as a request of which nothing is known; UserError with every row that is none."""
    from data import _files, source
    from data.formats import openai

    refusal = _files.refusal(file) if Path(file).is_file() else "there is no such file"
    if refusal:
        raise UserError(f"pairs.unlabelled: {file}: {refusal}")
    try:
        rows = source.parsed("pairs.unlabelled", file, openai.read_prompt, "row")
    except DataError as error:
        more = len(error.lines) - _SHOWN
        raise UserError(*error.lines[:_SHOWN], *([f"and {more} more"] if more > 0 else [])) from None
    unknown = Expected("answer")  # no rule looks at it, and `labelled` puts another in its place
    return [
        Request(f"unlabelled/{number}/{own}", "", tools, messages, unknown)
        for number, (own, tools, messages) in enumerate(rows)
    ]


def joins(found: Necessity, least: float) -> bool:
    """Whether rules say, with at least this confidence, that another act than a call is right."""
    return found.act not in (None, "call") and found.confidence >= least


def unsure(requests: Sequence[Request]) -> list[Request]:
    """Those for which the rules name no act, without their tools, as a policy is asked that has to know by itself."""
    from rewards._necessity import necessity

    return [replace(request, tools=()) for request in requests if necessity(request).act is None]


def agreed(request: Request, completions: Sequence[Completion], dialect: ModuleType) -> str | None:
    """What all of them answer, in the words of the shortest; None where one says something else, or does."""
    from rewards import judge
    from stages._control import plain

    readings = [dialect.read(plain(one.text), ()) for one in completions]
    text = min((str(reading.text).strip() for reading in readings), key=len)
    like = replace(request, expected=Expected("answer", text=text))
    for reading, one in zip(readings, completions, strict=True):
        judgement = judge(like, reading, one.truncated)
        if judgement.outcome != "right_answer" or judgement.components["act"] != "answer":
            return None
    return text


def labelled(
    requests: Sequence[Request],
    others: Sequence[Request],
    least: float,
    seed: int,
    known: Mapping[str, str] | None = None,
) -> tuple[list[Request], dict[str, Any]]:
    """The requests where rules say with at least this confidence that no call is right, or which the policy answers of
    itself (`known`, by their ids), and what report.json says.

    {prompts: how many there were, joined: {reason: how many became requests}, left_out: {reason: how many did not}}
    Their refusals are drawn from those of `others`.
    """
    from rewards._necessity import necessity

    dice = random.Random(f"unlabelled {seed}")
    refusals = [one.gold for one in others if one.expected.act == "refuse" and one.gold]
    kept: list[Request] = []
    joined, left = Counter[str](), Counter[str]()
    for request in requests:
        found = necessity(request)
        if known and request.id in known:
            joined["known"] += 1
            kept.append(replace(request, kind="known", expected=Expected("answer", text=known[request.id])))
            continue
        if found.act is None or not joins(found, least):
            left[found.reason] += 1
            continue
        joined[found.reason] += 1
        gold = dice.choice(refusals) if refusals and found.act == "refuse" else None
        kept.append(replace(request, kind=found.reason, expected=Expected(found.act), gold=gold))
    counts = {"joined": dict(sorted(joined.items())), "left_out": dict(sorted(left.items()))}
    return kept, {"prompts": len(requests)} | counts
