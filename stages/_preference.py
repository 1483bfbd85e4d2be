"""What stages that train on pairs.jsonl share: settings, pairs as ids, log-probabilities, guard, rates at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from stages._training import TrainingConfig

if TYPE_CHECKING:
    import torch

    from stages._job import Job


class PreferenceConfig(TrainingConfig):
    """Settings of every stage that goes on from the SFT adapter with pairs.jsonl."""

    FREE: ClassVar[tuple[str, ...]] = ("max_dropped", "save_every")  # what the guard sees depends on log_every

    epochs: float = Field(1.0, gt=0)
    """Passes over the pairs."""
    log_every: int = Field(5, ge=1)
    """Steps between rows of log.jsonl."""
    beta: float = Field(0.1, gt=0)
    """How strongly the policy is held to the reference; smaller lets it go further."""
    guard: Literal["stop", "warn", "off"] = "warn"
    """What to do when chosen answers lose too much probability themselves."""
    guard_drop: float = Field(8.0, gt=0)
    """Nats that the mean log-probability of chosen answers may lose against the reference before the guard acts."""


def pair_rows(tokenizer: Any, rows: Any, max_length: int) -> tuple[list[dict[str, Any]], Any]:
    """Pairs as ids, the prompt as generation encodes it, each answer with its end of turn, and their margin in points;
    and what became of them.
    """
    from stages._rows import Counts
    from stages._sampling import TemplateError, encode, render, turn_end

    counts = Counts()
    end = list(turn_end(tokenizer).ids)
    kept: list[dict[str, Any]] = []
    for row in rows:
        counts.total += 1
        try:
            prompt = encode(tokenizer, render(tokenizer, row["tools"], row["prompt"], prompt=True))
        except TemplateError as error:
            counts.drop("refused", row["id"], str(error))
            continue
        sides = {side: encode(tokenizer, row[side]) + end for side in ("chosen", "rejected")}
        if sides["chosen"] == sides["rejected"]:
            raise ValueError(f"{row['id']}: chosen and rejected are the same tokens")
        longest = len(prompt) + max(map(len, sides.values()))
        if longest > max_length:
            counts.drop("too_long", row["id"], f"{longest} tokens, model.max_length is {max_length}")
            continue
        counts.kept += 1
        kept.append(
            {"prompt_ids": prompt, "chosen_ids": sides["chosen"], "rejected_ids": sides["rejected"]}
            | {"margin": row["margin"]}
        )
    return kept, counts


def completion_logps(trainer: Any, batch: dict[str, Any], kind: str = "") -> torch.Tensor:
    """The policy's log-probability of each completion of a collated batch, in nats, [rows]; `kind` starts its keys."""
    import torch

    ids, mask = batch[f"{kind}input_ids"], batch[f"{kind}attention_mask"]
    labels = ids.masked_fill(batch[f"{kind}completion_mask"] == 0, -100)
    with torch.no_grad(), trainer.accelerator.autocast():
        outputs = trainer.model(input_ids=ids, attention_mask=mask, use_cache=False, labels=labels, fused_lm_head=True)
    return outputs.log_probs.sum(1)


def guard(job: Job, config: PreferenceConfig, way_out: str) -> Callable[[dict[str, Any]], bool]:
    """Looks at each logged row; True says to stop training. `way_out` is the advice it gives."""
    told = False

    def look(logs: dict[str, Any]) -> bool:
        nonlocal told
        gain = logs.get("rewards/chosen", 0.0) / config.beta
        if config.guard == "off" or gain >= -config.guard_drop:
            return False
        if not told:
            told = True
            job.record(guard={"chosen_gain_nats": gain, "action": config.guard})
            job.say(
                f"chosen answers lost {-gain:.1f} nats against the reference"
                f" ({job.name}.guard_drop={config.guard_drop:g}):"
                + (" stopping here" if config.guard == "stop" else " both sides are being pushed down")
                + f"; {way_out} helps"
            )
        return config.guard == "stop"

    return look


def validate(job: Job) -> dict[str, Any]:
    """The contract's rates on the validation requests, greedy, by the adapter as it lies on disk."""
    from data import dialects, load
    from stages import _scoring
    from stages._model import load_policy, load_tokenizer

    settings, how = job.settings, job.settings.stage("evaluate")
    tokenizer, dialect = load_tokenizer(settings.model), dialects.get(settings.model.dialect)
    asked = _scoring.spread(load.load(settings.data).validation, how.limit)
    requests, refused = _scoring.renderable(tokenizer, dialect, asked)
    if not requests:
        return {"validation_n": 0}
    scored = _scoring.answer(
        load_policy(settings.model, job.folder / "adapter"),
        tokenizer,
        dialect,
        requests,
        settings.reward,
        max_new_tokens=how.max_new_tokens or settings.model.max_new_tokens,
        batch_size=how.batch_size or settings.model.sample_batch,
        label="validation",
        job=job,
    )
    rates = {name: value for name, value in _scoring.measure(requests, scored).items() if not isinstance(value, dict)}
    shown = {name: rates[name] for name in ("false_tool_call_rate", "missed_call_rate")}
    said = ", ".join(f"{name} {'-' if value is None else f'{value:.1%}'}" for name, value in shown.items())
    job.say(f"{len(requests)} validation requests: {said}")
    return {"validation_refused_by_template": len(refused)} | {f"validation_{name}": rates[name] for name in rates}
