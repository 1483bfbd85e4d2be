"""What stages that train adapters with a TRL trainer share: settings, arguments, order of rows, checkpoints, costs."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from stages._checkpoints import newest_checkpoint, restore_finished, seal
from stages._errors import UserError, nearest
from stages._memory import MEMORY_WORDS, device, memory_gib
from stages._model import compute_dtype, is_quantized

if TYPE_CHECKING:
    from stages._guard import Guards
    from stages._job import Job

# Arguments of TRL that have a place of their own here; two places would contradict each other.
_TAKEN = {"output_dir": "runs_dir", "seed": "seed", "report_to": "tracking", "max_length": "model.max_length"}

_CPU_TOKENS = 2048  # computed at once

_UNLOGGED = "unlogged.safetensors"  # of a checkpoint
_METRICS = "metrics/"  # what TRL has seen, in that file
_UNLOGGED_ATTRIBUTES = ("_tr_loss", "_globalstep_last_logged", "_total_train_tokens")  # of transformers and of TRL


class TrainingConfig(BaseModel):
    """Settings of every stage that trains an adapter."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)
    FREE: ClassVar[tuple[str, ...]] = ("max_dropped", "log_every", "save_every")

    learning_rate: float | None = Field(None, gt=0)
    """Peak step size; without it, the model preset's for this kind of training."""
    epochs: float = Field(2.0, gt=0)
    """Passes over the rows."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many steps, whatever the epochs."""
    batch_size: int = Field(16, ge=1)
    """Rows a step. What does not fit at once (model.micro_batch) is accumulated."""
    warmup: float = Field(0.03, ge=0)
    """Share of the steps in which the step size rises; 1 and more: so many steps."""
    schedule: str = "cosine"
    """How the step size falls: any scheduler name of transformers."""
    weight_decay: float = Field(0.0, ge=0)
    """Decay of the adapter weights."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Longest gradient; longer ones are scaled down."""
    optimizer: str | None = None
    """Any optimizer name of transformers; without it, AdamW, with paged 8-bit states over a 4-bit base."""
    max_dropped: float = Field(0.02, ge=0, le=1)
    """Share of rows that may be left out (too long, refused by the chat template) before it is an error."""
    log_every: int = Field(10, ge=1)
    """Steps between rows of log.jsonl."""
    save_every: int = Field(100, ge=1)
    """Steps between checkpoints. An interruption that can be handled saves one in any case."""
    trainer: dict[str, Any] = Field(default_factory=dict)
    """Any argument of the TRL trainer's configuration, checked against the installed class."""


def arguments(
    kind: type[Any],
    job: Job,
    config: TrainingConfig,
    learning_rate: float,
    rows_an_example: int = 1,
    at_once: int = 1,
    **own: Any,
) -> Any:
    """The TRL configuration object for this stage; UserError for a `trainer` key that the class does not have.

    An example is `rows_an_example` rows of model.micro_batch, and no fewer than `at_once` are computed at once: a
    divisor of the batch size.
    """
    import torch

    model = job.settings.model
    on_gpu = device() == "cuda"
    micro = min(config.batch_size, max(at_once, model.micro_batch // rows_an_example))
    while config.batch_size % micro:  # the largest part that divides the batch
        micro -= 1
    compute = compute_dtype(model, training=True)
    chosen = {
        "output_dir": str(job.folder / "checkpoints"),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": config.batch_size // micro,
        "per_device_eval_batch_size": micro,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "learning_rate": config.learning_rate or learning_rate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "optim": _optimizer(config.optimizer, is_quantized(model), on_gpu),
        "logging_steps": config.log_every,
        "logging_first_step": True,
        "save_strategy": "steps",
        "save_steps": config.save_every,
        "save_total_limit": 2,
        "report_to": "none",
        "seed": job.seed,
        "bf16": compute == torch.bfloat16,
        "fp16": compute == torch.float16,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "disable_tqdm": True,
        "gradient_checkpointing": model.activation_checkpointing,
    } | own
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    if "max_length" in known:  # rows are within model.max_length; TRL would cut or drop them without a word
        chosen["max_length"] = None
    if not on_gpu and "pad_to_multiple_of" in known:
        # On a CPU each new shape is a new kernel to make and to keep: 500 steps of rows padded to their own length took
        # 1.5 times as long and twice the memory.
        chosen["pad_to_multiple_of"] = 32
    wrong = [
        f"{job.name}.trainer.{key}: {kind.__name__} has no such argument{nearest(key, known)}"
        for key in config.trainer
        if key not in known
    ]
    wrong += [f"{job.name}.trainer.{key}: say {_TAKEN[key]}=… instead" for key in config.trainer if key in _TAKEN]
    if wrong:
        raise UserError(*wrong)
    trainer = dict(config.trainer)
    if not on_gpu and trainer.pop("activation_offloading", False):  # TRL fails on it
        job.say("activation_offloading is left out: there is no GPU to offload from")
    try:
        return kind(**(chosen | trainer))
    except (ValueError, TypeError) as error:
        raise UserError(f"{job.name}: {kind.__name__} refuses these settings: {error}") from error


def fit_to_cpu(args: Any, tokens: Sequence[int]) -> None:
    """On a CPU, compute no more examples at once than make 2,048 tokens in the mean; the others are accumulated.

    `tokens` are those of each example. So many fill the matrices of a CPU; more only take memory: a step of four rows
    of 1,100 tokens by 135 M weights goes through 275 tokens a second in 9.6 GiB all at once, 283 in 7.0 by twos, 251 in
    4.5 one by one.
    """
    size = args.per_device_train_batch_size
    if not args.use_cpu or size * sum(tokens) <= _CPU_TOKENS * len(tokens):
        return
    batch = size * args.gradient_accumulation_steps
    most = _CPU_TOKENS * len(tokens) // sum(tokens)
    size = max(part for part in range(1, size + 1) if part <= max(1, most) and batch % part == 0)
    args.per_device_train_batch_size = args.per_device_eval_batch_size = size
    args.gradient_accumulation_steps = batch // size


def _optimizer(chosen: str | None, quantized: bool, on_gpu: bool) -> str:
    name = chosen or ("paged_adamw_8bit" if quantized else "adamw_torch_fused")
    return name if on_gpu else name.removeprefix("paged_")  # from memory there is nowhere to page to


def ordered(trainer: type[Any], lengths: list[int]) -> type[Any]:
    """The trainer class with batches of rows of like length, in an order that (seed, epoch) alone decide.

    transformers' own grouping draws from the global random state, so that a resumed run would see another order.
    """
    _project_labelled_positions_only()

    class Ordered(trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:
            size = self.args.per_device_train_batch_size
            return LengthGrouped(lengths, size, size * self.args.gradient_accumulation_steps, self.args.seed)

    Ordered.__name__ = trainer.__name__
    return Ordered


def _project_labelled_positions_only() -> None:
    """Have TRL's fused LM head skip positions without a label on a CPU too, as it does on GPUs: a fifth less time.

    Its reason not to is compilers that want fixed shapes; there is none here. A test holds the losses equal.
    """
    from trl.trainer import utils

    utils._use_triton = lambda device: True


class LengthGrouped:
    """Row numbers so that each micro-batch has rows of like length and each step a random mix of lengths."""

    def __init__(self, lengths: list[int], micro: int, batch: int, seed: int, window: int = 20) -> None:
        self.lengths, self.micro, self.window, self.seed = lengths, micro, window * batch, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(f"{self.seed}/{self.epoch}")
        order = list(range(len(self.lengths)))
        draw.shuffle(order)
        groups: list[list[int]] = []
        for start in range(0, len(order), self.window):
            near = sorted(order[start : start + self.window], key=lambda row: self.lengths[row])
            groups += [near[place : place + self.micro] for place in range(0, len(near), self.micro)]
        full = [group for group in groups if len(group) == self.micro]
        draw.shuffle(full)
        # Incomplete groups go last, or they would shift the borders of all batches behind them.
        for group in (*full, *(group for group in groups if len(group) < self.micro)):
            yield from group


def train(job: Job, trainer: Any, guards: Guards | None = None) -> dict[str, Any]:
    """Train, or go on from the newest whole checkpoint; prints and returns what it took. Interrupted: saves and raises.

    `guards` see every step and every logged row, and may end the training; what they know is part of a checkpoint.
    """
    from transformers import PrinterCallback

    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad and parameter.dtype.itemsize < 4:
            raise RuntimeError(f"{name} is {parameter.dtype}: adapters train in float32, small steps vanish otherwise")
    checkpoint = newest_checkpoint(job)
    first = int(checkpoint.name.split("-")[1]) if checkpoint else 0
    job.rewind(first)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_watch(job, trainer, checkpoint, first, guards))
    before = memory_gib()
    if guards:
        guards.begin(checkpoint)
    job.say(f"{before:.2f} GiB {MEMORY_WORDS[device()]} before training")
    began = time.monotonic()
    with job.finishing_steps():
        if not (checkpoint and restore_finished(trainer, checkpoint)):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds, peak = time.monotonic() - began, memory_gib(peak=True)
    job.say(
        f"{trainer.state.global_step - first} steps in {seconds:.1f} s; {peak:.2f} GiB {MEMORY_WORDS[device()]} at the"
        f" peak, {max(0.0, peak - before):.2f} GiB of it for training"
    )
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {
        "steps": trainer.state.global_step,
        "resumed_from_step": first,
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "train_seconds": round(seconds, 2),
        "memory_before_gib": round(before, 3),
        "memory_peak_gib": round(peak, 3),
        "memory_kind": MEMORY_WORDS[device()],
    }


def _watch(job: Job, trainer: Any, checkpoint: Path | None, first: int, guards: Guards | None) -> Any:
    """The callback that shows progress, writes log.jsonl, seals checkpoints, and stops after the step when asked to."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar, self.loss = job.bar(state.max_steps, "training", first), ""
            if checkpoint:
                _load_unlogged(trainer, checkpoint)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                self.loss = f"loss {logs['loss']:.3f}"
            if logs and "train_runtime" not in logs:
                job.log({"step": state.global_step} | logs)
            if guards and logs and guards.row(state.global_step, logs):
                self.end(state, control)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.update(state.global_step, self.loss)
            if guards and guards.step(state.global_step):
                self.end(state, control)
            if job.stopping:
                control.should_save = control.should_training_stop = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            checkpoint = job.folder / "checkpoints" / f"checkpoint-{state.global_step}"
            if guards:
                guards.save(checkpoint)
            _save_unlogged(trainer, checkpoint)
            seal(checkpoint)

        def end(self, state: Any, control: Any) -> None:
            control.should_save = control.should_training_stop = True
            state.max_steps = state.global_step  # so that what is saved is seen to be the end

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.close()

    return Watch()


def _save_unlogged(trainer: Any, checkpoint: Path) -> None:
    """Add to a checkpoint what was seen since the last logged row. Neither transformers nor TRL keeps it, so that the
    row after an interruption would be a mean over fewer steps than that of an uninterrupted run.
    """
    import torch
    from safetensors.torch import save_file

    seen = {name: torch.as_tensor(getattr(trainer, name)) for name in _UNLOGGED_ATTRIBUTES if hasattr(trainer, name)}
    for key, values in trainer._metrics["train"].items():
        seen[f"{_METRICS}{key}"] = torch.tensor(values, dtype=torch.float64)  # which holds all that Python's floats do
    save_file(seen, checkpoint / _UNLOGGED)


def _load_unlogged(trainer: Any, checkpoint: Path) -> None:
    """Put back what `_save_unlogged` wrote; a checkpoint of an earlier version has none."""
    from safetensors.torch import load_file

    stored = checkpoint / _UNLOGGED
    for name, value in load_file(stored, device=str(trainer.args.device)).items() if stored.exists() else ():
        if name.startswith(_METRICS):
            trainer._metrics["train"][name.removeprefix(_METRICS)] = value.tolist()
        else:
            setattr(trainer, name, value if value.is_floating_point() else value.item())


@contextlib.contextmanager
def adapters_stay_float32(model: Any) -> Iterator[None]:
    """Hide from a TRL trainer under construction that the base is in 4 bits: it would round the adapter to bfloat16."""
    base = model.get_base_model()
    hidden = getattr(base, "is_loaded_in_4bit", False)
    if hidden:
        base.is_loaded_in_4bit = False
    try:
        yield
    finally:
        if hidden:
            base.is_loaded_in_4bit = True
