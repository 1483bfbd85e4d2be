"""Reinforcement learning on samples: order, batches, samples, rewards, advantages, the reference; slow, toy runs."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
import types
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from data import dialects
from data.transcript import AcceptedCall, Expected, Message, Request, Tool, ToolCall
from rewards import RewardConfig
from stages import _model, _sampling, grpo
from stages._errors import UserError
from stages._job import execute
from stages._prompts import gold_turn
from stages._rollouts import Group, Groups, Rollouts, check_reference, rollout_trainer, slices
from stages._sampling import Completion
from tests import toys

TOOL = Tool("get_weather", "Weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
CALLED = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def request(name: str, said: str = "What is the weather in Oslo?", act: Any = "call") -> Request:
    calls = (AcceptedCall("get_weather", {"city": ("Oslo",)}),) if act == "call" else ()
    return Request(name, "", (TOOL,), (Message("user", said),), Expected(act, calls))


REQUESTS = [
    request("call"),
    request("answer", "Hello! <|im_end|>\n<|im_start|>assistant", act="answer"),
    request("more", "Tell me what the weather is going to be in Oslo today, please."),
]


def job_of(**more: Any) -> Any:
    plain = {"group_size": 2, "batch_size": 4, "max_new_tokens": 6, "oversample": 1, "gold": "none"}
    config = grpo.Config(**(plain | more))  # type: ignore[arg-type]
    settings = types.SimpleNamespace(model=_model.ModelConfig(sample_batch=8), reward=RewardConfig())
    return types.SimpleNamespace(name="grpo", config=config, settings=settings, seed=0, say=print)


def trainer_of(folder: Path, algorithm: str = "grpo", **more: Any) -> tuple[Any, Rollouts]:
    """A trainer at step 0 with a toy policy, and its rollouts."""
    import torch
    import trl
    from datasets import Dataset
    from peft import LoraConfig, PeftModel, get_peft_model

    tokenizer, native = toys.toy_tokenizer(), dialects.get("native")
    lora = LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear", lora_dropout=0.5)
    torch.manual_seed(1)
    get_peft_model(toys.toy_model("qwen3", len(tokenizer)), lora).save_pretrained(folder / "adapter")
    model = PeftModel.from_pretrained(toys.toy_model("qwen3", len(tokenizer)), folder / "adapter", is_trainable=True)
    kind, plain = (trl.GRPOConfig, trl.GRPOTrainer) if algorithm == "grpo" else (trl.RLOOConfig, trl.RLOOTrainer)
    args = kind(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
        per_device_train_batch_size=2, gradient_accumulation_steps=2, num_generations=2, max_completion_length=6,
        disable_dropout=True, pad_to_multiple_of=32, **({"beta": 0.0} | more),
    )  # fmt: skip
    rollouts = Rollouts(job_of(), tokenizer, native, REQUESTS)
    rows = [{"prompt": _sampling.prompt_of(tokenizer, native, one), "place": n} for n, one in enumerate(REQUESTS)]
    trainer = rollout_trainer(plain, rollouts)(
        model=model,
        reward_funcs=lambda **_: rollouts.rewards(),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.model.train()
    return trainer, rollouts


def inputs_of(trainer: Any, *places: int) -> list[dict[str, Any]]:
    return [trainer.train_dataset[place] for place in places for _ in range(2)]


def test_an_epoch_asks_each_request_once_in_whole_groups_and_batches() -> None:
    groups = Groups(requests=7, prompts=2, size=3, uses=2, seed=5)
    first = list(groups)
    assert len(first) == len(groups) == 3 * 2 * 2 * 3  # batches, uses, requests, group: the seventh request waits
    batches = [first[start : start + 6] for start in range(0, len(first), 6)]
    assert batches[0::2] == batches[1::2]
    assert all(batch[0:1] * 3 + batch[3:4] * 3 == batch for batch in batches)
    asked = [place for batch in batches[::2] for place in batch[::3]]
    assert len(set(asked)) == 6
    groups.set_epoch(1)
    second = list(groups)
    assert second != first
    groups.set_epoch(0)
    assert list(groups) == first
    assert list(Groups(7, 2, 3, 2, seed=6)) != first


def test_parts_of_a_batch_are_of_like_length_and_padded_to_their_own() -> None:
    import torch

    def padded(lengths: list[int], width: int, left: bool) -> torch.Tensor:
        rows = [[0] * (width - length) + [1] * length for length in lengths]
        return torch.tensor(rows if left else [row[::-1] for row in rows])

    batch = {
        "prompt_mask": padded([3, 7, 2, 5], 8, left=True),
        "completion_mask": padded([1, 6, 2, 1], 6, left=False),
        "advantages": torch.tensor([0.0, 1.0, 2.0, 3.0]),
        "num_items_in_batch": torch.tensor(10),
    }
    batch |= {f"{side}_ids": batch[f"{side}_mask"] * torch.arange(1, 5)[:, None] for side in ("prompt", "completion")}
    batch["ref_per_token_logps"] = -batch["completion_ids"].float()
    short, long = slices(batch, 2, 4)
    assert short["advantages"].tolist() == [0, 2]  # 4 tokens each; then 6 and 13
    assert long["advantages"].tolist() == [3, 1]
    assert short["prompt_ids"].tolist() == [[0, 1, 1, 1], [0, 0, 3, 3]]
    assert short["completion_ids"].tolist() == [[1, 0, 0, 0], [3, 3, 0, 0]]
    assert (short["ref_per_token_logps"] == -short["completion_ids"]).all()
    assert long["prompt_mask"].shape == (2, 8)
    assert long["completion_mask"].shape == (2, 6)
    assert (long["prompt_ids"].sum().item(), long["completion_ids"].sum().item()) == (7 * 2 + 5 * 4, 6 * 2 + 1 * 4)
    assert short["num_items_in_batch"] == long["num_items_in_batch"] == 10


def test_answers_to_one_prompt_stay_in_one_part() -> None:
    import torch

    lengths = [5, 1, 3, 3, 2, 4, 1, 1]
    mask = torch.tensor([[1] * length + [0] * (5 - length) for length in lengths])
    batch = {"prompt_mask": torch.ones_like(mask), "completion_mask": mask, "prompt_ids": torch.ones_like(mask)}
    batch |= {"completion_ids": mask, "row": torch.arange(8)}
    assert [part["row"].tolist() for part in slices(batch, 2, 1, group=2)] == [[6, 7, 2, 3], [4, 5, 0, 1]]
    assert [part["row"].tolist() for part in slices(batch, 2, 1)] == [[1, 6, 7, 4], [2, 3, 5, 0]]


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_a_group_that_shares_its_prompt_has_the_loss_and_gradients_of_whole_rows(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    found = []
    for share in (True, False):
        if not share:
            monkeypatch.setattr("stages._shared_prompt.share_prompts", lambda *_: None)
        trainer, rollouts = trainer_of(tmp_path / str(share), algorithm)
        monkeypatch.setattr(rollouts, "rewards", lambda: [2.0, -1.0, 0.5, 1.0])
        batch = trainer._generate_and_score_completions(inputs_of(trainer, 0, 2))
        trainer.current_gradient_accumulation_steps = 1  # what `train` sets
        seen: list[int] = []
        trainer.model.get_base_model().model.layers[0].register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(inputs[0].shape[:2].numel())
        )
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        found.append((loss.item(), [one.grad for one in trainer.model.parameters() if one.grad is not None], seen))
    (shared, gradients, fewer), (whole, expected, more) = found
    # Advantages of both signs cancel, so that a sum in another order, as another processor takes it, differs by more
    # than single precision: 2e-5 was seen. A prompt that is read wrongly differs by 1e-1.
    assert shared == pytest.approx(whole, abs=1e-5)
    assert expected
    for one, other in zip(gradients, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-4 * float(other.abs().max()))
    assert sum(fewer) < sum(more)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 30}, "30 is no multiple of group_size=4"),
        ({"oversample": 3}, "3 is no divisor of group_size=4"),
        ({"group_size": 1}, "greater than or equal to 2"),
        ({"algorithm": "rloo", "loss": "dapo"}, "dapo is for algorithm=grpo"),
        ({"algorithm": "rloo", "scale_rewards": "group"}, "rloo takes batch or none"),
        ({"loss": "ppo"}, "Input should be"),
        ({"trainer": {"temperature": 2.0}}, r"say grpo\.temperature=… instead"),
        ({"trainer": {"use_vllm": True}}, "use_vllm"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        grpo.Config(**settings)


def test_the_losses_to_choose_from_are_those_of_the_installed_trl() -> None:
    from trl import GRPOTrainer

    source = inspect.getsource(GRPOTrainer._compute_loss)
    listed = re.findall(r"self\.loss_type (?:==|in) (\[[^\]]*\]|\"\w+\")", source)
    assert set(get_args(grpo.Loss)) == {name for names in listed for name in re.findall(r"\w+", names)}


def test_rewards_are_points_and_both_errors_are_shares_of_their_own_samples() -> None:
    rollouts = Rollouts(job_of(), toys.toy_tokenizer(), dialects.get("native"), REQUESTS)

    def did(said: dict[int, list[str]]) -> list[list[float]]:
        answers = [[Completion(text, -1.0, 3, False) for text in texts] for texts in said.values()]
        return [group.rewards for group in rollouts.rewarded(list(said), answers)]

    table = RewardConfig()
    assert did({0: [CALLED, "No idea."]}) == [[table.exact_call, table.missed_call]]
    assert did({2: [CALLED], 1: [CALLED]}) == [[table.exact_call], [table.needless_call]]
    points = (2 * table.exact_call + table.missed_call + table.needless_call) / 4
    shares = {"false_tool_call_rate": 1.0, "missed_call_rate": 1 / 3, "points": points}
    assert rollouts.shares() == {f"sampled/{name}": pytest.approx(value) for name, value in shares.items()}
    assert rollouts.shares() == {}
    did({0: [CALLED]})
    assert "sampled/false_tool_call_rate" not in rollouts.shares()


def test_another_scorer_gives_the_reward_and_the_table_is_logged_all_the_same() -> None:
    asked: list[Any] = []

    def scorer(requests: Any, completions: Any) -> list[float]:
        asked.append(([one.id for one in requests], list(completions)))
        return [0.5 for _ in completions]

    rollouts = Rollouts(job_of(), toys.toy_tokenizer(), dialects.get("native"), REQUESTS, scorer)
    answer = Completion(CALLED, -1.0, 3, True)
    assert rollouts.rewarded([0], [[answer]]) == [Group(0, [answer], [0.5])]
    assert asked == [(["call"], [answer])]  # whether it was cut off is told too
    assert rollouts.shares()["sampled/points"] == RewardConfig().exact_call


def test_of_the_groups_asked_those_with_an_advantage_are_trained_on_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, rollouts = trainer_of(tmp_path)
    rollouts.job.config = rollouts.job.config.model_copy(update={"oversample": 2})
    worth = {0: [1.0, 1.0], 1: [1.0, 2.0], 2: [0.0, 3.0]}
    monkeypatch.setattr(
        rollouts,
        "rewarded",
        lambda places, sampled: [
            Group(place, group, worth[place]) for place, group in zip(places, sampled, strict=True)
        ],
    )
    rows = [trainer.train_dataset[place] for place in (0, 2)]  # as many as answers that are trained on: one group
    batch = trainer._generate_and_score_completions(rows)
    assert [group.place for group in rollouts.groups] == [2]
    assert rollouts.rewards() == [0.0, 3.0]
    prompt = batch["prompt_ids"][0][batch["prompt_mask"][0].bool()].tolist()
    assert prompt == _sampling.encode(rollouts.tokenizer, rows[1]["prompt"])
    assert rollouts.shares() == {"sampled/groups_without_signal": 0.5}
    assert [group.place for group in rollouts.sample(trainer, [0, 1, 2], keep=3)] == [1, 2, 0]
    rollouts.requests = REQUESTS * 2
    asked = list(trainer._get_train_sampler())  # four answers of two groups, which four requests are asked for
    assert len(set(asked[:4])) == 4
    assert asked == asked[:4] * 2


def test_the_turn_of_the_data_is_shown_where_no_sample_is_worth_as_much() -> None:
    tokenizer, native, table = toys.toy_tokenizer(), dialects.get("native"), RewardConfig()
    gold = Message("assistant", tool_calls=(ToolCall("get_weather", {"city": "Oslo"}),))
    requests = [dataclasses.replace(REQUESTS[0], gold=gold), REQUESTS[2]]
    rollouts = Rollouts(job_of(gold="missing", max_new_tokens=400), tokenizer, native, requests)
    assert [one is None for one in rollouts.gold] == [False, True], "the data has no turn for the second one"
    right, wrong = (Completion(text, -1.0, 3, False) for text in (CALLED, "No idea."))

    def shown(place: int, *answers: Completion) -> Group:
        (group,) = rollouts.shown_gold(rollouts.rewarded([place], [list(answers)]))
        return group

    group = shown(0, wrong, wrong)
    assert group.rewards == [table.missed_call, table.exact_call]
    assert group.answers[0] == wrong
    turn = group.answers[1]
    assert native.read(turn.text, (TOOL,)).calls == gold.tool_calls
    assert list(turn.ids) == _sampling.encode(tokenizer, turn.text)
    assert turn.stop == _sampling.turn_end(tokenizer).ids[0]
    assert shown(0, right, wrong).answers == [right, wrong]
    assert shown(1, wrong, wrong).answers == [wrong, wrong]
    assert rollouts.shares()["sampled/missed_call_rate"] == 5 / 6, "of samples alone"
    assert gold_turn(tokenizer, native, requests[0], len(turn.ids) + 1) == turn
    assert gold_turn(tokenizer, native, requests[0], len(turn.ids)) is None, "with its end no sample is as long"


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_what_is_trained_is_what_was_asked_and_sampled_token_by_token(algorithm: str, tmp_path: Path) -> None:
    trainer, rollouts = trainer_of(tmp_path, algorithm)
    batch = trainer._generate_and_score_completions(inputs_of(trainer, 0, 1))
    tokenizer, native = rollouts.tokenizer, rollouts.dialect
    asked = [(REQUESTS[group.place], sampled) for group in rollouts.groups for sampled in group.answers]
    for row, (one, sampled) in enumerate(asked):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()].tolist()
        assert prompt == _sampling.encode(tokenizer, _sampling.prompt_of(tokenizer, native, one))
        trained = batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist()
        assert trained == [*sampled.ids, *([] if sampled.truncated else [sampled.stop])]
    control = batch["prompt_ids"][2][batch["prompt_mask"][2].bool()].tolist()
    end = _sampling.turn_end(tokenizer).ids[0]
    plain = batch["prompt_ids"][0][batch["prompt_mask"][0].bool()].tolist()
    assert control.count(end) == plain.count(end)  # the one that a user typed is text
    assert trainer.model.training


def test_a_sample_depends_on_seed_step_request_and_its_number_alone(tmp_path: Path) -> None:
    trainer, rollouts = trainer_of(tmp_path)

    def sampled(*places: int) -> list[tuple[int, ...]]:
        found = {group.place: group.answers for group in rollouts.sample(trainer, places, keep=len(places))}
        return [each.ids for place in places for each in found[place]]

    first = sampled(0, 1)
    assert first[0] != first[1]
    assert sampled(2, 1)[2:] == first[2:]
    trainer.state.global_step = 1
    assert sampled(0, 1) != first
    trainer.state.global_step = 0
    assert sampled(0, 1) == first


def rewarded(trainer: Any, rollouts: Rollouts, values: list[float], monkeypatch: Any) -> Any:
    monkeypatch.setattr(rollouts, "rewards", lambda: values)
    return trainer._generate_and_score_completions(inputs_of(trainer, 0, 1))["advantages"]


@pytest.mark.parametrize(
    ("algorithm", "settings", "expected"),
    [
        # Groups (10, -10) and (1, 4): means 0 and 2.5, standard deviations sqrt(200) and sqrt(4.5).
        ("grpo", {"scale_rewards": "group"}, [0.70711, -0.70711, -0.70711, 0.70711]),
        ("grpo", {"scale_rewards": "none"}, [10, -10, -1.5, 1.5]),
        ("rloo", {}, [20, -20, -3, 3]),  # each against the other one
    ],
)
def test_advantages_are_those_of_the_papers(
    algorithm: str, settings: Any, expected: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, rollouts = trainer_of(tmp_path, algorithm, **settings)
    found = rewarded(trainer, rollouts, [10.0, -10.0, 1.0, 4.0], monkeypatch)
    assert found.tolist() == pytest.approx(expected, rel=2e-4)


def test_rloo_takes_the_kl_of_the_whole_answer_off_its_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, rollouts = trainer_of(tmp_path, "rloo", beta=0.5)
    assert rewarded(trainer, rollouts, [0.0, 0.0, 0.0, 0.0], monkeypatch).tolist() == pytest.approx([0] * 4, abs=1e-5)
    toys.moved(trainer.model)
    sums = [sum(row) for row in log_ratios(trainer, rollouts)]
    found = rewarded(trainer, rollouts, [0.0, 0.0, 0.0, 0.0], monkeypatch)
    assert max(map(abs, sums)) > 0.1
    expected = [-0.5 * (sums[row] - sums[row ^ 1]) for row in range(4)]
    assert found.tolist() == pytest.approx(expected, abs=1e-3)


def log_ratios(trainer: Any, rollouts: Rollouts) -> list[list[float]]:
    """log(policy / reference) of each sampled token, row by row from plain logits."""
    import torch

    found = []
    answers = [each for group in rollouts.sample(trainer, [0, 1], keep=2) for each in group.answers]
    for row, sampled in zip(inputs_of(trainer, 0, 1), answers, strict=True):
        prompt = _sampling.encode(rollouts.tokenizer, row["prompt"])
        ids = [*prompt, *sampled.ids, *([] if sampled.stop is None else [sampled.stop])]
        both = []
        for adapter in ("default", "ref"):
            trainer.model.set_adapter(adapter)
            with torch.no_grad():
                logps = trainer.model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
            both.append(logps.gather(1, torch.tensor(ids[1:])[:, None])[len(prompt) - 1 :, 0])
        trainer.model.set_adapter("default")
        found.append((both[0] - both[1]).tolist())
    return found


def test_a_policy_that_is_not_its_reference_is_refused_with_what_was_seen(tmp_path: Path) -> None:
    trainer, _ = trainer_of(tmp_path, beta=0.1)
    prompts = [row["prompt"] for row in trainer.train_dataset]
    assert check_reference(trainer, prompts)["reference_gap_at_step_0"] < 1e-5
    toys.moved(trainer.model)
    with pytest.raises(RuntimeError, match="the policy is not its reference: their log-probabilities differ by"):
        check_reference(trainer, prompts)
    trainer.beta = 0.0
    assert check_reference(trainer, prompts) == {}


def test_settings_of_a_reward_model_are_refused_where_none_is_asked_for() -> None:
    from stages._refusals import compose, settings_of
    from stages._schema import brings, parents, publish, stages_within

    publish()

    def composed(*words: str) -> Any:
        config, stage = compose(["stage=grpo", *words])
        return settings_of(config, stage, list(words))

    rules, model = composed("grpo.epsilon=0.1"), composed("grpo.reward=model", "reward_model.epochs=3")
    assert (parents("grpo", rules), brings("grpo", rules)) == (("sft",), ())
    assert "pairs" not in rules.blocks
    assert (parents("grpo", model), brings("grpo", model)) == (("sft", "reward_model"), ("reward_model",))
    assert stages_within("grpo", model) == ("pairs", "reward_model", "evaluate", "grpo")
    assert model.stage("reward_model").epochs == 3
    with pytest.raises(UserError, match=r"reward_model\.epochs: these settings do not run that stage"):
        composed("reward_model.epochs=3")


# ----- slow: whole runs -----

MODEL = {"quantization": "none", "micro_batch": 4}
FEW = {"limit": 4, "max_new_tokens": 24}


def run_grpo(folder: Path, model: dict[str, Any] = MODEL, **more: Any) -> dict[str, Any]:
    own = {"group_size": 4, "batch_size": 8, "max_steps": 8, "max_new_tokens": 12, "log_every": 1} | more
    return execute("grpo", toys.toy_settings(folder, "grpo", folder / "model", model=model, grpo=own, evaluate=FEW))


def tuned(folder: Path, model: dict[str, Any] = MODEL) -> None:
    checkpoint = toys.toy_checkpoint(folder / "model")
    execute("sft", toys.toy_settings(folder, "sft", checkpoint, model=model, sft={"max_steps": 4, "batch_size": 8}))


def adapter_digest(folder: Path, stage: str = "grpo") -> str:
    path = folder / "runs" / "toy" / stage / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def logged(folder: Path) -> list[dict[str, Any]]:
    """The rows of log.jsonl, without what a clock says."""
    lines = (folder / "runs/toy/grpo/log.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "step_time"} for line in lines]


def even(answer: Completion) -> float:
    """A reward that even a toy earns some of: the share of tokens with even numbers."""
    return sum(number % 2 == 0 for number in answer.ids) / max(1, len(answer.ids))


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "iterations", "stop"), [("grpo", 1, 4), ("grpo", 3, 4), ("rloo", 2, 4)])
def test_it_goes_on_after_an_interruption_to_the_same_bytes(
    algorithm: str, iterations: int, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned(tmp_path)
    sampled: list[int] = []
    by_table = Rollouts._worth

    def worth(rollouts: Rollouts, answers: Any) -> Any:
        sampled.append(sum(one.logprob is not None for _, one in answers))  # and turns of the data
        return by_table(rollouts, answers)[0], [even(one) for _, one in answers]

    monkeypatch.setattr(Rollouts, "_worth", worth)
    settings = {
        "algorithm": algorithm,
        "iterations": iterations,
        "learning_rate": 3e-3,
        "max_steps": 12,
        "log_every": 2,
    }
    metrics = run_grpo(tmp_path, **settings)
    assert metrics["reference_gap_at_step_0"] == pytest.approx(0, abs=1e-5)
    assert metrics["samples"] == sum(sampled) == 12 // iterations * 16
    assert 0 < metrics["reward_last"] < 1  # a dozen steps of a toy are noise: whether it learns is not asked here
    # rloo's estimate, the mean log-ratio of samples, has either sign; grpo's has none that is negative.
    assert metrics["kl"] > 0 or (algorithm == "rloo" and metrics["kl"] != 0)
    assert {"validation_false_tool_call_rate", "validation_missed_call_rate"} <= metrics.keys()
    assert {"exact_call_rate", "false_tool_call_rate", "missed_call_rate", "n_call"} <= metrics.keys()
    whole, rows = adapter_digest(tmp_path), logged(tmp_path)
    assert whole != adapter_digest(tmp_path, "sft")

    (tmp_path / "runs/toy/grpo").rename(tmp_path / "grpo before")
    with toys.interrupted("toy/grpo", stop):
        run_grpo(tmp_path, **settings)
    assert run_grpo(tmp_path, **settings)["resumed_from_step"] == stop + 1  # between two rows
    assert adapter_digest(tmp_path) == whole
    assert logged(tmp_path) == rows


@pytest.mark.slow
def test_by_the_rules_it_logs_what_the_samples_did_and_its_adapter_is_merged(tmp_path: Path) -> None:
    tuned(tmp_path)
    metrics = run_grpo(tmp_path, max_steps=3, oversample=1, gold="none")
    assert metrics["samples"] == 3 * 8
    assert 0 <= metrics["groups_without_signal"] <= 1
    rows = logged(tmp_path)
    assert len(rows) == 3
    assert all({"reward", "kl", "entropy", "clip_ratio/region_mean", "sampled/points"} <= row.keys() for row in rows)
    assert any("sampled/missed_call_rate" in row for row in rows)
    assert any("sampled/false_tool_call_rate" in row for row in rows)
    assert rows[-1]["reward"] == pytest.approx(metrics["sampled_points"])
    settings = toys.toy_settings(tmp_path, "merge", tmp_path / "model", model=MODEL, merge={"requests": 4})
    assert execute("merge", settings)["adapter"] == "grpo"


@pytest.mark.slow
def test_in_4_bits_it_starts_at_its_reference_too(tmp_path: Path) -> None:
    model = {"quantization": "nf4", "micro_batch": 4}
    tuned(tmp_path, model)
    metrics = run_grpo(tmp_path, model, max_steps=2)
    assert metrics["steps"] == 2
    assert metrics["reference_gap_at_step_0"] == pytest.approx(0, abs=1e-5)
