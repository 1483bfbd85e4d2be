"""The house rules: who may import whom, what may be heavy, one name for one file, everything pinned."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from stages._schema import ROOT, brings, optional_parents, parents, stage_module, stage_names

LAYERS = ("data", "rewards", "stages", "runtime")
HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "bitsandbytes",
    "wandb",
    "trackio",
    "tensorboard",
    "matplotlib",
    "scipy",
)
SOURCES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> set[str]:
    """Every module a file imports, inside functions too, those for type checkers alone left out."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:  # relative ones stay in their package
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        only_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        waiting += node.orelse if only_types else ast.iter_child_nodes(node)  # type: ignore[attr-defined]
    return found


def public_modules() -> list[str]:
    """Everything YAML can name, and train.py."""
    files = [path.relative_to(ROOT).with_suffix("") for path in SOURCES if not path.name.startswith("_")]
    return ["train", *(".".join(path.parts) for path in files)]


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_each_layer_imports_only_those_below_it(path):
    """But for the one stage that shows the runtime."""
    layer = path.relative_to(ROOT).parts[0]
    above = {"train", "tests", *LAYERS[LAYERS.index(layer) + 1 :]}
    if named(path) in ("stages/chat.py", "stages/_chat.py"):
        above.remove("runtime")
    assert not [name for name in imported(path) if name.split(".")[0] in above]


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parent.name == "stages"], ids=named)
def test_stages_meet_through_files_and_never_import_each_other(path):
    others = set(stage_names()) - {path.stem}
    assert not [name for name in imported(path) if name.split(".")[0] == "stages" and name.split(".")[1] in others]


@pytest.mark.parametrize("path", [path for path in SOURCES if path.relative_to(ROOT).parts[0] in LAYERS[:2]], ids=named)
def test_data_and_rewards_never_import_anything_heavy(path):
    """But for the one reader of rows that lie on the hub, which imports `datasets` where it reads them."""
    allowed = {"datasets"} if named(path) == "data/_files.py" else set()
    assert {name.split(".")[0] for name in imported(path)} & set(HEAVY) == allowed


def test_nothing_heavy_is_loaded_by_importing_what_yaml_can_name():
    code = f"""
import importlib, sys
for name in {[*public_modules(), *(f"stages.{path.stem}" for path in (ROOT / "stages").glob("_*.py"))]}:
    importlib.import_module(name)
sys.exit(", ".join(sorted(set({HEAVY}) & set(sys.modules))) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_train_names_no_stage_rule_format_or_dialect():
    tree = ast.parse((ROOT / "train.py").read_text())
    words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words |= set(re.findall(r"\w+", node.value))
    folders = (ROOT / "data" / "formats", ROOT / "data" / "dialects", ROOT / "rewards", ROOT / "stages")
    known = {path.stem for folder in folders for path in folder.glob("*.py") if not path.name.startswith("_")}
    assert not words & known


@pytest.mark.parametrize("name", stage_names())
def test_a_stage_says_how_to_run_it_and_names_stages_that_exist(name):
    module = stage_module(name)
    assert f"python train.py stage={name}" in (module.__doc__ or "")
    assert callable(module.run)
    assert {*brings(name), *parents(name), *optional_parents(name)} <= set(stage_names())
    assert set(getattr(module, "BLOCKS", ())) <= {*stage_names(), "model", "data", "reward"}
    assert not set(parents(name)) & set(optional_parents(name))


@pytest.mark.parametrize("name", [name for name in public_modules() if name.split(".")[0] in LAYERS])
def test_what_yaml_can_name_says_what_it_is(name):
    assert (importlib.import_module(name).__doc__ or "").strip()


def test_every_stage_yaml_has_its_stage_and_every_stage_its_yaml():
    assert {path.stem for path in (ROOT / "conf" / "stage").glob("*.yaml")} == set(stage_names())


def test_names_of_a_group_and_of_a_stage_never_meet():
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    assert not groups & set(stage_names())


def test_everything_is_pinned_to_what_is_installed():
    def key(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pinned = {key(name): version for name, version in (line.split("==") for line in lines if line)}
    wanted = [re.split(r"[<>=\s#]", line)[0] for line in (ROOT / "requirements.txt").read_text().splitlines()]
    assert {key(name) for name in wanted if name} <= set(pinned)
    installed = {key(name): importlib.metadata.version(name).split("+")[0] for name in wanted if name}
    assert installed == {name: pinned[name] for name in installed}
    assert pinned["trl"] == "1.16.0"


def test_hooks_and_continuous_integration_run_what_make_runs():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook for repository in repositories for hook in repository["hooks"]]
    assert [hook["entry"] for hook in hooks] == ["make lint"]
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_nothing_of_ours_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "build-system" not in project
    for layer in LAYERS:
        assert not importlib.metadata.packages_distributions().get(layer)


def test_git_keeps_data_and_leaves_runs(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    paths = [*map(named, SOURCES), "assets/tiny/model.safetensors", "runs/default/sft"]
    check = subprocess.run(["git", "check-ignore", *paths], cwd=tmp_path, capture_output=True, text=True)
    assert check.stdout.split() == ["runs/default/sft"]


def test_no_shipped_file_is_over_16_mb():
    assert not [path for path in (ROOT / "assets").rglob("*") if path.is_file() and path.stat().st_size > 16_000_000]
