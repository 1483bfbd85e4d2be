"""A fresh LoRA adapter over a frozen base: its settings, and how it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from stages._errors import UserError, nearest
from stages._fused_lora import fuse_lora

if TYPE_CHECKING:
    from stages._model import ModelConfig


class AdapterConfig(BaseModel):
    """Settings of a stage that trains an adapter from nothing."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)

    rank: int = Field(16, ge=1)
    """Rank of the adapter (LoRA r)."""
    alpha: float = Field(32, gt=0)
    """The adapter's output is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the adapter."""


def with_fresh_adapter(base: Any, config: AdapterConfig, model_config: ModelConfig, seed: int) -> Any:
    """The base with a new adapter over it, whose first weights the seed decides; UserError for unknown layers."""
    import torch
    from peft import LoraConfig, get_peft_model

    check_targets(base, model_config.target_modules)
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=model_config.target_modules,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, lora)
    model.peft_config["default"].base_model_name_or_path = model_config.path
    fuse_lora(model)
    return model


def check_targets(base: Any, targets: str | list[str]) -> None:
    """UserError for a module name that no linear layer bears; PEFT asks only that one of them does."""
    import torch

    names = {name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    short = {name.rpartition(".")[2] for name in names}
    wrong = [
        f"model.target_modules: no layer is called {target}{nearest(target, short)} ({', '.join(sorted(short))})"
        for target in ([] if isinstance(targets, str) else targets)
        if not any(name == target or name.endswith(f".{target}") for name in names)
    ]
    if wrong:
        raise UserError(*wrong)
