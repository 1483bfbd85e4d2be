"""stage=report: runs found, held against each other, and shown; every number of the page is in its metrics.json."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.transcript import Expected
from stages import _runs
from stages._charts import interval, percent, points
from stages._errors import UserError
from stages._files import write_json, write_jsonl, write_text
from stages._job import execute
from stages._manifest import SCHEMA
from stages._report import RATES, SIDES, probability
from stages._runs import against, configuration, named
from stages._runs_report import findings, listed, render
from stages._schema import block_class
from stages._settings import RootConfig, Settings
from tests.test_chat import CHROMIUM, Browser
from tests.test_layout import HEAVY
from tests.test_report import CALL, EVIL, RIGHT, Page, evaluated, mixed, page, request

ROOT = Path(__file__).resolve().parents[1]


def said(false: set[int], missed: set[int]) -> list[str]:
    """What a model says to 12 requests that need a call and 12 that need a question."""
    calls = ["no" if number in missed else RIGHT for number in range(12)]
    return [*calls, *(RIGHT if number in false else "Which one?" for number in range(12))]


def made(folder: Path, run: str, false: set[int], missed: set[int], seed: int = 0, beta: float = 0.1) -> Path:
    """A run of sft, dpo and an evaluation of both, as its files are; sft calls for everything."""
    requests = [request(n, CALL, "needed", unseen=n < 4) for n in range(12)]
    requests += [request(n, Expected("ask"), "vague", unseen=n < 14) for n in range(12, 24)]
    metrics, rows, predictions = evaluated(requests, {"sft": [RIGHT] * 24, "dpo": said(false, missed)})
    above = {"sft": (), "dpo": ("sft",), "evaluate": ("sft", "dpo")}
    for stage, parents in above.items():
        place = folder / run / stage
        config = {"stage": "pipeline", "run": run, "seed": seed, "dpo": {"beta": beta}, "sft": {"rank": 16}}
        write_text(place / "config.yaml", yaml.safe_dump(config))
        manifest = {
            "schema": SCHEMA, "stage": stage, "status": "done", "digest": f"{run}{stage}", "seconds": 61.5,
            "parents": {one: {"path": one, "digest": f"{run}{one}"} for one in parents}, "outputs": {},
            "overrides": ["stage=pipeline", f"run={run}", f"seed={seed}"], "seeds": {"seed": seed},
            "facts": {"data": "d" * 64},
            "inputs": {"version": 1, "seed": seed, "parents": {}, **({} if stage == "evaluate" else {stage: {}})},
            "model": {"id": "assets/tiny", "digest": "b" * 64},
        }  # fmt: skip
        write_json(place / "manifest.json", manifest)
        write_json(place / "metrics.json", metrics if stage == "evaluate" else {"rows_kept": 1234, "steps": 77})
    write_jsonl(folder / run / "evaluate/requests.jsonl", rows)
    write_jsonl(
        folder / run / "evaluate/predictions.jsonl", [row for each in predictions.values() for row in each.values()]
    )
    return folder / run


def settings_of(folder: Path, *runs: str, run: str = "cmp") -> Settings:
    blocks = {name: block_class(name)() for name in ("model", "reward", "tracking")}
    blocks |= {"data": block_class("data")(format="world"), "report": block_class("report")(runs=list(runs) or None)}
    return Settings("report", RootConfig(run=run, runs_dir=str(folder)), blocks)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """a: 3 false and 1 missed; b: another seed, 7 false, 2 of them shared; c: another beta too, and as a otherwise."""
    made(tmp_path, "a", {0, 1, 2}, {0})
    made(tmp_path, "b", {1, 2, 3, 4, 5, 6, 7}, {0}, seed=1)
    made(tmp_path, "c", {0, 1, 2}, {0, 1}, seed=2, beta=0.3)
    return tmp_path


def compared(folder: Path, *names: str) -> dict[str, Any]:
    return _runs.compare(named(settings_of(folder, *names)))


def test_the_last_models_are_compared_request_by_request(runs: Path) -> None:
    first, second = compared(runs, "a", "b", "c")["against_first"]
    assert (first["first"], first["second"], first["models"], first["same_requests"]) == (
        "a",
        "b",
        ["dpo", "dpo"],
        True,
    )
    false = first["paired"]["false_tool_call_rate"]
    assert (false["only_first"], false["only_second"], false["n"]) == (1, 5, 12)
    assert false["p"] == 2 * (1 + 6) / 2**6
    assert false["difference"] == 4 / 12
    missed = second["paired"]["missed_call_rate"]
    assert (missed["only_first"], missed["only_second"], missed["p"]) == (0, 1, 1.0)


def test_other_requests_are_said_to_be_other_and_compared_by_intervals_alone(runs: Path) -> None:
    path = runs / "b/evaluate/requests.jsonl"
    path.write_text(path.read_text().replace('"hello"', '"good day"', 1))
    found = compared(runs, "a", "b")
    (each,) = found["against_first"]
    assert (each["same_requests"], each["requests"], each["requests_alike"], each["paired"]) == (
        False,
        [24, 24],
        23,
        None,
    )
    assert each["overlap"] == dict.fromkeys(_runs.OVER, True)
    lines = findings(found)
    assert "a -> b: dpo, by intervals alone: of 24 and 24 requests 23 are the same" in lines
    assert "  false calls: intervals overlap" in lines
    assert not [line for line in lines if "McNemar" in line]


def test_fewer_of_the_same_requests_are_not_the_same_requests() -> None:
    requests = [request(n, CALL) for n in range(12)]
    whole = evaluated(requests, {"dpo": [RIGHT] * 12})
    part = evaluated(requests[:3], {"dpo": ["no"] * 3})
    found = against(part, whole)
    assert (found["same_requests"], found["requests_alike"], found["paired"]) == (False, 3, None)
    assert found["overlap"] == {"false_tool_call_rate": None, "missed_call_rate": False, "exact_call_rate": False}


def test_runs_that_differ_in_their_seed_alone_are_a_mean_and_a_range(runs: Path) -> None:
    (group,) = compared(runs, "a", "b", "c")["seeds"]
    assert (group["runs"], group["seeds"], list(group["models"])) == (["a", "b"], [0, 1], ["sft", "dpo"])
    assert group["models"]["dpo"]["false_tool_call_rate"] == pytest.approx(
        {"mean": 5 / 12, "low": 3 / 12, "high": 7 / 12}
    )
    assert group["models"]["dpo"]["unseen_tools"]["false_tool_call_rate"] == {"mean": 0.75, "low": 0.5, "high": 1.0}


def test_runs_of_one_seed_or_of_other_data_are_no_seeds_of_one_thing(runs: Path) -> None:
    made(runs, "twin", {0}, set())
    assert compared(runs, "a", "twin")["seeds"] == []
    path = runs / "b/evaluate/manifest.json"
    path.write_text(path.read_text().replace("d" * 64, "e" * 64))
    assert compared(runs, "a", "b")["seeds"] == []


def test_settings_that_differ_are_listed_and_idle_ones_are_not(runs: Path) -> None:
    path = runs / "a/evaluate/config.yaml"
    path.write_text(path.read_text() + "merge: {dtype: bf16}\n")  # no stage of the run depends on it
    assert compared(runs, "a", "b", "c")["differences"] == {
        "seed": {"a": "0", "b": "1", "c": "2"},
        "dpo.beta": {"a": "0.1", "b": "0.1", "c": "0.3"},
    }


def test_a_setting_that_stages_of_one_run_had_different_says_of_which(runs: Path) -> None:
    path = runs / "a/dpo/config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 5"))
    assert configuration(named(settings_of(runs, "a", "b"))[0])["seed"] == "0 (sft, evaluate); 5 (dpo)"


class Cells(HTMLParser):
    """The rows of each table of a page, cell by cell, a space between the parts of a cell."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[list[list[str]]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.inside = self.inside or tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside and data.strip():
            cell = f"{self.tables[-1][-1][-1]} {' '.join(data.split())}"
            self.tables[-1][-1][-1] = cell.strip()


def test_the_rates_of_an_evaluations_page_are_those_of_its_metrics() -> None:
    metrics = mixed()[0]
    parts = [
        metrics,
        *({name: each[part] for name, each in metrics.items()} for part in ("unseen_tools", "seen_tools")),
    ]
    shown = [table for table in Cells(page(mixed())).tables if table[0] == ["", *metrics]][: len(parts)]
    for table, part in zip(shown, parts, strict=True):
        assert [row[1:] for row in table[1:]] == [
            [f"{percent(each[rate.name])} {interval(each[f'{rate.name}_ci'])}".strip() for each in part.values()]
            for rate in RATES
        ]
    by_kind = {row[0]: row for table in Cells(page(mixed())).tables for row in table if row[0] in ("needed", "vague")}
    for kind, rates in (("vague", SIDES[0][3]), ("needed", SIDES[1][3])):
        numbers = [percent(each["by_kind"][kind][rate]) for rate in rates for each in metrics.values()]
        assert by_kind[kind] == [kind, "12", *numbers]


def test_every_number_of_the_page_is_that_of_metrics_json(runs: Path) -> None:
    execute("report", settings_of(runs, "a", "b", "c"))
    found = json.loads((runs / "cmp/report/metrics.json").read_text())
    text = (runs / "cmp/report/report.html").read_text()
    all_rates, tests, seeds, settings, work = Cells(text).tables

    def rate(fields: dict[str, Any], name: str) -> str:
        return f"{percent(fields[name])} {interval(fields[f'{name}_ci'])}"

    rates = list(_runs.RATES)
    assert all_rates[2:] == [
        [run, model, *(rate(part, name) for part in (fields, fields["unseen_tools"]) for name in rates)]
        for run, about in found["runs"].items()
        for model, fields in about["models"].items()
    ]
    assert all_rates[3][2] == "25.0 % [8.9, 53.2]", "3 of 12, and Wilson's interval by hand"
    assert tests[1:] == [
        [
            each["second"],
            "dpo, request by request",
            *(
                f"{points(test['difference'], test['interval'])} of {test['n']}: {test['only_first']} only in a,"
                f" {test['only_second']} only in {each['second']} McNemar {probability(test['p'])}".replace("-", "−")
                for test in each["paired"].values()
            ),
        ]
        for each in found["against_first"]
    ]
    (group,) = found["seeds"]
    assert seeds[2:] == [
        [
            model,
            *(
                f"{percent(part[name]['mean'])} {100 * part[name]['low']:.1f} to {100 * part[name]['high']:.1f}"
                for part in (fields, fields["unseen_tools"])
                for name in rates
            ),
        ]
        for model, fields in group["models"].items()
    ]
    assert settings[1:] == [[field, *values.values()] for field, values in found["differences"].items()]
    assert work[1:] == [
        ["sft", *["1 min 01 s 1,234 rows, 77 steps"] * 3],
        ["dpo", *["1 min 01 s 1,234 rows, 77 steps"] * 3],
        ["in all", *["2 min 03 s"] * 3],
    ]
    assert [about["seconds"] for about in found["runs"].values()] == [123.0] * 3
    lead = "24 held-out requests: 12 need a call, 12 do not; 6 (4 and 2) are over tools never seen in training."
    assert lead in " ".join(" ".join(Page(text).text).split())


def test_the_plot_holds_the_models_of_all_runs_in_the_colour_of_their_run(runs: Path) -> None:
    text = render(compared(runs, "a", "b"), {"run": "cmp"})
    assert [name for name in ("a sft, b sft", "a dpo", "b dpo") if f">{name}</text>" in text] == [
        "a sft, b sft", "a dpo", "b dpo",
    ]  # fmt: skip
    dots = re.findall(r'class="dot"[^>]*--h:(\d+)"><title>(\w) dpo', text)
    marks = re.findall(r'class="point" style="--h:(\d+)">(\w)<', text)
    assert sorted(dots) == sorted(set(marks))
    assert len({hue for hue, _ in dots}) == 2


def test_a_comparison_is_done_until_one_of_its_runs_is_made_anew(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(runs, "a", "b")
    execute("report", settings)
    execute("report", settings)
    again = capsys.readouterr().out
    assert "report: done already with the same inputs" in again
    assert again.count("a -> b: dpo, request by request") == 2, "what was found is told each time"
    path = runs / "b/dpo/manifest.json"
    path.write_text(path.read_text().replace("61.5", "99.5"))
    execute("report", settings)
    assert json.loads((runs / "cmp/report/metrics.json").read_text())["runs"]["b"]["seconds"] == 161.0


def test_names_and_paths_are_taken_and_like_names_are_told_apart(runs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(runs / "a", elsewhere / "a")
    assert [run.name for run in named(settings_of(runs, "b", str(elsewhere / "a")))] == ["b", "a"]
    found = compared(runs, "a", str(elsewhere / "a"))
    assert list(found["runs"]) == [str(runs / "a"), str(elsewhere / "a")]


def refused(folder: Path, *names: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        execute("report", settings_of(folder, *names))
    assert not (folder / "cmp").exists()
    return caught.value.lines


def test_each_run_that_cannot_be_compared_is_told_with_what_to_run(runs: Path) -> None:
    shutil.rmtree(runs / "b/evaluate")
    made(runs, "first", set(), set())
    path = runs / "c/dpo/manifest.json"
    path.write_text(path.read_text().replace('"cdpo"', '"another"'))
    assert refused(runs, "a", "b", "c", "firts", "a") == (
        f"report.runs: b: run first: python train.py stage=evaluate run=b seed=1 runs_dir={runs}",
        f"report.runs: c: run first: python train.py stage=evaluate run=c seed=2 runs_dir={runs}"
        " (evaluate was made from an earlier dpo)",
        f"report.runs: firts: no such run in {runs}; did you mean first? (run first: python train.py stage=pipeline"
        f" run=firts runs_dir={runs})",
        "report.runs: a: named twice",
    )


def test_fewer_than_two_runs_are_refused_with_those_there_are(runs: Path) -> None:
    line = f"report.runs: name two runs or more, as in report.runs=[a,b] (evaluated in {runs}: a, b, c)"
    assert refused(runs) == refused(runs, "a") == (line,)


def test_a_name_that_is_no_folders_is_refused(runs: Path) -> None:
    assert "cannot be a folder's name" in refused(runs, "a", "..")[0]


def test_what_runs_are_called_and_hold_is_shown_and_never_obeyed(runs: Path) -> None:
    found = json.loads(json.dumps(compared(runs, "a", "b")).replace('"a"', json.dumps(f"a{EVIL}")))
    found["differences"][EVIL] = dict.fromkeys(found["runs"], EVIL)
    text = render(found, {"run": EVIL, "command": EVIL})
    parsed = Page(text)
    assert not {"script", "img", "link", "a"} & set(parsed.tags)
    assert not [each for each in parsed.attributes if each[1] in ("src", "href") or each[1][:2] == "on"]
    assert not re.search(r"https?:|//|@import|url\(", text)
    assert sum("alert(1)" in each for each in parsed.text) > 5
    assert all(line.isprintable() for line in findings(found))


def test_many_runs_are_counted_in_the_title() -> None:
    assert listed(["a", "b"]) == "a and b"
    assert listed([f"r{n}" for n in range(7)]) == "7 runs"


def test_the_command_compares_runs_by_name(runs: Path) -> None:
    words = ("stage=report", "report.runs=[a,b]", "run=cmp", f"runs_dir={runs}")
    done = subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"report: {runs}/cmp/report/report.html")
    words = ("stage=report", "report.runs=[a,d]", f"runs_dir={runs}")
    done = subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("report.runs: d: no such run in")
    assert done.stderr.count("\n") == 1


def test_nothing_heavy_but_the_paired_test_is_loaded_to_compare(runs: Path) -> None:
    code = f"""
import sys
from stages._job import execute
from stages._refusals import compose, settings_of
words = ["stage=report", "report.runs=[a,b]", "run=cmp", "runs_dir={runs}"]
from stages._schema import publish
publish()
execute("report", settings_of(*compose(words), words))
sys.exit(", ".join(sorted({set(HEAVY) - {"scipy"}} & set(sys.modules))) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (runs / "cmp/report/report.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_no_page_is_wider_than_a_desktop_or_a_phone(runs: Path, tmp_path: Path) -> None:
    made(runs, f"long{'-name' * 19}", {0}, {3}, seed=4)
    execute("report", settings_of(runs, "a", "b", "c", f"long{'-name' * 19}"))
    (tmp_path / "evaluate.html").write_text(page(mixed(), command="word" * 90))
    browser = Browser(tmp_path / "profile")
    try:
        browser("Page.enable")
        for place in (runs / "cmp/report/report.html", tmp_path / "evaluate.html"):
            for width in (1280, 400):
                browser(
                    "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
                )
                browser("Page.navigate", url=place.as_uri())
                browser.until("document.readyState === 'complete' && !!document.querySelector('footer')")
                assert browser.value("innerWidth") == width
                assert browser.value("document.documentElement.scrollWidth") <= width
    finally:
        browser.close()
