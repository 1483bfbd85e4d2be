"""Guards of preference training: what the pairs must not cost, looked at while it goes on.

chosen_drop   the chosen answers themselves lose probability against the reference
missed_calls  validation requests that need a call get none, more often than from the policy that training began with
displacement  margins grow while both sides fall, so that probability goes to answers nobody chose (likelihood
              displacement, Razin et al. 2024, arXiv 2410.08847)

A logged row tells of the weights before each of its steps, not of those after the last one. So weights count as good
once the next row has held too, and, where missed calls are measured on the way, only if they were measured and held.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, variance
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stages._files import plain, read_json, write_json

if TYPE_CHECKING:
    from stages._job import Job

KINDS = ("chosen_drop", "missed_calls", "displacement")

# Nats that no guard minds unless guard_drop says so: an answer keeps more than a third of its probability. A share of
# the reference's log-probability alone would forbid any change where the reference is nearly sure of the answer.
SLIGHT = 1.0
STANDARD_ERRORS = 2.5  # of 10,000 windows of 8 rows of pure noise none tripped; with 2.0 it was four


class GuardConfig(BaseModel):
    """Settings of a stage with guards."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)

    guard: Literal["stop", "warn", "off"] = "warn"
    """What a guard does that finds something: `stop` ends training and keeps the last good adapter, `warn` says it
    once a kind; `off`: none looks."""
    guard_drop: float = Field(8.0, gt=0)
    """Nats that the mean log-probability of chosen answers may lose against the reference before the guard acts."""
    guard_drop_share: float | None = Field(0.1, gt=0)
    """Share of the reference's log-probability that they may lose, if that is less; a loss of up to 1 nat is allowed in
    any case. null: guard_drop alone counts."""
    guard_missed: float = Field(0.02, ge=0, le=1)
    """How far the missed-call rate on validation requests may rise over that of the SFT policy."""
    guard_every: int = Field(0, ge=0)
    """Steps between measurements of missed calls; 0: only at the end."""
    guard_requests: int = Field(60, ge=0)
    """At most so many validation requests that need a call are asked for it, evenly spaced; 0: none."""
    guard_window: int = Field(8, ge=4)
    """Logged rows over which margins must grow and both sides fall, the newer half against the older."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The adapter's tensors on the CPU as they were after a step, and the missed-call rate if it was measured there."""

    step: int
    weights: dict[str, Any]
    rate: float | None = None


class Guards:
    """Looks at logged rows and at missed calls; each look returns True to say that training ends.

    By then the model has the last good weights again. `missed` measures the missed-call rate of the model as it is.
    """

    def __init__(
        self, job: Job, config: GuardConfig, beta: float, model: Any, missed: Callable[[], float] | None, way_out: str
    ) -> None:
        self.job, self.config, self.beta, self.model, self.missed = job, config, beta, model, missed
        self.way_out = way_out
        self.base: float | None = None
        self.every = config.guard_every if missed else 0
        self.rows: deque[tuple[float, float]] = deque(maxlen=config.guard_window)
        self.tripped: dict[str, dict[str, Any]] = {}
        self.kept: int | None = None  # the step whose weights a stop went back to
        self.measured: tuple[int, float] | None = None  # the step of the newest rate, and the rate
        self.start = self.good = self._copy(0)
        self.pending: Kept | None = None  # good if the next row holds

    def begin(self, checkpoint: Path | None) -> None:
        """Before the first step: measure the policy that training begins with, or go on as the checkpoint says."""
        if checkpoint:
            self._load(checkpoint)
        elif self.missed:
            self.base = self.missed()
        self.start = Kept(0, self.start.weights, self.base)
        if not checkpoint:
            self.good = self.start
        if self.base is not None:
            self.job.say(f"before training, {self.base:.1%} of the validation requests that need a call get none")
        self._record()

    def row(self, step: int, logs: dict[str, Any]) -> bool:
        """Judge a row that was logged after this step; rows without the rewards of both sides tell nothing."""
        if self.kept is not None or not logs.keys() >= {"rewards/chosen", "rewards/rejected", "logps/chosen"}:
            return False
        chosen, rejected = (logs[f"rewards/{side}"] / self.beta for side in ("chosen", "rejected"))
        allowed = allowed_drop(self.config, logs["logps/chosen"] - chosen)
        fell = not -chosen <= allowed  # so that NaN counts as fallen
        if fell:
            lost = f"chosen answers lost {-chosen:.1f} nats against the reference, {allowed:.1f} are allowed"
            self._trip("chosen_drop", step, lost, "guard_drop guard_drop_share", chosen_gain_nats=chosen)
        if math.isfinite(chosen) and math.isfinite(rejected):
            self.rows.append((chosen, rejected))
        displaced = len(self.rows) == self.config.guard_window and is_displaced(self.rows)
        if displaced:
            both = f"over {self.config.guard_window} rows margins grew while chosen and rejected answers both fell"
            self._trip("displacement", step, both, "guard_window", chosen_gain_nats=chosen, rejected_gain_nats=rejected)
        if fell or displaced:
            return self._end(self.good)
        if self.pending and self.pending.step < step:
            self.good, self.pending = self.pending, None
        if not self.pending and not self.every:
            self.pending = self._copy(step)
        return False

    def step(self, step: int) -> bool:
        """After each step: measure missed calls where it is due."""
        if self.kept is not None or not self.every or step % self.every:
            return False
        risen = self._missed_more(step, step)
        self.job.log({"step": step, "guard/missed_call_rate": self._rate})
        if risen:
            return self._end(self.good)
        if not self.pending:
            self.pending = self._copy(step, self._rate)
        return False

    def finish(self, step: int) -> dict[str, Any]:
        """After the last step: measure missed calls of the weights that are there, unless it was done; the metrics."""
        here = step if self.kept is None else self.kept
        known = self.measured is not None and self.measured[0] == here
        if not known and self._missed_more(step, here):
            # Only weights that were measured are known to hold. Without guard_every those are the first ones.
            self._end(self.good if self.every else self.start)
            here = step if self.kept is None else self.kept
        self._record(kept_step=here)
        return (
            {"kept_step": here}
            | {f"guard_{kind}_step": self.tripped.get(kind, {}).get("step") for kind in KINDS}
            | {"guard_missed_rate_before": self.base, "guard_missed_rate": self._rate}
        )

    def save(self, folder: Path) -> None:
        """Add to a checkpoint what a resumed run goes on from; guard.json and, where weights are kept, .safetensors."""
        copies = {name: kept for name, kept in (("good", self.good), ("pending", self.pending)) if kept}
        state = {name: getattr(self, name) for name in ("base", "tripped", "kept", "measured")}
        state |= {"rows": list(self.rows), "copies": {name: [kept.step, kept.rate] for name, kept in copies.items()}}
        write_json(folder / "guard.json", plain(state))
        if self.config.guard == "stop":
            from safetensors.torch import save_file

            tensors = {f"{name}/{key}": one for name, kept in copies.items() for key, one in kept.weights.items()}
            save_file(tensors, folder / "guard.safetensors")

    def _load(self, folder: Path) -> None:
        state = read_json(folder / "guard.json")
        self.base, self.tripped, self.kept = state["base"], state["tripped"], state["kept"]
        self.measured = tuple(state["measured"]) if state["measured"] else None
        self.rows.extend((chosen, rejected) for chosen, rejected in state["rows"])
        weights: dict[str, dict[str, Any]] = {name: {} for name in state["copies"]}
        if self.config.guard == "stop":
            from safetensors.torch import load_file

            for key, tensor in load_file(folder / "guard.safetensors").items():
                name, parameter = key.split("/", 1)
                weights[name][parameter] = tensor
        copies = {name: Kept(step, weights[name], rate) for name, (step, rate) in state["copies"].items()}
        self.good, self.pending = copies["good"], copies.get("pending")

    @property
    def _rate(self) -> float | None:
        return self.measured[1] if self.measured else None

    def _missed_more(self, step: int, here: int) -> bool:
        """At this step, measure missed calls of the weights that are there, those after step `here`: did they rise?"""
        if self.missed is None or self.base is None:
            return False
        rate = self.missed()
        self.measured = (here, rate)
        if rate - self.base <= self.config.guard_missed + 1e-9:  # 0.32 - 0.3 is a little over 0.02
            return False
        rose = f"missed calls on validation requests rose from {self.base:.1%} to {rate:.1%}"
        self._trip("missed_calls", step, rose, "guard_missed guard_every", missed_call_rate=rate, before=self.base)
        return True

    def _trip(self, kind: str, step: int, what: str, knobs: str, **facts: float) -> None:
        """Say and record it, once a kind."""
        if kind in self.tripped:
            return
        self.tripped[kind] = {"step": step, **facts}
        self._record()
        config, name = self.config, self.job.name
        limits = ", ".join(f"{name}.{knob}={getattr(config, knob)}" for knob in knobs.split())
        self.job.say(f"step {step}: {what} ({limits}); {self.way_out} helps")

    def _end(self, back_to: Kept) -> bool:
        """With guard=stop, put these weights back and say so."""
        if self.config.guard != "stop":
            return False
        import torch

        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in back_to.weights.items():
                parameters[name].copy_(value)
        self.kept = back_to.step
        self.measured = None if back_to.rate is None else (back_to.step, back_to.rate)
        self.job.say(f"{self.job.name}.guard=stop: the adapter is that of step {back_to.step}")
        return True

    def _copy(self, step: int, rate: float | None = None) -> Kept:
        """What training changes, as it is now; without weights where nothing will be put back."""
        if self.config.guard != "stop":
            return Kept(step, {}, rate)
        named = self.model.named_parameters()
        return Kept(step, {key: one.detach().to("cpu", copy=True) for key, one in named if one.requires_grad}, rate)

    def _record(self, **more: Any) -> None:
        self.job.record(guard={"action": self.config.guard, "tripped": self.tripped} | more)


def allowed_drop(config: GuardConfig, reference: float) -> float:
    """Nats that chosen answers may lose which the reference gives this log-probability.

    >>> [allowed_drop(GuardConfig(), logp) for logp in (-200.0, -40.0, -0.05)]
    [8.0, 4.0, 1.0]
    """
    if config.guard_drop_share is None:
        return config.guard_drop
    return min(config.guard_drop, max(SLIGHT, -config.guard_drop_share * reference))


def is_displaced(rows: Sequence[tuple[float, float]]) -> bool:
    """Whether margins grew while both sides fell; rows: nats that (chosen, rejected) answers gained on the reference.

    The newer half of the rows is held against the older: each of the three moves must be larger than 2.5 standard
    errors of the difference of their means, and chosen answers must have lost more than 1 nat.
    """
    chosen, rejected = ([row[side] for row in rows] for side in (0, 1))
    margins = [one - other for one, other in rows]
    falls = [[-value for value in side] for side in (chosen, rejected)]
    return mean(chosen[-(len(rows) // 2) :]) < -SLIGHT and all(map(_rises, (*falls, margins)))


def _rises(values: Sequence[float]) -> bool:
    half = len(values) // 2
    older, newer = values[:half], values[-half:]
    return mean(newer) - mean(older) > STANDARD_ERRORS * math.sqrt((variance(older) + variance(newer)) / half)


def missed_calls(job: Job, trainer: Any, tokenizer: Any, limit: int) -> Callable[[], float] | None:
    """What measures the missed-call rate of the trainer's model as it is now, by greedy answers; None without requests.

    Training goes on after it as if it had not been: nothing is drawn, and the model is left in the mode it was in, with
    the adapter it had.
    """
    from data import dialects, load
    from stages import _scoring
    from stages._metrics import needs_call

    settings = job.settings
    dialect = dialects.get(settings.model.dialect)
    asked = _scoring.spread([one for one in load.load(settings.data).validation if needs_call(one)], limit)
    requests, _ = _scoring.renderable(tokenizer, dialect, asked)
    if not requests:
        job.say("no validation request that needs a call is there to ask: missed calls are not guarded")
        return None

    def measure() -> float:
        with trainer.accelerator.autocast():
            scored = _scoring.answer_as_evaluated(trainer.model, tokenizer, dialect, requests, settings, "missed calls")
        rate: float = _scoring.measure(requests, scored)["missed_call_rate"]
        return rate

    return measure
