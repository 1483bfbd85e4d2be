"""`python train.py --help`: what there is to choose; with `stage=…`, every setting of that stage and what it is now."""

from __future__ import annotations

import ast
import inspect
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from stages._refusals import compose
from stages._schema import CONF, GROUPS, block_class, stage_module, stage_names, stages_within
from stages._settings import RootConfig

_FOOT = """\
  python train.py stage=<stage> --help      every setting of a stage, its value and what it means
  python train.py stage=<stage> --cfg job   the configuration as YAML
  python train.py -m <setting>=1,2,3        a sweep: one job for each value
  <stage>.trainer.<argument>=<value>        any argument of the trainer underneath
Results lie in runs/<run>/<stage>; the same command again resumes what was interrupted, and skips what is done."""


def help_text(overrides: Sequence[str]) -> str:
    """The help; about one stage if the overrides name one."""
    config, stage = compose(overrides)
    about_stage = any(word.startswith("stage=") for word in overrides)
    return "\n".join(_settings(config, stage) if about_stage else _overview(stage))


def _overview(default: str) -> list[str]:
    lines = ["python train.py [stage=<stage>] [<group>=<choice>] [<setting>=<value>] …", "", "stages"]
    lines += _table([(name + " *" * (name == default), summary(stage_module(name).__doc__)) for name in stage_names()])
    lines += ["  (* without stage=…)", "", "groups"]
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "stage")
    choices = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in groups}
    lines += _table([(f"{group}=", " | ".join(choices[group])) for group in groups if choices[group]])
    lines += ["", "settings"]
    lines += _table([(name, text) for name, text in descriptions(RootConfig).items() if name != "sweep"])
    return [*lines, "", _FOOT]


def _settings(config: Any, stage: str) -> list[str]:
    lines = [f"stage={stage}: {summary(stage_module(stage).__doc__)}"]
    for block in (*reversed(stages_within(stage)), *GROUPS):
        known = block_class(block)
        values = config.get(block) or {}
        if not known.model_fields or (block in GROUPS and not values):
            continue
        lines += ["", f"{block}: {summary(known.__doc__)}".rstrip(": ")]
        texts = descriptions(known)
        lines += _table(
            [(f"{block}.{name}={_shown(values.get(name))}", texts.get(name, "")) for name in known.model_fields],
            wide=True,
        )
    return lines


def summary(docstring: str | None) -> str:
    """The first line of a docstring."""
    return (inspect.cleandoc(docstring or "").splitlines() or [""])[0]


def descriptions(config: type[BaseModel]) -> dict[str, str]:
    """What each field means: its description, or the docstring under it."""
    texts = {name: field.description for name, field in config.model_fields.items() if field.description}
    return dict(_docstrings(config)) | texts


def _docstrings(config: type[BaseModel]) -> Iterator[tuple[str, str]]:
    for owner in (one for one in reversed(config.__mro__) if issubclass(one, BaseModel) and one is not BaseModel):
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body  # type: ignore[attr-defined]
        for field, below in pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                yield ast.unparse(field.target), " ".join(str(below.value.value).split())


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _table(rows: Sequence[tuple[str, str]], wide: bool = False) -> list[str]:
    width = min(max((len(left) for left, _ in rows), default=0), 44 if wide else 24)
    room = max(shutil.get_terminal_size((120, 24)).columns - width - 4, 40)
    lines = []
    for left, right in rows:
        wrapped = textwrap.wrap(right, room) or [""]
        lines.append(f"  {left:<{width}}  {wrapped[0]}".rstrip())
        lines += [" " * (width + 4) + more for more in wrapped[1:]]
    return lines
