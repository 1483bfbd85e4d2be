"""Presets, digests, loading, quantising: what holds without a download, on toys of the real architectures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from stages import _memory, _model
from stages._errors import UserError
from stages._lora import check_targets
from stages._model import ModelConfig
from tests import toys

PRESETS = sorted((toys.ROOT / "conf" / "model").glob("*.yaml"))

# The published shapes of the checkpoints that the presets name, and their published numbers of weights in millions.
QWEN3, LLAMA = {"head_dim": 128, "vocab_size": 151936}, {"head_dim": 64}
SHAPES: dict[str, tuple[str, int, dict[str, int]]] = {
    "qwen3_0_6b": ("qwen3", 596, QWEN3 | {"hidden_size": 1024, "num_hidden_layers": 28, "intermediate_size": 3072}),
    "qwen3_4b": ("qwen3", 4022, QWEN3 | {"hidden_size": 2560, "num_hidden_layers": 36, "intermediate_size": 9728}),
    "llama3_2_1b": ("llama", 1236, LLAMA | {"hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192}),
    "smollm2_360m": ("llama", 362, LLAMA | {"hidden_size": 960, "num_hidden_layers": 32, "intermediate_size": 2560}),
    "gemma3_270m": ("gemma3_text", 268, {"hidden_size": 640, "num_hidden_layers": 18, "intermediate_size": 2048}),
    "tiny_aya": ("cohere2", 3349, {"hidden_size": 2048, "num_hidden_layers": 36, "intermediate_size": 11008}),
}
HEADS = {"qwen3_0_6b": (16, 8), "qwen3_4b": (32, 8), "llama3_2_1b": (32, 8), "smollm2_360m": (15, 5)}
HEADS |= {"gemma3_270m": (4, 1), "tiny_aya": (16, 4)}
WORDS = {"llama3_2_1b": 128256, "smollm2_360m": 49152, "gemma3_270m": 262144, "tiny_aya": 262144}
WIDTH = {"gemma3_270m": 256, "tiny_aya": 128}


def preset(path: Path) -> ModelConfig:
    return ModelConfig(**yaml.safe_load(path.read_text(encoding="utf-8")))


def real_shape(name: str) -> Any:
    """The preset's architecture at its real size, without any memory behind it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, _, sizes = SHAPES[name]
    heads, groups = HEADS[name]
    more = {"num_attention_heads": heads, "num_key_value_heads": groups, "tie_word_embeddings": True}
    more |= {key: table[name] for key, table in (("vocab_size", WORDS), ("head_dim", WIDTH)) if name in table}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(sizes | more)))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_valid_and_bears_the_name_of_its_file(path: Path) -> None:
    from data import dialects

    config = preset(path)
    assert config.name == path.stem
    dialects.get(config.dialect)


def test_every_preset_of_a_real_model_has_its_shape_here() -> None:
    assert {path.stem for path in PRESETS} - {"tiny", "tiny_student"} == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_the_memory_a_preset_states_is_the_computed_estimate_and_fits_a_16_gb_gpu(name: str) -> None:
    config, model = preset(toys.ROOT / "conf" / "model" / f"{name}.yaml"), real_shape(name)
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6) == SHAPES[name][1]
    assert config.memory_gib == _memory.expected_memory_gib(model, config)
    assert config.memory_gib < 14
    assert "# estimate" in (toys.ROOT / "conf" / "model" / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SHAPES)
def test_the_target_modules_of_a_preset_are_all_linear_layers_of_its_architecture(name: str) -> None:
    import torch

    linear = {
        path.rpartition(".")[2] for path, module in real_shape(name).named_modules() if type(module) is torch.nn.Linear
    }
    assert set(preset(toys.ROOT / "conf" / "model" / f"{name}.yaml").target_modules) == linear - {"lm_head"}


def test_an_unknown_dialect_names_the_nearest() -> None:
    with pytest.raises(ValidationError, match="did you mean native"):
        ModelConfig(dialect="nativ")


def test_a_repository_that_cannot_be_had_is_the_users_mistake_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"model.path: nobody/nothing cannot be loaded: "):
        _model.load_tokenizer(ModelConfig(path="nobody/nothing"))


def test_a_target_module_that_no_layer_bears_names_the_nearest() -> None:
    model = toys.toy_model("toy", 1024)
    check_targets(model, "all-linear")
    check_targets(model, ["q_proj", "self_attn.v_proj"])
    with pytest.raises(UserError, match=r"no layer is called q_prj; did you mean q_proj\?"):
        check_targets(model, ["q_prj", "v_proj"])


def test_a_folder_that_is_not_there_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"model.path: no such folder: runs/nowhere"):
        _model.model_digest(ModelConfig(path="runs/nowhere"))
    assert _model.local_path(ModelConfig(path="Qwen/Qwen3-0.6B")) is None


def test_the_digest_follows_weights_template_and_dialect(tmp_path: Path) -> None:
    folder = toys.toy_checkpoint(tmp_path / "toy")
    config = ModelConfig(path=str(folder))
    first = _model.model_digest(config)
    assert _model.model_digest(config) == first
    assert _model.model_digest(config.model_copy(update={"dialect": "json"})) != first
    assert _model.model_digest(config.model_copy(update={"template_variables": {"a": True}})) != first
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    assert _model.model_digest(config) != first


def test_fixed_template_variables_hold_in_training_sampling_and_the_saved_tokenizer(tmp_path: Path) -> None:
    config = ModelConfig(
        path=str(toys.toy_checkpoint(tmp_path / "toy", "qwen3")), template_variables={"enable_thinking": False}
    )
    _model.load_tokenizer(config).save_pretrained(tmp_path / "saved")
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    ask = [{"role": "user", "content": "Hi"}]
    text = saved.apply_chat_template(ask, add_generation_prompt=True, tokenize=False)
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_template_file_replaces_the_checkpoints_own_and_one_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = toys.toy_checkpoint(tmp_path / "toy")
    (tmp_path / "own.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    config = ModelConfig(path=str(folder), chat_template=str(tmp_path / "own.jinja"))
    assert _model.load_tokenizer(config).chat_template == "{{ messages[0].content }}"
    with pytest.raises(UserError, match=r"model.chat_template: no such file: missing.jinja"):
        _model.load_tokenizer(ModelConfig(path=str(folder), chat_template="missing.jinja"))


def adapted(folder: Path, quantization: str = "none", training: bool = True) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    config = ModelConfig.model_validate({"path": str(folder), "quantization": quantization, "dtype": "float32"})
    base = _model.load_base(config, training=training)
    torch.manual_seed(0)
    model = get_peft_model(base, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def test_the_same_adapter_is_saved_as_the_same_bytes_and_peft_loads_it_alone(tmp_path: Path) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM

    model = adapted(toys.toy_checkpoint(tmp_path / "toy"))
    for name in ("one", "two"):
        _model.save_adapter(model, tmp_path / name)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    ids = torch.arange(40)[None]
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "one")
    with torch.no_grad():
        assert torch.equal(loaded.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


def test_an_adapter_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = toys.toy_checkpoint(tmp_path / "toy")
    _model.save_adapter(adapted(folder), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    weights.pop(min(weights))
    save_file(weights, path)
    with (
        pytest.warns(UserWarning, match="missing adapter keys"),
        pytest.raises(UserError, match=r"does not fit model.path=.* has no counterpart"),
    ):
        _model.load_policy(ModelConfig(path=str(folder)), tmp_path / "adapter")


def gradients(model: Any) -> dict[str, Any]:
    import torch

    model.zero_grad()
    ids = torch.arange(64)[None]
    model.train()(input_ids=ids, labels=ids).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def test_an_evaluation_between_training_steps_does_not_spoil_a_4_bit_base(tmp_path: Path) -> None:
    import torch

    model = adapted(toys.toy_checkpoint(tmp_path / "toy"), "nf4")
    before = gradients(model)
    with torch.no_grad():
        model.eval()(input_ids=torch.arange(64)[None])
    after = gradients(model)
    assert before.keys() == after.keys() != set()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_cpu_trains_in_bfloat16_where_that_is_faster_and_evaluates_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(_model, "device", lambda: "cpu")
    for capabilities, trains in (
        ({"avx512_bf16": True, "amx_tile": True, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True, "amx_tile": False, "amx_bf16": False}, torch.float32),
        ({"architecture": "aarch64"}, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert _model.compute_dtype(ModelConfig(), training=True) == trains
        assert _model.compute_dtype(ModelConfig(dtype="bfloat16"), training=True) == torch.bfloat16
        assert _model.compute_dtype(ModelConfig(dtype="bfloat16"), training=False) == torch.float32


def test_a_4_bit_base_is_nf4_with_double_quantisation_whatever_is_computed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(_model, "fast_in_bfloat16", lambda: True)
    folder = toys.toy_checkpoint(tmp_path / "toy")
    bases = [
        _model.load_base(ModelConfig(path=str(folder), quantization="nf4"), training=training)
        for training in (True, False)
    ]
    layers = [base.model.layers[0].mlp.up_proj for base in bases]
    assert [layer.compute_dtype for layer in layers] == [torch.bfloat16, torch.float32]
    assert all(layer.weight.quant_state.quant_type == "nf4" and layer.weight.quant_state.nested for layer in layers)
    assert torch.equal(layers[0].weight, layers[1].weight)  # the same codes for training, evaluation and merging


def test_quantization_auto_is_none_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(quantization="auto")
    for machine, expected in (("cpu", False), ("cuda", True)):
        monkeypatch.setattr(_model, "device", lambda machine=machine: machine)
        assert _model.is_quantized(config) is expected


@pytest.mark.gpu
def test_a_gpu_without_room_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    config = ModelConfig(path=str(toys.toy_checkpoint(tmp_path / "toy")), memory_gib=10_000)
    with pytest.raises(UserError, match="needs about 10000"):
        _model.load_base(config)


def test_a_peft_configuration_on_disk_names_the_base_as_the_user_did(tmp_path: Path) -> None:
    model = adapted(toys.toy_checkpoint(tmp_path / "toy"))
    _model.save_adapter(model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(tmp_path / "toy")
    assert config["target_modules"] == sorted(config["target_modules"])
