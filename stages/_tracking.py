"""Trackers beside log.jsonl: `tracking=[wandb,trackio]`, `[]` is none. Keys come from the environment alone.

Each stage of a run is one tracked run of its own, opened before the stage and finished after it, so that several stages
and sweep points in one process do not write into each other's.
"""

from __future__ import annotations

import contextlib
import io
import netrc
import os
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from stages._errors import UserError
from stages._files import read_json, write_json

if TYPE_CHECKING:
    from stages._job import Job

IDS = "trackers.json"  # in the stage folder: the tracked run's id, so that a resumed stage goes on in the same one


class WandbConfig(BaseModel):
    """Weights & Biases."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    project: str = "callwise"
    """Project the runs appear in."""
    entity: str | None = None
    """User or team; without it, the key's own."""
    tags: list[str] = Field(default_factory=list)
    """Tags beside the stage's name."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """auto: online where a key is found (WANDB_API_KEY or netrc), offline elsewhere."""


class TrackioConfig(BaseModel):
    """Trackio, which keeps its runs on this machine (TRACKIO_DIR) and shows them in a local page."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    project: str = "callwise"
    """Project the runs appear in."""


class TrackingConfig(BaseModel):
    """Which trackers follow the run; a file of conf/tracking/ switches each on."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    wandb: WandbConfig | None = None
    """Weights & Biases, online or offline."""
    trackio: TrackioConfig | None = None
    """Trackio."""


class Tracker(Protocol):
    """One open tracked run."""

    def log(self, row: dict[str, Any]) -> None:
        """A logged row."""

    def summary(self, metrics: dict[str, float]) -> None:
        """The stage's final numbers."""

    def close(self, failed: bool) -> None:
        """The end of the stage."""


class Trackers:
    """The open trackers of one stage; log.jsonl is written whether or not there are any."""

    def __init__(self) -> None:
        self._open: list[Tracker] = []

    def open(self, job: Job) -> None:
        """Start a tracked run in each configured tracker; a resumed stage goes on in its earlier one."""
        ids = read_json(job.folder / IDS) if job.resuming else None
        ids = ids or {"id": uuid.uuid4().hex[:8]}
        tracking = job.settings.tracking
        if tracking.wandb or tracking.trackio:
            write_json(job.folder / IDS, ids)
        if tracking.wandb:
            self._open.append(_Wandb(job, tracking.wandb, ids["id"]))
        if tracking.trackio:
            self._open.append(_Trackio(job, tracking.trackio, ids["id"]))

    def log(self, row: dict[str, Any]) -> None:
        for tracker in self._open:
            tracker.log(row)

    def summary(self, metrics: dict[str, Any]) -> None:
        for tracker in self._open:
            tracker.summary(dict(flat(metrics)))

    def close(self, failed: bool = False) -> None:
        while self._open:
            self._open.pop().close(failed)


def flat(metrics: dict[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested metrics under dotted names.

    >>> dict(flat({"dpo": {"n": 3, "note": "x"}}))
    {'dpo.n': 3}
    """
    for key, value in metrics.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            yield from flat(value, name)
        elif isinstance(value, int | float):
            yield name, value


class _Wandb:
    def __init__(self, job: Job, config: WandbConfig, run_id: str) -> None:
        try:
            import wandb
        except ModuleNotFoundError:
            raise UserError(
                "tracking.wandb: wandb is not installed: pip install -r requirements.txt -c constraints.txt"
            ) from None
        settings = wandb.Settings(
            console="off",
            save_code=False,
            disable_git=True,
            x_disable_meta=True,  # it would keep the whole command line
            silent=True,
            init_timeout=30,
        )
        point = job.settings.point
        arguments: dict[str, Any] = {
            "project": config.project,
            "entity": config.entity,
            "group": "/".join((job.settings.run, *(point.split("/")[1:2] if point else ()))),
            "job_type": job.name,
            "name": "-".join((job.settings.run, *(point.split("/")[2:] if point else ()), job.name)),
            "tags": [job.name, *config.tags],
            "config": job.settings.as_dict(),
            "dir": str(job.folder),
            "id": run_id,
            "resume": "allow" if job.resuming else None,
            "reinit": "finish_previous",
        }
        mode = config.mode
        if mode == "auto":
            mode = "online" if _wandb_key() else "offline"
        if os.environ.get("WANDB_MODE"):
            mode = os.environ["WANDB_MODE"]  # type: ignore[assignment]
        try:
            self.run = wandb.init(**arguments, mode=mode, settings=settings)
        except wandb.errors.CommError as error:
            job.say(f"wandb cannot be reached ({str(error).splitlines()[0]}); going on offline")
            mode = "offline"
            self.run = wandb.init(**arguments, mode=mode, settings=settings)
        if mode == "offline":
            job.say(f"wandb is offline; to upload: wandb sync {self.run.dir.removesuffix('/files')}")
        self.run.define_metric("*", step_metric="step")

    def log(self, row: dict[str, Any]) -> None:
        self.run.log(row)

    def summary(self, metrics: dict[str, float]) -> None:
        self.run.summary.update(metrics)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


def _wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return any(netrc.netrc().authenticators(host) for host in ("api.wandb.ai", "api.forge.coreweave.com"))
    return False


class _Trackio:
    def __init__(self, job: Job, config: TrackioConfig, run_id: str) -> None:
        try:
            import trackio
        except ModuleNotFoundError:
            raise UserError(
                "tracking.trackio: trackio is not installed: pip install -r requirements.txt -c constraints.txt"
            ) from None
        point = job.settings.point
        with contextlib.redirect_stdout(io.StringIO()):  # its banner of links, for each stage anew
            self.run = trackio.init(
                project=config.project,
                name="-".join((job.settings.run, *(point.split("/")[2:] if point else ()), job.name, run_id)),
                group="/".join((job.settings.run, *(point.split("/")[1:2] if point else ()))),
                config=job.settings.as_dict(),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        job.say(f"trackio keeps this run; to see it: trackio show --project {config.project}")

    def log(self, row: dict[str, Any]) -> None:
        self.run.log({name: value for name, value in flat(row) if name != "step"}, step=row.get("step"))

    def summary(self, metrics: dict[str, float]) -> None:
        self.run.log({f"final/{name}": value for name, value in metrics.items()})

    def close(self, failed: bool) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.run.finish()
