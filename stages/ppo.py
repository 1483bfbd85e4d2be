"""PPO: answers sampled from the policy as it is, scored as they come, and made likelier or less likely by their score.

    python train.py stage=ppo run=mine [ppo.updates=40 ppo.kl_coefficient=0.02 ppo.kl_target=6]

An update samples answers to some requests (1), gives each token a reward: the points of the finished answer at its last
token, and everywhere the price of leaving the reference (2), says how much better it went than the value head expected
(3), and takes epochs of clipped steps over minibatches (4). Formulas and where they come from stand at the functions:

    Schulman et al. 2017, Proximal policy optimization algorithms, arXiv 1707.06347
    Schulman et al. 2015, Generalized advantage estimation, arXiv 1506.02438
    Ziegler et al. 2019, Fine-tuning language models from human preferences, arXiv 1909.08593
    Huang et al. 2024, The N+ implementation details of RLHF with PPO, arXiv 2403.17031

The policy is the base with the SFT adapter, the reference a frozen copy of that adapter on the same base. The value
head reads the policy's last hidden states and sends no gradient back into them: an adapter of its own would double the
time of a step, and a shared gradient would have the one adapter serve two losses whose weights someone must find. So
there is no value coefficient either: Adam does not mind how a loss is scaled that has its parameters to itself.

Where one process has too little memory or time: `torchrun --nproc_per_node 2 train.py stage=ppo`; each process answers
its share of the requests, and gradients are summed. ppo.reward=model takes the reward from a reward model, which is
trained first where it is missing. Writes ppo/adapter, and the contract's rates on validation and test requests. Left
out: full fine-tuning, an entropy bonus, and bootstrapping of answers that were cut off, which the table scores.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages import _preference
from stages._errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from data.transcript import Request
    from stages._job import Job
    from stages._model import ModelConfig
    from stages._prompts import Prompt
    from stages._reward_model import RewardModel
    from stages._scoring import Scored
    from stages._settings import Settings

PARENTS = ("sft", "reward_model")
BRINGS = ("reward_model",)
BLOCKS = ("model", "data", "reward", "evaluate")
VERSION = 2
PROCESSES = True
_RECENT = 5  # updates over which missed calls are averaged: those of one are few dozen


class Config(BaseModel):
    """Settings of stage=ppo."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)
    FREE: ClassVar[tuple[str, ...]] = ("max_dropped", "save_every")

    learning_rate: float | None = Field(None, gt=0)
    """Step size of the adapter, falling to 0 over the updates; without it, 0.7 times model.preference_learning_rate:
    several steps are taken on the same answers."""
    value_learning_rate: float = Field(3e-3, gt=0)
    """Step size of the value head, which starts from nothing; it falls likewise."""
    updates: int = Field(40, ge=1)
    """How often answers are sampled and learned from."""
    prompts: int = Field(64, ge=1)
    """Requests an update, or all of the data's if these are fewer."""
    samples: int = Field(4, ge=1)
    """Answers sampled to each request, which is computed once for as many of them as fit into model.micro_batch."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature; the policy that is trained, and the reference, are those of this temperature."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest answer, by default model.max_new_tokens; one that reaches it is scored as cut off."""
    epochs: int = Field(2, ge=1)
    """Passes over the answers of an update."""
    minibatches: int = Field(4, ge=1)
    """Steps in an epoch. What of one does not fit at once (model.micro_batch) is accumulated."""
    reward: Literal["rules", "model"] = "rules"
    """rules: the points of the reward table; model: what stage=reward_model says, which is trained first if need be."""
    reward_scale: float = Field(0.1, gt=0)
    """Times the reward: what the value head predicts, and kl_coefficient is a price in."""
    kl_coefficient: float = Field(0.03, ge=0)
    """Price of a nat that an answer is likelier than under the reference."""
    kl_target: float | None = Field(None, gt=0)
    """Nats an answer that the price is made to aim at, rising and falling after each update; null: it stays."""
    kl_gain: float = Field(0.1, gt=0)
    """How fast the price moves: by a fifth of this share at most in one update."""
    stop_kl: float | None = Field(0.5, gt=0)
    """Nats an answer from the policy that sampled at which the update's other steps are left out; null: none are."""
    clip: float = Field(0.2, gt=0)
    """How far the ratio of new to old probability may move a token's loss away from 1."""
    value_clip: float | None = Field(0.2, gt=0)
    """How far a prediction may move its loss away from the old one; null: any way."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount a token."""
    gae_lambda: float = Field(1.0, ge=0, le=1)
    """What advantages are made of: 1, all that followed; 0, the next prediction. Whether to call is decided at an
    answer's first tokens: below 1, its score would reach them through predictions that are poor at first."""
    whiten_advantages: bool = True
    """Bring the advantages of an update to mean 0 and variance 1."""
    whiten_rewards: bool = False
    """Bring the tokens' rewards to variance 1, leaving their mean."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Longest gradient, of the adapter and of the value head each; longer ones are scaled down."""
    guard_missed: float = Field(0.1, ge=0, le=1)
    """How far the missed calls of the last five updates may rise over those of the first before it is told."""
    max_dropped: float = Field(0.02, ge=0, le=1)
    """Share of requests that may be left out (too long, refused by the chat template) before it is an error."""
    save_every: int = Field(1, ge=1)
    """Updates between checkpoints. An interruption that can be handled saves one in any case."""

    @model_validator(mode="after")
    def _minibatches_are_not_empty(self) -> Config:
        if self.prompts * self.samples < self.minibatches:
            raise ValueError(f"minibatches: {self.prompts} prompts x {self.samples} samples make no {self.minibatches}")
        return self


def wants(settings: Settings) -> set[str]:
    """The fine-tuned adapter, and a reward model where it gives the reward."""
    return {"sft", "reward_model"} if settings.stage("ppo").reward == "model" else {"sft"}


def run(job: Job) -> dict[str, Any]:
    """Train, then ask the validation and test requests; returns points, KL, error rates, costs and validation rates."""
    return _preference.train_and_validate(job, _train, tested=True)


def _train(job: Job) -> dict[str, Any]:
    import torch

    from data import dialects
    from stages._checkpoints import newest_checkpoint
    from stages._memory import MEMORY_WORDS, device, memory_gib
    from stages._model import load_tokenizer, save_adapter
    from stages._prompts import load_prompts
    from stages._shared_prompt import share_prompts

    config, model_config = job.config, job.settings.model
    accelerator = _accelerator(model_config)
    tokenizer, dialect = load_tokenizer(model_config), dialects.get(model_config.dialect)
    prompts, counts = load_prompts(job, tokenizer, dialect)
    count, size, together = _shares(config, len(prompts), model_config.micro_batch, accelerator.num_processes)
    job.say(
        f"{counts.kept} requests of {counts.total}; an update is {count * config.samples} answers to {count} of them"
    )
    policy = load(model_config, job.parent("sft") / "adapter", accelerator, config.temperature, job.seed)
    if reason := share_prompts(policy.model, together, _multiple()):
        job.say(f"prompts are computed for each of their answers: {reason}")
    judge = _judge(job)
    rates = (config.learning_rate or 0.7 * model_config.preference_learning_rate, config.value_learning_rate)
    groups = [{"params": group, "lr": rate} for group, rate in zip(policy.groups, rates, strict=True)]
    optimizer = accelerator.prepare(torch.optim.Adam(groups, eps=1e-5))  # eps: Huang et al. 2024

    with accelerator.main_process_first():  # it removes broken ones
        checkpoint = newest_checkpoint(job)
    done = _restore(checkpoint, policy, optimizer) if checkpoint else Progress(kl_coefficient=config.kl_coefficient)
    first, stopping = done.updates, False
    job.rewind(first)
    _record(job, done)
    before, began = memory_gib(), time.monotonic()
    with job.finishing_steps(), job.bar(config.updates, "updates", first) as bar:
        while done.updates < config.updates and not stopping:
            update = done.updates
            # 1. Answers of the policy as it is, the share of this process. An update has its own random numbers.
            asked = asked_in(prompts, update, count, job.seed)[accelerator.process_index :: accelerator.num_processes]
            answers = _answers(job, policy, tokenizer, dialect, asked, (job.seed << 32) + update)
            rollout = look(policy, [(each.prompt_ids, each.ids) for each in answers], size, _multiple(), together)
            if update == 0:
                done.reference_gap_at_step_0 = check_reference(rollout)

            # 2. Their rewards, and 3. how much better than expected they are.
            worth = torch.tensor(_worth(answers, judge), device=accelerator.device)
            log_ratio = (rollout.logprobs - rollout.reference) * rollout.mask
            rewards = token_rewards(config.reward_scale * worth, log_ratio, done.kl_coefficient)
            if config.whiten_rewards:
                rewards = whiten(rewards, rollout.mask, accelerator, shift_mean=False)
            advantages, returns = gae(rewards, rollout.values, config.gamma, config.gae_lambda)
            if config.whiten_advantages:
                advantages = whiten(advantages, rollout.mask, accelerator)

            # 4. Steps.
            share = 1 - update / config.updates
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
            seen = behaviour(accelerator, answers, worth, rollout, log_ratio, returns)
            took = improve(policy, optimizer, rollout, advantages, returns, config, f"{job.seed}/{update}")

            coefficients = {"kl_coefficient": done.kl_coefficient, "learning_rate": rates[0] * share}
            done.updates, done.steps = update + 1, done.steps + took["steps"]
            if config.kl_target is not None:
                done.kl_coefficient = next_coefficient(
                    done.kl_coefficient, seen["kl"], config.kl_target, config.kl_gain
                )
            _watch(job, done, seen["missed_call_rate"])
            job.log({"step": done.updates} | seen | took | coefficients)
            stopping = _stopping(job, accelerator)
            if job.leads and (stopping or done.updates % config.save_every == 0 or done.updates == config.updates):
                _save(job, policy, optimizer, done)
            bar.update(done.updates, f"points {seen['points']:.2f}, KL {seen['kl']:.2f}")
    if job.leads:
        save_adapter(policy.model, job.folder / "adapter")
    accelerator.wait_for_everyone()
    return (
        counts.as_dict()
        | {"steps": done.updates, "resumed_from_step": first, "optimizer_steps": done.steps}
        | {"samples": done.updates * count * config.samples}
        | {"reference_gap_at_step_0": done.reference_gap_at_step_0, "kl_coefficient": done.kl_coefficient}
        | _first_and_last(job)
        | {"train_seconds": round(time.monotonic() - began, 2), "memory_before_gib": round(before, 3)}
        | {"memory_peak_gib": round(memory_gib(peak=True), 3), "memory_kind": MEMORY_WORDS[device()]}
    )


def token_rewards(score: torch.Tensor, log_ratio: torch.Tensor, coefficient: float) -> torch.Tensor:
    """The reward of each token, [answers, tokens]: -coefficient (log pi - log pi_ref), and for the last one the score.

    `score`: [answers]; `log_ratio`: of policy to reference, 0 before an answer (Ziegler et al. 2019, equation 2).
    """
    rewards = -coefficient * log_ratio
    rewards[:, -1] += score
    return rewards


def gae(
    rewards: torch.Tensor, values: torch.Tensor, gamma: float, gae_lambda: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns of answers that end in the last column, all [answers, tokens].

    With delta_t = r_t + gamma V_{t+1} - V_t, and V = 0 behind the end, A_t = delta_t + gamma lambda A_{t+1}: equation
    16 of Schulman et al. 2015; the returns, A_t + V_t, are what the value head is to predict.
    """
    import torch

    advantages = torch.zeros_like(rewards)
    following = carried = torch.zeros_like(rewards[:, 0])
    for column in reversed(range(rewards.shape[1])):
        delta = rewards[:, column] + gamma * following - values[:, column]
        carried = delta + gamma * gae_lambda * carried
        advantages[:, column], following = carried, values[:, column]
    return advantages, advantages + values


def whiten(values: torch.Tensor, mask: torch.Tensor, accelerator: Any, shift_mean: bool = True) -> torch.Tensor:
    """The values at variance 1 over all masked places of all processes, and at mean 0, or at the mean they had."""
    count, total = _summed(accelerator, mask.sum(), (values * mask).sum())
    centred = (values - total / count) * mask
    (squares,) = _summed(accelerator, centred.square().sum())
    scaled = centred / (squares / count + 1e-8) ** 0.5
    return scaled if shift_mean else scaled + total / count * mask


def policy_loss(log_ratio: torch.Tensor, advantages: torch.Tensor, clip: float) -> torch.Tensor:
    """The loss of each token, with `log_ratio` that of new to old probability: equation 7 of Schulman et al. 2017.

    max(-A ratio, -A clip(ratio, 1 - clip, 1 + clip)): once a token has moved so far the way its advantage points, it
    has no gradient; the other way it always has.
    """
    import torch

    ratio = log_ratio.exp()
    return torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))


def value_loss(values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float | None) -> torch.Tensor:
    """Half the squared error of each prediction, or that of the clipped prediction if it is larger.

    Clipped is what left the old prediction by more than `clip` (Ziegler et al.'s code; Huang et al. 2024, section 4).
    """
    import torch

    error = (values - returns).square()
    if clip is not None:
        error = torch.max(error, (old + (values - old).clamp(-clip, clip) - returns).square())
    return error / 2


def next_coefficient(coefficient: float, kl: float, target: float, gain: float) -> float:
    """The price of a nat after an update that was `kl` nats away: section 2.2 of Ziegler et al. 2019.

    >>> [round(next_coefficient(0.1, kl, target=6.0, gain=0.1), 4) for kl in (60.0, 6.6, 6.0, 0.0)]
    [0.102, 0.101, 0.1, 0.098]
    """
    return coefficient * (1 + gain * min(max((kl - target) / target, -0.2), 0.2))


def improve(
    policy: Any,
    optimizer: Any,
    rollout: Rollout,
    advantages: torch.Tensor,
    returns: torch.Tensor,
    config: Config,
    seed: str,
) -> dict[str, Any]:
    """Epochs of clipped steps over the minibatches of a rollout; what was seen of them, mean over tokens.

    A minibatch is some of the batches that the old log-probabilities were computed in: in bfloat16 other batches would
    round otherwise, and the ratio of the first one would not be 1. Its loss is the mean over its tokens, whatever they
    are computed in and by how many processes.
    """
    import torch

    accelerator = policy.accelerator
    seen = {"policy_loss": 0.0, "value_loss": 0.0, "clip_fraction": 0.0, "tokens": 0.0}
    steps, step_kl, ratio_error, stopped = 0, 0.0, None, False
    for number, minibatch in enumerate(minibatches(rollout.batches, config.epochs, config.minibatches, seed)):
        tokens, answers = _summed(
            accelerator,
            sum(rollout.of(batch, rollout.mask).sum() for batch in minibatch),
            sum(len(batch.rows) for batch in minibatch),
        )
        parts = torch.zeros(4, dtype=torch.float64)
        furthest = 0.0
        for batch in minibatch:
            mask, advantage, target = (rollout.of(batch, each) for each in (rollout.mask, advantages, returns))
            logprobs, values, _ = policy(batch)
            log_ratio = (logprobs - rollout.of(batch, rollout.logprobs)) * mask
            of_policy = (policy_loss(log_ratio, advantage, config.clip) * mask).sum()
            old = rollout.of(batch, rollout.values)
            of_value = (value_loss(values, old, target, config.value_clip) * mask).sum()
            accelerator.backward((of_policy + of_value) / tokens)
            with torch.no_grad():
                ratio = log_ratio.exp()
                clipped = ((ratio - 1).abs() > config.clip).sum()
                kl = (ratio - 1 - log_ratio).sum()  # of old from new: Schulman 2020, joschu.net/blog/kl-approx.html
                parts += torch.stack([of_policy, of_value, clipped, kl]).double().cpu()
                furthest = max(furthest, (ratio - 1).abs().max().item())
        *parts_of_tokens, step_kl = _summed(accelerator, *parts)
        step_kl /= answers
        ratio_error = furthest if ratio_error is None else ratio_error
        stopped = number > 0 and config.stop_kl is not None and not step_kl <= config.stop_kl  # NaN stops too
        if stopped:
            optimizer.zero_grad()
            break
        _sum_gradients(accelerator, policy.groups)
        accelerator.unscale_gradients()
        for group in policy.groups:
            torch.nn.utils.clip_grad_norm_(group, config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
        for name, value in zip(seen, (*parts_of_tokens, tokens), strict=True):
            seen[name] += value
    trained = seen.pop("tokens")
    return {name: value / trained for name, value in seen.items()} | {
        "steps": steps,
        "stopped": stopped,
        "step_kl": step_kl,
        "ratio_error": ratio_error,
    }


def minibatches(batches: Sequence[Batch], epochs: int, count: int, seed: str) -> Iterator[list[Batch]]:
    """In each epoch, all batches in `count` groups, by an order that the seed and the epoch decide."""
    for epoch in range(epochs):
        order = list(batches)
        random.Random(f"{seed}/{epoch}").shuffle(order)
        yield from (order[place::count] for place in range(count))


def behaviour(
    accelerator: Any,
    answers: Sequence[Answer],
    worth: torch.Tensor,
    rollout: Rollout,
    log_ratio: torch.Tensor,
    returns: torch.Tensor,
) -> dict[str, Any]:
    """What the sampled answers of all processes are like: the reward they got, the table's points, both error rates, KL
    and entropy in nats, lengths.

    `explained_variance` is 1 - Var(returns - predictions) / Var(returns): 1 for a value head that knows, 0 for one that
    says the same to everything.
    """
    from stages._metrics import attempted, needs_call

    needed = [each for each in answers if needs_call(each.request)]
    other = [each for each in answers if not needs_call(each.request)]
    mask, surprise = rollout.mask, (returns - rollout.values) * rollout.mask
    returned = returns * mask
    sums = _summed(
        accelerator,
        len(answers),
        mask.sum(),
        worth.sum(),
        sum(each.scored.score.points for each in answers),
        len(needed),
        sum(not attempted(each.scored.judgement) for each in needed),
        len(other),
        sum(attempted(each.scored.judgement) for each in other),
        sum(each.scored.judgement.outcome == "exact_call" for each in needed),
        sum(each.scored.completion.truncated for each in answers),
        log_ratio.sum(),
        (rollout.entropies * mask).sum(),
        returned.sum(),
        returned.square().sum(),
        surprise.sum(),
        surprise.square().sum(),
    )
    n, tokens, reward, points, n_call, missed, n_no_call, false, exact, truncated, kl, entropy, *moments = sums
    spread, unexplained = (squares / tokens - (total / tokens) ** 2 for total, squares in (moments[:2], moments[2:]))
    return {
        "reward": reward / n,
        "points": points / n,
        "false_tool_call_rate": false / n_no_call if n_no_call else None,
        "missed_call_rate": missed / n_call if n_call else None,
        "exact_call_rate": exact / n_call if n_call else None,
        "truncated_rate": truncated / n,
        "kl": kl / n,
        "entropy": entropy / tokens,
        "answer_tokens": tokens / n,
        "explained_variance": 1 - unexplained / spread if spread > 1e-12 else None,
    }


@dataclass(frozen=True, slots=True)
class Answer:
    """A sampled answer with the ids that were sampled, the end of the turn among them if it ended."""

    request: Request
    prompt_ids: list[int]
    ids: list[int]
    scored: Scored


@dataclass(frozen=True, slots=True)
class Batch:
    """Answers behind their prompts that are computed at once; all end in the last column."""

    rows: torch.Tensor
    """Which answers of the rollout, [n]."""
    ids: torch.Tensor
    """[n, length], padded on the left."""
    attention: torch.Tensor
    """1 where there is a token, [n, length]."""
    width: int
    """So many columns at the end hold all of the answers' own tokens."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """What is known of an update's answers before its first step; tensors are float32, [answers, tokens], and end with
    the last token of each answer.
    """

    batches: list[Batch]
    mask: torch.Tensor
    """1 at the tokens of the answer."""
    logprobs: torch.Tensor
    """Of the policy that sampled, computed as training computes them: a sampler rounds otherwise."""
    reference: torch.Tensor
    values: torch.Tensor
    entropies: torch.Tensor

    def of(self, batch: Batch, tensor: torch.Tensor) -> torch.Tensor:
        """The part of a tensor that belongs to a batch, [n, width]."""
        return tensor[batch.rows, -batch.width :]


def asked_in(prompts: Sequence[Prompt], update: int, count: int, seed: int) -> list[Prompt]:
    """The `count` prompts of an update, no two the same, known from its number alone.

    One shuffled pass over all prompts follows another; the last ones of a pass, too few for an update, are left out.
    """
    epoch, number = divmod(update, len(prompts) // count)
    order = random.Random(f"{seed}/{epoch}").sample(range(len(prompts)), len(prompts))
    return [prompts[place] for place in order[number * count : (number + 1) * count]]


def batched(
    answers: Sequence[tuple[Sequence[int], Sequence[int]]], size: int, multiple: int, place: Any, group: int = 1
) -> list[Batch]:
    """Answers (ids of the prompt, ids of the answer) in batches of `size` of like length, padded to `multiple`s. Each
    `group` that follow each other, which have one prompt and may be computed with it, stay together.
    """
    import torch

    lengths, widths = [len(prompt) + len(ids) for prompt, ids in answers], [len(ids) for _, ids in answers]
    groups = [range(start, start + group) for start in range(0, len(answers), group)]
    groups.sort(key=lambda rows: (*(max(of[row] for row in rows) for of in (lengths, widths)), rows[0]))
    order = [row for rows in groups for row in rows]
    made = []
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        length = _padded(max(lengths[row] for row in rows), multiple)
        # The token before the first one of an answer is what predicts it.
        width = min(_padded(max(widths[row] for row in rows), multiple), length - 1)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        attention = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, -lengths[row] :] = torch.tensor([*answers[row][0], *answers[row][1]])
            attention[number, -lengths[row] :] = 1
        made.append(Batch(torch.tensor(rows, device=place), ids.to(place), attention.to(place), width))
    return made


def _padded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def look(
    policy: Any, answers: Sequence[tuple[Sequence[int], Sequence[int]]], size: int, multiple: int, group: int = 1
) -> Rollout:
    """The answers as the policy and the reference see them, in batches of `size`."""
    import torch

    batches = batched(answers, size, multiple, policy.accelerator.device, group)
    shape = len(answers), max(batch.width for batch in batches)
    mask, logprobs, reference, values, entropies = (
        torch.zeros(shape, device=policy.accelerator.device) for _ in range(5)
    )
    for row, (_, ids) in enumerate(answers):
        mask[row, -len(ids) :] = 1
    with torch.no_grad():
        for batch in batches:
            found = policy(batch)
            for tensor, part in zip((logprobs, values, entropies), found, strict=True):
                tensor[batch.rows, -batch.width :] = part
        with policy.as_reference():
            for batch in batches:
                reference[batch.rows, -batch.width :] = policy(batch)[0]
    return Rollout(batches, mask, logprobs, reference, values, entropies)


def check_reference(rollout: Rollout, tolerance: float = 1e-4) -> float:
    """Before the first step policy and reference must agree: the largest difference of their log-probabilities of a
    token, in nats. RuntimeError says what was seen: a reference that is the base or another adapter, dropout left on,
    or rounded adapters.
    """
    difference = float(((rollout.logprobs - rollout.reference) * rollout.mask).abs().max())
    if not difference <= tolerance:
        raise RuntimeError(
            f"at step 0 the policy is not its reference: log-probabilities of a token differ by up to {difference:.2e};"
            " training would start from, or be held to, another model"
        )
    return difference


def _answers(job: Job, policy: Any, tokenizer: Any, dialect: Any, asked: Sequence[Prompt], seed: int) -> list[Answer]:
    """Sampled answers to these prompts, scored by the table."""
    from stages import _scoring
    from stages._sampling import generate

    config, settings = job.config, job.settings
    requests = [prompt.request for prompt in asked]
    with policy.accelerator.autocast():
        sampled = generate(
            policy.model,
            tokenizer,
            dialect,
            requests,
            n=config.samples,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens or settings.model.max_new_tokens,
            batch_size=settings.model.sample_batch,
            seed=seed,
        )
    answers = []
    for prompt, row in zip(asked, _scoring.score(requests, sampled, dialect, settings.reward), strict=True):
        for scored in row:
            stop = scored.completion.stop
            ids = [*scored.completion.ids, *([] if stop is None else [stop])]
            answers.append(Answer(prompt.request, prompt.ids, ids, scored))
    return answers


def _judge(job: Job) -> RewardModel | None:
    """What gives the reward where the table does not."""
    if job.config.reward == "rules":
        return None
    from stages._reward_model import RewardModel

    return RewardModel.load(job.parent("reward_model"), job.settings.model)


def _worth(answers: Sequence[Answer], judge: RewardModel | None) -> list[float]:
    """What each answer is worth, before reward_scale: points of the table, or the score of a reward model."""
    if judge is None:
        return [each.scored.score.points for each in answers]
    return judge.score([each.request for each in answers], [each.scored.completion for each in answers])


@dataclass(frozen=True, slots=True)
class Policy:
    """The base with the adapters `default` (trained) and `ref` (frozen), and a value head on its hidden states."""

    model: Any
    head: Any
    accelerator: Any
    temperature: float

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """What training changes, by name: the adapter's parameters, then those of the head (`value.…`)."""
        adapter = {name: one for name, one in self.model.named_parameters() if one.requires_grad}
        return adapter | {f"value.{name}": one for name, one in self.head.named_parameters()}

    @property
    def groups(self) -> list[list[torch.nn.Parameter]]:
        """The adapter's parameters, and the head's."""
        return [[one for one in self.model.parameters() if one.requires_grad], list(self.head.parameters())]

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probability of each token of the answers, value before it, entropy there (without a gradient), in
        float32, [n, width]; what they are in the columns before an answer means nothing.
        """
        import torch

        hidden: list[torch.Tensor] = []
        output = self.model.get_base_model().get_output_embeddings()
        hook = output.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0].detach()))
        try:
            with self.accelerator.autocast():
                logits = self.model(
                    input_ids=batch.ids,
                    attention_mask=batch.attention,
                    position_ids=(batch.attention.cumsum(1) - 1).clamp(min=0),
                    use_cache=False,
                    logits_to_keep=batch.width + 1,
                ).logits
        finally:
            hook.remove()
        logits = logits[:, :-1].float() / self.temperature  # the last one predicts what follows the answer
        normaliser = logits.logsumexp(-1)
        chosen = logits.gather(-1, batch.ids[:, -batch.width :, None]).squeeze(-1)
        with torch.no_grad():
            entropies = normaliser - (logits.softmax(-1) * logits).sum(-1)
        return chosen - normaliser, self.head(hidden[0][:, :-1].float()).squeeze(-1), entropies

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[None]:
        """Within, the model is the reference."""
        self.model.set_adapter("ref", inference_mode=True)
        try:
            yield
        finally:
            self.model.set_adapter("default")


def load(config: ModelConfig, adapter: Path, accelerator: Any, temperature: float, seed: int) -> Policy:
    """Policy and reference from the SFT adapter, and a value head that predicts 0."""
    import torch

    from stages._model import load_policy

    model = load_policy(config, adapter, trainable=True)
    model.load_adapter(str(adapter), adapter_name="ref", is_trainable=False)
    model.set_adapter("default")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # with it, the ratio of new to old probability would be noise before the first step
    if config.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    torch.manual_seed(seed)
    head = value_head(model.get_base_model().get_output_embeddings().in_features).to(accelerator.device)
    return Policy(model, head, accelerator, temperature)


def value_head(size: int) -> Any:
    """Hidden states [.., size] to predictions [.., 1]; a layer more than papers have, since the trunk does not help."""
    import torch

    head = torch.nn.Sequential(
        torch.nn.LayerNorm(size, elementwise_affine=False),  # models differ by orders of magnitude
        torch.nn.Linear(size, size),
        torch.nn.Tanh(),
        torch.nn.Linear(size, 1),
    )
    torch.nn.init.zeros_(head[-1].weight)
    torch.nn.init.zeros_(head[-1].bias)
    return head


def _accelerator(config: ModelConfig) -> Any:
    """Device, precision and processes. Gradients are accumulated by hand: batches have unequal numbers of tokens."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from stages._memory import device
    from stages._model import compute_dtype

    names = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    AcceleratorState._reset_state()  # an earlier stage of this process may have computed in another precision
    return Accelerator(cpu=device() == "cpu", mixed_precision=names.get(compute_dtype(config, training=True), "no"))


def _summed(accelerator: Any, *values: Any) -> list[float]:
    """Each value, summed over the processes."""
    import torch

    numbers = torch.tensor([float(value) for value in values], dtype=torch.float64, device=accelerator.device)
    return accelerator.reduce(numbers, "sum").tolist()


def _stopping(job: Job, accelerator: Any) -> bool:
    """Whether to stop after this update: a signal need not reach all processes before the same one."""
    stopping = _summed(accelerator, bool(job.stopping))[0] > 0
    if stopping and not job.stopping:
        job.stopping = signal.SIGTERM
    return stopping


def _sum_gradients(accelerator: Any, groups: Sequence[Sequence[Any]]) -> None:
    """Each process has divided by the tokens of all: the sum is the gradient of the mean over all."""
    import torch

    if accelerator.num_processes == 1:
        return
    gradients = [one.grad for group in groups for one in group]
    flat = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "sum")
    for gradient, part in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _shares(config: Config, prompts: int, micro_batch: int, processes: int) -> tuple[int, int, int]:
    """How many of the prompts an update asks, a multiple of the processes; how many answers are computed at once, so
    few that each process has some for each minibatch; how many of these share a prompt. UserError where there are not
    enough.
    """
    count = min(config.prompts, prompts) // processes * processes
    size = min(micro_batch, count // processes * config.samples // config.minibatches)
    if size == 0:
        raise UserError(
            f"ppo.minibatches={config.minibatches}: an update of {count} requests x {config.samples} answers, in"
            f" {processes} process{'es' if processes > 1 else ''}, leaves none for some of them; take fewer, or raise"
            " ppo.prompts or ppo.samples"
        )
    group = max(each for each in range(1, min(size, config.samples) + 1) if config.samples % each == 0)
    return count, size - size % group, group


def _multiple() -> int:
    """What lengths are padded to: on a CPU each new shape is a new kernel to make and to keep."""
    from stages._memory import device

    return 32 if device() == "cpu" else 8


@dataclass(slots=True)
class Progress:
    """How far training is, beside weights and optimizer. Nothing is drawn that the numbers here do not decide."""

    kl_coefficient: float
    updates: int = 0
    steps: int = 0
    reference_gap_at_step_0: float = 0.0
    missed: list[float] | None = None
    """Missed-call rates of the first update and of the last few."""
    risen: dict[str, Any] | None = None
    """At which update they had risen too far, and between which rates."""


def _watch(job: Job, done: Progress, missed: float | None) -> None:
    """Say it once where the answers stop calling tools that are needed."""
    if missed is None:
        return
    first, *recent = [*(done.missed or []), missed]
    done.missed = [first, *recent[-_RECENT:]]
    risen = len(recent) >= _RECENT and mean(recent[-_RECENT:]) - first > job.config.guard_missed
    if risen and not done.risen:
        done.risen = {"step": done.updates, "before": first, "now": mean(recent[-_RECENT:])}
        job.say(
            f"update {done.updates}: missed calls rose from {first:.1%} to {mean(recent[-_RECENT:]):.1%} of the sampled"
            f" answers (ppo.guard_missed={job.config.guard_missed}); a larger ppo.kl_coefficient, a smaller"
            " ppo.learning_rate or a dearer reward.missed_call helps"
        )
        _record(job, done)


def _record(job: Job, done: Progress) -> None:
    """Tell the manifest of missed calls that rose; in a resumed attempt it starts without the facts of earlier ones."""
    if done.risen:
        job.record(guard={"missed_calls": done.risen})


def _save(job: Job, policy: Policy, optimizer: Any, done: Progress) -> None:
    """A checkpoint of all that the next update depends on; those before the last one are removed."""
    import dataclasses
    import shutil

    from safetensors.torch import save_file

    from stages._checkpoints import seal
    from stages._files import plain, write_json

    folder = job.folder / "checkpoints" / f"checkpoint-{done.updates}"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, parameter in policy.trained.items():
        tensors[name] = parameter.detach()
        tensors |= {f"{name}/{key}": value for key, value in optimizer.state.get(parameter, {}).items()}
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, folder / "training.safetensors")
    scaler = policy.accelerator.scaler
    write_json(folder / "training.json", plain(dataclasses.asdict(done) | {"scaler": scaler and scaler.state_dict()}))
    seal(folder)
    for other in folder.parent.glob("checkpoint-*"):
        if int(other.name.split("-")[1]) < done.updates - job.config.save_every:
            shutil.rmtree(other)


def _restore(checkpoint: Path, policy: Policy, optimizer: Any) -> Progress:
    """Put back what `_save` wrote."""
    import torch
    from safetensors.torch import load_file

    from stages._files import read_json

    tensors = load_file(checkpoint / "training.safetensors")
    with torch.no_grad():
        for name, parameter in policy.trained.items():
            parameter.copy_(tensors[name])
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"{name}/{key}" in tensors:
                    value = tensors[f"{name}/{key}"]
                    optimizer.state[parameter][key] = value.to(parameter.device) if value.dim() else value
    state = read_json(checkpoint / "training.json")
    if scaler := state.pop("scaler"):
        policy.accelerator.scaler.load_state_dict(scaler)
    return Progress(**state)


def _first_and_last(job: Job) -> dict[str, Any]:
    """Of the first update and of the last one, as they were logged, what says whether it went well."""
    from stages._files import read_jsonl

    names = ("points", "kl", "entropy", "false_tool_call_rate", "missed_call_rate", "explained_variance")
    path = job.folder / "log.jsonl"
    rows = [row for row in read_jsonl(path) if "points" in row] if path.exists() else []
    ends = {"first": rows[0], "last": rows[-1]} if rows else {}
    return {f"{name}_{end}": row[name] for end, row in ends.items() for name in names}
