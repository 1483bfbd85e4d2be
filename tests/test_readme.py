"""What README.md says can be typed, composes; what it says is in the tree, is there; its figures have a command."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from data import formats
from tests.toys import needs_extra

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks() -> list[str]:
    """The indented lines, each without what follows a #."""
    return [line.split(" #")[0].strip() for line in README.splitlines() if line.startswith("    ")]


COMMANDS = [line for line in blocks() if line.startswith("python train.py")]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_composes(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)[2:]
    for file in re.findall(r"[\w-]+\.jsonl", command):  # a file of the reader's own
        (tmp_path / file).write_text('{"user_content": "a", "tool_name": "b", "tool_arguments": "{}"}\n' * 4)
    needs_extra(words)
    if "-m" in words:  # a sweep has several configurations; the first stands for them
        words = [re.sub(r"=(?:interval\(([^,]*).*|([^[,]*),.*)", r"=\1\2", word) for word in words if word != "-m"]
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *words, "--cfg", "job"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_there_are_commands_for_every_stage_of_the_main_job() -> None:
    assert {f"stage={stage}" for stage in ("sft", "dpo", "merge", "evaluate", "pipeline")} <= set(
        " ".join(COMMANDS).split()
    )


def test_make_has_the_targets_that_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [line.split()[1] for line in blocks() if line.startswith("make ")]
    assert targets
    assert all(f"\n{target}:" in makefile for target in targets)


def test_the_tree_is_the_one_on_disk() -> None:
    section = README.split("## The tree")[1].split("\n**Add")[0]
    folder, named = "", set()
    for line in section.splitlines():
        if match := re.match(r"    ( *)([\w./]+)", line):
            folder = folder if match[1] else match[2]
            path = ROOT / (folder + match[2] if match[1] else match[2])
            assert path.exists(), path
            named.add(path.relative_to(ROOT).parts[0])
    shown = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    folders = {Path(file).parts[0] for file in shown if "/" in file and not file.startswith(".")}
    assert folders <= named


def test_every_dialect_is_spoken_of() -> None:
    from data import dialects

    section = README.split("A dialect is")[1].split("\n\n")[0]
    assert all(f"`{name}`" in section for name in dialects.names())


def test_every_model_preset_is_in_the_table_with_its_checkpoint_and_memory() -> None:
    for file in sorted((ROOT / "conf/model").glob("*.yaml")):
        preset = yaml.safe_load(file.read_text(encoding="utf-8"))
        if preset["name"] in ("tiny", "tiny_student"):
            continue
        columns = (
            f"`{preset['name']}`",
            preset["path"],
            preset.get("dialect", "native"),
            f"{preset['memory_gib']} GiB",
        )
        assert f"| {' | '.join(columns)} |" in README


def recipe() -> tuple[dict[str, str], str]:
    """The files of the section on adding a format, and what it says to type behind `python train.py`."""
    section = README.split("## Add a format")[1].split("\n## ")[0]
    parts = re.split(r"`((?:data|conf)/[\w/]+\.(?:py|yaml))`:\n", section)
    files = {}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        indented = re.match(r"(?:    .*\n|\s*\n)+", text)
        assert indented
        files[name] = "\n".join(line.removeprefix("    ") for line in indented[0].splitlines()).strip() + "\n"
    words = re.search(r"`(data=\w+ data\.train=[\w.]+)`", section)
    assert words
    return files, words[1]


def test_a_format_is_added_as_the_readme_says(tmp_path: Path) -> None:
    house = tmp_path / "house"
    for folder in ("conf", "data", "rewards", "stages"):
        shutil.copytree(ROOT / folder, house / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", house)
    files, words = recipe()
    assert {Path(name).suffix for name in files} == {".py", ".yaml"}
    for name, text in files.items():
        assert not (house / name).exists()
        (house / name).write_text(text, encoding="utf-8")
    file = house / words.split("=")[-1]
    teams = ["sales", "repairs"] * 10
    file.write_text("text,team\n" + "".join(f"Ticket {n},{team}\n" for n, team in enumerate(teams)))

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *command], cwd=house, capture_output=True, text=True, timeout=60)

    composed = run("train.py", *words.split(), "--cfg", "job")
    assert composed.returncode == 0, composed.stderr
    name = yaml.safe_load(composed.stdout)["data"]["format"]
    code = f"from data.load import *; print(load(DataConfig(format={name!r}, train={file.name!r})).counts['sft'])"
    assert run("-c", code).stdout == "17\n"
    file.write_text("text,team\nHello,kitchen\n")
    broken = run("-c", code)
    assert f"{file.name}:2: messages[1].tool_calls[0].arguments.team: breaks the schema of assign" in broken.stderr


def test_every_format_is_in_the_table_and_has_its_yaml() -> None:
    table = set(re.findall(r"^\| `(\w+)` \| ", README.split("| `data=` | rows |")[1].split("\n\n")[0], re.MULTILINE))
    assert table == set(formats.names())
    files = {
        file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in (ROOT / "conf/data").glob("*.yaml")
    }
    assert {name: file["format"] for name, file in files.items()} == {name: name for name in (*formats.names(), "auto")}
