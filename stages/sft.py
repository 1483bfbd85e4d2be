"""Supervised fine-tuning: teach the base to call tools from transcripts.

    python train.py stage=sft [model=…] [data=…] [sft.rank=32 …]

A LoRA adapter on all linear layers of a frozen base (in 4 bits with model.quantization=nf4: QLoRA), TRL's SFTTrainer,
loss on the assistant's tokens alone. The cheap part of stage=check comes first. Writes sft/adapter. Left out: full
fine-tuning, and packing, which on a CPU loses to batches of rows of like length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages._lora import AdapterConfig, with_fresh_adapter
from stages._training import TrainingConfig

if TYPE_CHECKING:
    from data.transcript import Request
    from stages._job import Job

PARENTS: tuple[str, ...] = ()
BLOCKS = ("model", "data")


class Config(AdapterConfig, TrainingConfig):
    """Settings of stage=sft."""

    epochs: float = Field(1.0, gt=0)
    """Passes over the rows: thousands need no second one, a few hundred want two or three."""
    batch_size: int = Field(8, ge=1)
    """Rows a step. What does not fit at once (model.micro_batch) is accumulated."""
    validation_rows: int = Field(200, ge=0)
    """Validation requests whose loss is measured at the end."""


def run(job: Job) -> dict[str, Any]:
    """Train the adapter; returns losses, rows by what became of them, time and memory."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from data import dialects
    from stages import _preflight, _training
    from stages._checkpoints import forget_checkpoints
    from stages._model import load_base, load_tokenizer, save_adapter
    from stages._rows import rows_of

    config, model_config = job.config, job.settings.model
    args = _training.arguments(
        SFTConfig, job, config, model_config.learning_rate, dataset_kwargs={"skip_prepare_dataset": True}
    )
    tokenizer, dialect = load_tokenizer(model_config), dialects.get(model_config.dialect)
    data = _preflight.loaded(job)
    _preflight.check(job, data, tokenizer, dialect)
    rows, counts = rows_of(tokenizer, dialect, data.sft, model_config.max_length)
    job.record(**counts.as_dict())
    counts.check(config.max_dropped, "sft.max_dropped")
    trained = sum(label >= 0 for row in rows for label in row.labels)
    tokens = sum(len(row.input_ids) for row in rows)
    job.say(f"{counts.kept} rows of {counts.total}, {tokens} tokens, {trained} of them trained")

    model = with_fresh_adapter(load_base(model_config, training=True), config, model_config, job.seed)
    lengths = [len(row.input_ids) for row in rows]
    _training.fit_to_cpu(args, lengths)
    trainer_class = _training.ordered(SFTTrainer, lengths)
    with _training.adapters_stay_float32(model):
        trainer = trainer_class(
            model=model,
            args=args,
            train_dataset=Dataset.from_dict(
                {"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]}
            ),
            processing_class=tokenizer,
        )
    results = _training.train(job, trainer)
    results |= _validation_loss(trainer, tokenizer, dialect, data.validation[: config.validation_rows], model_config)
    save_adapter(model, job.folder / "adapter")
    forget_checkpoints(job)
    adapter = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return counts.as_dict() | results | {"tokens": tokens, "tokens_trained": trained, "adapter_weights": adapter}


def _validation_loss(
    trainer: Any, tokenizer: Any, dialect: Any, requests: list[Request], model_config: Any
) -> dict[str, Any]:
    """Mean loss of the gold turns of validation requests, over their tokens."""
    from datasets import Dataset

    from stages._rows import request_row
    from stages._sampling import TemplateError

    rows = []
    for request in requests:
        if request.gold is not None:
            try:
                rows.append(request_row(tokenizer, dialect, request))
            except TemplateError:
                continue
    rows = [row for row in rows if len(row.input_ids) <= model_config.max_length]
    if not rows:
        return {"validation_loss": None, "validation_rows": 0}
    columns = {"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]}
    measured = trainer.evaluate(Dataset.from_dict(columns))
    return {"validation_loss": measured["eval_loss"], "validation_rows": len(rows)}
