"""Checkpoints of a stage that trains: sealed when whole, looked up by that, never read back changed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._files import digest, read_json, write_json

if TYPE_CHECKING:
    from stages._job import Job

_COMPLETE = "complete.json"  # written last into a checkpoint, with the digest of each of its files


def seal(checkpoint: Path) -> None:
    """Declare a checkpoint whole: nothing that is missing or changed since is ever read back."""
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != _COMPLETE]
    write_json(checkpoint / _COMPLETE, {str(path.relative_to(checkpoint)): digest(path) for path in files})


def newest_checkpoint(job: Job) -> Path | None:
    """The newest checkpoint of this folder that is whole; broken ones are told and removed."""
    found = [path for path in (job.folder / "checkpoints").glob("checkpoint-*") if re.search(r"-\d+$", path.name)]
    for path in sorted(found, key=lambda path: -int(path.name.split("-")[1])):
        sealed = read_json(path / _COMPLETE)
        if sealed and all((path / name).is_file() and digest(path / name) == value for name, value in sealed.items()):
            job.say(f"resuming from step {path.name.split('-')[1]}")
            return path
        job.say(f"{path.name} is incomplete or changed, not used")
        shutil.rmtree(path)
    return None


def forget_checkpoints(job: Job) -> None:
    """Remove the checkpoints of a stage that has what it wanted from them."""
    shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)


def restore_finished(trainer: Any, checkpoint: Path) -> bool:
    """Take over a checkpoint of the last step. Trainer.train would go on for a step, where max_steps cuts an epoch."""
    from transformers import TrainerState

    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    if state.global_step < state.max_steps:
        return False
    trainer._load_from_checkpoint(str(checkpoint))
    trainer.state = state
    return True
