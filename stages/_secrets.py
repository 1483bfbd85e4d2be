"""Keys, tokens and passwords: they come from the environment, are refused in settings, and blotted out of what is told.

`in_settings` finds them in what was typed or composed; `redacted` is for texts that come from elsewhere: errors, notes,
logged rows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

BLOT = "[redacted]"

# What keys to hosted services look like, and addresses that hold a user, a password or a key.
_SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bapi_org_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,}|\bwandb_v1_\w{20,}"
    r"|\bgh[opsur]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}|\bxox[abeprs]-[\w-]{10,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{35}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|(?<=https://)[^/\s:@]+(?=@)|(?<=http://)[^/\s:@]+(?=@)"
    r"|(?<=Bearer )[\w.~+/=-]{16,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
# What such a value is called: `hub_token` and `password`, not `eos_token`, `max_tokens` or `api_key_variable`.
_WORDS = (
    r"(?:(?:hub|hf|api|access|auth|bearer|refresh|session|write)_?token|(?:api|secret|access|private)_?key|passw(?:or)?d"
    r"|secret|credentials?|authorization)"
)
_NAME = re.compile(rf"(?:.*[._-])?{_WORDS}", re.IGNORECASE)
_ASSIGNED = re.compile(rf"({_WORDS}[\"']?\s*[=:]\s*[\"']?)(?!Bearer )[^\s&\"',}}]{{8,}}", re.IGNORECASE)
_QUERY = re.compile(r"([?&](?:key|token|sig|signature)=)[^&\s\"']+", re.IGNORECASE)
# Keys of W&B were 40 hexadecimal digits. So are commits, which is why only a whole value is taken for one.
_HEX_KEY = re.compile(r"[0-9a-f]{40}")
_COMMITS = frozenset({"revision", "commit"})
_VARIABLE = re.compile(r"(?:.*_)?(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)", re.IGNORECASE)


def in_settings(tree: Any, path: str = "") -> Iterator[str]:
    """The paths of strings that are, or hold, what looks like a key or a password.

    >>> list(in_settings({"sft": {"trainer": {"hub_token": "abc", "eos_token": "</s>"}, "rank": 8}}))
    ['sft.trainer.hub_token']
    """
    if isinstance(tree, str):
        if tree and redacted(tree, path.rsplit(".", 1)[-1]) != tree:
            yield path
    elif isinstance(tree, Mapping | list | tuple):
        for key, inner in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from in_settings(inner, f"{path}.{key}" if path else str(key))


def redacted(value: Any, name: str = "") -> Any:
    """A value without the keys and passwords that can be told from its shape, its name, or the environment.

    >>> redacted({"url": "https://me:pass@host/x", "api_key": "abc", "path": "assets/tiny"})
    {'url': 'https://[redacted]@host/x', 'api_key': '[redacted]', 'path': 'assets/tiny'}
    """
    if isinstance(value, Mapping):
        return {key: redacted(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner, name) for inner in value]
    if not isinstance(value, str) or not value:
        return value
    if _NAME.fullmatch(name) or (_HEX_KEY.fullmatch(value) and name not in _COMMITS):
        return BLOT
    for known in _of_environment():
        value = value.replace(known, BLOT)
    return _QUERY.sub(rf"\1{BLOT}", _ASSIGNED.sub(rf"\1{BLOT}", _SHAPES.sub(BLOT, value)))


def _of_environment() -> list[str]:
    """Values of variables that are called like a key: long ones with a digit, since short ones may be mere words."""
    return [
        value
        for name, value in os.environ.items()
        if _VARIABLE.fullmatch(name)
        and len(value) >= 12
        and not value.startswith(("/", "~"))
        and re.search(r"\d", value)
        and not re.search(r"\s", value)
    ]
