"""sweep.html: the points of a sweep side by side, from sweep.json and the files of their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages import _objective, _report
from stages._files import read_jsonl
from stages._objective import BALANCED, FALSE, MISSED, validated
from stages._progress import duration
from stages._settings import SweepConfig, last_steps
from stages._sweep_charts import Curve, Dot, curves, dose, hues, trade_off
from stages._tracked import flat

Fields = Mapping[str, Any]
_SHOWN = (
    (FALSE, "false calls"),
    (MISSED, "missed calls"),
    (BALANCED, "balanced accuracy"),
    ("exact_call_rate", "exact calls"),
)
_CURVES = (  # what to draw of what stages log, by how it is called here
    *(("loss", "loss"), ("rewards/margins", "margin"), ("rewards/accuracies", "pairs in order")),
    *(("points", "points"), ("sampled/points", "points"), ("reward", "reward"), ("kl", "KL")),
)
_DRAWN = 4  # of these, at most


def page(
    folder: Path, summary: Fields, sweep: SweepConfig, command: str | None, kept: Sequence[str], asked: str
) -> str:
    """The report. `command` makes the recommended point the run's own, `kept` is what all points have in common, and
    `asked` says how many requests were sampled.
    """
    from markupsafe import Markup

    points = summary["points"]
    hue = hues([entry["job"] for entry in points])
    best = summary["recommended"]
    chosen = best["job"] if best else None
    rows = [_row(number, entry, hue, chosen) for number, entry in enumerate(points, 1)]
    measured = [
        row for row in rows if row["rates"][FALSE]["value"] is not None and row["rates"][MISSED]["value"] is not None
    ]
    dots = [_dot(row) for row in measured]
    run = folder.parents[1]
    return _report.page(
        "_sweep_report.html",
        title=summary["sweep"],
        summary=summary,
        rows=rows,
        keys=summary["keys"],
        short=last_steps(summary["keys"]),
        best=next((row for row in rows if row["chosen"]), None),
        why=best["why"] if best else None,
        command=command,
        shown=_SHOWN,
        counts=_counts(measured),
        bounds=_objective.bounds(sweep),
        goal=_goal(sweep),
        trade_off=Markup(trade_off(dots, (sweep.max_false, sweep.max_missed))) if dots else None,
        doses=[
            Markup(dose(key, [row["values"][key] for row in measured], dots)) for key in _varying(summary, measured)
        ],
        curves=[Markup(curves(label, lines)) for label, lines in _logged(run, rows)],
        differences=_differences(run, rows),
        time=duration(summary["wall_seconds"]),
        asked=asked if summary["sampled_requests"] or summary["cached_requests"] else None,
        facts={
            "run": summary["run"],
            "stage": summary["stage"],
            "points": f"{len(points)}, over {', '.join(summary['keys']) or 'nothing'}",
            "all points": " ".join(kept) or "the defaults",
            "samples": asked,
            "judged by": _goal(sweep),
        },
    )


def _row(number: int, entry: Fields, hue: Mapping[str, int], chosen: str | None) -> Fields:
    """A point as the table shows it."""
    metrics = entry["metrics"] or {}
    rates = {name: {"value": validated(metrics, name), "ci": validated(metrics, f"{name}_ci")} for name, _ in _SHOWN}
    values = dict(override.lstrip("+").split("=", 1) for override in entry["overrides"] if "=" in override)
    objective = entry["objective"]
    shown = objective if isinstance(objective, list) else [] if objective is None else [objective]
    return {
        **entry,
        "number": number,
        "hue": hue[entry["job"]],
        "values": values,
        "rates": rates,
        "n": {name: metrics.get(f"validation_{name}") for name in ("n_call", "n_no_call")},
        "shown_objective": ", ".join(f"{value:.4g}" for value in shown),
        "time": "-" if entry["seconds"] is None else duration(entry["seconds"]),
        "chosen": entry["job"] == chosen,
    }


def _dot(row: Fields) -> Dot:
    false, missed = row["rates"][FALSE], row["rates"][MISSED]
    ends = (false["ci"] or [false["value"]] * 2, missed["ci"] or [missed["value"]] * 2)
    return Dot(str(row["number"]), row["hue"], _name(row), false["value"], missed["value"], *ends, row["chosen"])


def _name(row: Fields) -> str:
    """A point as the charts name it: its number in the table, and its job."""
    return f"{row['number']} {row['job']}"


def _counts(measured: Sequence[Fields]) -> str:
    """What the rates are over, in words."""
    if not measured:
        return ""
    n = measured[0]["n"]
    return f"{n['n_no_call']} validation requests that need no call and {n['n_call']} that do"


def _goal(sweep: SweepConfig) -> str:
    """The objective in words."""
    if named := _objective.names(sweep):
        return ", ".join(named)
    return (
        f"balanced accuracy less {sweep.penalty:g} times what an error is above its bound ({_objective.bounds(sweep)});"
        " the validation loss where no rates are measured"
    )


def _varying(summary: Fields, measured: Sequence[Fields]) -> list[str]:
    """The swept settings that have more than one value among the measured points."""
    return [key for key in summary["keys"] if len({row["values"].get(key) for row in measured} - {None}) > 1]


def _logged(run: Path, rows: Sequence[Fields]) -> list[tuple[str, list[Curve]]]:
    """For each metric that was logged, the curves of the points that trained themselves."""
    found: dict[str, list[Curve]] = {}
    for row in rows:
        log = run / row["trained"] / "log.jsonl" if row.get("trained") else None
        if log is None or row["identical_to"] or not log.exists():
            continue
        logged = [each for each in read_jsonl(log) if isinstance(each.get("step"), int | float)]
        for name, label in _CURVES:
            seen = [(each["step"], each[name]) for each in logged if isinstance(each.get(name), int | float)]
            if len(seen) > 1:
                steps, values = zip(*seen, strict=True)
                curve = Curve(_name(row), row["hue"], steps, values, row["chosen"])
                if all(each.name != curve.name for each in found.setdefault(label, [])):
                    found[label].append(curve)
    return list(found.items())[:_DRAWN]


def _differences(run: Path, rows: Sequence[Fields]) -> dict[str, list[str]]:
    """The settings in which the configurations of the done points differ, with the value of each point."""
    import yaml

    configs: list[dict[str, str]] = []
    for row in rows:
        path = run / row["trained"] / "config.yaml" if row.get("trained") else None
        there = yaml.safe_load(path.read_text(encoding="utf-8")) if path and path.exists() else {}
        configs.append({field: "null" if value is None else str(value) for field, value in flat(there)})
    known = [config for config in configs if config]
    fields = dict.fromkeys(field for config in known for field in config)
    return {
        field: [config.get(field, "") for config in configs]
        for field in fields
        if len({config.get(field) for config in known}) > 1
    }
