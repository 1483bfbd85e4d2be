"""Pairs whose prompt is computed once: chosen and rejected share a row, and do not see each other.

A batch of pairs holds every prompt twice. Under causal attention the hidden states of a common prefix are the same in
both rows, so a row [prefix, rest of chosen, rest of rejected] gives all of them, with positions that start again behind
the prefix and a mask that hides the one rest from the other. With a prompt of p tokens and answers of a, a forward pass
sees p + 2 a tokens in place of 2 (p + a). The same numbers but for rounding; a test holds losses and gradients equal.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def share_prompts(model: Any) -> str | None:
    """Have this model (with an LM head or a score, or as a PEFT model) compute batches [chosen rows, rejected rows] so;
    else why it cannot.

    The batch is what TRL's collator makes: right-padded `input_ids` [2 B, L] with their `attention_mask`.
    A forward pass with a cache is computed as it always was.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = causal.config.get_text_config()
    if causal.config is not config:
        return "the model takes more than text"
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return "some of its layers do not attend to everything"
    if config._attn_implementation != "sdpa":
        return f"its attention is {config._attn_implementation}, which takes no mask of ours"
    backbone = causal.base_model
    forward = backbone.forward

    @functools.wraps(forward)
    def shared(input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> Any:
        if kwargs.get("past_key_values") is not None:  # generation, whose rows are no pairs
            return forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        ids, positions, mask, places = pack(input_ids, attention_mask)
        outputs = forward(**(kwargs | {"input_ids": ids, "position_ids": positions, "attention_mask": mask}))
        hidden = outputs.last_hidden_state
        rows = hidden.reshape(-1, hidden.shape[-1]).index_select(0, places.flatten())
        outputs.last_hidden_state = rows.view(*input_ids.shape, -1)
        return outputs

    backbone.forward = shared
    return None


def pack(
    input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids and positions [B, M], mask [B, 1, M, M] (true: may be seen), and for each of [2 B, L] its place in B * M."""
    import torch

    pairs, length = input_ids.shape[0] // 2, input_ids.shape[1]
    device = input_ids.device
    lengths = attention_mask.sum(1)
    chosen_length, rejected_length = lengths[:pairs], lengths[pairs:]
    both = attention_mask[:pairs].bool() & attention_mask[pairs:].bool()
    same = (input_ids[:pairs] == input_ids[pairs:]) & both
    prefix = same.long().cumprod(1).sum(1)
    width = int((chosen_length + rejected_length - prefix).max())

    place = torch.arange(width, device=device).expand(pairs, -1)
    behind = place >= chosen_length[:, None]  # the rest of rejected, then padding
    positions = torch.where(behind, place - chosen_length[:, None] + prefix[:, None], place).clamp(max=length - 1)
    ids = torch.where(behind, input_ids[pairs:].gather(1, positions), input_ids[:pairs].gather(1, positions))
    causal = place[:1, :, None] >= place[:1, None, :]
    foreign = behind[:, :, None] & (place >= prefix[:, None])[:, None, :] & ~behind[:, None, :]
    mask = (causal & ~foreign)[:, None]

    wanted = torch.arange(length, device=device).expand(pairs, -1)
    moved = torch.where(wanted < prefix[:, None], wanted, wanted - prefix[:, None] + chosen_length[:, None])
    first = torch.arange(pairs, device=device)[:, None] * width
    places = torch.cat([first + wanted.clamp(max=width - 1), first + moved.clamp(max=width - 1)])
    return ids, positions, mask, places
