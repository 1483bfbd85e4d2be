"""A distilled student merged, evaluated and chatted with: its own checkpoint, template and tokens, not the run's.

Training is stood in for by a fixed change of the adapter; all else is as a user runs it.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stages import _lineage, chat, distill, dpo, evaluate, merge, pairs, sft
from stages._ability import Answers, measure
from stages._asking import Model
from stages._errors import UserError
from stages._files import read_json, read_jsonl, write_jsonl
from stages._job import Job, execute
from stages._lineage import present
from stages._rows import Counts
from stages._schema import parents
from stages._settings import RootConfig, Settings
from stages._teaching import Taught
from tests import toys

SHORT: dict[str, dict[str, Any]] = {
    "evaluate": {"limit": 4, "max_new_tokens": 12, "ability_requests": 2},
    "merge": {"requests": 3, "max_new_tokens": 12},
}


class Run(NamedTuple):
    """A run in a folder, and the checkpoints of its model and of its student, which has another tokenizer."""

    folder: Path
    model: Path
    student: Path

    def settings(self, stage: str, **blocks: dict[str, Any]) -> Any:
        brought = {"merge": ("merge",), "evaluate": ("evaluate",), "distill": ("distill", "evaluate")}.get(stage, ())
        given = {"distill": {"student": str(self.student)}} | SHORT
        own = {block: given[block] | blocks.pop(block, {}) for block in brought}
        return toys.toy_settings(self.folder, stage, self.model, **own, **blocks)

    def __call__(self, stage: str, **blocks: dict[str, Any]) -> dict[str, Any]:
        return execute(stage, self.settings(stage, **blocks))

    def made(self, name: str) -> Any:
        return read_json(self.folder / "runs" / "toy" / name)

    def job(self, stage: str) -> Job:
        settings = self.settings(stage)
        there = present(stage, settings, {}) | {"sft": settings.folder / "sft"}
        return Job(stage, settings, settings.folder / stage, there, resuming=False)


def stand_in(job: Job, model: Any, start: Path | None = None) -> dict[str, Any]:
    """An adapter for this model that does something, in place of one that was trained."""
    from stages._lora import with_fresh_adapter
    from stages._model import load_base, load_policy, save_adapter

    if start:
        adapted: Any = load_policy(model, start, trainable=True)
    else:
        adapted = with_fresh_adapter(load_base(model, training=True), job.config, model, job.seed)
    for _ in range(int(job.config.epochs)):
        toys.moved(adapted)
    save_adapter(adapted, job.folder / "adapter")
    return {}


def no_pairs(job: Job) -> dict[str, Any]:
    write_jsonl(job.folder / "pairs.jsonl", [])
    return {}


@pytest.fixture(scope="module", autouse=True)
def training() -> Any:
    """Stages that train do not."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sft, "run", lambda job: stand_in(job, job.settings.model))
        patched.setattr(pairs, "run", no_pairs)
        patched.setattr(dpo, "run", lambda job: stand_in(job, job.settings.model, job.parent("sft") / "adapter"))
        patched.setattr(distill, "_ask", lambda *_: Taught([], [], Counts(1, 1), Counter()))
        patched.setattr(distill, "_train", lambda job, *_: stand_in(job, distill.trains(job.settings)))
        yield


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Fine-tuned and distilled."""
    folder = tmp_path_factory.mktemp("taught")
    model = toys.toy_checkpoint(folder / "model", layers=1)
    student = toys.toy_checkpoint(folder / "small", "qwen3", hidden=64, layers=1)
    run = Run(folder, model, student)
    run("sft")
    run("distill")
    return run


@pytest.fixture
def run(taught: Run, tmp_path: Path) -> Run:
    """A copy to go on with."""
    shutil.copytree(taught.folder / "runs", tmp_path / "runs")
    shutil.copy(taught.folder / "rows.jsonl", tmp_path)
    rows = str(taught.folder / "rows.jsonl")
    for file in tmp_path.glob("runs/toy/*/manifest.json"):
        file.write_text(file.read_text().replace(rows, str(tmp_path / "rows.jsonl")))
    return taught._replace(folder=tmp_path)


def test_a_merged_student_is_its_own_checkpoint_with_its_adapter(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from runtime import LocalModel
    from stages._model import ModelConfig, load_policy

    metrics = run("merge", merge={"adapter": "distill"})
    assert (metrics["adapter"], metrics["base"]) == ("distill", "original")
    assert metrics["mean_logit_difference"] <= 1e-5
    assert metrics["greedy_agreement"] == metrics["outcome_agreement"] == 1
    assert metrics["max_logit_change_from_base"] > 1e-3
    manifest = run.made("merge/manifest.json")
    assert manifest["model"] == run.made("distill/manifest.json")["model"] != run.made("sft/manifest.json")["model"]
    assert list(manifest["parents"]) == ["distill"]
    assert manifest["facts"]["chain"] == ["distill"]

    made = run.folder / "runs/toy/merge/model"
    whole = load_policy(ModelConfig(path=str(run.student)), run.folder / "runs/toy/distill/adapter", fold=False)
    ids = torch.arange(300, 340)[None]
    with torch.no_grad():
        wanted, found = (model(input_ids=ids).logits for model in (whole, AutoModelForCausalLM.from_pretrained(made)))
    assert torch.allclose(wanted, found, atol=1e-4)
    assert (made / "chat_template.jinja").read_text() == toys.chat_template("qwen3")
    assert (made / "Modelfile").read_text().startswith("FROM .\n")
    LocalModel.load(made)
    card = (made / "README.md").read_text()
    assert "small taught to call tools, and to leave them alone: distill (LoRA)" in card
    assert "It is a student, which learned by distillation (`response`) from `sft` of model." in card
    assert "No preference stage went into this model." in card
    assert "stage=sft run=toy" in card and "stage=distill run=toy" in card  # noqa: PT018

    capsys.readouterr()
    run("merge", merge={"adapter": "distill", "push_to_folder": str(run.folder / "out")})
    assert "merge: done already with the same inputs" in capsys.readouterr().out
    assert (run.folder / "out/model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
    run("distill", distill={"epochs": 3})
    assert "distill: now stale, made from the one before: merge" in capsys.readouterr().out
    run("merge", merge={"adapter": "distill"})
    assert "(parents.distill changed)" in capsys.readouterr().out
    run("merge")
    assert run.made("merge/metrics.json")["adapter"] == "sft"
    assert run.made("merge/manifest.json")["model"] == run.made("sft/manifest.json")["model"]
    assert list(run.made("merge/manifest.json")["parents"]) == ["sft"]


def test_a_student_is_asked_beside_the_others_as_it_measured_itself(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run("merge", merge={"adapter": "distill"})
    metrics = run("evaluate")
    assert list(metrics) == ["base", "sft", "distill", "merged"]
    own = run.made("distill/metrics.json")
    rates = [name for name in own if name in metrics["distill"] and not isinstance(own[name], dict)]
    assert {"n", "exact_call_rate", "false_tool_call_rate", "missed_call_rate_ci", "malformed_rate"} <= set(rates)
    assert {name: metrics["distill"][name] for name in rates} == {name: own[name] for name in rates}
    folder = run.folder / "runs/toy/evaluate"
    said = {row["id"]: row["completion"] for row in read_jsonl(run.folder / "runs/toy/distill/predictions.jsonl")}
    rows: dict[str, dict[str, str]] = {}
    for row in read_jsonl(folder / "predictions.jsonl"):
        rows.setdefault(row["model"], {})[row["id"]] = row["completion"]
    assert rows["distill"] == rows["merged"] == said
    assert rows["sft"] != said

    compared = [(each["first"], each["second"]) for each in run.made("evaluate/comparisons.json")]
    assert compared == [("base", "sft"), ("sft", "distill"), ("distill", "merged")]
    assert metrics["sft"]["ability"]["perplexity_ratio"] > 0
    for model in ("distill", "merged"):
        kept = metrics[model]["ability"]
        assert kept["n_weighed"] > 0
        assert (kept["perplexity"], kept["perplexity_ratio"]) == (None, None)
    page = (folder / "report.html").read_text()
    assert "distill and merged: other tokens than the base&#39;s" in page
    assert f"small ({run.student}), dialect native, tokens of its own" in page
    assert "merged and distill gave the same completion to 4 of 4 requests" in page
    card = (run.folder / "runs/toy/merge/model/README.md").read_text()
    assert "`merged` is this model. `sft` is its teacher." in card
    assert [line.split()[1] for line in card.split("| model |")[1].splitlines()[2:5]] == ["sft", "distill", "merged"]

    shutil.copytree(run.folder / "runs/toy", run.folder / "runs/again")
    report = run("report", report={"runs": ["toy", "again"]})
    assert list(report["runs"]["again"]["models"]) == list(metrics)
    assert "distill" in report["runs"]["again"]["stages"]
    assert report["against_first"][0]["models"] == ["merged", "merged"]

    capsys.readouterr()
    run("evaluate")
    assert "evaluate: done already with the same inputs" in capsys.readouterr().out
    gone = shutil.move(run.folder / "runs/toy/distill", run.folder / "distill")
    assert list(run("evaluate")) == ["base", "sft", "merged"]  # plain weights need nothing of what they were made from
    assert (run.folder / "runs/toy/merge/model/README.md").read_text() == card
    shutil.move(gone, run.folder / "runs/toy/distill")
    run("distill", distill={"epochs": 3})
    capsys.readouterr()
    again = run("evaluate", evaluate={"models": ["base", "distill"]})
    said_so = capsys.readouterr().out
    assert "evaluate: leaving out merge, which was made from an earlier distill" in said_so
    assert list(again) == ["base", "distill"]
    assert list(run("evaluate", evaluate={"models": ["base", "sft"]})) == ["base", "sft"]
    assert list(run.made("evaluate/manifest.json")["parents"]) == ["sft"]


def test_the_chain_of_an_aligned_student_ends_in_its_own_preference_stage(run: Run) -> None:
    run("distill", distill={"align": True})
    aligned = run.folder / "runs/toy/distill/aligned/dpo/adapter/adapter_model.safetensors"
    metrics = run("merge", merge={"adapter": "distill"})
    assert metrics["greedy_agreement"] == 1
    assert run.made("merge/manifest.json")["facts"]["chain"] == ["distill", "dpo"]
    assert (run.folder / "runs/toy/distill/adapter/adapter_model.safetensors").read_bytes() == aligned.read_bytes()
    card = (run.folder / "runs/toy/merge/model/README.md").read_text()
    assert "distill, then dpo (LoRA)" in card
    assert "Preference pairs were made from the model's own answers by these points" in card
    ways = {"constrained": True, "renderings": 2, "sampled": 1}
    metrics = run("evaluate", evaluate={"models": ["sft", "distill"], "limit": 2} | ways)
    assert all({"constrained", "renderings", "sampled"} <= metrics[model].keys() for model in ("sft", "distill"))
    page = (run.folder / "runs/toy/evaluate/report.html").read_text()
    assert "distill/aligned/dpo" in page


def test_a_student_of_an_endpoint_is_merged_and_asked_in_a_run_that_has_nothing_else(
    taught: Run, tmp_path: Path
) -> None:
    run = taught._replace(folder=tmp_path)
    where = {"sampler": "openai", "base_url": "http://localhost/v1", "endpoint_model": "teacher-9"}
    run("distill", distill=where)
    assert run("merge", merge={"adapter": "distill"})["greedy_agreement"] == 1
    assert list(run("evaluate", evaluate={"models": ["distill", "merged"]})) == ["distill", "merged"]
    assert [each["second"] for each in run.made("evaluate/comparisons.json")] == ["merged"]
    card = (tmp_path / "runs/toy/merge/model/README.md").read_text()
    assert "by distillation (`response`) from `teacher-9`, at an endpoint." in card
    assert "`merged` is this model. Greedy answers" in card
    with pytest.raises(UserError, match=r"^run first: python train\.py stage=sft run=toy$"):
        run("evaluate")


def test_every_model_of_a_run_is_loaded_from_where_it_lies_and_spoken_to_as_it_was_taught(run: Run) -> None:
    job = run.job("chat")
    job.settings.blocks["model"].max_new_tokens = 7
    student = Model(job, "distill")
    assert [Model(job, name).config.path for name in ("base", "sft")] == [str(run.model)] * 2
    assert (student.config.path, student.config.max_new_tokens, student.shares_tokens) == (str(run.student), 7, False)
    agent = chat.agent(job, "distill", *chat.offered(chat.Config(max_new_tokens=8)))
    assert agent.run("Hello.").stop in ("answer", "invalid", "bound")
    policy, tokenizer = student.loaded
    assert (tokenizer.chat_template, policy.config.hidden_size) == (toys.chat_template("qwen3"), 64)
    manifest = run.folder / "runs/toy/distill/manifest.json"
    made = json.loads(manifest.read_text())
    made["inputs"]["model"]["dialect"] = "json"  # taught by an endpoint, while the run's model speaks another dialect
    manifest.write_text(json.dumps(made | {"model": made["model"] | {"id": str(run.model)}}))
    assert Model(job, "distill").dialect.__name__.endswith(".json")
    assert Model(job, "distill").shares_tokens
    assert Model(job, "sft").dialect.__name__.endswith(".native")


def test_a_student_whose_checkpoint_is_another_one_now_is_left_out_and_where_it_is_named_made_first(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = run.folder / "runs/toy/distill/manifest.json"
    made = json.loads(manifest.read_text())
    for digest, path in (("0" * 64, str(run.student)), (made["model"]["digest"], str(tmp_path / "gone"))):
        manifest.write_text(json.dumps(made | {"model": {"id": path, "digest": digest}}))
        settings = run.settings("evaluate")
        capsys.readouterr()
        assert "distill" not in _lineage.present("evaluate", settings, {})
        assert capsys.readouterr().out == (
            "evaluate: leaving out distill, whose student is not there as it was any more\n"
        )
        for stage, block in (("merge", {"adapter": "distill"}), ("evaluate", {"models": ["sft", "distill"]})):
            with pytest.raises(UserError, match=r"^run first: python train\.py stage=distill run=toy$"):
                run(stage, **{stage: block})


@pytest.mark.parametrize("stage", ["merge", "evaluate"])
def test_a_student_that_is_named_and_not_there_says_what_to_run_first(stage: str) -> None:
    blocks = {"merge": merge.Config(adapter="distill"), "evaluate": evaluate.Config(models=["sft", "distill"])}
    settings = Settings(stage, RootConfig(run="mine"), blocks)
    module: Any = {"merge": merge, "evaluate": evaluate}[stage]
    with pytest.raises(UserError, match=r"^run first: python train\.py stage=distill run=mine$"):
        module.refuse(settings, {"sft": Path(), "dpo": Path()})


@pytest.mark.parametrize(
    ("stage", "block", "needed"),
    [
        ("merge", {}, ("sft",)),
        ("merge", {"adapter": "dpo"}, ("sft",)),
        ("merge", {"adapter": "distill"}, ()),
        ("evaluate", {}, ("sft",)),
        ("evaluate", {"models": ["base"]}, ("sft",)),
        ("evaluate", {"models": ["dpo", "distill"]}, ("sft",)),
        ("evaluate", {"models": ["distill", "merged"]}, ()),
    ],
)
def test_a_student_of_an_endpoint_needs_no_fine_tuning(stage: str, block: Any, needed: tuple[str, ...]) -> None:
    config: Any = {"merge": merge, "evaluate": evaluate}[stage].Config(**block)
    assert parents(stage, Settings(stage, RootConfig(), {stage: config})) == needed


def test_a_student_that_is_not_asked_is_no_part_of_an_evaluation() -> None:
    above = {stage: Path(stage) for stage in ("sft", "dpo", "distill", "merge")}
    for models, read in ((None, set(above)), (["sft", "merged"], set(above) - {"distill"}), (["distill"], set(above))):
        settings = Settings("evaluate", RootConfig(), {"evaluate": evaluate.Config(models=models)})  # type: ignore[arg-type]
        assert evaluate.reads(settings, above) == read


def test_perplexities_of_other_tokens_are_not_told_and_answers_are_compared_all_the_same() -> None:
    from tests.test_ability import REQUESTS, answers

    base = answers(REQUESTS, ["4", "Rome", "x", "y", "red"], [(1.0, 1), (1.0, 2), None, None, (1.0, 2)])
    other: Answers = base._replace(shares_tokens=False)
    found = measure(REQUESTS, {"base": base, "distill": other})
    assert found["base"]["perplexity_ratio"] == 1.0
    told = {"perplexity", "perplexity_ratio", "perplexity_ratio_ci"}
    assert {name for name, value in found["distill"].items() if value is None} == told
    assert {name: found["distill"][name] for name in found["base"] if name not in told} == {
        name: value for name, value in found["base"].items() if name not in told
    }
