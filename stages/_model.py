"""The `model` group of the configuration, and everything that loads: tokenizer, base (4-bit or not), base with adapter.

Weights are read as safetensors only, code from checkpoints is never run, and what a run used is told by `model_digest`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from data import dialects
from stages._errors import UserError
from stages._memory import check_gpu_memory, device
from stages._right_padding import drop_needless_masks

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROOT = Path(__file__).resolve().parents[1]


class ModelConfig(BaseModel):
    """The policy: which checkpoint, how it is shown tools, and what it needs to train. Presets stand in conf/model/."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), use_attribute_docstrings=True, defer_build=True)
    # merge_dtype counts where conf/stage/merge.yaml hands it on, as merge.dtype.
    FREE: ClassVar[tuple[str, ...]] = ("name", "sample_batch", "memory_gib", "merge_dtype")

    name: str = Field("tiny", pattern=r"^[A-Za-z0-9._-]{1,60}$")
    """Short name, as in file names and tables."""
    path: str = "assets/tiny"
    """Folder of a checkpoint, or its id on the Hugging Face hub."""
    revision: str | None = None
    """Commit of the hub repository; without it, the newest."""
    dialect: str = "native"
    """How tools are shown and calls are written: a module of data/dialects."""
    chat_template: str | None = None
    """Jinja file to use in place of the checkpoint's own chat template."""
    template_variables: dict[str, bool | str] = Field(default_factory=dict)
    """Variables of the chat template fixed for good, in training, sampling and the merged model alike."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """What LoRA adapts: all-linear, or a list of module names."""
    quantization: Literal["none", "nf4", "auto"] = "none"
    """nf4: the frozen base in 4 bits (QLoRA). auto: nf4 on a GPU, none without one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What training computes in. auto: bfloat16 where that is faster; else float16 on a GPU, float32 on a CPU."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel."""
    max_length: int = Field(1024, ge=64)
    """Longest row in tokens; longer ones are counted and refused, never cut."""
    micro_batch: int = Field(32, ge=1)
    """Rows that are computed at once while training; larger batches are accumulated. On a CPU, sft and dpo compute no
    more of them at once than make 2,048 tokens in the mean."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer that is generated, unless the stage says another."""
    sample_batch: int = Field(64, ge=1)
    """Rows that are generated at once."""
    activation_checkpointing: bool = False
    """Compute activations twice instead of keeping them: a fifth slower, far less memory."""
    learning_rate: float = Field(2e-4, gt=0)
    """Step size of supervised fine-tuning, unless the stage says another."""
    preference_learning_rate: float = Field(5e-6, gt=0)
    """Step size of preference training, unless the stage says another."""
    merge_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """How merged weights are stored, unless merge.dtype says another."""
    memory_gib: float | None = None
    """GPU memory that training is expected to reserve, checked against what is free before loading."""

    @field_validator("dialect")
    @classmethod
    def _dialect_exists(cls, name: str) -> str:
        dialects.get(name)
        return name


def is_quantized(config: ModelConfig) -> bool:
    """Whether the base is held in 4 bits on this machine."""
    return config.quantization == "nf4" or (config.quantization == "auto" and device() == "cuda")


def compute_dtype(config: ModelConfig, training: bool) -> torch.dtype:
    """What matrices are multiplied in. Evaluation on a CPU is always float32: merged and unmerged can be equal then."""
    import torch

    if not training and device() == "cpu":
        return torch.float32
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    if fast_in_bfloat16():
        return torch.bfloat16
    return torch.float16 if device() == "cuda" else torch.float32


def fast_in_bfloat16() -> bool:
    """Whether training on this machine takes less time in bfloat16 than in float32.

    Of CPUs those with AMX, by a third. AVX512-BF16 alone does not make up for the rounding: stage=sft of the embedded
    model took 138 s in float32 there and 191 s in bfloat16.
    """
    import torch

    if device() == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def local_path(config: ModelConfig) -> Path | None:
    """The checkpoint's folder, looked for from here and from the project's root; None if `path` is a hub id."""
    for place in (Path(config.path), ROOT / config.path):
        if place.is_dir():
            return place
    if config.path.count("/") > 1 or config.path.startswith((".", "/", "~", "assets/", "runs/")):
        raise UserError(f"model.path: no such folder: {config.path}")
    return None


def plain_config(folder: Path, config: ModelConfig) -> ModelConfig:
    """The configuration of a merged model: plain weights of a folder, with the chat template beside them."""
    plain: dict[str, Any] = {"quantization": "none", "chat_template": None, "template_variables": {}, "revision": None}
    return config.model_copy(update={"path": str(folder)} | plain)


def student_config(path: str, config: ModelConfig) -> ModelConfig:
    """The configuration of a student: that of its teacher, but for where the checkpoint lies."""
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in Path(path).name)[:60]
    return config.model_copy(update={"path": path, "name": name or "student", "revision": None})


def model_digest(config: ModelConfig) -> str:
    """What tells this base from any other: the bytes of its folder (or hub id and revision), dialect and template."""
    digest = hashlib.sha256(json.dumps([config.dialect, config.template_variables], sort_keys=True).encode())
    if config.chat_template:
        digest.update(_template_file(config).read_bytes())
    folder = local_path(config)
    if folder is None:
        digest.update(f"{config.path}@{config.revision or 'newest'}".encode())
        return digest.hexdigest()
    for file in sorted(folder.iterdir()):
        if file.suffix in {".safetensors", ".json", ".jinja", ".model", ".txt"}:
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer with the chat template this run uses, left-padded for generation, its pad token set."""
    from transformers import AutoTokenizer

    with _told(config):
        tokenizer = AutoTokenizer.from_pretrained(**_source(config))
    if config.chat_template:
        tokenizer.chat_template = _template_file(config).read_text(encoding="utf-8")
    if not isinstance(tokenizer.chat_template, str):
        raise UserError(f"model.chat_template: {config.path} has no chat template of its own; name a .jinja file")
    # Set inside the template, so that the merged model renders what it was trained on wherever it is served.
    tokenizer.chat_template = fixed_variables(config.template_variables) + tokenizer.chat_template
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def fixed_variables(variables: dict[str, bool | str]) -> str:
    """Jinja that sets these variables before a template starts: `{%- set enable_thinking = false %}`."""
    return "".join(f"{{%- set {name} = {json.dumps(value)} -%}}" for name, value in sorted(variables.items()))


def load_base(config: ModelConfig, training: bool = False, kind: str = "AutoModelForCausalLM", **more: Any) -> Any:
    """The base model on this machine's device, in 4 bits if the configuration says so.

    `kind` is a class of transformers that says what the model ends in, `more` what it takes besides.
    """
    import torch
    import transformers

    if device() == "cuda":
        check_gpu_memory(config)
    compute = compute_dtype(config, training)
    arguments = _source(config) | more | {"attn_implementation": config.attention, "use_safetensors": True}
    if is_quantized(config):
        # The codes depend on what they are rounded from: always float32 on a CPU, whatever is computed in.
        arguments["dtype"] = compute if device() == "cuda" else torch.float32
        arguments["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
        arguments["device_map"] = {"": torch.cuda.current_device() if device() == "cuda" else "cpu"}
    else:
        arguments["dtype"] = compute
    with _told(config):
        model = getattr(transformers, kind).from_pretrained(**arguments)
    if not is_quantized(config):
        model.to(device())
    keep_weights_unpacked(model)
    if training:
        drop_needless_masks(model)
    model.config.use_cache = not training
    return model.train(training)


def load_policy(
    config: ModelConfig, adapter: Path | None = None, trainable: bool = False, fold: bool = True
) -> PreTrainedModel:
    """The base with an adapter over it, every weight of the adapter accounted for; frozen unless `trainable`.

    A frozen adapter over float32 weights is added to them unless `fold` is False: the same function but for the last
    digits, and a third less time a token. Rounded weights (bfloat16, 4 bits) would be others by more than that.
    """
    import torch

    model = load_base(config, training=trainable)
    if adapter is not None:
        model = with_adapter(model, adapter, config.path, trainable)
        exact = not is_quantized(config) and all(weight.dtype == torch.float32 for weight in model.parameters())
        if trainable or not fold or not exact:
            return model
        return model.merge_and_unload().requires_grad_(False).eval()
    if not trainable:
        model.requires_grad_(False)
        model.eval()
    return model


def with_adapter(model: Any, adapter: Path, path: str, trainable: bool = False) -> Any:
    """A model loaded from `path` with an adapter over it, every weight of it accounted for; frozen unless trainable."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    from stages._fused_lora import fuse_lora

    model = PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as stored:
        strange = set(stored.keys()) ^ set(get_peft_model_state_dict(model))
    if strange:  # PEFT itself only warns, and goes on with the base's behaviour
        raise UserError(f"{adapter} does not fit model.path={path}: {min(strange)} has no counterpart")
    if trainable:
        fuse_lora(model)
    else:
        model.requires_grad_(False)
        model.eval()
    return model


def keep_weights_unpacked(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights in place on an AVX512-BF16 CPU.

    It does so at the first forward pass in evaluation mode, and everything after is silently wrong: gradients by 70 to
    90 %, merging and dequantising altogether. Unpacked, one-token steps are slower and everything else is faster.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def check_unpacked(model: PreTrainedModel) -> None:
    """RuntimeError where a 4-bit weight has been repacked after all: dequantised, it would be another matrix."""
    for name, module in model.named_modules():
        if getattr(getattr(getattr(module, "weight", None), "quant_state", None), "packing_format_for_cpu", False):
            raise RuntimeError(
                f"{name}: bitsandbytes has repacked this 4-bit weight for the CPU, so that it cannot be dequantised;"
                " it must not compute before stages/_model.py's keep_weights_unpacked"
            )


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter `default` alone, as PEFT reads it; the same weights give the same bytes."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, adapter_name="default")
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict() | {"inference_mode": True}
    if isinstance(config.get("target_modules"), list | set):  # a set in PEFT: its order would differ from run to run
        config["target_modules"] = sorted(config["target_modules"])
    text = json.dumps(config, indent=2, sort_keys=True, default=str) + "\n"
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _told(config: ModelConfig) -> Iterator[None]:
    """What the hub or a missing package says, as the user's mistake: no such repository, no access, no network."""
    try:
        yield
    except (OSError, ImportError) as error:
        told = " ".join(str(error).split())
        raise UserError(f"model.path: {config.path} cannot be loaded: {told[:400]}") from error


def _source(config: ModelConfig) -> dict[str, Any]:
    folder = local_path(config)
    source: dict[str, Any] = {"pretrained_model_name_or_path": str(folder or config.path), "trust_remote_code": False}
    return source | ({"local_files_only": True} if folder else {"revision": config.revision or "main"})


def _template_file(config: ModelConfig) -> Path:
    for place in (Path(str(config.chat_template)), ROOT / str(config.chat_template)):
        if place.is_file():
            return place
    raise UserError(f"model.chat_template: no such file: {config.chat_template}")
