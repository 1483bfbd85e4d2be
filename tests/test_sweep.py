"""A sweep as a user meets it: killed and resumed, points that are alike, failures, what is recommended, the report."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages import _objective, _sweep, _sweep_charts, _twins
from stages._errors import UserError
from stages._files import digest, read_json, write_json, write_jsonl
from stages._schema import publish
from stages._settings import Settings, SweepConfig
from tests.house import House
from tests.test_config import composed
from tests.test_report import Page
from tests.toys import needs_extra

# Learns from what pour made, of which it reads the cups and not what they cost: that is what every reward changes.
TASTE = '''
"""Tastes."""
import time
from pydantic import BaseModel, ConfigDict
PARENTS = ("brew", "pour")
BRINGS = ("pour",)
BLOCKS = ("reward",)
class Config(BaseModel):
    """How to taste."""
    model_config = ConfigDict(extra="forbid")
    steps: int = 3
    nap: float = 0.0
    careful: bool = False
def essence(settings, above, inputs):
    if settings.stage("taste").careful:
        return inputs
    cups = (above["pour"] / "cup").read_text().split()[0]
    return {key: value for key, value in inputs.items() if key not in ("reward", "parents")} | {"cups": cups}
def run(job):
    with (job.settings.run_folder / "begun").open("a") as out:
        out.write(f"{job.folder}\\n")
    steps = job.folder / "steps"
    done = len(steps.read_text().splitlines()) if job.resuming and steps.exists() else 0
    job.rewind(done)
    for step in range(done, job.config.steps):
        time.sleep(job.config.nap)
        job.log({"step": step + 1, "loss": 1.0 / (step + 1)})
        with steps.open("a") as out:
            out.write(f"{step}\\n")
    cups = job.settings.stage("pour").cups
    if cups == 13:
        raise ValueError("no luck\\nwith 13")
    false, missed = 0.01 * abs(cups - 3), 0.005 * cups
    with (job.settings.run_folder / "ended").open("a") as out:
        out.write(f"{job.folder}\\n")
    return {
        "loss": 0.5, "train_seconds": time.monotonic(), "resumed_from_step": done, "memory_gib": time.monotonic(),
        "false_tool_call_rate": 0.9,
        "validation_n_call": 400, "validation_n_no_call": 200,
        "validation_false_tool_call_rate": false, "validation_false_tool_call_rate_ci": [false / 2, false * 2],
        "validation_missed_call_rate": missed, "validation_missed_call_rate_ci": [missed / 2, missed * 2],
        "validation_exact_call_rate": 0.9 - missed, "validation_exact_call_rate_ci": [0.8, 0.95],
        "validation_balanced_accuracy": 1 - (false + missed) / 2, "validation_balanced_accuracy_ci": [0.9, 1.0],
    }
'''


@pytest.fixture
def tasting(house: House) -> House:
    """The project with a stage that learns from what another made, after that one's parent is done."""
    house.write("stages/taste.py", TASTE)
    house.write("conf/stage/taste.yaml", "# @package _global_\ndefaults: [pour, /schema/taste@taste]\n")
    assert house("run=r").returncode == 0
    return house


def sweep(house: House, name: str) -> dict[str, Any]:
    return house.json(f"r/sweeps/{name}/sweep.json")


def timeless(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary without seconds."""
    points = [{key: value for key, value in point.items() if key != "seconds"} for point in summary["points"]]
    return {key: value for key, value in summary.items() if key != "wall_seconds"} | {"points": points}


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_sweep_that_is_killed_again_and_again_ends_like_one_that_was_not(tasting: House) -> None:
    words = ("-m", "stage=taste", "run=r", "pour.cups=1,2,3,4", "taste.nap=0.1", "taste.steps=4")
    assert tasting(*words, "sweep.name=whole").returncode == 0
    for name in ("begun", "ended"):
        (tasting.folder / "runs/r" / name).unlink()
    (tasting.folder / "runs/r/sweeps/whole").rename(tasting.folder / "whole")  # nothing is to be taken over from there
    draw, kills = random.Random(7), 0
    for _ in range(5):
        running = tasting.start(*words, "sweep.name=broken")
        begun = tasting.folder / "runs/r/begun"
        before, deadline = len(lines(begun)), time.monotonic() + 30
        while len(lines(begun)) == before and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(draw.uniform(0.0, 0.7))
        kills += running.poll() is None
        running.kill()
        running.communicate()
    assert kills >= 3
    done = tasting(*words, "sweep.name=broken")
    assert done.returncode == 0, done.stderr
    ended = lines(tasting.folder / "runs/r/ended")
    assert len(ended) == len(set(ended)) == 4, "none was trained twice to the end"
    whole = json.loads((tasting.folder / "whole/sweep.json").read_text().replace("sweeps/whole", "sweeps/broken"))
    other = timeless(sweep(tasting, "broken"))
    assert {point["status"] for point in other["points"]} == {"done"}
    known = timeless(whole)
    assert {**known, "sweep": "", "settings": []} == {**other, "sweep": "", "settings": []}
    spent = sweep(tasting, "broken")["wall_seconds"]
    assert spent >= 4 * 4 * 0.1, "of the killed calls too"
    again = tasting(*words, "sweep.name=broken")
    assert again.stdout.count("taste: done already with the same inputs") == 4
    assert timeless(sweep(tasting, "broken")) == other
    assert sweep(tasting, "broken")["wall_seconds"] == spent, "nothing was done"


def test_points_whose_input_is_read_alike_are_trained_once_and_say_so(tasting: House) -> None:
    done = tasting("-m", "stage=taste", "run=r", "reward.needless_call=-1,-2", "pour.cups=2,3")
    assert done.returncode == 0, done.stderr
    name = "needless_call_cups"
    assert len(lines(tasting.folder / "runs/r/ended")) == 2
    same = {point["job"]: point["identical_to"] for point in sweep(tasting, name)["points"]}
    assert same == {
        "needless_call-1_cups_2": None,
        "needless_call-1_cups_3": None,
        "needless_call-2_cups_2": "needless_call-1_cups_2",
        "needless_call-2_cups_3": "needless_call-1_cups_3",
    }
    assert "needless_call-2_cups_3: identical to needless_call-1_cups_3" in done.stdout
    folders = [tasting.folder / f"runs/r/sweeps/{name}/needless_call-{number}_cups_3/taste" for number in (1, 2)]
    first, second = (json.loads((folder / "manifest.json").read_text()) for folder in folders)
    assert (folders[0] / "steps").stat().st_ino == (folders[1] / "steps").stat().st_ino, "linked"
    assert (folders[0] / "log.jsonl").stat().st_ino != (folders[1] / "log.jsonl").stat().st_ino, "rows are added to it"
    assert (folders[0] / "log.jsonl").read_bytes() == (folders[1] / "log.jsonl").read_bytes()
    assert first["digest"] == second["digest"]
    assert second["identical_to"] == {
        "path": f"sweeps/{name}/needless_call-1_cups_3/taste",
        "digest": first["digest"],
    }
    assert second["parents"]["pour"]["path"] == f"sweeps/{name}/needless_call-2_cups_3/pour", "its own lineage"
    assert second["reward"]["needless_call"] == -2
    # What the run does by itself takes it over too, and nothing is trained where all of it counts.
    alone = tasting("stage=taste", "run=r", "reward.needless_call=-1", "pour.cups=3")
    assert "taste: identical to runs/r/sweeps/needless_call_cups/needless_call-1_cups_3/taste" in alone.stdout
    assert len(lines(tasting.folder / "runs/r/ended")) == 2
    careful = ("-m", "stage=taste", "run=r", "reward.needless_call=-1,-2", "taste.careful=true", "sweep.name=careful")
    assert tasting(*careful).returncode == 0
    assert [point["identical_to"] for point in sweep(tasting, "careful")["points"]] == [None, None]


def test_a_result_that_was_half_taken_over_is_made_again(tasting: House) -> None:
    words = ("-m", "stage=taste", "run=r", "reward.needless_call=-1,-2")
    assert tasting(*words).returncode == 0
    folder = tasting.folder / "runs/r/sweeps/needless_call/needless_call-2/taste"
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    (folder / "steps").unlink()
    before = timeless(sweep(tasting, "needless_call"))
    assert tasting(*words).returncode == 0
    assert timeless(sweep(tasting, "needless_call")) == before
    assert len((folder / "steps").read_text().splitlines()) == 3
    assert len(lines(tasting.folder / "runs/r/ended")) == 1


def test_failed_points_are_listed_at_the_end_and_run_again_by_the_same_command(tasting: House) -> None:
    words = ("-m", "stage=taste", "run=r", "pour.cups=13,2,14")
    done = tasting(*words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "cups_13: failed: ValueError: no luck with 13"
    assert {point["job"]: (point["status"], point["error"]) for point in sweep(tasting, "cups")["points"]} == {
        "cups_13": ("failed", "ValueError: no luck with 13"),
        "cups_2": ("done", None),
        "cups_14": ("done", None),
    }
    tasting.write("stages/taste.py", TASTE.replace("cups == 13", "cups == 99"))
    again = tasting(*words)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("taste: done already with the same inputs") == 2
    assert {point["status"] for point in sweep(tasting, "cups")["points"]} == {"done"}


def test_a_point_whose_configuration_is_refused_fails_alone(tasting: House) -> None:
    done = tasting("-m", "stage=taste", "run=r", "pour.cups=2,two")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("cups_two: failed: invalid configuration: pour.cups: ")


def test_sweep_json_has_the_points_of_the_last_command_with_what_came_out(tasting: House) -> None:
    assert tasting("-m", "stage=taste", "run=r", "pour.cups=1,2").returncode == 0
    assert tasting("-m", "stage=taste", "run=r", "pour.cups=2,3,4", "taste.steps=3").returncode == 0
    summary = sweep(tasting, "cups")
    assert [point["job"] for point in summary["points"]] == ["cups_2", "cups_3", "cups_4"]
    assert summary["settings"] == ["stage=taste", "run=r", "taste.steps=3"]
    assert summary["sampled_requests"] == 0
    assert "call" not in summary
    assert not [point for point in summary["points"] if "call" in point]
    point = summary["points"][1]
    assert point["overrides"] == ["pour.cups=3"]
    assert point["seconds"] >= 0
    assert point["objective"] == pytest.approx(1 - 0.015 / 2)
    assert point["metrics"]["validation_missed_call_rate"] == pytest.approx(0.015)
    assert not {"train_seconds", "resumed_from_step", "memory_gib"} & set(point["metrics"])
    best = summary["recommended"]
    assert (best["job"], best["within_bounds"]) == ("cups_3", True)
    assert best["why"].startswith(
        "best balanced accuracy, 99.2 % [90.0, 100.0], of the 3 of 3 points within the bounds (false calls <= 2 %,"
    )


def test_what_sweeps_cannot_do_is_refused_in_a_line(tasting: House) -> None:
    for words, line in (
        (("run=a,b",), "run: a sweep lies in one run; sweep over what is to differ"),
        (
            ("run=r", "pour.cups=1,1"),
            "cups_1: several points of the sweep would have this folder; give values that differ",
        ),
        (
            ("run=r", "pour.cups=1,2", "sweep.objective=exact_call_rat"),
            "sweep.objective: exact_call_rat is not measured on validation requests; did you mean exact_call_rate?",
        ),
    ):
        done = tasting("-m", "stage=taste", *words)
        assert (done.returncode, done.stderr) == (2, f"{line}\n")


def test_two_points_at_once_come_out_as_one_after_the_other(tasting: House) -> None:
    needs_extra(["launcher=joblib"])
    words = ("-m", "stage=taste", "run=r", "pour.cups=1,2,3", "reward.needless_call=-1,-2", "taste.nap=0.05")
    one = tasting(*words, "sweep.name=one")
    (tasting.folder / "runs/r/sweeps/one").rename(tasting.folder / "one")  # nothing is to be taken over from there
    two = tasting(*words, "sweep.name=two", "launcher=joblib")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    serial = json.loads((tasting.folder / "one/sweep.json").read_text())
    parallel = sweep(tasting, "two")
    for first, second in zip(serial["points"], parallel["points"], strict=True):
        assert (first["job"], first["status"], first["metrics"]) == (second["job"], "done", second["metrics"])
    assert serial["recommended"] == parallel["recommended"]
    assert len(lines(tasting.folder / "runs/r/ended")) == 6, "of two that are alike, one waits for the other"


def test_what_a_launcher_leaves_behind_when_it_is_killed_is_waited_for(tasting: House) -> None:
    needs_extra(["launcher=joblib"])
    words = ("-m", "stage=taste", "run=r", "pour.cups=1,2,3", "taste.nap=0.3", "launcher=joblib")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # a pipe would end with the last worker only
    running = subprocess.Popen(tasting.command(*words), **quiet, **tasting.place())
    deadline = time.monotonic() + 30
    while not lines(tasting.folder / "runs/r/begun") and time.monotonic() < deadline:
        time.sleep(0.02)
    running.kill()
    running.wait()
    assert tasting(*words).returncode == 0
    ended = lines(tasting.folder / "runs/r/ended")
    assert len(ended) == len(set(ended)) == 3


def test_submitit_runs_the_points_in_processes_of_its_own(tasting: House) -> None:
    needs_extra(["launcher=submitit_local"])
    done = tasting("-m", "stage=taste", "run=r", "pour.cups=2,13", "launcher=submitit_local")
    assert done.returncode == 1
    assert {point["job"]: point["status"] for point in sweep(tasting, "cups")["points"]} == {
        "cups_2": "done",
        "cups_13": "failed",
    }
    assert done.stderr.splitlines()[-1] == "cups_13: failed: ValueError: no luck with 13"


def test_a_search_by_optuna_goes_on_where_it_was(tasting: House) -> None:
    needs_extra(["sweeper=optuna"])
    words = ("-m", "stage=taste", "run=r", "sweeper=optuna", "pour.cups=range(1,12)", "taste.nap=0.05")
    running = tasting.start(*words, "hydra.sweeper.n_trials=6")
    deadline = time.monotonic() + 30
    while len(lines(tasting.folder / "runs/r/ended")) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.kill()
    running.communicate()
    assert tasting(*words, "hydra.sweeper.n_trials=6").returncode == 0
    broken = timeless(sweep(tasting, "cups"))
    ended = lines(tasting.folder / "runs/r/ended")
    assert len(ended) == len(set(ended))
    (tasting.folder / "runs/r/sweeps/cups").rename(tasting.folder / "cups")
    tasting(*words, "hydra.sweeper.n_trials=6")
    assert timeless(sweep(tasting, "cups")) == broken
    objectives = [point["objective"] for point in broken["points"]]
    assert all(len(both) == 2 for both in objectives)


def test_a_launcher_that_is_not_installed_is_told_with_what_installs_it(tasting: House) -> None:
    yaml = tasting.folder / "conf/launcher/joblib.yaml"
    yaml.write_text(yaml.read_text().replace("# hydra-joblib-launcher", "# hydra-no-such-launcher"))
    done = tasting("-m", "stage=taste", "run=r", "pour.cups=1,2", "launcher=joblib")
    install = "pip install -r requirements-sweep.txt -c constraints-sweep.txt"
    assert (done.returncode, done.stderr) == (
        2,
        f"launcher=joblib: hydra-no-such-launcher is not installed: {install}\n",
    )


def test_preference_training_reads_pairs_and_only_a_loss_that_weighs_them_reads_margins(tmp_path: Path) -> None:
    def essence(reward: float, margins: bool = False, rounds: int = 1, **changes: Any) -> str:
        pair = {
            "id": "a",
            "prompt": [],
            "tools": [],
            "chosen": "yes",
            "rejected": "no",
            "kind": "text",
            "margin": reward,
        }
        write_jsonl(tmp_path / "pairs.jsonl", [pair | changes])
        inputs = {"seed": 0, "parents": {"sft": "s", "pairs": f"file {reward}"}, "reward": {"missed_call": reward}}
        return digest(_twins.pairs_as_read(inputs, tmp_path, rounds, margins))

    assert essence(-1) == essence(-2) == essence(-2, kind="call", id="b")
    for change in ({"chosen": "no"}, {"rejected": "yes"}, {"prompt": [1]}, {"tools": [1]}):
        assert essence(-1) != essence(-1, **change)
    assert essence(-1, margins=True) != essence(-2, margins=True)
    assert essence(-1, rounds=2) != essence(-2, rounds=2), "the table makes the pairs of the second round"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """What prepare needs, and leaves behind."""
    publish()
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))


WHOLE = {
    "pairs.base_url": ["pairs.endpoint_model=m"],
    "pairs.endpoint_model": ["pairs.base_url=http://host/v1"],
    "dpo.trainer.hub_token": ["pairs.base_url=http://host/v1", "pairs.endpoint_model=m"],
}


@pytest.mark.usefixtures("published")
def test_a_key_in_any_value_of_a_sweep_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    token = "hf_" + "aB3" * 9
    for path, typed in (
        ("pairs.base_url", f"pairs.base_url=http://host/v1,https://me:{token}@host/v1"),
        ("pairs.base_url", f"pairs.base_url=http://host/v1,{'ab' * 20}"),
        ("dpo.trainer.hub_token", "+dpo.trainer={seed:1},{hub_token:abc}"),
        ("pairs.endpoint_model", f"pairs.endpoint_model=choice(small,'{token}')"),
    ):
        with pytest.raises(UserError, match=f"{path}: looks like a key or password") as refusal:
            _sweep.prepare(["stage=dpo", f"runs_dir={tmp_path}/runs", "pairs.sampler=openai", *WHOLE[path], typed])
        assert token not in str(refusal.value)
        assert not list(tmp_path.iterdir())


def test_no_key_is_in_what_is_told_and_kept_of_a_failed_point(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "Planted-1-token-2")
    kept = []
    for said in ("the server refused Planted-1-token-2", f"at https://me:hf_{'aB3' * 9}@host/v1"):
        try:
            raise RuntimeError(said)
        except RuntimeError as error:
            kept.append(_sweep._tell(error))
    assert kept == ["RuntimeError: the server refused [redacted]", "RuntimeError: at https://[redacted]@host/v1"]
    told = capsys.readouterr().err
    assert told.count("Traceback") == 2
    assert "Planted" not in told
    assert "aB3aB3" not in told


@pytest.mark.usefixtures("published")
def test_a_pattern_stands_for_the_choices_of_its_group(tmp_path: Path) -> None:
    words = ["stage=dpo", f"runs_dir={tmp_path}/runs"]
    _sweep.prepare([*words, "reward=glob([a*,b*])"])
    jobs = [point["job"] for point in read_json(tmp_path / "runs/default/sweeps/reward/sweep.json")["points"]]
    assert jobs == ["reward_article", "reward_binary"]
    for word, line in (
        ("reward=glob(x*)", r"^reward=glob\(x\*\): no choice of this group fits$"),
        ("dpo.beta=glob(*)", r"^dpo.beta=glob\(\*\): no choice of this group fits$"),
    ):
        with pytest.raises(UserError, match=line):
            _sweep.prepare([*words, word])
    with pytest.raises(UserError, match=r"dpo\.betta: no such field; did you mean beta"):
        _sweep.prepare([*words, "reward=glob(*)", "dpo.betta=1"])


@pytest.fixture
def shared(tmp_path: Path) -> Settings:
    """Settings of a sweep over pour.cups whose points are files alone."""
    publish()
    settings = composed("stage=dpo", "run=r", f"runs_dir={tmp_path}/runs")
    sweep = SweepConfig(name="cups", keys=["pour.cups"])
    return replace(settings, root=settings.root.model_copy(update={"sweep": sweep}))


def cups(*numbers: int) -> list[list[str]]:
    return [[f"pour.cups={number}"] for number in numbers]


def test_two_calls_of_a_sweep_each_answer_for_their_own_points(
    shared: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared.run_folder / "sweeps/cups"

    def put(call: str, number: int, status: str) -> None:
        entry = _sweep._entry(["pour.cups"], cups(number)[0], call)
        _sweep._put(folder, entry | {"status": status, "metrics": {}}, shared, worked=True)

    _sweep._begin(shared, cups(5, 6), "first")
    put("first", 5, "done")
    _sweep._begin(shared, cups(5, 6, 7, 8), "second")
    put("first", 6, "done")
    assert _sweep.Sweep(shared, (), "first").finish() == 0
    summary = read_json(folder / "sweep.json")
    assert {point["job"]: point["status"] for point in summary["points"]} == {
        "cups_5": "pending", "cups_6": "done", "cups_7": "pending", "cups_8": "pending",
    }  # fmt: skip
    assert summary["call"]["id"] == "second"
    for number in (5, 6, 7):
        put("second", number, "done")
    put("second", 8, "running")  # and its process is killed
    assert _sweep.Sweep(shared, (), "second").finish() == 1
    assert "cups_8: failed: its process ended before it did" in capsys.readouterr().err
    put("first", 9, "running")  # a call that began before, and goes on after
    put("first", 9, "done")
    assert _sweep.Sweep(shared, (), "first").finish() == 0
    summary = read_json(folder / "sweep.json")
    assert [point["status"] for point in summary["points"]] == ["done", "done", "done", "failed", "done"]
    assert not [one for one in (summary, *summary["points"]) if "call" in one]


def test_the_time_of_a_killed_call_is_counted_to_the_last_file_of_its_point(shared: Settings) -> None:
    folder = shared.run_folder / "sweeps/cups"
    _sweep._begin(shared, cups(5, 6), "killed")
    entry = _sweep._entry(["pour.cups"], cups(6)[0], "killed")
    _sweep._put(folder, entry | {"status": "running"}, shared)
    log = folder / "cups_6/taste/log.jsonl"
    write_jsonl(log, [])
    began = read_json(folder / "sweep.json")["call"]["began"]
    os.utime(log, (began + 90, began + 90))
    _sweep._begin(shared, cups(5, 6), "next")
    assert read_json(folder / "sweep.json")["wall_seconds"] == pytest.approx(90, abs=0.1)


def test_requests_are_counted_where_they_were_sampled(tmp_path: Path) -> None:
    def made(place: str, stage: str, status: str = "done", same: bool = False, **facts: Any) -> None:
        manifest = {"schema": 1, "stage": stage, "status": status, "facts": facts}
        write_json(
            tmp_path / place / stage / "manifest.json", manifest | {"identical_to": {} if not same else {"a": 1}}
        )

    points = {"points": [{"job": "a"}, {"job": "b"}, {"job": "not begun"}]}
    made("a", "dpo")
    assert _sweep._sampled(tmp_path, points) == (0, 0)
    made("a", "pairs", samples="x", requests_sampled=40, requests_from_cache=2)
    made("a/dpo/rounds/2", "pairs", samples="y", requests_sampled=42, requests_from_cache=0)
    made("b", "pairs", samples="x", requests_sampled=0, requests_from_cache=42)
    made("b", "dpo", same=True)
    made("b/dpo/rounds/2", "pairs", samples="y", requests_sampled=42, requests_from_cache=0)
    made("b", "kto", status="failed")
    assert _sweep._sampled(tmp_path, points) == (82, 44), "of what b took over, nothing"
    told = {"sampled_requests": 1200, "cached_requests": 2400}
    assert _sweep.asked_in_words(told) == "1,200 requests sampled, 2,400 taken from the cache"
    made("b", "distill", samples="z")
    assert _sweep._sampled(tmp_path, points) == (None, None), "it was made before this was counted"
    made("b", "distill", status="running", samples="z")
    assert _sweep._sampled(tmp_path, points) == (82, 44)
    made("b", "ppo")
    assert _sweep._sampled(tmp_path, points) == (None, None)


def test_stages_within_a_twin_keep_their_manifests(tmp_path: Path) -> None:
    source, folder = tmp_path / "one/dpo", tmp_path / "two/dpo"
    for place in (source, source / "rounds/1/dpo"):
        for name in ("manifest.json", "config.yaml", "metrics.json", "checkpoints/1", "wandb/run", "adapter/a"):
            write_json(place / name, {})
        write_json(place / ".asked.jsonl", {})
    _twins.take_over(source, folder)
    there = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    within = ("adapter/a", "config.yaml", "manifest.json", "metrics.json")
    assert there == ["adapter/a", "metrics.json", *(f"rounds/1/dpo/{name}" for name in within)]


def metrics(false: float, missed: float, **more: float) -> dict[str, Any]:
    rates = {"false_tool_call_rate": false, "missed_call_rate": missed, "balanced_accuracy": 1 - (false + missed) / 2}
    return {f"validation_{name}": value for name, value in (rates | more).items()}


def entry(job: str, measured: dict[str, Any] | None, status: str = "done") -> dict[str, Any]:
    return {"job": job, "overrides": [], "status": status, "metrics": measured, "identical_to": None}


def test_the_default_objective_lets_neither_error_be_bought_with_the_other() -> None:
    config = SweepConfig()
    assert _objective.objective(metrics(0.02, 0.02), config) == pytest.approx(0.98)
    assert _objective.objective(metrics(0.0, 0.05), config) == pytest.approx(0.975 - 5 * 0.03)
    assert _objective.objective(metrics(0.02, 0.02), config) > _objective.objective(metrics(0.0, 0.024), config)
    assert _objective.objective({"false_tool_call_rate": 0.0, "missed_call_rate": 0.0}, config) is None, "test rates"
    assert _objective.objective({"validation_loss": 0.4}, config) == -0.4
    config = SweepConfig(max_missed=0.05)
    none: dict[str, Any] = metrics(0, 0) | {
        "validation_balanced_accuracy": None,
        "validation_false_tool_call_rate": None,
    }
    calls = [none | {"validation_missed_call_rate": missed} for missed in (0.04, 0.06)]
    assert _objective.objective(calls[0], config) == pytest.approx(0.96), "where no request needs none"
    assert _objective.objective(calls[1], config) == pytest.approx(0.94 - 5 * 0.01)
    points = [entry(name, measured) for name, measured in zip("ab", calls, strict=True)]
    best = _objective.recommend(points, config)
    assert best
    assert (best["job"], best["within_bounds"]) == ("a", True)
    assert best["why"].startswith("best missed call rate, 4.0 %, of the 1 of 2 points within the bounds")
    assert best["why"].endswith("; false calls -, missed calls 4.0 %")
    assert _objective.objective(none | {"validation_missed_call_rate": None, "validation_loss": 0.4}, config) == -0.4
    both = SweepConfig(objective=["false_tool_call_rate", "missed_call_rate"])
    assert _objective.objective(metrics(0.1, 0.2), both) == [0.1, 0.2]
    assert _objective.directions(both) == ["minimize", "minimize"]
    assert _objective.directions(config) == ["maximize"]


def test_a_point_within_both_bounds_is_recommended_before_a_better_one_that_is_not() -> None:
    points = [
        entry("lopsided", metrics(0.0, 0.03, exact_call_rate=0.99)),
        entry("even", metrics(0.02, 0.02, exact_call_rate=0.9)),
        entry("worse", metrics(0.02, 0.02, exact_call_rate=0.8)),
        entry("broken", None, "failed"),
    ]
    exact = SweepConfig(objective="exact_call_rate")
    best = _objective.recommend(points, exact)
    assert best
    assert best["job"] == "even"
    assert best["why"].startswith("best exact call rate, 90.0 %, of the 2 of 3 points within the bounds")
    far = _objective.recommend(points[:1], exact)
    assert far
    assert (far["job"], far["within_bounds"]) == ("lopsided", False)
    assert far["why"].startswith(
        "no point is within the bounds (false calls <= 2 %, missed calls <= 2 %); of all 1, best"
    )
    assert _objective.recommend(points[3:], exact) is None
    losses = [entry(str(loss), {"validation_loss": loss}) for loss in (0.5, 0.3, 0.4)]
    for config in (SweepConfig(), SweepConfig(objective="loss")):
        best = _objective.recommend(losses, config)
        assert best
        assert (best["job"], best["why"]) == ("0.3", "smallest validation loss, 0.3, of 3 points")


def test_tables_that_order_all_answers_alike_are_told_of() -> None:
    points = [entry(name, {}) | {"identical_to": same} for name, same in (("a", None), ("b", "a"), ("c", "a"))]
    summary = {
        "sweep": "s", "stage": "dpo", "keys": ["reward.needless_call"], "points": points, "wall_seconds": 1.0,
        "sampled_requests": 0, "cached_requests": 0, "recommended": None,
    }  # fmt: skip
    hint = "these tables put the same answers before the same others"
    assert any(line.startswith(hint) for line in _sweep._told(summary))
    points[1]["identical_to"] = None
    assert not any(line.startswith(hint) for line in _sweep._told(summary))
    points[1]["identical_to"] = "a"
    assert not any(line.startswith(hint) for line in _sweep._told(summary | {"keys": ["dpo.beta"]}))


def test_the_report_shows_points_front_settings_curves_and_what_differs(tasting: House) -> None:
    words = ("pour.cups=2,3,9,13", "reward.needless_call=-1,-2", "sweep.name=shown", "taste.nap=0")
    done = tasting("-m", "stage=taste", "run=r", *words)
    assert done.returncode == 1
    assert "report: runs/r/sweeps/shown/sweep.html" in done.stdout
    text = (tasting.folder / "runs/r/sweeps/shown/sweep.html").read_text()
    page = Page(text)
    said = " ".join(" ".join(page.text).split())
    assert "8 points of stage=taste: 6 done, 3 of them identical to another and not trained again, 2 failed" in said
    assert "Recommended: 3 cups_3_needless_call-1" in said
    assert "python train.py stage=taste run=r taste.nap=0 pour.cups=3 reward.needless_call=-1" in said
    assert said.count("identical to") == 4, "in the lead, and at three points"
    assert said.count("ValueError: no luck with 13") == 2
    assert "pour.cups" in said
    assert page.tags.count("svg") == 4, "trade-off, two settings, the loss"
    assert text.count('class="dot"') == 3, "points that lie on each other are one dot"
    assert re.search(r'text-anchor="start">3, 4</text>', text)
    assert text.count('class="curve"') + text.count('class="curve chosen"') == 3
    assert not [value for _, name, value in page.attributes if name in ("src", "href")]
    assert "reward.needless_call" in said.split("What differs between them")[1]
    assert "taste.steps" not in said.split("What differs between them")[1]


def test_the_front_holds_what_no_point_beats_in_both_errors() -> None:
    def dot(number: int, false: float, missed: float) -> _sweep_charts.Dot:
        return _sweep_charts.Dot(str(number), 0, str(number), false, missed, (false, false), (missed, missed))

    dots = [dot(1, 0.1, 0.1), dot(2, 0.0, 0.3), dot(3, 0.1, 0.2), dot(4, 0.3, 0.0), dot(5, 0.3, 0.3), dot(6, 0.0, 0.4)]
    assert [each.label for each in _sweep_charts.front(dots)] == ["2", "1", "4"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 0.11, [0, 0.025, 0.05, 0.075, 0.1, 0.125]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (2, 2, [2, 3]),
        (-3, 7, [-4, -2, 0, 2, 4, 6, 8]),
    ],
)
def test_ticks_are_round_and_hold_the_values(low: float, high: float, expected: list[float]) -> None:
    assert _sweep_charts.ticks(low, high) == pytest.approx(expected)
