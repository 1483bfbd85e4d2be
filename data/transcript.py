"""The words of the project as types: tools, calls, messages, transcripts, and the requests a model is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
Act = Literal["call", "answer", "ask", "refuse"]
Fenced = Literal["", "code", "json"]
ACTS: tuple[Act, ...] = ("call", "answer", "ask", "refuse")


class RowError(ValueError):
    """A row of a data file that cannot be used: where it stands, which field, what is wrong and what would be right.

    `code` is one word for counting, with its meaning in stages/_problems.py.
    """

    def __init__(self, place: str, field: str, message: str, code: str = "field") -> None:
        super().__init__(f"{place}: {field}: {message}")
        self.place, self.field, self.message, self.code = place, field, message, code


class DataError(ValueError):
    """Data that cannot be used as a whole: one line for each mistake, with the place and the way out."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = list(lines)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool on offer. `parameters` is a JSON Schema of type object; `changes`, what was put right to make it one."""

    name: str
    description: str
    parameters: dict[str, Any]
    changes: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def as_function(self) -> dict[str, Any]:
        """The shape chat templates expect in `tools=`."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        }


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call as a model writes it. `id` links a tool result to its call, where the data has ids."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. An assistant turn holds text, calls, or both; a tool turn holds the result of one call."""

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    def as_chat(self) -> dict[str, Any]:
        """The shape chat templates expect; arguments stay objects, because some templates encode strings twice."""
        chat: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            chat["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                | ({"id": call.id} if call.id else {})
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            chat["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            chat["name"] = self.name
        return chat


@dataclass(frozen=True, slots=True)
class AcceptedCall:
    """A right call: each argument with the list of values that count as right; those in `optional` may be left out."""

    name: str
    arguments: dict[str, list[Any]]
    optional: tuple[str, ...] = ()

    @classmethod
    def exactly(cls, call: ToolCall) -> AcceptedCall:
        return cls(call.name, {key: [value] for key, value in call.arguments.items()})


@dataclass(frozen=True, slots=True)
class Expected:
    """What is right: the act, the accepted calls where it is a call, and a reference text.

    A text act with `text=None` has no single right wording: any answer that is no call, question or refusal is right.
    `lacking` names the required arguments that a question has to ask for, where the source says which.
    """

    act: Act
    calls: tuple[AcceptedCall, ...] = ()
    text: str | None = None
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """Tools and messages. `expected`, where the source knows it, holds one entry for each assistant turn, in order.

    An entry that is None says that the turn itself is what is right. `source` is what a Request says of it, `language`
    what the row names as its language.
    """

    id: str
    tools: tuple[Tool, ...]
    messages: tuple[Message, ...]
    kind: str = ""
    expected: tuple[Expected | None, ...] = ()
    source: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What the model is asked: tools, messages up to where the assistant speaks, and what would be right there.

    `gold` is the assistant turn of the data, `rejected` one that the data says is worse, `others` one for each act that
    is not right, where the data has such; `unseen` says that no offered tool occurs in the training transcripts.
    `source` names what it was made from, where something says that: the tool and the wording, the row, the
    conversation. Requests of one source are answered alike, and count as one where chance is estimated.
    """

    id: str
    kind: str
    tools: tuple[Tool, ...]
    messages: tuple[Message, ...]
    expected: Expected
    gold: Message | None = None
    unseen: bool = False
    rejected: Message | None = None
    others: dict[Act, Message] = field(default_factory=dict)
    source: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a dialect read out of a completion. `text` is what remains when the calls are taken out.

    `malformed` without an attempt is text that is not said in the way the dialect has for it. `fenced` says, of a text
    that reads as an attempt only for its code blocks, what these hold: lines of a program or JSON.
    """

    attempt: bool
    calls: tuple[ToolCall, ...] = ()
    text: str = ""
    malformed: tuple[str, ...] = field(default=())
    fenced: Fenced = ""


# Rules, not a model: they only tell a question and a refusal from an answer, and rewards weigh them lightly for it.
_REFUSAL = re.compile(
    r"\b(?:i\s+(?:can(?:no|')t|cannot|am\s+(?:not\s+able|unable)|do(?:n't|\s+not)\s+have|have\s+no|lack)"
    r"|i'm\s+(?:not\s+able|unable|sorry)|unable\s+to|none\s+of\s+(?:the|my)\s+tools|no\s+tool)\b",
    re.IGNORECASE,
)
# Each refusal holds one of these, and they are found sooner than it.
_REFUSING = ("can't", "cannot", "able", "have", "lack", "sorry", "tool")


# A question that asks for nothing in particular: an offer of help at the end of a greeting.
_OFFER = re.compile(
    r"\b(?:how|what|anything|something)\b[^.!?]*\b(?:help|do\s+for|assist)\b[^.!?]*\?\s*$", re.IGNORECASE
)


def text_act(text: str) -> Act:
    """Tell which act a text without a call is: a refusal, a question back to the user, or an answer."""
    folded = text.casefold()
    if any(word in folded for word in _REFUSING) and _REFUSAL.search(text):
        return "refuse"
    stripped = text.rstrip()
    if not stripped.endswith("?"):
        return "answer"
    last_sentence = max(stripped.rfind(mark, 0, -1) for mark in ".!?") + 1
    return "answer" if _OFFER.search(stripped, last_sentence) else "ask"


def expected_of(turn: Message) -> Expected:
    """What a transcript's own assistant turn says is right, for sources that say no more than that."""
    if turn.tool_calls:
        return Expected("call", tuple(AcceptedCall.exactly(call) for call in turn.tool_calls), turn.content or None)
    act = text_act(turn.content)
    return Expected(act, text=turn.content or None)


def transcript_of(request: Request) -> Transcript | None:
    """The request with its gold turn, to learn from; None where it has none."""
    if request.gold is None:
        return None
    messages = (*request.messages, request.gold)
    before = sum(turn.role == "assistant" for turn in request.messages)
    expected = (*[None] * before, request.expected)
    return Transcript(request.id, request.tools, messages, request.kind, expected, request.source, request.language)


def requests_of(transcript: Transcript) -> list[Request]:
    """One request for each assistant turn, with the messages before it; ids are `<transcript id>/<turn>`.

    Those of one conversation are of one source: the transcript's, or its id.
    """
    turns = [place for place, message in enumerate(transcript.messages) if message.role == "assistant"]
    if transcript.expected and len(transcript.expected) != len(turns):
        raise ValueError(
            f"{transcript.id}: {len(transcript.expected)} expected entries for {len(turns)} assistant turns"
        )
    known = transcript.expected or (None,) * len(turns)
    return [
        Request(
            id=transcript.id if len(turns) == 1 else f"{transcript.id}/{number}",
            kind=transcript.kind,
            tools=transcript.tools,
            messages=transcript.messages[:place],
            expected=expected or expected_of(transcript.messages[place]),
            gold=transcript.messages[place],
            source=transcript.source or (transcript.id if len(turns) > 1 else None),
            language=transcript.language,
        )
        for number, (place, expected) in enumerate(zip(turns, known, strict=True))
    ]


def mark_unseen(requests: Sequence[Request], trained: Sequence[Transcript]) -> list[Request]:
    """Set `unseen` on the requests none of whose offered tools occurs, by name, in the training transcripts."""
    names = {tool.name for transcript in trained for tool in transcript.tools}
    return [
        replace(request, unseen=bool(request.tools) and not any(tool.name in names for tool in request.tools))
        for request in requests
    ]
