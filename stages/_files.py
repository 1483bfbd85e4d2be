"""Files that are whole or absent: atomic writes, appends, digests, locks, and names that cannot leave their folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from stages._errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def safe_name(what: str, name: object) -> str:
    """The name, if it may be a folder's; UserError otherwise (`what` says whose name it is)."""
    if isinstance(name, str) and _NAME.fullmatch(name) and ".." not in name:
        return name
    raise UserError(f"{what}: {name!r} cannot be a folder's name; use letters, digits, '.', '_' and '-', 100 at most")


def slug(text: str) -> str:
    """Text as part of a folder's name: other characters become '-' (`[1,2]` -> `1-2`)."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip("-.") or "none"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Write to a temporary name in the same folder, flush, rename: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Atomic write of all of a file."""
    with writing(path) as out:
        out.write(content)


def write_text(path: Path, text: str) -> None:
    """Atomic write of UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Atomic, indented JSON; NaN and infinity are a ValueError, since they are no JSON."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Any) -> None:
    """Atomic JSON Lines."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """The value in a JSON file, or None where there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def read_jsonl(path: Path) -> Iterator[Any]:
    """The rows of a JSON Lines file; a last line that an interruption cut off is left out."""
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield json.loads(line)


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Add one row in a single write, and take away first what an interruption left half-written."""
    line = json.dumps(plain(row), ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(handle, "r+b", buffering=0) as out:
        end = out.seek(0, os.SEEK_END)
        while end and _last_byte(out, end) != b"\n":
            end -= 1
        out.truncate(end)
        out.seek(end)
        out.write(line)


def _last_byte(out: Any, end: int) -> bytes:
    out.seek(end - 1)
    return bytes(out.read(1))


def plain(value: Any) -> Any:
    """A value JSON can hold: numbers of numpy and torch become Python's, NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return plain(value.item())
    raise TypeError(f"{type(value).__name__} is no JSON value: {value!r}")


def digest(value: Any) -> str:
    """SHA-256 of a file, of a folder (names and contents), or of a JSON value in canonical form."""
    if isinstance(value, Path):
        return _digest_file(value) if value.is_file() else digest(_digests(value))
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def _digest_file(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): _digest_file(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def remove_folder(folder: Path) -> None:
    """Remove a folder by renaming it first, so that nobody finds half of it under its own name."""
    for left_over in folder.parent.glob(f".{folder.name}.old-*"):
        shutil.rmtree(left_over)
    if folder.exists():
        doomed = folder.with_name(f".{folder.name}.old-{uuid.uuid4().hex[:8]}")
        folder.rename(doomed)
        shutil.rmtree(doomed)


def replace_folder(source: Path, target: Path) -> None:
    """A copy of a folder in place of what is at `target`, whole or not at all."""
    unfinished = target.with_name(f".{target.name}.tmp")
    remove_folder(unfinished)
    shutil.copytree(source, unfinished)
    remove_folder(target)
    unfinished.rename(target)


@contextlib.contextmanager
def locked(path: Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock file; UserError (`busy`, and who) where another process holds it. The kernel drops it at death."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            handle.seek(0)
            raise UserError(f"{busy} (process {handle.read().strip() or 'unknown'})") from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
