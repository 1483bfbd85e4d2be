"""Every YAML in conf/ composes and validates, brings what it needs, and every field says what it is."""

from __future__ import annotations

import pickle
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from stages._errors import UserError
from stages._help import descriptions
from stages._refusals import compose, settings_of
from stages._schema import CONF, GROUPS, block_class, model_in, publish, stage_names, stages_within
from stages._settings import RootConfig, Settings
from tests.toys import needs_extra

YAMLS = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
STAGES = [pytest.param(name, id=name) for name in stage_names()]


@pytest.fixture(autouse=True, scope="module")
def _published() -> None:
    publish()


def composed(*overrides: str) -> Settings:
    config, stage = compose(overrides)
    return settings_of(config, stage, overrides)


def test_there_are_configurations_of_every_kind():
    assert {path.parts[0] for path in YAMLS if len(path.parts) > 1} >= {"stage", *GROUPS, "experiment"}


@pytest.mark.parametrize("path", YAMLS, ids=str)
def test_every_yaml_composes_and_validates(path, tmp_path):
    group, name = path.parent.as_posix(), path.stem
    overrides = [] if group == "." else [f"{group}=[{name}]" if group == "tracking" else f"{group}={name}"]
    needs_extra(overrides)
    if group == "pretraining":  # comes with its model
        overrides = ["stage=pretrain", f"model={name}"]
    if group in ("data", "experiment"):  # most formats read a file
        (tmp_path / "rows.jsonl").write_text("")
        overrides.append(f"data.train={tmp_path}/rows.jsonl")
    assert isinstance(composed(*overrides), Settings)


@pytest.mark.parametrize("path", [path for path in YAMLS if path.parts[0] in ("launcher", "sweeper")], ids=str)
def test_what_a_launcher_or_sweeper_needs_is_required_and_pinned_where_its_yaml_says(path):
    package, install = ((CONF / path).read_text().splitlines()[line].removeprefix("# ") for line in (1, 2))
    words = install.split()
    assert [*words[:3], words[4]] == ["pip", "install", "-r", "-c"]
    required, pinned = ((CONF.parent / words[place]).read_text().splitlines() for place in (3, 5))
    assert package in required
    pins = {line.split("==")[0].lower().replace("_", "-") for line in pinned if "==" in line}
    wanted = {re.split("[<>=]", line)[0] for line in required if line and not line.startswith("#")}
    assert wanted <= pins


@pytest.mark.parametrize("path", YAMLS, ids=str)
def test_no_yaml_names_something_to_call(path):
    assert "_target_" not in (CONF / path).read_text()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_brings_the_whole_schema_of_every_block_it_uses_and_no_other(stage):
    config, chosen = compose([f"stage={stage}"])
    assert chosen == stage
    blocks = set(config) - set(RootConfig.model_fields) - {"tracking"}
    assert blocks == {*stages_within(stage), *GROUPS} - {"tracking"}
    for block in blocks:
        assert set(block_class(block).model_fields) <= set(config[block]), block


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_the_same_defaults_wherever_it_runs(stage):
    alone, _ = compose([f"stage={stage}"])
    for other in stage_names():
        if stage in stages_within(other):
            config, _ = compose([f"stage={other}"])
            assert config[stage] == alone[stage], other


@pytest.mark.parametrize("path", [path for path in YAMLS if path.parts[0] == "experiment"], ids=str)
def test_an_experiment_starts_with_the_command_that_runs_it(path, tmp_path, monkeypatch):
    package, command, *_ = (CONF / path).read_text().splitlines()
    assert package == "# @package _global_"
    words = shlex.split(command.removeprefix("#"))
    assert words[:2] == ["python", "train.py"]
    assert f"experiment={path.stem}" in words
    monkeypatch.chdir(tmp_path)
    for word in words:
        if word.startswith("data.") and "." in word.partition("=")[2]:  # the reader's own file
            Path(word.partition("=")[2]).write_text("")
    assert isinstance(composed(*words[2:]), Settings)


def classes(config: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A class of settings and those nested in it, also inside lists and mappings."""
    yield config
    for field in config.model_fields.values():
        for annotation in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if inner := model_in(annotation):
                yield from classes(inner)


def every_class() -> list[Any]:
    blocks = [RootConfig, *(block_class(name) for name in (*GROUPS, *stage_names()))]
    found = dict.fromkeys(one for block in blocks for one in classes(block))
    return [pytest.param(one, id=f"{one.__module__}.{one.__name__}") for one in found]


@pytest.mark.parametrize("config", every_class())
def test_every_field_has_a_docstring_and_unknown_fields_are_refused(config):
    assert config.model_config.get("extra") == "forbid"
    assert config.__doc__
    missing = set(config.model_fields) - {name for name, text in descriptions(config).items() if text}
    assert not missing


@pytest.mark.parametrize("stage", [stage for stage in stage_names() if "trainer" in block_class(stage).model_fields])
def test_any_argument_of_a_trainer_passes_without_a_plus(stage):
    assert composed(f"stage={stage}", f"{stage}.trainer.max_steps=3").stage(stage).trainer == {"max_steps": 3}


def test_settings_can_be_sent_to_another_process():
    settings = composed("seed=3", "tracking=[wandb]")
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert yaml.safe_load(yaml.safe_dump(settings.as_dict())) == settings.as_dict()


@pytest.mark.parametrize("name", ["data", "reward", "model"])
def test_settings_of_a_group_can_be_overridden_unrepeated(name):
    field, info = next(
        (field, info) for field, info in block_class(name).model_fields.items() if info.annotation in (int, float, bool)
    )
    value = {int: 77, float: 0.5, bool: not info.default}[info.annotation]  # type: ignore[index]
    assert getattr(composed(f"{name}.{field}={str(value).lower()}").blocks[name], field) == value


def test_the_configuration_lies_where_it_is_looked_for():
    assert Path(__file__).resolve().parents[1] / "conf" == CONF


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model.dialect=nativ", "model.dialect: no such dialect 'nativ'; did you mean native? (got 'nativ')"),
        ("data.format=opnai", "data.format: no such format 'opnai'; did you mean openai? (got 'opnai')"),
    ],
)
def test_a_dialect_or_format_that_is_not_there_is_refused_with_the_nearest(override, line):
    with pytest.raises(UserError) as refusal:
        composed(override)
    assert refusal.value.lines == ("invalid configuration:", f"  {line}")
