"""One tool called in a thread of its own: what it returns as text, whatever it does.

A call that takes too long is left behind in a daemon thread, which neither the loop nor the end of the process waits
for. Python cannot kill a thread: what hangs keeps its memory, and its core if it computes; a tool that never lets go of
the interpreter (one regular expression that backtracks without end) stops everything, and one that ends the process
(os._exit) ends it. Run such tools in a process of their own and give the agent a function that asks it.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import datetime
import decimal
import enum
import functools
import inspect
import json
import pathlib
import queue
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, validate_call
from pydantic_core import to_jsonable_python

from data import jsontext

_WRITABLE = (
    *(BaseModel, enum.Enum, decimal.Decimal, uuid.UUID, pathlib.PurePath, set, frozenset),
    *(datetime.date, datetime.time, datetime.timedelta),
)


class Executor:
    """Calls functions by name with a time limit in seconds; results are cut to `longest` characters.

    No more than `most_hanging` calls of a tool are left behind at a time: `refusal` says so until one of them ends.
    """

    def __init__(
        self, functions: Mapping[str, Callable[..., Any]], timeout: float, longest: int, most_hanging: int = 8
    ) -> None:
        if not (timeout > 0 and longest >= 1):
            raise ValueError(f"timeout and longest must be above 0, got {timeout} and {longest}")
        self._functions = {name: _converting(function) for name, function in functions.items()}
        self._timeout, self._longest, self._most_hanging = timeout, longest, most_hanging
        self._hanging: dict[str, list[threading.Thread]] = {}
        self._lock = threading.Lock()

    def refusal(self, name: str) -> str | None:
        """Why a tool is not to be called now, or None."""
        with self._lock:
            hanging = [thread for thread in self._hanging.get(name, ()) if thread.is_alive()]
            self._hanging[name] = hanging
        full = len(hanging) >= self._most_hanging
        return f"not called: {len(hanging)} earlier calls have not ended" if full else None

    def __call__(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """What came of it, and whether it failed. Never raises for what a tool does."""
        told: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
        given = copy.deepcopy(arguments)  # what a tool does to them must not change the conversation

        def work() -> None:
            try:
                told.put((shortened(content_of(_result(self._functions[name], given)), self._longest), False))
            except BaseException as failure:  # SystemExit too: a tool must not end the loop
                told.put((error(_said(failure)[: self._longest]), True))

        thread = threading.Thread(target=work, name=f"tool {name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as failure:  # no more threads are to be had
            return error(str(failure)), True
        thread.join(self._timeout)
        try:
            return told.get_nowait()
        except queue.Empty:
            with self._lock:
                self._hanging.setdefault(name, []).append(thread)
            return error(f"no result within {self._timeout:g} s"), True


def _converting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, given what its hints say: JSON has no enums or tuples. Arguments fit the schema by then.

    Only the arguments pass through pydantic, not the call: a thread that is left behind there, in code that is not
    Python's, ends the process with SIGABRT when the interpreter is shut down (seen in Python 3.11).
    """
    if not inspect.isfunction(function) or not set(function.__annotations__) - {"return"}:
        return function

    @functools.wraps(function)
    def given(*positional: Any, **named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return positional, named

    converted = validate_call(config={"arbitrary_types_allowed": True})(given)

    def call(**arguments: Any) -> Any:
        positional, named = converted(**arguments)
        return function(*positional, **named)

    return call


def _result(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    result = function(**arguments)
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    return await result


def content_of(value: Any) -> str:
    """A result as a message: a text as it is, anything else as JSON; TypeError or ValueError where it is none.

    Halves of characters, which no file can hold, are replaced.
    """
    text = (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False, default=_writable)
    )
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _writable(value: Any) -> Any:
    if isinstance(value, _WRITABLE) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return to_jsonable_python(value)
    raise TypeError(f"the tool returned {type(value).__name__}, which JSON does not have")


def shortened(text: str, longest: int) -> str:
    """A text of at most `longest` characters, and a word on what was cut off."""
    return text if len(text) <= longest else f"{text[:longest]}… (cut off: {len(text)} characters in all)"


def error(message: str) -> str:
    """What the model is told in place of a result."""
    return jsontext.dumps({"error": message.encode("utf-16", "surrogatepass").decode("utf-16", "replace")})


def _said(failure: BaseException) -> str:
    """An exception in words; its own text is code of the tool's, and may raise as well."""
    try:
        return f"{type(failure).__name__}: {failure}"
    except BaseException:
        return type(failure).__name__
