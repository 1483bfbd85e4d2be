"""What can answer: a checkpoint on this machine, or any function that gives a completion's text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import dialects
from data.dialects import _attempt
from data.transcript import Expected, Message, Reading, Request, Tool, ToolCall
from runtime._results import Answer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PROBE = "zqxj"
_CUT = "\ufffd"  # what bytes that are no whole character yet decode to


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
    """A model of this process: greedy, prompted as in training, with P(call).

    P(call) is taken at the first token that shows (thoughts do not). Where declining is plain text, it is the mass of
    the tokens that open a call, as dialect and template write one to each tool on offer. Where declining has a form, as
    in the router dialect, it is 1 - P(that form opens); the form is followed for as long as the model follows it, so
    where it turns to a call, P(call) may be somewhat more than this.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        dialect: str = "native",
        max_new_tokens: int = 256,
    ) -> None:
        from stages._sampling import stop_ids

        self._model, self._tokenizer, self._dialect = model.eval(), tokenizer, dialects.get(dialect)
        self._max_new_tokens = max_new_tokens
        self._stops = stop_ids(model, tokenizer)
        self._room = getattr(model.config, "max_position_embeddings", None)
        self._openers: dict[str, frozenset[int]] = {}
        self._lock = threading.Lock()  # the tokenizer is not made for threads; and one step at a time is fastest
        self._decline = self._declining()

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
        from stages._sampling import TemplateError, encode, prompt_of

        request = Request("", "", tuple(tools), tuple(messages), Expected("answer"))
        try:
            with self._lock:
                prompt = encode(self._tokenizer, prompt_of(self._tokenizer, self._dialect, request))
                watch = _Watch(self._opening(tools), self._decline) if tools else None
        except TemplateError as error:
            yield _unanswered(str(error))
            return
        if self._room and len(prompt) + self._max_new_tokens > self._room:
            yield _unanswered(f"the conversation is too long: {len(prompt)} tokens, {self._room} with the answer")
            return
        ids: list[int] = []
        text, ended = _Text(self._tokenizer), False
        steps = walk(self._model, prompt, self._max_new_tokens, self._stops)
        while True:
            with self._lock:  # of one step: several conversations take turns
                step = next(steps, None)
                if step is None:
                    break
                token, logits = step
                if watch and not watch.settled:
                    watch.see(logits, token, not _attempt.without_thinking(text.said).strip())
                ended = token in self._stops
                if not ended:
                    ids.append(token)
                piece = "" if ended else text.add(token)
            if piece:
                yield piece
        with self._lock:
            rest, whole = text.rest(), _control.plain(_control.text_of(self._tokenizer, ids))
        if rest:
            yield rest
        probability = watch.probability if watch else None
        yield Answer(whole, self._dialect.read(whole, tools), probability, truncated=not ended)

    def _opening(self, tools: Sequence[Tool]) -> frozenset[int]:
        """The first tokens of turns that call these tools, one of them or several."""
        from stages._sampling import TemplateError, completion_of, encode

        request = Request("", "", (), (Message("user", _PROBE),), Expected("call"))
        for tool in tools:
            if tool.name in self._openers:
                continue
            found = set()
            call = ToolCall(tool.name, {_PROBE: _PROBE}, "call_0")
            for calls in ((call,), (call, ToolCall(tool.name, {}, "call_1"))):
                try:
                    turn = Message("assistant", tool_calls=calls)
                    text = completion_of(self._tokenizer, self._dialect, request, turn)
                except TemplateError:  # some templates take one call a turn
                    continue
                found.add(encode(self._tokenizer, text)[0])
            self._openers[tool.name] = frozenset(found)
        return frozenset().union(*(self._openers[tool.name] for tool in tools))

    def _declining(self) -> tuple[int, ...]:
        """The tokens that open a turn that declines, where the dialect has a form for that."""
        from stages._sampling import completion_of, encode

        probe = Tool(_PROBE, _PROBE, {"type": "object", "properties": {}})
        plain = self._dialect.read(_PROBE, (probe,))
        if not plain.malformed or plain.attempt:
            return ()
        request = Request("", "", (probe,), (Message("user", _PROBE),), Expected("answer"))
        turns = [
            encode(self._tokenizer, completion_of(self._tokenizer, self._dialect, request, Message("assistant", text)))
            for text in (_PROBE, "3")
        ]
        length = next((place for place, pair in enumerate(zip(*turns, strict=False)) if len(set(pair)) > 1), 0)
        return tuple(turns[0][:length])


def _unanswered(reason: str) -> Answer:
    return Answer("", Reading(False, (), "", (reason,)))


class _Watch:
    """P(call), taken from the logits of the first steps."""

    def __init__(self, openers: frozenset[int], decline: tuple[int, ...]) -> None:
        self._openers, self._decline = sorted(openers), decline
        self.probability: float | None = None
        self.settled = False
        self._following, self._place, self._declined = True, 0, 1.0

    def see(self, logits: torch.Tensor, token: int, nothing_shown: bool) -> None:
        """Look at a step: its logits (vocabulary,), the token that was taken, and whether only thoughts or white space
        came before it.
        """
        import torch

        if nothing_shown:
            self._following, self._place, self._declined = True, 0, 1.0
        if not self._following:
            self.settled = True
            return
        masses = torch.softmax(logits.double(), -1)  # float32 has no number between 1 and 1 - 6e-8
        if not self._decline:
            self.probability, self._following = float(masses[self._openers].sum()), False
            return
        wanted = self._decline[self._place]
        self._declined *= float(masses[wanted])
        self.probability = 1.0 - self._declined
        self._place += 1
        self._following = token == wanted and self._place < len(self._decline)


class _Text:
    """Tokens as text while they come: held back where they end within a character."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = self._read = 0  # what is decoded for its neighbours, and what is said already
        self.said = ""

    def add(self, token: int) -> str:
        """What this token adds."""
        self._ids.append(token)
        new = self._new()
        if new.endswith(_CUT):
            return ""
        return self._say(new)

    def rest(self) -> str:
        """What was held back to the end."""
        return self._say(self._new())

    def _new(self) -> str:
        before = self._decoded(self._ids[self._start : self._read])
        return self._decoded(self._ids[self._start :])[len(before) :]

    def _say(self, new: str) -> str:
        self._start, self._read = self._read, len(self._ids)
        self.said += new
        return new

    def _decoded(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
