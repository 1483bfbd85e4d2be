"""Trackers beside log.jsonl: `tracking=[wandb,trackio,tensorboard]`, `[]` is none. Keys come from the environment.

Each stage of a run is one tracked run of its own, opened before the stage and finished after it, so that several stages
and sweep points in one process do not write into each other's. log.jsonl is written whether or not there are any; a
tracker that fails is told of and left, and the stage goes on. What is tracked is in stages/_tracked.py, how in a file
for each tracker.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from stages import _tracked
from stages._files import read_json, read_jsonl, write_json
from stages._tensorboard import TensorBoard, TensorBoardConfig
from stages._trackio import Trackio, TrackioConfig
from stages._wandb import Wandb, WandbConfig, mode

if TYPE_CHECKING:
    from stages._job import Job

T = TypeVar("T")
IDS = "trackers.json"  # in the stage folder: the tracked run's id, so that a resumed stage goes on in the same one


class TrackingConfig(BaseModel):
    """Which trackers follow the run; a file of conf/tracking/ switches each on."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)

    wandb: WandbConfig | None = None
    """Weights & Biases, online or offline."""
    trackio: TrackioConfig | None = None
    """Trackio."""
    tensorboard: TensorBoardConfig | None = None
    """TensorBoard."""


class Tracker(Protocol):
    """One open tracked run. `seen` is the last step that an earlier attempt put into it, -1 where there is none."""

    seen: float

    def log(self, row: dict[str, float]) -> None:
        """Numbers of a logged row, `step` among them."""

    def use(self, artifacts: list[_tracked.Artifact]) -> None:
        """What the stage reads."""

    def finish(self, results: _tracked.Results) -> None:
        """What the stage made."""

    def close(self, exit_code: int) -> None:
        """The end of the stage: 0 done, 1 failed, 128 + signal if interrupted."""


class Trackers:
    """The open trackers of one stage."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._open: dict[str, Tracker] = {}
        self._behind = False  # rows of log.jsonl that an earlier attempt wrote are still to be passed on

    def open(self, manifest: Mapping[str, Any]) -> None:
        """Start a tracked run in each configured tracker; a resumed stage goes on in its earlier one."""
        job, tracking = self._job, self._job.settings.tracking
        place = _tracked.place(job.settings, job.name)
        known = read_json(job.folder / IDS) if job.resuming else None
        run_id = known["id"] if known else uuid.uuid4().hex[:8]
        wanted: dict[str, Callable[[], Tracker]] = {}
        if tracking.wandb and mode(tracking.wandb) != "disabled":
            wanted["wandb"] = partial(Wandb, job, tracking.wandb, place, run_id)
        if tracking.trackio:
            wanted["trackio"] = partial(Trackio, job, tracking.trackio, place, run_id)
        if tracking.tensorboard:
            wanted["tensorboard"] = partial(TensorBoard, job, place)
        if not wanted:
            return
        write_json(job.folder / IDS, {"id": run_id})
        self._behind = job.resuming
        for name, start in wanted.items():
            self._guarded(name, partial(self._start, name, start))
        self._tell(lambda: _tracked.used(job.settings, manifest), lambda tracker, used: tracker.use(used))

    def _start(self, name: str, start: Callable[[], Tracker]) -> None:
        self._open[name] = start()

    def log(self, row: Mapping[str, Any]) -> None:
        """Pass on a row that was just added to log.jsonl."""
        if self._behind:
            self._catch_up()
        else:
            self._pass_on(row)

    def finish(self, metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """The stage's final numbers, tables and artifact; its manifest has the outputs and their digest."""
        if not self._open:
            return
        if self._behind:
            self._catch_up()
        job = self._job
        self._tell(
            lambda: _tracked.results(job.settings, job.folder, metrics, manifest),
            lambda tracker, results: tracker.finish(results),
        )

    def close(self, exit_code: int = 0) -> None:
        """End all of them."""
        self._each(lambda tracker: tracker.close(exit_code))
        self._open.clear()

    def _catch_up(self) -> None:
        """Pass on all rows of log.jsonl, which the stage has rewound by now: to each tracker those it has not seen."""
        self._behind = False
        log = self._job.folder / "log.jsonl"
        for row in read_jsonl(log) if log.exists() else ():
            self._pass_on(row)

    def _pass_on(self, row: Mapping[str, Any]) -> None:
        values = _tracked.numbers(row)
        if len(values) > 1 and "step" in values:
            self._each(lambda tracker: tracker.log(values) if values["step"] > tracker.seen else None)

    def _tell(self, make: Callable[[], T], call: Callable[[Tracker, T], None]) -> None:
        """Tell all of them what is made for them; where that fails, they follow without it."""
        try:
            made = make()
        except Exception as error:
            self._job.say(f"trackers are not told everything ({_why(error)})")
            return
        self._each(lambda tracker: call(tracker, made))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            self._guarded(name, partial(call, tracker))

    def _guarded(self, name: str, call: Callable[[], None]) -> None:
        """A tracker must not cost the user a stage: one that fails is told of and left."""
        try:
            call()
        except Exception as error:
            self._open.pop(name, None)
            self._job.say(f"{name} failed and follows no further ({_why(error)})")


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {''.join(str(error).strip().splitlines()[:1])}"
