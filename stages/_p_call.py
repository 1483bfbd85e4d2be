"""P(call): the probability that an answer is a call, taken from the logits that it is written by anyway.

It is taken at the first token that shows (thoughts and white space do not). Where declining is plain text, it is the
mass of the tokens that open a call, as dialect and template write one to each tool on offer. Where declining has a
form, as in the router dialect, it is 1 - P(that form opens); the form is followed for as long as the model follows it,
so where it turns to a call, P(call) may be somewhat more than this.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from data.dialects import _attempt
from data.transcript import Expected, Message, Request, Tool, ToolCall

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_PROBE = "zqxj"
_CUT = "\ufffd"  # what bytes that are no whole character yet decode to


class Openings:
    """How turns that call and turns that decline begin, by tokenizer, template and dialect."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, dialect: ModuleType) -> None:
        self._tokenizer, self._dialect = tokenizer, dialect
        self._of_tool: dict[str, frozenset[int]] = {}
        self.decline = self._declining()

    def watch(self, tools: Sequence[Tool]) -> Watch:
        """What takes P(call) from the steps of one answer to a request that offers these tools."""
        return Watch(self._tokenizer, self.calling(tools), self.decline)

    def calling(self, tools: Sequence[Tool]) -> frozenset[int]:
        """The first tokens of turns that call these tools, one of them or several."""
        from stages._sampling import TemplateError, completion_of, encode

        request = Request("", "", (), (Message("user", _PROBE),), Expected("call"))
        for tool in tools:
            if tool.name in self._of_tool:
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
            self._of_tool[tool.name] = frozenset(found)
        return frozenset().union(*(self._of_tool[tool.name] for tool in tools))

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


class Watch:
    """P(call) of one answer; `settled` once no later step can change it.

    Without a token that opens a call, as where no tool is on offer, there is none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, openers: frozenset[int], decline: tuple[int, ...]) -> None:
        self._openers, self._decline = sorted(openers), decline
        self._written = Written(tokenizer)
        self._place, self._declined = 0, 1.0
        self._hidden: torch.Tensor | None = None  # logits of the last step, where nothing shows up to its token
        self._told: float | None = None
        self.settled = not openers

    @property
    def probability(self) -> float | None:
        """P(call); of the last step in an answer that shows nothing; None before the first one."""
        if self._told is None and self._hidden is not None:
            mass = self._mass(self._hidden)
            return 1.0 - mass if self._decline else mass
        return self._told

    def see(self, logits: torch.Tensor, token: int, ends: bool) -> None:
        """Look at the next step: its logits (vocabulary,), the token that was taken, and whether it ends the turn."""
        if not self._place and not ends:
            self._written.add(token)
            if not _attempt.without_thinking(self._written.said).strip():
                self._hidden = logits
                return
        mass, self._hidden = self._mass(logits), None
        if not self._decline:
            self._told, self.settled = mass, True
            return
        self._declined *= mass
        self._told = 1.0 - self._declined
        self.settled = token != self._decline[self._place] or self._place + 1 == len(self._decline)
        self._place += 1

    def _mass(self, logits: torch.Tensor) -> float:
        """That of the tokens that open a call, or of the next one of the form that declines."""
        wanted = [self._decline[self._place]] if self._decline else self._openers
        # In double precision: float32 has no number between 1 and 1 - 6e-8.
        return float(logits.double().softmax(-1)[wanted].sum())


class Written:
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
