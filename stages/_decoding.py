"""The decoding loop: one prefill a prompt for its n samples, a cache that grows in place, finished rows taken out.

It is ours rather than `model.generate` so that every decoding parameter is an argument (a checkpoint's own
generation_config is not asked), samples have their own random numbers, and on a CPU nothing is copied at each step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import Cache, PreTrainedModel

    from stages._p_call import Watch

# Prompt tokens computed at once. On a CPU larger prefills spend their time in page faults of their activations:
# 48 prompts of 250 tokens took 1.8 s in one piece and 0.7 s in pieces (hidden 256, 6 layers, 2 threads).
PREFILL_TOKENS = {"cpu": 2048, "cuda": 65536}


def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    n: int,
    max_new_tokens: int,
    stops: frozenset[int],
    temperature: float = 0.0,
    noise: torch.Tensor | None = None,
    hold: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    watches: Sequence[Watch] = (),
) -> list[tuple[list[int], float, int | None]]:
    """For n rows of each prompt: the ids written, their log-probability at temperature 1 (the stop's too), and the stop
    that it ended with, if it did. `noise`: uniform numbers (rows, max_new_tokens), unused at temperature 0. `hold`: the
    tokens of greedy rows in place of the likeliest ones, from logits (rows left, vocabulary) and the numbers of these
    rows. `watches`: for each row what looks at its steps, or none. Longest prompts first is best.
    """
    import torch

    place = next(model.parameters()).device
    logits, cache, mask = _prefill(model, prompts, n, max_new_tokens)
    position = mask.sum(1, keepdim=True) - 1
    stop = torch.tensor(sorted(stops), device=place)
    written: list[list[int]] = [[] for _ in range(len(prompts) * n)]
    logprobs = [0.0] * len(written)
    ended: list[int | None] = [None] * len(written)
    rows = torch.arange(len(written), device=place)
    over = torch.zeros(len(written), dtype=torch.bool, device=place)
    for step in range(max_new_tokens):
        logits = logits.float()
        if temperature == 0 or noise is None:
            token = logits.argmax(-1) if hold is None else hold(logits, rows)
        else:
            # The inverse of the cumulative distribution at one uniform number: a row's draw is its own.
            heights = torch.softmax(logits / temperature, -1).double().cumsum(-1)
            drawn = noise[rows.cpu(), step].to(place)[:, None] * heights[:, -1:]
            token = torch.searchsorted(heights, drawn).squeeze(1).clamp(max=logits.shape[-1] - 1)
        gain = torch.log_softmax(logits, -1).gather(1, token[:, None]).squeeze(1)
        stopped = torch.isin(token, stop)
        columns = (each.tolist() for each in (rows, over, token, gain, stopped))
        for at, (row, was_over, value, more, now) in enumerate(zip(*columns, strict=True)):
            if was_over:
                continue
            if watches and not watches[row].settled:
                watches[row].see(logits[at], value, now)
            logprobs[row] += more
            if now:
                ended[row] = value
            else:
                written[row].append(value)
        over |= stopped
        if step + 1 == max_new_tokens or bool(over.all()):
            break
        if int(over.sum()) * 4 >= len(over):  # taking rows out copies the cache: worth it for a quarter of them
            keep = (~over).nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            rows, over, token, mask, position = rows[keep], over[keep], token[keep], mask[keep], position[keep]
        position = position + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = _step(model, cache, token[:, None], mask, position)
    return list(zip(written, logprobs, ended, strict=True))


def walk(
    model: PreTrainedModel, prompt: Sequence[int], max_new_tokens: int, stops: frozenset[int]
) -> Iterator[tuple[int, torch.Tensor]]:
    """The greedy answer to one prompt, token by token, as `decode` gives it: (token, the logits it is the highest of).

    A stop is yielded too, and ends it. The logits are float32 of shape (vocabulary,).
    """
    import torch

    with torch.inference_mode():  # around each step and not around a yield, where the caller would be in it as well
        logits, cache, mask = _prefill(model, [prompt], 1, max_new_tokens)
        position = mask.sum(1, keepdim=True) - 1
    for step in range(max_new_tokens):
        logits = logits.float()
        token = logits.argmax(-1)
        yield int(token), logits[0]
        if int(token) in stops or step + 1 == max_new_tokens:
            return
        with torch.inference_mode():
            position = position + 1
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
            logits = _step(model, cache, token[:, None], mask, position)


def _step(model: PreTrainedModel, cache: Cache, ids: torch.Tensor, mask: torch.Tensor, position: Any) -> torch.Tensor:
    return model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]


def _prefill(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], n: int, room: int
) -> tuple[torch.Tensor, Cache, torch.Tensor]:
    """Logits after each prompt, the cache of all rows, left-padded, with room to grow, and their attention mask."""
    import torch
    from transformers import Cache

    place = next(model.parameters()).device
    longest = max(map(len, prompts))
    chunk = max(1, PREFILL_TOKENS[place.type] // longest)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long, device=place)
    cache = Cache(layers=[])
    logits = []
    for start in range(0, len(prompts), chunk):
        part = prompts[start : start + chunk]
        width = max(map(len, part))
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in part], device=place)
        own = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in part], device=place)
        mask[start : start + len(part), longest - width :] = own
        piece = Cache(layer_class_to_replicate=_layer_class())
        logits.append(_step(model, piece, ids, own, (own.cumsum(1) - 1).clamp(min=0)))
        if not cache.layers:
            cache.layers = [layer.widened(len(prompts) * n, longest, room) for layer in piece.layers]
        for whole, layer in zip(cache.layers, piece.layers, strict=True):
            whole.put(layer, start * n, n)
    return torch.cat(logits).repeat_interleave(n, 0), cache, mask.repeat_interleave(n, 0)


@functools.cache
def _layer_class() -> Any:
    """A cache layer that writes in place into room it has, instead of copying all it holds for each token.

    Layers with a sliding window keep everything: the attention mask hides what lies outside the window.
    """
    import torch
    from transformers.cache_utils import DynamicLayer

    class RoomyLayer(DynamicLayer):
        is_initialized: bool
        store: list[Any]

        def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
            if not self.is_initialized:
                self.is_initialized, self.dtype, self.device = True, key_states.dtype, key_states.device
                self.store, self.keys, self.values = [], key_states, value_states
                return key_states, value_states
            length, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
            self.store[0][..., length:end, :] = key_states
            self.store[1][..., length:end, :] = value_states
            self._show(end)
            return self.keys, self.values

        def widened(self, rows: int, length: int, room: int) -> RoomyLayer:
            """An empty layer like this one, for so many rows that are `length` long and have room to grow."""
            layer = RoomyLayer()
            layer.is_initialized, layer.dtype, layer.device = True, self.dtype, self.device
            layer.store = [
                torch.zeros(rows, old.shape[1], length + room, old.shape[3], dtype=old.dtype, device=old.device)
                for old in (self.keys, self.values)
            ]
            layer._show(length)
            return layer

        def put(self, other: RoomyLayer, first: int, n: int) -> None:
            """Copy another layer's rows, n times each, to the right of the rows from `first` on."""
            for mine, new in ((self.keys, other.keys), (self.values, other.values)):
                mine[first : first + n * len(new), :, -new.shape[2] :] = new.repeat_interleave(n, 0)

        def batch_select_indices(self, indices: Any) -> None:
            length = self.keys.shape[-2]
            self.store = [old[indices] for old in self.store]
            self._show(length)

        def _show(self, length: int) -> None:
            self.keys, self.values = (old[..., :length, :] for old in self.store)

    return RoomyLayer
