"""Several agents asked the same thing, in a terminal or on a page that only this machine's user can reach.

What models, tools and users say is put into the page as text, never as HTML.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from data import jsontext
from data.transcript import Message, Tool, ToolCall
from stages._examples import clip, visible
from stages._local_page import LocalPage

if TYPE_CHECKING:
    from runtime import Agent

MAX_LENGTH = 4000  # characters of a request
_SHOWN = 2000  # characters of a result


class Room:
    """Agents with a conversation each. One request at a time."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        self.agents = dict(agents)
        self._said: dict[str, tuple[Message, ...]] = {}
        self._lock = threading.Lock()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What is on offer to all of them."""
        return next(iter(self.agents.values())).router.tools

    def say(self, text: str) -> Iterator[dict[str, Any]]:
        """Ask every agent, one after the other; what happens, as rows of model, kind and text.

        Kinds: piece (of the completion as it is written), call, result and failed (of a call, with its id); and once
        for each model, at its end, answer, invalid (with a reason), bound, or broken where the model itself failed.
        """
        with self._lock:
            for model, agent in self.agents.items():
                try:
                    for event in agent.stream((*self._said.get(model, ()), Message("user", text))):
                        row = _row(event)
                        if row["kind"] in ("answer", "invalid", "bound"):
                            self._said[model] = event.messages  # type: ignore[union-attr]
                        yield {"model": model} | row
                except Exception as error:  # of whatever computes this model: the others answer all the same
                    yield {"model": model, "kind": "broken", "text": visible(f"{type(error).__name__}: {error}")}

    def forget(self) -> None:
        """Start all conversations anew."""
        with self._lock:
            self._said.clear()


def _row(event: Any) -> dict[str, Any]:
    from runtime import Called, Piece, Returned

    match event:
        case Piece(text):
            return {"kind": "piece", "text": visible(text)}
        case Called(call):
            return {"kind": "call", "id": call.id, "text": visible(_written(call))}
        case Returned(call, content, failed):
            shown = visible(clip(content, _SHOWN))
            return {"kind": "failed" if failed else "result", "id": call.id, "text": shown}
        case _:
            return {"kind": event.stop, "text": visible(event.text), "reason": visible(event.reason)}


def _written(call: ToolCall) -> str:
    """A call as people read it: `name({"argument": "value"})`."""
    return f"{call.name}({jsontext.dumps(call.arguments)})"


def talk(room: Room, lines: Iterable[str], prompt: str = "") -> None:
    """A conversation by lines: each is a request, /forget starts anew. Prints what each model does."""
    width = max(map(len, room.agents))
    marks = {
        "call": "->",
        "result": "<-",
        "failed": "<-",
        "answer": "  ",
        "invalid": "? ",
        "bound": "! ",
        "broken": "! ",
    }
    print(prompt, end="", flush=True)
    for line in lines:
        text = line.strip()
        if text == "/forget":
            room.forget()
        elif len(text) > MAX_LENGTH:
            print(f"at most {MAX_LENGTH} characters")
        elif text:
            for row in room.say(text):
                if row["kind"] != "piece":
                    reason = f"  ({row['reason']})" if row.get("reason") else ""
                    told = row["text"].replace("\n", f"\n{'':{width + 4}}")
                    print(f"{row['model']:{width}} {marks[row['kind']]} {told}{reason}", flush=True)
        print(prompt, end="", flush=True)


def page(room: Room, port: int = 0) -> LocalPage:
    """The page of a room; UserError for a port that is taken."""

    def about(_: str) -> dict[str, Any]:
        return {"models": list(room.agents), "tools": [tool.as_function()["function"] for tool in room.tools]}

    def say(asked: Any) -> Iterator[dict[str, Any]]:
        text = asked.get("text") if isinstance(asked, dict) else None
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_LENGTH:
            raise ValueError(f"a request is a text of at most {MAX_LENGTH} characters")
        return room.say(text.strip())

    def forget(_: Any) -> dict[str, Any]:
        room.forget()
        return {}

    return LocalPage("chat.port", port, "_chat.html", {"about": about}, {"say": say, "forget": forget})
