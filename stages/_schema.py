"""Between Hydra and pydantic: what stages there are, and their fields, published for Hydra to compose.

A stage is a module of stages/ without a leading underscore. It has a pydantic class `Config` and a function `run(job)`
that returns its metrics, and may have

    PARENTS    stages whose results it reads
    OPTIONAL   stages whose results it reads where they are done
    BRINGS     stages that are run before it unless they are done
    wants(settings)  names those of PARENTS and BRINGS that its settings ask for, where that is not all of them
    BLOCKS     blocks of the configuration, beside its own, that its result depends on
    PROCESSES  True if several processes can work on it (torchrun)
    VERSION    a number, raised when the code makes something else of the same inputs
    check_files(settings)  raises UserError for files that settings name and cannot be read, before any stage begins
    refuse(settings, above)  raises UserError for what cannot be done, before an earlier result is touched; `above` has
               the folders of PARENTS and OPTIONAL that are done
    after(job) what follows when it is done, just now or by an earlier call: showing, installing
    reads(settings, above)  names those of `above` that its settings make it read, where that is not all of them
    essence(settings, above, inputs)  those of its `inputs` that its result depends on, as they are read, where that is
               not all of them: folders of a run that have these alike share one result (stages/_twins.py)
    files(settings)  files that its result depends on and that no setting has to name, by what they are
    trains(settings)  the model block of what its adapter fits, where that is not the run's own model
    works_on(settings)  the model block that takes the place of the run's own for this stage

A class of settings may have FREE, the names of fields that change no result, OWN, those that change no other stage's,
and FILES, those that name files. It says defer_build: validators are built where they are used, which --help does not
have to wait for.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from stages._errors import UserError, nearest
from stages._settings import RootConfig, Settings

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
GROUPS = {
    "model": ("stages._model", "ModelConfig"),
    "data": ("data.load", "DataConfig"),
    "reward": ("rewards._table", "RewardConfig"),
    "tracking": ("stages._tracking", "TrackingConfig"),
}


@functools.cache
def stage_names() -> tuple[str, ...]:
    """Every stage there is: the modules of stages/ without a leading underscore."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")))


def stage_module(name: str) -> ModuleType:
    """The module of a stage; UserError with the nearest name where there is none."""
    if name not in stage_names():
        raise UserError(f"stage={name}: no such stage{nearest(name, stage_names())} ({', '.join(stage_names())})")
    return importlib.import_module(f"stages.{name}")


def brings(name: str, settings: Settings | None = None) -> tuple[str, ...]:
    """The stages run before this one unless they are done, in order; with settings, those that these ask for."""
    return _wanted(name, "BRINGS", settings)


def parents(name: str, settings: Settings | None = None) -> tuple[str, ...]:
    """The stages whose results this one reads; with settings, those that these ask for."""
    return _wanted(name, "PARENTS", settings)


def _wanted(name: str, which: str, settings: Settings | None) -> tuple[str, ...]:
    module = stage_module(name)
    known, wants = tuple(getattr(module, which, ())), getattr(module, "wants", None)
    return known if settings is None or wants is None else tuple(one for one in known if one in wants(settings))


def optional_parents(name: str) -> tuple[str, ...]:
    """The stages whose results this one reads where they are done, and does without elsewhere."""
    return tuple(getattr(stage_module(name), "OPTIONAL", ()))


def stages_within(name: str, settings: Settings | None = None) -> tuple[str, ...]:
    """The stages whose settings `stage=<name>` brings: its own, those it runs, those its result depends on. With
    settings, without those that these do not ask for.
    """
    found: dict[str, None] = {}
    for other in (*brings(name, settings), *getattr(stage_module(name), "BLOCKS", ())):
        if other not in GROUPS:
            found |= dict.fromkeys(stages_within(other, settings))
    return (*(other for other in found if other != name), name)


def block_class(name: str) -> type[BaseModel]:
    """The pydantic class of a block: of a group (model, data, …) or of a stage."""
    if name in GROUPS:
        module, attribute = GROUPS[name]
        return getattr(importlib.import_module(module), attribute)
    return stage_module(name).Config


def publish() -> None:
    """Write every block's fields and defaults into Hydra's ConfigStore, so that each can be overridden unrepeated."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(group="schema", name="root", node=_fields(RootConfig))
    for name in (*GROUPS, *stage_names()):
        config = block_class(name)
        store.store(group="schema", name=name, node=_fields(config))
        for part, inner in _optional_parts(config):
            store.store(group=f"schema/{name}", name=part, node=_fields(inner))
    for name in stage_names():
        if not (CONF / "stage" / f"{name}.yaml").exists():  # a new stage is one file: its YAML may come later
            defaults = [*brings(name), f"/schema/{name}@{name}"]
            store.store(group="stage", name=name, node={"defaults": defaults}, package="_global_")


def _fields(config: type[BaseModel]) -> Any:
    """A class as a tree for OmegaConf: defaults, ??? where required; free-form mappings stay open to new keys."""
    from omegaconf import OmegaConf

    tree = OmegaConf.create({})
    for name, field in config.model_fields.items():
        if field.is_required():
            tree[name] = "???"
            continue
        value = field.get_default(call_default_factory=True)
        tree[name] = _fields(type(value)) if isinstance(value, BaseModel) else _plain(value)
        if get_origin(field.annotation) is dict and value is not None:
            OmegaConf.set_struct(tree[name], False)
    return tree


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _optional_parts(config: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Nested blocks that are off (None) unless a YAML brings them."""
    for name, field in config.model_fields.items():
        if field.default is None and (inner := model_in(field.annotation)):
            yield name, inner


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The nested block a field holds, if it holds one."""
    return next((one for one in members(annotation) if isinstance(one, type) and issubclass(one, BaseModel)), None)


def members(annotation: Any) -> tuple[Any, ...]:
    """The types a field may have: those of a union, or its one."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
