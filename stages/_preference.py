"""What stages that train on pairs.jsonl share: settings, pairs as ids, log-probabilities, guards, rates at the end."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from stages._guard import GuardConfig
from stages._training import TrainingConfig

if TYPE_CHECKING:
    import torch

    from data.transcript import Request
    from stages._job import Job

# Beside the NLL of the chosen answers steps can be large: these are learned as in fine-tuning, while the preference
# alone would push both sides down. Measured on the built-in world (CHANGELOG.md).
NLL_WEIGHT = 3.0
NLL_STEP = 3.0


class PreferenceConfig(GuardConfig, TrainingConfig):
    """Settings of every stage that goes on from the SFT adapter with pairs.jsonl."""

    FREE: ClassVar[tuple[str, ...]] = ("max_dropped", "save_every")  # what the guards see depends on log_every

    learning_rate: float | None = Field(None, gt=0)
    """Peak step size; without it model.preference_learning_rate, three times that where the chosen answers' NLL is part
    of the loss."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the pairs."""
    log_every: int = Field(5, ge=1)
    """Steps between rows of log.jsonl."""
    beta: float = Field(0.1, gt=0)
    """How strongly the policy is held to the reference; smaller lets it go further."""
    rejected_tokens: int | None = Field(4, ge=1)
    """How many tokens of a rejected answer count, from where it parts from the chosen one; null: all, as in TRL. There
    it goes wrong; the rest would be right elsewhere, and is unlearned where it is pushed down too. (Step-DPO, arXiv
    2406.18629, rejects the first wrong step alone.)"""
    rounds: int = Field(1, ge=1, le=10)
    """How often pairs are made and trained on: from the second round on, of answers of the policy aligned so far, which
    is then the reference too. Earlier rounds lie in rounds/<number>/ of the stage's folder."""


def pair_rows(
    tokenizer: Any, rows: Any, max_length: int, rejected_tokens: int | None = None
) -> tuple[list[dict[str, Any]], Any]:
    """Pairs as ids, the prompt as generation encodes it, each answer with its end of turn, and their margin in points;
    and what became of them. `rejected_tokens` is how much is kept of a rejected answer from where it parts from the
    chosen one, all of it where None.
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
        if rejected_tokens is not None:
            same = [one == other for one, other in zip(sides["chosen"], sides["rejected"], strict=False)]
            parted = [*same, False].index(False)
            sides["rejected"] = sides["rejected"][: parted + rejected_tokens]
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


def load_pairs(job: Job, tokenizer: Any) -> tuple[list[dict[str, Any]], Any]:
    """The pairs of the stage before as `pair_rows` makes them; UserError where too many had to be left out."""
    from stages._files import read_jsonl

    rows = read_jsonl(job.parent("pairs") / "pairs.jsonl")
    pairs, counts = pair_rows(tokenizer, rows, job.settings.model.max_length, job.config.rejected_tokens)
    job.record(**counts.as_dict())
    counts.check(job.config.max_dropped, f"{job.name}.max_dropped")
    return pairs, counts


def train(job: Job, trainer: Any, tokenizer: Any, way_out: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train under the guards, whose advice is `way_out`; what it took, and the logged rows of the weights that stay."""
    from stages import _training
    from stages._guard import Guards, missed_calls

    config, guards = job.config, None
    if config.guard != "off":
        missed = missed_calls(job, trainer, tokenizer, config.guard_requests) if config.guard_requests else None
        guards = Guards(job, config, trainer.beta, trainer.model, missed, way_out)
    results = _training.train(job, trainer, guards)
    if guards:
        results |= guards.finish(results["steps"])
    kept = results.get("kept_step", results["steps"])
    rows = [row for row in trainer.state.log_history if any(key.startswith("rewards/") for key in row)]
    return results, [row for row in rows if row["step"] <= kept] or rows[:1]  # later rows tell of other weights


def play_earlier_rounds(job: Job) -> None:
    """All rounds but the last, each with its own pairs; after it, the job goes on from what they made."""
    policy, pairs = job.parent("sft"), job.parent("pairs")
    rounds = job.config.rounds
    for number in range(1, rounds):
        job.say(f"round {number} of {rounds}")
        policy = job.within(f"rounds/{number}", job.name, {"sft": policy, "pairs": pairs}, rounds=1)
        pairs = job.within(f"rounds/{number + 1}", "pairs", {"sft": policy})
    if rounds > 1:
        job.say(f"round {rounds} of {rounds}")
        job.read_instead(sft=policy, pairs=pairs)


def train_and_validate(job: Job, train_stage: Callable[[Job], dict[str, Any]], tested: bool = False) -> dict[str, Any]:
    """A whole stage: train, ask the validation requests and, if `tested`, the test requests too; tidy up.

    The results are those of training, the contract's rates with `validation_` before them, and those of the test.
    """
    from data import load
    from stages._checkpoints import forget_checkpoints

    results = train_stage(job)
    if not job.leads:
        return results
    gc.collect()  # the trainer's cycles hold the model
    data = load.load(job.settings.data)
    results |= {f"validation_{name}": value for name, value in measure(job, data.validation, "validation").items()}
    if tested:
        results |= measure(job, data.test, "test")
    forget_checkpoints(job)
    return results


def measure(job: Job, requests: Sequence[Request], name: str) -> dict[str, Any]:
    """The contract's rates on these requests, greedy, by the adapter as it lies on disk; `n` 0 where there are none."""
    from data import dialects
    from stages import _scoring
    from stages._model import load_policy, load_tokenizer

    settings = job.settings
    tokenizer, dialect = load_tokenizer(settings.model), dialects.get(settings.model.dialect)
    asked = _scoring.spread(requests, settings.stage("evaluate").limit)
    kept, refused = _scoring.renderable(tokenizer, dialect, asked)
    if not kept:
        return {"n": 0}
    model = load_policy(settings.model, job.folder / "adapter")
    scored = _scoring.answer_as_evaluated(model, tokenizer, dialect, kept, settings, name, job)
    rates = {key: value for key, value in _scoring.measure(kept, scored).items() if not isinstance(value, dict)}
    shown = {key: rates[key] for key in ("exact_call_rate", "false_tool_call_rate", "missed_call_rate")}
    said = ", ".join(f"{key} {'-' if value is None else f'{value:.1%}'}" for key, value in shown.items())
    job.say(f"{len(kept)} {name} requests: {said}")
    return {"refused_by_template": len(refused)} | rates
