"""Folders whose modules YAML can name: those without a leading underscore."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from types import ModuleType


def names(package: ModuleType) -> tuple[str, ...]:
    """Names of the modules of a package that a configuration can choose from, sorted."""
    return tuple(sorted(entry.name for entry in pkgutil.iter_modules(package.__path__) if entry.name[0] != "_"))


def get(package: ModuleType, name: str, word: str) -> ModuleType:
    """Import the module `name` of a package; ValueError with the nearest name when there is none. `word`: its kind."""
    known = names(package)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
        raise ValueError(f"no such {word} {name!r}; {hint}")
    return importlib.import_module(f"{package.__name__}.{name}")
