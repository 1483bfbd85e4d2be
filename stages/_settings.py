"""What a run was asked to do, validated: the blocks of the configuration and where results go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from stages._errors import UserError
from stages._secrets import redacted

if TYPE_CHECKING:
    from data.load import DataConfig
    from rewards._table import RewardConfig
    from stages._model import ModelConfig
    from stages._tracking import TrackingConfig


class SweepConfig(BaseModel):
    """How a multirun (`-m`) is kept; without -m it does nothing."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    """Folder of the sweep below runs/<run>/sweeps; without it, made of the swept keys."""
    objective: str | list[str] | None = None
    """What points are judged by: a rate or loss on validation requests, or several for a sweeper that takes several.
    By default balanced accuracy less penalty times what either error is above its bound (stages/_objective.py)."""
    max_false: float = Field(0.02, ge=0, le=1)
    """Bound of false calls: a point within both bounds is recommended before one that is not."""
    max_missed: float = Field(0.02, ge=0, le=1)
    """Bound of missed calls."""
    penalty: float = Field(5.0, ge=0)
    """What an error above its bound costs; 5 lets a point above it cost what 10 points of the other error do."""
    keys: list[str] = Field(default_factory=list)
    """The swept keys; train.py fills this in."""
    directions: list[str] = Field(default_factory=list)
    """Whether each objective is to be small or large, for Optuna; train.py fills this in."""


class RootConfig(BaseModel):
    """What stands outside every group and stage."""

    model_config = ConfigDict(extra="forbid")

    run: str = "default"
    """Name of the run; everything it makes lies in <runs_dir>/<run>."""
    runs_dir: str = "runs"
    """Folder of all runs."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Drives training and sampling. data.seed drives the data and does not follow it."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; without it, OMP_NUM_THREADS or the number of physical cores."""
    sweep: SweepConfig = Field(default_factory=SweepConfig)
    """Settings of a multirun."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The validated configuration of one job. Plain values, so that it can be sent to another process."""

    asked: str
    root: RootConfig
    blocks: Mapping[str, BaseModel]
    point: str | None = None  # a sweep point's folder below the run's
    overrides: tuple[str, ...] = ()  # as typed

    @property
    def run(self) -> str:
        return self.root.run

    @property
    def runs_dir(self) -> Path:
        return Path(self.root.runs_dir)

    @property
    def seed(self) -> int:
        return self.root.seed

    @property
    def model(self) -> ModelConfig:
        return self.blocks["model"]  # type: ignore[return-value]

    @property
    def data(self) -> DataConfig:
        return self.blocks["data"]  # type: ignore[return-value]

    @property
    def reward(self) -> RewardConfig:
        return self.blocks["reward"]  # type: ignore[return-value]

    @property
    def tracking(self) -> TrackingConfig:
        return self.blocks["tracking"]  # type: ignore[return-value]

    def stage(self, name: str) -> Any:
        """The settings of a stage that this job runs."""
        if name not in self.blocks:
            raise UserError(f"{name}: stage={self.asked} does not run it, so it has no settings here")
        return self.blocks[name]

    def with_model(self, model: BaseModel) -> Settings:
        """The same settings, on another model."""
        return replace(self, blocks=dict(self.blocks) | {"model": model})

    @property
    def run_folder(self) -> Path:
        """runs/<run>"""
        return self.runs_dir / self.run

    @property
    def folder(self) -> Path:
        """Where this job's stage folders go: the run's folder, or the sweep point's inside it."""
        return self.run_folder / self.point if self.point else self.run_folder

    def as_dict(self) -> dict[str, Any]:
        """The whole resolved configuration, without what looks like a key, as config.yaml and trackers hold it."""
        root = self.root.model_dump(mode="json", exclude={"sweep"})
        blocks = {name: block.model_dump(mode="json") for name, block in self.blocks.items()}
        return redacted({"stage": self.asked} | root | blocks)


def last_steps(keys: Sequence[str]) -> list[str]:
    """The last step of each key, or the whole key where two would be alike."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return [step if last.count(step) == 1 else key for step, key in zip(last, keys, strict=True)]
