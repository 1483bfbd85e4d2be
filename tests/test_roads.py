"""The tables of roads and dials: what stands in a row, and what the pictures show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import dose, roads
from benchmarks.roads import Road
from stages._manifest import SCHEMA, outputs_of


def written(path: Path, rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = rows if isinstance(rows, list) else [rows]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")


def fields(exact: float, false: float, missed: float) -> dict[str, Any]:
    rates = {"exact_call_rate": exact, "false_tool_call_rate": false, "missed_call_rate": missed}
    own = rates | {f"{name}_ci": [max(0.0, rate - 0.1), rate + 0.1] for name, rate in rates.items()}
    return own | {"unseen_tools": own}


REQUESTS = [{"id": f"r{n}", "expected": {"act": "call" if n < 5 else "answer"}} for n in range(15)]


def predictions(model: str, right: int) -> list[dict[str, Any]]:
    """`right` calls that are exact of five, and no call on as many of the ten that need none."""
    return [
        {
            "id": f"r{n}",
            "model": model,
            "attempt": n < 5 or n - 5 >= right,
            "outcome": "exact_call" if n < right else "-",
        }
        for n in range(15)
    ]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(roads, "RUNS", tmp_path)
    return tmp_path


def evaluated(run: Path, stage: str, right: int, **made: Any) -> None:
    written(run / "evaluate" / "metrics.json", {stage: fields(right / 10, 0.3, 0.0)})
    written(run / "evaluate" / "requests.jsonl", REQUESTS)
    written(run / "evaluate" / "predictions.jsonl", predictions(stage, right))
    written(run / stage / "metrics.json", made)
    written(run / stage / "manifest.json", {"schema": SCHEMA, "seconds": 90.0})


def test_a_row_has_rates_the_test_against_the_fine_tuned_model_and_all_that_was_sampled(runs: Path) -> None:
    evaluated(runs / "roads_0", "sft", 0)
    evaluated(runs / "roads_0_dpo", "dpo", 10)
    written(runs / "roads_0_dpo" / "pairs" / "metrics.json", {"samples": 4800})
    written(runs / "roads_0_dpo" / "pairs" / "manifest.json", {"schema": SCHEMA, "seconds": 30.0})
    cells = roads.row("dpo", 0).strip("| ").split(" | ")
    assert cells[:3] == ["dpo", "0", "100.0 [90.0, 110.0]"]
    assert cells[-3:] == ["false calls: p = 0.002", "4,800", "2 min 00 s"]  # ten of ten put right: 2 x 0.5 ** 10
    assert roads.row("sft", 0).endswith("| - | - | 1 min 30 s |")


def test_rounds_and_a_reward_model_count_with_the_road_that_they_are_for(runs: Path) -> None:
    for name, stage in (("dpo_two_rounds", "dpo"), ("ppo_reward_model", "ppo"), ("ppo", "ppo")):
        run = runs / f"roads_0_{name}"
        for part, seconds in (("pairs", 30.0), ("reward_model", 60.0), (stage, 90.0)):
            written(run / part / "metrics.json", {} if part == "dpo" else {"samples": 4800})
            written(run / part / "manifest.json", {"schema": SCHEMA, "seconds": seconds})
    written(runs / "roads_0_dpo_two_rounds" / "dpo" / "rounds" / "2" / "pairs" / "metrics.json", {"samples": 200})

    def cost(name: str) -> tuple[str, float]:
        run, road = runs / f"roads_0_{name}", roads.ROADS[name]
        return roads.samples(run, road), roads.seconds(run, road)

    assert cost("dpo_two_rounds") == ("5,000", 120.0)  # the second round's pairs are made within the stage's own time
    assert cost("ppo_reward_model") == ("9,600", 180.0)
    assert cost("ppo") == ("4,800", 90.0)


def test_a_copy_follows_what_it_is_of_and_is_never_a_half_one(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, copy = runs / "roads_0" / "sft", runs / "roads_0_ppo" / "sft"

    def made(weights: str, inputs: str = "settings") -> None:
        written(source / "weights", weights)
        manifest = {"schema": SCHEMA, "digest": weights, "inputs_digest": inputs, "outputs": outputs_of(source)}
        written(source / "manifest.json", manifest)

    def brought_anew() -> bool:
        roads.bring(source, copy)
        anew = not (copy / "seen").exists()
        (copy / "seen").touch()
        assert [path.name for path in copy.parent.iterdir()] == ["sft"]
        assert all((copy / path.name).read_bytes() == path.read_bytes() for path in source.iterdir())
        return anew

    made("first")
    assert [brought_anew(), brought_anew()] == [True, False]
    made("second")
    assert [brought_anew(), brought_anew()] == [True, False]
    made("second", "other settings, the same bytes")
    assert [brought_anew(), brought_anew()] == [True, False]
    (copy / "weights").unlink()
    assert [brought_anew(), brought_anew()] == [True, False]

    made("third")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", lambda _, place: written(place / "manifest.json", {}) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            roads.bring(source, copy)
    assert json.loads((copy / "weights").read_text()) == "second"
    assert [brought_anew(), brought_anew()] == [True, False]


def test_one_table_has_every_road_and_every_student(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    taken: list[tuple[str, int]] = []
    monkeypatch.setattr(roads, "take", lambda name, road, seed: taken.append((name, seed)))
    monkeypatch.setattr(roads, "row", lambda name, seed: f"| {name} | {seed} |")
    monkeypatch.setattr(roads, "draw", lambda among, file: taken.extend((name, -1) for name in among))
    roads.main("all", [0], None)
    students = [f"student_{kind}" for kind in ("sft", "response", "logit", "feature")]
    shown = ["sft", "dpo", "dpo_two_rounds", "kto", "grpo", "ppo", "ppo_reward_model", *students]
    assert [line.split(" | ")[0].strip("| ") for line in capsys.readouterr().out.splitlines()[3:]] == shown
    assert [name for name, seed in taken if seed == 0] == [
        name for one in shown for name in (roads.against(one)[0], one)
    ]
    assert [name for name, seed in taken if seed < 0] == ["grpo", "ppo", "ppo_reward_model"]


def test_a_student_is_held_against_the_one_that_had_no_teacher(runs: Path) -> None:
    evaluated(runs / "roads_0_student_sft", "sft", 0)
    run = runs / "roads_0_student_logit"
    written(run / "distill" / "metrics.json", fields(0.5, 0.3, 0.0) | {"answers": 2500})
    written(run / "distill" / "requests.jsonl", REQUESTS)
    written(run / "distill" / "predictions.jsonl", predictions("student", 5))
    written(run / "distill" / "manifest.json", {"schema": SCHEMA, "seconds": 90.0})
    cells = roads.row("student_logit", 0).strip("| ").split(" | ")
    assert cells[-3:] == ["exact calls: p = 0.062", "2,500", "1 min 30 s"]  # five of five: 2 x 0.5 ** 5


def test_some_roads_alone_bring_those_they_start_from_and_are_held_against_once(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, ...]] = []
    monkeypatch.setattr(roads, "train", lambda *words: said.append(words))
    monkeypatch.setattr(roads, "row", lambda name, seed: f"| {name} | {seed} |")
    brought: list[tuple[str, str]] = []
    monkeypatch.setattr(roads, "bring", lambda _, copy: brought.append((copy.parent.name, copy.name)))
    roads.take.cache_clear()
    roads.main("students", None, ["student_logit", "student_feature"])
    roads.take.cache_clear()
    assert [words[:2] for words in said] == [
        ("stage=sft", "run=roads_0_student_sft"), ("stage=evaluate", "run=roads_0_student_sft"),
        ("stage=sft", "run=roads_0"), ("stage=evaluate", "run=roads_0"), ("stage=pairs", "run=roads_0"),
        ("stage=dpo", "run=roads_0_dpo"), ("stage=evaluate", "run=roads_0_dpo"),
        ("stage=distill", "run=roads_0_student_logit"), ("stage=distill", "run=roads_0_student_feature"),
    ]  # fmt: skip
    # The road's own stage is never brought, or it would be made anew each time.
    kinds, parts = ("logit", "feature"), ("sft", "pairs", "dpo")
    students = [(f"roads_0_student_{kind}", part) for kind in kinds for part in parts]
    assert brought == [("roads_0_dpo", "sft"), ("roads_0_dpo", "pairs"), *students]


def test_a_course_is_the_mean_of_each_tenth_whatever_the_rate_is_called(tmp_path: Path) -> None:
    rows = [{"step": step, "missed_call_rate": step / 100} for step in range(1, 21)]
    written(tmp_path / "ppo.jsonl", rows)
    assert roads.course(tmp_path / "ppo.jsonl", "missed_call_rate")[0] == pytest.approx((5.0, 1.5))
    assert roads.course(tmp_path / "ppo.jsonl", "missed_call_rate")[-1] == pytest.approx((95.0, 19.5))
    written(tmp_path / "grpo.jsonl", [{"step": 1, "sampled/missed_call_rate": 0.5}, {"step": 2, "loss": 1.0}])
    assert roads.course(tmp_path / "grpo.jsonl", "missed_call_rate") == [(5.0, 50.0)]
    assert roads.course(tmp_path / "none.jsonl", "missed_call_rate") == []


def test_the_picture_of_the_roads_is_drawn(runs: Path) -> None:
    written(
        runs / "roads_0_ppo" / "ppo" / "log.jsonl",
        [{"step": 1, "false_tool_call_rate": 0.5, "missed_call_rate": 0.0}],
    )
    roads.draw({"ppo": Road("ppo"), "grpo": Road("grpo")}, runs / "roads.svg")
    assert "<svg" in (runs / "roads.svg").read_text()


def point(dial: str, value: int, false: float) -> dict[str, Any]:
    metrics = {"validation_exact_call_rate": 0.5, "validation_missed_call_rate": 0.0}
    metrics |= {"validation_false_tool_call_rate": false}
    metrics |= {f"{name}_ci": [max(0.0, rate - 0.1), rate + 0.1] for name, rate in metrics.items()}
    return {"overrides": [f"reward.{dial}={value}"], "metrics": metrics}


def test_a_dial_is_told_by_seed_and_as_their_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps = {
        seed: {
            "points": [point("needless_call", value, 0.1 * seed) for value in dose.DIALS["needless_call"]],
            "wall_seconds": 275.0,
            "training_seconds": 250.0,
            "sampled_requests": 2400,
        }
        for seed in (0, 1)
    }
    found = dose.report("needless_call", "reward_aware_sft", sweeps)
    said = capsys.readouterr().out
    assert "\nreward_aware_sft\n" in said
    assert "| -10 | 1 | 50.0 [40.0, 60.0] | 10.0 [0.0, 20.0] | 0.0 [0.0, 10.0] |" in said
    assert "| -10 | mean | 50.0 | 5.0 | 0.0 |" in said
    assert "seed 0: 4 min 35 s, 1.10 x its trainings; 2400 requests sampled" in said
    monkeypatch.setattr(dose, "PICTURE", tmp_path / "dose.svg")
    dose.draw({("needless_call", "reward_aware_sft"): found})
    assert "<svg" in (tmp_path / "dose.svg").read_text()
