"""The composed configuration, checked block by block: every mistake with its path, its value and the way out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from stages._errors import UserError, nearest
from stages._files import safe_name
from stages._schema import GROUPS, block_class, members, model_in, stage_names, stages_within
from stages._secrets import in_settings
from stages._settings import RootConfig, Settings


def validate(raw: Mapping[str, Any], stage: str, overrides: tuple[str, ...] = ()) -> Settings:
    """Check a composed configuration block by block and return it typed; UserError with a line for every mistake."""
    lines: list[str] = []
    within = stages_within(stage)
    tree = _given(raw)
    known = {*GROUPS, *within}
    root = _validated(RootConfig, {key: tree[key] for key in tree if key in RootConfig.model_fields}, "", lines)
    for key in tree:
        if key not in known and key not in RootConfig.model_fields:
            lines.append(unknown_block(key, stage))
    blocks = {name: _validated(block_class(name), tree.get(name) or {}, name, lines) for name in (*GROUPS, *within)}
    if isinstance(root, RootConfig):
        for what, name in (("run", root.run), ("sweep.name", root.sweep.name)):
            try:
                safe_name(what, "default" if name is None else name)
            except UserError as error:
                lines += error.lines
    lines = lines or [  # a block that refuses an address with a password has said so, and better
        f"{path}: looks like a key or password; keys come from the environment and never stand in a configuration"
        for path in dict.fromkeys((*in_settings(tree), *(path for typed in overrides for path in _in_typed(typed))))
    ]
    if lines:
        raise UserError("invalid configuration:", *(f"  {line}" for line in lines))
    assert isinstance(root, RootConfig)
    settings = Settings(stage, root, {name: block for name, block in blocks.items() if block}, overrides=overrides)
    return _without_idle(settings, set(within) - set(stages_within(stage, settings)))


def _without_idle(settings: Settings, idle: set[str]) -> Settings:
    """Without the blocks of stages that these settings do not ask for; UserError where one of theirs was typed."""
    typed = [override.lstrip("+~").split("=")[0] for override in settings.overrides]
    if useless := [key for key in typed if key.split(".")[0] in idle]:
        lines = (f"  {key}: these settings do not run that stage, so it would do nothing" for key in useless)
        raise UserError("invalid configuration:", *lines)
    return replace(settings, blocks={name: block for name, block in settings.blocks.items() if name not in idle})


def unknown_block(key: str, stage: str) -> str:
    """Why a name cannot stand at the top of this configuration."""
    if key in stage_names():
        running = [name for name in stage_names() if key in stages_within(name)]
        return (
            f"{key}: stage={stage} does not run it, its settings would do nothing; stages that do: {', '.join(running)}"
        )
    if key in GROUPS:
        return f"{key}: nothing is chosen in this group ({key}=[…]), so there is nothing to set"
    names = (*RootConfig.model_fields, *GROUPS, *stages_within(stage), "stage", "experiment")
    return f"{key}: no such group, stage or setting{nearest(key, names)}"


def _given(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The tree without ???, which stands for a required field that nobody gave."""
    return {key: _given(value) if isinstance(value, Mapping) else value for key, value in raw.items() if value != "???"}


def _in_typed(override: str) -> Iterator[str]:
    """An override that another one overrides is in no configuration, and in the manifest all the same."""
    key, _, value = override.lstrip("+~").partition("=")
    return in_settings({key: value})


def _validated(config: type[BaseModel], values: Any, path: str, lines: list[str]) -> BaseModel | None:
    try:
        return config.model_validate(values)
    except ValidationError as error:
        found: dict[str, list[str]] = {}
        for details in error.errors():
            where, message = _mistake(config, details)
            found.setdefault(f"{path}.{where}".strip("."), []).append(message)
        lines += [f"{where}: {' or '.join(dict.fromkeys(messages))}" for where, messages in found.items()]
        return None


def _mistake(config: type[BaseModel], error: ErrorDetails) -> tuple[str, str]:
    """Where a mistake is, and what is wrong: with the value, or the nearest right name."""
    steps: list[str] = []
    here: Any = config
    for step in error["loc"]:
        inner, known = _inner(here, step)
        if error["type"] == "extra_forbidden" and not known:
            model = model_in(here)
            return ".".join(
                (*steps, str(step))
            ), f"no such field{nearest(str(step), model.model_fields if model else ())}"
        if known:  # else pydantic names the member of a union here, which is no key
            steps.append(str(step))
            here = inner
    where = ".".join(steps)
    message = error["msg"].removeprefix("Value error, ")
    value = error["input"]
    if error["type"] == "missing":
        return where, "must be given"
    if error["type"] == "literal_error" and isinstance(value, str):
        message += nearest(value, re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", ""))))
    return where, message if isinstance(value, Mapping) else f"{message} (got {_short(value)})"


def _inner(annotation: Any, step: int | str) -> tuple[Any, bool]:
    """The type below a key or place, and whether the type has such a one."""
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel) and step in member.model_fields:
            return member.model_fields[str(step)].annotation, True
        if get_origin(member) is dict:
            return get_args(member)[1], True
        if get_origin(member) in (list, tuple, set) and isinstance(step, int):
            return get_args(member)[0], True
    return annotation, False


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
