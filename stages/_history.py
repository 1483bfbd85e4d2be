"""How the models of an evaluation came to be: the stages above it, and what each of them logged while training."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stages._files import read_json, read_jsonl
from stages._lineage import STUDENT, made_of
from stages._progress import duration
from stages._scoring import spread
from stages._sweep_charts import Curve, curves, hues

if TYPE_CHECKING:
    from markupsafe import Markup

    from stages._settings import Settings

Fields = Mapping[str, Any]
_FIRST = (  # the curves that say whether training went well, in this order; the others are folded away
    *("loss", "eval_loss", "rewards/margins", "rewards/accuracies", "rewards/chosen", "rewards/rejected"),
    *("points", "sampled/points", "reward", "kl", "entropy", "false_tool_call_rate", "missed_call_rate"),
    *("sampled/false_tool_call_rate", "sampled/missed_call_rate"),
)
_NO_CURVE = re.compile(r"(.*_)?(step|epoch|num_tokens|runtime|\w+_per_second)")
_POINTS = 400  # of a curve, evenly spaced: more cannot be seen
_SIZE = (330, 210)
_DONE = {"rows_kept": "rows", "prompts": "requests", "samples": "samples", "pairs": "pairs", "steps": "steps"}


class Stage(NamedTuple):
    """A stage that models were made by, named by its place in the run; digests are shortened."""

    place: str
    made_from: dict[str, str]
    digest: str
    work: dict[str, int]
    time: str
    command: str


class Curves(NamedTuple):
    """What a stage logged, as charts: those worth a first look, and the others."""

    place: str
    first: list[Markup]
    more: list[Markup]


class History(NamedTuple):
    """The base model and the stages in their order, and the curves of those that logged."""

    base: str
    stages: list[Stage]
    curves: list[Curves]


def history(folder: Path, settings: Settings) -> History:
    """All that the evaluation in a folder was made from; stages made anew since are left out."""
    made = made_of(folder, settings)
    own = made.pop(folder.relative_to(settings.run_folder).as_posix(), None)
    for place in [place for place, manifest in made.items() if manifest["stage"] == STUDENT]:
        made |= made_of(settings.run_folder / place / "aligned" / "dpo", settings)  # what distill.align=true did in it
    return History(
        f"{own['model']['id']}, digest {own['model']['digest'][:12]}" if own else "",
        [_stage(place, settings.run_folder / place, manifest) for place, manifest in made.items()],
        _curves({place: settings.run_folder / place / "log.jsonl" for place in made}),
    )


def work(folder: Path) -> dict[str, int]:
    """What a stage went through, as far as its metrics.json says: rows, requests, samples, pairs, steps."""
    metrics = read_json(folder / "metrics.json") or {}
    return {label: metrics[name] for name, label in _DONE.items() if isinstance(metrics.get(name), int)}


def _stage(place: str, folder: Path, manifest: Fields) -> Stage:
    return Stage(
        place,
        {parent: known["digest"][:12] for parent, known in manifest["parents"].items()},
        manifest["digest"][:12],
        work(folder),
        duration(manifest["seconds"]),
        f"python train.py {shlex.join(manifest['overrides'])}".rstrip(),
    )


def _curves(logs: Mapping[str, Path]) -> list[Curves]:
    """The curves of each stage that logged numbers over steps."""
    from markupsafe import Markup

    found = []
    for place, hue in hues(list(logs)).items():
        series = logged(logs[place])
        known = sorted(series, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
        drawn = {name: Markup(_curve(name, place, hue, series[name])) for name in known}
        if drawn:
            first = [name for name in known if name in _FIRST] or known[:1]
            more = [svg for name, svg in drawn.items() if name not in first]
            found.append(Curves(place, [drawn[name] for name in first], more))
    return found


def _curve(name: str, place: str, hue: int, points: Sequence[tuple[float, float]]) -> str:
    steps, values = zip(*points, strict=True)
    return curves(name, [Curve(f"{place} {name}", hue, steps, values)], _SIZE)


def logged(log: Path) -> dict[str, list[tuple[float, float]]]:
    """The numbers of a log.jsonl that were logged at two steps or more, as (step, value), by name."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in read_jsonl(log) if log.exists() else ():
        for name, value in row.items():
            if _is_number(value) and _is_number(row.get("step")) and not _NO_CURVE.fullmatch(name):
                series.setdefault(name, []).append((row["step"], value))
    return {name: spread(points, _POINTS) for name, points in series.items() if len(points) > 1}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
