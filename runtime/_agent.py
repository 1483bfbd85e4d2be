"""The loop: route, make the calls, tell the model what came of them, until it answers or a bound is reached."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from data import jsontext
from data.transcript import Message, ToolCall
from runtime._execute import Executor, error
from runtime._pull import pulled
from runtime._results import Called, Calls, Done, Event, NoCall, Piece, Returned, messages_of
from runtime._router import Router

STOPPED = "I did not come to an end with this. Could you ask for less at once?"


class Agent:
    """Makes the calls that a router lets through, in the order they are written.

    `functions` has what is called for tools that the router was not given as functions; ValueError where one is
    lacking. The policy is asked at most `max_turns` times, and the calls of its last turn are not made, as nobody could
    tell what came of them; at most `max_calls` calls are made. A call that was made in this run already is not made
    again unless `repeats` allows it: a model that repeats itself must not pay twice. What is refused, fails, takes
    longer than `timeout` seconds or returns no JSON is told to the model as `{"error": …}`, and the loop goes on.
    Results are cut to `max_result` characters. An agent can work on several conversations at once.
    """

    def __init__(
        self,
        router: Router,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        *,
        timeout: float = 30.0,
        max_turns: int = 8,
        max_calls: int = 32,
        max_result: int = 4000,
        repeats: bool = False,
    ) -> None:
        known = router.functions | dict(functions or {})
        if lacking := [tool.name for tool in router.tools if tool.name not in known]:
            raise ValueError(f"no function for {', '.join(lacking)}: pass them in functions")
        if max_turns < 1 or max_calls < 0:
            raise ValueError(f"max_turns must be at least 1 and max_calls 0, got {max_turns} and {max_calls}")
        self.router = router
        self._max_turns, self._max_calls, self._repeats = max_turns, max_calls, repeats
        self._execute = Executor(known, timeout, max_result)

    def run(self, request: str | Sequence[Message]) -> Done:
        """Work on a request until it is done."""
        return next(event for event in self.stream(request) if isinstance(event, Done))

    async def arun(self, request: str | Sequence[Message]) -> Done:
        """`run`, in threads of the event loop's. Cancelled, it makes no further call."""
        done: Done | None = None
        async for event in self.astream(request):
            if isinstance(event, Done):
                done = event
        assert done is not None
        return done

    def astream(self, request: str | Sequence[Message]) -> AsyncIterator[Event]:
        """`stream`, each event waited for in a thread of the event loop's."""
        return pulled(self.stream(request))

    def stream(self, request: str | Sequence[Message]) -> Iterator[Event]:
        """What happens, as it happens; Done at the end. Who stops asking for events stops the work."""
        messages = list(messages_of(request))
        made: list[ToolCall] = []
        for turn in range(self._max_turns):
            for route in self.router.stream(messages):
                if isinstance(route, str):
                    yield Piece(route)
                elif isinstance(route, NoCall):
                    messages.append(Message("assistant", route.text))
                    yield Done(route.text, "answer", "", tuple(messages), tuple(made))
                    return
                elif not isinstance(route, Calls):
                    messages.append(Message("assistant", route.ask))
                    yield Done(route.ask, "invalid", route.reason, tuple(messages), tuple(made))
                    return
                elif turn + 1 < self._max_turns:
                    messages.append(Message("assistant", route.text, route.calls))
                    for call in route.calls:
                        refusal = self._refusal(call, made) or self._execute.refusal(call.name)
                        if refusal is None:
                            made.append(call)
                            yield Called(call)
                        content, failed = (
                            (error(refusal), True) if refusal else self._execute(call.name, call.arguments)
                        )
                        messages.append(Message("tool", content, tool_call_id=call.id, name=call.name))
                        yield Returned(call, content, failed)
        messages.append(Message("assistant", STOPPED))
        yield Done(STOPPED, "bound", f"still calling in turn {self._max_turns}", tuple(messages), tuple(made))

    def _refusal(self, call: ToolCall, made: Sequence[ToolCall]) -> str | None:
        if len(made) >= self._max_calls:
            return f"not called: {self._max_calls} calls were made already"
        same = any(one.name == call.name and jsontext.same(one.arguments, call.arguments) for one in made)
        return "not called again: it was called with these arguments before" if same and not self._repeats else None
