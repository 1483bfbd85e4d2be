"""What the points of a sweep are judged by, on validation requests alone: test requests are for what was chosen.

The default is balanced accuracy less `sweep.penalty` times what either error rate is above its bound:

    1 - (false + missed) / 2 - penalty (max(0, false - max_false) + max(0, missed - max_missed))

so that neither error can be bought with the other. Where validation requests allow only one of the two errors, it alone
counts, 1 - error less the same penalty; where a stage measures no rates, the negative validation loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages._charts import interval, percent
from stages._errors import UserError, nearest
from stages._metrics import DENOMINATORS
from stages._settings import SweepConfig

FALSE, MISSED, BALANCED, LOSS = "false_tool_call_rate", "missed_call_rate", "balanced_accuracy", "loss"
_SMALL = {FALSE, MISSED, "malformed_rate", LOSS}  # the smaller the better
_KNOWN = (BALANCED, LOSS, *DENOMINATORS)

Point = Mapping[str, Any]  # an entry of `points` in sweep.json


def names(sweep: SweepConfig) -> list[str]:
    """The metrics that sweep.objective names, without validation_; none where it is the default."""
    chosen = [sweep.objective] if isinstance(sweep.objective, str) else sweep.objective or []
    return [name.removeprefix("validation_") for name in chosen]


def check(sweep: SweepConfig) -> None:
    """UserError for an objective that no stage measures on validation requests."""
    if wrong := [name for name in names(sweep) if name not in _KNOWN]:
        raise UserError(
            *(
                f"sweep.objective: {name} is not measured on validation requests{nearest(name, _KNOWN)}"
                for name in wrong
            )
        )


def directions(sweep: SweepConfig) -> list[str]:
    """Whether each objective is to be small or large, in Optuna's words."""
    return ["minimize" if name in _SMALL else "maximize" for name in names(sweep)] or ["maximize"]


def validated(metrics: Mapping[str, Any], name: str) -> Any:
    """A metric on validation requests, or None."""
    return metrics.get(f"validation_{name}")


def objective(metrics: Mapping[str, Any], sweep: SweepConfig) -> float | list[float] | None:
    """What a job returns to its sweeper: a number, or one for each metric that sweep.objective names; None where one
    was not measured.
    """
    values = [validated(metrics, name) for name in names(sweep)]
    if not values:
        return penalised(metrics, sweep)
    if any(value is None for value in values):
        return None
    return values[0] if len(values) == 1 else values


def penalised(metrics: Mapping[str, Any], sweep: SweepConfig) -> float | None:
    """The default objective (see above)."""
    rates = errors(metrics)
    if not rates:
        loss = validated(metrics, LOSS)
        return None if loss is None else -loss
    above = sum(max(0.0, rate - _bound(name, sweep)) for name, rate in rates.items())
    return float(1 - sum(rates.values()) / len(rates) - sweep.penalty * above)


def errors(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The error rates that there were validation requests for."""
    rates = {name: validated(metrics, name) for name in (FALSE, MISSED)}
    return {name: rate for name, rate in rates.items() if rate is not None}


def _bound(name: str, sweep: SweepConfig) -> float:
    return sweep.max_false if name == FALSE else sweep.max_missed


def within(metrics: Mapping[str, Any], sweep: SweepConfig) -> bool:
    """Whether an error rate was measured, and none that was is above its bound."""
    rates = errors(metrics)
    return bool(rates) and all(rate <= _bound(name, sweep) for name, rate in rates.items())


def recommend(points: Sequence[Point], sweep: SweepConfig) -> dict[str, Any] | None:
    """The point with the best objective, of those within both bounds if there is one, and why, in words; None where
    no point has one. Several objectives make a front, of which the default objective chooses.
    """
    goal = names(sweep) if len(names(sweep)) == 1 else []
    sign = -1 if directions(sweep) == ["minimize"] and goal else 1

    def worth(point: Point) -> float | None:
        value = validated(point["metrics"], goal[0]) if goal else penalised(point["metrics"], sweep)
        return None if value is None else sign * value

    done = [point for point in points if point["status"] == "done" and worth(point) is not None]
    if not done:
        return None
    good = [point for point in done if within(point["metrics"], sweep)]
    best = max(good or done, key=lambda point: (worth(point), not point["identical_to"]))
    return {
        "job": best["job"],
        "overrides": best["overrides"],
        "within_bounds": bool(good),
        "why": _why(best, done, good, goal[0] if goal else None, sweep),
    }


def bounds(sweep: SweepConfig) -> str:
    """Both bounds, in words."""
    return f"false calls <= {100 * sweep.max_false:g} %, missed calls <= {100 * sweep.max_missed:g} %"


def _why(best: Point, done: Sequence[Point], good: Sequence[Point], goal: str | None, sweep: SweepConfig) -> str:
    metrics = best["metrics"]
    rates = errors(metrics)
    if len(rates) == 1:  # of which the smallest is the best objective too
        goal = goal or next(iter(rates))
    named = goal or (BALANCED if rates else LOSS)
    value = validated(metrics, named)
    ends = validated(metrics, f"{named}_ci")
    shown = f"{value:.4g}" if named == LOSS else f"{percent(value)} {interval(ends)}".rstrip()
    label = named.replace("_", " ")
    if not rates:
        return f"{'smallest' if named in _SMALL else 'best'} validation {label}, {shown}, of {len(done)} points"
    both = f"false calls {percent(validated(metrics, FALSE))}, missed calls {percent(validated(metrics, MISSED))}"
    if good:
        why = f"best {label}, {shown}, of the {len(good)} of {len(done)} points within the bounds ({bounds(sweep)})"
    elif goal:
        why = f"no point is within the bounds ({bounds(sweep)}); of all {len(done)}, best {label}, {shown}"
    else:
        why = (
            f"no point is within the bounds ({bounds(sweep)}); of all {len(done)}, best objective: balanced accuracy"
            f" {shown} less {sweep.penalty:g} times what is above a bound is {penalised(metrics, sweep):.3f}"
        )
    return f"{why}; {both}{_alike(best, good or done, named)}"


def _alike(best: Point, others: Sequence[Point], named: str) -> str:
    """How many other points the validation requests do not tell from the best one."""
    ends = validated(best["metrics"], f"{named}_ci")
    if not ends:
        return ""
    alike = 0
    for point in others:
        other = validated(point["metrics"], f"{named}_ci")
        alike += point is not best and bool(other) and other[0] <= ends[1] and ends[0] <= other[1]
    return f"; its interval overlaps with those of {alike} others" if alike else ""
