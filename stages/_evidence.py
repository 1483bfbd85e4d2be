"""The parts of evaluate/report.html beside the rates: calibration, comparisons, and measures in detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages._charts import percent
from stages._reliability import risk_coverage
from stages._sweep_charts import Plane, hues, ticks

Fields = Mapping[str, Any]
_POINTS = 200  # of a curve: more would not be seen

CALIBRATION = (
    ("n_p_call", "Answers", "that tell P(call)"),
    ("call_ece", "Calibration error", "P(call) against the share that needs a call, over 15 bins; 0 is best"),
    ("call_brier", "Brier score", "mean of (P(call) - 1 where a call is right, else - 0) squared; 0 is best"),
    ("call_auroc", "AUROC", "how often P(call) is greater where a call is right; 1 is best, 0.5 is chance"),
)
TESTS = (
    ("false_tool_call_rate", "False calls"),
    ("missed_call_rate", "Missed calls"),
    ("exact_call_rate", "Exact calls"),
)
RESAMPLED = (
    ("call_f1", "Call F1"),
    ("act_macro_f1", "Act F1"),
    ("argument_f1", "Argument F1"),
    ("mcc", "MCC"),
    ("call_ece", "Calibration error"),
)
MEASURES = (
    ("attempt_rate", "Attempts", "of all requests"),
    ("parse_rate", "Parse", "of attempts"),
    ("valid_attempt_rate", "Valid", "of attempts where a call is needed"),
    ("tool_name_accuracy_given_call", "Right tools, given a call", "of attempts where a call is needed"),
    ("hallucinated_tool_rate", "Name no tool on offer", "of attempts"),
    ("ungrounded_argument_rate", "Values from nowhere", "of argument values"),
    ("argument_precision", "Argument precision", "right, of arguments given"),
    ("argument_recall", "Argument recall", "right, of arguments wanted"),
    ("parallel_count_accuracy", "As many calls as expected", "of requests that expect several"),
    ("refusal_rate", "Refusals", "of all requests"),
    ("ask_precision", "Asking, precision", "right, of questions"),
    ("ask_recall", "Asking, recall", "asked, of requests where that is right"),
    ("right_slot_rate", "Asking for what lacks", "questions that name it, of requests that lack an argument"),
    ("recovery_rate", "Recovery", "right, of requests that follow a failed call"),
    ("dialogue_accuracy", "Dialogues", "right in every turn, of those of which several turns were asked"),
    ("calls_per_solved_dialogue", "Calls", "made in a dialogue that is right in every turn"),
    ("call_f1", "Call F1", "of trying to call where a call is needed"),
    ("act_macro_f1", "Act F1", "mean over the acts that are right somewhere"),
    ("act_macro_f1_all", "Act F1, all acts", "and over those that were done somewhere"),
    ("argument_f1", "Argument F1", "over calls that stand for an expected one"),
    ("parallel_call_f1", "Call F1, parallel", "exact calls where several are expected"),
    ("mcc", "MCC", "of trying to call"),
    ("surplus_calls", "Surplus calls", "a request"),
    ("tool_productivity", "Tool productivity", "requests with an exact call, a call made"),
    ("expected_utility_at_0.5", "Utility at risk 0.5", "exact calls less 0.5 times other attempts, a request"),
    ("expected_utility_at_1", "Utility at risk 1", "a request"),
    ("expected_utility_at_2", "Utility at risk 2", "a request"),
    ("expected_utility_at_4", "Utility at risk 4", "a request"),
    ("mean_output_tokens", "Tokens", "written a request"),
    ("seconds_per_request", "Seconds", "of the greedy pass, a request; they are answered in batches"),
)


def sections(
    metrics: Mapping[str, Fields],
    requests: Sequence[Fields],
    predictions: Mapping[str, Mapping[str, Fields]],
    comparisons: Sequence[Fields],
) -> dict[str, Any]:
    """What _evidence.html shows, of the contents of the files; a part that these do not have is empty."""
    from markupsafe import Markup

    curves = _curves(requests, predictions)
    colours = hues(list(curves))
    return {
        "calibration": _rows(CALIBRATION, metrics),
        "hues": colours,
        "risk": Markup(risk_chart(curves, colours)) if curves else "",
        "comparisons": comparisons,
        "tests": TESTS,
        "differences": [(name, label) for name, label in RESAMPLED if _known(name, comparisons)],
        "measures": _rows(MEASURES, metrics),
    }


def risk_chart(curves: Mapping[str, Sequence[tuple[float, float]]], colours: Mapping[str, int]) -> str:
    """Wrong decisions among the surest ones, against how many of them: a curve for each of some models."""
    worst = {name: points[-1][1] for name, points in curves.items()}
    spoken = "Wrong decisions among all. " + " ".join(f"{name}: {percent(risk)}." for name, risk in worst.items())
    up = ticks(0.0, max(0.01, *(risk for points in curves.values() for _, risk in points)))
    plane = Plane((960, 330), (0.0, 1.0), (0.0, up[-1]), spoken)
    plane.grid(up[1:], lambda tick: f"{100 * tick:g} %")
    plane.below([(tick / 5, f"{20 * tick} %") for tick in range(6)], "the surest decisions, of all")
    for name, points in curves.items():
        plane.line("curve chosen", points, f' style="--h:{colours[name]}"', name)
    return plane.done()


def shown_difference(entry: Fields | None, scale: float = 1.0) -> str:
    """A difference for the page: +0.123, in points with a scale of 100, or a dash."""
    if entry is None or entry["difference"] is None:
        return "-"
    return _signed(entry["difference"], scale)


def shown_ends(entry: Fields | None, scale: float = 1.0) -> str:
    """The interval of a difference, or nothing."""
    ends = (entry or {}).get("difference_ci")
    return f"[{_signed(ends[0], scale)}, {_signed(ends[1], scale)}]" if ends else ""


def _signed(value: float, scale: float) -> str:
    digits = 1 if scale > 1 else 3
    return f"{round(scale * value, digits) + 0.0:+.{digits}f}"  # + 0.0: merging leaves -1e-9, which is no -0.000


def _curves(
    requests: Sequence[Fields], predictions: Mapping[str, Mapping[str, Fields]]
) -> dict[str, list[tuple[float, float]]]:
    """Points by model; models that have the same ones, as dpo and merged do, share them."""
    needed = {request["id"]: request["expected"]["act"] == "call" for request in requests}
    shared: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for model, rows in predictions.items():
        told = [
            (row["p_call"], row["attempt"], needed[id_]) for id_, row in rows.items() if row.get("p_call") is not None
        ]
        if points := risk_coverage(told):
            step = -(-len(points) // _POINTS)
            rounded = ((round(x, 4), round(y, 4)) for x, y in [*points[:-1:step], points[-1]])
            shared.setdefault(tuple(rounded), []).append(model)
    return {", ".join(models): list(points) for points, models in shared.items()}


def _rows(names: Sequence[tuple[str, str, str]], metrics: Mapping[str, Fields]) -> list[Fields]:
    """The rows of a table: what is known of some model, a cell each."""
    return [
        {
            "label": label,
            "meaning": meaning,
            "cells": [(_cell(name, fields.get(name)), fields.get(f"{name}_ci")) for fields in metrics.values()],
        }
        for name, label, meaning in names
        if any(fields.get(name) is not None for fields in metrics.values())
    ]


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name == "n_p_call":
        return f"{value:,}"
    if name.endswith(("_rate", "_accuracy", "_given_call", "_precision", "_recall")):
        return percent(value)
    return f"{value:.1f}" if name == "mean_output_tokens" else f"{value:.3f}"


def _known(name: str, comparisons: Sequence[Fields]) -> bool:
    return any(entry["resampled"][name]["difference"] is not None for entry in comparisons)
