"""What an offline run of W&B holds, read from its file.

The reader that the package once had in Python (wandb.sdk.internal.datastore) has gone into its binary. The format has
stayed: a log as of LevelDB (https://github.com/google/leveldb/blob/main/doc/log_format.md) behind a header of 7 bytes,
whose records are messages of the package's own wandb_internal.proto.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK, _HEADER = 32 * 1024, 7
_FULL, _LAST = 1, 4


@dataclass
class Logged:
    """An artifact of a run: what it made, or what it uses."""

    name: str
    type: str
    digest: str
    used: bool
    aliases: list[str]
    files: dict[str, Path]
    metadata: dict[str, Any]


@dataclass
class OfflineRun:
    """A run of W&B as it would be uploaded."""

    id: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Logged] = field(default_factory=list)
    exit_code: int | None = None


def runs_below(folder: Path) -> list[OfflineRun]:
    """Every offline run in the stage folders of `folder`, in the order of their paths."""
    return [read(path) for path in sorted(folder.rglob("offline-run-*/*.wandb"))]


def read(path: Path) -> OfflineRun:
    """One run."""
    run = OfflineRun()
    for record in _records(path):
        match record.WhichOneof("record_type"):
            case "run":
                about = record.run
                run.id, run.name, run.group, run.job_type = (
                    about.run_id, about.display_name, about.run_group, about.job_type,
                )  # fmt: skip
                run.tags = list(about.tags)
                run.config = _items(about.config.update)
            case "history":
                run.history.append(_items(record.history.item))
            case "summary":
                for name, value in _items(record.summary.update).items():
                    known = run.summary.get(name)
                    run.summary[name] = known | value if isinstance(known, dict) and isinstance(value, dict) else value
            case "artifact" if record.artifact.user_created or not record.artifact.name.startswith("run-"):
                run.artifacts.append(_artifact(record.artifact))  # the others are W&B's own, one a table
            case "exit":
                run.exit_code = record.exit.exit_code
    return run


def _artifact(record: Any) -> Logged:
    return Logged(
        record.name,
        record.type,
        record.digest,
        record.use_after_commit,
        list(record.aliases),
        {entry.path: Path(entry.local_path) for entry in record.manifest.contents},
        json.loads(record.metadata),
    )


def _items(items: Any) -> dict[str, Any]:
    """Values by name, nested as they are."""
    found: dict[str, Any] = {}
    for item in items:
        *above, name = item.nested_key or [item.key]
        place = found
        for step in above:
            place = place.setdefault(step, {})
        place[name] = json.loads(item.value_json)
    return found


def _records(path: Path) -> Iterator[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    assert content[:4] == b":W&B"
    at, message = _HEADER, b""
    while at + _HEADER <= len(content):
        if (room := _BLOCK - at % _BLOCK) < _HEADER:  # too little for another header: the next one is in the next block
            at += room
            continue
        _checksum, length, kind = struct.unpack_from("<IHB", content, at)
        at += _HEADER + length
        message += content[at - length : at]
        if kind in (_FULL, _LAST):
            yield Record.FromString(message)
            message = b""
