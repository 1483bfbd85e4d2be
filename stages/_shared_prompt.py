"""Answers to one prompt that share a row: the prompt is computed once, and the answers do not see each other.

A batch of preference pairs holds every prompt twice, one of sampled groups as often as there are samples. Under causal
attention the hidden states of a common prefix are the same in all of these rows, so a row [prefix, rest of the first,
rest of the second, ...] gives all of them, with positions that start again behind the prefix and a mask that hides the
rests from each other. With a prompt of p tokens and n answers of a, a forward pass sees p + n a tokens in place of
n (p + a). The same numbers but for rounding; tests hold losses and gradients equal.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def share_prompts(model: Any, group: int | None = None, multiple: int = 1) -> str | None:
    """Have this model (with an LM head or a score, or as a PEFT model) compute its batches so; else why it cannot.

    A batch is `input_ids` [N, L] with their `attention_mask`, padded on either side. `group` rows that follow each
    other have one prompt; None: the rows of the second half have the prompts of the first, as TRL's collator writes
    pairs. Rows that have no prefix in common, or are no whole number of groups, are computed as they always were, and
    so is a forward pass with a cache. Lengths of shared rows are padded to a `multiple`.
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
    count = group or 2

    @functools.wraps(forward)
    def shared(input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> Any:
        if kwargs.get("past_key_values") is not None or len(input_ids) % count:  # generation; a row to look at
            return forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        order = None if group else _pairs_together(input_ids)
        rows = (input_ids, attention_mask) if order is None else (input_ids[order], attention_mask[order])
        ids, positions, mask, places = pack(*rows, count, multiple)
        outputs = forward(**(kwargs | {"input_ids": ids, "position_ids": positions, "attention_mask": mask}))
        hidden = outputs.last_hidden_state
        if order is not None:
            places = places[order.argsort()]
        outputs.last_hidden_state = hidden.flatten(0, 1).index_select(0, places.flatten()).view(*input_ids.shape, -1)
        return outputs

    backbone.forward = shared
    return None


def pack(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, group: int, multiple: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids and positions [B, M], mask [B, 1, M, M] (true: may be seen), and of each given id, [B * group, L], the place
    in B * M.
    """
    import torch

    length, device = input_ids.shape[1], input_ids.device
    place = torch.arange(length, device=device)
    begins = attention_mask.argmax(1, keepdim=True)  # behind the padding on the left
    ids = input_ids.gather(1, (begins + place).clamp(max=length - 1)).view(-1, group, length)
    lengths = attention_mask.sum(1).view(-1, group, 1)
    real = place < lengths
    prefix = ((ids == ids[:, :1]) & real).all(1).long().cumprod(1).sum(1)[:, None, None]
    rests = lengths - prefix
    starts = prefix + rests.cumsum(1) - rests
    width = int((starts + rests).max())
    width = -(-width // multiple) * multiple

    into = torch.where(place < prefix, place, place - prefix + starts)
    owner = torch.where(place < prefix, 0, torch.arange(1, group + 1, device=device)[:, None])

    def packed(values: torch.Tensor, padding: int) -> torch.Tensor:
        """The values of real tokens at their places; those of the prefix are written `group` times, always the same."""
        found = values.new_full((len(ids), width + 1), padding)
        index = torch.where(real, into, width)
        return found.scatter_(1, index.flatten(1), values.expand_as(ids).flatten(1))[:, :width]

    owners = packed(owner, group + 1)
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    mask = causal & ((owners == 0)[:, None, :] | (owners[:, None, :] == owners[:, :, None]))
    first = width * torch.arange(len(ids), device=device)[:, None, None]
    places = (first + into.clamp(max=width - 1)).flatten(0, 1).gather(1, (place - begins).clamp(min=0))
    return packed(ids, 0), packed(place, 0), mask[:, None], places


def _pairs_together(input_ids: torch.Tensor) -> torch.Tensor:
    """The order in which each row of the second half follows its own of the first."""
    import torch

    return torch.arange(len(input_ids), device=input_ids.device).view(2, -1).T.flatten()
