"""The sum itself: an adapter put into a base's weights in float32, written as safetensors with their tokenizer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._model import ModelConfig, check_unpacked, load_base

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def merge(
    model: ModelConfig, adapter: Path, dequantize: bool, dtype: str, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> dict[str, float]:
    """Write base + adapter to a folder, stored in `dtype`; with `dequantize` into what 4-bit weights stand for.

    Returns how many matrices have an adapter and how many of them are other ones than the base's, as they are stored:
    an adapter that rounding takes away has changed nothing.
    """
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers.utils import logging

    base = load_base(model if dequantize else model.model_copy(update={"quantization": "none"}))
    if dequantize:
        check_unpacked(base)
        logging.set_verbosity_error()  # it warns of what is wanted here
        base = base.dequantize(dtype=torch.float32)
        base.is_loaded_in_4bit = base.is_quantized = False  # left behind, they say 4 bits to PEFT and to saving
        base.hf_quantizer = None
    adapted = PeftModel.from_pretrained(base.to(device="cpu", dtype=torch.float32), str(adapter))
    stored = getattr(torch, dtype)
    unchanged = {
        name: _digest(module.get_base_layer().weight, stored)
        for name, module in adapted.get_base_model().named_modules()
        if isinstance(module, BaseTunerLayer)
    }
    merged = adapted.merge_and_unload(safe_merge=True).to(stored)
    changed = [name for name, one in unchanged.items() if _digest(merged.get_submodule(name).weight, stored) != one]
    _save(merged, tokenizer, model.dialect, folder)
    return {"matrices_adapted": len(unchanged), "matrices_changed": len(changed)}


def _save(merged: Any, tokenizer: PreTrainedTokenizerBase, dialect: str, folder: Path) -> None:
    """Weights, tokenizer, and a configuration that ends turns and shows tools wherever they are served."""
    from stages._sampling import stop_ids
    from stages._serving import template_with_tools

    merged.config.dtype = merged.dtype
    merged.config.use_cache = True
    merged.generation_config.eos_token_id = sorted(stop_ids(merged, tokenizer))
    merged.generation_config.pad_token_id = tokenizer.pad_token_id
    merged.generation_config._from_model_config = False  # else loading would make it anew, with one end of turn
    merged.save_pretrained(folder)
    own = tokenizer.chat_template
    tokenizer.chat_template = template_with_tools(own, dialect)
    tokenizer.save_pretrained(folder)
    tokenizer.chat_template = own


def compute_in_float32(model: Any) -> None:
    """The same weights, 4-bit ones too, multiplied in float32. On a CPU they are already."""
    import torch

    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.float32
    torch.nn.Module.float(model)  # transformers' own refuses a 4-bit model, whose codes this leaves alone


def _digest(weight: torch.Tensor, stored: torch.dtype) -> str:
    import torch

    return hashlib.sha256(weight.detach().to(stored).contiguous().view(torch.uint8).numpy()).hexdigest()
