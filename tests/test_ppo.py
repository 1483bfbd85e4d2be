"""PPO: formulas on numbers worked out by hand, steps against plain ones, a toy with two arms; slow, whole runs."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stages import ppo
from stages._errors import Interrupted, UserError
from stages._job import Job, execute
from tests import toys


def accelerator() -> Any:
    """One process on the CPU that computes in float32."""
    config: Any = types.SimpleNamespace(dtype="float32", quantization="none")
    return ppo._accelerator(config)


# ----- formulas -----


def test_the_advantages_of_an_episode_are_those_worked_out_by_hand() -> None:
    """gamma 0.5, lambda 0.8, so that gamma lambda = 0.4. Rewards 1, 0, 4; values 2, 4, 6; nothing behind the end.

    delta_3 = 4 - 6 = -2; delta_2 = 0 + 0.5 * 6 - 4 = -1; delta_1 = 1 + 0.5 * 4 - 2 = 1.
    A_3 = -2; A_2 = -1 + 0.4 * -2 = -1.8; A_1 = 1 + 0.4 * -1.8 = 0.28.
    """
    import torch

    advantages, returns = ppo.gae(torch.tensor([[1.0, 0.0, 4.0]]), torch.tensor([[2.0, 4.0, 6.0]]), 0.5, 0.8)
    assert advantages[0].tolist() == pytest.approx([0.28, -1.8, -2.0])
    assert returns[0].tolist() == pytest.approx([2.28, 2.2, 4.0])


def test_what_stands_before_an_answer_does_not_reach_its_advantages() -> None:
    import torch

    whole, _ = ppo.gae(torch.tensor([[9.0, 1.0, 4.0]]), torch.tensor([[7.0, 4.0, 6.0]]), 0.9, 0.7)
    alone, _ = ppo.gae(torch.tensor([[1.0, 4.0]]), torch.tensor([[4.0, 6.0]]), 0.9, 0.7)
    assert whole[0, 1:].tolist() == alone[0].tolist()


def test_each_token_pays_for_leaving_the_reference_and_the_last_one_has_the_score() -> None:
    import torch

    rewards = ppo.token_rewards(torch.tensor([2.0, -1.0]), torch.tensor([[0.0, 0.5, -0.5], [1.0, 0.0, 0.25]]), 0.1)
    assert rewards[0].tolist() == pytest.approx([0.0, -0.05, 2.05])
    assert rewards[1].tolist() == pytest.approx([-0.1, 0.0, -1.025])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.0, 2.0, -2.0, -2.0),  # at the start the gradient of the log-probability is -A
        (1.1, 2.0, -2.2, -2.2),  # within the clip: -A ratio
        (1.5, 2.0, -2.4, 0.0),  # likelier by enough: -A (1 + clip), and nothing pulls
        (0.5, 2.0, -1.0, -1.0),  # a good token that became unlikelier is always pulled back
        (0.5, -2.0, 1.6, 0.0),  # unlikelier by enough: -A (1 - clip)
        (1.5, -2.0, 3.0, 3.0),  # a bad token that became likelier
    ],
)
def test_the_clipped_loss_and_its_gradient(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    import torch

    log_ratio = torch.tensor(math.log(ratio), requires_grad=True)
    found = ppo.policy_loss(log_ratio, torch.tensor(advantage), clip=0.2)
    found.backward()
    assert found.item() == pytest.approx(loss)
    assert log_ratio.grad is not None
    assert log_ratio.grad.item() == pytest.approx(gradient)


@pytest.mark.parametrize(
    ("value", "clip", "loss", "gradient"),
    [
        (0.1, 0.2, 0.405, -0.9),  # within the clip: (0.1 - 1)^2 / 2
        (0.5, 0.2, 0.32, 0.0),  # nearer than the clip allows: (0.2 - 1)^2 / 2, and nothing pulls
        (-0.5, 0.2, 1.125, -1.5),  # further away: (-0.5 - 1)^2 / 2
        (0.5, None, 0.125, -0.5),
    ],
)
def test_the_clipped_loss_of_a_value(value: float, clip: float | None, loss: float, gradient: float) -> None:
    """The old prediction is 0, the return 1."""
    import torch

    prediction = torch.tensor(value, requires_grad=True)
    found = ppo.value_loss(prediction, torch.tensor(0.0), torch.tensor(1.0), clip)
    found.backward()
    assert found.item() == pytest.approx(loss)
    assert prediction.grad is not None
    assert prediction.grad.item() == pytest.approx(gradient)


def test_whitening_looks_at_the_answers_alone() -> None:
    """1, 3, 5 have mean 3 and variance 8 / 3."""
    import torch

    values, mask = torch.tensor([[99.0, 1.0], [3.0, 5.0]]), torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    step = 2 / math.sqrt(8 / 3)
    whitened = ppo.whiten(values, mask, accelerator())
    assert whitened.flatten().tolist() == pytest.approx([0.0, -step, 0.0, step], abs=1e-6)
    kept = ppo.whiten(values, mask, accelerator(), shift_mean=False)
    assert kept.flatten().tolist() == pytest.approx([0.0, 3 - step, 3.0, 3 + step], abs=1e-6)


@pytest.mark.parametrize(
    ("kl", "factor"), [(6.0, 1.0), (6.6, 1.01), (5.4, 0.99), (60.0, 1.02), (0.0, 0.98), (-3.0, 0.98)]
)
def test_the_price_of_a_nat_follows_the_target_by_a_fifth_of_the_gain_at_most(kl: float, factor: float) -> None:
    assert ppo.next_coefficient(0.5, kl, target=6.0, gain=0.1) == pytest.approx(0.5 * factor)


def test_missed_calls_that_rise_are_told_once() -> None:
    said: list[str] = []
    facts: dict[str, Any] = {}
    job: Any = types.SimpleNamespace(config=ppo.Config(), say=said.append, record=facts.update)
    done = ppo.Progress(kl_coefficient=0.1)
    for rate in (0.0, 0.5, None, 0.0, 0.0, 0.0):  # one bad update is no collapse, nor is one that needed no call
        done.updates += 1
        ppo._watch(job, done, rate)
    assert not said
    ppo._watch(job, done, 0.1)  # 0.5, 0, 0, 0, 0.1: the mean of five is 0.12
    ppo._watch(job, done, 1.0)
    assert len(said) == 1
    assert "missed calls rose from 0.0% to 12.0%" in said[0]
    assert facts["guard"]["missed_calls"] == {"step": 6, "before": 0.0, "now": pytest.approx(0.12)}


def test_an_answer_that_was_cut_off_is_told_to_the_reward_model_as_such() -> None:
    asked: list[Any] = []
    judge: Any = types.SimpleNamespace(score=lambda requests, completions: asked.append((requests, completions)))
    sampled = [types.SimpleNamespace(text="On and on", truncated=cut_off) for cut_off in (True, False)]
    answers: list[Any] = [
        types.SimpleNamespace(request="r", scored=types.SimpleNamespace(completion=one)) for one in sampled
    ]
    ppo._worth(answers, judge)
    assert asked == [(["r", "r"], sampled)]


# ----- what is asked, and what is computed at once -----


def test_no_prompt_is_asked_twice_in_a_pass_and_an_update_is_known_from_its_number() -> None:
    prompts: Any = [f"p{number}" for number in range(10)]
    passes = [[ppo.asked_in(prompts, update, 3, seed=5) for update in range(first, first + 3)] for first in (0, 3)]
    for one in passes:
        asked = list(itertools.chain(*one))
        assert len(set(asked)) == 9
    assert passes[0] != passes[1]
    assert ppo.asked_in(prompts, 4, 3, seed=5) == passes[1][1]
    assert ppo.asked_in(prompts, 4, 3, seed=6) != passes[1][1]


@pytest.mark.parametrize(
    ("prompts", "micro", "processes", "shares"),
    [
        *((64, 8, 1, (64, 8, 2)), (64, 100, 1, (64, 32, 2)), (5, 8, 1, (5, 2, 2)), (7, 8, 2, (6, 1, 1))),
        *((64, 3, 1, (64, 2, 2)), (1000, 8, 4, (64, 8, 2))),
    ],
)
def test_each_process_has_some_answers_for_each_minibatch(
    prompts: int, micro: int, processes: int, shares: tuple[int, int, int]
) -> None:
    assert ppo._shares(ppo.Config(samples=2), prompts, micro, processes) == shares


@pytest.mark.parametrize(("micro", "at_once"), [(32, (30, 6)), (5, (3, 3)), (1, (1, 1))])
def test_answers_to_one_prompt_are_computed_together(micro: int, at_once: tuple[int, int]) -> None:
    assert ppo._shares(ppo.Config(samples=6), 64, micro, 1)[1:] == at_once
    answers = [([prompt] * (9 - prompt), [sample] * (sample + 1)) for prompt in range(4) for sample in range(6)]
    size, group = at_once
    for batch in ppo.batched(answers, size, 1, "cpu", group):
        asked = [row // 6 for row in batch.rows.tolist()]
        assert all(len(set(asked[start : start + group])) == 1 for start in range(0, len(asked), group))


def test_more_minibatches_than_answers_are_refused_with_a_way_out() -> None:
    with pytest.raises(ValidationError, match="2 prompts x 1 samples make no 4"):
        ppo.Config(prompts=2, samples=1)
    with pytest.raises(
        UserError, match=r"ppo.minibatches=4: an update of 1 requests x 2 answers, in 1 process, leaves"
    ):
        ppo._shares(ppo.Config(samples=2), 1, 8, 1)
    with pytest.raises(UserError, match="in 8 processes, leaves none for some of them"):
        ppo._shares(ppo.Config(prompts=8, samples=2), 64, 8, 8)


ANSWERS = [([1, 2, 3], [4, 5]), ([6], [7, 8, 9]), ([1] * 9, [3]), ([2, 2], [5, 6, 7, 8, 9, 10])]


def test_a_batch_ends_with_its_answers_and_pads_before_them() -> None:
    batches = ppo.batched(ANSWERS, size=2, multiple=4, place="cpu")
    assert [batch.rows.tolist() for batch in batches] == [[1, 0], [3, 2]]  # by length
    short, long = batches
    assert short.ids[:, -5:].tolist() == [[0, 6, 7, 8, 9], [1, 2, 3, 4, 5]]
    assert short.attention[:, -5:].tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert (short.ids.shape[1], short.width) == (8, 4)
    assert (long.ids.shape[1], long.width) == (12, 8)
    tight = ppo.batched([([1], [2, 3, 4])], size=1, multiple=4, place="cpu")
    assert tight[0].width == 3  # what predicts the first token is there


def toy_policy(folder: Path, dtype: str = "float32", **more: Any) -> ppo.Policy:
    """The toy model with an adapter that does something, as policy and as reference."""
    import torch
    from peft import LoraConfig, get_peft_model

    from stages._model import ModelConfig

    checkpoint = toys.toy_checkpoint(folder / "model")
    lora = LoraConfig(
        r=4, lora_dropout=0.3, init_lora_weights=False, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    torch.manual_seed(1)
    get_peft_model(toys.toy_model("toy", 1024), lora).save_pretrained(folder / "adapter")
    config = ModelConfig(path=str(checkpoint), dtype=dtype)
    return ppo.load(config, folder / "adapter", ppo._accelerator(config), more.pop("temperature", 1.0), seed=0)


def shake(parameters: Any, size: float) -> None:
    import torch

    torch.manual_seed(2)
    with torch.no_grad():
        for one in parameters:
            one.add_(size * torch.randn_like(one))


def test_a_policy_sees_answers_in_batches_as_it_sees_them_alone(tmp_path: Path) -> None:
    import torch

    policy = toy_policy(tmp_path, temperature=0.7)
    shake(policy.trained.values(), 0.02)
    rollout = ppo.look(policy, ANSWERS, size=3, multiple=4)
    causal, hidden = policy.model.get_base_model(), []
    causal.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
    for row, (prompt, ids) in enumerate(ANSWERS):
        width = len(ids)
        assert rollout.mask[row].tolist() == [0.0] * (rollout.mask.shape[1] - width) + [1.0] * width
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            values = policy.head(hidden[-1][0, len(prompt) - 1 : -1]).flatten()
            with policy.as_reference():
                reference = policy.model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        expected = (logits / 0.7).log_softmax(-1)
        chosen = expected.gather(1, torch.tensor(ids)[:, None]).flatten()
        assert rollout.logprobs[row, -width:].tolist() == pytest.approx(chosen.tolist(), abs=1e-4)
        entropies = -(expected.exp() * expected).sum(-1)
        assert rollout.entropies[row, -width:].tolist() == pytest.approx(entropies.tolist(), abs=1e-4)
        assert rollout.values[row, -width:].tolist() == pytest.approx(values.tolist(), abs=1e-4)
        before = (reference / 0.7).log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).flatten()
        assert rollout.reference[row, -width:].tolist() == pytest.approx(before.tolist(), abs=1e-4)
        assert (chosen - before).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_at_step_0_the_policy_is_its_reference_and_the_first_ratio_is_1(dtype: str, tmp_path: Path) -> None:
    import torch

    policy = toy_policy(tmp_path, dtype)
    rollout = ppo.look(policy, ANSWERS, size=2, multiple=32)
    assert torch.equal(rollout.logprobs, rollout.reference)
    assert ppo.check_reference(rollout) == 0
    assert rollout.values.abs().max() == 0
    advantages = rollout.mask * 1.0
    for update in range(2):  # after steps too, so far as the rollout is of the weights that the step begins with
        rollout = ppo.look(policy, ANSWERS, size=2, multiple=32)
        config = ppo.Config(minibatches=2, stop_kl=None)
        optimizer = policy.accelerator.prepare(
            torch.optim.Adam([{"params": group} for group in policy.groups], lr=1e-3)
        )
        took = ppo.improve(policy, optimizer, rollout, advantages, advantages, config, f"{update}")
        assert took["ratio_error"] == 0
        assert took["step_kl"] > 0
    with pytest.raises(RuntimeError, match=r"at step 0 the policy is not its reference: .* differ by up to \d"):
        ppo.check_reference(ppo.look(policy, ANSWERS, size=2, multiple=32))


class Gradients:
    """An optimizer that keeps the gradients it is given, and changes nothing."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.steps = policy, []  # type: ignore[var-annotated]

    def step(self) -> None:
        import torch

        self.steps.append(torch.cat([one.grad.flatten() for group in self.policy.groups for one in group]))

    def zero_grad(self) -> None:
        for one in itertools.chain(*self.policy.groups):
            one.grad = None


def gradient_of(policy: Any, size: int, config: ppo.Config, advantages: Any = None) -> tuple[Any, dict[str, Any], Any]:
    """The gradient of one step over all of ANSWERS, computed `size` at once."""
    import torch

    rollout = ppo.look(policy, ANSWERS, size=size, multiple=4)
    torch.manual_seed(3)
    whole = torch.randn(len(ANSWERS), 8) if advantages is None else advantages
    targets, optimizer = whole + 1.0, Gradients(policy)
    width = rollout.mask.shape[1]
    took = ppo.improve(policy, optimizer, rollout, whole[:, -width:], targets[:, -width:], config, "0")
    (gradient,) = optimizer.steps
    return gradient, took, rollout


ONE_STEP = ppo.Config(epochs=1, minibatches=1, max_grad_norm=1e9)


def test_accumulated_gradients_are_those_of_the_whole_minibatch(tmp_path: Path) -> None:
    policy = toy_policy(tmp_path)
    shake(policy.trained.values(), 0.02)
    whole, took, _ = gradient_of(policy, 4, ONE_STEP)
    for size in (1, 2, 3):
        accumulated, took_too, _ = gradient_of(policy, size, ONE_STEP)
        assert accumulated.tolist() == pytest.approx(whole.tolist(), abs=1e-5)
        assert took_too["policy_loss"] == pytest.approx(took["policy_loss"], abs=1e-6)
        assert took_too["value_loss"] == pytest.approx(took["value_loss"], abs=1e-6)
    assert whole.abs().max() > 1e-3


def test_one_unclipped_epoch_without_discount_is_reinforce_with_a_baseline(tmp_path: Path) -> None:
    """With gamma = lambda = 1 the advantage of a token is the sum of the rewards from it on, less its prediction."""
    import torch

    policy = toy_policy(tmp_path)
    shake(policy.head.parameters(), 0.1)
    seen = ppo.look(policy, ANSWERS, size=4, multiple=4)
    torch.manual_seed(4)
    rewards = torch.randn_like(seen.mask) * seen.mask
    advantages, _ = ppo.gae(rewards, seen.values, gamma=1.0, gae_lambda=1.0)
    config = ONE_STEP.model_copy(update={"clip": 1e9, "value_clip": None})
    found, _, _ = gradient_of(policy, 4, config, advantages)

    loss, tokens = torch.zeros(()), 0
    for row, (prompt, ids) in enumerate(ANSWERS):
        logits = policy.model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).flatten()
        for place in range(len(ids)):
            column = rewards.shape[1] - len(ids) + place
            to_go = sum(rewards[row, later].item() for later in range(column, rewards.shape[1]))
            loss = loss - (to_go - seen.values[row, column].item()) * logprobs[place]
            tokens += 1
    (loss / tokens).backward()
    expected = torch.cat([one.grad.flatten() for one in policy.groups[0]])
    assert expected.abs().max() > 1e-3
    assert found[: len(expected)].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_value_head_sends_no_gradient_into_the_policy(tmp_path: Path) -> None:
    import torch

    policy = toy_policy(tmp_path)
    shake(policy.head.parameters(), 0.1)
    gradient, _, _ = gradient_of(policy, 4, ONE_STEP, torch.zeros(len(ANSWERS), 8))
    adapter = sum(one.numel() for one in policy.groups[0])
    assert gradient[:adapter].abs().max() == 0
    assert gradient[adapter:].abs().max() > 0


def test_a_step_that_would_start_too_far_away_is_not_taken(tmp_path: Path) -> None:
    import torch

    policy = toy_policy(tmp_path)
    rollout = ppo.look(policy, ANSWERS, size=2, multiple=4)
    groups = [{"params": group} for group in policy.groups]
    optimizer = policy.accelerator.prepare(torch.optim.Adam(groups, lr=1e-2))
    config = ppo.Config(epochs=3, minibatches=2, stop_kl=1e-4)
    took = ppo.improve(policy, optimizer, rollout, rollout.mask, rollout.mask, config, "0")
    assert took["stopped"]
    assert took["steps"] == 1
    assert took["step_kl"] > 1e-4
    assert all(one.grad is None for group in policy.groups for one in group)


class Arms:
    """A policy of two answers of one token each, to one prompt, with a prediction of its own for both."""

    def __init__(self) -> None:
        import torch

        self.logits, self.value = (torch.zeros(size, requires_grad=True) for size in (2, 1))
        self.groups, self.accelerator = [[self.logits], [self.value]], accelerator()

    def __call__(self, batch: ppo.Batch) -> Any:
        logprobs = self.logits.log_softmax(-1)
        entropy = -(logprobs.exp() * logprobs).sum().detach()
        chosen = logprobs[batch.ids[:, -1:]]
        return chosen, self.value.expand_as(chosen), entropy.expand_as(chosen)


def test_of_two_arms_the_better_one_is_learned_and_its_reward_predicted() -> None:
    import torch

    arms, config = Arms(), ppo.Config(epochs=2, minibatches=2, value_clip=None)
    optimizer = torch.optim.Adam([{"params": group} for group in arms.groups], lr=0.05)
    draw = torch.Generator().manual_seed(0)
    for update in range(60):
        drawn = torch.rand(32, generator=draw) < arms.logits.softmax(-1)[1].item()
        answers = [([0], [int(arm)]) for arm in drawn]
        batches = ppo.batched(answers, size=8, multiple=1, place="cpu")
        shape = (32, 1)
        before = torch.zeros(shape), torch.zeros(shape)
        for batch in batches:
            for tensor, part in zip(before, arms(batch), strict=False):
                tensor[batch.rows] = part.detach()
        rollout = ppo.Rollout(batches, torch.ones(shape), before[0], before[0], before[1], torch.zeros(shape))
        score = torch.where(drawn, 1.0, -1.0)  # the second arm is the better one
        rewards = ppo.token_rewards(score, torch.zeros(shape), 0.0)
        advantages, returns = ppo.gae(rewards, rollout.values, 1.0, 0.95)
        took = ppo.improve(arms, optimizer, rollout, advantages, returns, config, f"{update}")
        assert took["ratio_error"] == 0
    assert arms.logits.softmax(-1)[1] > 0.95
    assert arms.value.item() == pytest.approx(1.0, abs=0.2)


# ----- slow: whole runs -----

SHORT = {"updates": 6, "prompts": 8, "samples": 2, "minibatches": 2, "max_new_tokens": 12, "kl_target": 0.5}
FEW = {"limit": 4, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has had its supervised fine-tuning."""
    folder = tmp_path_factory.mktemp("tuned")
    checkpoint = toys.toy_checkpoint(folder / "model")
    execute("sft", toys.toy_settings(folder, "sft", checkpoint, model={"micro_batch": 4}, sft={"batch_size": 8}))
    return folder


def copied(tuned: Path, folder: Path) -> Path:
    """The run as it was after its fine-tuning, to go on from anew."""
    shutil.copytree(tuned / "runs/toy/sft", folder / "runs/toy/sft")
    shutil.copy(tuned / "rows.jsonl", folder)
    return folder


def base_of(folder: Path) -> Path:
    """The checkpoint that a run was fine-tuned from."""
    return Path(json.loads((folder / "runs/toy/sft/manifest.json").read_text())["model"]["id"])


def run_ppo(folder: Path, model: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    blocks = {"ppo": SHORT | more, "evaluate": FEW, "model": {"micro_batch": 4} | (model or {})}
    return execute("ppo", toys.toy_settings(folder, "ppo", base_of(folder), **blocks))


def adapter(folder: Path, stage: str = "ppo") -> Path:
    return folder / "runs/toy" / stage / "adapter/adapter_model.safetensors"


def adapter_digest(folder: Path, stage: str = "ppo") -> str:
    return hashlib.sha256(adapter(folder, stage).read_bytes()).hexdigest()


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs/toy/ppo/log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_it_starts_at_its_reference_and_killed_three_times_it_ends_in_the_same_bytes(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_watch = ppo._watch
    monkeypatch.setattr(ppo, "_RECENT", 1)  # so that it is told after the second update, before the second death
    monkeypatch.setattr(ppo, "_watch", lambda job, done, _: plain_watch(job, done, 0.0 if done.updates == 1 else 1.0))
    whole, broken = copied(tuned, tmp_path / "whole"), copied(tuned, tmp_path / "broken")
    metrics = run_ppo(whole)
    assert metrics["reference_gap_at_step_0"] == metrics["kl_first"] == 0
    assert metrics["steps"] == 6
    assert metrics["samples"] == 6 * 8 * 2
    assert {"validation_false_tool_call_rate", "validation_missed_call_rate"} <= metrics.keys()
    assert {"exact_call_rate", "false_tool_call_rate", "missed_call_rate", "n_call"} <= metrics.keys()
    rows = logged(whole)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row["ratio_error"] == 0 for row in rows)
    names = {
        *("points", "kl", "entropy", "clip_fraction", "explained_variance"),
        *("false_tool_call_rate", "missed_call_rate", "policy_loss", "value_loss", "kl_coefficient"),
    }
    assert names <= rows[0].keys()
    assert rows[-1]["kl_coefficient"] != rows[0]["kl_coefficient"]
    assert adapter_digest(whole) != adapter_digest(whole, "sft")
    assert not (whole / "runs/toy/ppo/checkpoints").exists()

    # Stopped by a signal after the second update; dead in the middle of the fourth, whose checkpoint is half-written;
    # dead before the log has the last one.
    plain_log, plain_save = Job.log, ppo._save

    def stopped(job: Job, row: dict[str, Any]) -> None:
        plain_log(job, row)
        if row["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    def torn(job: Job, policy: Any, optimizer: Any, done: ppo.Progress) -> None:
        plain_save(job, policy, optimizer, done)
        if done.updates == 4:
            path = job.folder / "checkpoints/checkpoint-4/training.safetensors"
            path.write_bytes(path.read_bytes()[:-100])
            raise KeyboardInterrupt

    def silent(job: Job, row: dict[str, Any]) -> None:
        if row["step"] == 6:
            raise KeyboardInterrupt
        plain_log(job, row)

    for where, what, error in (
        ((Job, "log"), stopped, Interrupted),
        ((ppo, "_save"), torn, KeyboardInterrupt),
        ((Job, "log"), silent, KeyboardInterrupt),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(*where, what)
            with pytest.raises(error):
                run_ppo(broken)
    assert run_ppo(broken)["resumed_from_step"] == 5
    assert adapter_digest(broken) == adapter_digest(whole)
    assert logged(broken) == rows
    for folder in (whole, broken):
        guard = json.loads((folder / "runs/toy/ppo/manifest.json").read_text())["facts"]["guard"]
        assert guard == {"missed_calls": {"step": 2, "before": 0.0, "now": 1.0}}


@pytest.mark.slow
def test_killed_outright_it_goes_on_from_the_last_update_it_saved(tuned: Path, tmp_path: Path) -> None:
    whole, broken = copied(tuned, tmp_path / "whole"), copied(tuned, tmp_path / "broken")
    run_ppo(whole, save_every=2)
    words = "from pathlib import Path; from tests.test_ppo import run_ppo"
    code = f"{words}; run_ppo(Path({str(broken)!r}), save_every=2)"
    log = broken / "runs/toy/ppo/log.jsonl"
    running = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], cwd=toys.ROOT)
    while running.poll() is None and not (log.exists() and log.read_text().count("\n") >= 3):
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.02)
    running.kill()
    running.wait()
    assert not adapter(broken).exists()
    assert run_ppo(broken, save_every=2)["resumed_from_step"] in (2, 4)
    assert adapter_digest(broken) == adapter_digest(whole)


@pytest.mark.slow
def test_its_adapter_loads_by_peft_alone_is_merged_and_evaluated(tuned: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = copied(tuned, tmp_path)
    run_ppo(folder, updates=1)
    base = AutoModelForCausalLM.from_pretrained(base_of(folder))
    loaded = PeftModel.from_pretrained(base, folder / "runs/toy/ppo/adapter")
    assert list(loaded.peft_config) == ["default"]
    merge = {"requests": 4, "max_new_tokens": 12}
    merged = execute("merge", toys.toy_settings(folder, "merge", base_of(folder), merge=merge))
    assert merged["adapter"] == "ppo"
    found = execute("evaluate", toys.toy_settings(folder, "evaluate", base_of(folder), evaluate=FEW))
    assert list(found) == ["base", "sft", "ppo", "merged"]


@pytest.mark.slow
def test_in_4_bits_with_activations_computed_twice_it_starts_at_its_reference_too(tmp_path: Path) -> None:
    model = {"quantization": "nf4", "micro_batch": 2, "activation_checkpointing": True}
    checkpoint = toys.toy_checkpoint(tmp_path / "model")
    execute("sft", toys.toy_settings(tmp_path, "sft", checkpoint, model=model, sft={"max_steps": 2, "batch_size": 4}))
    metrics = run_ppo(tmp_path, model, updates=2)
    assert metrics["reference_gap_at_step_0"] == 0
    assert [row["ratio_error"] for row in logged(tmp_path)] == [0, 0]
    assert adapter_digest(tmp_path) != adapter_digest(tmp_path, "sft")


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tuned: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    one, two = copied(tuned, tmp_path / "one"), copied(tuned, tmp_path / "two")
    own = {"updates": 2, "minibatches": 1, "epochs": 2, "whiten_rewards": True}
    run_ppo(one, {"dtype": "float32"}, **own)
    (tmp_path / "go.py").write_text(
        "import sys; from pathlib import Path; from tests.test_ppo import run_ppo\n"
        f"run_ppo(Path(sys.argv[1]), {{'dtype': 'float32'}}, **{own!r})\n"
    )
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(tmp_path / "go.py"), str(two)]
    environment = {**os.environ, "PYTHONPATH": str(toys.ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, *launch], cwd=toys.ROOT, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ppo: done in") == 1
    for mine, theirs in zip(logged(one), logged(two), strict=True):
        assert mine["points"] == pytest.approx(theirs["points"])
        assert mine["kl"] == pytest.approx(theirs["kl"], abs=1e-5)
        assert mine["policy_loss"] == pytest.approx(theirs["policy_loss"], abs=1e-4)
        assert mine["missed_call_rate"] == theirs["missed_call_rate"]
    first, second, start = (load_file(path) for path in (adapter(one), adapter(two), adapter(one, "sft")))
    moved = max((first[name] - start[name]).abs().max().item() for name in first)
    apart = max((first[name] - second[name]).abs().max().item() for name in first)
    assert moved > 10 * apart
    assert all(torch.isfinite(tensor).all() for tensor in second.values())


def test_a_signal_that_reached_another_process_stops_this_one_too() -> None:
    import torch

    others = types.SimpleNamespace(device="cpu", reduce=lambda numbers, _: numbers + torch.tensor([1.0]))
    job: Any = types.SimpleNamespace(stopping=None)
    assert not ppo._stopping(job, accelerator())
    assert ppo._stopping(job, others)
    assert job.stopping == signal.SIGTERM
    job.stopping = signal.SIGINT
    assert ppo._stopping(job, accelerator())
    assert job.stopping == signal.SIGINT


def test_a_stage_for_one_process_refuses_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="stage=sft: works in one process, this is one of 2; start it without torchrun"):
        execute("sft", toys.toy_settings(tmp_path, "sft", tmp_path / "model"))


@pytest.mark.slow
def test_a_reward_model_is_trained_first_and_gives_the_reward(tuned: Path, tmp_path: Path) -> None:
    folder = copied(tuned, tmp_path)
    blocks = {
        "ppo": SHORT | {"reward": "model", "updates": 2},
        "pairs": {"samples": 2, "max_new_tokens": 12},
        "reward_model": {"epochs": 1, "batch_size": 4},
        "evaluate": FEW,
        "model": {"micro_batch": 4},
    }
    execute("ppo", toys.toy_settings(folder, "ppo", base_of(folder), **blocks))
    manifest = json.loads((folder / "runs/toy/ppo/manifest.json").read_text())
    assert manifest["parents"].keys() == {"sft", "reward_model"}
    rows = logged(folder)
    assert all(row["reward"] != row["points"] for row in rows)  # the table gives whole points, the model does not
