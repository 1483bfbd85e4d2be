"""Trackio: runs kept on this machine, in TRACKIO_DIR, and shown by a local page."""

from __future__ import annotations

import contextlib
import contextvars
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, model_validator

from stages._tracked import check_installed, flat

if TYPE_CHECKING:
    from stages._job import Job
    from stages._tracked import Artifact, Place, Results


class TrackioConfig(BaseModel):
    """Trackio, which keeps its runs on this machine (TRACKIO_DIR) and shows them in a local page."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)

    project: str = "callwise"
    """Project the runs appear in."""

    @model_validator(mode="after")
    def _can_be_used(self) -> TrackioConfig:
        check_installed("trackio")
        return self


class Trackio:
    """One run of Trackio. Job type and tags, which it does not have, stand in its configuration."""

    def __init__(self, job: Job, config: TrackioConfig, place: Place, run_id: str) -> None:
        import trackio

        arguments: dict[str, Any] = {
            "project": config.project,
            "name": f"{place.name}-{run_id}",
            "group": place.group,
            "config": {"job_type": place.stage, "tags": list(place.tags)} | dict(flat(job.settings.as_dict())),
            "resume": "allow",
            "embed": False,
            "auto_log_gpu": False,
            "auto_log_cpu": False,
        }
        with contextlib.redirect_stdout(io.StringIO()):  # its banner of links, for each stage anew
            # In a context of its own: it would end the run it knows of, that of a stage which this one is a part of.
            self.run = contextvars.Context().run(lambda: trackio.init(**arguments))
        job.say(f"trackio keeps this run; to see it: trackio show --project {config.project}")
        self.seen = self.run._next_step - 1.0

    def log(self, row: dict[str, float]) -> None:
        self.run.log({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))

    def use(self, artifacts: list[Artifact]) -> None:
        for artifact in artifacts:
            try:
                self.run.use_artifact(f"{artifact.name}:{artifact.version}")
            except ValueError:  # not known yet: data, or a stage that was not tracked
                self._log(artifact)
                self.run.use_artifact(f"{artifact.name}:{artifact.version}")

    def finish(self, results: Results) -> None:
        import trackio

        shown: dict[str, Any] = {
            name: trackio.Table(columns=list(table.columns), data=table.rows) for name, table in results.tables.items()
        }
        if results.picture:
            shown["trade_off"] = trackio.Image(results.picture)
        self.run.log({f"final/{name}": value for name, value in results.summary.items()} | shown)
        self._log(results.made)

    def close(self, exit_code: int) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.run.finish()

    def _log(self, artifact: Artifact) -> None:
        """What stands for it: names, sizes and digests of its files. The same content is the same version."""
        import trackio

        found = trackio.Artifact(artifact.name, artifact.type)
        with tempfile.TemporaryDirectory() as folder:
            about = Path(folder) / "about.json"
            about.write_text(artifact.text, encoding="utf-8")
            found.add_file(about)
            self.run.log_artifact(found, aliases=[artifact.version])
