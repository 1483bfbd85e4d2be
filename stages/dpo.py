"""Preference training: make the right answers of pairs.jsonl likelier than the wrong ones, from the SFT policy on.

    python train.py stage=dpo run=mine [dpo.beta=0.05 dpo.guard=stop dpo.loss=[reward_aware]]

TRL's DPOTrainer goes on with the SFT adapter; its reference is a frozen copy of the same adapter, which is checked
before the first step. The NLL term and the guards (stages/_guard.py) are there because pairs of nearly equal calls push
both sides down, and because missed calls are what fewer false calls are easily paid with.
Writes dpo/adapter and, on validation requests, both error rates. Left out: full fine-tuning, and another reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from stages import _preference, _twins
from stages._preference import PreferenceConfig

if TYPE_CHECKING:
    from pathlib import Path

    from stages._job import Job
    from stages._settings import Settings

Loss = Literal[
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
    "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "reward_aware",
]  # fmt: skip

PARENTS = ("sft", "pairs")
BRINGS = ("pairs",)
BLOCKS = ("model", "data", "reward", "evaluate")


class Config(PreferenceConfig):
    """Settings of stage=dpo."""

    batch_size: int = Field(8, ge=1)
    """Pairs a step. What does not fit at once (model.micro_batch) is accumulated."""
    loss: list[Loss] = Field(["sigmoid", "sft"], min_length=1)
    """Losses that are added up: any of TRL's DPOTrainer, and reward_aware, which pulls the implicit margin of a pair
    towards its margin in points; sft is the mean NLL of the chosen answers."""
    loss_weights: list[float] | None = None
    """Weight of each loss; by default 1 each, and 3 for sft: it teaches texts that fine-tuning never showed, such
    as refusals."""
    reward_scale: float = Field(0.2, gt=0)
    """Nats of implicit margin that reward_aware wants for each point of difference."""
    reference: Literal["cached"] | None = None
    """cached: the reference is asked once for each pair, before the first step, and its answer kept in the run's cache
    (stages/_reference.py), which makes later epochs and other points of a sweep cheaper. null: at each step, a batch at
    a time, which is faster in a single pass. The same numbers but for rounding."""

    @model_validator(mode="after")
    def _one_weight_a_loss(self) -> Config:
        if self.loss_weights is not None and len(self.loss) != len(self.loss_weights):
            raise ValueError(f"loss_weights: {len(self.loss_weights)} weights for {len(self.loss)} losses")
        return self

    @field_validator("trainer")
    @classmethod
    def _reference_is_ours(cls, trainer: dict[str, Any]) -> dict[str, Any]:
        if "precompute_ref_log_probs" in trainer:
            raise ValueError("precompute_ref_log_probs cannot be set; say dpo.reference=cached")
        return trainer

    @property
    def weights(self) -> list[float]:
        """The weight of each loss."""
        return self.loss_weights or [_preference.NLL_WEIGHT if name == "sft" else 1.0 for name in self.loss]

    @property
    def step_factor(self) -> float:
        """Times model.preference_learning_rate, where no learning_rate is set."""
        return _preference.NLL_STEP if "sft" in self.loss else 1.0


def essence(settings: Settings, above: Mapping[str, Path], inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pairs as they are trained on, whose margins one loss alone reads."""
    config = settings.stage("dpo")
    return _twins.pairs_as_read(inputs, above["pairs"], config.rounds, margins="reward_aware" in config.loss)


def run(job: Job) -> dict[str, Any]:
    """Train on the pairs, then ask the validation requests; returns losses, margins, costs and validation rates."""
    _preference.play_earlier_rounds(job)
    return _preference.train_and_validate(job, _train)


def _train(job: Job) -> dict[str, Any]:
    from datasets import Dataset
    from trl import DPOConfig

    from stages import _training
    from stages._model import load_policy, load_tokenizer, save_adapter
    from stages._pair_trainer import REWARD_AWARE, pair_trainer, trl_losses
    from stages._reference import know_reference
    from stages._shared_prompt import share_prompts

    config, model_config = job.config, job.settings.model
    losses, weights = trl_losses(config.loss, config.weights)
    aware = dict(zip(config.loss, config.weights, strict=True)).get(REWARD_AWARE, 0.0)
    args = _training.arguments(
        DPOConfig,
        job,
        config,
        model_config.preference_learning_rate * config.step_factor,
        rows_an_example=2,
        beta=config.beta,
        loss_type=losses,
        loss_weights=weights,
    )
    tokenizer = load_tokenizer(model_config)
    pairs, counts = _preference.load_pairs(job, tokenizer)
    job.say(f"{counts.kept} pairs of {counts.total}")

    parts = ("prompt_ids", "chosen_ids", "rejected_ids")
    _training.fit_to_cpu(args, [sum(len(row[part]) for part in parts) for row in pairs])
    lengths = [len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in pairs]
    model = load_policy(model_config, job.parent("sft") / "adapter", trainable=True)
    with _training.adapters_stay_float32(model):
        trainer = _training.ordered(pair_trainer(aware, config.reward_scale), lengths)(
            model=model, args=args, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer
        )
    if reason := share_prompts(trainer.model):
        job.say(f"prompts are computed for both answers of a pair: {reason}")
    if config.reference == "cached":
        know_reference(job, trainer, pairs)
    reference = check_reference(trainer)
    way_out = "a smaller dpo.learning_rate, a larger dpo.beta or a larger weight of sft in dpo.loss_weights"
    results, logged = _preference.train(job, trainer, tokenizer, way_out)
    save_adapter(model, job.folder / "adapter")
    last = logged[-1]
    names = {"margin": "rewards/margins", "accuracy": "rewards/accuracies", "chosen_logp": "logps/chosen"}
    shown = {name: last[key] for name, key in names.items()}
    return counts.as_dict() | reference | results | shown | {"chosen_gain_nats": last["rewards/chosen"] / config.beta}


def check_reference(trainer: Any, tolerance: float = 1e-4) -> dict[str, float]:
    """Before the first step policy and reference must agree on the first eight pairs: margins 0, loss ln 2.
    RuntimeError says what was seen.

    It fails for a reference that is the base or another adapter, for dropout left on, and for rounded adapters.
    """
    import math

    import torch

    from stages._reference import batch_of_one, reference_of

    gaps = []
    for row in trainer.train_dataset.select(range(min(8, len(trainer.train_dataset)))):
        batch = batch_of_one(trainer, row)  # as a cached reference was asked, so that both are rounded alike
        policy, reference = _preference.completion_logps(trainer, batch).chunk(2), reference_of(trainer, batch)
        gaps.append((policy[0] - reference[0]) - (policy[1] - reference[1]))
    margins = trainer.beta * torch.cat(gaps)
    loss = -torch.nn.functional.logsigmoid(margins).mean().item()
    margin = margins.abs().max().item()
    if not (margin <= tolerance and abs(loss - math.log(2)) <= tolerance):
        raise RuntimeError(
            f"at step 0 the policy is not its reference: loss {loss:.6f} instead of ln 2 = {math.log(2):.6f}, largest"
            f" margin {margin:.2e} instead of 0; preference training would start from, or be held to, another model"
        )
    return {"loss_at_step_0": loss, "margin_at_step_0": margin}
