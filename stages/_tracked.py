"""What is tracked of a stage, whichever tracker shows it: its place, numbers, tables, a picture, and its lineage."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._files import read_jsonl
from stages._manifest import read_manifest
from stages._settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

Fields = Mapping[str, Any]
HEADLINE = ("false_tool_call_rate", "missed_call_rate", "exact_call_rate", "balanced_accuracy")
# Of an evaluation: in metrics.json and the report, too many for columns.
_PARTS = frozenset({"by_kind", "outcomes", "acts", "four_acts"})
_NO_MODELS = _PARTS | {"unseen_tools", "seen_tools"}  # they have rates, of a part of the requests
_PAIRS = 100  # rows of a table: to read, not to train on
_EXAMPLES = 30


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stage stands among others: its run or sweep, what it is called, which stage it is, words to filter by."""

    group: str
    name: str
    stage: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows for people to read."""

    columns: tuple[str, ...]
    rows: list[list[Any]]


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a stage made, or the data: the same content always has the same `about`, so that trackers know it again."""

    name: str
    type: str
    about: dict[str, Any]  # digest, and size and SHA-256 of each file
    folder: Path | None  # where the files lie; None where they are not a stage's

    @property
    def version(self) -> str:
        """The beginning of its digest."""
        return str(self.about["digest"])[:12]

    @property
    def text(self) -> str:
        """`about` as the JSON that stands for the artifact."""
        return json.dumps(self.about, ensure_ascii=False, indent=1, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Results:
    """What is there at the end of a stage."""

    summary: dict[str, float]
    tables: dict[str, Table]
    picture: Image | None
    made: Artifact


def check_installed(package: str) -> None:
    """ValueError, for a configuration that asks for it, where a tracker's package is not there."""
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"{package} is not installed: pip install -r requirements.txt -c constraints.txt")


def place(settings: Settings, stage: str) -> Place:
    """The group is the sweep for a sweep's points, `run/sweep`, and the run for all else."""
    steps = settings.point.split("/") if settings.point else []
    sweep = steps[1:2] if steps[:1] == ["sweeps"] else []
    inner = steps[2:] if sweep else steps
    return Place(
        "/".join((settings.run, *sweep)),
        "-".join((settings.run, *inner, stage)),
        stage,
        (stage, settings.model.name, *(["sweep"] if sweep else [])),
    )


def flat(values: Fields, path: str = "", joint: str = ".") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings under joined names.

    >>> dict(flat({"reward": {"needless_call": -5, "rules": {}}, "seed": 0}))
    {'reward.needless_call': -5, 'seed': 0}
    """
    for key, value in values.items():
        name = f"{path}{joint}{key}" if path else str(key)
        if isinstance(value, Mapping):
            yield from flat(value, name, joint)
        else:
            yield name, value


def numbers(values: Fields) -> dict[str, float]:
    """The numbers among the leaves, named as trackers like it: `dpo/missed_call_rate`."""
    return {name: value for name, value in flat(values, joint="/") if isinstance(value, int | float)}


def summary(metrics: Fields) -> dict[str, float]:
    """A stage's numbers, and as columns that all stages share the headline: on validation requests, by which settings
    are to be chosen, else of the stage itself, else of the last model evaluated. Where the first hides the second, that
    is `test_…`.

    >>> rates = ({"false_tool_call_rate": rate, "by_kind": {"sum": {"n": 3}}} for rate in (0.5, 0.1))
    >>> summary(dict(zip(("sft", "dpo"), rates)))
    {'sft/false_tool_call_rate': 0.5, 'dpo/false_tool_call_rate': 0.1, 'false_tool_call_rate': 0.1}
    """
    whole = {
        name: {key: inner for key, inner in value.items() if key not in _PARTS} if isinstance(value, Mapping) else value
        for name, value in metrics.items()
        if name not in _PARTS
    }
    last = next(reversed(_evaluated(metrics).values()), {})
    for name in HEADLINE:
        if (validated := metrics.get(f"validation_{name}")) is not None:
            whole |= {name: validated, f"test_{name}": metrics.get(name)}
        else:
            whole.setdefault(name, last.get(name))
    return numbers(whole)


def results(settings: Settings, folder: Path, metrics: Fields, manifest: Fields) -> Results:
    """What the stage's folder holds, with a manifest that already has its outputs and their digest. The summary of a
    sweep's point has its objective, where it is one number.
    """
    from stages import _objective

    models, told = _evaluated(metrics, manifest["stage"]), summary(metrics)
    worth = _objective.objective(metrics, settings.root.sweep) if (settings.point or "").startswith("sweeps/") else None
    if isinstance(worth, int | float):
        told["objective"] = worth
    return Results(told, _tables(folder, models), _trade_off(models), made(settings, folder, manifest))


def made(settings: Settings, folder: Path, manifest: Fields) -> Artifact:
    """What a done stage made."""
    outputs, stage = manifest["outputs"], manifest["stage"]
    kinds = [kind for kind in ("adapter", "model") if any(name.startswith(f"{kind}/") for name in outputs)]
    about = {"stage": stage, "digest": manifest["digest"], "files": outputs}
    return Artifact(f"{settings.run}-{stage}", kinds[0] if kinds else stage, about, folder)


def used(settings: Settings, manifest: Fields) -> list[Artifact]:
    """What a stage reads: the data, and what the stages above it made."""
    found = []
    if data := manifest["data"]:
        about = {"digest": data["digest"], "files": data["files"], "settings": manifest["inputs"]["data"]}
        found.append(Artifact(f"data-{settings.data.format}", "dataset", about, None))
    for known in manifest["parents"].values():
        folder = settings.run_folder / known["path"]
        above = read_manifest(folder)
        if above and above.get("digest") == known["digest"]:
            found.append(made(settings, folder, above))
    return found


def _tables(folder: Path, models: Mapping[str, Fields]) -> dict[str, Table]:
    """Rates by model and instructive predictions of an evaluation, a sample of pairs; named apart from numbers."""
    found = {}
    if models:
        columns = [name for name in HEADLINE if all(name in fields for fields in models.values())]
        rows = [[model, *(fields[name] for name in columns)] for model, fields in models.items()]
        found["tables/rates"] = Table(("model", *columns), rows)
    if (folder / "pairs.jsonl").exists():
        found["tables/pairs"] = _pairs(list(read_jsonl(folder / "pairs.jsonl")))
    if (folder / "predictions.jsonl").exists() and (folder / "requests.jsonl").exists():
        found["tables/predictions"] = _predictions(folder)
    return found


def _pairs(rows: Sequence[Fields]) -> Table:
    """Pairs evenly spaced over all of them."""
    from stages._examples import asked, visible
    from stages._scoring import spread

    columns = ("id", "kind", "margin", "asked", "chosen", "rejected", "rejected_outcome", "rejected_source")
    shown = [
        [
            *(row["id"], row["kind"], row["margin"]),
            *(visible(text) for text in (asked(row["prompt"]), row["chosen"], row["rejected"])),
            *(row["outcomes"]["rejected"], row["provenance"]["rejected"]["source"]),
        ]
        for row in spread(rows, _PAIRS)
    ]
    return Table(columns, shown)


def _predictions(folder: Path) -> Table:
    """Those of the report: requests chosen by its rule, with what each model said."""
    from stages._examples import asked, expected_text, instructive, visible
    from stages._report import compared
    from stages._summary import evaluation_in

    _, requests, predictions, _ = evaluation_in(folder)
    models = list(predictions)
    known = {request["id"]: request for request in requests}
    rows = []
    for id_, why in instructive(requests, predictions, *(compared(models) or (models[0], models[0])), _EXAMPLES):
        request = known[id_]
        told = [id_, request["kind"], why, visible(asked(request["messages"])), expected_text(request["expected"])]
        rows.append([*told, *(cell for model in models for cell in _said(predictions[model][id_]))])
    said = (column for model in models for column in (model, f"{model}_outcome"))
    return Table(("id", "kind", "why", "asked", "expected", *said), rows)


def _said(row: Fields) -> tuple[str, str]:
    from stages._examples import visible

    return visible(row["completion"]), row["outcome"]


def _evaluated(metrics: Fields, stage: str = "") -> dict[str, Fields]:
    """The models of an evaluation, in the order of the stages; the one that a stage itself made and measured bears the
    stage's name.
    """
    whole = {stage: metrics} | {name: fields for name, fields in metrics.items() if name not in _NO_MODELS}
    return {
        name: fields
        for name, fields in whole.items()
        if isinstance(fields, Mapping) and all(rate in fields for rate in HEADLINE[:2])
    }


def _trade_off(models: Mapping[str, Fields]) -> Image | None:
    """False against missed calls by stage, with 95 % intervals; None where there is no such pair of rates."""
    points: dict[tuple[float, float], list[str]] = {}
    for name, rates in models.items():
        false, missed = (rates[field] for field in HEADLINE[:2])
        if false is not None and missed is not None:
            points.setdefault((100 * false, 100 * missed), []).append(name)
    if not points:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL.Image import open as open_image

    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*zip(*points, strict=True), color="0.8", zorder=1)
    for (x, y), names in points.items():
        ends = [models[names[0]][f"{field}_ci"] for field in HEADLINE[:2]]
        across, along = ([[abs(at - 100 * end)] for end in each] for at, each in zip((x, y), ends, strict=True))
        axes.errorbar(x, y, xerr=across, yerr=along, fmt="o", capsize=3, zorder=2)
        axes.annotate(", ".join(names), (x, y), xytext=(6, 6), textcoords="offset points")
    axes.set(xlabel="false calls, %", ylabel="missed calls, %", title="False against missed calls by stage")
    axes.margins(0.1)
    FigureCanvasAgg(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    return open_image(picture).convert("RGB")
