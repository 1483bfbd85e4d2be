"""Several processes of one run, as torchrun starts them: the first leads, the others work along and write nothing."""

from __future__ import annotations

import atexit
import functools
import os
from typing import TypeVar

from stages._errors import UserError
from stages._schema import stage_module

T = TypeVar("T")


def leads() -> bool:
    """Whether this process is the one that writes; alone it is."""
    return int(os.environ.get("RANK", 0)) == 0


def check(stage: str) -> None:
    """UserError for a stage that is not made for several processes."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count > 1 and not getattr(stage_module(stage), "PROCESSES", False):
        raise UserError(f"stage={stage}: works in one process, this is one of {count}; start it without torchrun")


def told(value: T) -> T:
    """The leader's value, in every process; it waits for all of them."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return value
    from accelerate.utils import broadcast_object_list

    _join()
    values = [value]
    broadcast_object_list(values)
    return values[0]


@functools.cache
def _join() -> None:
    """Join the other processes, and leave them in order at the end: one that exits with its group's threads still
    running, while another works on, may be aborted.
    """
    from accelerate import PartialState

    from stages._memory import device

    PartialState(cpu=device() == "cpu")
    atexit.register(_leave)


def _leave() -> None:
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
