"""The manifest of a stage folder: what made it, from which inputs, on what machine, and whether it is done."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from stages._files import digest, read_json
from stages._schema import GROUPS, block_class, stage_module, stage_names
from stages._settings import Settings

if TYPE_CHECKING:
    from stages._model import ModelConfig

NAME = "manifest.json"
SCHEMA = 1  # of manifest.json itself; a folder with another one is made anew
# Written by the runner, or of no use to a later stage: not part of what a stage made.
NOT_OUTPUT = {NAME, "config.yaml", "metrics.json", "log.jsonl", "trackers.json", "wandb", "tensorboard", "checkpoints"}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest; None where there is none or it is of another schema."""
    with contextlib.suppress(ValueError):
        manifest = read_json(folder / NAME)
        if isinstance(manifest, dict) and manifest.get("schema") == SCHEMA:
            return manifest
    return None


def inputs_of(name: str, settings: Settings, parents: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """All that a stage's result depends on: settings, seed, files, base model, parents, and the VERSION of its code."""
    module = stage_module(name)
    blocks = (name, *getattr(module, "BLOCKS", ()))
    inputs: dict[str, Any] = {
        "version": getattr(module, "VERSION", 1),
        "seed": settings.seed,
        "parents": {parent: entry["digest"] for parent, entry in parents.items()},
    }
    for block in blocks:
        inputs[block] = counted(settings.blocks[block], own=block == name)
        if block != "data":  # whose files stand by themselves
            inputs[block] |= {field: known[:16] for field, known in files_named(settings.blocks[block]).items()}
    if "data" in blocks:
        inputs["files"] = files_named(settings.data)
    if "model" in blocks:
        inputs["base"] = model_identity(settings.model)["digest"]
    if reads := getattr(module, "files", None):
        places = reads(settings)
        inputs.setdefault("files", {}).update({what: digest(at) for what, at in places.items() if at.exists()})
    if trains := getattr(module, "trains", None):
        inputs["base trained"] = model_identity(trains(settings))["digest"]
    return inputs


def same_inputs(manifest: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
    """Whether a folder was made from these inputs: without fields that have become FREE or OWN and count no more, and
    with null for those that are new.
    """
    known = {
        block: {
            field: value
            for field, value in old.items()
            if field not in _free(block_class(block), block == manifest["stage"])
        }
        if block in GROUPS or block in stage_names()
        else old
        for block, old in manifest["inputs"].items()
    }
    return not differences(known, json.loads(json.dumps(inputs)))


def counted(block: BaseModel, own: bool = True) -> dict[str, Any]:
    """A block's settings without those in its FREE (they change speed or memory, no result), nor files (see below).

    `own` says that they are for the block's own stage: the others leave out those in OWN too.
    """
    return block.model_dump(mode="json", exclude={*_free(type(block), own), *files_named(block)})


def _free(config: type[BaseModel], own: bool) -> set[str]:
    return {*getattr(config, "FREE", ()), *(() if own else getattr(config, "OWN", ()))}


def files_named(block: BaseModel) -> dict[str, str]:
    """Digest of each file or folder that one of the block's FILES names: content counts, not where it lies."""
    named = {field: getattr(block, field, None) for field in getattr(type(block), "FILES", ("train", "test", "tools"))}
    return {field: digest(Path(place)) for field, place in named.items() if place and Path(place).exists()}


def model_identity(model: ModelConfig) -> dict[str, str]:
    """A base model's id and digest."""
    return {"id": model.path, "digest": _model_digest(model.model_dump_json())}


@functools.cache  # a checkpoint may be gigabytes, and is asked for several times
def _model_digest(model: str) -> str:
    from stages._model import ModelConfig, model_digest

    return model_digest(ModelConfig.model_validate_json(model))


def origins(name: str, settings: Settings, blocks: Sequence[str], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Model (the one that its adapter fits), data, seeds and reward table, where the stage depends on them."""
    trains = getattr(stage_module(name), "trains", None)
    model = trains(settings) if trains else settings.model
    data = {"digest": digest([inputs["data"], inputs["files"]]), "files": inputs["files"]} if "data" in blocks else None
    return {
        "model": model_identity(model) if "model" in blocks else None,
        "data": data,
        "seeds": {"seed": settings.seed, "data.seed": getattr(settings.data, "seed", None) if data else None},
        "reward": settings.reward.model_dump(mode="json") if "reward" in blocks else None,
    }


def outputs_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of each file the stage made."""
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not (set(path.relative_to(folder).parts) & NOT_OUTPUT) and not path.name.startswith(".")
    }


def missing_outputs(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The recorded files that are gone or have another size."""
    return [
        name
        for name, entry in manifest.get("outputs", {}).items()
        if not (folder / name).is_file() or (folder / name).stat().st_size != entry["size"]
    ]


def changed_outputs(folder: Path, manifest: Mapping[str, Any], below: str) -> list[str]:
    """The recorded files below a folder of the stage's that are gone or hold other bytes than the stage wrote."""
    return [
        name
        for name, entry in manifest.get("outputs", {}).items()
        if name.startswith(f"{below}/") and not ((folder / name).is_file() and digest(folder / name) == entry["sha256"])
    ]


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Which inputs differ, as `path: old -> new`; what is null is as if it were absent."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(dict.fromkeys((*old, *new)))
        return [
            line
            for key in keys
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    if old == new:
        return []
    if path.startswith(("parents.", "files.", "base")):
        return [f"{path} changed"]
    return [f"{path}: {old} -> {new}"]
