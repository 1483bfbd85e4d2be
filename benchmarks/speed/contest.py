"""A contest: every contender in processes of its own, in turns, and what comes of it as a row of the table."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

Found = dict[str, list[dict[str, Any]]]  # what each contender came to, round by round


def alone(log: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in a new process, whose output goes to a file."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _into, (log,)) as process:
        return process.submit(function, *arguments).result()


def _into(log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def contest(
    name: str, contenders: Sequence[str], rounds: int, measure: Callable[[str, int], dict[str, Any]]
) -> tuple[Found, float]:
    """Each contender once a round, in an order that turns round every time; and the seconds that all of it took."""
    found: Found = {who: [] for who in contenders}
    began = time.monotonic()
    for turn in range(rounds):
        for who in contenders if turn % 2 == 0 else reversed(contenders):
            found[who].append(measure(who, turn))
            print(f"{name}, round {turn + 1} of {rounds}: {who} {_short(found[who][-1])}", flush=True)
    return found, time.monotonic() - began


def _short(fields: dict[str, Any]) -> str:
    shown = ("rate", "seconds", "cpu_seconds", "pad_efficiency", "peak_gib")
    return ", ".join(f"{key} {fields[key]:.4g}" for key in shown if key in fields)


def ratios(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of the ratios of the same rounds."""
    each = [one / other for one, other in zip(over, under, strict=True)]
    return {"ratio": statistics.median(each), "low": min(each), "high": max(each)}


def middle(found: Found, who: str, key: str) -> float | None:
    """The median of a field of a contender, None where it has none."""
    values = [fields[key] for fields in found[who] if fields.get(key) is not None]
    return statistics.median(values) if values else None


def result(found: Found, key: str, unit: str, less_is_better: bool = False) -> dict[str, Any]:
    """An entry of results.json: `ratio` is ours to the notebook's, or turned round for seconds, so that it says how
    many times faster; beside it the same against TRL at its best, and everything that explains it.
    """
    series = {who: [fields[key] for fields in rows] for who, rows in found.items()}

    def against(other: str) -> dict[str, float]:
        return ratios(series[other], series["ours"]) if less_is_better else ratios(series["ours"], series[other])

    entry: dict[str, Any] = {who: statistics.median(values) for who, values in series.items()}
    entry |= against("notebook") | {"unit": unit, "rounds": len(series["ours"])}
    if "best" in series:
        entry["against_best"] = against("best")
    entry["contenders"] = {
        who: {name: middle(found, who, name) for name in rows[0] if isinstance(rows[0][name], int | float)}
        for who, rows in found.items()
    }
    return entry
