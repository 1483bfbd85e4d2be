"""The whole chain on a toy model, as a user types it: pipeline, second call, sweep, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stages._files import digest
from tests.toys import ROOT, needs_extra, toy_checkpoint

pytestmark = pytest.mark.slow
SHORT = ("sft.max_steps=2", "sft.batch_size=4", "pairs.samples=2", "dpo.max_steps=2", "evaluate.max_new_tokens=16")


class Chain:
    """train.py on a toy model and forty rows of two tools, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rows = [
            {
                "user_content": f"What is the {what} number {number}?",
                "tool_name": tool,
                "tool_arguments": json.dumps({"query": f"{what} {number}"}),
            }
            for number in range(20)
            for what, tool in (("rule", "search_knowledge_base"), ("news", "search_google"))
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        toy_checkpoint(folder / "toy")

    def command(self, *arguments: str) -> list[str]:
        where = (f"runs_dir={self.folder}/runs", f"model.path={self.folder}/toy")
        data = ("data=simple_tool_calling", f"data.train={self.folder}/rows.jsonl")
        return [sys.executable, str(ROOT / "train.py"), *where, *data, *arguments]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=300, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return done

    def json(self, name: str) -> Any:
        return json.loads((self.folder / "runs" / name).read_text())

    def adapter(self, run: str, stage: str = "sft") -> str:
        return digest(self.folder / "runs" / run / stage / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain"))


def test_the_pipeline_runs_through_and_a_second_call_costs_seconds(chain):
    first = chain("stage=pipeline", "run=p", *SHORT)
    assert first.stdout.strip().endswith("runs/p/evaluate/report.html")
    for stage in ("sft", "pairs", "dpo", "merge", "evaluate", "pipeline"):
        manifest = chain.json(f"p/{stage}/manifest.json")
        assert manifest["status"] == "done"
        assert all((chain.folder / "runs" / "p" / entry["path"]).is_dir() for entry in manifest["parents"].values())
    assert list(chain.json("p/evaluate/metrics.json")) == ["base", "sft", "dpo", "merged"]
    assert "Traceback" not in first.stderr
    assert "Warning" not in first.stderr
    began = time.monotonic()
    second = chain("stage=pipeline", "run=p", *SHORT)
    assert time.monotonic() - began < 10
    assert second.stdout.count("done already with the same inputs") == 6
    assert second.stdout.splitlines()[-8:] == first.stdout.splitlines()[-8:], "it shows the same table"


def test_a_sweep_samples_once_and_trains_each_set_of_pairs_once(chain):
    chain("stage=pipeline", "run=p", *SHORT)
    short = [word for word in SHORT if not word.startswith("sft")]
    done = chain("-m", "stage=dpo", "run=p", "reward.needless_call=-1,-2", *short)
    summary = chain.json("p/sweeps/needless_call/sweep.json")
    points = summary["points"]
    assert [(point["job"], point["status"]) for point in points] == [
        ("needless_call-1", "done"),
        ("needless_call-2", "done"),
    ]
    prompts = chain.json("p/pairs/metrics.json")["prompts"]
    assert (summary["sampled_requests"], summary["cached_requests"]) == (0, 2 * prompts), "the pipeline sampled them"
    for point in points:
        manifest = chain.json(f"p/sweeps/needless_call/{point['job']}/dpo/manifest.json")
        assert manifest["parents"]["sft"]["digest"] == chain.json("p/sft/manifest.json")["digest"]
        assert manifest["parents"]["pairs"]["path"] == f"sweeps/needless_call/{point['job']}/pairs"
        assert manifest["reward"]["needless_call"] == float(point["overrides"][0].split("=")[1])
    # The rows of this data all need a call: what a needless one costs changes no pair, the run's own were the same.
    assert [point["identical_to"] for point in points] == ["dpo", "dpo"]
    assert chain.adapter("p/sweeps/needless_call/needless_call-2", "dpo") == chain.adapter("p", "dpo")
    assert "recommended: " in done.stdout
    words = ("-m", "stage=dpo", "run=p", "reward.needless_call=-1,-2", *short, "pairs.samples=1", "sweep.name=fewer")
    for _ in range(2):
        chain(*words)
        summary = chain.json("p/sweeps/fewer/sweep.json")
        assert (summary["sampled_requests"], summary["cached_requests"]) == (prompts, prompts), (
            "once, by the first point"
        )


def test_two_points_at_once_end_in_the_same_bytes_as_one_after_the_other(chain):
    needs_extra(["launcher=joblib"])
    chain("stage=pipeline", "run=p", *SHORT)
    short = [word for word in SHORT if not word.startswith("sft")]
    words = ("-m", "stage=dpo", "run=p", "dpo.beta=0.2,0.3", "threads=1", *short)
    chain(*words, "sweep.name=one")
    (chain.folder / "runs/p/sweeps/one").rename(chain.folder / "one")  # nothing is to be taken over from there
    chain(*words, "sweep.name=two", "launcher=joblib")
    serial = json.loads((chain.folder / "one/sweep.json").read_text())
    for first, second in zip(serial["points"], chain.json("p/sweeps/two/sweep.json")["points"], strict=True):
        assert (first["job"], first["metrics"]) == (second["job"], second["metrics"])
        adapter = chain.folder / f"one/{first['job']}/dpo/adapter/adapter_model.safetensors"
        assert digest(adapter) == chain.adapter(f"p/sweeps/two/{first['job']}", "dpo")


def test_an_interrupted_training_ends_in_the_same_bytes(chain):
    words = ("sft.max_steps=40", "sft.batch_size=4", "sft.log_every=1")
    chain("run=whole", *words)
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    running = subprocess.Popen(chain.command("run=broken", *words), **pipes, text=True, cwd=chain.folder)
    log = chain.folder / "runs/broken/sft/log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") >= 5) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 143, errors
    again = chain("run=broken", *words)
    assert "sft: resuming from step" in again.stdout
    assert chain.adapter("broken") == chain.adapter("whole")
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 41))


def test_an_argument_that_the_trainer_does_not_have_is_refused_with_the_nearest(chain):
    done = subprocess.run(
        chain.command("run=wrong", "sft.trainer.lerning_rate=1"), capture_output=True, text=True, cwd=chain.folder,
        env={**os.environ, "PYTHONWARNINGS": "ignore"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "sft.trainer.lerning_rate: SFTConfig has no such argument; did you mean learning_rate?\n"
