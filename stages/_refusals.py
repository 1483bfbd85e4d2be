"""Hydra's refusals in our own words: every wrong key, group or choice at once, each with the nearest right name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages._errors import UserError, nearest
from stages._schema import CONF, GROUPS, stage_names
from stages._settings import Settings
from stages._validate import unknown_block, validate


def compose(overrides: Sequence[str]) -> tuple[Any, str]:
    """The configuration as Hydra composes it, and the stage it is for."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import open_dict

    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        config = hydra_compose("config", overrides=list(overrides), return_hydra_config=True)
    GlobalHydra.instance().clear()
    stage = config.hydra.runtime.choices.stage
    with open_dict(config):
        del config["hydra"]
    return config, stage


def settings_of(config: Any, stage: str, overrides: Sequence[str] = ()) -> Settings:
    """Resolve and validate a composed configuration; UserError lists every mistake."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    reading = [path for path, text in _leaves(OmegaConf.to_container(config)) if "${oc.env" in text.replace(" ", "")]
    if reading:
        raise UserError(
            *(f"{path}: reads the environment, whose keys must not enter a configuration" for path in reading)
        )
    try:
        tree = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError("invalid configuration:", f"  {_one_line(error)}") from None
    assert isinstance(tree, dict)
    return validate({str(key): value for key, value in tree.items()}, stage, tuple(overrides))


def explain(overrides: Sequence[str], error: Exception) -> UserError:
    """What is wrong with these overrides, or Hydra's own words where no single override is to blame."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    lines: list[str] = []
    groups: list[str] = []
    values: list[Any] = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            lines.append(
                f"{text}: cannot be read; settings are written key=value, lists key=[a,b], quoted for the shell"
            )
            continue
        key = override.key_or_group
        if key.startswith("hydra"):
            groups.append(text)
        elif (folder := CONF / key).is_dir() or key in {"stage", *GROUPS}:
            wrong = _wrong_choices(key, folder, override)
            lines += wrong
            if not wrong:
                groups.append(f"{key}={_first(override)}")
        else:
            values.append(override)
    try:
        config, stage = compose(groups)
    except Exception:  # the YAML files themselves do not compose: no override is to blame
        return UserError("invalid configuration:", *(f"  {line}" for line in lines or [_one_line(error)]))
    good = list(groups)
    for override in values:
        wrong = [] if override.is_add() or override.is_force_add() else _wrong_key(override.key_or_group, config, stage)
        lines += wrong
        if not wrong and not override.is_sweep_override():
            good.append(override.input_line)
    try:
        settings_of(*compose(good))
    except UserError as more:
        lines += [line.strip() for line in more.lines[1:]]
    except Exception as other:
        lines = lines or [_one_line(other)]
    return UserError("invalid configuration:", *(f"  {line}" for line in lines or [_one_line(error)]))


def _first(override: Any) -> str:
    if override.is_sweep_override() and override.is_discrete_sweep():
        return str(next(iter(override.sweep_string_iterator())))
    return str(override.get_value_element_as_str())


def _wrong_choices(group: str, folder: Path, override: Any) -> list[str]:
    known = {path.stem for path in folder.glob("*.yaml")} | set(stage_names() if group == "stage" else ())
    if override.is_delete():
        return []
    value = override.value() if not override.is_sweep_override() else list(override.sweep_string_iterator())
    chosen = [str(choice) for choice in (value if isinstance(value, list) else [value]) if choice is not None]
    listed = ", ".join(sorted(known)) or "none yet"
    return [
        f"{group}={choice}: no such choice{nearest(choice, known)} (there are: {listed})"
        for choice in chosen
        if choice not in known and not (group == "experiment" and choice == "null")
    ]


def _wrong_key(key: str, config: Any, stage: str) -> list[str]:
    from omegaconf import DictConfig, OmegaConf

    node = config
    steps = key.split(".")
    for place, step in enumerate(steps):
        if not isinstance(node, DictConfig) or not OmegaConf.is_struct(node):
            return []
        if step not in node:
            if place == 0:
                return [unknown_block(step, stage)]
            return [f"{key}: no such field{nearest(step, [str(name) for name in node])}"]
        node = node._get_node(step)
    return []


def _leaves(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [(path, value)]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [leaf for key, below in inner for leaf in _leaves(below, f"{path}.{key}" if path else str(key))]


def _one_line(error: BaseException) -> str:
    words = " ".join(str(part) for part in (error, error.__cause__) if part)
    return re.sub(r"\s+", " ", words).strip() or type(error).__name__
