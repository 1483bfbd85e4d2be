"""A reward model from preference pairs: a number for an answer, higher for chosen ones than for rejected ones.

    python train.py stage=reward_model run=mine [reward_model.epochs=3 reward_model.held_out=0.2]

TRL's RewardTrainer: with d the score of the chosen answer less that of the rejected one, the loss is -log sigmoid(d)
(Bradley-Terry). LoRA that goes on from the SFT adapter, and a score in place of the LM head (stages/_reward_model.py).
The pairs of a share of the requests are held out; on these it reports how many pairs it orders, by kind too, how its
probabilities sigmoid(d) are calibrated, and how far it ranks their candidates as the reward table does. Writes
reward_model/adapter; grpo.reward=model and ppo.reward=model train on its scores. Left out: full fine-tuning.
"""

from __future__ import annotations

import gc
import itertools
import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages._errors import UserError
from stages._training import TrainingConfig

if TYPE_CHECKING:
    from stages._job import Job
    from stages._reward_model import RewardModel

PARENTS = ("sft", "pairs")
BRINGS = ("pairs",)
BLOCKS = ("model", "data", "reward")
VERSION = 2


class Config(TrainingConfig):
    """Settings of stage=reward_model."""

    learning_rate: float | None = Field(None, gt=0)
    """Peak step size; without it, half of model.learning_rate."""
    epochs: float = Field(2.0, gt=0)
    """Passes over the pairs."""
    batch_size: int = Field(16, ge=1)
    """Pairs a step. What does not fit at once (model.micro_batch) is accumulated."""
    center_rewards: float = Field(0.01, ge=0)
    """Weight of a pair's squared sum of scores in the loss, which holds scores of different requests around 0
    (Eisenstein et al. 2023, arXiv 2312.09244)."""
    held_out: float = Field(0.2, gt=0, lt=1)
    """Share of the requests whose pairs are not trained on but measured."""


def run(job: Job) -> dict[str, Any]:
    """Train on the pairs, measure on those held out; returns what they say, losses and costs."""
    from stages._checkpoints import forget_checkpoints
    from stages._files import read_jsonl
    from stages._reward_model import RewardModel

    rows = list(read_jsonl(job.parent("pairs") / "pairs.jsonl"))
    held_out = held_out_ids({row["id"] for row in rows}, job.config.held_out, job.settings.data.seed)
    results = _train(job, [row for row in rows if row["id"] not in held_out])
    gc.collect()  # the trainer's cycles hold the model
    model = RewardModel.load(job.folder, job.settings.model)  # as others will
    results |= _pairs_ordered(job, model, [row for row in rows if row["id"] in held_out])
    results |= _agreement(job, model, held_out)
    forget_checkpoints(job)
    return results


def held_out_ids(ids: Iterable[str], share: float, seed: int) -> set[str]:
    """A share of the requests, at least one, and not all of them; UserError where there is only one."""
    known = sorted(ids)
    if len(known) < 2:
        raise UserError(
            "reward_model: all pairs are of one request, some are to be held out; raise pairs.samples or pairs.prompts"
        )
    count = min(len(known) - 1, max(1, round(share * len(known))))
    return set(random.Random(f"{seed}/held out").sample(known, count))


def _train(job: Job, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer
    from trl.trainer.reward_trainer import DataCollatorForPreference

    from stages import _preference, _training
    from stages._model import load_tokenizer, save_adapter
    from stages._reward_model import padding, trainable
    from stages._shared_prompt import share_prompts

    config, model_config = job.config, job.settings.model
    args = _training.arguments(
        RewardConfig,
        job,
        config,
        model_config.learning_rate / 2,
        rows_an_example=2,
        center_rewards_coefficient=config.center_rewards or None,
    )
    tokenizer = load_tokenizer(model_config)
    pairs, counts = _preference.pair_rows(tokenizer, rows, model_config.max_length)
    job.record(**counts.as_dict())
    counts.check(config.max_dropped, "reward_model.max_dropped")
    job.say(f"{counts.kept} pairs of {counts.total} to train on")

    sides = ("chosen_ids", "rejected_ids")
    whole = [{side: pair["prompt_ids"] + pair[side] for side in sides} for pair in pairs]
    model = trainable(model_config, tokenizer, job.parent("sft") / "adapter")
    with _training.adapters_stay_float32(model):
        trainer = _training.ordered(RewardTrainer, [max(len(pair[side]) for side in sides) for pair in whole])(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(whole),
            processing_class=tokenizer,
            data_collator=DataCollatorForPreference(padding(tokenizer), args.pad_to_multiple_of),
        )
    model.config.get_text_config().pad_token_id = padding(tokenizer)  # TRL has put the tokenizer's there
    if reason := share_prompts(trainer.model):
        job.say(f"prompts are computed for both answers of a pair: {reason}")
    results = _training.train(job, trainer)
    save_adapter(model, job.folder / "adapter")
    logged = [row["accuracy"] for row in trainer.state.log_history if "accuracy" in row]
    return counts.as_dict() | results | {"train_accuracy": logged[-1]}


def _pairs_ordered(job: Job, model: RewardModel, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How the model orders the held-out pairs, of all kinds and of each, and how sure it is."""
    from stages import _preference
    from stages._metrics import wilson
    from stages._reward_model import calibration

    margins: dict[str, list[float]] = {}
    for kind in sorted({row["kind"] for row in rows}):
        own = [row for row in rows if row["kind"] == kind]
        pairs, _ = _preference.pair_rows(model.tokenizer, own, job.settings.model.max_length)
        sides = ("chosen_ids", "rejected_ids")
        scores = model.score_ids([pair["prompt_ids"] + pair[side] for pair in pairs for side in sides])
        margins[kind] = [one - other for one, other in zip(scores[::2], scores[1::2], strict=True)]
    every = [margin for each in margins.values() for margin in each]
    left_out = {"held_out_pairs": len(every), "held_out_pairs_left_out": len(rows) - len(every)}
    if not every:
        return left_out | {"pair_accuracy": None}
    found = calibration(every)
    ordered = sum(margin > 0 for margin in every)
    job.say(f"{ordered} of {len(every)} held-out pairs are ordered: {found['accuracy']:.1%}")
    by_kind = {kind: sum(margin > 0 for margin in each) / len(each) for kind, each in margins.items() if each}
    return (
        left_out
        | {"pair_accuracy": found.pop("accuracy"), "pair_accuracy_ci": wilson(ordered, len(every))}
        | {f"pair_accuracy_{kind}": share for kind, share in by_kind.items()}
        | {f"held_out_pairs_{kind}": len(each) for kind, each in margins.items()}
        | {f"held_out_{name}": value for name, value in found.items()}
    )


def _agreement(job: Job, model: RewardModel, held_out: set[str]) -> dict[str, Any]:
    """Rank correlations of scores and points of the reward table, over the candidates of held-out requests of the data;
    `table_requests_left_out` are those that are not of the data.
    """
    from data import load
    from stages._files import read_jsonl
    from stages._metrics import kendall, sign
    from stages._reward_model import spearman
    from stages._sampling import Completion
    from stages._scoring import score_one

    settings = job.settings
    requests = {request.id: request for request in load.load(settings.data).preference if request.id in held_out}
    left_out = len(held_out - requests.keys())  # those of pairs.unlabelled
    found: dict[tuple[str, str, bool], Completion] = {}  # what several samples say counts once
    for row in read_jsonl(job.parent("pairs") / "candidates.jsonl"):
        if row["id"] in requests:
            text, cut_off = row["completion"], row["truncated"]
            found.setdefault((row["id"], text, cut_off), Completion(text, row["logprob"], row["tokens"] or 0, cut_off))
    asked = [requests[id_] for id_, *_ in found]
    points = [
        score_one(request, completion, model.dialect, settings.reward).score.points
        for request, completion in zip(asked, found.values(), strict=True)
    ]
    scores = model.score(asked, list(found.values()))
    within: list[float] = []
    for id_ in requests:
        own = [place for place, request in enumerate(asked) if request.id == id_]
        pairs = itertools.combinations(own, 2)
        tau = kendall([(sign(scores[a] - scores[b]), sign(points[a] - points[b])) for a, b in pairs])
        within += [] if tau is None else [tau]
    table = {
        "table_candidates": len(found),
        "table_spearman": spearman(scores, points),
        "table_kendall_within_request": sum(within) / len(within) if within else None,
        "table_requests": len(within),
        "table_requests_left_out": left_out,
    }
    job.say(", ".join(f"{name} {value:.3g}" for name, value in table.items() if value is not None))
    return table
