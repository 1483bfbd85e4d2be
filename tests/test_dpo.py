"""Preference training: pairs as ids, the check of the reference, measuring on the way; and, slow, runs on a toy."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import math
import random
import re
import shutil
import types
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from pydantic import ValidationError

from data import dialects
from data.transcript import Expected, Message, Request, Tool, ToolCall
from stages import _checkpoints, _preference, _sampling, _training, dpo
from stages._errors import UserError
from stages._guard import missed_calls
from stages._job import execute
from stages._pair_trainer import pair_trainer, reward_aware, trl_losses
from stages._reference import know_reference, reference_logps
from stages._shared_prompt import share_prompts
from tests import toys

TOOL = Tool("get_weather", "Weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
REQUEST = Request("r", "", (TOOL,), (Message("user", "What is the weather in Oslo?"),), Expected("call"))
CALL = Message("assistant", tool_calls=(ToolCall("get_weather", {"city": "Oslo"}),))


def pair(tokenizer: Any, **changes: Any) -> dict[str, Any]:
    native = dialects.get("native")
    tools, prompt = native.show(REQUEST.tools, REQUEST.messages)
    chosen = _sampling.completion_of(tokenizer, native, REQUEST, CALL)
    return {
        "id": "r",
        "prompt": prompt,
        "tools": tools,
        "chosen": chosen,
        "rejected": "No idea.",
        "margin": 20.0,
    } | changes


def test_a_pair_trains_exactly_what_generation_would_read_and_write() -> None:
    tokenizer, native = toys.toy_tokenizer(), dialects.get("native")
    (row,), counts = _preference.pair_rows(tokenizer, [pair(tokenizer)], max_length=512)
    assert row["prompt_ids"] == _sampling.encode(tokenizer, _sampling.prompt_of(tokenizer, native, REQUEST))
    tools, chat = native.show(REQUEST.tools, (*REQUEST.messages, CALL))
    whole = _sampling.encode(tokenizer, _sampling.render(tokenizer, tools, chat, prompt=False))
    chosen = row["prompt_ids"] + row["chosen_ids"]
    assert chosen == whole[: len(chosen)]
    assert tokenizer.decode(whole[len(chosen) :]) == "\n"
    assert tokenizer.decode(row["rejected_ids"]) == "No idea.<|im_end|>"
    assert counts.kept == 1


def test_of_a_rejected_answer_so_many_tokens_count_from_where_it_parts_from_the_chosen_one() -> None:
    tokenizer = toys.toy_tokenizer()
    both = pair(tokenizer, chosen="It is 2.", rejected="It is 12 or so.")

    def row(tokens: int | None) -> Any:
        return _preference.pair_rows(tokenizer, [both], max_length=512, rejected_tokens=tokens)[0][0]

    whole = row(None)
    assert tokenizer.decode(whole["rejected_ids"]) == "It is 12 or so.<|im_end|>"
    assert tokenizer.decode(row(1)["rejected_ids"]) == "It is 1"
    assert len(row(3)["rejected_ids"]) == len(row(1)["rejected_ids"]) + 2
    assert row(99) == whole
    assert all(row(1)[side] == whole[side] for side in ("prompt_ids", "chosen_ids"))


def test_pairs_that_are_too_long_are_counted_and_equal_sides_are_an_error() -> None:
    tokenizer = toys.toy_tokenizer()
    _, counts = _preference.pair_rows(
        tokenizer, [pair(tokenizer), pair(tokenizer, rejected="No " * 400)], max_length=512
    )
    assert (counts.kept, counts.too_long) == (1, 1)
    with pytest.raises(UserError, match=r"dpo.max_dropped: 1 of 2 rows"):
        counts.check(0.1, "dpo.max_dropped")
    with pytest.raises(ValueError, match="the same tokens"):
        _preference.pair_rows(tokenizer, [pair(tokenizer, chosen="No idea.")], max_length=512)


def test_every_loss_has_a_weight() -> None:
    with pytest.raises(ValidationError, match="2 weights for 1 losses"):
        dpo.Config(loss=["sigmoid"], loss_weights=[1.0, 0.2])
    assert dpo.Config(loss=["sigmoid"], loss_weights=[1.0]).weights == [1.0]
    assert dpo.Config(loss=["reward_aware", "sft"]).weights == [1.0, 3.0]
    assert [dpo.Config(loss=names).step_factor for names in (["sigmoid", "sft"], ["sigmoid"])] == [3.0, 1.0]


def test_where_the_reference_comes_from_is_not_for_trls_arguments_to_say() -> None:
    with pytest.raises(ValidationError, match="precompute_ref_log_probs cannot be set"):
        dpo.Config(trainer={"precompute_ref_log_probs": False})


def test_the_losses_to_choose_from_are_those_of_the_installed_trl_and_ours() -> None:
    from trl import DPOTrainer

    known = set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer._compute_loss)))
    assert set(get_args(dpo.Loss)) == known | {"reward_aware"}


def test_reward_aware_is_the_divergence_of_the_two_margins() -> None:
    import torch

    implicit, target = torch.tensor([0.0, 2.0, -1.0], requires_grad=True), torch.tensor([2.0, 2.0, 0.5])
    losses = reward_aware(implicit, target)
    for place, (d, g) in enumerate(((0.0, 2.0), (2.0, 2.0), (-1.0, 0.5))):
        p, q = 1 / (1 + math.exp(-g)), 1 / (1 + math.exp(-d))
        assert losses[place].item() == pytest.approx(
            p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)), abs=1e-6
        )
    losses.sum().backward()
    # d/dd KL = sigma(d) - sigma(g): nothing pulls where the margins agree.
    assert implicit.grad is not None
    assert implicit.grad.tolist() == pytest.approx((torch.sigmoid(implicit) - torch.sigmoid(target)).tolist(), abs=1e-6)


def trainer_of(
    folder: Path, loss: list[str], weights: list[float], share: bool, reference: bool = False, **aware: float
) -> tuple[Any, Any]:
    """A trainer whose policy has moved away from its reference, which it knows from its rows or computes itself, and
    one batch of it.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig, PeftModel, get_peft_model
    from trl import DPOConfig

    tokenizer = toys.toy_tokenizer()
    rows, _ = _preference.pair_rows(
        tokenizer, [pair(tokenizer), pair(tokenizer, rejected="No.", margin=3.0)], max_length=512
    )
    lora = LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear", task_type="CAUSAL_LM")
    torch.manual_seed(1)
    get_peft_model(toys.toy_model("qwen3", len(tokenizer)), lora).save_pretrained(folder / "adapter")
    model = PeftModel.from_pretrained(toys.toy_model("qwen3", len(tokenizer)), folder / "adapter", is_trainable=True)
    names, sizes = trl_losses(loss, weights)
    args = DPOConfig(
        output_dir=str(folder), loss_type=names, loss_weights=sizes, beta=0.1, use_cpu=True, bf16=False,
        report_to="none", gradient_checkpointing=False, max_length=None,
    )  # fmt: skip
    trainer = pair_trainer(**aware)(
        model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    toys.moved(model)
    assert not share or share_prompts(trainer.model) is None
    if reference:
        know_reference(job_of(folder), trainer, rows)
    return trainer, trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def job_of(folder: Path) -> Any:
    """What stages/_reference.py asks of a job."""
    settings = toys.toy_settings(folder, "dpo", toys.toy_checkpoint(folder / "model"), pairs={}, evaluate={}, dpo={})
    notes: dict[str, Any] = {}
    return types.SimpleNamespace(
        settings=settings, config=settings.stage("dpo"), cache=folder / "cache", parent=lambda _: folder, notes=notes,
        say=lambda text: notes.setdefault("said", []).append(text), record=notes.update,
        progress=lambda items, *_: items,
    )  # fmt: skip


def loss_and_gradient(trainer: Any, batch: Any) -> tuple[float, Any]:
    import torch

    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    gradients = [one.grad.flatten() for one in trainer.model.parameters() if one.requires_grad]
    return loss.item(), torch.cat(gradients)


@pytest.mark.parametrize("reference", [False, True])
def test_prompts_and_references_computed_once_give_trls_loss_and_gradient(tmp_path: Path, reference: bool) -> None:
    import torch

    plain, shared = (
        loss_and_gradient(*trainer_of(tmp_path, ["sigmoid", "sft"], [1.0, 0.2], share=ours, reference=ours & reference))
        for ours in (False, True)
    )
    assert plain[0] != pytest.approx(math.log(2), abs=1e-3)
    assert shared[0] == pytest.approx(plain[0], abs=1e-5)
    assert torch.allclose(shared[1], plain[1], atol=1e-5)


def test_each_pair_is_put_to_the_reference_once_and_gets_the_same_number_in_any_company(tmp_path: Path) -> None:
    tokenizer = toys.toy_tokenizer()
    answers = ("No.", "No idea.", "It rains in Oslo, I think, and it will for a while.")
    rows, _ = _preference.pair_rows(tokenizer, [pair(tokenizer, rejected=one) for one in answers], max_length=512)
    trainer, _ = trainer_of(tmp_path, ["sigmoid"], [1.0], share=True)

    job, asked = job_of(tmp_path / "one"), []
    compute = trainer.compute_ref_log_probs
    trainer.compute_ref_log_probs = lambda model, batch: asked.append(batch) or compute(model, batch)
    first = reference_logps(job, trainer, [rows[0], rows[1], rows[0]])
    assert first[0] == first[2] != first[1]
    assert job.notes["reference_computed"] == len(asked) == 2
    again = reference_logps(job, trainer, [rows[2], rows[1]])
    assert job.notes["said"] == ["1 of 2 pairs have their reference already"]
    assert (job.notes["reference_computed"], len(asked)) == (1, 3)
    assert again[1] == first[1]

    other = job_of(tmp_path / "other")
    assert reference_logps(other, trainer, rows) == [first[0], first[1], again[0]]
    job.config.trainer["ld_alpha"] = 0.5
    reference_logps(job, trainer, rows[:1])
    assert len(list(job.cache.glob("reference-*.jsonl"))) == 2


@pytest.mark.parametrize("reference", [False, True])
def test_the_trainer_adds_reward_aware_from_the_margins_of_its_rows(tmp_path: Path, reference: bool) -> None:
    import torch

    trainer, batch = trainer_of(
        tmp_path, ["reward_aware", "sft"], [0.5, 0.2], share=True, reference=reference, weight=0.5, scale=0.3
    )
    assert sorted(batch["margin"].tolist()) == [3.0, 20.0]
    margins = batch["margin"].clone()
    loss = trainer.compute_loss(trainer.model, dict(batch)).item()
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    with torch.no_grad():
        logps = trainer.model(**inputs, labels=labels, fused_lm_head=True).log_probs
        reference = trainer.compute_ref_log_probs(trainer.model, batch)
    chosen, rejected = logps.sum(1).chunk(2)
    implicit = 0.1 * ((chosen - reference[0]) - (rejected - reference[1]))
    nll = -logps.chunk(2)[0].sum() / (labels.chunk(2)[0] != -100).sum()
    assert loss == pytest.approx((0.5 * reward_aware(implicit, 0.3 * margins).mean() + 0.2 * nll).item(), abs=1e-5)


def test_measuring_missed_calls_leaves_a_model_in_training_as_it_was(tmp_path: Path) -> None:
    import torch

    trainer, batch = trainer_of(tmp_path, ["sigmoid", "sft"], [1.0, 0.2], share=True)
    model = trainer.model.train()
    backbone = model.get_base_model().base_model
    said: list[str] = []
    blocks = {"pairs": {}, "dpo": {}, "evaluate": {"max_new_tokens": 8}}
    settings = toys.toy_settings(tmp_path, "dpo", toys.toy_checkpoint(tmp_path / "model"), **blocks)
    job: Any = types.SimpleNamespace(settings=settings, say=said.append)
    measure = missed_calls(job, trainer, toys.toy_tokenizer(), 3)
    assert measure is not None

    def state() -> Any:
        flags = [(name, one.training) for name, one in model.named_modules()]
        trained = [name for name, one in model.named_parameters() if one.requires_grad]
        return flags, trained, model.active_adapter, backbone.forward, random.getstate(), torch.get_rng_state().tolist()

    before = state(), loss_and_gradient(trainer, dict(batch))
    trainer.model.zero_grad()
    rate = measure()
    assert state() == before[0]
    loss, gradient = loss_and_gradient(trainer, dict(batch))
    assert loss == before[1][0]
    assert torch.equal(gradient, before[1][1])
    assert rate == 1.0  # random weights do not call
    assert said == []


# ----- slow: whole runs -----


class Tuned(NamedTuple):
    """A run that has had its supervised fine-tuning."""

    folder: Path
    quantization: str


BALANCED = {"loss_weights": [1.0, 1.0], "epochs": 6}  # few pairs: the preference is to be seen beside the NLL
FAST = {"epochs": 3, "batch_size": 4, "log_every": 1, "trainer": {"logging_first_step": True}}


def run_dpo(folder: Path, tuned: Tuned, **more: Any) -> dict[str, Any]:
    blocks = {"pairs": {"samples": 2, "max_new_tokens": 24}, "evaluate": {"limit": 4, "max_new_tokens": 24}}
    model = {"quantization": tuned.quantization, "micro_batch": 4}
    return execute(
        "dpo", toys.toy_settings(folder, "dpo", tuned.folder / "model", model=model, dpo=FAST | more, **blocks)
    )


@pytest.fixture(scope="module", params=["none", "nf4"])
def tuned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder = tmp_path_factory.mktemp(f"tuned-{request.param}")
    checkpoint = toys.toy_checkpoint(folder / "model")
    model = {"quantization": request.param}
    execute("sft", toys.toy_settings(folder, "sft", checkpoint, model=model, sft={"epochs": 2, "batch_size": 8}))
    return Tuned(folder, request.param)


def copied(tuned: Tuned, folder: Path) -> Path:
    """The run as it was after its fine-tuning, to go on from anew."""
    shutil.copytree(tuned.folder / "runs", folder / "runs", ignore=shutil.ignore_patterns("dpo", "reference-*"))
    shutil.copy(tuned.folder / "rows.jsonl", folder)
    return folder


def adapter_digest(folder: Path, stage: str = "dpo") -> str:
    path = folder / "runs" / "toy" / stage / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("reference", [None, "cached"])
def test_it_starts_at_its_reference_learns_and_can_be_interrupted(
    tuned: Tuned, tmp_path: Path, reference: str | None
) -> None:
    folder, other = copied(tuned, tmp_path / "folder"), copied(tuned, tmp_path / "other")
    how = BALANCED | {"reference": reference}
    metrics = run_dpo(folder, tuned, **how)
    assert metrics["loss_at_step_0"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["margin_at_step_0"] == 0
    assert metrics["accuracy"] > 0.5
    assert metrics["margin"] > 0
    assert {"validation_false_tool_call_rate", "validation_missed_call_rate"} <= metrics.keys()
    assert adapter_digest(folder) != adapter_digest(folder, "sft")

    with toys.interrupted("toy/dpo", 2):
        run_dpo(other, tuned, **how)
    checkpoints = sorted((other / "runs/toy/dpo/checkpoints").glob("checkpoint-*/complete.json"))
    assert checkpoints
    assert "rng_state.pth" in json.loads(checkpoints[-1].read_text())
    again = run_dpo(other, tuned, **how)
    assert again["resumed_from_step"] in (2, 3)
    assert adapter_digest(other) == adapter_digest(folder)


@pytest.mark.slow
@pytest.mark.parametrize("tuned", ["none"], indirect=True)
def test_another_training_on_the_same_pairs_takes_what_the_reference_said(tuned: Tuned, tmp_path: Path) -> None:
    folder = copied(tuned, tmp_path)

    def facts(**how: Any) -> dict[str, Any]:
        run_dpo(folder, tuned, epochs=1, **how)
        return dict(json.loads((folder / "runs/toy/dpo/manifest.json").read_text())["facts"])

    assert "reference" not in facts()
    assert not list((folder / "runs/toy/cache").glob("reference-*"))
    first = facts(reference="cached")
    assert first["reference_computed"] > 0
    assert facts(reference="cached", beta=0.2) == first | {"reference_computed": 0}


@pytest.mark.slow
def test_a_reference_that_is_the_base_is_refused_with_what_was_seen(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer import dpo_trainer

    monkeypatch.setattr(dpo_trainer, "use_adapter", lambda model, adapter_name: model.disable_adapter())
    with pytest.raises(RuntimeError, match=r"the policy is not its reference: loss \d\.\d+ instead of ln 2 = 0.693147"):
        run_dpo(copied(tuned, tmp_path), tuned, epochs=1)


@pytest.mark.slow
@pytest.mark.parametrize("tuned", ["nf4"], indirect=True)  # without 4 bits TRL rounds nothing
def test_adapters_that_trl_rounded_to_bfloat16_are_refused(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_training, "adapters_stay_float32", lambda model: contextlib.nullcontext())
    # What is computed in float32 shows the rounding as a gap to the reference, before the dtype is looked at.
    seen = r"lora_A.default.weight is torch.bfloat16: adapters train in float32|the policy is not its reference"
    with pytest.raises(RuntimeError, match=seen):
        run_dpo(copied(tuned, tmp_path), tuned, epochs=1)


def tensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path / "adapter_model.safetensors")


# Chosen answers are unlearnt, so that steps cost them more and more.
RUINOUS: dict[str, Any] = {
    "loss": ["sft"], "loss_weights": [-1.0], "learning_rate": 1e-3, "schedule": "constant", "epochs": 6,
    "guard_drop_share": None,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("tuned", ["none"], indirect=True)
def test_a_guard_that_stops_keeps_the_weights_of_the_last_good_step_also_when_resumed(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, again = copied(tuned, tmp_path / "other"), copied(tuned, tmp_path / "again")
    with monkeypatch.context() as patched:
        patched.setattr(_checkpoints, "forget_checkpoints", lambda job: None)
        run_dpo(other, tuned, **RUINOUS, guard="off", save_every=1, trainer={"save_total_limit": None})
    rows = [json.loads(line) for line in (other / "runs/toy/dpo/log.jsonl").read_text().splitlines()]
    lost = [-row["rewards/chosen"] / dpo.Config().beta for row in rows if "rewards/chosen" in row]
    guarded = RUINOUS | {"guard": "stop", "guard_drop": 1.01 * max(lost[:3])}  # which machines disagree about

    folder = copied(tuned, tmp_path / "stopped")
    metrics = run_dpo(folder, tuned, **guarded)
    tripped, kept = metrics["guard_chosen_drop_step"], metrics["kept_step"]
    assert metrics["steps"] == tripped
    assert kept == tripped - 2 > 0  # the row of a step tells of the weights before it
    good, found = (
        tensors(other / f"runs/toy/dpo/checkpoints/checkpoint-{kept}"),
        tensors(folder / "runs/toy/dpo/adapter"),
    )
    assert good.keys() == found.keys()
    assert all((good[name] == found[name]).all() for name in good)
    manifest = json.loads((folder / "runs/toy/dpo/manifest.json").read_text())
    assert manifest["status"] == "done"
    assert manifest["facts"]["guard"]["action"] == "stop"
    assert manifest["facts"]["guard"]["tripped"]["chosen_drop"]["step"] == tripped

    with toys.interrupted("toy/dpo", kept):  # seen after the next step
        run_dpo(again, tuned, **guarded)
    resumed = run_dpo(again, tuned, **guarded)
    assert resumed["resumed_from_step"] == tripped - 1
    assert (resumed["guard_chosen_drop_step"], resumed["kept_step"]) == (tripped, kept)
    assert adapter_digest(again) == adapter_digest(folder)


@pytest.mark.slow
def test_measuring_at_every_step_changes_no_byte_of_the_adapter(tuned: Tuned, tmp_path: Path) -> None:
    plain, watched = copied(tuned, tmp_path / "plain"), copied(tuned, tmp_path / "watched")
    run_dpo(plain, tuned, epochs=1, guard="off")
    metrics = run_dpo(watched, tuned, epochs=1, guard="warn", guard_every=1, guard_requests=3)
    assert metrics["guard_missed_rate"] is not None
    logged = [json.loads(line) for line in (watched / "runs/toy/dpo/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged if "guard/missed_call_rate" in row] == list(range(1, metrics["steps"] + 1))
    assert adapter_digest(watched) == adapter_digest(plain) != adapter_digest(plain, "sft")


@pytest.mark.slow
@pytest.mark.parametrize("tuned", ["none"], indirect=True)
def test_a_second_round_samples_from_the_first_ones_policy_and_is_resumed_where_it_was(
    tuned: Tuned, tmp_path: Path
) -> None:
    once, twice, again = (copied(tuned, tmp_path / name) for name in ("once", "twice", "again"))
    run_dpo(once, tuned)
    run_dpo(twice, tuned, rounds=2)
    assert adapter_digest(twice, "dpo/rounds/1/dpo") == adapter_digest(once)
    assert adapter_digest(twice) != adapter_digest(once)
    place = twice / "runs/toy/dpo/rounds/2/pairs"
    parents = json.loads((place / "manifest.json").read_text())["parents"]
    assert parents["sft"]["path"] == "dpo/rounds/1/dpo"
    assert (place / "candidates.jsonl").read_bytes() != (twice / "runs/toy/pairs/candidates.jsonl").read_bytes()

    with toys.interrupted("toy/dpo", 2):
        run_dpo(again, tuned, rounds=2)
    first = again / "runs/toy/dpo/rounds/1/dpo/manifest.json"
    before = first.read_bytes()
    assert run_dpo(again, tuned, rounds=2)["resumed_from_step"] in (2, 3)
    assert first.read_bytes() == before
    assert adapter_digest(again) == adapter_digest(twice)
