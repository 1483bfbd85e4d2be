"""LoRA layers computed in four matrix products and nothing else, forwards and backwards.

PEFT's layer computes y = x W^T + s (x A^T) B^T in nine steps of its own: two casts of x, dropout, three products, the
scaling and the sum, each of which autograd repeats on the way back and most of which walk over [tokens, width]. Those
walks, not the products, are what a step of a small model on a CPU takes its time for. Here the scaling is put into B,
[width, rank], and the second product adds to the first in place:

    u = x A^T;  y = x W^T + u (s B)^T
    v = y' (s B);  x' = y' W + v A;  A' = v^T x;  B' = s y'^T u        (a prime: the gradient of the loss by it)

The same numbers but for rounding, of which there is less; a test holds losses, outputs and gradients against PEFT's.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def fuse_lora(model: Any) -> None:
    """Have the model's LoRA layers computed so wherever that is possible.

    A layer whose base is in 4 bits or learns itself, that has a bias of its own, another variant (DoRA), active dropout
    or several adapters at once is computed by PEFT as ever, call by call.
    """
    from peft.tuners.lora import Linear

    for layer in model.modules():
        if type(layer) is Linear:
            layer.forward = functools.partial(_forward, layer, layer.forward)


def _forward(layer: Any, plain: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    import torch

    names = [name for name in layer.active_adapters if name in layer.lora_A]
    base = layer.base_layer
    if (
        args
        or kwargs
        or layer.disable_adapters
        or layer.merged
        or len(names) != 1
        or names[0] in layer.lora_variant
        or layer.lora_B[names[0]].bias is not None
        or (layer.training and not isinstance(layer.lora_dropout[names[0]], torch.nn.Identity))
        or type(base) is not torch.nn.Linear
        or base.weight.requires_grad
    ):
        return plain(x, *args, **kwargs)
    a, b = layer.lora_A[names[0]].weight, layer.lora_B[names[0]].weight
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return _function().apply(x.to(dtype), base.weight, base.bias, a, b, layer.scaling[names[0]])


@functools.cache
def _function() -> Any:
    import torch

    class Adapted(torch.autograd.Function):
        """x [..., in], weight [out, in], bias [out] or None, a [rank, in], b [out, rank] -> [..., out] in x's dtype."""

        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, bias: Any, a: Any, b: Any, scaling: float) -> Any:
            rows, weight = x.reshape(-1, x.shape[-1]), weight.to(x.dtype)
            down, up = a.to(x.dtype), (b * scaling).to(x.dtype)
            inner = rows @ down.T
            out = rows @ weight.T if bias is None else torch.addmm(bias.to(x.dtype), rows, weight.T)
            out.addmm_(inner, up.T)
            ctx.save_for_backward(rows, weight, down, up, inner)
            ctx.shape, ctx.scaling, ctx.dtypes = x.shape, scaling, (a.dtype, b.dtype)
            return out.view(*x.shape[:-1], -1)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            rows, weight, down, up, inner = ctx.saved_tensors
            grad = grad.reshape(-1, grad.shape[-1]).to(rows.dtype)
            back = grad @ up
            by_x = None
            if ctx.needs_input_grad[0]:
                by_x = (grad @ weight).addmm_(back, down).view(ctx.shape)
            by_a = (back.T @ rows).to(ctx.dtypes[0])
            by_b = (grad.T @ inner).to(ctx.dtypes[1]) * ctx.scaling
            return by_x, None, None, by_a, by_b, None

    return Adapted
