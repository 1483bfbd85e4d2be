"""Memory: what training is expected to take, what is free, and what it took."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from stages._errors import UserError

if TYPE_CHECKING:
    from stages._model import ModelConfig


def device() -> str:
    """`cuda` where there is one, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


MEMORY_WORDS = {"cuda": "of GPU memory reserved", "cpu": "resident"}


def memory_gib(peak: bool = False) -> float:
    """Memory reserved on the GPU, or resident in RAM where there is none; `peak`: the most since the stage began."""
    if device() == "cuda":
        import torch

        return (torch.cuda.max_memory_reserved() if peak else torch.cuda.memory_reserved()) / 2**30
    import psutil

    if peak:
        from stages._machine import peak_memory

        return peak_memory()["host_bytes"] / 2**30
    return psutil.Process().memory_info().rss / 2**30


def expected_memory_gib(model: Any, config: ModelConfig, rank: int = 16, quantized: bool = True) -> float:
    """Estimate of the GPU memory that LoRA training reserves, from shapes alone (a model on the meta device will do).

    Weights (NF4 with double quantisation: 0.516 bytes each; what stays unquantised: 2), adapters in float32 with their
    gradient and two 8-bit moments (10), a residual stream a layer in bfloat16 that checkpointing keeps, activations of
    one layer, one of TRL's tiles of logits, and 0.7 GiB for the CUDA context and fragmentation.
    """
    import torch

    linear = adapters = widest = 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head"):
            linear += module.weight.numel()
            adapters += rank * (module.in_features + module.out_features)
            widest = max(widest, module.out_features)
    rest = sum(parameter.numel() for parameter in model.parameters()) - linear
    shape = model.config.get_text_config()
    tokens = config.micro_batch * config.max_length
    streams = shape.num_hidden_layers * shape.hidden_size if config.activation_checkpointing else 0
    layer = (8 * shape.hidden_size + 6 * widest) * (1 if config.activation_checkpointing else shape.num_hidden_layers)
    parts = [
        linear * (0.516 if quantized else 2) + rest * 2,
        adapters * 10,
        tokens * (2 * streams + 4 * layer),
        4 * min(tokens, 4096) * min(shape.vocab_size, 32768),
    ]
    return round(sum(parts) / 2**30 + 0.7, 1)


def check_gpu_memory(config: ModelConfig) -> None:
    import torch

    free = torch.cuda.mem_get_info()[0] / 2**30
    if config.memory_gib and math.ceil(config.memory_gib) > free:
        raise UserError(
            f"model={config.name}: needs about {config.memory_gib} GiB of GPU memory, {free:.1f} GiB are free;"
            " lower model.micro_batch or model.max_length (and model.memory_gib with them), or take a smaller model"
        )
