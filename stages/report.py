"""Finished runs side by side on one page: both error rates, exact calls, what differs, what they took.

    python train.py stage=report run=comparison report.runs=[s0,s1,s2]

Reads runs/<name>/evaluate of each run and the manifests above it; loads no model. The last model of each run is held
against that of the first one, request by request where both answered the same requests. Runs that differ in their seed
alone are shown as mean and range too. Writes report/{metrics.json,report.html}: every number of the page is in the
former. Left out: the points of sweeps, which have their own page, and a correction of the p values for their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stages._job import Job
    from stages._settings import Settings


class Config(BaseModel):
    """Settings of stage=report."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)

    runs: list[str] | None = None
    """The runs to compare, two or more: names in runs_dir, or paths. The others are held against the first."""


def refuse(settings: Settings, _above: Mapping[str, Path]) -> None:
    """UserError for fewer than two runs, and for each that is not there, or whose evaluation is not."""
    from stages._runs import check

    check(settings)


def files(settings: Settings) -> dict[str, Path]:
    """The manifests of all that is compared: where one of them is new, so is the comparison."""
    from stages._runs import manifests, named

    return {f"{run.name}/{place}": path for run in named(settings) for place, path in manifests(run).items()}


def run(job: Job) -> dict[str, Any]:
    """Compare the runs and write the page; returns what it shows."""
    import shlex

    from stages._files import plain, write_text
    from stages._lineage import command
    from stages._runs import compare, named
    from stages._runs_report import render

    found = plain(compare(named(job.settings)))
    named_runs = shlex.quote(f"report.runs=[{','.join(job.config.runs)}]")
    facts = {"run": job.settings.run, "command": f"{command(job.name, job.settings)} {named_runs}"}
    write_text(job.folder / "report.html", render(found, facts))
    return found


def after(job: Job) -> None:
    """What was found, now or by an earlier call."""
    from stages._files import read_json
    from stages._runs_report import findings

    found = read_json(job.folder / "metrics.json")
    print("", *findings(found), "", f"report: {job.folder / 'report.html'}", sep="\n", flush=True)
