"""A teacher's next-token distributions on fixed rows, put on disk once: the k likeliest tokens and the rest as one.

They lie in the run's cache, by teacher, rows, k and temperature, in parts of some hundred rows, each written whole: an
interrupted stage goes on with the part it was at, and epochs, attempts and sweep points never ask the teacher again.
Eight bytes a token kept, so that they are the numbers that the teacher gives on the way, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._divergence import Targets
from stages._files import digest, locked, write_bytes

if TYPE_CHECKING:
    import torch

    from stages._job import Job
    from stages._rows import Row

_PART = 256  # rows: what an interruption loses at most


class SoftTargets:
    """What was stored for rows, looked up by their number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[int, Any] = {}

    def of(self, numbers: Sequence[int]) -> Targets:
        """The distributions at the answer tokens of these rows, row after row."""
        import torch

        found = [self._row(number) for number in numbers]
        return Targets(torch.cat([one.logprobs for one in found]), torch.cat([one.tokens for one in found]))

    def _row(self, number: int) -> Targets:
        from safetensors import safe_open

        part, place = divmod(number, _PART)
        if part not in self._open:
            stored = safe_open(_file(self.folder, part), framework="pt")
            self._open[part] = (stored, [0, *stored.get_tensor("ends").tolist()])
        stored, ends = self._open[part]
        span = slice(ends[place], ends[place + 1])
        return Targets(stored.get_slice("logprobs")[span], stored.get_slice("tokens")[span].long())


def store(
    job: Job,
    rows: Sequence[Row],
    identity: dict[str, Any],
    asker: Callable[[], Callable[[Sequence[Row]], list[Targets]]],
) -> SoftTargets:
    """The stored distributions of these rows. `identity` tells this teacher and its settings from others.

    `asker` loads what gives the distributions of rows, one Targets with tokens a row; it is called only if any lack.
    """
    name = digest(identity | {"rows": [[row.input_ids, row.labels] for row in rows]})[:16]
    folder = job.cache / f"soft-targets-{name}"
    parts = range(-(-len(rows) // _PART))
    with locked(folder.with_suffix(".lock"), "", wait=True):
        missing = [part for part in parts if not _file(folder, part).exists()]
        if len(missing) < len(parts):
            job.say(f"{len(parts) - len(missing)} of {len(parts)} parts of the teacher's distributions are there")
        if missing:
            ask = asker()
            for part in job.progress(missing, len(missing), "the teacher's distributions"):
                _write(_file(folder, part), ask(rows[part * _PART : (part + 1) * _PART]))
    return SoftTargets(folder)


def _file(folder: Path, part: int) -> Path:
    return folder / f"{part:05d}.safetensors"


def _write(file: Path, found: Sequence[Targets]) -> None:
    import torch
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {
        "logprobs": torch.cat([one.logprobs for one in found]).float().cpu().contiguous(),
        "tokens": torch.cat([one.tokens for one in found if one.tokens is not None]).int().cpu().contiguous(),
        "ends": torch.tensor([len(one.logprobs) for one in found]).cumsum(0),
    }
    write_bytes(file, save(tensors))
