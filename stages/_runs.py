"""Finished runs, found by name or path, and held against each other by their evaluations: what stage=report states."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from stages._errors import UserError, nearest
from stages._files import safe_name
from stages._history import work
from stages._lineage import command, made_of, require
from stages._manifest import NAME, read_manifest
from stages._metrics import contrast
from stages._report import Predictions
from stages._settings import RootConfig, Settings
from stages._summary import evaluation_in
from stages._tracked import flat

Fields = Mapping[str, Any]
RATES = ("false_tool_call_rate", "missed_call_rate", "exact_call_rate", "balanced_accuracy")
OVER = {"false_tool_call_rate": "n_no_call", "missed_call_rate": "n_call", "exact_call_rate": "n_call"}
Evaluation = tuple[Mapping[str, Fields], Sequence[Fields], Predictions]  # metrics, requests, predictions
_COUNTS = ("n", "n_call", "n_no_call")


class Run(NamedTuple):
    """A run by the name it is shown under, and settings that lie where it lies."""

    name: str
    settings: Settings

    @property
    def folder(self) -> Path:
        """Its evaluation, which `check` found done."""
        return self.settings.run_folder / "evaluate"


def named(settings: Settings) -> list[Run]:
    """The runs that report.runs names; those whose names are alike are shown by their paths."""
    places = [_place(given, settings) for given in settings.stage("report").runs]
    names = [place.name for place in places]
    return [
        Run(place.name if names.count(place.name) == 1 else place.as_posix(), _settings_of(place, settings))
        for place in places
    ]


def check(settings: Settings) -> None:
    """UserError with a line for each run that cannot be compared, and what to run first."""
    given = settings.stage("report").runs or []
    if len(given) < 2:
        known = ", ".join(_known(settings.runs_dir)) or "none yet"
        raise UserError(
            f"report.runs: name two runs or more, as in report.runs=[a,b] (evaluated in {settings.runs_dir}: {known})"
        )
    lines: list[str] = []
    runs = named(settings)
    for words, run in zip(given, runs, strict=True):
        of, before = run.settings, f"report.runs: {words}"
        if not of.run_folder.is_dir():
            close = nearest(of.run, _known(of.runs_dir))
            lines.append(f"{before}: no such run in {of.runs_dir}{close} (run first: {command('pipeline', of)})")
            continue
        try:
            require("report", ["evaluate"], of, {})
        except UserError as error:
            lines += [f"{before}: {line}" for line in error.lines]
    folders = [run.settings.run_folder.resolve() for run in runs]
    lines += [f"report.runs: {words}: named twice" for n, words in enumerate(given) if folders[n] in folders[:n]]
    if lines:
        raise UserError(*lines)


def manifests(run: Run) -> dict[str, Path]:
    """The manifests of a run's evaluation and of all it was made from, by their place in the run."""
    return {place: run.settings.run_folder / place / NAME for place in made_of(run.folder, run.settings)}


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """All that is stated: the rates of each run's models, the first run against the others, seeds, settings, work."""
    evaluated = {run.name: evaluation_in(run.folder) for run in runs}
    settings = {run.name: configuration(run) for run in runs}
    about = {run.name: _about(run, evaluated[run.name][0]) for run in runs}
    first, *others = evaluated
    return {
        "runs": about,
        "against_first": [
            {"first": first, "second": other} | against(evaluated[first][:3], evaluated[other][:3]) for other in others
        ],
        "seeds": _seeds(about, settings),
        "differences": differences(settings),
    }


def against(first: Evaluation, second: Evaluation) -> dict[str, Any]:
    """The last models of two evaluations: paired where both answered the same requests, word for word; elsewhere only
    whether their intervals overlap.
    """
    models = [list(each[0])[-1] for each in (first, second)]
    asked = [{request["id"]: request for request in each[1]} for each in (first, second)]
    alike = sum(asked[1].get(id_) == request for id_, request in asked[0].items())
    same = alike == len(asked[0]) == len(asked[1])
    rates = [each[0][model] for each, model in zip((first, second), models, strict=True)]
    found: dict[str, Any] = {
        "models": models,
        "requests": [len(each) for each in asked],
        "requests_alike": alike,
        "same_requests": same,
        "overlap": {name: _overlap(*(each[f"{name}_ci"] for each in rates)) for name in OVER},
        "paired": None,
    }
    if same:
        tests = contrast(first[1], first[2][models[0]], second[2][models[1]])
        found["paired"] = {name: test._asdict() | {"n": rates[0][OVER[name]]} for name, test in tests.items()}
    return found


def configuration(run: Run) -> dict[str, str]:
    """Every setting that a stage of the run depends on, from the config.yaml beside what it made. Where stages had it
    different, each value says of which.
    """
    import yaml

    found: dict[str, dict[str, list[str]]] = {}
    for place, manifest in made_of(run.folder, run.settings).items():
        config = run.settings.run_folder / place / "config.yaml"
        there = yaml.safe_load(config.read_text(encoding="utf-8")) if config.exists() else {}
        for field, value in flat(there):
            if field.split(".")[0] in manifest["inputs"]:
                word = "null" if value is None else str(value)
                found.setdefault(field, {}).setdefault(word, []).append(manifest["stage"])
    return {
        field: next(iter(values))
        if len(values) == 1
        else "; ".join(f"{value} ({', '.join(stages)})" for value, stages in values.items())
        for field, values in found.items()
    }


def differences(settings: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str | None]]:
    """The settings that are not the same in all runs, with the value in each; None where a run has no such setting."""
    fields = dict.fromkeys(field for known in settings.values() for field in known)
    rows = {field: {run: known.get(field) for run, known in settings.items()} for field in fields}
    return {field: values for field, values in rows.items() if len(set(values.values())) > 1}


def _place(given: str, settings: Settings) -> Path:
    return Path(given) if "/" in given else settings.runs_dir / safe_name("report.runs", given)


def _settings_of(place: Path, settings: Settings) -> Settings:
    """Settings of a run, with what was typed to make it, so that a command that completes it can be told."""
    made = next((found for one in sorted(place.glob(f"*/{NAME}")) if (found := read_manifest(one.parent))), None)
    typed = [word for word in (made["overrides"] if made else ()) if not word.startswith("runs_dir=")]
    if place.parent != Path(RootConfig().runs_dir):
        typed.append(f"runs_dir={place.parent}")
    root = settings.root.model_copy(update={"run": place.name, "runs_dir": str(place.parent)})
    return dataclasses.replace(settings, root=root, point=None, overrides=tuple(typed))


def _known(runs_dir: Path) -> list[str]:
    return sorted(path.parents[1].name for path in runs_dir.glob(f"*/evaluate/{NAME}"))


def _about(run: Run, metrics: Mapping[str, Fields]) -> dict[str, Any]:
    made = made_of(run.folder, run.settings)
    evaluate = made.pop("evaluate")
    steps = {place: run.settings.run_folder / place for place in made}
    stages = {place: {"seconds": made[place]["seconds"]} | work(folder) for place, folder in steps.items()}
    return {
        "seed": evaluate["seeds"]["seed"],
        "base": evaluate["model"],
        "data": evaluate["facts"]["data"],
        "stages": stages,
        "seconds": round(sum(stage["seconds"] for stage in stages.values()), 2),
        "models": {
            model: _rates(fields) | {"unseen_tools": _rates(fields["unseen_tools"])}
            for model, fields in metrics.items()
        },
    }


def _rates(fields: Fields) -> dict[str, Any]:
    return {name: fields[name] for name in (*_COUNTS, *(part for name in RATES for part in (name, f"{name}_ci")))}


def _overlap(one: Sequence[float] | None, other: Sequence[float] | None) -> bool | None:
    """Whether two intervals share a value; None where one of them is over nothing."""
    return one[0] <= other[1] and other[0] <= one[1] if one and other else None


def _seeds(about: Mapping[str, Fields], settings: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Runs that differ in their seed alone, two or more, with the mean and the range of each rate over them."""
    groups: dict[str, list[str]] = {}
    for run, known in settings.items():
        rest = {field: value for field, value in known.items() if field != "seed"}
        key = repr((sorted(rest.items()), about[run]["base"]["digest"], about[run]["data"]))
        groups.setdefault(key, []).append(run)
    return [
        {
            "runs": runs,
            "seeds": [about[run]["seed"] for run in runs],
            "models": _over_seeds([about[run] for run in runs]),
        }
        for runs in groups.values()
        if len({about[run]["seed"] for run in runs}) == len(runs) > 1
    ]


def _over_seeds(runs: Sequence[Fields]) -> dict[str, Any]:
    """Of the models that all have: each rate's mean, least and greatest value, on all requests and on unseen tools."""
    shared = [model for model in runs[0]["models"] if all(model in run["models"] for run in runs)]
    found: dict[str, Any] = {}
    for model in shared:
        rates = [run["models"][model] for run in runs]
        found[model] = _spread(rates) | {"unseen_tools": _spread([each["unseen_tools"] for each in rates])}
    return found


def _spread(runs: Sequence[Fields]) -> dict[str, Any]:
    values = {name: [run[name] for run in runs] for name in RATES}
    return {
        name: None if None in known else {"mean": fmean(known), "low": min(known), "high": max(known)}
        for name, known in values.items()
    }
