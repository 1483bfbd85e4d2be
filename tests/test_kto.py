"""Preference training on single answers: rows, weights, changed prompts, check of the reference; slow, a toy run."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
import types
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from stages import _training, kto
from stages._errors import UserError
from stages._job import execute
from tests import toys


def pair(prompt: list[int], chosen: list[int], rejected: list[int]) -> dict[str, Any]:
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "margin": 1.0}


PAIRS = [
    pair([1, 2], [10, 3], [11, 3]),
    pair([1, 2], [10, 3], [12, 13, 3]),
    pair([4, 5, 6], [10, 3], [14, 3]),
    pair([7], [15, 3], [11, 3]),
]


def test_each_answer_to_a_prompt_is_a_row_once_with_its_side() -> None:
    rows = [(row["prompt_ids"], row["completion_ids"], row["label"]) for row in kto.answer_rows(PAIRS)]
    assert rows == [
        ([1, 2], [10, 3], True),
        ([1, 2], [11, 3], False),
        ([1, 2], [12, 13, 3], False),
        ([4, 5, 6], [10, 3], True),  # the same answer to another prompt
        ([4, 5, 6], [14, 3], False),
        ([7], [15, 3], True),
        ([7], [11, 3], False),
    ]


def test_answers_of_a_batch_change_prompts_and_each_is_used_once() -> None:
    answers = kto.answer_rows(PAIRS)
    turned = kto.mismatched(answers, answers)
    own = {tuple(row["prompt_ids"]): [] for row in turned}  # type: ignore[var-annotated]
    for row in turned:
        own[tuple(row["prompt_ids"])].append(row["KL_completion_ids"])
    assert own == {(1, 2): [[10, 3], [14, 3], [11, 3]], (4, 5, 6): [[15, 3], [10, 3]], (7,): [[11, 3], [12, 13, 3]]}
    everything = Counter(tuple(row["completion_ids"]) for row in answers)
    assert Counter(tuple(row["KL_completion_ids"]) for row in turned) == everything
    assert sorted(map(_known, turned)) == sorted(map(_known, answers))
    assert kto.mismatched(answers[::-1], answers) == turned


def _known(row: Any) -> tuple[Any, ...]:
    return tuple(row["prompt_ids"]), tuple(row["completion_ids"]), row["label"]


@pytest.mark.parametrize("batch", [slice(0, 1), slice(0, 2), slice(0, 4), slice(6, 7)])
def test_an_answer_without_another_prompt_in_its_batch_takes_one_from_elsewhere(batch: slice) -> None:
    answers = kto.answer_rows(PAIRS)
    given = {tuple(row["prompt_ids"]): [] for row in answers}  # type: ignore[var-annotated]
    for row in answers:
        given[tuple(row["prompt_ids"])].append(row["completion_ids"])
    for row in kto.mismatched(answers[batch], answers):
        foreign = [ids for prompt, rows in given.items() if list(prompt) != row["prompt_ids"] for ids in rows]
        assert row["KL_completion_ids"] in foreign


def test_answers_to_one_prompt_alone_are_refused_with_a_way_out() -> None:
    answers = kto.answer_rows(PAIRS)
    kto.check_prompts(answers[2:4])
    with pytest.raises(UserError, match=r"all 3 answers are to one prompt, .* kto.loss=apo_zero_unpaired"):
        kto.check_prompts(answers[:3])


@pytest.mark.parametrize(
    ("settings", "weight", "warns"),
    [
        ({}, 4 / 3, False),
        ({"undesirable_weight": 0.5}, 2 / 3, False),
        ({"desirable_weight": 1.7}, 1.7, False),
        ({"desirable_weight": 1.0}, 1.0, True),
        ({"desirable_weight": 2.0}, 2.0, True),
    ],
)
def test_both_sides_weigh_the_same_unless_told_and_a_lack_of_balance_is_said(
    settings: dict[str, float], weight: float, warns: bool
) -> None:
    said: list[str] = []
    job: Any = types.SimpleNamespace(say=said.append)
    sides = kto._weigh(job, kto.Config(**settings), kto.answer_rows(PAIRS))  # type: ignore[arg-type]
    assert (sides["desirable"], sides["undesirable"]) == (3, 4)
    assert sides["desirable_weight"] == pytest.approx(weight)
    assert len(said) == 1 + warns
    if warns:
        assert said[1].endswith("here kto.desirable_weight=1.33 to 1.78")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 7}, "multiple of 2"),
        ({"batch_size": 0}, "greater than or equal to 2"),
        ({"trainer": {"per_device_train_batch_size": 1}}, "per_device_train_batch_size cannot be set"),
        ({"trainer": {"precompute_ref_log_probs": True}}, "precompute_ref_log_probs cannot be set"),
        ({"loss": "bco"}, "'kto' or 'apo_zero_unpaired'"),
    ],
)
def test_settings_that_leave_an_answer_alone_in_its_batch_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        kto.Config(**settings)


@pytest.mark.parametrize(("batch", "micro", "computed"), [(32, 1, 2), (32, 4, 4), (14, 4, 2), (6, 32, 6)])
def test_two_answers_at_least_are_computed_at_once(batch: int, micro: int, computed: int, tmp_path: Path) -> None:
    from trl import KTOConfig

    model = types.SimpleNamespace(
        micro_batch=micro, dtype="float32", quantization="none", activation_checkpointing=False
    )
    job: Any = types.SimpleNamespace(
        name="kto", folder=tmp_path, seed=0, say=print, settings=types.SimpleNamespace(model=model)
    )
    args = _training.arguments(KTOConfig, job, kto.Config(batch_size=batch), 1e-4, at_once=2)
    assert args.per_device_train_batch_size == computed
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == batch


def test_the_losses_to_choose_from_are_those_of_the_installed_trl() -> None:
    from trl import KTOTrainer

    known = set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(KTOTrainer._compute_loss)))
    assert set(get_args(kto.Loss)) == known


WEIGHTS = {"desirable_weight": 1.5, "undesirable_weight": 0.5}


def trainer_of(folder: Path, loss: str = "kto", sft_weight: float = 0.0) -> tuple[Any, list[dict[str, Any]]]:
    """A trainer at step 0, and its answers."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, PeftModel, get_peft_model
    from trl import KTOConfig

    tokenizer = toys.toy_tokenizer()
    answers = kto.answer_rows(PAIRS)
    lora = LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear", task_type="CAUSAL_LM")
    torch.manual_seed(1)
    get_peft_model(toys.toy_model("qwen3", len(tokenizer)), lora).save_pretrained(folder / "adapter")
    model = PeftModel.from_pretrained(toys.toy_model("qwen3", len(tokenizer)), folder / "adapter", is_trainable=True)
    args = KTOConfig(
        output_dir=str(folder), loss_type=loss, beta=0.2, use_cpu=True, bf16=False, report_to="none",
        gradient_checkpointing=False, max_length=None, per_device_train_batch_size=7, **WEIGHTS,
    )  # fmt: skip
    lengths = [len(row["prompt_ids"]) + len(row["completion_ids"]) for row in answers]
    made = _training.ordered(kto.answer_trainer(answers, tokenizer.pad_token_id, sft_weight), lengths)
    return made(model=model, args=args, train_dataset=Dataset.from_list(answers), processing_class=tokenizer), answers


def logps(trainer: Any, prompt: list[int], completion: list[int], adapter: str) -> float:
    """The log-probability of a completion, row by row from plain logits."""
    import torch

    trainer.model.set_adapter(adapter)
    with torch.no_grad():
        logits = trainer.model(input_ids=torch.tensor([prompt + completion])).logits[0].float().log_softmax(-1)
    trainer.model.set_adapter("default")
    return sum(logits[len(prompt) - 1 + place, id_].item() for place, id_ in enumerate(completion))


@pytest.mark.parametrize("loss", ["kto", "apo_zero_unpaired"])
def test_the_trainer_computes_the_loss_of_the_paper_on_answers_as_they_are(loss: str, tmp_path: Path) -> None:
    trainer, answers = trainer_of(tmp_path, loss)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    assert trainer.compute_loss(trainer.model, dict(batch)).item() == pytest.approx((3 * 1.5 + 4 * 0.5) / 7 / 2)
    toys.moved(trainer.model)
    found = trainer.compute_loss(trainer.model, dict(batch)).item()

    def ratio(prompt: list[int], completion: list[int]) -> float:
        return logps(trainer, prompt, completion, "default") - logps(trainer, prompt, completion, "ref")

    turned = kto.mismatched(answers, answers)
    strange = [ratio(row["prompt_ids"], row["KL_completion_ids"]) for row in turned]
    z = max(0.0, sum(strange) / 7) if loss == "kto" else 0.0
    assert z > 0.1 or loss != "kto"
    losses = []
    for row in answers:
        gain = 0.2 * (ratio(row["prompt_ids"], row["completion_ids"]) - z)
        weight, side = (1.5, gain) if row["label"] else (0.5, -gain)
        losses.append(weight * (1 - 1 / (1 + math.exp(-side))))
    assert found == pytest.approx(sum(losses) / 7, abs=1e-5)


def test_the_desirable_answers_nll_is_added_by_its_weight(tmp_path: Path) -> None:
    trainer, answers = trainer_of(tmp_path, sft_weight=2.0)
    toys.moved(trainer.model)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    found = trainer.compute_loss(trainer.model, dict(batch)).item()
    desirable = [row for row in answers if row["label"]]
    nats = sum(-logps(trainer, row["prompt_ids"], row["completion_ids"], "default") for row in desirable)
    tokens = sum(len(row["completion_ids"]) for row in desirable)
    plain, _ = trainer_of(tmp_path)
    toys.moved(plain.model)
    without = plain.compute_loss(plain.model, dict(batch)).item()
    assert found - without == pytest.approx(2 * nats / tokens, abs=1e-5)
    assert nats > 1
    assert not trainer.model._forward_hooks, "nothing is left behind"

    undesirable = next(row for row in answers if not row["label"])
    batch = trainer._prepare_inputs(trainer.data_collator([undesirable, undesirable]))
    assert trainer.compute_loss(trainer.model, dict(batch)).item() == pytest.approx(
        plain.compute_loss(plain.model, dict(batch)).item()
    ), "where there is none, nothing is added"


def test_the_step_is_larger_beside_the_nll_and_nothing_else_says_so() -> None:
    assert [kto.Config(sft_weight=weight).step_factor for weight in (3.0, 0.0)] == [3.0, 1.0]


def test_a_policy_that_is_not_its_reference_is_refused_with_what_was_seen(tmp_path: Path) -> None:
    trainer, answers = trainer_of(tmp_path)
    seen = kto.check_reference(trainer, answers)
    assert seen["loss_at_step_0"] == pytest.approx((3 * 1.5 + 4 * 0.5) / 7 / 2, abs=1e-6)
    assert seen["loss_at_step_0"] == pytest.approx(seen["loss_expected_at_step_0"], abs=1e-6)
    assert (seen["reward_at_step_0"], seen["kl_at_step_0"]) == (0, 0)
    toys.moved(trainer.model)
    with pytest.raises(RuntimeError, match=r"the policy is not its reference: loss \d\.\d+ instead of 0\.464286"):
        kto.check_reference(trainer, answers)


# ----- slow: whole runs -----

MODEL = {"quantization": "none", "micro_batch": 4}


def run_kto(folder: Path, model: dict[str, Any] = MODEL, **more: Any) -> dict[str, Any]:
    blocks = {"pairs": {"samples": 2, "max_new_tokens": 24}, "evaluate": {"limit": 4, "max_new_tokens": 24}}
    own = {"epochs": 3, "batch_size": 4, "log_every": 1} | more
    return execute("kto", toys.toy_settings(folder, "kto", folder / "model", model=model, kto=own, **blocks))


def adapter_digest(folder: Path, stage: str = "kto") -> str:
    path = folder / "runs" / "toy" / stage / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_it_starts_at_its_reference_learns_goes_on_after_an_interruption_and_is_merged(tmp_path: Path) -> None:
    checkpoint = toys.toy_checkpoint(tmp_path / "model")
    execute("sft", toys.toy_settings(tmp_path, "sft", checkpoint, model=MODEL, sft={"epochs": 2, "batch_size": 8}))
    metrics = run_kto(tmp_path)
    assert metrics["loss_at_step_0"] == pytest.approx(metrics["loss_expected_at_step_0"], abs=1e-6)
    assert metrics["kl_at_step_0"] == metrics["reward_at_step_0"] == 0
    assert metrics["desirable"] * metrics["desirable_weight"] == pytest.approx(metrics["undesirable"])
    assert metrics["loss_last"] < metrics["loss_first"]
    assert {"validation_false_tool_call_rate", "validation_missed_call_rate"} <= metrics.keys()
    whole = adapter_digest(tmp_path)
    assert whole != adapter_digest(tmp_path, "sft")

    (tmp_path / "runs/toy/kto").rename(tmp_path / "kto before")
    with toys.interrupted("toy/kto", 2):
        run_kto(tmp_path)
    assert run_kto(tmp_path)["resumed_from_step"] in (2, 3)
    assert adapter_digest(tmp_path) == whole

    merge = {"requests": 4, "max_new_tokens": 24}
    merged = execute("merge", toys.toy_settings(tmp_path, "merge", checkpoint, model=MODEL, merge=merge))
    assert merged["adapter"] == "kto"
    few = {"limit": 4, "max_new_tokens": 24}
    found = execute("evaluate", toys.toy_settings(tmp_path, "evaluate", checkpoint, model=MODEL, evaluate=few))
    assert list(found) == ["base", "sft", "kto", "merged"]
    assert all(fields.keys() == found["base"].keys() for fields in found.values())
    manifest = json.loads((tmp_path / "runs/toy/evaluate/manifest.json").read_text())
    assert manifest["facts"]["merged_from"] == "kto"


@pytest.mark.slow
def test_in_4_bits_it_starts_at_its_reference_too_two_answers_at_a_time(tmp_path: Path) -> None:
    model = {"quantization": "nf4", "micro_batch": 1}
    checkpoint = toys.toy_checkpoint(tmp_path / "model")
    execute("sft", toys.toy_settings(tmp_path, "sft", checkpoint, model=model, sft={"max_steps": 2, "batch_size": 4}))
    metrics = run_kto(tmp_path, model, max_steps=2)
    assert metrics["steps"] == 2
    assert metrics["loss_at_step_0"] == pytest.approx(metrics["loss_expected_at_step_0"], abs=1e-6)
    assert metrics["kl_at_step_0"] == metrics["reward_at_step_0"] == 0
    assert adapter_digest(tmp_path) != adapter_digest(tmp_path, "sft")
