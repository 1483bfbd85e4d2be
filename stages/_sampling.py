"""Text in and out of a policy: prompts and completions as the chat template renders them, and batched generation."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from data.transcript import Message, Request, Tool
from stages import _control

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stages._constrained import Guide
    from stages._job import Job

_PROBE = "zqxj"


class TemplateError(ValueError):
    """A chat template that cannot be used for this conversation, and why."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote, without the end of turn: its log-probability (at temperature 1) and its tokens.

    The log-probability is None where nobody told it: in answers of an endpoint (stages/_endpoint.py).
    `truncated` says that it ran into the limit; then nothing tells how it would have ended. `text` is for `encode`:
    control tokens that the model only spelled out are broken in it; readers and people get `_control.plain` of it.
    `ids` are its tokens as they were sampled, without `stop`, the one that it ended with. `p_call` is P(call), where it
    was asked for and is told (stages/_p_call.py).
    """

    text: str
    logprob: float | None
    tokens: int
    truncated: bool
    ids: tuple[int, ...] = ()
    stop: int | None = None
    p_call: float | None = None


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How the chat template ends an assistant turn; generation stops at the first of `ids`."""

    text: str
    ids: tuple[int, ...]


def render(tokenizer: PreTrainedTokenizerBase, tools: Any, chat: list[dict[str, Any]], prompt: bool) -> str:
    """The conversation as text; with `prompt`, up to where the assistant speaks."""
    from jinja2.exceptions import TemplateError as JinjaError

    try:
        return tokenizer.apply_chat_template(chat, tools=tools, add_generation_prompt=prompt, tokenize=False)
    except JinjaError as error:
        raise TemplateError(f"the chat template refuses this conversation: {error}") from error


def shown(
    tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, tools: Sequence[Tool], messages: Sequence[Message]
) -> tuple[Any, list[dict[str, Any]]]:
    """`tools=` and the conversation for `render`, as the dialect shows them; what they say holds no control token."""
    try:
        return dialect.show(*_control.guarded(tokenizer, tools, messages))
    except ValueError as error:
        raise TemplateError(f"the dialect cannot write this conversation: {error}") from error


def prompt_of(tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, request: Request) -> str:
    """The text that the model is given for this request, up to where it speaks."""
    tools, chat = shown(tokenizer, dialect, request.tools, request.messages)
    return render(tokenizer, tools, chat, prompt=True)


def completion_of(tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, request: Request, turn: Message) -> str:
    """What the model would have to write for this turn, without the end of turn: as `Completion.text` holds it."""
    return split_turn(tokenizer, dialect, request.tools, (*request.messages, turn))[1]


def split_turn(
    tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, tools: Sequence[Tool], messages: Sequence[Message]
) -> tuple[str, str]:
    """The text before the last message, and that message's text without its end of turn."""
    prompt = render(tokenizer, *shown(tokenizer, dialect, tools, messages[:-1]), prompt=True)
    whole = render(tokenizer, *shown(tokenizer, dialect, tools, messages), prompt=False)
    if not whole.startswith(prompt):
        raise TemplateError("the chat template renders the prompt alone and the prompt with its answer differently")
    completion, end, _ = whole[len(prompt) :].rpartition(turn_end(tokenizer).text)
    if not end:
        raise TemplateError("the chat template ends this turn in another way than a plain answer")
    return prompt, completion


def turn_end(tokenizer: PreTrainedTokenizerBase) -> TurnEnd:
    """The special tokens after an assistant turn, found by rendering one."""
    return _turn_end(tokenizer, tokenizer.chat_template)


@functools.lru_cache(maxsize=16)
def _turn_end(tokenizer: PreTrainedTokenizerBase, template: str) -> TurnEnd:
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": _PROBE}]
    text = render(tokenizer, None, chat, prompt=False).rpartition(_PROBE)[2].rstrip()
    ids = tuple(encode(tokenizer, text))
    if not ids or ids[0] not in tokenizer.added_tokens_decoder:
        raise TemplateError(f"the chat template must end a turn with a special token, not with {text!r}")
    return TurnEnd(text, ids)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of rendered text. The template has written every special token already, so none is added.

    Quiet about texts that are too long: who asks for them counts tokens, and says so in its own words.
    """
    rows = tokenizer(_control.pieces(text), add_special_tokens=False, verbose=False)["input_ids"]
    return [token for row in rows for token in row] if len(rows) > 1 else rows[0]


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end a turn: the template's, the tokenizer's, and those the checkpoint names."""
    named = getattr(model, "generation_config", None) and model.generation_config.eos_token_id
    found = {turn_end(tokenizer).ids[0], tokenizer.eos_token_id}
    found.update([named] if isinstance(named, int) else named or [])
    return frozenset(token for token in found if token is not None)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dialect: ModuleType,
    requests: Sequence[Request],
    n: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 256,
    batch_size: int = 64,
    seed: int | str = 0,
    label: str = "sampling",
    job: Job | None = None,
    guide: Guide | None = None,
    p_call: bool = False,
) -> list[list[Completion]]:
    """n completions for each request, in the order of the requests. Temperature 0 is greedy (then n is 1). With a
    guide, which is for greedy ones, calls are held to its grammar.

    Requests of like length share a batch of `batch_size` rows (a request has n of them), the longest first. Every
    sample has random numbers of its own, drawn from (seed, request, number of the sample): what it says does not
    depend on which other requests share its batch, but for rounding. With `p_call` each comes with its P(call).
    """
    import torch

    from stages._decoding import decode
    from stages._p_call import Openings

    if temperature == 0 and n > 1:
        raise ValueError("greedy decoding has one completion a request")
    if temperature > 0 and guide:
        raise ValueError("a guide is for greedy decoding")
    prompts = [encode(tokenizer, prompt_of(tokenizer, dialect, request)) for request in requests]
    order = sorted(range(len(requests)), key=lambda place: -len(prompts[place]))
    width = max(1, batch_size // n)
    batches = [order[start : start + width] for start in range(0, len(order), width)]
    stops = stop_ids(model, tokenizer)
    openings = Openings(tokenizer, dialect) if p_call else None
    results: list[list[Completion]] = [[] for _ in requests]
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in job.progress(batches, len(batches), label) if job else batches:
            noise = None
            if temperature > 0:
                names = [f"{seed}/{requests[place].id}/{number}" for place in batch for number in range(n)]
                noise = noise_of(names, max_new_tokens)
            asked = [requests[place] for place in batch]
            hold = guide.hold(asked, stops) if guide else None
            watches = [openings.watch(request.tools) for request in asked for _ in range(n)] if openings else []
            ids_of = [prompts[place] for place in batch]
            rows = decode(model, ids_of, n, max_new_tokens, stops, temperature, noise, hold, watches)
            for row, (ids, logprob, stop) in enumerate(rows):
                text, told = _control.text_of(tokenizer, ids), watches[row].probability if watches else None
                completion = Completion(text, logprob, len(ids), stop is None, tuple(ids), stop, told)
                results[batch[row // n]].append(completion)
    model.train(was_training)
    return results


def noise_of(names: list[str], length: int) -> torch.Tensor:
    """One row of uniform numbers for each name, which alone decides them."""
    import torch

    rows = []
    for name in names:
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
        rows.append(torch.rand(length, generator=torch.Generator().manual_seed(number), dtype=torch.float64))
    return torch.stack(rows)
