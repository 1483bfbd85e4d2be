"""The model card of a merged model, written from manifests and metrics alone, each time that one of them is new.

Beside the weights it is README.md with the front matter that the hub reads. It holds no absolute path: folders outside
of the project are named by their last part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._charts import interval, percent
from stages._files import read_json, write_text
from stages._lineage import ADAPTERS, REINFORCED, STUDENT, command, done_folder, made_of
from stages._manifest import read_manifest
from stages._settings import Settings

if TYPE_CHECKING:
    from stages._model import ModelConfig

WAYS = ("dequantized", "original")
MEASURES = ("mean_logit_difference", "max_logit_difference", "mean_kl", "greedy_agreement", "outcome_agreement")
_RATES = {
    "false_tool_call_rate": "false calls",
    "missed_call_rate": "missed calls",
    "exact_call_rate": "exact calls",
    "answer_accuracy": "right answers",
}
_VERSIONS = ("torch", "transformers", "trl", "peft", "bitsandbytes")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_UNKNOWN = "unknown"


def write(folder: Path, settings: Settings, where: str = ".") -> None:
    """Write model/README.md of a done merge. `where` is what `vllm serve` is given: a repository's name once pushed."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    manifest = read_manifest(folder) or {}
    if "tool_call_parser" not in manifest.get("facts", {}):
        return  # a merge of an earlier version, which had no card
    if STUDENT in manifest["parents"] and done_folder(STUDENT, settings) is None:
        return  # what the student was made of stands in the card that is there, and nowhere else any more

    cards = SandboxedEnvironment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined)
    cards.filters["percent"] = percent
    text = cards.get_template("_card.md").render(facts(folder, settings) | {"where": where})
    write_text(folder / "model" / "README.md", re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")


def facts(folder: Path, settings: Settings) -> dict[str, Any]:
    """What the card says, by the names that _card.md has for it."""
    manifest, metrics = read_manifest(folder) or {}, read_json(folder / "metrics.json")
    made = made_of(folder, settings)
    stages = {each["stage"]: each for each in made.values()}
    student = stages.get(STUDENT)
    tuned = student or stages[ADAPTERS[0]]
    model, noted = manifest["inputs"]["model"], manifest["facts"]
    given = getattr(settings.blocks.get("merge"), "license", None) or _given_before(folder, noted["license"])
    licence = given or noted["license"]
    adapters = noted["chain"]
    aligned = student is not None and len(adapters) > 1
    by_table = (STUDENT,) if aligned else ("pairs", *ADAPTERS)
    rewarded: dict[str, Any] = next((stages[name] for name in by_table if stages.get(name, {}).get("reward")), {})
    return {
        "front": _front(manifest["model"]["id"], licence, adapters, tuned["inputs"]["data"]),
        "title": f"{model_name(manifest)}, {settings.run}",
        "short": re.sub(r"[^a-z0-9._-]+", "-", f"{model_name(manifest)}-{settings.run}".lower()),
        "base": named(manifest["model"]["id"]),
        "base_digest": manifest["model"]["digest"][:16],
        "dialect": model["dialect"],
        "adapters": adapters,
        "taught": _taught(student) if student else None,
        "results": _results(manifest, metrics["adapter"], student, settings),
        "evaluate": _hidden(command("evaluate", settings)),
        "metrics": metrics,
        "ways": _ways(metrics),
        "lineage": [_row(place, each) for place, each in made.items()],
        "data": _data(tuned),
        "licence": _licence(licence, given is not None, tuned["inputs"]["data"]),
        "commit": _commit(manifest["git"] or {}),
        "versions": {"python": manifest["python"]}
        | {name: manifest["versions"][name] for name in _VERSIONS if name in manifest["versions"]},
        "commands": [
            _command(each, settings) for each in made.values() if each["stage"] in (*ADAPTERS, STUDENT, "merge")
        ],
        "reward": _reward(rewarded),
        "rewarding": _rewarding(rewarded, adapters[-1], "teacher" if student and not aligned else "model"),
        "rounded": noted.get("trained_in_4_bits", len(_ways(metrics)) > 1),
        "parser": noted["tool_call_parser"],
        "gguf": sorted(path.name for path in folder.glob("gguf/*.gguf")),
    }


def base_license(config: ModelConfig) -> str:
    """The licence that the base's own card names, or `unknown` where there is none to be read."""
    from stages._model import local_path

    folder = local_path(config)
    if folder is None:
        return _hub_license(config)
    card = folder / "README.md"
    return _license_in(card.read_text(encoding="utf-8")) if card.is_file() else _UNKNOWN


def is_ours(card: Path) -> bool:
    """Whether a README.md is a model card that was written here."""
    return card.is_file() and "callwise" in (_front_matter(card.read_text(encoding="utf-8")).get("tags") or ())


def _given_before(folder: Path, licence: str) -> str | None:
    """The licence in the card that is there, where merge.license gave it another than the base's."""
    card = folder / "model" / "README.md"
    found = _license_in(card.read_text(encoding="utf-8")) if card.is_file() else _UNKNOWN
    return found if found not in (licence, _UNKNOWN, "other") else None


def _hub_license(config: ModelConfig) -> str:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError

    try:
        return _license_in(Path(hf_hub_download(config.path, "README.md", revision=config.revision)).read_text("utf-8"))
    except (OSError, ValueError, HTTPError):  # offline, or without a card: the user is told so in ours
        return _UNKNOWN


def _front_matter(card: str) -> dict[str, Any]:
    """What stands between the dashes at the top of a card; nothing where it is no mapping."""
    import yaml

    match = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    try:
        front = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        front = None
    return front if isinstance(front, dict) else {}


def _license_in(card: str) -> str:
    found = _front_matter(card).get("license")
    return found if isinstance(found, str) and re.fullmatch(r"[a-z0-9.-]{1,40}", found) else _UNKNOWN


def named(place: str) -> str:
    """A checkpoint as a card may name it: a hub id or a folder of the project as it is, others by their last part."""
    return Path(place).name if Path(place).is_absolute() or place.startswith(("~", "..")) else place


def model_name(manifest: Mapping[str, Any]) -> str:
    """The last part of the base's id."""
    return Path(manifest["model"]["id"]).name


def _front(base: str, licence: str, adapters: Sequence[str], data: Mapping[str, Any]) -> str:
    import yaml

    front: dict[str, Any] = {"license": licence if licence != _UNKNOWN else "other"}
    if licence == _UNKNOWN:
        front["license_name"] = _UNKNOWN
    if _is_hub_id(base):
        front["base_model"] = base
    front |= {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if _is_hub_id(str(data.get("train") or "")):
        front["datasets"] = [data["train"]]
    front["tags"] = ["callwise", "tool-calling", "function-calling", "lora", *adapters]
    return yaml.safe_dump(front, sort_keys=False)


def _is_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name)) and not name.startswith(("assets/", "runs/", ".")) and not Path(name).exists()


def _commit(git: Mapping[str, Any]) -> str:
    return f"{git.get('commit', _UNKNOWN)}{', with changes' if git.get('changed') else ''}"


def _licence(licence: str, given: bool, data: Mapping[str, Any]) -> str:
    base = f"`{licence}`{'' if given else ', as the card of the base names it'}"
    if licence == _UNKNOWN:
        base = "that of the base, whose card was not found or names none"
    if data["format"] == "world":
        return f"{base}; the rows are made by Callwise (Apache-2.0)"
    return f"{base}; that of the training rows is not known here"


def _data(tuned: Mapping[str, Any]) -> dict[str, Any]:
    inputs = tuned["inputs"]["data"]
    train = inputs.get("train") or ""
    return {
        "format": inputs["format"],
        "name": named(train),
        "digest": tuned["data"]["digest"][:16],
        "seed": tuned["seeds"]["data.seed"],
    }


def _row(place: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "place": place,
        "parents": [entry["path"] for entry in manifest["parents"].values()],
        "digest": manifest["digest"][:16],
        "seed": manifest["seeds"]["seed"],
        "seconds": round(manifest["seconds"]),
    }


def _ways(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was measured of each way of merging, the kept one first."""
    kept = metrics["base"]
    others = [way for way in WAYS if way != kept and f"{way}_mean_kl" in metrics]
    return [
        {"name": kept} | {name: metrics[name] for name in MEASURES},
        *({"name": way} | {name: metrics[f"{way}_{name}"] for name in MEASURES} for way in others),
    ]


def _taught(student: Mapping[str, Any]) -> dict[str, str]:
    """Who taught a student, and what of the teacher it learned."""
    inputs = student["inputs"]
    adapters = [f"`{stage}` of {named(inputs['model']['path'])}" for stage in student["parents"]]
    return {
        "by": adapters[0] if adapters else f"`{inputs[STUDENT]['endpoint_model']}`, at an endpoint",
        "kind": inputs[STUDENT]["kind"],
    }


def _results(
    manifest: Mapping[str, Any], adapter: str, student: Mapping[str, Any] | None, settings: Settings
) -> dict[str, Any] | None:
    """The evaluation's rates, if it was of this very model, or of the adapter that it was made from.

    The base that it asked is not a student's own: beside a student stands its teacher instead.
    """
    folder = done_folder("evaluate", settings)
    if folder is None:
        return None
    above, metrics = (read_manifest(folder) or {})["parents"], read_json(folder / "metrics.json")
    merged = "merged" in metrics and above.get("merge", {}).get("digest") == manifest["digest"]
    beside = manifest["parents"] | (student["parents"] if student else {})
    same = {stage for stage, entry in beside.items() if above.get(stage) == entry}
    if not merged and not (adapter in same and adapter in metrics):
        return None
    same |= {"merged"} if merged else set()
    shown = [name for name in metrics if name in same or (name == "base" and student is None)]
    first = metrics[shown[0]]
    of = "`merged` is this model." if merged else f"Of `{adapter}`, before it was merged."
    teacher = [name for name in shown if student and name in student["parents"]]
    return {
        "of": f"{of} `{teacher[0]}` is its teacher." if teacher else of,
        "rates": _RATES.values(),
        "rows": [
            {"model": name, "cells": [_cell(metrics[name], rate) for rate in _RATES]} for name in shown
        ],
    } | {name: first[name] for name in ("n", "n_call", "n_no_call")}  # fmt: skip


def _cell(fields: Mapping[str, Any], rate: str) -> str:
    return f"{percent(fields[rate])} {interval(fields[f'{rate}_ci'])}".strip()


def _reward(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The points by which a stage rewarded answers; none where somebody else ranked them."""
    if not manifest or _ranked_by(manifest) != "rules":
        return []
    table = manifest["reward"]
    points = [(name, f"{value:g}") for name, value in table.items() if isinstance(value, int | float)]
    return points + [(f"rule {name}", f"{rule['weight']:g}") for name, rule in table.get("rules", {}).items()]


def _ranked_by(manifest: Mapping[str, Any]) -> str:
    return manifest["inputs"].get("pairs", {}).get("rank", "rules")


def _rewarding(manifest: Mapping[str, Any], last: str, whose: str) -> str:
    """How the answers of a stage were told good from bad; `last` is the last adapter of the chain."""
    if not manifest:
        return "No preference stage went into this model."
    if manifest["stage"] in REINFORCED:
        return f"The {whose}'s sampled answers earned these points in reinforcement learning:"
    pairs = manifest["inputs"].get("pairs", {})
    answers = f"the {whose}'s own answers"
    if pairs.get("sampler") == "openai":
        answers = f"the answers of `{pairs['endpoint_model']}`, at an endpoint,"
    judge = {
        "rules": "by these points",
        "human": "as a person ranked them",
        "ai": f"as `{pairs.get('judge_model')}` judged them",
    }
    modelled = ", and a reward model was trained on them" if last in REINFORCED else ""
    by = _ranked_by(manifest)
    return f"Preference pairs were made from {answers} {judge[by]}{modelled}{':' if by == 'rules' else '.'}"


def _command(manifest: Mapping[str, Any], settings: Settings) -> str:
    """The command as typed, for those manifests that hold it."""
    typed = [word for word in manifest.get("overrides", ()) if not word.startswith(("stage=", "run=", "merge.push"))]
    return _hidden(" ".join(["python train.py", f"stage={manifest['stage']}", f"run={settings.run}", *typed]))


def _hidden(text: str) -> str:
    """Absolute paths in a command by their last part."""
    return re.sub(r"(?<![\w.])(?:~|/)[^\s,'\"\]]*/([^\s,/'\"\]]*)", r"\1", text)
