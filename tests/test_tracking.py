"""What trackers are told, read back from what they keep: runs, their places, numbers, tables, lineage; and no key."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stages import _tracked
from stages._errors import UserError
from stages._files import digest, write_json, write_jsonl
from stages._job import Job
from stages._manifest import outputs_of
from stages._schema import publish
from stages._settings import Settings
from tests.house import House
from tests.offline_wandb import OfflineRun, runs_below
from tests.test_config import composed
from tests.test_report import mixed

KEYS = {"WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC", "HF_TOKEN"}
PLANTED = "Planted-1-token-2-nobody-may-see"


@pytest.fixture(autouse=True, scope="module")
def _published() -> None:
    publish()


@pytest.fixture
def alone(monkeypatch, tmp_path) -> None:
    """No key and no setting of a tracker in the environment, and a home without any."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # another test may have loaded it: it reads its folder once


def tracked(house: House, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command whose trackers have nobody to ask."""
    place = house.place() | {"env": {**house.place()["env"], **environment}}
    command = house.command(*arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, **place)


def by_stage(house: House) -> dict[str, OfflineRun]:
    runs = runs_below(house.folder / "runs")
    assert len({run.id for run in runs}) == len(runs)
    return {run.job_type: run for run in runs}


def trackio_rows(folder: Path, query: str) -> list[Any]:
    with sqlite3.connect(folder / "callwise.db") as database:
        return database.execute(query).fetchall()


@pytest.mark.usefixtures("alone")
def test_every_stage_is_one_run_in_each_tracker_with_its_place_numbers_and_lineage(house, tmp_path):
    done = tracked(
        house, "stage=all", "tracking=[wandb,trackio,tensorboard]", "tracking.wandb.tags=[mine]", "brew.steps=3"
    )
    assert done.returncode == 0, done.stderr
    assert "brew: wandb is offline; to upload: wandb sync runs/default/brew/wandb/offline-run-" in done.stdout
    assert "trackio show --project callwise" in done.stdout
    assert "tensorboard --logdir runs" in done.stdout
    assert [row["step"] for row in house.rows("default/brew/log.jsonl")] == [1, 2, 3]
    assert list(house.json("default/brew/manifest.json")["outputs"]) == ["steps"]

    runs = by_stage(house)
    assert set(runs) == {"brew", "pour", "serve", "all"}
    assert len(list(house.folder.glob("runs/default/*/wandb/offline-run-*"))) == 4
    for stage, run in runs.items():
        assert (run.group, run.name, run.tags, run.exit_code) == (
            "default",
            f"default-{stage}",
            [stage, "tiny", "mine"],
            0,
        )
        assert run.config["reward"] == {"needless_call": -5.0, "missed_call": -3.0}  # shown as reward.needless_call
        assert run.config["brew"]["steps"] == 3
    assert [(row["step"], row["loss"]) for row in runs["brew"].history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert runs["pour"].summary["needless_call"] == -5

    made = {one.name: one for run in runs.values() for one in run.artifacts if not one.used}
    assert made["default-brew"].metadata["digest"] == house.json("default/brew/manifest.json")["digest"]
    assert json.loads(made["default-brew"].files["about.json"].read_text())["files"]["steps"]["size"] == 6
    assert {file.parents[3] for one in made.values() for file in one.files.values()} == {
        house.folder / "runs/default" / stage / "wandb" for stage in runs
    }
    uses = {stage: {one.name: one.digest for one in run.artifacts if one.used} for stage, run in runs.items()}
    assert uses["pour"] == {"default-brew": made["default-brew"].digest}
    assert uses["serve"] == {name: made[name].digest for name in ("default-brew", "default-pour")}
    assert list(uses["brew"]) == ["data-world"]

    configs = {
        row[0]: json.loads(row[1]) for row in trackio_rows(tmp_path / "trackio", "select run_name, config from configs")
    }
    assert {name.rsplit("-", 1)[0] for name in configs} == {run.name for run in runs.values()}
    (pour,) = (config for name, config in configs.items() if name.startswith("default-pour"))
    assert (pour["_Group"], pour["job_type"], pour["reward.needless_call"]) == ("default", "pour", -5.0)
    links = trackio_rows(
        tmp_path / "trackio",
        "select run_name, name, direction from run_artifact_links join artifact_versions on artifact_version_id ="
        " artifact_versions.id join artifacts on artifact_id = artifacts.id",
    )
    read = {(run.rsplit("-", 1)[0], name) for run, name, direction in links if direction == "input"}
    assert {("default-pour", "default-brew"), ("default-serve", "default-pour"), ("default-brew", "data-world")} <= read

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(house.folder / "runs/default/brew/tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")][:2] == [(1, 1.0), (2, 0.5)]
    assert events.Scalars("final/heat")[0].value == 90
    assert "_hparams_/session_start_info" in events.summary_metadata


@pytest.mark.usefixtures("alone")
def test_points_of_a_sweep_and_stages_within_stages_are_runs_of_their_own(house):
    house.write(
        "stages/twice.py",
        '''
"""Brews within itself."""
from pydantic import BaseModel, ConfigDict
class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
PARENTS = ("brew",)
def run(job):
    job.log({"step": 1, "outer": 1})
    job.within("again", "pour", {"brew": job.parent("brew")}, cups=2)
    job.log({"step": 2, "outer": 2})
    return {}
BLOCKS = ("pour", "reward")
''',
    )
    assert tracked(house, "stage=brew").returncode == 0
    done = tracked(house, "stage=twice", "tracking=[wandb,trackio]")
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout
    runs = by_stage(house)
    assert runs["pour"].name == "default-twice-again-pour"
    assert (runs["pour"].group, runs["pour"].summary["cups"]) == ("default", 2)
    assert [row["outer"] for row in runs["twice"].history] == [1, 2]

    done = tracked(house, "-m", "stage=serve", "run=r", "reward.needless_call=-1,5", "tracking=[wandb]")
    assert done.returncode == 1, "no brew yet"
    assert tracked(house, "stage=brew", "run=r").returncode == 0
    done = tracked(house, "-m", "stage=serve", "run=r", "reward.needless_call=-1,5", "tracking=[wandb]")
    assert done.returncode == 0, done.stderr
    runs_of_r = runs_below(house.folder / "runs/r")
    assert sorted((run.job_type, run.config["reward"]["needless_call"]) for run in runs_of_r) == [
        ("pour", -1), ("pour", 5), ("serve", -1), ("serve", 5),
    ]  # fmt: skip
    assert {run.group for run in runs_of_r} == {"r/needless_call"}
    assert "r-needless_call-1-serve" in {run.name for run in runs_of_r}
    assert all("sweep" in run.tags for run in runs_of_r)


@pytest.mark.usefixtures("alone")
def test_a_failed_run_is_marked_and_an_interrupted_one_goes_on_under_its_id_without_a_gap(house, tmp_path):
    assert tracked(house, "run=f", "tracking=[wandb]", "brew.crash=oops").returncode == 1
    (failed,) = runs_below(house.folder / "runs/f")
    assert failed.exit_code == 1

    arguments = ("brew.steps=6", "brew.nap=0.2", "tracking=[wandb,trackio,tensorboard]")
    running = house.start(*arguments)
    log = house.folder / "runs/default/brew/log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    (interrupted,) = runs_below(house.folder / "runs/default")
    assert (interrupted.exit_code, len(interrupted.history)) == (130, len(house.rows("default/brew/log.jsonl")))

    done = tracked(house, *arguments)
    assert done.returncode == 0, done.stderr
    (resumed,) = runs_below(house.folder / "runs/default")
    assert (resumed.id, resumed.exit_code) == (interrupted.id, 0)
    assert [row["step"] for row in resumed.history] == [1, 2, 3, 4, 5, 6]
    steps = trackio_rows(
        tmp_path / "trackio", "select step from metrics where cast(metrics as text) like '%loss%' order by step"
    )
    assert [step for (step,) in steps] == [1, 2, 3, 4, 5, 6]
    assert len(list(house.folder.glob("runs/default/brew/tensorboard/*"))) == 1


@pytest.mark.usefixtures("alone")
def test_a_key_is_in_no_byte_that_is_written(house):
    house.write(
        "stages/leak.py",
        '''
"""Tells what it should not."""
import os
from pydantic import BaseModel, ConfigDict
class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    base_url: str = ""
    trainer: dict[str, str] = {}
def run(job):
    key = os.environ["SOME_API_KEY"]
    job.record(note=f"sent {key}")
    job.log({"step": 1, "loss": 1, "note": key})
    job.say(f"using {key}")
    raise RuntimeError(f"the server refused {key}")
''',
    )
    environment = {"SOME_API_KEY": PLANTED, "WANDB_API_KEY": "0123456789" * 4, "WANDB_MODE": "offline"}
    done = tracked(house, "stage=leak", "tracking=[wandb,trackio,tensorboard]", **environment)
    assert done.returncode == 1
    assert "using [redacted]" in done.stdout
    assert house.json("default/leak/manifest.json")["error"] == "RuntimeError: the server refused [redacted]"
    token = "hf_" + "aB3" * 9
    for typed in (
        f"leak.base_url=https://me:{token}@host/v1",
        f"leak.base_url='https://host/v1?token={token}'",
        f"leak.trainer.hub_token={token[4:14]}",
        f"leak.base_url={PLANTED}",
        f"leak.base_url={'ab' * 20}",
        f"tracking.wandb.project={token}",
    ):
        for more in ([], [f"{typed.split('=')[0]}=x"]):
            refused = tracked(house, "stage=leak", "tracking=[wandb]", typed, *more, **environment)
            assert refused.returncode == 2
            assert "looks like a key or password" in refused.stderr
            assert token[4:14] not in refused.stderr
    held = [path for path in house.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in held)
    for path in held:
        content = path.read_bytes()
        assert not [one for one in (PLANTED, token, "0123456789" * 4) if one.encode() in content], path


def pair(number: int) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "prompt": [{"role": "user", "content": "1+1?\x1b[2J"}],
        "chosen": "2",
        "rejected": "<tool_call>",
        "kind": "text_over_call",
        "margin": 10.0,
        "outcomes": {"chosen": "right_answer", "rejected": "needless_call"},
        "provenance": {"chosen": {"source": "gold"}, "rejected": {"source": "policy"}},
    }


def stage_done(settings: Settings, stage: str, parents: dict[str, str], metrics: dict[str, Any]) -> None:
    """Follow a stage whose files are there already."""
    folder = settings.folder / stage
    above = {name: {"path": name, "digest": known} for name, known in parents.items()}
    manifest: dict[str, Any] = {"schema": 1, "stage": stage, "status": "done", "parents": above, "data": None}
    job = Job(stage, settings, folder, {}, resuming=False)
    job._trackers.open(manifest)
    outputs = outputs_of(folder)
    manifest |= {"outputs": outputs, "digest": digest([outputs, stage])}
    job._trackers.finish(metrics, manifest)
    job._trackers.close()
    write_json(folder / "manifest.json", manifest)


@pytest.mark.usefixtures("alone")
@pytest.mark.filterwarnings("default")  # those of the trackers are not ours
def test_pairs_predictions_rates_and_the_trade_off_are_tracked(tmp_path, capsys):
    overrides = ("run=r", f"runs_dir={tmp_path}/runs", "tracking=[wandb,trackio,tensorboard]")
    settings = composed("stage=pipeline", *overrides, "tracking.wandb.upload=true")
    metrics, requests, predictions = mixed()
    for stage in ("pairs", "evaluate"):
        (settings.folder / stage).mkdir(parents=True)
    write_jsonl(settings.folder / "pairs" / "pairs.jsonl", [pair(number) for number in range(250)])
    rows = [row for model in predictions.values() for row in model.values()]
    for name, content in (("requests", requests), ("predictions", rows)):
        write_jsonl(settings.folder / "evaluate" / f"{name}.jsonl", content)
    write_json(settings.folder / "evaluate" / "metrics.json", metrics)

    stage_done(settings, "pairs", {}, {"pairs": 250})
    known = json.loads((settings.folder / "pairs/manifest.json").read_text())["digest"]
    stage_done(settings, "evaluate", {"pairs": known}, metrics)
    assert "failed" not in capsys.readouterr().out

    evaluate, pairs = sorted(runs_below(settings.run_folder), key=lambda run: run.job_type)
    for name in ("false_tool_call_rate", "missed_call_rate", "exact_call_rate"):
        assert evaluate.summary[name] == metrics["merged"][name]
        assert evaluate.summary[f"sft/{name}"] == metrics["sft"][name]
    assert not [name for name in evaluate.summary if "by_kind" in name]
    assert evaluate.summary["trade_off"]["_type"] == "image-file"

    def table(run: OfflineRun, name: str) -> Any:
        (held,) = settings.run_folder.glob(
            f"{run.job_type}/wandb/offline-run-*/files/{run.summary[f'tables/{name}']['path']}"
        )
        return json.loads(held.read_text())

    shown = table(pairs, "pairs")
    assert len(shown["data"]) == 100
    assert pairs.summary["pairs"] == 250
    assert dict(zip(shown["columns"], shown["data"][0], strict=True)) == {
        "id": "r0", "kind": "text_over_call", "margin": 10.0, "asked": "1+1?\\u001b[2J", "chosen": "2",
        "rejected": "<tool_call>", "rejected_outcome": "needless_call", "rejected_source": "policy",
    }  # fmt: skip
    shown = table(evaluate, "predictions")
    assert shown["columns"][:5] == ["id", "kind", "why", "asked", "expected"]
    assert "dpo_outcome" in shown["columns"]
    assert "dpo worse than sft" in {row[2] for row in shown["data"]}
    assert [row[:2] for row in table(evaluate, "rates")["data"]] == [
        [model, fields["false_tool_call_rate"]] for model, fields in metrics.items()
    ]
    (logged,) = (one for one in pairs.artifacts if not one.used)
    (used,) = (one for one in evaluate.artifacts if one.used)
    assert (used.name, used.type, used.digest) == ("r-pairs", "pairs", logged.digest)
    assert set(logged.files) == {"about.json", "pairs.jsonl"}

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(settings.run_folder / "evaluate/tensorboard")).Reload()
    assert events.Images("trade_off")[0].width == 600
    assert "needless_call" in events.Tensors("tables/predictions/text_summary")[0].tensor_proto.string_val[0].decode()
    found = trackio_rows(
        tmp_path / "trackio", "select metrics from metrics where cast(metrics as text) like '%trade_off%'"
    )
    final = json.loads(found[0][0])
    assert final["final/missed_call_rate"] == metrics["merged"]["missed_call_rate"]
    assert final["tables/predictions"]["_type"] == "trackio.table"


@pytest.mark.usefixtures("alone")
@pytest.mark.filterwarnings("default")
def test_a_tracker_that_fails_costs_no_stage(tmp_path, capsys, monkeypatch):
    settings = composed("stage=pairs", "run=r", f"runs_dir={tmp_path}/runs", "tracking=[wandb]")
    (settings.folder / "pairs").mkdir(parents=True)
    monkeypatch.setattr("stages._wandb.Wandb.finish", lambda *_: 1 / 0)
    stage_done(settings, "pairs", {}, {})
    assert "pairs: wandb failed and follows no further (ZeroDivisionError: division by zero)" in capsys.readouterr().out


@pytest.mark.usefixtures("alone")
def test_what_cannot_be_put_together_for_trackers_costs_no_stage(tmp_path, capsys, monkeypatch):
    settings = composed("stage=pairs", "run=r", f"runs_dir={tmp_path}/runs", "tracking=[wandb]")
    (settings.folder / "pairs").mkdir(parents=True)
    for name in ("used", "results"):
        monkeypatch.setattr(_tracked, name, lambda *_: 1 / 0)
    stage_done(settings, "pairs", {}, {})
    told = "pairs: trackers are not told everything (ZeroDivisionError: division by zero)"
    assert capsys.readouterr().out.count(told) == 2
    (run,) = runs_below(settings.run_folder)
    assert run.exit_code == 0


class Server(BaseHTTPRequestHandler):
    """As much of W&B as lets a run begin."""

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"] or 0))
        project = {"id": "p", "name": "callwise", "entity": {"id": "e", "name": "me"}}
        answer: dict[str, Any] = {}
        if b"upsertBucket" in asked:
            name = json.loads(asked)["variables"]["name"]
            bucket = {"id": "x", "name": name, "displayName": "d", "project": project, "historyLineCount": 0}
            answer = {"upsertBucket": {"bucket": bucket, "inserted": True}}
        content = json.dumps({"data": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.mark.usefixtures("alone")
@pytest.mark.filterwarnings("default")
def test_a_network_that_is_lost_while_a_stage_runs_is_told_with_what_uploads_it_later(tmp_path, capsys, monkeypatch):
    import wandb

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setattr("stages._wandb._FINISH_SECONDS", 2)
    monkeypatch.chdir(tmp_path)
    wandb.teardown()  # of another test's: the address is read once
    settings = composed("stage=pairs", "run=r", f"runs_dir={tmp_path}/runs", "tracking=[wandb]")
    folder = settings.folder / "pairs"
    folder.mkdir(parents=True)
    trackers = Job("pairs", settings, folder, {}, resuming=False)._trackers
    try:
        trackers.open({"data": None, "parents": {}})
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    trackers.log({"step": 1, "loss": 1.0})
    began = time.monotonic()
    trackers.close()
    assert time.monotonic() - began < 20
    wandb.teardown()
    (left,) = folder.glob("wandb/run-*")
    told = "pairs: wandb failed and follows no further (TimeoutError: not all is uploaded; to upload it: wandb sync "
    assert f"{told}{left.relative_to(tmp_path)})" in capsys.readouterr().out


def test_the_headline_is_by_what_settings_are_to_be_chosen():
    tested = dict.fromkeys(_tracked.HEADLINE, 0.5)
    validated = {f"validation_{name}": 0.25 for name in _tracked.HEADLINE}
    told = _tracked.summary(tested | validated)
    for name in _tracked.HEADLINE:
        assert (told[name], told[f"test_{name}"], told[f"validation_{name}"]) == (0.25, 0.5, 0.25)
    assert _tracked.summary(tested) == tested
    only = _tracked.summary(tested | validated | {"validation_false_tool_call_rate": None})
    assert only["false_tool_call_rate"] == 0.5, "nothing was measured on validation requests"
    assert only["missed_call_rate"] == 0.25


def test_a_stage_that_measures_what_it_made_is_one_model_and_a_point_tells_its_objective(tmp_path):
    settings = composed("stage=distill", "run=r", f"runs_dir={tmp_path}/runs")
    (metrics,) = (fields for model, fields in mixed()[0].items() if model == "dpo")
    assert "unseen_tools" in metrics
    manifest = {"stage": "distill", "outputs": {}, "digest": "d" * 64}
    found = _tracked.results(settings, tmp_path, metrics, manifest)
    assert [row[0] for row in found.tables["tables/rates"].rows] == ["distill"]
    assert found.picture
    assert found.summary["missed_call_rate"] == metrics["missed_call_rate"]
    assert "objective" not in found.summary
    point = replace(settings, point="sweeps/s/rank_8")
    assert "objective" not in _tracked.results(point, tmp_path, metrics, manifest).summary, "of test requests"
    rates = {"validation_false_tool_call_rate": 0.02, "validation_missed_call_rate": 0.0}
    assert _tracked.results(point, tmp_path, rates, manifest).summary["objective"] == pytest.approx(0.99)
    assert not _tracked.results(point, tmp_path, rates | {"unseen_tools": metrics}, manifest).tables


@pytest.mark.usefixtures("alone")
def test_online_without_a_key_is_refused_before_anything_and_without_a_network_goes_on_offline(house):
    refused = tracked(house, "tracking=[wandb]", "tracking.wandb.mode=online")
    assert refused.returncode == 2
    assert "tracking.wandb: to be online, wandb needs a key: set WANDB_API_KEY or run wandb login" in refused.stderr
    assert not house.litter()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and never listened to
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        began = time.monotonic()
        done = tracked(house, "tracking=[wandb]", WANDB_API_KEY="0123456789" * 4, WANDB_BASE_URL=address)
    assert done.returncode == 0, done.stderr
    assert "going on offline" in done.stdout
    assert "to upload: wandb sync" in done.stdout
    assert time.monotonic() - began < 30
    assert by_stage(house)["brew"].exit_code == 0


@pytest.mark.parametrize(
    ("point", "group", "name"),
    [
        (None, "r", "r-dpo"),
        ("dpo/rounds/1", "r", "r-dpo-rounds-1-dpo"),
        ("sweeps/mine/needless_call-1", "r/mine", "r-needless_call-1-dpo"),
        ("sweeps/mine/needless_call-1/dpo/rounds/2", "r/mine", "r-needless_call-1-dpo-rounds-2-dpo"),
    ],
)
def test_a_point_is_grouped_by_its_sweep_and_all_else_by_its_run(point, group, name):
    settings = composed("stage=dpo", "run=r")
    there = _tracked.place(Settings(settings.asked, settings.root, settings.blocks, point), "dpo")
    assert (there.group, there.name, there.stage) == (group, name, "dpo")
    assert ("sweep" in there.tags) is (group != "r")


def test_a_package_that_is_missing_is_told_before_anything_runs(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("wandb", "trackio", "tensorboard"):
        with pytest.raises(UserError, match=f"tracking.{name}: {name} is not installed: pip install"):
            composed(f"tracking=[{name}]")
