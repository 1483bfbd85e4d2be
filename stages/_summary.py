"""What evaluation found, as lines of text for a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages import _benchmarks, _passes
from stages._charts import interval, percent, points
from stages._comparisons import adjusted
from stages._examples import asked, expected_text, instructive, one_line
from stages._files import read_json, read_jsonl
from stages._manifest import read_manifest
from stages._metrics import contrast
from stages._report import VIEWED, Predictions, compared, constrained, probability, same_completions

Fields = Mapping[str, Any]
_COLUMNS = (
    ("exact_call_rate", "exact calls"),
    ("false_tool_call_rate", "false calls"),
    ("missed_call_rate", "missed calls"),
    ("answer_accuracy", "right answers"),
)
_CELL = 22  # 100.0 % [97.7, 100.0]
_PAIR = 18  # 100.0 % / 100.0 %


def evaluation_in(folder: Path) -> tuple[dict[str, Fields], list[Fields], dict[str, dict[str, Fields]], str | None]:
    """metrics.json, requests.jsonl and predictions.jsonl (by model and request id) of a done evaluation, and the model
    whose adapter was merged, where that is known.
    """
    predictions: dict[str, dict[str, Fields]] = {}
    for row in read_jsonl(folder / "predictions.jsonl"):
        predictions.setdefault(row["model"], {})[row["id"]] = row
    merged_from = (read_manifest(folder) or {}).get("facts", {}).get("merged_from")
    return read_json(folder / "metrics.json"), list(read_jsonl(folder / "requests.jsonl")), predictions, merged_from


def findings(
    metrics: Mapping[str, Fields], requests: Sequence[Fields], predictions: Predictions, merged_from: str | None = None
) -> list[str]:
    """Tables and verdict."""
    more = _benchmarks.lines([*_passes.tables(metrics), *_benchmarks.tables(metrics)])
    return [*tables(metrics), *more, "", *verdict(metrics, requests, predictions, merged_from)]


def table(metrics: Mapping[str, Fields]) -> list[str]:
    """The models side by side: exact calls, both errors and right answers, with intervals and what they are over."""
    first = next(iter(metrics.values()))
    width = max(map(len, metrics))
    return [
        f"{first['n']:,} held-out requests: {first['n_call']:,} need a call, {first['n_no_call']:,} do not",
        "  ".join([" " * width, *(f"  {label}".ljust(_CELL) for _, label in _COLUMNS)]).rstrip(),
        *(
            "  ".join([model.ljust(width), *(_cell(fields, name) for name, _ in _COLUMNS)]).rstrip()
            for model, fields in metrics.items()
        ),
    ]


def tables(metrics: Mapping[str, Fields]) -> list[str]:
    """`table` for all requests, for those whose tools were never seen in training where there are any, and `views`
    where there are two.
    """
    unseen = {model: fields["unseen_tools"] for model, fields in metrics.items()}
    lines = table(metrics)
    if next(iter(unseen.values()))["n"]:
        head, *rest = table(unseen)
        lines += ["", f"on tools unseen in training, {head}", *rest]
    if held := constrained(metrics):
        lines += ["", *views(metrics, held)]
    return lines


def views(metrics: Mapping[str, Fields], held: Mapping[str, Fields]) -> list[str]:
    """Free decoding beside constrained decoding, a line a model."""
    width = max(map(len, held))
    return [
        "free / constrained decoding (calls, once open, are held to the schemas on offer)",
        "  ".join([" " * width, *(f"  {rate.label.lower()}".ljust(_PAIR) for rate in VIEWED)]).rstrip(),
        *(
            "  ".join(
                [model.ljust(width), *(_pair(metrics[model][rate.name], fields[rate.name]) for rate in VIEWED)]
            ).rstrip()
            for model, fields in held.items()
        ),
    ]


def _pair(free: float | None, held: float | None) -> str:
    return f"{percent(free):>7} / {percent(held):>7}".ljust(_PAIR)


def _cell(fields: Fields, name: str) -> str:
    return f"{percent(fields[name]):>7} {interval(fields[f'{name}_ci'])}".ljust(_CELL)


def verdict(
    metrics: Mapping[str, Fields], requests: Sequence[Fields], predictions: Predictions, merged_from: str | None = None
) -> list[str]:
    """What the preference step changed, a line for each error, and whether merging changed anything."""
    lines = []
    if pair := compared(list(metrics)):
        before, after = (metrics[model] for model in pair)
        tests = contrast(requests, *(predictions[model] for model in pair))
        by_holm, moves = adjusted(tests), []
        for name, label, over in (
            ("false_tool_call_rate", "false calls", "n_no_call"),
            ("missed_call_rate", "missed calls", "n_call"),
        ):
            if not before[over]:
                moves.append(f"{label} -")
                continue
            moves.append(f"{label} {percent(before[name])} -> {percent(after[name])}")
            fixed, broken, _, difference, ends = tests[name]
            counts = f"of {before[over]}, {fixed} put right and {broken} newly wrong"
            lines.append(f"  {label}: {points(difference, ends)}; {counts}, McNemar {probability(by_holm[name])}")
        lines.insert(0, f"{pair[0]} -> {pair[1]}: {', '.join(moves)}")
    if same := same_completions(predictions, merged_from):
        lines.append(f"{same[0]} and merged: the same completion to {same[1]} of {len(requests)} requests")
    return lines


def expected_against_predicted(requests: Sequence[Fields], predictions: Predictions, count: int = 4) -> list[str]:
    """A few requests chosen by the report's rule, each with what was right and what each model said."""
    known = {request["id"]: request for request in requests}
    models = list(predictions)
    chosen = instructive(requests, predictions, *(compared(models) or (models[0], models[0])), count)
    lines = []
    for id_, _ in chosen:
        said: dict[tuple[str, str], list[str]] = {}
        for model, rows in predictions.items():
            said.setdefault((_said(rows[id_]), rows[id_]["outcome"]), []).append(model)
        entries = [("expected", one_line(expected_text(known[id_]["expected"])), "")]
        entries += [(", ".join(names), text, f"  ({outcome})") for (text, outcome), names in said.items()]
        width = max(len(name) for name, *_ in entries)
        lines += [f"  {one_line(known[id_]['kind'], 40)}: {one_line(asked(known[id_]['messages']))}"]
        lines += [f"    {name:{width}}  {text}{outcome}" for name, text, outcome in entries]
    return lines


def _said(row: Fields) -> str:
    """What a model said, in the form of what was expected where it reads as calls."""
    if row["calls"] and row["outcome"] != "malformed_call":
        calls = " and ".join(
            f"{call['name']} {json.dumps(call['arguments'], ensure_ascii=False)}" for call in row["calls"]
        )
        return one_line(f"call {calls}")
    return one_line(row["completion"]) or "nothing"
