"""The merge and its check; and, slow, planted mistakes, and the chain on a toy of every architecture of a preset."""

from __future__ import annotations

import json
import math
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

GOOD = {
    "mean_logit_difference": 1e-7,
    "max_logit_difference": 1e-6,
    "mean_kl": 1e-12,
    "greedy_agreement": 1.0,
    "outcome_agreement": 1.0,
    "max_logit_change_from_base": 0.5,
    "matrices_adapted": 14,
    "matrices_changed": 14,
}


def test_a_faithful_merge_passes() -> None:
    merge.check(GOOD, mean_tolerance=1e-5, tolerance=1e-3, agreement=0.95)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean_logit_difference": 2e-5}, r"by 2e-05 in the mean \(merge.mean_tolerance 1e-05\)"),
        ({"mean_logit_difference": float("nan")}, "logits differ by nan"),
        ({"max_logit_difference": 0.2}, r"by 0.2 at most \(merge.tolerance 0.001\)"),
        ({"max_logit_difference": float("nan")}, "by nan at most"),
        ({"greedy_agreement": 0.9}, r"90.0% of the greedy answers and 100.0% .* \(merge.agreement 95%\)"),
        ({"max_logit_change_from_base": 0.0}, "the adapter changed nothing"),
        ({"matrices_changed": 0}, r"the adapter changed nothing \(0 of 14 matrices, logits by 0.5\)"),
    ],
)
def test_a_merge_that_is_another_model_or_the_base_is_refused(change: dict[str, float], said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        merge.check(GOOD | change, mean_tolerance=1e-5, tolerance=1e-3, agreement=0.95)


def test_what_passes_follows_how_the_weights_are_stored_unless_it_is_given() -> None:
    assert merge._tolerances(merge.Config()) == (1e-5, 1e-3, 0.99)
    assert merge._tolerances(merge.Config(dtype="bfloat16")) == (0.1, 1.0, 0.9)
    assert merge._tolerances(merge.Config(mean_tolerance=0.5, tolerance=2, agreement=0)) == (0.5, 2, 0)


@pytest.mark.parametrize(("short", "name"), [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_a_dtype_has_a_short_name(short: str, name: str) -> None:
    assert merge.Config.model_validate({"dtype": short}).dtype == name


def test_the_embedded_model_is_stored_in_float32_and_those_for_gpus_in_bfloat16() -> None:
    from stages._refusals import compose, settings_of
    from stages._schema import publish

    publish()
    for path in (toys.ROOT / "conf" / "model").glob("*.yaml"):
        for stage in ("merge", "pipeline"):
            settings = settings_of(*compose([f"stage={stage}", f"model={path.stem}"]))
            assert settings.stage("merge").dtype == ("float32" if path.stem in ("tiny", "tiny_student") else "bfloat16")
    assert settings_of(*compose(["stage=merge", "merge.dtype=fp16"])).stage("merge").dtype == "float16"


@pytest.mark.parametrize(
    ("named", "there", "read"),
    [
        (None, {"sft"}, {"sft"}),
        (None, {"sft", "kto"}, {"sft", "kto"}),
        (None, {"sft", "dpo", "kto"}, {"sft", "dpo"}),
        (None, {"sft", "grpo"}, {"sft", "grpo"}),
        ("kto", {"sft", "dpo", "kto"}, {"sft", "kto"}),
        ("sft", {"sft", "dpo"}, {"sft"}),
        (None, {"sft", "distill"}, {"sft"}),
        ("distill", {"sft", "dpo", "distill"}, {"distill"}),
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
    assert results["requests_with_logits"] == 2


def test_the_divergence_is_that_of_the_merged_from_the_adapter_model_in_nats() -> None:
    import torch

    # p = (1/4, 3/4) and q = (1/2, 1/2): 1/4 ln(1/2) + 3/4 ln(3/2) = 0.130812; equal rows diverge by 0.
    p, q = torch.tensor([[0.0, math.log(3)], [1.0, 2.0]]), torch.tensor([[5.0, 5.0], [1.0, 2.0]])
    before = {"logits": [p], "base_logits": [p], "answers": [Answer("a")]}
    results = merge.compare(before, {"logits": [q], "answers": [Answer("a")]})
    assert results["mean_kl"] == pytest.approx(0.130812 / 2, abs=1e-6)


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
    assert metrics["mean_logit_difference"] <= 1e-5
    assert metrics["max_logit_difference"] < 1e-4
    assert metrics["greedy_agreement"] == metrics["outcome_agreement"] == 1
    assert metrics["max_logit_change_from_base"] > 1e-3
    alone(tmp_path / "runs" / "toy" / "merge" / "model", preset.get("template_variables", {}))


@pytest.mark.gpu
def test_the_chain_runs_in_4_bits_on_a_gpu_with_paged_8_bit_states(tmp_path: Path) -> None:
    checkpoint = toys.toy_checkpoint(tmp_path / "model")
    metrics = chain(tmp_path, checkpoint, {"quantization": "auto", "activation_checkpointing": True})
    assert metrics["mean_logit_difference"] <= metrics["mean_tolerance"] == 1e-5
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


def on(folder: Path, stage: str, block: dict[str, Any]) -> dict[str, Any]:
    """Run a stage on what lies in that folder, or in a copy of it: the base is where it was."""
    checkpoint = Path(json.loads((folder / "runs/toy/sft/manifest.json").read_text())["model"]["id"])
    blocks = {"model": {"quantization": "nf4"}, stage: SETTINGS[stage] | block}
    return execute(stage, toys.toy_settings(folder, stage, checkpoint, **blocks))


def merged(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return on(folder, "merge", settings)


@pytest.fixture
def again(tuned: Path, tmp_path: Path) -> Path:
    """A copy of that run to be spoilt."""
    shutil.copytree(tuned, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
def test_a_base_in_4_bits_is_merged_both_ways_and_the_nearer_one_kept(tuned: Path) -> None:
    metrics = merged(tuned, {})
    assert (metrics["adapter"], metrics["base"], metrics["dtype"]) == ("dpo", "dequantized", "float32")
    names = ("mean_logit_difference", "max_logit_difference", "mean_kl", "greedy_agreement", "outcome_agreement")
    assert all(metrics[name] == metrics[f"dequantized_{name}"] for name in names)
    assert metrics["mean_logit_difference"] <= 1e-5 < 1e-3 < metrics["original_mean_logit_difference"]
    assert metrics["mean_kl"] < metrics["original_mean_kl"]
    assert metrics["matrices_changed"] == metrics["matrices_adapted"] > 0
    folder = tuned / "runs/toy/merge"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"model"}
    assert json.loads((folder / "manifest.json").read_text())["facts"]["chain"] == ["sft", "dpo"]
    assert (folder / "model" / "Modelfile").read_text().startswith("FROM .\n")


@pytest.mark.slow
def test_weights_stored_in_bfloat16_are_plain_and_within_their_wider_tolerance(tuned: Path) -> None:
    metrics = merged(tuned, {"dtype": "bf16", "base": "dequantized"})
    assert metrics["dtype"] == "bfloat16"
    assert "original_mean_kl" not in metrics
    assert 1e-5 < metrics["mean_logit_difference"] < metrics["mean_tolerance"]
    config = json.loads((tuned / "runs/toy/merge/model/config.json").read_text())
    assert config["dtype"] == "bfloat16"


@pytest.mark.slow
def test_the_original_base_is_not_the_model_that_was_trained_on_4_bits(tuned: Path) -> None:
    with pytest.raises(RuntimeError, match=r"the merged model is not base \+ adapter"):
        merged(tuned, {"base": "original"})
    manifest = json.loads((tuned / "runs/toy/merge/manifest.json").read_text())
    assert manifest["status"] == "failed"


@pytest.mark.slow
def test_an_adapter_put_in_place_of_another_is_not_merged(again: Path) -> None:
    sft, dpo = (again / "runs/toy" / stage / "adapter/adapter_model.safetensors" for stage in ("sft", "dpo"))
    assert sft.stat().st_size == dpo.stat().st_size
    shutil.copy(sft, dpo)
    shutil.rmtree(again / "runs/toy/merge", ignore_errors=True)  # of a test before this one
    with pytest.raises(UserError, match=r"dpo/adapter/adapter_model\.safetensors: not the file that dpo wrote"):
        merged(again, {})
    assert not (again / "runs/toy/merge").exists()


@pytest.mark.slow
def test_merging_another_adapter_than_the_one_compared_with_is_caught(
    again: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages import _merging

    right = _merging.merge
    wrong = again / "runs/toy/sft/adapter"
    monkeypatch.setattr(_merging, "merge", lambda model, adapter, *rest: right(model, wrong, *rest))
    with pytest.raises(RuntimeError, match=r"the merged model is not base \+ adapter"):
        merged(again, {})


@pytest.mark.slow
@pytest.mark.parametrize("base", ["dequantized", "original"])
def test_a_merge_that_leaves_the_weights_as_they_were_is_caught(
    base: str, again: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraModel

    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda model, **options: model.unload())
    with pytest.raises(RuntimeError, match="the adapter changed nothing \\(0 of 14 matrices"):
        merged(again, {"base": base})


@pytest.mark.slow
def test_a_packed_4_bit_weight_is_refused_by_name(again: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitsandbytes.functional import _convert_weight_packed_for_cpu

    from stages import _merging

    plain = _merging.load_base

    def packing(config: Any) -> Any:
        """One layer as bitsandbytes leaves it behind on a CPU with AVX512-BF16, once it has computed with it."""
        base = plain(config)
        layer = base.model.layers[1].mlp.up_proj
        layer.weight.data, _ = _convert_weight_packed_for_cpu(layer.weight.data, layer.weight.quant_state)
        return base

    monkeypatch.setattr(_merging, "load_base", packing)
    with pytest.raises(RuntimeError, match=r"layers\.1\.mlp\.up_proj: bitsandbytes has repacked this 4-bit weight"):
        merged(again, {})


@pytest.mark.slow
def test_a_done_merge_is_published_by_the_same_command_and_its_card_knows_more_once_it_is_evaluated(
    again: Path,
) -> None:
    merged(again, {})
    card = again / "runs/toy/merge/model/README.md"
    front = yaml.safe_load(card.read_text().split("---")[1])
    assert (front["library_name"], front["pipeline_tag"]) == ("transformers", "text-generation")
    assert front["license_name"] == "unknown"
    assert front["tags"] == ["callwise", "tool-calling", "function-calling", "lora", "sft", "dpo"]
    text = card.read_text()
    assert "Not evaluated yet" in text
    assert "vllm serve . --enable-auto-tool-choice --tool-call-parser hermes" in text
    assert "| needless_call | -10 |" in text
    digests = [json.loads((again / f"runs/toy/{name}/manifest.json").read_text())["digest"] for name in ("sft", "dpo")]
    assert all(f"`{digest[:16]}`" in text for digest in digests)

    on(again, "evaluate", {})
    text = card.read_text()
    metrics = json.loads((again / "runs/toy/evaluate/metrics.json").read_text())
    low, high = metrics["merged"]["false_tool_call_rate_ci"]
    rate = metrics["merged"]["false_tool_call_rate"]
    assert "`merged` is this model." in text
    assert f"| merged | {100 * rate:.1f} % [{100 * low:.1f}, {100 * high:.1f}] |" in text
    assert "Not evaluated yet" not in text

    out = again / "out"
    began = (again / "runs/toy/merge/manifest.json").read_text()
    merged(again, {"push_to_folder": str(out), "license": "apache-2.0"})
    assert (again / "runs/toy/merge/manifest.json").read_text() == began
    written = {path.name: path.read_bytes() for path in out.iterdir()}
    assert written == {path.name: path.read_bytes() for path in card.parent.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "Modelfile"} < set(written)
    assert yaml.safe_load(written["README.md"].decode().split("---")[1])["license"] == "apache-2.0"
    assert str(again) not in written["README.md"].decode()
    alone(out, {})

    on(again, "evaluate", {})  # has no licence among its settings
    assert yaml.safe_load(card.read_text().split("---")[1])["license"] == "apache-2.0"


@pytest.mark.slow
def test_the_embedded_model_merged_in_4_bits_is_the_one_that_was_trained(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in toys.toy_rows(160)), encoding="utf-8")
    blocks: dict[str, Any] = {"model": {"quantization": "nf4", "sample_batch": 128}}
    blocks["data"] = {"format": "openai", "train": str(rows), "test_share": 0.5, "validation_share": 0.2}
    settings = {"sft": {"epochs": 1, "batch_size": 16}, "merge": {"requests": 100, "max_new_tokens": 24}}
    for stage, block in settings.items():
        own = {stage: block} | blocks
        metrics = execute(stage, toys.toy_settings(tmp_path, stage, toys.ROOT / "assets" / "tiny", **own))
    assert metrics["requests"] > 70
    assert metrics["mean_logit_difference"] <= 1e-5
    assert metrics["greedy_agreement"] == metrics["outcome_agreement"] == 1
    assert metrics["max_logit_change_from_base"] > 0.1


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
