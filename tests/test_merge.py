"""The merge and its check; and, slow, the whole chain on a toy of every architecture that a preset names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from stages import merge
from stages._errors import UserError
from stages._job import execute
from stages._settings import RootConfig, Settings
from tests import toys

GOOD = {"max_logit_difference": 1e-6, "greedy_agreement": 1.0, "max_logit_change_from_base": 0.5}


def test_a_faithful_merge_passes() -> None:
    merge.check(GOOD, tolerance=1e-3, agreement=0.95)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_logit_difference": 0.2}, r"logits differ by 0.2 \(merge.tolerance 0.001\)"),
        ({"max_logit_difference": float("nan")}, "logits differ by nan"),
        ({"greedy_agreement": 0.9}, r"90.0% of the greedy answers agree \(merge.agreement 95%\)"),
        ({"max_logit_change_from_base": 0.0}, "the adapter changed nothing"),
    ],
)
def test_a_merge_that_is_another_model_or_the_base_is_refused(change: dict[str, float], said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        merge.check(GOOD | change, tolerance=1e-3, agreement=0.95)


@pytest.mark.parametrize(
    ("named", "there", "read"),
    [
        (None, {"sft"}, {"sft"}),
        (None, {"sft", "kto"}, {"sft", "kto"}),
        (None, {"sft", "dpo", "kto"}, {"sft", "dpo"}),
        (None, {"sft", "grpo"}, {"sft", "grpo"}),
        ("kto", {"sft", "dpo", "kto"}, {"sft", "kto"}),
        ("sft", {"sft", "dpo"}, {"sft"}),
    ],
)
def test_one_adapter_is_merged_dpo_before_kto_before_sft_unless_named(
    named: Any, there: set[str], read: set[str]
) -> None:
    settings = Settings("merge", RootConfig(run="mine"), {"merge": merge.Config(adapter=named)})
    above = {stage: Path(stage) for stage in there}
    merge.refuse(settings, above)
    assert merge.reads(settings, above) == read


def test_an_adapter_that_is_named_and_not_there_says_what_to_run_first() -> None:
    settings = Settings("merge", RootConfig(run="mine"), {"merge": merge.Config(adapter="kto")})
    with pytest.raises(UserError, match=r"^run first: python train\.py stage=kto run=mine$"):
        merge.refuse(settings, {"sft": Path(), "dpo": Path()})


class Answer(NamedTuple):
    text: str
    outcome: str = ""

    @property
    def completion(self) -> Answer:
        return self

    judgement = completion


def test_differences_are_taken_over_all_requests_and_positions() -> None:
    import torch

    before = {"logits": [torch.zeros(2, 3), torch.zeros(1, 3)], "base_logits": [torch.ones(2, 3), torch.ones(1, 3)]}
    after: dict[str, Any] = {"logits": [torch.zeros(2, 3), torch.tensor([[0.0, -0.9, 0.0]])]}
    before["answers"] = [Answer("a", "right_answer"), Answer("b", "empty")]  # type: ignore[list-item]
    after["answers"] = [Answer("a", "right_answer"), Answer("c", "empty")]
    results = merge.compare(before, after)
    assert results["max_logit_difference"] == pytest.approx(0.9)
    assert results["mean_logit_difference"] == pytest.approx(0.1)
    assert results["max_logit_change_from_base"] == pytest.approx(1.9)
    assert (results["greedy_agreement"], results["outcome_agreement"]) == (0.5, 1.0)


# ----- slow: whole runs -----

SETTINGS: dict[str, dict[str, Any]] = {
    "sft": {"epochs": 2, "batch_size": 8},
    "pairs": {"samples": 2, "max_new_tokens": 24},
    "dpo": {"batch_size": 4, "log_every": 1},
    "evaluate": {"limit": 4, "max_new_tokens": 24},
    "merge": {"requests": 4, "max_new_tokens": 24},
}
RUNS_WITH = {"sft": ("sft",), "dpo": ("pairs", "dpo", "evaluate"), "merge": ("merge",)}


def chain(folder: Path, checkpoint: Path, model: dict[str, Any], last: str = "merge", **more: Any) -> dict[str, Any]:
    """Run sft, dpo and merge in process; returns the metrics of the last."""
    metrics: dict[str, Any] = {}
    for stage, blocks in RUNS_WITH.items():
        chosen = {block: SETTINGS[block] | more.get(block, {}) for block in blocks}
        metrics = execute(stage, toys.toy_settings(folder, stage, checkpoint, model=model, **chosen))
        if stage == last:
            break
    return metrics


# Each preset's own settings on a toy of its architecture; none of these weights is real, the code that moves them is.
PRESETS = {
    "qwen3_0_6b": ("qwen3", "nf4"),
    "qwen3_4b": ("qwen3", "none"),
    "llama3_2_1b": ("llama3_2", "nf4"),
    "smollm2_360m": ("smollm2", "none"),
    "gemma3_270m": ("gemma3", "nf4"),
    "tiny_aya": ("tiny_aya", "nf4"),
}


def test_every_preset_is_run_on_a_toy() -> None:
    names = {path.stem for path in (toys.ROOT / "conf" / "model").glob("*.yaml")}
    assert names - {"tiny", "tiny_student"} == set(PRESETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_the_chain_runs_with_a_presets_settings_on_a_toy_of_its_architecture(name: str, tmp_path: Path) -> None:
    family, quantization = PRESETS[name]
    preset = yaml.safe_load((toys.ROOT / "conf" / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    checkpoint = toys.toy_checkpoint(tmp_path / "model", family)
    own = preset | {"path": str(checkpoint), "quantization": quantization, "micro_batch": 4, "learning_rate": 3e-3}
    metrics = chain(tmp_path, checkpoint, own)
    assert metrics["adapter"] == "dpo"
    assert metrics["max_logit_difference"] < 1e-4
    assert metrics["greedy_agreement"] == metrics["outcome_agreement"] == 1
    assert metrics["max_logit_change_from_base"] > 1e-3
    alone(tmp_path / "runs" / "toy" / "merge" / "model", preset.get("template_variables", {}))


@pytest.mark.gpu
def test_the_chain_runs_in_4_bits_on_a_gpu_with_paged_8_bit_states(tmp_path: Path) -> None:
    checkpoint = toys.toy_checkpoint(tmp_path / "model")
    metrics = chain(tmp_path, checkpoint, {"quantization": "auto", "activation_checkpointing": True})
    assert metrics["max_logit_difference"] < metrics["tolerance"]
    sft = json.loads((tmp_path / "runs/toy/sft/metrics.json").read_text())
    assert sft["memory_kind"] == "of GPU memory reserved"
    assert sft["memory_peak_gib"] >= sft["memory_before_gib"] > 0
    alone(tmp_path / "runs" / "toy" / "merge" / "model", {})


def alone(folder: Path, variables: dict[str, Any]) -> None:
    """The merged folder loads with transformers alone, as plain weights that end their turns."""
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        assert not [name for name in weights.keys() if "lora" in name or "absmax" in name]  # noqa: SIM118
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True)["input_ids"]
    assert ids
    assert all(f"set {name} =" in tokenizer.chat_template for name in variables)
    from stages._sampling import turn_end

    assert turn_end(tokenizer).ids[0] in model.generation_config.eos_token_id


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has come as far as preference training, on a 4-bit base."""
    folder = tmp_path_factory.mktemp("tuned")
    chain(folder, toys.toy_checkpoint(folder / "model"), {"quantization": "nf4"}, last="dpo")
    return folder


def merged(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    block = SETTINGS["merge"] | settings
    return execute(
        "merge", toys.toy_settings(folder, "merge", folder / "model", model={"quantization": "nf4"}, merge=block)
    )


@pytest.mark.slow
def test_weights_stored_in_bfloat16_are_plain_and_within_their_wider_tolerance(tuned: Path) -> None:
    metrics = merged(tuned, {"dtype": "bfloat16"})
    assert metrics["dtype"] == "bfloat16"
    assert 1e-5 < metrics["max_logit_difference"] < metrics["tolerance"]
    config = json.loads((tuned / "runs/toy/merge/model/config.json").read_text())
    assert config["dtype"] == "bfloat16"


@pytest.mark.slow
def test_a_merge_into_4_bit_weights_would_be_caught(tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages import _model

    plain = _model.load_base

    def original_weights(config: Any, training: bool = False) -> Any:
        """The mistake: the adapter put into the original weights, which it was not trained on."""
        return plain(config.model_copy(update={"quantization": "none"}), training)

    def merge_wrongly(job: Any, adapter: Path, folder: Path, tokenizer: Any) -> str:
        with monkeypatch.context() as patched:
            patched.setattr(_model, "load_base", original_weights)
            patched.setattr(_model, "is_quantized", lambda config: False)
            return right(job, adapter, folder, tokenizer)

    right = merge._merge
    monkeypatch.setattr(merge, "_merge", merge_wrongly)
    with pytest.raises(RuntimeError, match=r"the merged model is not base \+ adapter"):
        merged(tuned, {"requests": 5})
    manifest = json.loads((tuned / "runs/toy/merge/manifest.json").read_text())
    assert manifest["status"] == "failed"


@pytest.mark.slow
def test_an_adapter_of_zeros_is_refused(tuned: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from stages._manifest import outputs_of

    shutil.copytree(tuned / "runs" / "toy" / "sft", tmp_path / "runs" / "toy" / "sft")
    shutil.copy(tuned / "rows.jsonl", tmp_path)
    sft = tmp_path / "runs" / "toy" / "sft"
    path = sft / "adapter" / "adapter_model.safetensors"
    save_file({name: weight * 0 for name, weight in load_file(path).items()}, path, metadata={"format": "pt"})
    manifest = json.loads((sft / "manifest.json").read_text())
    (sft / "manifest.json").write_text(json.dumps(manifest | {"outputs": outputs_of(sft)}))
    block = {"merge": SETTINGS["merge"], "model": {"quantization": "nf4"}}
    with pytest.raises(RuntimeError, match="the adapter changed nothing"):
        execute("merge", toys.toy_settings(tmp_path, "merge", tuned / "model", **block))
