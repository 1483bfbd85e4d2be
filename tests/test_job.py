"""What a stage folder promises: done or not, made from what, resumed, replaced, named stale; and whole files."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from stages import _files, _manifest, _progress, _sweep
from stages._errors import UserError
from stages._files import append_jsonl, digest, locked, read_jsonl, remove_folder, safe_name, write_json

FROTH = '''
"""Froths."""
from pydantic import BaseModel, ConfigDict
PARENTS = ("brew",)
class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    height: int = 1
def run(job):
    (job.folder / "foam").write_text(str(job.config.height))
    return {}
'''


def test_a_manifest_says_what_made_the_folder(house):
    house.write("rows.jsonl", '{"a": 1}\n')
    assert house("data.train=rows.jsonl", "seed=3", "brew.trainer.x=1").returncode == 0
    assert house("stage=pour", "data.seed=4").returncode == 0
    brew, pour = (house.json(f"default/{stage}/manifest.json") for stage in ("brew", "pour"))
    assert (brew["stage"], brew["status"], brew["error"], brew["parents"]) == ("brew", "done", None, {})
    assert brew["seeds"] == {"seed": 3, "data.seed": 0}
    assert brew["data"]["files"] == {"train": digest(house.folder / "rows.jsonl")}
    assert brew["versions"]["trl"] == "1.16.0"
    assert brew["python"]
    assert brew["seconds"] >= 0
    assert brew["peak_memory"]["host_bytes"] > 10**7
    assert brew["outputs"]["steps"]["size"] == 2
    assert brew["model"] is None
    assert pour["parents"] == {"brew": {"path": "brew", "digest": brew["digest"]}}
    assert pour["reward"] == {"needless_call": -5.0, "missed_call": -3.0}
    assert house.json("default/pour/metrics.json") == {"cups": 1, "needless_call": -5}
    assert "heat: 90" in (house.folder / "runs/default/brew/config.yaml").read_text()


def test_the_same_inputs_are_not_computed_twice_and_other_inputs_replace_the_folder(house):
    assert house("stage=all").returncode == 0
    first = house.json("default/brew/manifest.json")
    again = house("stage=all")
    assert again.stdout.count("done already with the same inputs") == 4
    assert house.json("default/brew/manifest.json") == first
    for noise in ("threads=1", "tracking=[]", "brew.trainer={}"):
        assert "done already" in house(noise).stdout
    other = house("brew.steps=2")
    assert "brew: replacing runs/default/brew (brew.steps: 1 -> 2)" in other.stdout
    assert "brew: now stale, made from the one before: pour, serve, all" in other.stdout
    assert "pour: replacing runs/default/pour (parents.brew changed)" in house("stage=serve").stdout


def test_a_stage_that_reads_one_of_several_is_made_from_that_one_alone(house):
    house.write("stages/froth.py", FROTH)
    house.write(
        "stages/sip.py",
        '''
"""Sips."""
from pydantic import BaseModel, ConfigDict
PARENTS = ("brew",)
OPTIONAL = ("pour", "froth")
class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    of: str = "pour"
def reads(settings, above):
    return {"brew", settings.stage("sip").of}
def run(job):
    return {"read": [name for name in ("brew", "pour", "froth") if job.has(name)]}
''',
    )
    assert [house(f"stage={stage}").returncode for stage in ("brew", "pour", "froth", "sip")] == [0, 0, 0, 0]
    assert house.json("default/sip/metrics.json") == {"read": ["brew", "pour"]}
    assert list(house.json("default/sip/manifest.json")["parents"]) == ["brew", "pour"]
    other = house("stage=froth", "froth.height=2")
    assert "froth: replacing" in other.stdout
    assert "stale" not in other.stdout
    assert "sip: done already with the same inputs" in house("stage=sip").stdout
    assert "sip.of: pour -> froth" in house("stage=sip", "sip.of=froth").stdout
    assert "froth: now stale, made from the one before: sip" in house("stage=froth", "froth.height=3").stdout


def test_a_stage_that_its_settings_ask_for_is_run_first_and_no_other(house):
    house.write("stages/froth.py", FROTH)
    house.write(
        "stages/latte.py",
        '''
"""Latte."""
from pydantic import BaseModel, ConfigDict
PARENTS = ("brew", "froth")
BRINGS = ("froth",)
class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    milk: bool = True
def wants(settings):
    return {"brew", "froth"} if settings.stage("latte").milk else {"brew"}
def run(job):
    return {"foam": job.has("froth") and (job.parent("froth") / "foam").read_text()}
''',
    )
    for stage, brought in (("froth", ""), ("latte", "froth, ")):
        house.write(f"conf/stage/{stage}.yaml", f"# @package _global_\ndefaults: [{brought}/schema/{stage}@{stage}]\n")
    assert "run first: python train.py stage=brew" in house("stage=latte").stderr
    assert house("stage=brew").returncode == 0
    assert house("stage=latte", "latte.milk=false").returncode == 0
    assert not (house.folder / "runs/default/froth").exists()
    assert list(house.json("default/latte/manifest.json")["parents"]) == ["brew"]
    assert "froth" not in (house.folder / "runs/default/latte/config.yaml").read_text()
    refused = house("stage=latte", "latte.milk=false", "froth.height=2")
    assert refused.returncode == 2
    assert "froth.height: these settings do not run that stage" in refused.stderr
    assert house("stage=latte", "froth.height=2").returncode == 0
    assert house.json("default/latte/metrics.json") == {"foam": "2"}
    assert list(house.json("default/latte/manifest.json")["parents"]) == ["brew", "froth"]


def test_a_field_that_changes_no_result_may_change_even_if_it_once_counted(house):
    assert house("brew.nap=0.1").returncode == 0
    code = house.folder.joinpath("stages/brew.py").read_text()
    assert "brew: replacing" in house("brew.nap=0.2").stdout
    house.write("stages/brew.py", code.replace("    nap: float", '    FREE: ClassVar = ("nap",)\n    nap: float'))
    house.write("stages/brew.py", "from typing import ClassVar\n" + house.folder.joinpath("stages/brew.py").read_text())
    assert "brew: done already" in house("brew.nap=0.3").stdout


def test_a_new_field_makes_nothing_again_as_long_as_it_is_null(house):
    assert house("stage=brew").returncode == 0
    code = house.folder.joinpath("stages/brew.py").read_text()
    house.write("stages/brew.py", code.replace("    nap: float", "    grind: int | None = None\n    nap: float"))
    assert "brew: done already" in house("stage=brew").stdout
    assert "brew: replacing runs/default/brew (brew.grind: None -> 3)" in house("brew.grind=3").stdout


def test_a_field_of_its_own_stage_alone_makes_no_other_stage_again(house):
    """But its own; and that a stage counts it no more is no reason to make that one again."""
    code = house.folder.joinpath("stages/brew.py").read_text()
    house.write(
        "stages/pour.py", house.folder.joinpath("stages/pour.py").read_text().replace('("reward",)', '("brew",)')
    )
    house.write("conf/stage/pour.yaml", "# @package _global_\ndefaults: [/schema/pour@pour, /schema/brew@brew]\n")
    assert house("stage=brew").returncode == 0
    assert house("stage=pour", "brew.nap=0.1").returncode == 0
    assert "pour: replacing" in house("stage=pour", "brew.nap=0.2").stdout
    house.write("stages/brew.py", code.replace("    nap: float", '    OWN: ClassVar = ("nap",)\n    nap: float'))
    house.write("stages/brew.py", "from typing import ClassVar\n" + house.folder.joinpath("stages/brew.py").read_text())
    assert "pour: done already" in house("stage=pour", "brew.nap=0.3").stdout
    assert "brew: done already" in house("stage=brew").stdout
    assert "brew: replacing" in house("stage=brew", "brew.nap=0.3").stdout


def test_a_result_that_comes_out_the_same_makes_nothing_stale(house):
    assert house("stage=all").returncode == 0
    done = house("stage=all", "brew.heat=80")  # the file it writes does not depend on the heat
    assert "brew: replacing" in done.stdout
    assert "stale" not in done.stdout
    assert "pour: done already" in done.stdout


def test_a_stale_parent_has_to_be_made_again_first(house):
    assert house("stage=all").returncode == 0
    assert house("brew.steps=2").returncode == 0
    house.write(
        "stages/late.py", house.folder.joinpath("stages/pour.py").read_text().replace('("brew",)', '("serve",)')
    )
    done = house("stage=late")
    assert done.returncode == 2
    assert (
        done.stderr
        == "run first: python train.py stage=serve run=default (serve was made from an earlier brew and pour)\n"
    )


def test_a_run_can_be_copied_and_moved(house):
    assert house("stage=all", "run=a").returncode == 0
    shutil.copytree(house.folder / "runs/a", house.folder / "elsewhere/b")
    done = house("stage=all", "run=b", "runs_dir=elsewhere")
    assert done.stdout.count("done already with the same inputs") == 4


def test_a_folder_that_lacks_a_file_is_made_again(house):
    assert house("stage=all").returncode == 0
    (house.folder / "runs/default/pour/cup").unlink()
    done = house("stage=serve")
    assert "pour: runs/default/pour lacks cup, made again" in done.stdout
    assert done.returncode == 0


def test_a_folder_that_no_stage_made_is_left_alone(house):
    house.write("runs/default/brew/thesis.txt", "ten years of work")
    done = house()
    assert done.returncode == 2
    assert done.stderr.startswith("runs/default/brew was not made by a stage (it has no manifest.json): move it away")
    assert (house.folder / "runs/default/brew/thesis.txt").read_text() == "ten years of work"


def test_a_manifest_that_cannot_be_read_counts_as_nothing_done(house):
    assert house("stage=all").returncode == 0
    house.write("runs/default/brew/manifest.json", '{"schema": 1, "status": "do')
    assert house("stage=pour").stderr == "run first: python train.py stage=brew run=default\n"
    done = house()
    assert "brew: replacing runs/default/brew (its manifest cannot be read)" in done.stdout
    assert done.returncode == 0


def test_an_adapter_of_another_model_is_refused(house):
    house.write(
        "stages/pour.py", house.folder.joinpath("stages/pour.py").read_text().replace('("reward",)', '("model",)')
    )
    house.write(
        "stages/brew.py", house.folder.joinpath("stages/brew.py").read_text().replace('("data",)', '("model",)')
    )
    for name in ("torch", "numpy"):  # a stage that has a model sets their seeds
        house.write(f"{name}.py", "def manual_seed(seed): pass\nset_num_threads = manual_seed\nrandom = cuda = None\n")
    house.write("numpy.py", "class random:\n    seed = print\n")
    house.write("torch.py", "manual_seed = set_num_threads = print\nclass cuda:\n    is_initialized = bool\n")
    assert house().returncode == 0
    done = house("stage=pour", "model=big")
    assert done.returncode == 2
    assert done.stderr.startswith("model: brew of run default was made from tiny (tiny), this asks for big (big);")


def test_a_killed_stage_resumes_or_is_replaced_never_taken_for_done(house):
    for changed in (False, True):
        running = house.start("brew.steps=50", "brew.nap=0.2", f"run=k{changed}")
        log = house.folder / f"runs/k{changed}/brew/log.jsonl"
        deadline = time.monotonic() + 30
        while not (log.exists() and log.read_text().count("\n") >= 2) and time.monotonic() < deadline:
            time.sleep(0.02)
        running.kill()
        running.communicate()
        assert running.returncode == -signal.SIGKILL
        missing = house("stage=pour", f"run=k{changed}")
        assert missing.stderr == f"run first: python train.py stage=brew run=k{changed}\n"
    assert "replacing runs/kTrue/brew (brew.steps: 50 -> 2" in house("brew.steps=2", "run=kTrue").stdout


def test_two_processes_do_not_write_one_folder(house):
    running = house.start("brew.steps=100", "brew.nap=0.2")
    manifest = house.folder / "runs/default/brew/manifest.json"
    deadline = time.monotonic() + 30
    while not manifest.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    second = house("brew.steps=7")
    running.kill()
    running.communicate()
    assert second.returncode == 2
    assert (
        "runs/default/brew is being written by another process; wait for it, or choose another run=…" in second.stderr
    )
    assert f"(process {running.pid})" in second.stderr
    assert house("brew.steps=7").returncode == 0, "the lock died with its process"


def test_a_file_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": math.nan})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_row_cut_off_by_an_interruption_is_dropped_before_the_next_is_added(tmp_path):
    log = tmp_path / "log.jsonl"
    append_jsonl(log, {"step": 1})
    with log.open("a") as out:
        out.write('{"step": 2, "lo')
    assert list(read_jsonl(log)) == [{"step": 1}]
    append_jsonl(log, {"step": 2, "loss": math.nan})
    assert list(read_jsonl(log)) == [{"step": 1}, {"step": 2, "loss": None}]


def test_a_folder_is_removed_under_another_name(tmp_path):
    (tmp_path / "sft" / "adapter").mkdir(parents=True)
    (tmp_path / ".sft.old-1234").mkdir()
    remove_folder(tmp_path / "sft")
    remove_folder(tmp_path / "sft")
    assert not list(tmp_path.iterdir())


def _hold(path: Path, held: object) -> None:
    with locked(path, "busy"):
        held.set()  # type: ignore[attr-defined]
        time.sleep(60)


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", held))
    holder.start()
    assert held.wait(30)
    with pytest.raises(UserError, match=rf"busy \(process {holder.pid}\)"), locked(tmp_path / "lock", "busy"):
        pass
    holder.kill()
    holder.join()
    with locked(tmp_path / "lock", "busy"):
        pass


@pytest.mark.parametrize("name", ["a", "s0", "a-b_c.d", "0" * 100])
def test_ordinary_names_are_fine(name):
    assert safe_name("run", name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a..b", ".a", "-a", "a\n", "ä", "0" * 101, 3, None])
def test_names_that_could_leave_the_folder_are_refused(name):
    with pytest.raises(UserError):
        safe_name("run", name)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["reward.needless_call=-1", "reward.missed_call=-2"], "needless_call-1_missed_call-2"),
        (["reward.needless_call=5"], "needless_call_5"),
        (["reward.needless_call=-5"], "needless_call-5"),
        (["sft.learning_rate=1e-4", "dpo.learning_rate=1"], "sft.learning_rate_1e-4_dpo.learning_rate_1"),
        (["dpo.loss=[sigmoid,sft]"], "loss_sigmoid-sft"),
        (["data.train=../x/y.jsonl"], "train_x-y.jsonl"),
    ],
)
def test_a_point_is_called_by_its_values(overrides, name):
    assert _sweep.point_name([override.split("=")[0] for override in overrides], ["stage=dpo", *overrides]) == name


def test_what_differs_between_inputs_is_named():
    old = {"seed": 0, "sft": {"rank": 8, "same": 1}, "parents": {"sft": "a"}}
    new = {"seed": 1, "sft": {"rank": 16, "same": 1}, "parents": {"sft": "b"}, "base": "c"}
    assert _manifest.differences(old, new) == [
        "seed: 0 -> 1",
        "sft.rank: 8 -> 16",
        "parents.sft changed",
        "base changed",
    ]


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    for _ in _progress.progress(range(100), 100, "sft: rows"):
        now[0] += 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "  sft: rows 15/100, 1 min 25 s left"
    assert lines[-1] == "  sft: rows 100/100 in 1 min 40 s"
    assert len(lines) == 7


def test_numbers_of_other_libraries_become_json():
    numpy = pytest.importorskip("numpy")
    assert _files.plain({"a": numpy.float32(0.5), "b": (numpy.int64(3), math.inf)}) == {"a": 0.5, "b": [3, None]}
    with pytest.raises(TypeError, match="set is no JSON value"):
        _files.plain({"a": {1}})
