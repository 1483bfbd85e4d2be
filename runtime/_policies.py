"""What can answer: a checkpoint on this machine, or any function that gives a completion's text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import dialects
from data.transcript import Expected, Message, Reading, Request, Tool
from runtime._results import Answer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class TextPolicy:
    """A policy made of a function: it gets tools and messages, and gives the completion, whole or in pieces.

    For models behind other interfaces. It renders the prompt, so it is up to it that what tools return cannot pass for
    control tokens; it tells no P(call).
    """

    def __init__(
        self, complete: Callable[[Sequence[Tool], Sequence[Message]], str | Iterable[str]], dialect: str = "native"
    ) -> None:
        self._complete, self._dialect = complete, dialects.get(dialect)

    def stream(self, tools: Sequence[Tool], messages: Sequence[Message]) -> Iterator[str | Answer]:
        """The pieces, then what the dialect reads in all of them."""
        found = self._complete(tools, messages)
        pieces: list[str] = []
        for piece in [found] if isinstance(found, str) else found:
            pieces.append(piece)
            yield piece
        text = "".join(pieces)
        yield Answer(text, self._dialect.read(text, tools))


class LocalModel:
    """A model of this process: greedy, prompted as in training, with P(call) as stages/_p_call.py takes it."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        dialect: str = "native",
        max_new_tokens: int = 256,
    ) -> None:
        from stages._p_call import Openings
        from stages._sampling import stop_ids

        self._model, self._tokenizer, self._dialect = model.eval(), tokenizer, dialects.get(dialect)
        self._max_new_tokens = max_new_tokens
        self._stops = stop_ids(model, tokenizer)
        self._room = getattr(model.config, "max_position_embeddings", None)
        self._lock = threading.Lock()  # the tokenizer is not made for threads; and one step at a time is fastest
        self._openings = Openings(tokenizer, self._dialect)

    @classmethod
    def load(
        cls,
        path: str | Path,
        adapter: str | Path | None = None,
        dialect: str = "native",
        max_new_tokens: int = 256,
        **settings: Any,
    ) -> LocalModel:
        """A checkpoint's folder or hub id, as stage=merge writes it; or a base with `adapter`, a PEFT folder.

        `settings` are those of the model group (quantization, chat_template, …). A mistake is a UserError.
        """
        from stages._model import ModelConfig, load_base, load_policy, load_tokenizer

        config = ModelConfig(path=str(path), dialect=dialect, **settings)
        model = load_policy(config, Path(adapter)) if adapter else load_base(config)
        return cls(model, load_tokenizer(config), dialect, max_new_tokens)

    def stream(self, tools: Sequence[Tool], messages: Sequence[Message]) -> Iterator[str | Answer]:
        """Text as it is decoded, then the Answer. A conversation that cannot be rendered, or is too long, has none."""
        from stages import _control
        from stages._decoding import walk
        from stages._p_call import Written
        from stages._sampling import TemplateError, encode, prompt_of

        request = Request("", "", tuple(tools), tuple(messages), Expected("answer"))
        try:
            with self._lock:
                prompt = encode(self._tokenizer, prompt_of(self._tokenizer, self._dialect, request))
                watch = self._openings.watch(tools)
        except TemplateError as error:
            yield _unanswered(str(error))
            return
        if self._room and len(prompt) + self._max_new_tokens > self._room:
            yield _unanswered(f"the conversation is too long: {len(prompt)} tokens, {self._room} with the answer")
            return
        ids: list[int] = []
        text, ended = Written(self._tokenizer), False
        steps = walk(self._model, prompt, self._max_new_tokens, self._stops)
        while True:
            with self._lock:  # of one step: several conversations take turns
                step = next(steps, None)
                if step is None:
                    break
                token, logits = step
                ended = token in self._stops
                if not watch.settled:
                    watch.see(logits, token, ended)
                if not ended:
                    ids.append(token)
                piece = "" if ended else text.add(token)
            if piece:
                yield piece
        with self._lock:
            rest, whole = text.rest(), _control.plain(_control.text_of(self._tokenizer, ids))
        if rest:
            yield rest
        yield Answer(whole, self._dialect.read(whole, tools), watch.probability, truncated=not ended)


def _unanswered(reason: str) -> Answer:
    return Answer("", Reading(False, (), "", (reason,)))
