"""Control tokens are the template's to write: in what users, tools and data say they become ordinary text.

A tokenizer takes `<|im_end|>` for the end of a turn wherever it stands. So before a conversation is rendered, every
occurrence in a string that is not ours or the template's is broken by GUARD behind its first character, and `pieces`
cuts the rendered text there, so that no piece holds what was broken. All added tokens count, special ones or not, but
for white space. A text without any is untouched, and so are its ids. Left out: tokenizers that make control tokens out
of other characters (NFKC reads `＜` as `<`), and tokens that a template writes half of.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.transcript import Message, Tool, ToolCall

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GUARD = "\ufdd0"  # a noncharacter: Unicode keeps it for use inside programs; one in the data is written twice
_BREAK = re.compile(f"(?<!{GUARD}){GUARD}(?!{GUARD})")
# In an assistant's turn these are the thoughts of the data: templates look for them there and write them themselves.
_THOUGHT = frozenset({"<think>", "</think>"})


@dataclass(frozen=True, slots=True)
class _Controls:
    """The control tokens of a tokenizer, laid out to be found by one look-up a length wherever one may start."""

    ids: frozenset[int]
    texts: frozenset[str]
    lengths: tuple[int, ...]
    start: re.Pattern[str]

    def places(self, text: str, but: frozenset[str] = frozenset()) -> list[int]:
        """Where control tokens start, overlapping ones too."""
        return [
            place
            for place in (match.start() for match in self.start.finditer(text))
            if any((part := text[place : place + length]) in self.texts and part not in but for length in self.lengths)
        ]

    def guard(self, text: str, but: frozenset[str] = frozenset()) -> str:
        """The text with its control tokens broken."""
        if not self.start.search(text):
            return text
        cuts = [0, *(place + 1 for place in self.places(text, but)), len(text)]
        return GUARD.join(text[a:b].replace(GUARD, GUARD * 2) for a, b in itertools.pairwise(cuts))


@functools.lru_cache(maxsize=16)
def _controls(tokenizer: PreTrainedTokenizerBase) -> _Controls:
    added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
    added = {number: text for number, text in added.items() if len(text) > 1 and not text.isspace()}
    texts = frozenset(added.values())
    firsts = "".join(sorted({text[0] for text in texts} | {GUARD}))
    return _Controls(frozenset(added), texts, tuple(sorted(set(map(len, texts)))), re.compile(f"[{re.escape(firsts)}]"))


def guarded(
    tokenizer: PreTrainedTokenizerBase, tools: Sequence[Tool], messages: Sequence[Message]
) -> tuple[list[Tool], list[Message]]:
    """Tools and messages to be shown by a dialect, with no control token in anything they say."""
    guard = _controls(tokenizer).guard
    return (
        [Tool(guard(tool.name), guard(tool.description), _each(tool.parameters, guard)) for tool in tools],
        [_message(message, guard) for message in messages],
    )


def spoken(tokenizer: PreTrainedTokenizerBase, text: str, form: str = "") -> str:
    """What somebody else wrote for an assistant, to be encoded: its control tokens are broken, but those of thoughts
    and those that stand in `form`, which the template writes there itself.
    """
    controls = _controls(tokenizer)
    return controls.guard(text, _THOUGHT | {control for control in controls.texts if control in form})


def _message(message: Message, guard: Callable[..., str]) -> Message:
    return Message(
        message.role,
        guard(message.content, _THOUGHT) if message.role == "assistant" else guard(message.content),
        tuple(
            ToolCall(guard(call.name), _each(call.arguments, guard), call.id and guard(call.id))
            for call in message.tool_calls
        ),
        message.tool_call_id and guard(message.tool_call_id),
        message.name and guard(message.name),
    )


def _each(value: Any, guard: Callable[..., str]) -> Any:
    """A value of JSON with all its strings guarded, keys too."""
    if isinstance(value, str):
        return guard(value)
    if isinstance(value, dict):
        return {guard(key): _each(entry, guard) for key, entry in value.items()}
    return [_each(entry, guard) for entry in value] if isinstance(value, list) else value


def pieces(text: str) -> list[str]:
    """A rendered text, cut where something was broken; each piece is to be encoded by itself."""
    return [piece.replace(GUARD * 2, GUARD) for piece in _BREAK.split(text)] if GUARD in text else [text]


def plain(text: str) -> str:
    """A text as people and readers see it: nothing in it is broken."""
    return "".join(pieces(text))


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """What token ids say; control tokens that are spelled out in ordinary ones are broken, and encode as that again."""
    controls = _controls(tokenizer)

    def decoded(part: Sequence[int]) -> str:
        return tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    text = decoded(ids)
    if GUARD not in text and len(controls.places(text)) == sum(number in controls.ids for number in ids):
        return text
    runs = itertools.groupby(ids, key=controls.ids.__contains__)
    return "".join(decoded(list(run)) if control else controls.guard(decoded(list(run))) for control, run in runs)
