"""Greedy decoding that holds calls to a grammar from the moment they open, and leaves all other text alone.

Whether to call stays the model's own decision: a grammar that forced calls would make every request without one a false
call. What is repaired is how a call is written: its syntax, a name on offer, arguments that fit the schema. Held beside
free decoding, it says how much of a gain is only that.

The library is llguidance: one wheel of 3 MB without dependencies, masks in microseconds, a schema it cannot express is
an error rather than a weaker grammar. xgrammar, the other one that is kept well, brings torch and triton.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from data.dialects import _blocks
from data.jsontext import canonical
from data.transcript import Expected, Message, Request, Tool, ToolCall
from stages._errors import UserError
from stages._grammar import FORMS, grammar

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_PROBE = Tool("look", "Looks.", {"type": "object", "properties": {}})


def check(dialect: str) -> None:
    """UserError for a dialect whose calls no grammar is written for."""
    if dialect not in FORMS:
        raise UserError(
            f"evaluate.constrained: calls of model.dialect={dialect} are no JSON, which the grammar needs;"
            f" it works for {', '.join(FORMS)}"
        )


class Guide:
    """The grammars of some requests' calls, for one tokenizer and dialect.

    `loosened` has, by reason, the tools whose schemas cannot be expressed and whose arguments are any JSON object;
    `released` counts, by reason, answers that were let go because the library gave up on them.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, name: str, dialect: ModuleType, requests: Sequence[Request]
    ) -> None:
        from llguidance.hf import from_tokenizer

        check(name)
        if not tokenizer.is_fast:
            raise UserError("evaluate.constrained: the grammar needs a tokenizer that has a tokenizer.json")
        self.form = FORMS[name]
        if self.form.tagged:
            _check_template(tokenizer, dialect)
        self.tokenizer = from_tokenizer(tokenizer)
        close = tokenizer.get_added_vocab().get(_blocks.CLOSE)
        # A token of its own is no text to the library, and does not match the tag's letters.
        self.close = close if close is not None and self.tokenizer.is_special_token(close) else None
        self.loosened: dict[str, list[str]] = {}
        self.released: Counter[str] = Counter()
        self._loose: set[bytes] = set()
        for schema, tools in _by_schema(requests).items():
            matcher = self._matcher(grammar(self.form, tools[:1]))
            if matcher.is_error():
                self._loose.add(schema)
                self.loosened.setdefault(_reason(matcher), []).extend(tool.name for tool in tools)

    def hold(self, requests: Sequence[Request], stops: frozenset[int]) -> Hold:
        """What decoding asks for its tokens: a row for each request, in this order."""
        return Hold([Answer(self, request.tools, stops) for request in requests])

    def matcher(self, tools: Sequence[Tool]) -> Any:
        """A matcher of what follows an opening."""
        loose = {tool.name for tool in tools if canonical(tool.parameters) in self._loose}
        return self._matcher(grammar(self.form, tools, loose, self.close))

    def notes(self) -> list[str]:
        """What was not held to its schema, in words."""
        lines = [
            f"arguments of {len(names)} tools ({', '.join(names[:3])}{', …' * (len(names) > 3)}) are held to any JSON"
            f" object, not to their schema: {reason}"
            for reason, names in self.loosened.items()
        ]
        return lines + [f"{count} answers were let go while they called: {why}" for why, count in self.released.items()]

    def _matcher(self, text: str) -> Any:
        from llguidance import LLMatcher

        return LLMatcher(self.tokenizer, text, log_level=0)


class Answer:
    """One answer as it is written: its bytes, and the matcher of the call that is open in it, if one is."""

    def __init__(self, guide: Guide, tools: Sequence[Tool], stops: frozenset[int]) -> None:
        self.guide, self.tools, self.stops = guide, tools, stops
        self.text = b""
        self.free_from = 0
        self.matcher: Any = None
        self.over = False

    def take(self, token: int) -> bool:
        """Write this token, if it may stand here."""
        if token in self.stops:
            self.over = self.matcher is None or self.matcher.is_accepting()
            return self.over
        if self.matcher is None:
            return self._take_free(token)
        if not self.matcher.try_consume_tokens([token]):
            return False
        self.text += self.guide.tokenizer.decode_bytes([token])
        if self.guide.form.tagged and self.matcher.is_stopped():
            self.matcher, self.free_from = None, len(self.text)
        return True

    def _take_free(self, token: int) -> bool:
        """A token that opens a call may hold more than the opening, and then has to fit the grammar too."""
        text = self.text + self.guide.tokenizer.decode_bytes([token])
        opening = self.guide.form.opening(text, self.free_from) if self.tools else None
        if opening is not None:
            self.matcher = self.guide.matcher(self.tools)
            rest = self.guide.tokenizer.tokenize_bytes(text[opening:])
            fits = self.matcher.try_consume_tokens(rest) == len(rest)
            if self.matcher.is_error():
                self._release()
            elif not fits:
                self.matcher = None
                return False
        self.text = text
        return True

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits of shape (vocabulary,) with those at -inf that may not stand here."""
        import numpy
        import torch

        if self.matcher is None:
            return logits
        bits = numpy.unpackbits(numpy.frombuffer(self.matcher.compute_bitmask(), numpy.uint8), bitorder="little")
        allowed = torch.zeros(len(logits), dtype=torch.bool)
        allowed[: len(bits)] = torch.from_numpy(bits[: len(logits)].astype(bool))
        allowed[list(self.stops)] = self.matcher.is_accepting()
        if self.matcher.is_error() or not allowed.any():
            self._release()
            return logits
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))

    def _release(self) -> None:
        """The library gave up: what comes is free to its end, and counted."""
        self.guide.released[_reason(self.matcher)] += 1
        self.matcher, self.tools = None, ()


class Hold:
    """The answers of a batch. Called with logits and the rows they are of, it gives the tokens to write."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = answers

    def __call__(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """The highest logit of each row that may stand there; logits (rows, vocabulary), rows (rows,)."""
        best = logits.argmax(-1)
        tokens = best.tolist()
        for place, row in enumerate(rows.tolist()):
            answer, token = self.answers[row], tokens[place]
            if answer.over or answer.take(token):  # mostly it may, and no mask is needed
                continue
            left = answer.mask(logits[place].clone())
            while not answer.take(token):
                left[token] = float("-inf")
                token = int(left.argmax())
            best[place] = token
        return best


def _by_schema(requests: Sequence[Request]) -> dict[bytes, list[Tool]]:
    """The tools on offer, each name once, by what their schemas say."""
    found: dict[bytes, dict[str, Tool]] = {}
    for tool in (tool for request in requests for tool in request.tools):
        found.setdefault(canonical(tool.parameters), {})[tool.name] = tool
    return {schema: [*named.values()] for schema, named in found.items()}


def _reason(matcher: Any) -> str:
    """What the library says of its error, without the grammar that it quotes."""
    return str(matcher.get_error()).partition("\n")[0].rpartition("schema: ")[2] or "no token fits"


def _check_template(tokenizer: PreTrainedTokenizerBase, dialect: ModuleType) -> None:
    """UserError where the template writes calls in another way than in tags, which would never be seen to open."""
    from stages._sampling import TemplateError, completion_of

    request = Request("probe", "", (_PROBE,), (Message("user", "hello"),), Expected("call"))
    try:
        written = completion_of(tokenizer, dialect, request, Message("assistant", tool_calls=(ToolCall("look", {}),)))
    except TemplateError as error:
        raise UserError(f"evaluate.constrained: {error}") from None
    if _blocks.OPEN not in written:
        raise UserError(
            f"evaluate.constrained: the chat template writes calls without {_blocks.OPEN}, by which they are seen to"
            " open; choose model.dialect=hermes or json, or a model.chat_template"
        )
