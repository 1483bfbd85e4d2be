"""The benchmark of speed: its contenders do the same training, and what is read off them is right."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import scoring
from benchmarks.speed import chain, contest, growth, parts, report, sampling, training, workload
from benchmarks.speed.workload import Work
from stages import _sampling

TOY = {"prompt_tokens": 150, "batch": 3, "vocabulary": 4096, "dtype": "float32", "same_rows": True}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, Path]:
    """Pairs, an adapter and a model for a few steps, all of them on the same rows."""
    work, folder = Work("dpo", "toy", steps=9, **TOY), tmp_path_factory.mktemp("speed")
    workload.prepare(work, folder)
    workload.prepare(Work("sft", "toy", steps=9, **TOY), folder)
    return work, folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Toys gain nothing from two; and what the stages set for their whole process is undone."""
    import torch
    from trl.trainer import utils

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(utils, "_use_triton", utils._use_triton)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_stages_train_to_the_weights_that_trl_itself_comes_to(kind: str, work: tuple[Work, Path]) -> None:
    """Losses and gradients of ten steps, computed in float32, where every step has the same rows."""
    import torch

    found = []
    for who in ("notebook", "ours"):
        seen: list[Any] = []

        def look(model: Any, seen: list[Any] = seen) -> None:
            trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
            seen.append({name: (one.detach().clone(), one.grad.clone()) for name, one in sorted(trained.items())})

        found.append((training.train(Work(kind, "toy", steps=9, **TOY), who, work[1], look), seen))
    (plain, expected), (ours, steps) = found
    assert (ours.rows, ours.tokens, ours.labelled) == (plain.rows, plain.tokens, plain.labelled)
    assert plain.rows == 9 * 3
    assert ours.losses == pytest.approx(plain.losses, abs=1e-5)
    assert plain.losses[-1] < plain.losses[0] - 0.01
    assert len(steps) == len(expected) == 10
    for name, (weight, gradient) in expected[0].items():
        assert torch.equal(weight, steps[0][name][0]), name
        assert gradient.abs().max() > 0 or ".lora_A." in name  # of a fresh adapter, whose other half is 0
        assert torch.allclose(gradient, steps[0][name][1], atol=1e-5), name
        assert torch.allclose(expected[-1][name][0], steps[-1][name][0], atol=1e-5), name


def test_tokens_are_counted_where_they_are_computed(work: tuple[Work, Path]) -> None:
    task = Work("dpo", "toy", steps=1, **TOY)
    notebook, best, ours = (training.train(task, who, work[1]).as_dict() for who in training.CONTENDERS)
    assert notebook["pad_efficiency"] < 1 < 1.3 < ours["pad_efficiency"]  # prompts of pairs are computed once
    assert notebook["reference_seconds"] == 0 < best["reference_seconds"] < best["seconds"]
    assert notebook["labelled_share"] == ours["labelled_share"]


def test_contenders_write_as_many_tokens(work: tuple[Work, Path]) -> None:
    task = Work("sampling", "toy", 150, requests=2, samples=3, new_tokens=4, vocabulary=4096, dtype="float32")
    found = [sampling.sample(task, who, work[1]) for who in sampling.CONTENDERS]
    assert [fields["rows"] for fields in found] == [6, 6, 6]
    assert all(20 <= fields["tokens"] <= 24 for fields in found)  # an answer may end early


def test_prompts_have_the_wanted_length(work: tuple[Work, Path]) -> None:
    from stages._sampling import encode, prompt_of

    task = Work("sampling", "toy", 1000, requests=12)
    tokenizer, dialect = workload.speech(workload.settings_of_model(task, work[1]))
    asked = workload.requests(task, work[1])
    lengths = [len(encode(tokenizer, prompt_of(tokenizer, dialect, request))) for request in asked]
    assert sum(lengths) / 12 == pytest.approx(1000, rel=0.05)
    assert min(lengths) < 700 < 1300 < max(lengths)
    assert all(len({tool.name for tool in request.tools}) == len(request.tools) for request in asked)


def test_contenders_take_turns_and_a_ratio_is_that_of_a_round() -> None:
    order: list[str] = []

    def measure(who: str, turn: int) -> dict[str, Any]:
        order.append(who)
        return {"rate": {"notebook": 2.0, "best": 4.0, "ours": 8.0}[who] * (turn + 1) + (turn == 2 and who == "ours")}

    found, _ = contest.contest("toy", training.CONTENDERS, 3, measure)
    assert order[:6] == ["notebook", "best", "ours", "ours", "best", "notebook"]
    entry = contest.result(found, "rate", "things a second")
    assert (entry["ours"], entry["notebook"], entry["ratio"], entry["low"]) == (16, 4, 4, 4)
    assert entry["high"] == pytest.approx(25 / 6)
    assert entry["against_best"]["ratio"] == 2
    slow = contest.result({"notebook": [{"seconds": 9.0}], "ours": [{"seconds": 3.0}]}, "seconds", "s", True)
    assert slow["ratio"] == 3


def test_what_a_point_took_over_was_not_trained(tmp_path: Path) -> None:
    for job, origin in (("a", None), ("b", {"path": "sweeps/sweep/a/dpo", "digest": "d"}), ("c", None)):
        folder = tmp_path / job / "dpo"
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"train_seconds": 7.0}))
        (folder / "manifest.json").write_text(json.dumps({"identical_to": origin}))
    assert chain.train_seconds(tmp_path) == [7.0, 7.0]


def test_the_table_has_a_row_for_each_part() -> None:
    entry = contest.result({who: [{"rate": 1.0}] for who in training.CONTENDERS}, "rate", "pairs a second")
    machine = {"processor": "P", "platform": "L", "threads": 2, "torch": "2", "gpu": None}
    text = report.table({"machine": machine, "commit": "abc", "dpo_135m": entry, "scoring": entry})
    assert "P, 2 threads; commit abc." in text
    assert "| dpo_135m | 1 | 1 | 1 | pairs a second | 1 (1 to 1) | 1 (1 to 1) | - | - |" in text
    assert json.dumps(entry)


@pytest.mark.parametrize("part", ["sft_9b", "judging_tiny", "sft"])
def test_a_part_that_is_not_there_is_told_with_those_that_are(part: str) -> None:
    with pytest.raises(SystemExit, match=f"{part}: no such part; there are startup, scoring, sft_tiny"):
        parts.measurement(part, argparse.Namespace())


def test_the_two_works_of_an_axis_differ_in_what_grows() -> None:
    for axis in growth.axes("toy"):
        small, large = (dataclasses.asdict(work) for work in (axis.small, axis.large))
        (grown,) = (key for key in small if small[key] != large[key])
        assert large[grown] == axis.times * small[grown]


def test_prompts_and_judging_are_timed_whole_and_without_their_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on with the work alone: a token encoded, or an answer judged, is a second."""
    now, encode, scored = [0.0], _sampling.encode, scoring.scored

    def encoded(tokenizer: Any, prompt: str) -> Any:
        ids = encode(tokenizer, prompt)
        now[0] += len(ids)
        return ids

    def judged(row: Any) -> Any:
        now[0] += 1
        return scored(row)

    monkeypatch.setattr(_sampling, "encode", encoded)
    monkeypatch.setattr(scoring, "scored", judged)
    monkeypatch.setattr(growth, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    rendered, answers = (axis for axis in growth.axes("toy") if axis.what.startswith("tools on offer"))
    (short, _), (long, _) = (rendered.measure(work, tmp_path) for work in (rendered.small, rendered.large))
    assert rendered.small.requests * 150 <= short < rendered.small.requests * 500
    assert rendered.large.requests * 1500 <= long < rendered.large.requests * 2500
    assert [answers.measure(work, tmp_path)[0] for work in (answers.small, answers.large)] == [2000, 2000]


def test_growth_is_told_by_its_exponents() -> None:
    row = {"what": "rows", "times": 10, "seconds": [1.0, 10.0], "bytes": [2**30, 2**31]}
    told = growth.table([row | {"time_exponent": 1.0, "memory_exponent": 0.301}])
    assert told[-1] == "| rows | 10 | 1 to 10 | 1.00 | 1.00 to 2.00 | 0.30 |"
