"""The stage evaluate with made-up answers in place of a model: which models, which files, and going on after a stop."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from data.dialects import native
from data.transcript import Request, ToolCall
from stages import _asking, evaluate
from stages._errors import UserError
from stages._files import write_json
from stages._job import Job
from stages._likelihood import Likelihood, Likelihoods
from stages._manifest import SCHEMA
from stages._sampling import Completion
from stages._schema import block_class
from stages._scoring import answer, prediction, score_one, spread
from stages._settings import RootConfig, Settings

TOOLS = [
    {"name": "get_weather", "description": "Weather at a place.", "parameters": {"city": {"type": "string"}}},
    {"name": "web_search", "description": "Searches.", "parameters": {"type": "object", "properties": {}}},
]


class Tokenizer:
    """Enough of a tokenizer to render prompts; refuses conversations that say so."""

    added_tokens_decoder: ClassVar[dict[int, Any]] = {}

    def apply_chat_template(self, chat: list[dict[str, Any]], **_: Any) -> str:
        if "REFUSE" in chat[0]["content"]:
            from jinja2.exceptions import TemplateError as JinjaError

            raise JinjaError("no such conversations here")
        return chat[0]["content"]


def row(number: int, needed: bool) -> dict[str, Any]:
    question = f"Weather in town {number}?" if needed else f"Hello number {number}!"
    call = {"name": "get_weather", "arguments": {"city": f"town {number}"}}
    turn: dict[str, Any] = {"role": "assistant", "content": "" if needed else "Hello!"}
    if needed:
        turn["tool_calls"] = [{"type": "function", "function": call}]
    return {"id": f"r{number}", "tools": TOOLS, "messages": [{"role": "user", "content": question}, turn]}


@dataclass
class Bench:
    """A run whose earlier stages are there in name only."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    asked: list[str] = field(default_factory=list)
    said: Callable[[str, Request], str] = field(default_factory=lambda: habit)
    weighed: Callable[[str, Request], Likelihoods] = field(default_factory=lambda: lambda model, request: {})

    def __post_init__(self) -> None:
        for name, count in (("train", 4), ("test", 10)):
            rows = [json.dumps(row(number, needed=number % 2 == 0)) for number in range(count)]
            (self.folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        self.monkeypatch.setattr("stages._model.load_tokenizer", lambda config: Tokenizer())
        self.monkeypatch.setattr(_asking.Model, "loaded", None)
        self.monkeypatch.setattr(
            _asking.Model, "answer", lambda model, *given, **how: self.answer(model, *given, **how)
        )
        self.monkeypatch.setattr(_asking.Model, "weigh", lambda model, requests: self.weigh(model, requests))
        clock = SimpleNamespace(perf_counter=iter(range(0, 10_000, 5)).__next__)  # a pass takes 5 seconds
        self.monkeypatch.setattr(_asking, "time", clock)

    def answer(
        self, model: _asking.Model, requests: Sequence[Request], way: str = "", **how: Any
    ) -> list[list[Completion]]:
        self.asked.append(model.name)
        return [[Completion(self.said(model.name, request), -1.0, 9, False)] for request in requests]

    def weigh(self, model: _asking.Model, requests: Sequence[Request]) -> list[Likelihoods]:
        return [self.weighed(model.name, request) for request in requests]

    def job(self, stages: tuple[str, ...] = ("sft", "dpo", "merge"), resuming: bool = False, **config: Any) -> Job:
        data = {"format": "openai", "train": f"{self.folder}/train.jsonl", "test": f"{self.folder}/test.jsonl"}
        given: dict[str, Any] = {"model": {}, "data": data, "reward": {}, "tracking": {}, "evaluate": config}
        blocks = {name: block_class(name).model_validate(values) for name, values in given.items()}
        settings = Settings("evaluate", RootConfig(run="mine", runs_dir=str(self.folder / "runs")), blocks)
        folder = settings.folder / "evaluate"
        folder.mkdir(parents=True, exist_ok=True)
        return Job("evaluate", settings, folder, {stage: settings.folder / stage for stage in stages}, resuming)

    def rows(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / "runs" / "mine" / "evaluate" / name
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def habit(model: str, request: Request) -> str:
    """base never calls, sft always does, dpo and merged do what is right."""
    call = native.write([ToolCall("get_weather", {"city": request.messages[0].content[11:-1]})])
    needed = request.expected.act == "call"
    return {"base": "Hm.", "sft": call}.get(model, call if needed else "Hello!")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_all_models_answer_the_same_requests_and_every_file_is_written(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = evaluate.run(bench.job())
    assert list(metrics) == bench.asked == ["base", "sft", "dpo", "merged"]
    assert [metrics[model]["false_tool_call_rate"] for model in metrics] == [0.0, 1.0, 0.0, 0.0]
    assert [metrics[model]["missed_call_rate"] for model in metrics] == [1.0, 0.0, 0.0, 0.0]
    assert metrics["dpo"]["exact_call_rate"] == metrics["dpo"]["answer_accuracy"] == 1.0
    predictions, requests = bench.rows("predictions.jsonl"), bench.rows("requests.jsonl")
    ids = [request["id"] for request in requests]
    assert [(each["model"], each["id"]) for each in predictions] == [(model, id_) for model in metrics for id_ in ids]
    assert set(predictions[0]) >= {"id", "model", "completion", "calls", "attempt", "outcome", "points"}
    assert predictions[10]["calls"] == [{"name": "get_weather", "arguments": {"city": "town 0"}}]
    assert set(requests[0]) >= {"id", "kind", "tools", "messages", "unseen", "expected"}
    shown = capsys.readouterr().out
    assert "expected against predicted" in shown
    assert "call when it is needed with p > 0.50" in shown
    assert (bench.folder / "runs/mine/evaluate/report.html").read_text().startswith("<!doctype html>")


def test_what_was_found_is_shown_without_asking_anyone(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    job = bench.job()
    metrics = evaluate.run(job)
    (job.folder / "metrics.json").write_text(json.dumps(metrics))
    capsys.readouterr()
    bench.asked.clear()
    evaluate.after(job)
    shown = capsys.readouterr().out
    assert bench.asked == []
    assert "sft -> dpo: false calls 100.0 % -> 0.0 %, missed calls 0.0 % -> 0.0 %" in shown
    assert "McNemar" in shown
    assert shown.strip().endswith("runs/mine/evaluate/report.html")


def test_models_that_had_answered_before_an_interruption_are_not_asked_again(bench: Bench) -> None:
    def stop_at_dpo(model: str, request: Request) -> str:
        if model == "dpo":
            raise KeyboardInterrupt
        return habit(model, request)

    bench.said = stop_at_dpo
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(bench.job())
    assert {each["model"] for each in bench.rows("predictions.jsonl")} == {"base", "sft"}
    bench.asked.clear()
    bench.said = habit
    resumed = evaluate.run(bench.job(resuming=True))
    assert bench.asked == ["dpo", "merged"]
    assert {fields["seconds_per_request"] for fields in resumed.values()} == {0.5}
    rows = bench.rows("predictions.jsonl")
    bench.asked.clear()
    assert evaluate.run(bench.job()) == resumed
    assert bench.asked == ["base", "sft", "dpo", "merged"]
    assert bench.rows("predictions.jsonl") == rows


def test_what_an_interrupted_attempt_has_is_not_lost_by_a_second_interruption(bench: Bench) -> None:
    def stop_at(name: str) -> None:
        def said(model: str, request: Request) -> str:
            if model == name:
                raise KeyboardInterrupt
            return habit(model, request)

        bench.said = said

    stop_at("merged")
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(bench.job())
    job = bench.job(resuming=True)
    kept = _asking.Kept(job, "predictions")
    rows = bench.rows("predictions.jsonl")
    kept.add([row for row in rows if row["model"] == "base"])  # and here it stops again
    assert sorted(map(str, bench.rows("predictions.jsonl"))) == sorted(map(str, rows))
    bench.asked.clear()
    bench.said = habit
    evaluate.run(bench.job(resuming=True))
    assert bench.asked == ["merged"]
    assert [row["model"] for row in bench.rows("predictions.jsonl")][::10] == ["base", "sft", "dpo", "merged"]


def test_the_time_of_a_request_is_that_of_the_greedy_pass_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from data import load

    now = 0.0

    def spend(seconds: float, result: Any) -> Any:
        nonlocal now
        now += seconds
        return result

    monkeypatch.setattr(_asking, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(_asking.Model, "loaded", property(lambda model: spend(100, None)))
    done = [[Completion("Hm.", -1.0, 9, False)]]
    monkeypatch.setattr(_asking.Model, "answer", lambda model, asked, **how: spend(20, done * len(asked)))
    monkeypatch.setattr(_asking.Model, "weigh", lambda model, asked: spend(1000, [{}] * len(asked)))
    job = bench.job()
    requests = load.load(job.settings.data).test
    found = _asking.greedy(_asking.Model(job, "base"), requests, _asking.Kept(job, "predictions"), {})
    assert found.seconds == 20 / 10
    metrics = evaluate.run(job)
    assert metrics["base"]["seconds_per_request"] == 2.0
    assert metrics["base"]["mean_output_tokens"] == 9.0
    page = " ".join((job.folder / "report.html").read_text().split())
    assert "Seconds</th><td>2.000" in page
    assert "Tokens</th><td>9.0" in page


def test_answers_kept_by_a_version_that_knew_no_p_call_are_taken_as_they_are(bench: Bench) -> None:
    job = bench.job(stages=("sft",))
    evaluate.run(job)
    assert {row["p_call"] for row in bench.rows("predictions.jsonl")} == {None}
    old = [{key: value for key, value in row.items() if key != "p_call"} for row in bench.rows("predictions.jsonl")]
    (job.folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    bench.asked.clear()
    metrics = evaluate.run(bench.job(stages=("sft",), resuming=True))
    assert bench.asked == []
    assert (metrics["sft"]["n_p_call"], metrics["sft"]["call_ece"]) == (0, None)


def test_consecutive_stages_are_compared_in_a_file_of_its_own(bench: Bench) -> None:
    job = bench.job()
    metrics = evaluate.run(job)
    entries = json.loads((job.folder / "comparisons.json").read_text())
    assert [(each["first"], each["second"]) for each in entries] == [("base", "sft"), ("sft", "dpo"), ("dpo", "merged")]
    assert entries[1]["tests"]["false_tool_call_rate"]["p"] == 2 / 2**5
    assert entries[1]["tests"]["false_tool_call_rate"]["p_holm"] == 3 * 2 / 2**5
    assert entries[2]["resampled"]["call_f1"]["difference_ci"] == [0.0, 0.0]
    assert metrics["dpo"]["mcc"] == 1.0
    assert "mcc" in metrics["dpo"]["unseen_tools"]


def test_dpo_and_merged_join_only_where_they_are_done(bench: Bench) -> None:
    assert list(evaluate.run(bench.job(stages=("sft",)))) == ["base", "sft"]
    assert evaluate.PARENTS == ("sft",)
    assert evaluate.OPTIONAL == ("dpo", "kto", "ppo", "grpo", "distill", "merge")


def test_every_adapter_is_shown_and_merged_is_held_against_the_one_it_was_made_from(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.said = lambda model, request: "Hm." if model == "dpo" else habit(model, request)
    job = bench.job(stages=("sft", "dpo", "kto", "merge"))
    write_json(job.parent("merge") / "metrics.json", {"adapter": "kto"})
    metrics = evaluate.run(job)
    assert list(metrics) == ["base", "sft", "dpo", "kto", "merged"]
    assert len({tuple(fields) for fields in metrics.values()}) == 1
    assert job.notes["merged_from"] == "kto"
    write_json(job.folder / "metrics.json", metrics)
    write_json(job.folder / "manifest.json", {"schema": SCHEMA, "facts": job.notes})
    evaluate.after(job)
    assert "kto and merged: the same completion to 10 of 10 requests" in capsys.readouterr().out
    assert "merged and kto gave the same completion to 10 of 10" in (job.folder / "report.html").read_text()


def test_chosen_models_are_asked_in_the_order_of_the_stages(bench: Bench) -> None:
    assert list(evaluate.run(bench.job(models=["merged", "sft"]))) == ["sft", "merged"]


def test_a_model_that_is_named_and_not_there_says_what_to_run_first(bench: Bench) -> None:
    with pytest.raises(UserError) as caught:
        evaluate.refuse(bench.job(models=["dpo", "merged"]).settings, {"sft": Path()})
    assert [line.split(" data")[0] for line in caught.value.lines] == [
        "run first: python train.py stage=dpo run=mine",
        "run first: python train.py stage=merge run=mine",
    ]


def test_a_limit_takes_requests_evenly_from_all_of_them(bench: Bench) -> None:
    evaluate.run(bench.job(limit=3))
    assert [each["id"] for each in bench.rows("requests.jsonl")] == ["r0", "r3", "r6"]
    assert spread([1, 2], 5) == spread([1, 2], None) == [1, 2]  # type: ignore[list-item,comparison-overlap]


def test_requests_that_the_template_refuses_are_counted_and_above_a_share_an_error(bench: Bench) -> None:
    path = bench.folder / "test.jsonl"
    path.write_text(path.read_text().replace("Hello number 1!", "REFUSE"))
    with pytest.raises(UserError, match=r"(?s)refuses 1 of 10 requests.*no such conversations here"):
        evaluate.run(bench.job())
    job = bench.job(max_dropped=0.1)
    assert evaluate.run(job)["base"]["n"] == 9
    assert job.notes["requests_refused_by_template"] == 1


def test_a_scorer_that_crashes_names_the_row(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages._scoring.judge", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        evaluate.run(bench.job())
    assert caught.value.__notes__ == ["while scoring request r0, completion 'Hm.'"]


def test_an_answer_that_was_cut_off_is_no_right_answer(bench: Bench) -> None:
    job = bench.job()
    evaluate.run(job)
    from data import load

    request = next(each for each in load.load(job.settings.data).test if each.expected.act == "answer")
    whole = score_one(request, Completion("Hello!", 0.0, 2, False), native, job.settings.reward)
    cut = score_one(request, Completion("Hello! It is", 0.0, 2, True), native, job.settings.reward)
    assert (whole.judgement.outcome, cut.judgement.outcome) == ("right_answer", "empty")
    assert prediction(request, "sft", cut)["truncated"] is True


def test_the_short_evaluation_scores_one_greedy_answer_a_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from data import load

    job = bench.job()
    requests = load.load(job.settings.data).test
    used: dict[str, Any] = {}

    def generate(
        model: Any, tokenizer: Any, dialect: Any, asked: Sequence[Request], **options: Any
    ) -> list[list[Completion]]:
        used.update(options)
        return [[Completion(habit("dpo", request), 0.0, 3, False)] for request in asked]

    monkeypatch.setattr("stages._sampling.generate", generate)
    scored = answer(
        None,
        None,
        native,
        requests,
        job.settings.reward,
        max_new_tokens=5,
        batch_size=2,
        label="validation",  # type: ignore[arg-type]
    )
    assert [each.score.points for each in scored] == [10.0] * len(requests)
    assert used == {"max_new_tokens": 5, "batch_size": 2, "label": "validation", "job": None}


def test_models_are_loaded_as_they_were_trained_and_merged_ones_from_their_own_folder(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from data import load
    from stages import _model
    from tests.toys import toy_checkpoint

    monkeypatch.undo()  # the real tokenizer, and the real `ask`
    job = bench.job(max_new_tokens=4, batch_size=4)
    base = toy_checkpoint(tmp_path / "base")
    shutil.copytree(base, job.parent("merge") / "model")
    job.settings.blocks["model"].path = str(base)  # type: ignore[attr-defined]
    seen: list[tuple[str, Path | None]] = []

    def load_policy(config: Any, adapter: Path | None = None) -> Any:
        seen.append((config.path, adapter))
        return _model.load_base(config)

    monkeypatch.setattr(_model, "load_policy", load_policy)
    requests = load.load(job.settings.data).test
    kept = _asking.Kept(job, "predictions")
    models = {name: _asking.Model(job, name) for name in ("base", "dpo", "merged")}
    asked = {name: _asking.greedy(model, requests, kept, {}) for name, model in models.items()}
    answers = {name: each.completions for name, each in asked.items()}
    assert seen == [(str(base), job.parent("dpo") / "adapter")]
    assert answers["base"] == answers["dpo"] == answers["merged"]  # the same random weights each time
    assert all(len(rows) == len(requests) and all(row.tokens <= 4 for row in rows) for rows in answers.values())
    assert asked["base"][1] == asked["merged"][1]
    assert [set(each) for each in asked["base"][1]] == [set() if n % 2 == 0 else {"answer"} for n in range(10)]


def test_a_model_that_loses_the_right_texts_is_told_of_and_what_it_weighed_survives_an_interruption(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    def weighed(model: str, request: Request) -> Likelihoods:
        lost = {"sft": 3.0, "dpo": 0.5}.get(model, 0.0)
        return {"answer": Likelihood(-1.0 - lost, 2)} if request.expected.act == "answer" else {}

    def stop_at_dpo(model: str, request: Request) -> str:
        if model == "dpo":
            raise KeyboardInterrupt
        return habit(model, request)

    bench.weighed = weighed
    whole = evaluate.run(bench.job())
    assert whole["base"]["ability"]["perplexity"] == pytest.approx(math.exp(0.5))
    assert whole["sft"]["ability"]["perplexity_ratio"] == pytest.approx(math.exp(1.5))
    assert whole["dpo"]["ability"]["exact_answer_change"] == 1.0  # base says Hm.
    bench.said = stop_at_dpo
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(bench.job())
    bench.said = habit
    job = bench.job(resuming=True)
    assert evaluate.run(job) == whole
    write_json(job.folder / "metrics.json", whole)
    capsys.readouterr()
    evaluate.after(job)
    told = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(told) == 1
    assert "sft" in told[0]
    assert "4.48 [4.48, 4.48] times" in told[0]
    evaluate.after(bench.job(max_perplexity_ratio=None))
    assert "warning" not in capsys.readouterr().out


def test_rows_of_bfcl_are_scored_by_category_and_written_as_the_leaderboard_reads_them(bench: Bench) -> None:
    rows = {
        "multiple": [{"get_weather": {"city": ["Oslo"]}}, {"get_weather": {"city": ["Rome"]}}],
        "irrelevance": [None, None, None],
    }
    for category, wanted in rows.items():
        questions = [
            {
                "id": f"{category}_{n}",
                "question": [[{"role": "user", "content": "Weather in Oslo?"}]],
                "function": TOOLS,
            }
            for n in range(len(wanted))
        ]
        answers = [{"id": f"{category}_{n}", "ground_truth": [one]} for n, one in enumerate(wanted) if one]
        (bench.folder / "bfcl").mkdir(exist_ok=True)
        for name, content in ((category, questions), (f"{category}_answer", answers)):
            if content:
                path = bench.folder / "bfcl" / f"{name}.jsonl"
                path.write_text("".join(json.dumps(each) + "\n" for each in content))
    job = bench.job(stages=("sft",))
    data = job.settings.blocks["data"].model_copy(update={"test": f"{bench.folder}/bfcl", "test_format": "auto"})
    job.settings.blocks["data"] = data
    metrics = evaluate.run(job)
    assert {name: fields["accuracy"] for name, fields in metrics["base"]["bfcl"].items()} == {
        "irrelevance": 1.0,
        "multiple": 0.0,
    }
    assert {name: (each["n"], each["accuracy"]) for name, each in metrics["sft"]["bfcl"].items()} == {
        "irrelevance": (3, 0.0),
        "multiple": (2, 0.5),
    }
    call = [{"get_weather": '{"city": "Oslo"}'}]
    assert bench.rows("bfcl/sft/BFCL_v4_multiple_result.json") == [
        {"id": "multiple_0", "result": call},
        {"id": "multiple_1", "result": call},
    ]
    assert [each["result"] for each in bench.rows("bfcl/base/BFCL_v4_irrelevance_result.json")] == ["Hm."] * 3
    assert "BFCL by category" in (job.folder / "report.html").read_text()
