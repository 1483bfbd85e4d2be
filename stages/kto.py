"""Preference training on single answers: those of pairs.jsonl, each desirable or undesirable by itself.

    python train.py stage=kto run=mine [kto.beta=0.05 kto.desirable_weight=1.5 kto.loss=apo_zero_unpaired]

Each pair gives its chosen answer as desirable and its rejected one as undesirable, up to where it has gone wrong; an
answer that several pairs of a request share only once, so that what balances the pairs balances them too. TRL's
KTOTrainer goes on with the SFT adapter; its reference is a frozen copy of the same adapter, which is checked before the
first step.

With r the log-ratio of policy to reference, and z the mean r of answers put behind prompts that are not theirs, or 0 if
that is less, the loss of an answer is weight (1 - sigma(beta (r - z))) if it is desirable, weight (1 - sigma(beta (z -
r))) if not (Ethayarajh et al. 2024, arXiv 2402.01306, equations 7 and 8). To it comes the desirable answers' NLL, as in
stage=dpo: alone, what is likely in either kind of answer sinks with the undesirable ones, calls first. Writes
kto/adapter and, on validation requests, both error rates. Left out: full fine-tuning, another reference, and answers
that no pair was made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from stages import _preference, _twins
from stages._errors import UserError
from stages._preference import PreferenceConfig

if TYPE_CHECKING:
    from pathlib import Path

    from stages._job import Job
    from stages._settings import Settings

Row = Mapping[str, Any]
Loss = Literal["kto", "apo_zero_unpaired"]

PARENTS = ("sft", "pairs")
BRINGS = ("pairs",)
BLOCKS = ("model", "data", "reward", "evaluate")
_BALANCED = (1.0, 4 / 3)  # how many times as much all desirable answers may weigh: equation 8
_AT_ONCE = 2  # one answer has no other whose prompt it could stand behind
_BATCHING = ("per_device_train_batch_size", "train_sampling_strategy", "precompute_ref_log_probs")


class Config(PreferenceConfig):
    """Settings of stage=kto."""

    batch_size: int = Field(16, ge=_AT_ONCE, multiple_of=_AT_ONCE)
    """Answers a step, an even number. What does not fit at once (model.micro_batch) is accumulated, two at least."""
    loss: Loss = "kto"
    """kto, or apo_zero_unpaired, which has no z."""
    sft_weight: float = Field(_preference.NLL_WEIGHT, ge=0)
    """Weight of the mean NLL of the desirable answers' tokens, which is added; 0: it is not, as in TRL."""
    desirable_weight: float | None = Field(None, gt=0)
    """Weight of a desirable answer; without it, so much that all of them weigh as much as all undesirable ones."""
    undesirable_weight: float = Field(1.0, gt=0)
    """Weight of an undesirable answer."""

    @property
    def step_factor(self) -> float:
        """Times model.preference_learning_rate, where no learning_rate is set."""
        return _preference.NLL_STEP if self.sft_weight else 1.0

    @model_validator(mode="after")
    def _batches_are_ours(self) -> Config:
        if fixed := [key for key in _BATCHING if key in self.trainer]:
            raise ValueError(
                f"trainer: {' and '.join(fixed)} cannot be set, for z is taken over batches that are made here;"
                " model.micro_batch says how many answers are computed at once"
            )
        return self


def essence(settings: Settings, above: Mapping[str, Path], inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pairs as they are trained on."""
    config = settings.stage("kto")
    return _twins.pairs_as_read(inputs, above["pairs"], config.rounds, margins=False)


def run(job: Job) -> dict[str, Any]:
    """Train on the answers, then ask the validation requests; returns losses, rewards, costs and validation rates."""
    _preference.play_earlier_rounds(job)
    return _preference.train_and_validate(job, _train)


def _train(job: Job) -> dict[str, Any]:
    from datasets import Dataset
    from trl import KTOConfig

    from stages import _training
    from stages._model import load_policy, load_tokenizer, save_adapter

    config, model_config = job.config, job.settings.model
    tokenizer = load_tokenizer(model_config)
    pairs, counts = _preference.load_pairs(job, tokenizer)
    answers = answer_rows(pairs)
    if config.loss == "kto":
        check_prompts(answers)
    sides = _weigh(job, config, answers)
    args = _training.arguments(
        KTOConfig,
        job,
        config,
        model_config.preference_learning_rate * config.step_factor,
        at_once=_AT_ONCE,
        beta=config.beta,
        loss_type=config.loss,
        desirable_weight=sides["desirable_weight"],
        undesirable_weight=sides["undesirable_weight"],
    )
    lengths = [len(row["prompt_ids"]) + len(row["completion_ids"]) for row in answers]
    model = load_policy(model_config, job.parent("sft") / "adapter", trainable=True)
    with _training.adapters_stay_float32(model):
        trainer = _training.ordered(answer_trainer(answers, tokenizer.pad_token_id, config.sft_weight), lengths)(
            model=model, args=args, train_dataset=Dataset.from_list(answers), processing_class=tokenizer
        )
    reference = check_reference(trainer, answers[:8])
    way_out = "a smaller kto.learning_rate, a larger kto.beta, kto.sft_weight or kto.desirable_weight"
    results, logged = _preference.train(job, trainer, tokenizer, way_out)
    save_adapter(model, job.folder / "adapter")
    names = {"margin": "rewards/margins", "kl": "kl", "chosen_logp": "logps/chosen", "chosen_gain": "rewards/chosen"}
    # A logged row may be of answers of one side alone.
    last = {name: _last(logged, key) for name, key in names.items()}
    gain = last.pop("chosen_gain")
    shown = last | {"chosen_gain_nats": None if gain is None else gain / config.beta}
    return counts.as_dict() | sides | reference | results | shown


def answer_rows(pairs: Sequence[Row]) -> list[dict[str, Any]]:
    """Prompt, completion (both as ids) and label of each answer in the pairs; one that is in several pairs, once."""
    found: dict[Any, dict[str, Any]] = {}
    for pair in pairs:
        prompt = pair["prompt_ids"]
        for side, label in (("chosen", True), ("rejected", False)):
            ids = pair[f"{side}_ids"]
            row = {"prompt_ids": prompt, "completion_ids": ids, "label": label}
            found.setdefault((tuple(prompt), tuple(ids), label), row)
    return list(found.values())


def check_prompts(answers: Sequence[Row]) -> None:
    """UserError where no answer has another prompt to be put behind."""
    if all(row["prompt_ids"] == answers[0]["prompt_ids"] for row in answers):
        raise UserError(
            f"kto: all {len(answers)} answers are to one prompt, and z needs two; raise pairs.prompts or pairs.samples,"
            " or choose kto.loss=apo_zero_unpaired"
        )


def _weigh(job: Job, config: Config, answers: Sequence[Row]) -> dict[str, float]:
    """How many answers each side has and what one of them weighs; says where the sides are out of balance."""
    desirable = sum(row["label"] for row in answers)
    undesirable = len(answers) - desirable
    share = undesirable * config.undesirable_weight / desirable
    weight = config.desirable_weight or share
    job.say(
        f"{desirable} desirable answers of weight {weight:.3g}, {undesirable} undesirable ones of weight"
        f" {config.undesirable_weight:.3g}"
    )
    low, high = _BALANCED
    if not low - 1e-9 <= weight / share <= high + 1e-9:
        job.say(
            f"all desirable answers weigh {weight / share:.2f} times as much as all undesirable ones; KTO asks for 1 to"
            f" 4/3, here kto.desirable_weight={low * share:.3g} to {high * share:.3g}"
        )
    return {
        "desirable": desirable,
        "undesirable": undesirable,
        "desirable_weight": weight,
        "undesirable_weight": config.undesirable_weight,
    }


def answer_trainer(answers: Sequence[Row], pad_token_id: int, sft_weight: float = 0.0) -> type[Any]:
    """TRL's KTOTrainer for answers that are token ids already, in batches of any order, with `sft_weight` times the
    mean NLL of the desirable answers' tokens, in nats, added to its loss.

    TRL pairs prompts with other answers beforehand, by their places, so that it must not shuffle; here each batch does.
    """
    import torch
    from trl import KTOTrainer
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

    collate = DataCollatorForUnpairedPreference(pad_token_id=pad_token_id)

    class AnswerTrainer(KTOTrainer):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            estimates = self.calculate_KL
            self.data_collator = lambda rows: collate(mismatched(rows, answers) if estimates else rows)

        def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
            desirable = inputs["label"].nonzero().flatten()
            if not (sft_weight and len(desirable)):
                return super()._compute_loss(model, inputs, return_outputs)
            logps: list[torch.Tensor] = []  # of each token of each completion; z and the reference have no gradient

            def keep(*call: Any) -> None:
                if torch.is_grad_enabled():
                    logps.append(call[-1].log_probs[desirable])

            hook = self.model.register_forward_hook(keep)
            try:
                loss = super()._compute_loss(model, inputs, return_outputs=False)
            finally:
                hook.remove()
            return loss - sft_weight * logps[0].sum() / inputs["completion_mask"][desirable].sum()

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset  # in ids already: as text it would get another end of turn, and be cut where tokens merge

    return AnswerTrainer


def mismatched(rows: Sequence[Row], answers: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows of a batch, in another order, each with KL_completion_ids: an answer of the batch to another prompt.

    They are the batch's own answers, each once, unless one prompt has more than half of the batch: then some have none
    to change with, and one of all `answers` is taken instead. Nothing is drawn: a resumed run sees the same.
    """
    together = sorted(rows, key=lambda row: (row["prompt_ids"], row["completion_ids"]))
    most = max(len(list(group)) for _, group in groupby(together, key=lambda row: row["prompt_ids"]))
    turned = []
    for row, other in zip(together, (*together[most:], *together[:most]), strict=True):
        start = sum(row["completion_ids"]) % len(answers)
        spare = chain([other], answers[start:], answers[:start])
        ids = next(one["completion_ids"] for one in spare if one["prompt_ids"] != row["prompt_ids"])
        turned.append({**row, "KL_completion_ids": ids})
    return turned


def check_reference(trainer: Any, rows: Sequence[Row], tolerance: float = 1e-4) -> dict[str, float]:
    """Before the first step policy and reference must agree: implicit rewards and z are 0, the loss is half the mean
    weight. RuntimeError says what was seen.

    It fails for a reference that is the base or another adapter, for dropout left on, and for rounded adapters.
    """
    import torch

    batch = trainer._prepare_inputs(trainer.data_collator(list(rows)))
    reference, reference_kl = trainer.compute_ref_log_probs(trainer.model, batch)
    ratios = _preference.completion_logps(trainer, batch) - reference
    strange = torch.zeros_like(ratios)
    if trainer.calculate_KL:
        strange = _preference.completion_logps(trainer, batch, "KL_") - reference_kl
    sign = torch.where(batch["label"], 1.0, -1.0)
    weights = torch.where(batch["label"], trainer.desirable_weight, trainer.undesirable_weight)
    losses = weights * torch.sigmoid(-trainer.beta * sign * (ratios - strange.mean().clamp(min=0)))
    loss, expected = losses.mean().item(), weights.mean().item() / 2
    reward, kl = trainer.beta * ratios.abs().max().item(), strange.abs().max().item()
    if not (reward <= tolerance and trainer.beta * kl <= tolerance and abs(loss - expected) <= tolerance * expected):
        raise RuntimeError(
            f"at step 0 the policy is not its reference: loss {loss:.6f} instead of {expected:.6f}, largest implicit"
            f" reward {reward:.2e} and KL term {kl:.2e} instead of 0; preference training would start from, or be held"
            " to, another model"
        )
    return {"loss_at_step_0": loss, "loss_expected_at_step_0": expected, "reward_at_step_0": reward, "kl_at_step_0": kl}


def _last(history: Sequence[Row], key: str) -> float | None:
    """The newest logged value."""
    return next((row[key] for row in reversed(history) if key in row), None)
