"""What the reference says of pairs, computed once for each and kept in the run's cache (dpo.reference=cached).

The reference of preference training is the policy as it was fine-tuned, frozen. A pair's log-probabilities under it are
the same in every epoch, after an interruption, and in each point of a sweep that trains on that pair. Each pair is
computed alone: rounding depends on what shares a batch, and a result must not depend on which point came first. For
small models that costs nearly twice what batches do, so that it pays from the second pass on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from stages._job import Job

Logps = tuple[float, float]  # of the chosen and of the rejected answer, in nats


def know_reference(job: Job, trainer: Any, pairs: Sequence[dict[str, Any]]) -> None:
    """Have a DPOTrainer, made with these pairs, read its reference's log-probabilities from its rows."""
    from datasets import Dataset

    trainer.train_dataset = Dataset.from_list(
        [
            row | {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
            for row, (chosen, rejected) in zip(pairs, reference_logps(job, trainer, pairs), strict=True)
        ]
    )
    trainer.precompute_ref_logps = True  # as after TRL's own precomputing, whose cache knows whole data sets alone


def reference_logps(job: Job, trainer: Any, pairs: Sequence[dict[str, Any]]) -> list[Logps]:
    """Of each pair, in their order: from the cache of all that the numbers depend on, or computed now and put there."""
    from stages._files import append_jsonl, digest, locked, read_jsonl
    from stages._manifest import model_identity
    from stages._model import compute_dtype, is_quantized

    model = job.settings.model
    how = {
        "base": model_identity(model)["digest"],
        "adapter": digest(job.parent("sft") / "adapter"),
        "quantized": is_quantized(model),
        "dtype": str(compute_dtype(model, training=True)),
        "attention": model.attention,
        "trainer": job.config.trainer,
    }
    cache = job.cache / f"reference-{digest(how)[:16]}.jsonl"
    keys = [digest([row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]]) for row in pairs]
    with locked(cache.with_suffix(".lock"), "", wait=True):
        known = {row["key"]: row["logps"] for row in read_jsonl(cache)} if cache.exists() else {}
        left = {key: row for key, row in zip(keys, pairs, strict=True) if key not in known}
        if found := len({*keys}) - len(left):
            job.say(f"{found} of {found + len(left)} pairs have their reference already")
        for key, row in job.progress(left.items(), len(left), "reference"):
            chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch_of_one(trainer, row))
            known[key] = [chosen.item(), rejected.item()]
            append_jsonl(cache, {"key": key, "logps": known[key]})
    job.record(reference=cache.name, reference_computed=len(left))
    return [tuple(known[key]) for key in keys]


def batch_of_one(trainer: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    """A pair as the trainer's model takes it."""
    return trainer._prepare_inputs(trainer.data_collator([row]))


def reference_of(trainer: Any, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the reference says of the chosen and of the rejected answers of a batch, in nats, [pairs] each: as its rows
    know it, else computed.
    """
    if trainer.precompute_ref_logps:
        return batch["ref_chosen_logps"], batch["ref_rejected_logps"]
    return trainer.compute_ref_log_probs(trainer.model, batch)
