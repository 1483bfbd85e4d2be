"""TensorBoard: event files in the stage's folder; `tensorboard --logdir runs` shows every stage of every run."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, model_validator

from stages._tracked import check_installed, flat

if TYPE_CHECKING:
    from stages._job import Job
    from stages._tracked import Artifact, Place, Results, Table


class TensorBoardConfig(BaseModel):
    """TensorBoard."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)

    @model_validator(mode="after")
    def _can_be_used(self) -> TensorBoardConfig:
        check_installed("tensorboard")
        return self


class TensorBoard:
    """Event files of one stage. Its place is their path; a resumed stage writes them anew as a whole."""

    seen = -1.0

    def __init__(self, job: Job, place: Place) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = job.folder / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self.writer = SummaryWriter(str(folder))
        values = {"job_type": place.stage, "group": place.group} | dict(flat(job.settings.as_dict()))
        self.config = {name: value for name, value in values.items() if isinstance(value, bool | int | float | str)}
        self.step = 0
        job.say(f"tensorboard follows this run; to see it: tensorboard --logdir {job.settings.runs_dir}")

    def log(self, row: dict[str, float]) -> None:
        self.step = int(row["step"])
        for name, value in row.items():
            if name != "step":
                self.writer.add_scalar(name, value, self.step)

    def use(self, artifacts: list[Artifact]) -> None:
        lines = (f"- {artifact.type}: {artifact.name} {artifact.version}" for artifact in artifacts)
        self.writer.add_text("made of", "\n".join(lines))

    def finish(self, results: Results) -> None:
        import numpy as np
        from torch.utils.tensorboard.summary import hparams

        for name, value in results.summary.items():
            self.writer.add_scalar(f"final/{name}", value, self.step)
        # As SummaryWriter.add_hparams does, which would write them into a run of their own.
        for summary in hparams(self.config, {f"final/{name}": value for name, value in results.summary.items()}):
            self.writer.file_writer.add_summary(summary)
        for name, table in results.tables.items():
            self.writer.add_text(name, _markdown(table), self.step)
        if results.picture:
            self.writer.add_image("trade_off", np.asarray(results.picture), self.step, dataformats="HWC")

    def close(self, exit_code: int) -> None:
        self.writer.close()


def _markdown(table: Table) -> str:
    """A table as TensorBoard shows one; texts in it are code, which it does not interpret."""
    lines = [table.columns, ["---"] * len(table.columns), *([_cell(value) for value in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if not isinstance(value, str):
        return str(value)
    text = " ".join(value.split()).replace("|", "¦").replace("`", "'")
    return f"`{text}`" if text else ""
