"""Supervised fine-tuning: its settings, the order of its rows, its checkpoints; and, slow, whole runs on a toy."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from stages import _checkpoints, _training, sft
from stages._errors import Interrupted, UserError
from stages._job import Job, execute
from stages._training import LengthGrouped
from tests import toys


def test_an_epoch_has_every_row_once_and_the_same_seed_gives_the_same_order() -> None:
    lengths = [(number * 37) % 101 for number in range(500)]

    def order(seed: int, epoch: int) -> list[int]:
        sampler = LengthGrouped(lengths, micro=8, batch=16, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert sorted(order(0, 0)) == list(range(500))
    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_a_micro_batch_holds_rows_of_like_length_and_a_step_mixes_them() -> None:
    lengths = [(number * 37) % 400 for number in range(640)]
    order = list(LengthGrouped(lengths, micro=8, batch=32, seed=0))
    parts = [[lengths[row] for row in order[start : start + 8]] for start in range(0, 640, 8)]
    padded = sum(8 * max(part) for part in parts)
    assert padded < 1.1 * sum(lengths)
    steps = [max(max(part) for part in parts[start : start + 4]) for start in range(0, 80, 4)]
    assert min(steps) > 100  # no step has short rows alone


def job_for(folder: Path, **settings: Any) -> Job:
    model = types.SimpleNamespace(**{"micro_batch": 8, "activation_checkpointing": False, "quantization": "none"})
    model.dtype = "float32"
    stub = types.SimpleNamespace(name="sft", seed=0, folder=folder, settings=types.SimpleNamespace(model=model))
    stub.config = sft.Config(**settings)
    stub.say = lambda text: None
    return stub  # type: ignore[return-value]


def build(job: Job) -> Any:
    from trl import SFTConfig

    return _training.arguments(SFTConfig, job, job.config, learning_rate=1e-3)


def test_a_batch_is_accumulated_from_the_largest_parts_that_fit_and_divide_it(tmp_path: Path) -> None:
    for batch, parts in ((16, (8, 2)), (12, (6, 2)), (7, (7, 1)), (22, (2, 11))):
        args = build(job_for(tmp_path, batch_size=batch))
        assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == parts


@pytest.mark.parametrize(
    ("tokens", "size"),
    [([200, 312], 8), ([256, 257], 6), ([500, 600], 3), ([5000], 1)],
    ids=["2,048 tokens", "a few more", "three rows", "a row too long"],
)
def test_on_a_cpu_long_rows_are_accumulated(tokens: list[int], size: int) -> None:
    args = types.SimpleNamespace(use_cpu=True, per_device_train_batch_size=8, gradient_accumulation_steps=3)
    _training.fit_to_cpu(args, tokens)
    assert args.per_device_train_batch_size == size
    assert args.gradient_accumulation_steps * size == 24


def test_on_a_gpu_as_many_rows_as_the_model_says_are_computed_at_once() -> None:
    args = types.SimpleNamespace(use_cpu=False, per_device_train_batch_size=8, gradient_accumulation_steps=3)
    _training.fit_to_cpu(args, [5000])
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (8, 3)


def test_the_stages_learning_rate_goes_before_the_models(tmp_path: Path) -> None:
    assert build(job_for(tmp_path)).learning_rate == 1e-3
    assert build(job_for(tmp_path, learning_rate=5e-4)).learning_rate == 5e-4


def test_any_argument_of_trl_passes_and_a_misspelt_one_names_the_nearest(tmp_path: Path) -> None:
    assert build(job_for(tmp_path, trainer={"adam_beta2": 0.95})).adam_beta2 == 0.95
    with pytest.raises(UserError) as error:
        build(job_for(tmp_path, trainer={"adam_beta3": 0.95, "max_length": 5, "neftune_noise_alfa": 5}))
    assert error.value.lines == (
        "sft.trainer.adam_beta3: SFTConfig has no such argument; did you mean adam_beta2?",
        "sft.trainer.neftune_noise_alfa: SFTConfig has no such argument; did you mean neftune_noise_alpha?",
        "sft.trainer.max_length: say model.max_length=… instead",
    )


def test_a_value_trl_refuses_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sft: SFTConfig refuses these settings: .*sideways"):
        build(job_for(tmp_path, schedule="sideways"))


def test_what_needs_a_gpu_is_left_out_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_training, "device", lambda: "cpu")
    args = build(job_for(tmp_path, optimizer="paged_adamw_8bit", trainer={"activation_offloading": True}))
    assert (args.optim, args.activation_offloading) == ("adamw_8bit", False)


def composed(*overrides: str) -> Any:
    from stages._refusals import compose, settings_of
    from stages._schema import publish

    publish()
    return settings_of(*compose(overrides), overrides)


def test_the_lessons_recipe_composes_to_its_published_settings() -> None:
    settings = composed("experiment=lesson")
    block, model = settings.stage("sft"), settings.model
    assert (block.rank, block.alpha, block.dropout, block.epochs, block.learning_rate) == (16, 32, 0.05, 3, 2e-4)
    assert (block.batch_size, model.micro_batch, block.warmup, block.schedule) == (16, 8, 0.03, "cosine")
    assert (model.target_modules, model.dtype, model.quantization) == (["q_proj", "v_proj"], "bfloat16", "none")
    assert model.dialect == composed("experiment=lesson", "model=tiny").model.dialect == "router"


def test_the_notebook_recipe_composes_to_its_published_settings(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    settings = composed("experiment=notebook", f"data.train={tmp_path}/rows.jsonl")
    block, model = settings.stage("sft"), settings.model
    assert (block.rank, block.alpha, block.epochs, block.learning_rate, block.warmup) == (32, 32, 3, 2e-4, 5)
    assert (block.batch_size, model.micro_batch, model.max_length, block.log_every) == (4, 1, 1024, 1)
    assert block.optimizer == "paged_adamw_8bit"
    assert block.trainer == {"activation_offloading": True}
    assert (model.path, model.quantization, model.dialect) == ("CohereLabs/tiny-aya-global", "auto", "json")
    assert len(model.target_modules) == 7
    assert settings.data.format == "simple_tool_calling"


def test_the_fused_head_gives_the_same_loss_when_it_skips_positions_without_a_label(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch
    from trl.trainer import utils

    ids = torch.arange(60).view(2, 30)
    labels = ids.masked_fill(torch.arange(30) % 3 > 0, -100)
    losses = []
    for skip in (False, True):
        model = toys.toy_model("toy", 1024)
        utils.add_fused_lm_head(model)
        monkeypatch.setattr(utils, "_use_triton", lambda device: False)
        if skip:
            _training._project_labelled_positions_only()
        loss = model(input_ids=ids, labels=labels, fused_lm_head=True).loss
        loss.backward()
        losses.append((loss.item(), model.model.embed_tokens.weight.grad.norm().item()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / "checkpoints" / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "weights").write_text(f"at {step}")
    _checkpoints.seal(path)
    return path


def test_the_newest_whole_checkpoint_is_taken_and_broken_ones_are_not(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path, 20)
    checkpoint(tmp_path, 9)
    (checkpoint(tmp_path, 30) / "weights").write_text("changed since")
    (checkpoint(tmp_path, 40) / "weights").unlink()
    (tmp_path / "checkpoints" / "checkpoint-50").mkdir()
    assert _checkpoints.newest_checkpoint(job_for(tmp_path)) == whole
    assert sorted(path.name for path in whole.parent.iterdir()) == ["checkpoint-20", "checkpoint-9"]


def test_without_a_checkpoint_training_starts_at_the_beginning(tmp_path: Path) -> None:
    assert _checkpoints.newest_checkpoint(job_for(tmp_path)) is None


# ----- slow: whole runs -----

FAST = {"epochs": 2, "batch_size": 8, "log_every": 1, "dropout": 0.1}


def adapter_bytes(folder: Path) -> dict[str, str]:
    files = sorted((folder / "runs" / "toy" / "sft" / "adapter").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run_sft(folder: Path, checkpoint: Path, more: dict[str, Any] | None = None, **blocks: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return execute("sft", toys.toy_settings(folder, "sft", checkpoint, sft=FAST | (more or {}), **blocks))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.toy_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_same_command_gives_the_same_adapter_and_an_interrupted_one_too(
    quantization: str, toy: Path, tmp_path: Path
) -> None:
    model = {"quantization": quantization}
    metrics = run_sft(tmp_path / "one", toy, model=model)
    assert metrics["loss_last"] < 0.95 * metrics["loss_first"]
    assert metrics["validation_loss"] < metrics["loss_first"]
    assert metrics["rows"] == metrics["rows_kept"] == 30
    assert metrics["memory_peak_gib"] >= metrics["memory_before_gib"] > 0
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "rows.jsonl").write_bytes((tmp_path / "one" / "rows.jsonl").read_bytes())

    with toys.interrupted("toy/sft", 3, signal.SIGTERM):
        run_sft(tmp_path / "two", toy, model=model)
    again = run_sft(tmp_path / "two", toy, model=model)
    assert again["resumed_from_step"] in (3, 4)
    assert adapter_bytes(tmp_path / "two") == adapter_bytes(tmp_path / "one")
    logs = [
        [json.loads(line) for line in (tmp_path / name / "runs/toy/sft/log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    losses = [[(row["step"], row["loss"]) for row in log if "loss" in row] for log in logs]
    assert losses[0] == losses[1]
    assert not (tmp_path / "two" / "runs/toy/sft/checkpoints").exists()


@pytest.mark.slow
def test_an_interruption_after_the_last_step_trains_no_further(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> dict[str, Any]:
        raise Interrupted(signal.SIGTERM)

    cut = {"max_steps": 3, "schedule": "constant"}  # in the middle of an epoch
    run_sft(tmp_path / "one", toy, more=cut)
    with monkeypatch.context() as patched:
        patched.setattr(sft, "_validation_loss", stop)
        with pytest.raises(Interrupted):
            run_sft(tmp_path / "two", toy, more=cut)
    again = run_sft(tmp_path / "two", toy, more=cut)
    assert (again["steps"], again["resumed_from_step"]) == (3, 3)
    assert adapter_bytes(tmp_path / "two") == adapter_bytes(tmp_path / "one")


@pytest.mark.slow
def test_another_seed_gives_another_adapter(toy: Path, tmp_path: Path) -> None:
    run_sft(tmp_path / "one", toy)
    run_sft(tmp_path / "two", toy, seed=1)
    one, two = adapter_bytes(tmp_path / "one"), adapter_bytes(tmp_path / "two")
    assert one["adapter_model.safetensors"] != two["adapter_model.safetensors"]


@pytest.mark.slow
def test_rows_that_do_not_fit_stop_the_stage_before_anything_is_trained(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sft.max_dropped: \d+ of 30 rows"):
        run_sft(tmp_path / "one", toy, model={"max_length": 128})


@pytest.mark.slow
def test_the_notebook_recipe_runs_on_the_embedded_model(tmp_path: Path) -> None:
    rows = toys.ROOT.parent / "shared" / "samples" / "simple_tool_calling.jsonl"
    if not rows.exists():
        pytest.skip("the sample rows are not beside this checkout")
    words = ("experiment=notebook", "model=tiny", "run=notebook", f"data.train={rows}", f"runs_dir={tmp_path}")
    done = subprocess.run(
        [sys.executable, "train.py", *words], cwd=toys.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "activation_offloading is left out" in done.stdout
    metrics = json.loads((tmp_path / "notebook" / "sft" / "metrics.json").read_text())
    assert metrics["rows"] + metrics["validation_rows"] == 20
    assert metrics["loss_last"] < metrics["loss_first"]


@pytest.mark.slow
def test_the_lessons_recipe_runs_on_the_embedded_model(tmp_path: Path) -> None:
    words = ["experiment=lesson", "model=tiny", "run=lesson", "sft.max_steps=4", f"runs_dir={tmp_path}"]
    words += ["data.world.sft_rows=64", "data.world.validation_rows=8"]
    done = subprocess.run(
        [sys.executable, "train.py", *words], cwd=toys.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "lesson" / "sft" / "metrics.json").read_text())
    adapter = json.loads((tmp_path / "lesson" / "sft" / "adapter" / "adapter_config.json").read_text())
    assert (metrics["rows_kept"], metrics["steps"]) == (64, 4)
    assert (adapter["target_modules"], adapter["lora_dropout"]) == (["q_proj", "v_proj"], 0.05)
