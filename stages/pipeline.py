"""The whole job in order: fine-tuning, pairs, preference training, merge, evaluation.

    python train.py stage=pipeline run=mine [seed=1] [any setting of the stages it runs]

Each stage lies in its own folder as if run alone; what is done with the same inputs is skipped, so that a second call
costs seconds. Ends with the table of models. Left out: running stages at the same time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from stages._job import Job

BRINGS = ("sft", "pairs", "dpo", "merge", "evaluate")
PARENTS = BRINGS


class Config(BaseModel):
    """Settings of stage=pipeline: none of its own, those of each stage stand under the stage's name."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


def run(job: Job) -> dict[str, Any]:
    """Returns what each stage took."""
    from stages._manifest import read_manifest
    from stages._progress import duration

    seconds = {stage: (read_manifest(job.parent(stage)) or {})["seconds"] for stage in PARENTS}
    job.say(", ".join(f"{stage} {duration(taken)}" for stage, taken in seconds.items()))
    return {"seconds": round(sum(seconds.values()), 2)} | {
        f"{stage}_seconds": taken for stage, taken in seconds.items()
    }


def after(job: Job) -> None:
    """The table of models, what changed from one to the next, where the report lies; the merged model published."""
    from stages import _publish
    from stages._summary import evaluation_in, findings

    folder = job.parent("evaluate")
    print("", *findings(*evaluation_in(folder)), "", f"report: {folder / 'report.html'}", sep="\n", flush=True)
    _publish.publish(job.parent("merge"), job.settings)  # here, so that the card holds the results
