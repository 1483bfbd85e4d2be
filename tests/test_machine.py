"""What a stage asks of its machine: memory that steps use again, handed back between stages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.toys import ROOT

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has its own ways with memory")

STEPS = """
import resource
from stages import _machine

def step():  # 24 MB of blocks, each below what is mapped by itself, freed together
    for block in [bytearray(1 << 20) for _ in range(24)]:
        block[::4096] = b"1" * 256

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if {keep}:
    _machine._keep_freed_memory()
step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""


@glibc
def test_memory_that_a_step_frees_is_there_for_the_next() -> None:
    def faults(keep: bool) -> int:
        done = subprocess.run(
            [sys.executable, "-c", STEPS.format(keep=keep)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    pages = 24 * 256  # of 4 KiB, in a step
    assert faults(keep=True) < pages
    assert faults(keep=False) > 5 * pages  # so that it is this setting which keeps them


HANDED_BACK = """
import psutil
from stages import _machine

def resident():
    return psutil.Process().memory_info().rss >> 20

_machine._keep_freed_memory()
blocks = [b"1" * (1 << 20) for _ in range(128)]
last = b"1" * (1 << 20)  # what is free lies below it
del blocks
kept = resident()
_machine.free_memory()
print(kept - resident())
"""


@glibc
def test_what_is_free_is_handed_back_between_stages() -> None:
    done = subprocess.run([sys.executable, "-c", HANDED_BACK], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100  # of 128 MiB
