"""Which result was made from which: finding the stages a stage reads, and those that became stale behind it."""

from __future__ import annotations

import shlex
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from stages._errors import UserError
from stages._manifest import NAME, changed_outputs, missing_outputs, model_identity, read_manifest
from stages._schema import optional_parents, parents, stage_module, stage_names
from stages._settings import Settings

if TYPE_CHECKING:
    from stages._model import ModelConfig

# The stages that make <stage>/adapter, fine-tuning first, then preference stages: what stands first is merged first.
Adapter = Literal["sft", "dpo", "kto", "ppo", "grpo"]
ADAPTERS: tuple[Adapter, ...] = get_args(Adapter)
# Those that sample while they train, and need no pairs.
REINFORCED = ("ppo", "grpo")
# The stage that makes an adapter for another model than the run's.
Student = Literal["distill"]
STUDENT: Student = "distill"
# The models of a run as people name them, and the stage that makes each but the base.
ModelName = Literal["base", Adapter, Student, "merged"]
STAGE_OF: dict[str, str] = {stage: stage for stage in (*ADAPTERS, STUDENT)} | {"merged": "merge"}
# Of a model block, what says how a checkpoint was taught: tools are shown to it, calls read and its base held so ever
# after. All else but where it lies is speed and length, which is as whoever asks it has it.
_TAUGHT = ("dialect", "chat_template", "template_variables", "quantization", "dtype")


def done_folder(name: str, settings: Settings) -> Path | None:
    """The done folder of a stage: the sweep point's own, or else the run's."""
    for folder in dict.fromkeys((settings.folder / name, settings.run_folder / name)):
        manifest = read_manifest(folder)
        if manifest and manifest["status"] == "done" and not missing_outputs(folder, manifest):
            return folder
    return None


def require(asking: str, names: Iterable[str], settings: Settings, behind: Mapping[str, Path]) -> dict[str, Path]:
    """The folders of done, current parents; UserError says for each other one what to run first.

    `behind` has the folders of stages that were just run or found done.
    """
    needs_model = "model" in getattr(stage_module(asking), "BLOCKS", ())
    found: dict[str, Path] = {}
    lines: list[str] = []
    for name in names:
        folder = behind.get(name) or done_folder(name, settings)
        if folder is None:
            lines.append(f"run first: {command(name, settings)}")
        elif changed := _changed_parents(folder, settings):
            lines.append(
                f"run first: {command(name, settings)} ({name} was made from an earlier {' and '.join(changed)})"
            )
        else:
            found[name] = folder
            lines += _other_model(name, folder, settings) if needs_model else []
    if lines:
        raise UserError(*lines)
    return found


def present(asking: str, settings: Settings, behind: Mapping[str, Path]) -> dict[str, Path]:
    """The folders of those optional parents that are done and current; stale ones are told of and left out."""
    found: dict[str, Path] = {}
    for name in optional_parents(asking):
        folder = behind.get(name) or done_folder(name, settings)
        if folder and (changed := _changed_parents(folder, settings)):
            print(f"{asking}: leaving out {name}, which was made from an earlier {' and '.join(changed)}", flush=True)
        elif folder and name == STUDENT and not _is_its_student(folder, settings):
            print(f"{asking}: leaving out {name}, whose student is not there as it was any more", flush=True)
        elif folder:
            found[name] = folder
    return found


def last_adapter(there: Container[str]) -> Adapter:
    """The adapter to go on with: of the first preference stage that is there, or else of fine-tuning.

    >>> last_adapter({"sft", "kto"}), last_adapter(["sft", "kto", "dpo"]), last_adapter({"sft"})
    ('kto', 'dpo', 'sft')
    """
    return next((stage for stage in ADAPTERS[1:] if stage in there), ADAPTERS[0])


def command(name: str, settings: Settings) -> str:
    """The command that runs another stage of this run, with what was typed about model and data."""
    words = ["python train.py", f"stage={name}", f"run={settings.run}"]
    for override in settings.overrides:
        key = override.lstrip("+~").split("=")[0]
        if key.split(".")[0] in {"model", "data", "runs_dir", "seed"}:
            words.append(shlex.quote(override))
    return " ".join(words)


def _other_model(name: str, folder: Path, settings: Settings) -> list[str]:
    """Adapters fit the model they were trained on, and no other."""
    made_with = (read_manifest(folder) or {}).get("model")
    if not made_with:
        return []
    wanted = model_identity(settings.model)
    if made_with == wanted:
        return []
    return [
        f"model: {name} of run {settings.run} was made from {made_with['id']} ({made_with['digest'][:12]}), "
        f"this asks for {wanted['id']} ({wanted['digest'][:12]}); choose that model, or another run=…"
    ]


def fitted(folder: Path, settings: Settings) -> ModelConfig:
    """The model that the adapter of a stage fits, or that was merged with one: the run's own, but for a student, which
    is the one that the stage's manifest names, taught as that says.
    """
    from stages._model import student_config

    manifest = read_manifest(folder)
    if manifest is None or STUDENT not in (manifest["stage"], *manifest["parents"]):
        return settings.model
    taught = {field: manifest["inputs"]["model"][field] for field in _TAUGHT}
    return student_config(manifest["model"]["id"], settings.model.model_copy(update=taught))


def _is_its_student(folder: Path, settings: Settings) -> bool:
    """Whether the checkpoint is there that a student's adapter was made for, with the same content."""
    try:
        return model_identity(fitted(folder, settings)) == (read_manifest(folder) or {})["model"]
    except UserError:  # no such folder, or no such template
        return False


def entry(folder: Path, settings: Settings) -> dict[str, str]:
    """A parent as a manifest names it: its place in the run, and the digest of what it made."""
    manifest = read_manifest(folder)
    assert manifest is not None
    return {"path": folder.relative_to(settings.run_folder).as_posix(), "digest": manifest["digest"]}


def _changed_parents(folder: Path, settings: Settings) -> list[str]:
    """The parents that are not any more what this folder was made from, or are themselves made from such."""
    changed = []
    for parent, known in (read_manifest(folder) or {}).get("parents", {}).items():
        above = settings.run_folder / known["path"]
        now = read_manifest(above)
        if now and (now.get("digest") != known["digest"] or _changed_parents(above, settings)):
            changed.append(parent)
    return changed


def made_of(folder: Path, settings: Settings) -> dict[str, dict[str, Any]]:
    """The manifests of all that a stage folder was made from, directly or not, and its own, by their place in the run.

    Parents stand before children. What has been replaced since is left out, with what it was made from.
    """
    found: dict[str, dict[str, Any]] = {}

    def visit(place: str, digest: str | None) -> None:
        manifest = read_manifest(settings.run_folder / place)
        if place in found or manifest is None or digest not in (None, manifest.get("digest")):
            return
        for known in manifest["parents"].values():
            visit(known["path"], known["digest"])
        found[place] = manifest

    visit(folder.relative_to(settings.run_folder).as_posix(), None)
    return found


def check_adapter(stage: str, folder: Path, settings: Settings) -> None:
    """UserError where the adapter in a stage's folder is not the one that the stage wrote."""
    if strange := changed_outputs(folder, read_manifest(folder) or {}, "adapter"):
        raise UserError(
            f"{folder / strange[0]}: not the file that {stage} wrote (its manifest has another digest); put that back,"
            f" or delete {folder} and run: {command(stage, settings)}"
        )


def stale_behind(settings: Settings) -> list[str]:
    """The stage folders of this run that were made from what is not there any more, directly or not."""
    run = settings.run_folder
    made = {
        path.parent.relative_to(run).as_posix(): manifest
        for path in sorted((*run.glob(f"*/{NAME}"), *run.glob(f"sweeps/*/*/*/{NAME}")))
        if (manifest := read_manifest(path.parent))
    }
    stale: list[str] = []
    grew = True
    while grew:
        grew = False
        for place, manifest in made.items():
            above = [(one["path"], one["digest"]) for one in manifest["parents"].values()]
            if place not in stale and any(
                path in stale or (path in made and made[path].get("digest") != known) for path, known in above
            ):
                stale.append(place)
                grew = True
    order = {stage: number for number, stage in enumerate(_in_order())}
    return sorted(stale, key=lambda place: (place.count("/"), order.get(Path(place).name, 99), place))


def _in_order() -> list[str]:
    """Stages with parents before children."""
    seen: dict[str, None] = {}

    def visit(stage: str) -> None:
        for parent in (*parents(stage), *optional_parents(stage)):
            if parent not in seen:
                visit(parent)
        seen.setdefault(stage)

    for stage in stage_names():
        visit(stage)
    return list(seen)
