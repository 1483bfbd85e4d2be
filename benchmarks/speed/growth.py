"""How cost grows as the work does: time and memory at two sizes each, and the exponent between them.

1 is linear: ten times the rows in ten times the time. Time is that of the whole work, as far as it grows.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.speed import clock, sampling, training, workload
from benchmarks.speed.contest import alone
from benchmarks.speed.workload import Work


class Axis(NamedTuple):
    """What grows, how many times, from which work to which; `measure` gives seconds and the most bytes held."""

    what: str
    times: int
    small: Work
    large: Work
    measure: Callable[[Work, Path], tuple[float, int]]


def _steps(work: Work, folder: Path) -> tuple[float, int]:
    reading = training.train(work, "ours", folder)
    return reading.seconds, reading.peak_bytes


def _answers(work: Work, folder: Path) -> tuple[float, int]:
    found = sampling.sample(work, "ours", folder)
    return found["seconds"], found["peak_bytes"]


def _judged(work: Work, _folder: Path) -> tuple[float, int]:
    """Completions of requests with `requests` tools on offer."""
    from benchmarks import scoring
    from data.transcript import Tool

    made = []
    for row in scoring.rows(2000, 150, "growth"):
        own = row.request.tools
        more = (Tool(f"{tool.name}_{number}", tool.description, tool.parameters) for number in range(9) for tool in own)
        tools = (*own, *more)[: work.requests]
        made.append(row._replace(request=dataclasses.replace(row.request, tools=tools)))
    for row in made[:200]:
        scoring.scored(row)
    began = time.perf_counter()
    for row in made:
        scoring.scored(row)
    return time.perf_counter() - began, clock.peak_bytes()


def _encoded(work: Work, folder: Path) -> tuple[float, int]:
    """Prompts of requests with this many tokens of tools."""
    from stages._sampling import encode, prompt_of

    asked = workload.requests(work, folder)
    tokenizer, dialect = workload.speech(workload.settings_of_model(work, folder))
    encode(tokenizer, prompt_of(tokenizer, dialect, asked[0]))
    began = time.perf_counter()
    for request in asked:
        encode(tokenizer, prompt_of(tokenizer, dialect, request))
    return time.perf_counter() - began, clock.peak_bytes()


def axes(size: str) -> list[Axis]:
    """What grows, for a model of this size; rows, prompts as text and judging are the embedded model's."""
    sft, dpo = Work("sft", size, batch=4), Work("dpo", size, batch=2)
    answers = Work("sampling", size, samples=4)
    tiny = Work("sft", "tiny", None, batch=8, steps=10, warmup=2)
    texts, judged = Work("sampling", "tiny", 150, requests=40), Work("judging", "tiny")

    def axis(what: str, times: int, measure: Any, work: Work, **ends: tuple[int, int]) -> Axis:
        small, large = ({key: values[place] for key, values in ends.items()} for place in (0, 1))
        return Axis(what, times, dataclasses.replace(work, **small), dataclasses.replace(work, **large), measure)

    return [
        axis("rows, fine-tuned", 10, _steps, tiny, steps=(10, 100)),
        axis("tokens of prompts, fine-tuned", 4, _steps, sft, prompt_tokens=(250, 1000)),
        axis("tokens of prompts, DPO", 4, _steps, dpo, prompt_tokens=(250, 1000)),
        axis("tokens of prompts, sampled", 4, _answers, answers, prompt_tokens=(250, 1000)),
        axis("tools on offer, prompts rendered and encoded", 10, _encoded, texts, prompt_tokens=(150, 1500)),
        axis("tools on offer, answers judged", 10, _judged, judged, requests=(5, 50)),
        axis("answers to a request", 4, _answers, answers, samples=(2, 8)),
        axis("vocabulary, fine-tuned", 8, _steps, sft, vocabulary=(4096, 32768)),
        axis("vocabulary, sampled", 8, _answers, answers, vocabulary=(4096, 32768)),
    ]


def measure(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The entry `growth` of results.json."""
    rows = []
    for number, axis in enumerate(axes("30m")):
        cost = []
        for place, work in enumerate((axis.small, axis.large)):
            home, log = folder / f"growth{number}{place}", folder / "growth.log"
            if work.kind != "judging":
                alone(log, workload.prepare, work, home)
            cost.append(min(alone(log, axis.measure, work, home) for _ in range(min(3, chosen.rounds))))
        (short, light), (long, heavy) = cost
        rows.append(
            {"what": axis.what, "times": axis.times, "seconds": [short, long], "bytes": [light, heavy]}
            | {
                "time_exponent": math.log(long / short, axis.times),
                "memory_exponent": math.log(heavy / light, axis.times),
            }
        )
        print(table(rows)[-1], flush=True)
    return {"growth": rows}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """As Markdown."""
    lines = ["| what grows | times | seconds | exponent | GiB at the peak | exponent |", "|---|---|---|---|---|---|"]
    for row in rows:
        seconds = " to ".join(f"{each:.3g}" for each in row["seconds"])
        memory = " to ".join(f"{each / 2**30:.2f}" for each in row["bytes"])
        lines.append(
            f"| {row['what']} | {row['times']:g} | {seconds} | {row['time_exponent']:.2f} | {memory} |"
            f" {row['memory_exponent']:.2f} |"
        )
    return lines
