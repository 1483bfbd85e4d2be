"""A multirun: where its points go, what each is called, and sweep.json."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from stages._errors import UserError
from stages._files import locked, read_json, slug, write_json
from stages._job import execute
from stages._refusals import compose, settings_of
from stages._settings import Settings


def prepare(overrides: Sequence[str]) -> list[str]:
    """Further overrides for a multirun: the keys it varies, and its name. Its first point is checked before it runs."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    keys = [override.key_or_group for override in parsed if override.is_sweep_override()]
    first = [
        f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"
        if override.is_discrete_sweep()
        else text
        for override, text in zip(parsed, overrides, strict=True)
        if not override.is_sweep_override() or override.is_discrete_sweep()
    ]
    settings = settings_of(*compose(first))
    name = settings.root.sweep.name or slug("_".join(_short(keys))) if keys else "single"
    if len(name) > 100:
        raise UserError(
            f"sweep.name: give the sweep a name (sweep.name=…); one made of its keys would be too long: {name}"
        )
    return [f"sweep.keys=[{','.join(keys)}]", f"sweep.name={name}"]


def run_point(settings: Settings) -> None:
    """One point: its stages in a folder of its own, its line in sweep.json whatever becomes of it."""
    sweep = settings.root.sweep
    folder = settings.run_folder / "sweeps" / str(sweep.name)
    job = point_name(sweep.keys, settings.overrides)
    varied = [override for override in settings.overrides if override.split("=")[0].lstrip("+") in sweep.keys]
    entry: dict[str, Any] = {"job": job, "overrides": varied, "status": "running", "seconds": None, "metrics": None}
    began = time.monotonic()
    point = Settings(settings.asked, settings.root, settings.blocks, f"sweeps/{sweep.name}/{job}", settings.overrides)
    print(f"{sweep.name}: {job}", flush=True)
    try:
        entry["metrics"] = execute(settings.asked, point)
        entry["status"] = "done"
    except Exception as error:
        entry |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        raise
    finally:
        entry["seconds"] = round(time.monotonic() - began, 2)
        with locked(folder / ".sweep.lock", f"{folder} is being written", wait=True):
            summary = read_json(folder / "sweep.json") or {"points": []}
            others = [known for known in summary["points"] if known["job"] != job]
            write_json(folder / "sweep.json", {"points": sorted([*others, entry], key=lambda known: known["job"])})


def point_name(keys: Sequence[str], overrides: Sequence[str]) -> str:
    """A point's folder: its values by key.

    >>> point_name(["reward.needless_call", "sft.rank"], ["stage=dpo", "reward.needless_call=-1", "sft.rank=8"])
    'needless_call-1_rank_8'
    """
    given = {
        override.split("=", 1)[0].lstrip("+"): override.split("=", 1)[1] for override in overrides if "=" in override
    }
    parts = [
        short + (given[key] if given[key].startswith("-") else f"_{slug(given[key])}")
        for short, key in zip(_short(keys), keys, strict=True)
    ]
    return slug("_".join(parts))[:100]


def _short(keys: Sequence[str]) -> list[str]:
    """The last step of each key, or the whole key where two would be alike."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return [step if last.count(step) == 1 else key for step, key in zip(last, keys, strict=True)]
