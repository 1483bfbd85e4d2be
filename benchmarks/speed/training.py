"""Who trains: the notebook recipe, TRL at its best, and our stages; on the same rows, with the same labels.

notebook  TRL's SFTTrainer and DPOTrainer as they are: rows in random order, padded to the longest of their batch,
          activations computed twice, the reference asked at each step; float32 on a CPU, bfloat16 on a GPU
best      TRL too, with all that its settings offer: in bfloat16 where this machine is faster in it, no checkpointing,
          rows of like length together, the reference asked once before the first step
ours      stages/sft.py and stages/dpo.py, by the configuration that train.py composes

Rank 16 on all linear layers, AdamW, the same batch and step size. What is not timed: reading rows and making ids.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.speed import clock
from benchmarks.speed.workload import LEARNING_RATE, Work, dtype_of, settings_of

CONTENDERS = ("notebook", "best", "ours")


def train(work: Work, who: str, folder: Path, seen: Callable[[Any], None] | None = None) -> clock.Reading:
    """Train as this contender does, in this process; `seen` as `clock.measured` has it."""
    # Nothing is left of a round before: a stage would go on from its checkpoint, or find what it has cached.
    place = folder / "made"
    shutil.rmtree(place, ignore_errors=True)
    contender = {
        ("sft", "ours"): _stage,
        ("dpo", "ours"): _stage,
        ("sft", "notebook"): _sft,
        ("sft", "best"): _sft,
        ("dpo", "notebook"): _dpo,
        ("dpo", "best"): _dpo,
    }[work.kind, who]
    return clock.measured(lambda: contender(work, who, folder, place), work.warmup, seen)


def _stage(work: Work, _who: str, folder: Path, _place: Path) -> None:
    """The stage itself."""
    from stages import _machine
    from stages._job import Job
    from stages._schema import stage_module

    settings = settings_of(work, folder, work.kind)
    _machine.prepare(settings, heavy=True)
    place = settings.folder / work.kind
    place.mkdir(parents=True)
    above = {name: folder / name for name in stage_module(work.kind).PARENTS}
    stage_module(work.kind).run(Job(work.kind, settings, place, above, resuming=False))


def _arguments(work: Work, who: str, folder: Path, place: Path) -> dict[str, Any]:
    """TRL's arguments: what all share, and what TRL can do better than by its defaults."""
    import torch

    gpu = torch.cuda.is_available()
    dtype = dtype_of(who, settings_of(work, folder, work.kind).model)
    shared = {
        "output_dir": str(place),
        "per_device_train_batch_size": work.batch,
        "max_steps": work.warmup + work.steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "max_length": None,  # no row is cut
        "use_cpu": not gpu,
        "bf16": dtype is torch.bfloat16,
        "fp16": dtype is torch.float16,
    }
    if who == "notebook":
        return shared
    return shared | {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}


def _base(work: Work, who: str, folder: Path) -> Any:
    """The model as each loads it: in float32 unless it knows better."""
    import torch
    import transformers

    settings = settings_of(work, folder, work.kind)
    more: dict[str, Any] = {"dtype": dtype_of(who, settings.model)}
    if work.quantization == "nf4":
        more["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=more["dtype"],
        )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_pretrained(settings.model.path, **more)
    return model.to("cuda") if torch.cuda.is_available() and work.quantization == "none" else model


def _sft(work: Work, who: str, folder: Path, place: Path) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from trl import SFTConfig, SFTTrainer

    from benchmarks.speed.workload import speech
    from data import load
    from stages._rows import rows_of

    settings = settings_of(work, folder, "sft")
    tokenizer, dialect = speech(settings.model)
    rows, _ = rows_of(tokenizer, dialect, load.load(settings.data).sft, settings.model.max_length)
    base = _base(work, who, folder)
    torch.manual_seed(0)  # the stage's adapter
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    SFTTrainer(
        model=model,
        args=SFTConfig(**_arguments(work, who, folder, place), dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=Dataset.from_dict(
            {"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]}
        ),
        processing_class=tokenizer,
    ).train()


def _dpo(work: Work, who: str, folder: Path, place: Path) -> None:
    from datasets import Dataset
    from peft import PeftModel
    from trl import DPOConfig, DPOTrainer

    from benchmarks.speed.workload import speech
    from stages._files import read_jsonl
    from stages._preference import pair_rows

    class OnIds(DPOTrainer):
        """Takes pairs of ids as they are."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            self._signature_columns = [*{*self._signature_columns, "length"}]  # which the order of rows is made from

    settings = settings_of(work, folder, "dpo")
    tokenizer, _ = speech(settings.model)
    pairs, _ = pair_rows(tokenizer, read_jsonl(folder / "pairs" / "pairs.jsonl"), settings.model.max_length)
    for pair in pairs:
        pair["length"] = len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))
    model = PeftModel.from_pretrained(_base(work, who, folder), str(folder / "sft" / "adapter"), is_trainable=True)
    OnIds(
        model=model,
        args=DPOConfig(**_arguments(work, who, folder, place), precompute_ref_log_probs=who == "best"),
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
    ).train()
