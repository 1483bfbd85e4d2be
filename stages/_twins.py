"""Stages of one run that would come out the same: done once, and the result linked into the folder of each.

A sweep of reward weights often makes the same pairs at several points. Their files differ, since margins and scores
follow every table, but not what training reads; so a stage may say by `essence` what its result depends on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages._files import digest, locked, read_json, read_jsonl
from stages._manifest import NAME, NOT_OUTPUT, missing_outputs, read_manifest
from stages._schema import stage_module
from stages._settings import Settings

_OWN = {*NOT_OUTPUT} - {"metrics.json", "log.jsonl"}  # what each folder has of its own
_OF_STAGES = {NAME, "config.yaml"}  # of those that ran within it, too, which are taken over whole


def identity(name: str, settings: Settings, above: Mapping[str, Path], inputs: dict[str, Any]) -> str:
    """What a stage's result depends on, as a digest: two folders of one run that have it alike hold the same result."""
    essence = getattr(stage_module(name), "essence", None)
    return digest(essence(settings, above, inputs) if essence else inputs)


def pairs_as_read(inputs: Mapping[str, Any], pairs: Path, rounds: int, margins: bool) -> Mapping[str, Any]:
    """`inputs` of a stage that trains on pairs.jsonl with what it reads of it in place of the file's digest, and
    without the reward table, of which nothing else comes but margins; these are kept where a loss reads them.
    """
    if rounds > 1:  # the pairs of later rounds are made by the table, while it trains
        return inputs
    fields = ("tools", "prompt", "chosen", "rejected", *(("margin",) if margins else ()))
    rows = [[row[field] for field in fields] for row in read_jsonl(pairs / "pairs.jsonl")]
    without = {block: value for block, value in inputs.items() if block != "reward"}
    return without | {"parents": inputs["parents"] | {"pairs": digest(rows)}}


@contextlib.contextmanager
def sought(name: str, settings: Settings, wanted: str) -> Iterator[Path | None]:
    """Another done folder of this stage in the run that has this identity: the run's own or a sweep point's, or None.

    Of points that run at the same time and want the same, one at a time is let in: the others find what it made.
    """
    with contextlib.ExitStack() as held:
        if settings.point:
            lock = settings.run_folder / "cache" / f"{name}-{wanted[:16]}.lock"
            held.enter_context(locked(lock, "", wait=True))
        yield _twin(name, settings, wanted)


def _twin(name: str, settings: Settings, wanted: str) -> Path | None:
    run, own = settings.run_folder, settings.folder / name
    found = []
    for folder in (run / name, *sorted(path.parent for path in run.glob(f"sweeps/*/*/{name}/{NAME}"))):
        manifest = read_manifest(folder) if folder != own else None
        alike = manifest and manifest["status"] == "done" and manifest.get("identity") == wanted
        if manifest and alike and not missing_outputs(folder, manifest):
            found.append((bool(manifest.get("identical_to")), folder))
    return min(found, key=lambda one: one[0])[1] if found else None  # one that was made, where there is one


def take_over(source: Path, folder: Path) -> dict[str, Any]:
    """Link another folder's files into this one, or copy them where links are not to be had; returns its metrics."""

    def link(file: str, to: str) -> None:
        if Path(file).name == "log.jsonl":  # rows are added to it in place, which the other folder would see
            shutil.copy2(file, to)
            return
        try:
            os.link(file, to)
        except OSError:
            shutil.copy2(file, to)

    everywhere, at_the_top = (shutil.ignore_patterns(".*", *names) for names in (_OWN - _OF_STAGES, _OWN))

    def left_out(inside: str, names: list[str]) -> set[str]:
        return (at_the_top if Path(inside) == source else everywhere)(inside, names)

    shutil.copytree(source, folder, ignore=left_out, copy_function=link, dirs_exist_ok=True)
    return dict(read_json(folder / "metrics.json"))
