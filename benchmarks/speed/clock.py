"""What a training costs, read off any Trainer of transformers alike: seconds, rows and tokens a step, memory.

Nothing of a contender is changed: its trainer gets a callback, its collator is listened to, and its embedding counts
the tokens that really go through the model. So rows that share a prompt, padding, and passes of a reference are seen as
they are, wherever a contender makes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from stages._machine import peak_memory


class _Trained(Exception):
    """The training is over, and what a stage would do after it is left out."""


@dataclass(slots=True)
class Reading:
    """What the steps after the warm-up took.

    `tokens` are those of the rows without padding (a pair has its prompt twice), `labelled` those with a loss,
    `computed` those that went through the model with gradients. `reference_seconds` is what log-probabilities of a
    reference cost that was asked before the first step, for these rows; `seconds` includes it, `cpu_seconds` (of all
    threads) does not. Where they are fewer than the seconds times the threads, something else was running.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    rows: int = 0
    tokens: int = 0
    labelled: int = 0
    computed: int = 0
    reference_seconds: float = 0.0
    peak_bytes: int = 0
    losses: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """With the shares that explain a speed-up."""
        shares = {"pad_efficiency": self.tokens / self.computed, "labelled_share": self.labelled / self.tokens}
        return asdict(self) | shares


@dataclass(slots=True)
class _Tape:
    """What was heard, up to now."""

    ends: list[float] = field(default_factory=list)  # of steps
    worked: list[float] = field(default_factory=list)  # CPU time, up to each end
    computed: list[int] = field(default_factory=list)  # tokens with gradients, up to each end
    rows: list[tuple[int, int, int]] = field(default_factory=list)  # rows, tokens, labelled: of each micro-batch
    losses: list[float] = field(default_factory=list)
    with_gradients: int = 0
    without: int = 0  # tokens without gradients before the first step
    without_in_steps: int = 0
    without_seconds: float = 0.0  # forward passes without gradients before the first step
    stepping: bool = False
    began: float = 0.0
    peak: int = 0


def measured(train: Callable[[], object], warmup: int, seen: Callable[[Any], None] | None = None) -> Reading:
    """Run a function that trains with a Trainer, to the end of that training.

    `seen` is shown the model before each step of the optimizer, with the gradients of that step.
    """
    from transformers import Trainer

    tape = _Tape()
    plain_init, plain_train = Trainer.__init__, Trainer.train
    accumulated = 1

    def init(trainer: Any, *args: Any, **more: Any) -> None:
        plain_init(trainer, *args, **more)
        _count_tokens(trainer.model, tape)

    def run(trainer: Any, *args: Any, **more: Any) -> None:
        nonlocal accumulated
        accumulated = trainer.args.gradient_accumulation_steps
        collate = trainer.data_collator
        trainer.data_collator = lambda rows: tape.rows.append(_counts(rows)) or collate(rows)
        trainer.add_callback(_callback(tape, seen))
        plain_train(trainer, *args, **more)
        raise _Trained

    Trainer.__init__, Trainer.train = init, run
    try:
        train()
    except _Trained:
        pass
    finally:
        Trainer.__init__, Trainer.train = plain_init, plain_train
    return _reading(tape, warmup, accumulated)


def _reading(tape: _Tape, warmup: int, accumulated: int) -> Reading:
    steps = len(tape.ends)
    if warmup < 1 or steps <= warmup:
        raise ValueError(f"{steps} steps, of which {warmup} warm up: there is nothing to measure")
    batches = tape.rows[warmup * accumulated : steps * accumulated]
    rows, tokens, labelled = (sum(column) for column in zip(*batches, strict=True))
    computed = tape.computed[-1] - tape.computed[warmup - 1]
    reference = 0.0
    if tape.without and not tape.without_in_steps:
        if not tape.without_seconds:
            raise RuntimeError("a reference was asked before the first step, past the model that is listened to")
        reference = tape.without_seconds / tape.without * computed
    seconds = tape.ends[-1] - tape.ends[warmup - 1] + reference
    worked = tape.worked[-1] - tape.worked[warmup - 1]
    return Reading(seconds, worked, rows, tokens, labelled, computed, reference, tape.peak, tape.losses)


def _counts(rows: Sequence[dict[str, Any]]) -> tuple[int, int, int]:
    """Rows, tokens and labelled tokens of what a collator is given: rows with labels, or pairs."""
    tokens = labelled = 0
    for row in rows:
        if "labels" in row:
            tokens += len(row["input_ids"])
            labelled += sum(label >= 0 for label in row["labels"])
        else:
            answers = len(row["chosen_ids"]) + len(row["rejected_ids"])
            tokens += 2 * len(row["prompt_ids"]) + answers
            labelled += answers
    return len(rows), tokens, labelled


def _count_tokens(model: Any, tape: _Tape) -> None:
    """Count the tokens that are embedded, and time passes without gradients that come before the first step."""
    import torch

    began = 0.0

    def embedded(_module: Any, ids: tuple[Any, ...], _output: Any) -> None:
        if torch.is_grad_enabled():
            tape.with_gradients += ids[0].numel()
        elif tape.stepping:
            tape.without_in_steps += ids[0].numel()
        else:
            tape.without += ids[0].numel()

    def before(*_: Any) -> None:
        nonlocal began
        began = time.perf_counter()

    def after(*_: Any) -> None:
        if not torch.is_grad_enabled() and not tape.stepping:
            synchronized()
            tape.without_seconds += time.perf_counter() - began

    model.get_input_embeddings().register_forward_hook(embedded)
    model.register_forward_pre_hook(before)
    model.register_forward_hook(after)


def synchronized() -> None:
    """Wait for the GPU, where there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _callback(tape: _Tape, seen: Callable[[Any], None] | None) -> Any:
    from transformers import TrainerCallback

    class Listener(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            tape.stepping = True

        def on_pre_optimizer_step(self, *_: Any, model: Any = None, **__: Any) -> None:
            if seen:
                seen(model)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronized()
            tape.ends.append(time.perf_counter())
            tape.worked.append(time.process_time())
            tape.computed.append(tape.with_gradients)
            tape.peak = peak_bytes()

        def on_log(self, *_: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
            if logs and "loss" in logs:
                tape.losses.append(logs["loss"])

    return Listener()


def peak_bytes() -> int:
    """The most memory of this process so far: on the GPU, or resident where there is none."""
    peak = peak_memory()
    return peak.get("gpu_bytes", peak["host_bytes"])
