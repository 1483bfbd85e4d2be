"""train.py as a user meets it: help, refusals in one line with the way out, exit statuses, sweeps, interruptions."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.house import House

# Standing where torch would be found first, it shows that nothing imports torch.
POISON = "raise SystemExit('torch was imported')"
NOT_RUN = "does not run it, its settings would do nothing; stages that do: all, brew"


def said(house: House, *arguments: str) -> list[str]:
    """The lines of a refusal, which must exit 2, print nothing else, import no torch and leave no file behind."""
    house.write("torch.py", POISON)
    done = house(*arguments)
    (house.folder / "torch.py").unlink()
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert not house.litter()
    lines = done.stderr.splitlines()
    return [line.strip() for line in lines[1:]] if lines[0] == "invalid configuration:" else lines


REFUSALS = {
    ("brew.heet=1",): "brew.heet: no such field; did you mean heat?",
    ("+brew.heet=1",): "brew.heet: no such field; did you mean heat?",
    ("brew.heat=0",): "brew.heat: Input should be greater than 0 (got 0)",
    ("seed=-1",): "seed: Input should be greater than or equal to 0 (got -1)",
    ("stage=brev",): "stage=brev: no such choice; did you mean brew? (there are: all, brew, pour, serve)",
    ("model=bigg",): "model=bigg: no such choice; did you mean big? (there are: big, tiny)",
    ("modle=tiny",): "modle: no such group, stage or setting; did you mean model?",
    ("experiment=hott",): "experiment=hott: no such choice; did you mean hot? (there are: hot)",
    ("model.quantization=nf5",): "model.quantization: Input should be 'none' or 'nf4'; did you mean nf4? (got 'nf5')",
    (
        "tracking=wanbd",
    ): "tracking=wanbd: no such choice; did you mean wandb? (there are: none, tensorboard, trackio, wandb)",
    ("tracking=[wandb]", "tracking.wandb.projct=x"): "tracking.wandb.projct: no such field; did you mean project?",
    (
        "tracking.wandb.project=x",
    ): "tracking: nothing is chosen in this group (tracking=[…]), so there is nothing to set",
    ("data.train=${nowhere}",): "Interpolation key 'nowhere' not found full_key: data.train object_type=dict",
    ("a b",): "a b: cannot be read; settings are written key=value, lists key=[a,b], quoted for the shell",
    ("stage=pour", "brew.heat=1"): f"brew: stage=pour {NOT_RUN}",
    ("stage=pour", "experiment=hot"): f"brew: stage=pour {NOT_RUN}",
    ("-m", "brew.heet=1,2"): "brew.heet: no such field; did you mean heat?",
    ("-m", "brew.heat=0,2"): "brew.heat: Input should be greater than 0 (got 0)",
}


@pytest.mark.parametrize("arguments", REFUSALS, ids=" ".join)
def test_a_refusal_is_one_line_with_its_path_and_the_way_out(house, arguments):
    assert said(house, *arguments) == [REFUSALS[arguments]]


def test_every_mistake_is_listed_at_once(house):
    lines = said(house, "brew.heat=0", "brew.heet=1", "model=bigg", "brew.trainer.x=a", "stage=brew", "runs=there")
    assert [line.split(":")[0] for line in lines] == ["model=bigg", "brew.heet", "runs", "brew.heat", "brew.trainer.x"]


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", ".hidden", "a b", "x" * 101])
def test_a_run_cannot_leave_its_folder(house, name):
    assert said(house, f"run='{name}'")[0].startswith("run: ")
    assert said(house, f"sweep.name='{name}'")[0].startswith("sweep.name: ")


def test_keys_do_not_enter_a_configuration(house):
    secret = "hf_abcdefghijklmnopqrstuvwxyz"
    for value in (secret, "https://me:secret@host/x"):
        (line,) = said(house, f"data.train='{value}'")
        assert line.startswith("data.train: looks like a key")
        assert value not in line
    assert said(house, "data.train='${oc.env:HOME}'")[0].startswith("data.train: reads the environment")


def test_a_setting_that_names_a_callable_is_a_field_like_any_other(house):
    assert said(house, "+brew._target_=builtins.open")[0].startswith("brew._target_: no such field")
    assert said(house, "+_target_=builtins.open")[0].startswith("_target_: no such group")


def test_a_missing_stage_says_what_to_run_first(house):
    assert said(house, "stage=serve", "run=new") == ["run first: python train.py stage=brew run=new"]
    assert said(house, "stage=pour", "run=new", "model=big") == [
        "run first: python train.py stage=brew run=new model=big"
    ]


def test_help_names_every_stage_group_and_setting_without_torch(house):
    house.write("torch.py", POISON)
    whole, one, config = house("--help"), house("stage=serve", "--help"), house("stage=serve", "--cfg", "job")
    assert (whole.returncode, one.returncode, config.returncode) == (0, 0, 0)
    for word in ("brew *", "Pours.", "model=", "big | tiny", "tracking=", "runs_dir"):
        assert word in whole.stdout
    assert "serve.tray=tin" in one.stdout
    assert "pour.cups=1" in one.stdout
    assert "brew" not in config.stdout
    assert "Degrees, above zero." in house("stage=brew", "--help").stdout
    house.folder.joinpath("torch.py").unlink()
    assert not house.litter()


def test_help_and_refusals_take_under_a_second(house):
    house("--help")
    for arguments in (("--help",), ("--cfg", "job"), ("brew.heet=1",), ("brew.heat=0",), ("stage=serve",)):
        before = os.times()
        house(*arguments)
        after = os.times()  # time on a processor: what else the machine does is not counted
        assert after.children_user + after.children_system - before.children_user - before.children_system < 1, (
            arguments
        )


def test_any_argument_of_a_trainer_passes_without_a_plus(house):
    done = house("brew.trainer.max_steps=3", "brew.trainer.new=4")
    assert done.returncode == 0, done.stderr
    assert house.json("default/brew/manifest.json")["inputs"]["brew"]["trainer"] == {"max_steps": 3, "new": 4}


def test_a_bug_has_a_traceback_and_exits_1(house):
    done = house("brew.crash=oops")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ValueError: oops" in done.stderr
    assert house.json("default/brew/manifest.json")["status"] == "failed"


def test_a_mistake_found_while_a_stage_runs_exits_2_without_a_traceback(house):
    assert house().returncode == 0
    done = house("stage=serve", "reward.needless_call=-13")
    assert (done.returncode, done.stderr) == (2, "no luck with 13\n")


def test_a_package_that_is_missing_is_named_with_the_way_to_install_it(house):
    house.write("stages/brew.py", "import not_there\n")
    done = house()
    assert done.returncode == 2
    assert done.stderr == "not_there is not installed: pip install -r requirements.txt -c constraints.txt\n"


def test_a_new_stage_is_one_file(house):
    house.write("stages/taste.py", '"""Tastes."""\n' + house.folder.joinpath("stages/serve.py").read_text())
    assert house().returncode == 0
    done = house("stage=taste", "taste.tray=wood", "pour.cups=2")
    assert done.returncode == 0, done.stderr
    assert house.json("default/taste/metrics.json") == {"tray": "wood"}


def test_a_sweep_makes_a_folder_a_point_and_shares_what_the_run_has(house):
    assert house("run=r").returncode == 0
    done = house("stage=serve", "run=r", "-m", "reward.needless_call=-1,5", "pour.cups=1,2")
    assert done.returncode == 0, done.stderr
    points = house.json("r/sweeps/needless_call_cups/sweep.json")["points"]
    assert [point["job"] for point in points] == [
        "needless_call-1_cups_1",
        "needless_call-1_cups_2",
        "needless_call_5_cups_1",
        "needless_call_5_cups_2",
    ]
    assert {point["status"] for point in points} == {"done"}
    assert points[3]["overrides"] == ["reward.needless_call=5", "pour.cups=2"]
    for point in points:
        folder = f"r/sweeps/needless_call_cups/{point['job']}"
        assert house.json(f"{folder}/pour/metrics.json")["needless_call"] == int(
            point["job"].split("call")[1][:2].strip("_")
        )
        assert house.json(f"{folder}/pour/manifest.json")["parents"]["brew"]["path"] == "brew"
        assert house.json(f"{folder}/serve/manifest.json")["parents"]["pour"]["path"] == f"{folder[2:]}/pour"
    assert not (house.folder / "runs/r/pour").exists()


def test_one_failed_point_does_not_stop_the_others_and_exits_1(house):
    assert house("run=r").returncode == 0
    done = house("-m", "stage=serve", "run=r", "reward.needless_call=-13,-2", "sweep.name=mine")
    assert done.returncode == 1
    assert "no luck with 13" in done.stderr
    assert "Traceback" not in done.stderr
    points = {point["job"]: point["status"] for point in house.json("r/sweeps/mine/sweep.json")["points"]}
    assert points == {"needless_call-13": "failed", "needless_call-2": "done"}
    again = house("-m", "stage=serve", "run=r", "reward.needless_call=-13,-2", "sweep.name=mine")
    assert again.stdout.count("serve: done already") == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_stage_keeps_its_finished_steps_and_resumes(house, number, status):
    arguments = ("brew.steps=6", "brew.nap=0.3")
    running = house.start(*arguments)
    log = house.folder / "runs/default/brew/log.jsonl"
    deadline = time.monotonic() + 30
    while not (log.exists() and log.read_text().count("\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(number)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == status, errors
    assert "the same command goes on from here" in errors
    assert "Traceback" not in errors
    steps = len(house.rows("default/brew/log.jsonl"))
    assert 2 <= steps < 6
    assert house.json("default/brew/manifest.json")["status"] == "running"
    done = house(*arguments)
    assert done.returncode == 0, done.stderr
    assert "brew: resuming what was interrupted" in done.stdout
    assert [row["step"] for row in house.rows("default/brew/log.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert house.json("default/brew/manifest.json")["attempts"] == 2


def test_a_second_interrupt_does_not_wait_for_the_step(house):
    running = house.start("brew.nap=50")
    manifest = house.folder / "runs/default/brew/manifest.json"
    deadline = time.monotonic() + 30
    while not manifest.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1)  # into the step
    for _ in range(2):
        running.send_signal(signal.SIGINT)
        time.sleep(1)
    _, errors = running.communicate(timeout=10)
    assert running.returncode == 130
    assert "stopping after this step; once more to stop now" in errors
