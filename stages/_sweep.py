"""A multirun: where its points go, what each is called, what came out of them, and sweep.json.

Points are stages in folders of their own, so that the same command again skips what is done, goes on with what was
interrupted and replaces what was made from other inputs. sweep.json holds the points of the last command; all in it but
seconds follows from the point's own files, so that a sweep ends in the same one however often it was interrupted.
"""

from __future__ import annotations

import itertools
import os
import shlex
import sys
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.transcript import DataError, RowError
from stages import _objective
from stages._errors import UserError
from stages._files import digest, locked, read_json, slug, write_json, write_text
from stages._job import execute
from stages._lineage import REINFORCED, made_of
from stages._machine import free_memory
from stages._manifest import NAME, read_manifest
from stages._progress import duration
from stages._refusals import compose, explain, settings_of
from stages._schema import CONF, ROOT
from stages._secrets import in_settings, redacted
from stages._settings import Settings, last_steps

_OURS = ("sweep.", "launcher", "sweeper", "hydra.", "hydra/")  # how a sweep is run: no part of what its points are
# Of the metrics of a stage, those that say how it was made and not what came out: they differ when it was interrupted.
_HOW = ("memory_", "resumed_from_step")
_UNFINISHED = ("pending", "running")


@dataclass(frozen=True, slots=True)
class Sweep:
    """A multirun that is about to run; `words` are further overrides for Hydra, `call` tells it from others that share
    its points.
    """

    settings: Settings
    words: tuple[str, ...]
    call: str

    def run_point(self, config: Any) -> float | list[float] | None:
        """One point, as Hydra composed it: its stages in a folder of its own, its entry in sweep.json whatever becomes
        of it. Returns its objective; None where it failed, which is told and stops no other point.
        """
        from hydra.core.hydra_config import HydraConfig

        chosen = HydraConfig.get()
        typed = list(chosen.overrides.task)
        sweep, folder = self.settings.root.sweep, _folder(self.settings)
        entry = _entry(sweep.keys, typed, self.call)
        job = entry["job"]
        own = replace(self.settings, asked=chosen.runtime.choices["stage"], point=f"sweeps/{sweep.name}/{job}")
        # Two calls of a sweep at once, or one whose killed parent has left a process behind, share the points.
        with locked(folder / f".{job}.lock", "", wait=True):
            place = _put(folder, entry | {"status": "running"}, self.settings)
            print(f"{sweep.name}: point {place}, {job}", flush=True)
            before = _attempts(own)
            try:
                point = replace(settings_of(config, own.asked, typed), point=own.point)
                execute(own.asked, point)
                entry |= {"status": "done", **_results(point)}
            except Exception as error:
                entry |= {"status": "failed", "error": _tell(error)}
            entry["seconds"] = _seconds(own)
            _put(folder, entry, self.settings, worked=_attempts(own) != before)
        free_memory()
        return _objective.objective(entry["metrics"], sweep) if entry["status"] == "done" else None

    def finish(self) -> int:
        """Say what came out and write sweep.html; returns the exit status, 1 where a point is not done."""
        from stages._sweep_report import page

        folder = _folder(self.settings)
        with _held(folder):
            summary = read_json(folder / "sweep.json")
            own = [entry for entry in summary["points"] if entry.get("call") == self.call]
            for entry in own:  # another call answers for those that it has put there since
                if entry["status"] in _UNFINISHED:  # its process was killed, which nobody could catch
                    entry |= {"status": "failed", "error": "its process ended before it did; the same command goes on"}
                del entry["call"]
            if _is_of(summary, self.call):
                del summary["call"]
            _write(folder, summary, self.settings)
        points = summary["points"]
        failed = [entry for entry in own if entry["status"] == "failed"]
        print("", *_told(summary), sep="\n", flush=True)
        if points:
            best = summary["recommended"]
            line = command(summary, best["overrides"]) if best else None
            kept, asked = settings_kept(summary), asked_in_words(summary)
            report = page(folder, summary, self.settings.root.sweep, line, kept, asked)
            write_text(folder / "sweep.html", report)
            print(f"report: {folder / 'sweep.html'}", flush=True)
        for entry in failed:
            print(f"{entry['job']}: failed: {entry['error']}", file=sys.stderr, flush=True)
        return 1 if failed else 0


def prepare(overrides: Sequence[str]) -> Sweep:
    """The sweep that these overrides ask for. Its first point is checked before anything runs."""
    from hydra.errors import HydraException

    check_extras(overrides)
    parsed = _parsed(overrides)
    keys = [override.key_or_group for override in parsed if override.is_sweep_override()]
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override() and override.is_discrete_sweep()
        else []
        if override.is_sweep_override()
        else [text]
        for override, text in zip(parsed, overrides, strict=True)
    ]
    globs = ["glob(" in text and override.is_discrete_sweep() for override, text in zip(parsed, overrides, strict=True)]
    if nothing := [text for text, glob, values in zip(overrides, globs, choices, strict=True) if glob and not values]:
        raise UserError(*(f"{text}: no choice of this group fits" for text in nothing))
    if apart := {"run", "runs_dir"} & set(keys):
        raise UserError(f"{' and '.join(sorted(apart))}: a sweep lies in one run; sweep over what is to differ")
    try:
        first = settings_of(*compose([values[0] for values in choices if values]))
    except HydraException as error:  # what explains it knows no groups to look for what a glob stands for
        told = [values[0] if glob else text for text, glob, values in zip(overrides, globs, choices, strict=True)]
        raise explain(told, error) from None
    _check_keys([values or [text] for values, text in zip(choices, overrides, strict=True)])
    sweep = first.root.sweep
    _objective.check(sweep)
    name = sweep.name or (slug("_".join(last_steps(keys))) if keys else "single")
    if len(name) > 100:
        raise UserError(
            f"sweep.name: give the sweep a name (sweep.name=…); one made of its keys would be too long: {name}"
        )
    sampled = any(override.key_or_group in ("sweeper", "hydra/sweeper") for override in parsed)
    if not sampled and not all(choices):
        ranges = [text for values, text in zip(choices, overrides, strict=True) if not values]
        raise UserError(
            *(f"{text}: a range without steps has no points of its own; add sweeper=optuna" for text in ranges)
        )
    directions = _objective.directions(sweep)
    root = first.root.model_copy(update={"sweep": sweep.model_copy(update={"name": name, "keys": keys})})
    settings, call = replace(first, root=root, overrides=tuple(overrides)), uuid.uuid4().hex[:8]
    _begin(settings, [] if sampled else [list(point) for point in itertools.product(*choices)], call)
    # Launchers start other processes, which do not all get the path of this one.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    words = (f"sweep.keys=[{','.join(keys)}]", f"sweep.name={name}", f"sweep.directions=[{','.join(directions)}]")
    return Sweep(settings, words, call)


def _parsed(overrides: Sequence[str]) -> list[Any]:
    """The overrides as Hydra reads them; what stands for the choices of a group by a pattern knows them."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    loader = None
    if any("glob(" in text for text in overrides):
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra._internal.utils import create_config_search_path

        loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    return list(OverridesParser.create(config_loader=loader).parse_overrides(list(overrides)))


def _check_keys(choices: Sequence[Sequence[str]]) -> None:
    """UserError for a value of any point that looks like a key: a point would refuse it too, but its name and what
    Hydra and sweep.json keep of it would hold it by then.
    """
    found: dict[str, None] = {}
    for text in itertools.chain(*choices):
        (override,) = _parsed([text])
        value = text.partition("=")[2] if override.is_sweep_override() else override.value()
        found |= dict.fromkeys(in_settings({override.key_or_group: value}))
    if found:
        why = "looks like a key or password; keys come from the environment and never stand in a configuration"
        raise UserError("invalid configuration:", *(f"  {path}: {why}" for path in found))


def check_extras(overrides: Sequence[str]) -> None:
    """UserError for a launcher or sweeper whose package is not there."""
    from importlib.util import find_spec

    for text in overrides:
        group, _, choice = text.partition("=")
        path = CONF / group / f"{choice}.yaml"
        if group in ("launcher", "sweeper") and path.exists():
            package, install = (line.removeprefix("# ") for line in path.read_text(encoding="utf-8").splitlines()[1:3])
            if not (find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{package.replace('-', '_')}")):
                raise UserError(f"{text}: {package} is not installed: {install}")


def point_name(keys: Sequence[str], overrides: Sequence[str]) -> str:
    """A point's folder: its values by key.

    >>> point_name(["reward.needless_call", "sft.rank"], ["stage=dpo", "reward.needless_call=-1", "sft.rank=8"])
    'needless_call-1_rank_8'
    """
    given = _given(overrides)
    parts = [
        short + (given[key] if given[key].startswith("-") else f"_{slug(given[key])}")
        for short, key in zip(last_steps(keys), keys, strict=True)
    ]
    name = slug("_".join(parts) or "single")
    return name if len(name) <= 100 else f"{name[:91]}-{digest(name)[:8]}"


def _tell(error: Exception) -> str:
    """Say why a point failed, in full; returns it in one line. Neither holds keys."""
    lines = error.lines if isinstance(error, UserError | DataError) else [f"{type(error).__name__}: {error}"]
    if isinstance(error, UserError | DataError | RowError):
        told = "\n".join(lines)
    else:
        told = "".join(traceback.format_exception(error)).rstrip("\n")
    print(redacted(told), file=sys.stderr, flush=True)
    return " ".join(str(redacted(" ".join(lines))).split())[:500]


def asked_in_words(summary: Mapping[str, Any]) -> str:
    """How many requests were sampled, and how many had their samples already."""
    sampled, cached = summary["sampled_requests"], summary["cached_requests"]
    if sampled is None:
        return "not counted: sampled while training, or by an earlier version"
    return f"{sampled:,} requests sampled" + (f", {cached:,} taken from the cache" if cached else "")


def settings_kept(summary: Mapping[str, Any]) -> list[str]:
    """What was typed that all points have in common."""
    return [word for word in summary["settings"] if not word.lstrip("+~").startswith(_OURS)]


def command(summary: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """The command that makes a point the run's own."""
    return shlex.join(["python", "train.py", *settings_kept(summary), *overrides])


def _folder(settings: Settings) -> Path:
    return settings.run_folder / "sweeps" / str(settings.root.sweep.name)


def _held(folder: Path) -> Any:
    return locked(folder / ".sweep.lock", "", wait=True)


def _begin(settings: Settings, points: Sequence[Sequence[str]], call: str) -> None:
    """Start sweep.json anew with these points, not yet run; what an earlier call made is seen when their turn comes."""
    sweep, folder = settings.root.sweep, _folder(settings)
    entries = [_entry(sweep.keys, overrides, call) for overrides in points]
    jobs = [entry["job"] for entry in entries]
    if twice := sorted({job for job in jobs if jobs.count(job) > 1}):
        raise UserError(
            f"{', '.join(twice)}: several points of the sweep would have this folder; give values that differ"
        )
    with _held(folder):
        spent = _spent(folder, read_json(folder / "sweep.json") or {})
        summary = {
            "sweep": sweep.name,
            "run": settings.run,
            "stage": settings.asked,
            "keys": sweep.keys,
            "settings": [word for word in settings.overrides if _key(word) not in sweep.keys],
            "points": entries,
            "wall_seconds": spent,
            "call": {"id": call, "began": time.time(), "spent": spent, "listed": bool(entries)},
        }
        _write(folder, summary, settings)


def _spent(folder: Path, earlier: Mapping[str, Any]) -> float:
    """Seconds of the calls before this one. One that was killed could not count its last point: the files of that say
    until when it worked.
    """
    spent = float(earlier.get("wall_seconds", 0.0))
    if call := earlier.get("call"):
        running = [folder / entry["job"] for entry in earlier["points"] if entry["status"] == "running"]
        last = max((path.stat().st_mtime for job in running for path in job.rglob("*") if path.is_file()), default=0.0)
        spent = max(spent, round(call["spent"] + last - call["began"], 2))
    return spent


def _is_of(summary: Mapping[str, Any], call: str) -> bool:
    """Whether this call, and no later one, is the one that lists the points."""
    return bool((summary.get("call") or {}).get("id") == call)


def _entry(keys: Sequence[str], overrides: Sequence[str], call: str) -> dict[str, Any]:
    return {
        "job": point_name(keys, overrides),
        "overrides": [override for override in overrides if _key(override) in keys],
        "status": "pending",
        "seconds": None,
        "metrics": None,
        "objective": None,
        "trained": None,
        "identical_to": None,
        "error": None,
        "call": call,  # until that ends
    }


def _put(folder: Path, entry: dict[str, Any], settings: Settings, worked: bool = False) -> str:
    """Put a point's entry into sweep.json; returns its place among the points, as `3 of 12` where these are known."""
    with _held(folder):
        summary = read_json(folder / "sweep.json")
        jobs = [known["job"] for known in summary["points"]]
        call = summary.get("call")  # a later one may have begun, and ended, in the meantime
        if entry["job"] in jobs:
            summary["points"][jobs.index(entry["job"])] = entry
        else:
            summary["points"].append(entry)
            jobs.append(entry["job"])
        if worked and call:
            summary["wall_seconds"] = round(call["spent"] + time.time() - call["began"], 2)
        _write(folder, summary, settings)
    return f"{jobs.index(entry['job']) + 1}" + (f" of {len(jobs)}" if call and call["listed"] else "")


def _write(folder: Path, summary: dict[str, Any], settings: Settings) -> None:
    sweep = settings.root.sweep
    for entry in summary["points"]:
        entry["objective"] = _objective.objective(entry["metrics"], sweep) if entry["status"] == "done" else None
    summary["sampled_requests"], summary["cached_requests"] = _sampled(folder, summary)
    summary["objective"] = {
        "metrics": _objective.names(sweep) or None,
        "max_false": sweep.max_false,
        "max_missed": sweep.max_missed,
        "penalty": sweep.penalty,
    }
    summary["recommended"] = _objective.recommend(summary["points"], sweep)
    write_json(folder / "sweep.json", summary)


def _results(point: Settings) -> dict[str, Any]:
    """Metrics of a done point, and which other point it is identical to.

    Metrics are those of the stage that was asked for and, where it measures nothing on validation requests, of the last
    stage of the point itself that does; what all points share tells none from another.
    """
    folder = point.folder / point.asked
    metrics = read_json(folder / "metrics.json") or {}
    trained = folder
    if not _validation(metrics):
        for place in reversed([each for each in made_of(folder, point) if each.startswith(f"{point.point}/")]):
            if found := _validation(read_json(point.run_folder / place / "metrics.json") or {}):
                metrics, trained = metrics | found, point.run_folder / place
                break
    kept = {name: value for name, value in metrics.items() if not name.startswith(_HOW) and not _is_time(name)}
    results = {"metrics": kept, "trained": trained.relative_to(point.run_folder).as_posix()}
    if origin := (read_manifest(trained) or {}).get("identical_to"):
        above = Path(origin["path"]).parent
        same_sweep = above.parent.as_posix() == f"sweeps/{point.root.sweep.name}"
        results["identical_to"] = above.name if same_sweep else origin["path"]
    return results


def _validation(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name.startswith("validation_")}


def _is_time(name: str) -> bool:
    return name.endswith(("seconds", "_per_second"))


def _attempts(point: Settings) -> list[Any]:
    """What changes when a stage of a point is run."""
    manifests = (read_manifest(path.parent) or {} for path in sorted(point.folder.glob("*/manifest.json")))
    return [(one.get("stage"), one.get("started"), one.get("attempts")) for one in manifests]


def _seconds(point: Settings) -> float:
    """What the stages of a point took, all attempts together."""
    manifests = (read_manifest(path.parent) or {} for path in point.folder.glob("*/manifest.json"))
    return round(sum(one.get("seconds", 0.0) for one in manifests), 2)


def _sampled(folder: Path, summary: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """How many requests the points sampled anew, all calls together, and how many they found in the run's cache; None
    where that was not counted. What a point took over from another one is that one's.
    """
    sampled = cached = 0
    for entry in summary["points"]:
        for stage in (folder / entry["job"]).glob(f"*/{NAME}"):
            top = read_manifest(stage.parent)
            if top is None or top.get("identical_to"):
                continue
            for place in stage.parent.rglob(NAME):  # some run others within
                manifest = read_manifest(place.parent) or {}
                facts = manifest.get("facts") or {}
                if manifest.get("identical_to"):
                    continue
                uncounted = "samples" in facts and "requests_sampled" not in facts and manifest["status"] == "done"
                if uncounted or manifest.get("stage") in REINFORCED:
                    return None, None
                sampled += facts.get("requests_sampled", 0)
                cached += facts.get("requests_from_cache", 0)
    return sampled, cached


def _told(summary: Mapping[str, Any]) -> list[str]:
    """A sweep in a few lines."""
    points = summary["points"]
    done = [entry for entry in points if entry["status"] == "done"]
    same = [entry for entry in done if entry["identical_to"]]
    lines = [f"{entry['job']}: identical to {entry['identical_to']}" for entry in same]
    lines.append(
        f"{summary['sweep']}: {len(done)} of {len(points)} points done in {duration(summary['wall_seconds'])}"
        + (f", {len(same)} of them identical to another" if same else "")
        + (f"; {asked_in_words(summary)}" if summary["sampled_requests"] or summary["cached_requests"] else "")
    )
    if len(same) >= len(done) - 1 > 0 and summary["stage"] == "dpo" and all(map(_of_table, summary["keys"])):
        lines.append(
            "these tables put the same answers before the same others, which is all that the loss reads; with"
            " dpo.loss=[reward_aware] the points count too"
        )
    if best := summary["recommended"]:
        lines += [f"recommended: {best['job']}: {best['why']}", f"  {command(summary, best['overrides'])}"]
    elif done:
        lines.append("recommended: none, for nothing was measured on validation requests")
    return lines


def _of_table(key: str) -> bool:
    return key.split(".")[0] == "reward"


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+")


def _given(overrides: Sequence[str]) -> dict[str, str]:
    return {_key(override): override.split("=", 1)[1] for override in overrides if "=" in override}
