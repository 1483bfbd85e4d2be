"""TRL's GRPOTrainer and RLOOTrainer on requests: prompts, samples and scores are ours, advantages and losses theirs.

They render no tools that differ from row to row, so prompts come rendered (stages/_sampling.py), and are encoded as
everywhere else: control tokens in what users say stay text. Answers are sampled by stages/_decoding.py in place of
`model.generate`: a prompt is computed once for its whole group, finished rows leave, no parameter comes from the
checkpoint's generation_config, dropout is off, and the random numbers of a sample depend on (seed, step, request,
number in the group) alone, so that a resumed run goes on as an uninterrupted one would. For the same reason the order
of requests is ours, and samples that are used for several steps are part of a checkpoint.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from stages._files import read_json, write_json
from stages._metrics import attempted, needs_call
from stages._prompts import gold_turn

if TYPE_CHECKING:
    import torch

    from data.transcript import Request
    from stages._job import Job
    from stages._sampling import Completion
    from stages._scoring import Scored

_FILE = "rollouts.safetensors"  # of a checkpoint between two steps on the same samples
_SEEN = "rollouts.json"  # of every checkpoint: what was counted since it was last told
_NOTHING = dict.fromkeys(("needed", "needless", "missed", "false", "points", "groups", "silent"), 0.0)

Scorer = Callable[[Sequence["Request"], Sequence["Completion"]], list[float]]


class Group(NamedTuple):
    """The answers to the request at a place, and what each is worth."""

    place: int
    answers: list[Completion]
    rewards: list[float]

    @property
    def silent(self) -> bool:
        """Whether all are worth the same, so that none has an advantage over the others."""
        return len(set(self.rewards)) == 1


class Rollouts:
    """Samples groups of answers to requests, says what they are worth, and chooses those to train on; counts both
    errors among the samples, and groups whose samples are all worth the same, since they were last told.

    `scorer` gives the reward; without it, the points of the reward table are the reward.
    """

    def __init__(
        self, job: Job, tokenizer: Any, dialect: ModuleType, requests: Sequence[Request], scorer: Scorer | None = None
    ) -> None:
        self.job, self.tokenizer, self.dialect, self.requests, self.scorer = job, tokenizer, dialect, requests, scorer
        self.gold: list[Completion | None] = [None] * len(requests)
        if job.config.gold == "missing":
            longest = job.config.max_new_tokens or job.settings.model.max_new_tokens
            self.gold = [gold_turn(tokenizer, dialect, request, longest) for request in requests]
        self.groups: list[Group] = []
        self.seen = dict(_NOTHING)

    def sample(self, trainer: Any, places: Sequence[int], keep: int) -> list[Group]:
        """A group of answers for each place, by the trainer's model as it is now; the `keep` that are trained on.

        Where no answer is worth what the data's own turn is, that turn takes the place of the last one, if it is to be
        shown. Groups with an advantage in them come first, in the order of the places, and the others fill up.
        """
        from stages._sampling import generate

        config, model = self.job.config, self.job.settings.model
        with trainer.accelerator.autocast():
            sampled = generate(
                trainer.model,
                self.tokenizer,
                self.dialect,
                [self.requests[place] for place in places],
                n=config.group_size,
                temperature=config.temperature,
                max_new_tokens=config.max_new_tokens or model.max_new_tokens,
                batch_size=max(config.group_size, model.sample_batch),
                seed=f"{self.job.seed}/{trainer.state.global_step}",
            )
        groups = self.rewarded(places, sampled)
        self.seen["groups"] += len(groups)
        self.seen["silent"] += sum(group.silent for group in groups)
        self.groups = sorted(self.shown_gold(groups), key=lambda group: group.silent)[:keep]
        return self.groups

    def rewards(self) -> list[float]:
        """What each answer that is trained on is worth."""
        return [points for group in self.groups for points in group.rewards]

    def rewarded(self, places: Sequence[int], sampled: Sequence[list[Completion]]) -> list[Group]:
        """Samples with what they are worth, and counted; one that was cut off is scored as it stands."""
        answers = [(self.requests[place], one) for place, group in zip(places, sampled, strict=True) for one in group]
        scored, rewards = self._worth(answers)
        for (request, _), one in zip(answers, scored, strict=True):
            tried, needed = attempted(one.judgement), needs_call(request)
            self.seen["needed" if needed else "needless"] += 1
            self.seen["missed"] += needed and not tried
            self.seen["false"] += tried and not needed
            self.seen["points"] += one.score.points
        each = iter(rewards)
        return [Group(place, group, [next(each) for _ in group]) for place, group in zip(places, sampled, strict=True)]

    def shown_gold(self, groups: Sequence[Group]) -> list[Group]:
        """The groups, the last answer of some exchanged for the data's turn: where that is worth more than each."""
        turns = [(group, turn) for group in groups if (turn := self.gold[group.place])]
        _, worth = self._worth([(self.requests[group.place], turn) for group, turn in turns])
        better = {
            group.place: Group(group.place, [*group.answers[:-1], turn], [*group.rewards[:-1], reward])
            for (group, turn), reward in zip(turns, worth, strict=True)
            if reward > max(group.rewards)
        }
        return [better.get(group.place, group) for group in groups]

    def _worth(self, answers: Sequence[tuple[Request, Completion]]) -> tuple[list[Scored], list[float]]:
        """By the table, and what the reward is."""
        from stages._scoring import score_one

        scored = [score_one(request, one, self.dialect, self.job.settings.reward) for request, one in answers]
        if self.scorer and answers:
            return scored, self.scorer([request for request, _ in answers], [one for _, one in answers])
        return scored, [one.score.points for one in scored]

    def shares(self) -> dict[str, float]:
        """Of the samples since the last call: both error rates, mean points, and the share of groups whose samples are
        all worth the same; a rate of nothing is absent.
        """
        seen, self.seen = self.seen, dict(_NOTHING)
        shares = {
            "false_tool_call_rate": (seen["false"], seen["needless"]),
            "missed_call_rate": (seen["missed"], seen["needed"]),
            "points": (seen["points"], seen["needless"] + seen["needed"]),
            "groups_without_signal": (seen["silent"], seen["groups"]),
        }
        return {f"sampled/{name}": count / number for name, (count, number) in shares.items() if number}


def rollout_trainer(trainer: type[Any], rollouts: Rollouts) -> type[Any]:
    """The TRL class (GRPOTrainer or RLOOTrainer) with these rollouts; its dataset has `prompt` and `place`."""
    from trl import GRPOTrainer

    from stages._sampling import encode, stop_ids
    from stages._shared_prompt import share_prompts

    class RolloutTrainer(trainer):
        _step: int  # micro-batches computed
        _buffered_inputs: Any  # those made of the samples in use

        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self.eos_token_ids = sorted(stop_ids(self.model, rollouts.tokenizer))
            self._reuse = self.args.steps_per_generation * self.num_iterations  # micro-batches until the next samples
            # So many answers of a micro-batch have one prompt, which is computed once.
            self._together = math.gcd(self.args.per_device_train_batch_size, self.num_generations)
            if reason := share_prompts(self.model, self._together, self.pad_to_multiple_of or 1):
                rollouts.job.say(f"prompts are computed for each of their answers: {reason}")

        def _get_train_sampler(self, dataset: Any = None) -> Groups:
            # As many rows as answers that are trained on, of as many requests as are asked.
            size = self.num_generations // rollouts.job.config.oversample
            return Groups(
                len(rollouts.requests), self.args.generation_batch_size // size, size, self._reuse, self.args.seed
            )

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            rows = {row["place"]: row for row in inputs}
            kept = rollouts.sample(self, list(rows), keep=len(inputs) // self.num_generations)
            return super()._generate_and_score_completions([rows[group.place] for group in kept for _ in group.answers])

        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [encode(rollouts.tokenizer, prompt) for prompt in prompts], None, {}

        def _generate_single_turn(self, *_: Any) -> Any:
            answers = [each for group in rollouts.groups for each in group.answers]
            ids = [[*each.ids, *([] if each.stop is None else [each.stop])] for each in answers]
            return (ids, None) if issubclass(trainer, GRPOTrainer) else ids

        def _prepare_inputs(self, generation_batch: Any) -> Any:
            if self._step % self._reuse == 0 or self._buffered_inputs is None:
                batch = self._generate_and_score_completions(generation_batch)
                self._buffered_inputs = slices(
                    batch, self.args.steps_per_generation, self.pad_to_multiple_of or 1, self._together
                )
            return self._buffered_inputs[self._step % self.args.steps_per_generation]

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            super().log(logs | rollouts.shares() if "loss" in logs else logs, start_time)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            super()._save_checkpoint(model, trial)
            folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            write_json(folder / _SEEN, rollouts.seen)
            if self._step % self._reuse:
                from safetensors.torch import save_file

                tensors = {
                    f"{number}/{key}": value.clone()  # parts share one count of tokens, which the format refuses
                    for number, part in enumerate(self._buffered_inputs)
                    for key, value in part.items()
                }
                save_file(tensors, folder / _FILE, metadata={"step": str(self._step)})

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            rollouts.seen |= read_json(Path(resume_from_checkpoint) / _SEEN) or {}
            stored = Path(resume_from_checkpoint) / _FILE
            if stored.exists():
                from safetensors import safe_open

                self._buffered_inputs = [{} for _ in range(self.args.steps_per_generation)]
                with safe_open(stored, framework="pt", device=str(self.accelerator.device)) as file:
                    self._step = int(file.metadata()["step"])
                    for name in file.keys():  # noqa: SIM118 (no mapping)
                        number, key = name.split("/", 1)
                        self._buffered_inputs[int(number)][key] = file.get_tensor(name)

    RolloutTrainer.__name__ = trainer.__name__
    return RolloutTrainer


class Groups:
    """Places of requests as TRL batches them: each `size` times in a row, `prompts` requests a batch of samples, and
    each batch `uses` times. (seed, epoch) alone decide the order; requests that fill no batch are left out of an epoch.
    """

    def __init__(self, requests: int, prompts: int, size: int, uses: int, seed: int) -> None:
        self.requests, self.prompts, self.size, self.uses, self.seed = requests, prompts, size, uses, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.requests // self.prompts * self.prompts * self.size * self.uses

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.requests))
        random.Random(f"{self.seed}/{self.epoch}").shuffle(order)
        for end in range(self.prompts, len(order) + 1, self.prompts):
            for _ in range(self.uses):
                for place in order[end - self.prompts : end]:
                    yield from [place] * self.size


def slices(batch: dict[str, torch.Tensor], count: int, multiple: int, group: int = 1) -> list[dict[str, torch.Tensor]]:
    """The rows of a batch in `count` parts of like length, each padded to a multiple of its own longest row; `group`
    after `group` of them has one prompt and stays together.

    TRL pads all rows to the longest prompt and the longest answer of the whole batch. Prompts are padded on the left,
    answers on the right; what has no rows stands in each part.
    """
    lengths = batch["prompt_mask"].sum(1) + batch["completion_mask"].sum(1)
    parts = []
    groups = lengths.view(-1, group).amax(1).argsort(stable=True)
    order = (groups[:, None] * group + groups.new_tensor(range(group))).flatten()
    for rows in order.chunk(count):
        part = {key: value[rows] if value.ndim else value for key, value in batch.items()}
        widths = {side: _rounded(int(part[f"{side}_mask"].sum(1).max()), multiple) for side in ("prompt", "completion")}
        for key, value in part.items():
            if key.startswith("prompt_"):
                part[key] = value[:, -widths["prompt"] :]
            elif value.ndim == 2:
                part[key] = value[:, : widths["completion"]]
        parts.append(part)
    return parts


def _rounded(width: int, multiple: int) -> int:
    return max(1, -(-width // multiple)) * multiple


def check_reference(trainer: Any, prompts: Sequence[str], tolerance: float = 1e-4) -> dict[str, float]:
    """Before the first step the policy must be its reference: the largest difference of their log-probabilities over
    the tokens of these prompts, in nats. RuntimeError says what was seen; without a reference there is nothing to see.
    """
    if not trainer.beta:
        return {}
    import torch
    from trl.trainer.utils import use_adapter

    def logps(ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, torch.ones_like(ids), ids.shape[1] - 1
        )[0]
        return found

    gap = 0.0
    with torch.no_grad():
        for row in trainer._tokenize_prompts(prompts)[0]:
            ids = torch.tensor([row], device=trainer.accelerator.device)
            own = logps(ids)
            with use_adapter(trainer.model, adapter_name="ref"):
                gap = max(gap, (own - logps(ids)).abs().max().item())
    if not gap <= tolerance:
        raise RuntimeError(
            f"at step 0 the policy is not its reference: their log-probabilities differ by {gap:.2e} nats; the KL term"
            " would hold it to another model"
        )
    return {"reference_gap_at_step_0": gap}
