"""The page of stage=report, and its lines for a terminal: made of its metrics.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages import _report
from stages._both_errors import plot
from stages._charts import interval, percent, points
from stages._examples import one_line
from stages._progress import duration
from stages._report import probability
from stages._runs import RATES
from stages._sweep_charts import hues

Fields = Mapping[str, Any]
LABELS = dict(zip(RATES, ("false calls", "missed calls", "exact calls", "balanced"), strict=True))


def render(found: Fields, facts: Mapping[str, str]) -> str:
    """The page of what `stages._runs.compare` found."""
    from markupsafe import Markup

    runs = found["runs"]
    hue = hues(list(runs))
    plotted = _plotted(runs)
    both = plot(
        {name: fields for name, (_, fields) in plotted.items()}, {name: hue[run] for name, (run, _) in plotted.items()}
    )
    return _report.page(
        "_runs_report.html",
        title=listed(list(runs)),
        runs=runs,
        hue=hue,
        labels=LABELS,
        asked=asked(runs),
        unseen=any(fields["unseen_tools"]["n"] for run in runs.values() for fields in run["models"].values()),
        plot=both._replace(svg=Markup(both.svg)) if both else None,
        against=[_row(each) for each in found["against_first"]],
        seeds=found["seeds"],
        work=_work(runs),
        time={name: duration(run["seconds"]) for name, run in runs.items()},
        differences=found["differences"],
        facts={**facts, **{f"of {name}": _origin(run) for name, run in runs.items()}},
    )


def listed(names: Sequence[str]) -> str:
    """Names in a sentence; many of them only counted.

    >>> listed(["a", "b", "c"]), listed(list("abcdefg"))
    ('a, b and c', '7 runs')
    """
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) <= 6 else f"{len(names)} runs"


def asked(runs: Mapping[str, Fields]) -> str | None:
    """What the rates are over, where that is the same in all runs."""
    counts = {
        tuple(part[name] for part in (fields, fields["unseen_tools"]) for name in ("n", "n_call", "n_no_call"))
        for fields in _last(runs).values()
    }
    if len(counts) > 1:
        return None
    ((n, n_call, n_no_call, unseen, unseen_call, unseen_no_call),) = counts
    words = f"{n:,} held-out requests: {n_call:,} need a call, {n_no_call:,} do not"
    over = f"; {unseen:,} ({unseen_call:,} and {unseen_no_call:,}) are over tools never seen in training"
    return words + over * bool(unseen)


def findings(found: Fields) -> list[str]:
    """A line for the last model of each run, and one for each error of each comparison."""
    last = {one_line(name): fields for name, fields in _last(found["runs"]).items()}
    width = max(map(len, last))
    lines = [asked(found["runs"]) or "the runs were evaluated on different requests"]
    for name, fields in last.items():
        rates = (f"{LABELS[rate]} {percent(fields[rate])} {interval(fields[f'{rate}_ci'])}" for rate in RATES[:3])
        lines.append(f"  {name:{width}}  {'  '.join(rates)}")
    for each in map(_row, found["against_first"]):
        lines.append(f"{one_line(each['first'])} -> {one_line(each['second'])}: {each['how']}")
        lines += [f"  {label}: {', '.join(map(one_line, words))}" for label, words in each["said"].items()]
    for group in found["seeds"]:
        model, rates = list(group["models"].items())[-1]
        shown = (f"{LABELS[rate]} {mean_and_range(rates[rate])}" for rate in RATES[:3])
        lines.append(f"{model} over seeds {', '.join(map(str, group['seeds']))}: {'  '.join(shown)}")
    return lines


def mean_and_range(spread: Fields | None) -> str:
    """A mean over seeds and its range: 12.1 % (10.4 to 15.3), or a dash."""
    return "-" if spread is None else f"{percent(spread['mean'])} ({_bare(spread['low'])} to {_bare(spread['high'])})"


def _bare(rate: float) -> str:
    return f"{100 * rate:.1f}"


def _last(runs: Mapping[str, Fields]) -> dict[str, Fields]:
    """The last model of each run."""
    return {name: list(run["models"].values())[-1] for name, run in runs.items()}


def _plotted(runs: Mapping[str, Fields]) -> dict[str, tuple[str, Fields]]:
    """The models in the plot, each with its run; one that stands where an earlier one of its run does is left out."""
    found: dict[str, tuple[str, Fields]] = {}
    for run, about in runs.items():
        seen = set()
        for model, fields in about["models"].items():
            place = (fields["false_tool_call_rate"], fields["missed_call_rate"])
            if place not in seen:
                found[f"{run} {model}"] = (run, fields)
            seen.add(place)
    return found


def _row(each: Fields) -> dict[str, Any]:
    """One run against the first, in words: how it was compared, and by what is compared what came out."""
    models = " and ".join(dict.fromkeys(each["models"]))
    if each["paired"]:
        said = {LABELS[name]: _paired(test, each) for name, test in each["paired"].items()}
        how = f"{models}, request by request"
    else:
        said = {LABELS[name]: [_OVERLAP[overlap]] for name, overlap in each["overlap"].items()}
        counts = " and ".join(f"{count:,}" for count in each["requests"])
        how = f"{models}, by intervals alone: of {counts} requests {each['requests_alike']:,} are the same"
    return {"first": each["first"], "second": each["second"], "how": how, "said": said}


_OVERLAP = {True: "intervals overlap", False: "intervals do not overlap", None: "-"}


def _paired(test: Fields, each: Fields) -> list[str]:
    """The change, and behind it the discordant pairs and their test."""
    if not test["n"]:
        return ["-"]
    pairs = f"{test['only_first']:,} only in {each['first']}, {test['only_second']:,} only in {each['second']}"
    return [
        points(test["difference"], test["interval"]),
        f"of {test['n']:,}: {pairs}",
        f"McNemar {probability(test['p'])}",
    ]


def _work(runs: Mapping[str, Fields]) -> dict[str, dict[str, tuple[str, str]]]:
    """By stage, what it took and what it went through in each run that has it."""
    stages = dict.fromkeys(stage for run in runs.values() for stage in run["stages"])
    return {
        stage: {name: _took(run["stages"][stage]) for name, run in runs.items() if stage in run["stages"]}
        for stage in stages
    }


def _took(stage: Fields) -> tuple[str, str]:
    counts = (f"{count:,} {label}" for label, count in stage.items() if label != "seconds")
    return duration(stage["seconds"]), ", ".join(counts)


def _origin(run: Fields) -> str:
    return (
        f"seed {run['seed']}; base {run['base']['id']}, digest {run['base']['digest'][:12]};"
        f" data, digest {run['data'][:12]}"
    )
