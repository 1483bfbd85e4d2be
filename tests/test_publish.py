"""Handing a merged model on: folders, the hub, GGUF; each refused in one line before any work where it cannot be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from stages import _card, _publish
from stages._errors import UserError
from stages._validate import validate

MODEL = {"config.json": "{}", "README.md": "---\ntags:\n- callwise\n---\n", "Modelfile": "FROM .\n"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "merge" / "model"
    folder.mkdir(parents=True)
    for name, text in MODEL.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token of the machine's own, and nobody to talk to."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


def refused(**block: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        validate({"merge": block}, "merge")
    return [line.strip() for line in caught.value.lines[1:]]


def test_all_that_keeps_a_model_from_being_published_is_said_at_once_and_before_anything_runs() -> None:
    converter, token = refused(gguf="f16", push="me/model")
    assert converter.startswith("merge.gguf: convert_hf_to_gguf.py is not on PATH; name the folder of llama.cpp")
    assert token.startswith("merge.push: no token for the hub: `hf auth login`, or set HF_TOKEN;")


def test_a_hub_that_is_switched_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert refused(push="me/model")[0].startswith("merge.push: HF_HUB_OFFLINE is set")


@pytest.mark.parametrize("name", ["model", "../up", "a/b/c", "me/", "me/x y"])
def test_a_repository_is_a_user_and_a_name(name: str) -> None:
    assert "merge.push" in refused(push=name)[0]


def test_a_folder_without_the_converter_is_named(tmp_path: Path) -> None:
    assert f"no convert_hf_to_gguf.py in merge.llama_cpp={tmp_path}" in refused(gguf="f16", llama_cpp=str(tmp_path))[0]


def test_the_folder_holds_what_the_model_has_and_nothing_of_an_earlier_copy(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    _publish.write_folder(model, target)
    (target / "model-00001-of-00002.safetensors").write_text("of an earlier merge")
    _publish.write_folder(model, target)
    assert {path.name: path.read_text() for path in target.iterdir()} == MODEL
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == ["out"]


def test_a_folder_with_something_else_in_it_is_left_alone(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "thesis"
    target.mkdir()
    _publish.check_folder(target)
    (target / "README.md").write_text("# My thesis")
    with pytest.raises(UserError, match=r"thesis: holds something else than a model"):
        _publish.write_folder(model, target)
    assert [path.name for path in target.iterdir()] == ["README.md"]


@pytest.mark.parametrize("name", [".git", "notes.txt"])
def test_what_was_added_to_an_earlier_copy_is_not_deleted_with_it(name: str, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    _publish.write_folder(model, target)
    (target / name).mkdir() if name.startswith(".") else (target / name).write_text("mine")
    with pytest.raises(UserError, match=rf"out: holds something else .*\({name}\); name an empty folder"):
        _publish.write_folder(model, target)
    assert (target / name).exists()


def test_the_word_callwise_in_a_readme_is_no_front_matter_of_ours(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "README.md").write_text("# Tools I like\n\n- callwise\n")
    with pytest.raises(UserError, match="something else"):
        _publish.write_folder(model, target)


class Hub:
    """Takes down what the hub would be asked."""

    asked: list[tuple[str, dict[str, Any]]]

    def create_repo(self, **arguments: Any) -> None:
        self.asked.append(("create_repo", arguments))

    def upload_folder(self, **arguments: Any) -> None:
        self.asked.append(("upload_folder", arguments))

    def whoami(self) -> None:
        raise OSError("no route to host")


def test_what_is_uploaded_is_the_models_folder_to_a_repository_that_is_private(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    Hub.asked = []
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    _publish.upload(model, "me/model", private=True)
    (made, repository), (sent, upload) = Hub.asked
    assert (made, repository) == ("create_repo", {"repo_id": "me/model", "private": True, "exist_ok": True})
    assert (sent, upload["repo_id"], upload["folder_path"]) == ("upload_folder", "me/model", model)


def test_a_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    with pytest.raises(UserError) as caught:
        _publish.check_access("me/model")
    assert caught.value.lines == (
        "merge.push=me/model: no route to host; merge.push_to_folder=FOLDER writes what would be uploaded",
    )


def test_a_connection_that_is_refused_is_one_line_too() -> None:
    from huggingface_hub import HfApi

    nobody = HfApi(endpoint="http://127.0.0.1:9", token="none")  # port 9: nothing listens
    with pytest.raises(UserError, match=r"^merge.push=me/model: .+; merge.push_to_folder=FOLDER writes [^\n]+$"):
        _publish._told("me/model", nobody.whoami)


CONVERTER = """
import json, sys
assert "{how}" != "fails", "no such architecture"
with open(sys.argv[3], "w") as out:
    json.dump(sys.argv[1:], out)
"""


@pytest.mark.parametrize("how", ["works", "fails"])
def test_gguf_is_made_by_the_converter_once(how: str, model: Path, tmp_path: Path) -> None:
    script = tmp_path / _publish.CONVERTER
    script.write_text(CONVERTER.replace("{how}", how))
    assert _publish.converter(str(tmp_path)) == script
    if how == "fails":
        with pytest.raises(
            UserError, match=r"^merge.gguf=q8_0: convert_hf_to_gguf.py made no file \(AssertionError: no"
        ):
            _publish.write_gguf(model.parent, "q8_0", script)
        return
    made = _publish.write_gguf(model.parent, "q8_0", script)
    assert made == model.parent / "gguf" / "model-q8_0.gguf"
    words = json.loads(made.read_text())
    assert (words[0], words[1], words[3:]) == (str(model), "--outfile", ["--outtype", "q8_0"])
    script.write_text("raise SystemExit(1)")
    assert _publish.write_gguf(model.parent, "q8_0", script) == made


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import no_such.thing", r"\(ModuleNotFoundError: No module named 'no_such'\); pip install no_such$"),
        ("raise SystemExit('too old')", r"\(too old\); see what it says of itself$"),
    ],
)
def test_a_converter_that_does_not_start_is_told_before_anything_is_merged(
    script: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / _publish.CONVERTER
    file.write_text(script)
    with pytest.raises(UserError, match=f"^merge.gguf: {re.escape(str(file))} does not start {said}"):
        _publish.check_converter(file)
    file.write_text("import sys\nassert sys.argv[1:] == ['--help']")
    _publish.check_converter(file)


# ----- the card -----


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# A model", "apache-2.0"),
        ("---\nlicense: [mit, other]\n---\n", "unknown"),
        ("---\nlicense: 'x\n: y'\n---\n", "unknown"),
        ("---\n: [\n---\n", "unknown"),
        ("# A model\nlicense: mit", "unknown"),
    ],
)
def test_the_licence_is_the_one_in_the_front_matter(card: str, licence: str) -> None:
    assert _card._license_in(card) == licence


PAIRS = {
    "stage": "pairs",
    "reward": {"needless_call": -10.0},
    "inputs": {"pairs": {"sampler": "policy", "rank": "rules"}},
}


def of_pairs(**changed: Any) -> dict[str, Any]:
    return PAIRS | {"inputs": {"pairs": PAIRS["inputs"]["pairs"] | changed}}  # type: ignore[index]


@pytest.mark.parametrize(
    ("manifest", "last", "told", "points"),
    [
        (PAIRS, "dpo", "Preference pairs were made from the model's own answers by these points:", 1),
        (of_pairs(sampler="openai", endpoint_model="big"), "dpo", "the answers of `big`, at an endpoint, by these", 1),
        (of_pairs(rank="human"), "kto", "the model's own answers as a person ranked them.", 0),
        (of_pairs(rank="ai", judge_model="judge"), "dpo", "as `judge` judged them.", 0),
        (PAIRS, "grpo", "by these points, and a reward model was trained on them:", 1),
        ({**PAIRS, "stage": "ppo", "inputs": {}}, "ppo", "sampled answers earned these points in reinforcement", 1),
        ({}, "sft", "No preference stage went into this model.", 0),
    ],
)
def test_the_card_says_how_good_was_told_from_bad_here(
    manifest: dict[str, Any], last: str, told: str, points: int
) -> None:
    assert told in _card._rewarding(manifest, last, "model")
    assert len(_card._reward(manifest)) == points


def test_the_embedded_models_licence_is_known() -> None:
    from stages._model import ModelConfig

    assert _card.base_license(ModelConfig()) == "apache-2.0"


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("python train.py data.train=/home/me/rows.jsonl", "python train.py data.train=rows.jsonl"),
        ("data.train='/home/me/my rows.jsonl'", "data.train='my rows.jsonl'"),
        ("data.train=~/rows.jsonl model=tiny", "data.train=rows.jsonl model=tiny"),
        ("report.runs=[/a/b/one,/a/b/two]", "report.runs=[one,two]"),
        (
            "model.path=Qwen/Qwen3-0.6B data.train=rows/mine.jsonl",
            "model.path=Qwen/Qwen3-0.6B data.train=rows/mine.jsonl",
        ),
    ],
)
def test_no_absolute_path_stands_in_a_card(typed: str, shown: str) -> None:
    assert _card._hidden(typed) == shown


def test_the_front_matter_names_a_base_and_data_that_the_hub_has_and_no_folder() -> None:
    front = _card._front("Qwen/Qwen3-0.6B", "apache-2.0", ["sft"], {"train": "org/rows", "format": "openai"})
    assert "base_model: Qwen/Qwen3-0.6B\n" in front
    assert "datasets:\n- org/rows\n" in front
    local = _card._front("assets/tiny", "unknown", ["sft"], {"train": None, "format": "world"})
    assert "base_model" not in local
    assert "datasets" not in local
    assert "license: other\nlicense_name: unknown\n" in local
