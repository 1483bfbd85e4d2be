"""One stage of one run: its folder, its parents, its log, and whether it has to run at all.

`execute` runs a stage after those it brings: done ones are skipped, interrupted ones resumed, changed ones replaced.
What the stage itself gets is a `Job`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from stages import _machine, _manifest, _processes, _twins
from stages._errors import Interrupted, UserError
from stages._files import (
    append_jsonl,
    digest,
    locked,
    plain,
    read_json,
    read_jsonl,
    remove_folder,
    write_json,
    write_jsonl,
    write_text,
)
from stages._lineage import entry, present, require, stale_behind
from stages._manifest import read_manifest
from stages._progress import Bar, duration, progress
from stages._schema import brings, parents, stage_module, stage_names
from stages._secrets import redacted
from stages._settings import Settings
from stages._tracking import Trackers

T = TypeVar("T")


class Job:
    """What a stage works with: settings, folders, log, progress.

    `resuming` says that an interrupted attempt with the same inputs left its files in `folder`; `leads`, that this is
    the only process, or the one of several that writes: in the others nothing is said, shown or logged.
    """

    def __init__(self, stage: str, settings: Settings, folder: Path, above: dict[str, Path], resuming: bool) -> None:
        self.name, self.settings, self.folder, self.resuming = stage, settings, folder, resuming
        self.leads = _processes.leads()
        self.seed = settings.seed
        self.notes: dict[str, Any] = {}
        self.stopping: int | None = None
        self._above = above
        self._trackers = Trackers(self)

    @property
    def config(self) -> Any:
        """The stage's own settings."""
        return self.settings.stage(self.name)

    @property
    def cache(self) -> Path:
        """runs/<run>/cache: what stages and sweep points of one run share by content."""
        return self.settings.run_folder / "cache"

    def parent(self, name: str) -> Path:
        """Folder of a stage this one reads; it is done and up to date."""
        if name not in self._above:
            raise KeyError(f"stages/{self.name}.py reads {name}, which is not in its PARENTS")
        return self._above[name]

    def has(self, name: str) -> bool:
        """Whether a stage of this one's OPTIONAL is done, up to date, and read."""
        return name in self._above

    def within(
        self, place: str, name: str, above: Mapping[str, Path], model: BaseModel | None = None, **changes: Any
    ) -> Path:
        """Run a stage as a part of this one, in <folder>/<place>/<name>; returns that folder.

        It reads `above` in place of the run's own results, works on `model` where one is given in place of the run's,
        and `changes` are made to its settings. It has a manifest of its own, is resumed where it was interrupted, and
        is not run again once it is done.
        """
        settings = self.settings.with_model(model) if model else self.settings
        blocks = dict(settings.blocks) | {name: settings.blocks[name].model_copy(update=changes)}
        point = (self.folder / place).relative_to(settings.run_folder).as_posix()
        settings = dataclasses.replace(settings, blocks=blocks, point=point)
        return _execute(name, settings, soon=stage_names(), behind=dict(above))

    def read_instead(self, **above: Path) -> None:
        """From now on `parent` names these folders."""
        self._above |= above

    def say(self, text: str) -> None:
        """One line to the user."""
        if self.leads:
            print(f"{self.name}: {redacted(text)}", flush=True)

    def log(self, row: dict[str, Any]) -> None:
        """One row of log.jsonl, passed on to the trackers; `step` is its place on their axis."""
        if not self.leads:
            return
        row = redacted(plain(row))
        append_jsonl(self.folder / "log.jsonl", row)
        self._trackers.log(row)

    def rewind(self, step: int) -> None:
        """When resuming from a checkpoint: drop the log rows of later steps, which will be logged again."""
        log = self.folder / "log.jsonl"
        if self.leads and log.exists():
            write_jsonl(log, [row for row in read_jsonl(log) if (row.get("step") or 0) <= step])

    def record(self, **facts: Any) -> None:
        """Put facts into the manifest: rows filtered and why, digests, devices."""
        self.notes |= redacted(plain(facts))

    def progress(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """Pass items on, showing how many are done and what is left."""
        return progress(items, total, f"{self.name}: {label}", self.leads)

    def bar(self, total: int, label: str, start: int = 0) -> Bar:
        """A progress bar to be set by hand."""
        return Bar(total, f"{self.name}: {label}", start, self.leads)

    @contextlib.contextmanager
    def finishing_steps(self) -> Iterator[None]:
        """Within, SIGINT and SIGTERM only set `stopping`, so that the loop can finish its step and save; a second one
        stops at once. Leaving the block raises Interrupted if there was one.
        """

        def note(signum: int, _frame: FrameType | None) -> None:
            if self.stopping:
                raise Interrupted(signum)
            self.stopping = signum
            if self.leads:
                print(f"\n{self.name}: stopping after this step; once more to stop now", file=sys.stderr, flush=True)

        with _handling(note):
            yield
        if self.stopping:
            raise Interrupted(self.stopping)


@contextlib.contextmanager
def _handling(handler: Any) -> Iterator[None]:
    """Handle SIGINT and SIGTERM by `handler`; workers outside the main thread cannot, and keep what they have."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _raise_interrupted(signum: int, _frame: FrameType | None) -> None:
    raise Interrupted(signum)


def execute(name: str, settings: Settings) -> dict[str, Any]:
    """Run a stage after those it brings, unless it is done with the same inputs; returns its metrics.

    Raises UserError for what the user can mend (a missing parent before anything heavy is imported).
    """
    _check_files(name, settings)
    return read_json(_execute(name, settings, soon=(), behind={}) / "metrics.json") or {}


def _check_files(name: str, settings: Settings) -> None:
    """Have this stage and all that it brings look at the files that they are given, so that none is met hours later."""
    for stage in brings(name, settings):
        _check_files(stage, settings)
    if check := getattr(stage_module(name), "check_files", None):
        check(settings)


def _execute(name: str, settings: Settings, soon: tuple[str, ...], behind: dict[str, Path]) -> Path:
    """Returns the folder. `soon`: stages that run next, not worth calling stale; `behind`: folders of those done."""
    if name in behind:
        return behind[name]
    _processes.check(name)
    if works_on := getattr(stage_module(name), "works_on", None):
        settings = settings.with_model(works_on(settings))
    brought, needed = brings(name, settings), parents(name, settings)
    require(name, [parent for parent in needed if parent not in brought], settings, behind)
    for place, stage in enumerate(brought):
        _execute(stage, settings, (*brought[place + 1 :], name, *soon), behind)
    above = require(name, needed, settings, behind) | present(name, settings, behind)
    if refuse := getattr(stage_module(name), "refuse", None):
        refuse(settings, above)
    if reads := getattr(stage_module(name), "reads", None):
        above = {parent: path for parent, path in above.items() if parent in reads(settings, above)}
    entries = {parent: entry(path, settings) for parent, path in above.items()}
    inputs = plain(_manifest.inputs_of(name, settings, entries))
    behind[name] = folder = settings.folder / name
    if settings.point and name != settings.asked and _is_done(settings.run_folder / name, inputs):
        behind[name] = settings.run_folder / name
        print(f"{name}: done already with the same inputs ({behind[name]})", flush=True)
        return behind[name]
    if not _processes.leads():
        _follow(Job(name, settings, folder, above, resuming=False))
        return folder
    busy = f"{folder} is being written by another process; wait for it, or choose another run=…"
    with locked(folder.with_name(f".{name}.lock"), busy):
        old = read_manifest(folder)
        state = _state(name, folder, old, inputs)
        if state == "done":
            _processes.told(state)
            job = Job(name, settings, folder, above, resuming=False)
        else:
            identity = _twins.identity(name, settings, above, inputs)
            with _twins.sought(name, settings, identity) as twin:
                _processes.told("done" if twin else state)
                job = Job(name, settings, folder, above, state == "resume" and not twin)
                if not job.resuming:
                    remove_folder(folder)
                _run(job, inputs, entries, old if job.resuming else None, identity, twin)
        if after := getattr(stage_module(name), "after", None):
            after(job)
    stale = [place for place in stale_behind(settings) if Path(place).name not in soon] if state != "done" else []
    if stale:
        print(f"{name}: now stale, made from the one before: {', '.join(stale)}", flush=True)
    return folder


def _follow(job: Job) -> None:
    """Work along with the process that leads, where it says that there is something to do."""
    if _processes.told("") != "done":
        _machine.prepare(job.settings, heavy=True)
        with _handling(_raise_interrupted):
            stage_module(job.name).run(job)


def _is_done(folder: Path, inputs: dict[str, Any]) -> bool:
    manifest = read_manifest(folder)
    return bool(
        manifest
        and manifest["status"] == "done"
        and _manifest.same_inputs(manifest, inputs)
        and not _manifest.missing_outputs(folder, manifest)
    )


def _state(
    name: str, folder: Path, old: dict[str, Any] | None, inputs: dict[str, Any]
) -> Literal["done", "resume", "anew"]:
    """What is to be done with what lies in the folder, told to the user."""
    if old is None or not _manifest.same_inputs(old, inputs):
        if folder.exists() and not (folder / _manifest.NAME).exists() and any(folder.glob("[!.]*")):
            raise UserError(
                f"{folder} was not made by a stage (it has no {_manifest.NAME}): move it away, or choose another run=…"
            )
        changed = _manifest.differences(old["inputs"], inputs) if old else ["its manifest cannot be read"]
        if folder.exists():
            why = "; ".join(changed[:4]) + ("; …" if len(changed) > 4 else "")
            print(f"{name}: replacing {folder} ({why})", flush=True)
        return "anew"
    if old["status"] != "done" and old.get("identical_to"):
        return "anew"  # interrupted while files were linked: nothing of it is its own
    if old["status"] != "done":
        print(f"{name}: resuming what was interrupted ({folder})", flush=True)
        return "resume"
    if gone := _manifest.missing_outputs(folder, old):
        print(f"{name}: {folder} lacks {', '.join(gone[:3])}, made again", flush=True)
        return "anew"
    print(f"{name}: done already with the same inputs ({folder})", flush=True)
    return "done"


def _run(
    job: Job,
    inputs: dict[str, Any],
    entries: dict[str, Any],
    earlier: dict[str, Any] | None,
    identity: str,
    twin: Path | None,
) -> None:
    """Run the stage itself, or take over what its twin made, with its manifest saying running, then done or failed."""
    module = stage_module(job.name)
    settings, folder = job.settings, job.folder
    blocks = (job.name, *getattr(module, "BLOCKS", ()))
    threads = _machine.prepare(settings, "model" in blocks)
    manifest: dict[str, Any] = {
        "schema": _manifest.SCHEMA,
        "stage": job.name,
        "status": "running",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "attempts": (earlier["attempts"] if earlier else 0) + 1,
        "seconds": earlier["seconds"] if earlier else 0.0,
        "overrides": list(settings.overrides),
        "parents": entries,
        **_manifest.origins(job.name, settings, blocks, inputs),
        "inputs_digest": digest(inputs),
        "inputs": inputs,
        "identity": identity,
        "identical_to": entry(twin, settings) if twin else None,
        **_machine.machine(threads),
    }
    spent = manifest["seconds"]
    began = time.monotonic()

    def write(status: str, **more: Any) -> None:
        manifest.update(status=status, seconds=round(spent + time.monotonic() - began, 2), **more)
        manifest.update(peak_memory=_machine.peak_memory(), facts=job.notes)
        write_json(folder / _manifest.NAME, plain(manifest))

    _machine.free_memory()
    _machine.reset_peak_memory()
    write("running")
    write_text(folder / "config.yaml", _yaml(settings.as_dict()))
    try:
        with _handling(_raise_interrupted):
            job._trackers.open(manifest)
            metrics = _taken_over(job, twin) if twin else plain(module.run(job))
            write_json(folder / "metrics.json", metrics)
            outputs = _manifest.outputs_of(folder)
            manifest |= {"outputs": outputs, "digest": digest([outputs, job.name])}
            job._trackers.finish(metrics, manifest)
            job._trackers.close()
    except (Exception, KeyboardInterrupt) as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        job._trackers.close(128 + getattr(error, "signum", signal.SIGINT) if interrupted else 1)
        write("running" if interrupted else "failed", error=redacted(f"{type(error).__name__}: {error}"))
        raise
    write("done", error=None)
    print(f"{job.name}: done in {duration(manifest['seconds'])} -> {folder}", flush=True)


def _taken_over(job: Job, twin: Path) -> dict[str, Any]:
    """The result of another folder of the run in this one, told to the trackers as if made here."""
    job.say(f"identical to {twin}, which is done: its result is linked, not made again")
    metrics = _twins.take_over(twin, job.folder)
    job.record(**(read_manifest(twin) or {})["facts"])
    log = job.folder / "log.jsonl"
    for row in read_jsonl(log) if log.exists() else ():
        job._trackers.log(row)
    return metrics


def _yaml(value: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True)
