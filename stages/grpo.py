"""Reinforcement learning on the policy's own samples, a group for each request, with no critic: GRPO or RLOO.

    python train.py stage=grpo run=mine [grpo.algorithm=rloo grpo.group_size=8 grpo.beta=0 grpo.reward=model]

TRL's GRPOTrainer or RLOOTrainer goes on with the SFT adapter. Each step samples a group of answers to each of a few of
the data's preference requests and scores them by the reward table, or by a reward model, which is trained first where
it is missing; what an answer is worth above the others of its group is its advantage:

    grpo   A = (r - mean of the group) / standard deviation of the step, or of the group as in Shao et al. 2024 (arXiv
           2402.03300); a term beta KL(policy || reference) for each token is in the loss
    rloo   A = r' - mean r' of the others in the group, r' = r - beta log(policy / reference) of the whole answer
           (Ahmadian et al. 2024, arXiv 2402.14740)

and min(w A, clip(w, 1 - epsilon, 1 + epsilon) A) grows, w the ratio of the policy to the one that sampled: of a token,
of the whole answer in rloo. The reference is a frozen copy of the SFT adapter, which is checked before the first step.
A group whose answers are all worth the same has no advantage in it. So the data's own turn takes the place of a sample
where none is worth as much (`gold`; Yan et al. 2025, arXiv 2504.14945, mix them too; w is here the ratio to the
policy's own probability, 1 at first, as if it had been sampled), and more requests are asked than a step trains on, of
which those with an advantage come first (`oversample`; dynamic sampling, Yu et al. 2025, arXiv 2503.14476, with a
bound). Logs reward, KL, entropy and the share that was clipped, and of the samples both error rates and the share of
groups that are worth the same; writes grpo/adapter, and the contract's rates on validation and test requests. Left out:
full fine-tuning, another reference, and turns after a tool's result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from stages import _preference
from stages._errors import UserError
from stages._training import TrainingConfig

if TYPE_CHECKING:
    from stages._job import Job
    from stages._settings import Settings

Loss = Literal["grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"]

PARENTS = ("sft", "reward_model")
BRINGS = ("reward_model",)
BLOCKS = ("model", "data", "reward", "evaluate")
VERSION = 3
# Arguments of TRL that say how batches are made or sampled, which is done here: they would do nothing, or break it.
_OURS = {
    "per_device_train_batch_size": "model.micro_batch",
    "gradient_accumulation_steps": "model.micro_batch",
    "generation_batch_size": "grpo.batch_size",
    "steps_per_generation": "grpo.iterations",
    "num_iterations": "grpo.iterations",
    "num_generations": "grpo.group_size",
    "max_completion_length": "grpo.max_new_tokens",
    "temperature": "grpo.temperature",
}
_NOT_HERE = (
    "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs", "cache_implementation", "shuffle_dataset",
    "use_vllm", "use_transformers_continuous_batching", "use_transformers_paged", "reward_weights",
)  # fmt: skip


class Config(TrainingConfig):
    """Settings of stage=grpo."""

    algorithm: Literal["grpo", "rloo"] = "grpo"
    """grpo: advantages within a group and ratios of tokens; rloo: leave-one-out advantages and ratios of answers."""
    loss: Loss | None = None
    """Loss of algorithm=grpo, any of TRL's GRPOTrainer; without it, dapo, the mean over all tokens of a step."""
    reward: Literal["rules", "model"] = "rules"
    """rules: the points of the reward table; model: what stage=reward_model says, which is trained first if need be."""
    group_size: int = Field(4, ge=2)
    """Answers sampled for each request."""
    batch_size: int = Field(32, ge=2)
    """Answers a step, a multiple of group_size. What does not fit at once (model.micro_batch) is accumulated."""
    oversample: int = Field(2, ge=1)
    """So many times the requests that a step trains on are asked, and those whose answers are all worth the same are
    left out as far as the others suffice; 1: none is. A divisor of group_size."""
    gold: Literal["none", "missing"] = "missing"
    """When the turn of the data is one of a group: never, or where no sample is worth as much."""
    iterations: int = Field(1, ge=1)
    """Steps on the same samples; in the first of them every ratio is 1, so that nothing is clipped."""
    max_steps: int | None = Field(200, ge=1)
    """Stop after so many steps, whatever the epochs; null: epochs count."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the requests, where max_steps is null."""
    beta: float = Field(0.04, ge=0)
    """How strongly the policy is held to the reference, in rloo in points for each nat; 0: no reference, and no KL."""
    epsilon: float = Field(0.2, gt=0)
    """How far a ratio may be from 1 before it is clipped."""
    scale_rewards: Literal["group", "batch", "none"] | None = None
    """What advantages are divided by: the standard deviation of rewards in the whole step (default of grpo), which
    leaves a dear mistake dearer than a cheap one, in the group, which does not, or nothing (default of rloo)."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature, also of the probabilities in the loss."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest answer, by default model.max_new_tokens; one that reaches it counts as cut off."""
    prompts: int | None = Field(None, ge=1)
    """At most so many requests, evenly spaced over those of the data."""
    log_every: int = Field(5, ge=1)
    """Steps between rows of log.jsonl."""
    save_every: int = Field(20, ge=1)
    """Steps between checkpoints. An interruption that can be handled saves one in any case."""

    @model_validator(mode="after")
    def _whole_groups(self) -> Config:
        if self.batch_size % self.group_size:
            raise ValueError(f"batch_size: {self.batch_size} is no multiple of group_size={self.group_size}")
        if self.group_size % self.oversample:
            raise ValueError(
                f"oversample: {self.oversample} is no divisor of group_size={self.group_size}; 1 always is"
            )
        return self

    @model_validator(mode="after")
    def _rloo_has_one_loss(self) -> Config:
        if self.algorithm == "rloo" and self.loss is not None:
            raise ValueError(f"loss: {self.loss} is for algorithm=grpo; rloo has its own")
        if self.algorithm == "rloo" and self.scale_rewards == "group":
            raise ValueError("scale_rewards: group is for algorithm=grpo; rloo takes batch or none")
        return self

    @model_validator(mode="after")
    def _samples_are_ours(self) -> Config:
        wrong = [f"{key} (say {place}=… instead)" for key, place in _OURS.items() if key in self.trainer]
        wrong += [f"{key} (not with the sampler that is used here)" for key in _NOT_HERE if key in self.trainer]
        if wrong:
            raise ValueError(f"trainer: cannot be set: {', '.join(wrong)}")
        return self


def wants(settings: Settings) -> set[str]:
    """The fine-tuned adapter, and a reward model where it gives the reward."""
    return {"sft", "reward_model"} if settings.stage("grpo").reward == "model" else {"sft"}


def run(job: Job) -> dict[str, Any]:
    """Train on samples, then ask the validation and test requests; returns rewards, KL, rates of the samples, costs."""
    return _preference.train_and_validate(job, _train, tested=True)


def _train(job: Job) -> dict[str, Any]:
    import trl
    from datasets import Dataset

    from data import dialects
    from stages import _training
    from stages._model import load_policy, load_tokenizer, save_adapter
    from stages._prompts import load_prompts
    from stages._rollouts import Rollouts, check_reference, rollout_trainer

    config, model_config = job.config, job.settings.model
    kind, trainer_class = (
        (trl.GRPOConfig, trl.GRPOTrainer) if config.algorithm == "grpo" else (trl.RLOOConfig, trl.RLOOTrainer)
    )
    args = _training.arguments(kind, job, config, model_config.preference_learning_rate, **_own_arguments(job))
    tokenizer, dialect = load_tokenizer(model_config), dialects.get(model_config.dialect)
    prompts, counts = load_prompts(job, tokenizer, dialect, config.prompts)
    at_once = config.oversample * config.batch_size // config.group_size
    if len(prompts) < at_once:
        raise UserError(
            f"grpo.batch_size: a step asks {at_once} requests, and there are {len(prompts)}; choose a smaller"
            " batch_size or oversample, or a larger group_size"
        )
    job.say(f"{len(prompts)} requests of {counts.total}, {at_once} asked for a step")

    rollouts = Rollouts(job, tokenizer, dialect, [prompt.request for prompt in prompts], _scorer(job))
    turns = {"gold_turns": sum(turn is not None for turn in rollouts.gold)}
    if config.gold == "missing" and turns["gold_turns"] < len(prompts):
        job.say(f"{len(prompts) - turns['gold_turns']} requests have no turn to show, or one that cannot be sampled")
    model = load_policy(model_config, job.parent("sft") / "adapter", trainable=True)
    rows = [{"prompt": prompt.text, "place": place} for place, prompt in enumerate(prompts)]

    def reward(**_: Any) -> list[float]:
        return rollouts.rewards()

    with _training.adapters_stay_float32(model):
        trainer = rollout_trainer(trainer_class, rollouts)(
            model=model,
            reward_funcs=reward,
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
    reference = check_reference(trainer, [prompt.text for prompt in prompts[:4]])
    results = _training.train(job, trainer)
    save_adapter(model, job.folder / "adapter")
    history = [row for row in trainer.state.log_history if "reward" in row]
    samples = -(-results["steps"] // config.iterations) * config.batch_size * config.oversample
    first = {"samples": samples, "reward_first": history[0]["reward"]}
    return counts.as_dict() | turns | reference | results | first | _shown(history[-1])


def _shown(row: dict[str, Any]) -> dict[str, float | None]:
    """What metrics.json tells of a logged row; None for what this algorithm or loss does not have."""
    names = {
        "reward_last": "reward",
        "kl": "kl",
        "entropy": "entropy",
        "clip_fraction": "clip_ratio/region_mean",
        "groups_without_signal": "sampled/groups_without_signal",
        "sampled_false_tool_call_rate": "sampled/false_tool_call_rate",
        "sampled_missed_call_rate": "sampled/missed_call_rate",
        "sampled_points": "sampled/points",
    }
    return {name: row.get(key) for name, key in names.items()}


def _own_arguments(job: Job) -> dict[str, Any]:
    """What these settings say to TRL's configuration."""
    config = job.config
    shared = {
        "num_generations": config.group_size,
        "num_iterations": config.iterations,
        "max_completion_length": config.max_new_tokens or job.settings.model.max_new_tokens,
        "temperature": config.temperature,
        "beta": config.beta,
        "epsilon": config.epsilon,
        "disable_dropout": True,  # the policy that is trained is the one that sampled
    }
    if config.algorithm == "rloo":
        return shared | {"normalize_advantages": config.scale_rewards == "batch"}
    return shared | {"loss_type": config.loss or "dapo", "scale_rewards": config.scale_rewards or "batch"}


def _scorer(job: Job) -> Any:
    """What gives the reward where the table does not."""
    if job.config.reward == "rules":
        return None
    from stages._reward_model import RewardModel

    return RewardModel.load(job.parent("reward_model"), job.settings.model).score
