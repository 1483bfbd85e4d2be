"""An iterator waited for without blocking the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar, cast

T = TypeVar("T")
_END = object()


async def pulled(iterator: Iterator[T]) -> AsyncIterator[T]:
    """Its items, each taken in a thread when it is asked for: nothing runs ahead, so who stops asking stops the work.

    A step that is under way when its task is cancelled runs to its end; what would follow it does not.
    """
    try:
        while (item := await asyncio.to_thread(cast(Any, next), iterator, _END)) is not _END:
            yield cast(T, item)
    finally:
        with contextlib.suppress(ValueError):  # the step that is still under way
            iterator.close()  # type: ignore[attr-defined]
