"""What a policy answers, what a request is routed to, and what happens while an agent works on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from data.transcript import Act, Message, Reading, Tool, ToolCall


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion: its text as people see it, and what its dialect reads in it.

    `probability` is P(call) in [0, 1]: the mass that the policy gave to opening a call; None where it cannot tell.
    `truncated` says that the completion ran into its limit.
    """

    text: str
    reading: Reading
    probability: float | None = None
    truncated: bool = False


class Policy(Protocol):
    """What answers. It may be asked from several threads, one conversation each."""

    def stream(self, tools: Sequence[Tool], messages: Sequence[Message]) -> Iterator[str | Answer]:
        """Pieces of the completion's text as they come, calls as the model writes them; then the Answer, once."""
        ...


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls to make: at least one; each names a tool on offer, fits its schema, and has an id of its own."""

    calls: tuple[ToolCall, ...]
    text: str = ""
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class NoCall:
    """No tool is called. `text` answers the user; in the router dialect it is the reason why. `act` says whether it
    reads as an answer, a question back (ask) or a refusal (refuse).
    """

    text: str
    act: Act
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Invalid:
    """Nothing that could be acted on: why, for a log, and what to say to the user instead. `text` is the completion."""

    reason: str
    ask: str
    text: str = ""
    probability: float | None = None


Route = Calls | NoCall | Invalid


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of the completion, as the model writes it: calls and the form of a dialect are in it too."""

    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A call that is about to be made."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Returned:
    """What came of a call, as the model is told it: text, or JSON. `failed`: no result, `{"error": …}` in its place."""

    call: ToolCall
    content: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an agent's work, and always its last event.

    `text` is for the user. `stop`: the model answered; its turn was invalid, and `reason` says why; or it still called
    when the bound was reached. `messages` is the whole conversation, to go on with; `made` the calls that were made.
    """

    text: str
    stop: Literal["answer", "invalid", "bound"]
    reason: str = ""
    messages: tuple[Message, ...] = field(default=(), repr=False)
    made: tuple[ToolCall, ...] = ()


Event = Piece | Called | Returned | Done


def messages_of(request: str | Sequence[Message]) -> tuple[Message, ...]:
    """A conversation: a text is its one user turn. ValueError where it is not the assistant's turn to speak."""
    messages = (Message("user", request),) if isinstance(request, str) else tuple(request)
    if not messages or messages[-1].role not in ("user", "tool"):
        raise ValueError("a request ends in a turn of the user, or in a tool's result")
    return messages
