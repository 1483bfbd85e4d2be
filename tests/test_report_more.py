"""What evaluate/report.html says beside the rates: trade-off, acts, worst answers, curves and lineage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from data.transcript import Expected
from stages import _report
from stages._both_errors import plot
from stages._cases import found_in, sum_of, worst
from stages._files import write_json, write_jsonl
from stages._history import history, logged
from stages._manifest import SCHEMA
from stages._settings import RootConfig, Settings
from tests.test_report import CALL, EVIL, RIGHT, Page, evaluated, mixed, page, request


def rates(false: float | None, missed: float | None) -> dict[str, Any]:
    def around(rate: float | None) -> list[float] | None:
        return None if rate is None else [max(0.0, rate - 0.05), min(1.0, rate + 0.05)]

    fields = {"false_tool_call_rate": false, "missed_call_rate": missed}
    return fields | {f"{name}_ci": around(rate) for name, rate in fields.items()}


def test_models_that_chose_alike_share_a_matrix_on_the_page() -> None:
    said = Page(page(mixed())).text
    assert "dpo, merged" in said
    assert said.count("base, sft") == 0


def test_the_worst_answers_are_wrong_ones_with_the_fewest_points_kind_by_kind() -> None:
    requests = [{"id": f"{n}", "kind": kind} for n, kind in enumerate("aabba")]
    points = (-10.0, -9.0, -3.0, -8.0, 10.0)
    outcomes = ("missed_call", "malformed_call", "wrong_answer", "needless_call", "exact_call")
    rows = {f"{n}": {"points": points[n], "outcome": outcomes[n]} for n in range(5)}
    assert worst(requests, rows) == ["0", "3", "1", "2"]
    assert worst(requests, rows, count=2, but=["0"]) == ["1", "3"]


def test_why_an_answer_scored_as_it_did_is_its_parts_and_what_the_judge_found() -> None:
    half = '<tool_call>\n{"name": "look", "arguments": {"q": "c"}}\n</tool_call>'
    _, _, predictions = evaluated([request(1, CALL, text="hello")], {"sft": [half]})
    row = predictions["sft"]["r001"]
    assert sum(row["parts"].values()) == row["points"]
    assert sum_of(row) == "-4: right_tool_wrong_arguments -2, ungrounded -2"
    assert "act call, parsed yes, known tools yes, schema valid yes, names right yes, argument f1 0.00" in found_in(row)
    assert "ungrounded 1" in found_in(row)


def test_the_page_shows_the_worst_answers_of_the_last_model_that_are_not_shown_above() -> None:
    requests = [request(n, Expected("ask"), "vague") for n in range(14)]
    text = page(evaluated(requests, {"sft": [RIGHT] * 14, "dpo": [RIGHT] * 13 + ["Which one?"]}))
    above, below = text.split("The worst answers of dpo")
    ids = re.compile(r"<code>(r\d+)</code></header>")
    assert len(ids.findall(below)) == 4
    assert not set(ids.findall(above)) & set(ids.findall(below))
    assert below.count("−10: needless_call −10") == 4


def test_the_plot_has_a_point_a_model_and_says_who_lies_beyond_it() -> None:
    models = {"base": rates(0.0, 1.0), "sft": rates(0.5, 0.01), "dpo": rates(0.1, 0.02), "merged": rates(0.1, 0.02)}
    found = plot(models)
    assert found
    assert found.beyond == ["base"]
    assert found.svg.count('class="dot"') == 2
    assert found.svg.count('class="cross"') == 6
    assert ">dpo, merged</text>" in found.svg
    assert "dpo; merged: false 10.0 %, missed 2.0 %" in found.svg


def test_models_that_never_call_are_plotted_where_no_other_is_there() -> None:
    found = plot({"base": rates(0.0, 1.0)})
    assert found
    assert found.beyond == []
    assert found.svg.count('class="dot"') == 1


def test_there_is_no_plot_without_both_rates() -> None:
    assert plot({"sft": rates(0.5, None), "dpo": rates(None, 0.1)}) is None


def run_of(folder: Path) -> tuple[Path, Settings]:
    """A run of sft, pairs, dpo, and an evaluation that is under way; kto was made and is not part of it."""
    known: dict[str, str] = {}
    above = {"sft": (), "pairs": ("sft",), "dpo": ("sft", "pairs"), "kto": ("sft",), "evaluate": ("sft", "dpo")}
    for stage, parents in above.items():
        known[stage] = f"{stage:0<64}"
        write_json(
            folder / "runs/r" / stage / "manifest.json",
            {
                "schema": SCHEMA, "stage": stage, "status": "done", "digest": known[stage], "seconds": 75.5,
                "parents": {one: {"path": one, "digest": known[one]} for one in parents},
                "overrides": [f"stage={stage}", "run=r"],
                "model": {"id": "assets/tiny", "digest": "b" * 64},
            },
        )  # fmt: skip
    write_json(folder / "runs/r/dpo/metrics.json", {"rows_kept": 2247, "steps": 281, "margin": 1.5})
    return folder / "runs/r/evaluate", Settings("evaluate", RootConfig(run="r", runs_dir=str(folder / "runs")), {})


def test_the_lineage_is_what_the_manifests_say(tmp_path: Path) -> None:
    found = history(*run_of(tmp_path))
    assert [stage.place for stage in found.stages] == ["sft", "pairs", "dpo"]
    dpo = found.stages[-1]
    assert dpo.made_from == {"sft": "sft000000000", "pairs": "pairs0000000"}
    assert (dpo.digest, dpo.time) == ("dpo000000000", "1 min 15 s")
    assert dpo.work == {"rows": 2247, "steps": 281}
    assert dpo.command == "python train.py stage=dpo run=r"
    assert found.base == "assets/tiny, digest bbbbbbbbbbbb"
    assert found.curves == []


def test_curves_are_of_what_was_logged_over_steps_and_the_first_ones_say_how_it_went(tmp_path: Path) -> None:
    folder, settings = run_of(tmp_path)
    log = folder.parent / "dpo/log.jsonl"
    rows = [{"step": n, "epoch": n / 9, "zeta": 1, "loss": 1 / n, "num_tokens": 9, "ok": True} for n in range(1, 1001)]
    write_jsonl(log, [*rows, {"step": 1000, "eval_loss": 0.5, "eval_runtime": 2.0}, {"loss": 7.0}])
    series = logged(log)
    assert list(series) == ["zeta", "loss"]
    assert len(series["loss"]) == 400
    assert series["loss"][0] == (1, 1.0)
    (curves,) = history(folder, settings).curves
    assert curves.place == "dpo"
    assert ["loss, by step" in svg for svg in (*curves.first, *curves.more)] == [True, False]
    assert [len(curves.first), len(curves.more)] == [1, 1]


def test_the_page_shows_curves_and_lineage_escaped(tmp_path: Path) -> None:
    folder, settings = run_of(tmp_path)
    write_jsonl(folder.parent / "sft/log.jsonl", [{"step": step, "loss": 0.5, EVIL: 1.0 / step} for step in (1, 2)])
    text = _report.render(*mixed(), {"run": "r"}, None, history(folder, settings))
    parsed = Page(text)
    said = " ".join(" ".join(parsed.text).split())
    assert "Where the models come from The base model is assets/tiny, digest bbbbbbbbbbbb" in said
    assert "pairs pairs0000000" in said
    assert "python train.py stage=dpo run=r" in said
    assert not {"script", "img"} & set(parsed.tags)
    assert not [each for each in parsed.attributes if each[1][:2] == "on"]
    assert parsed.tags.count("svg") == 4, "bars, trade-off, two curves"


def test_an_answer_without_end_and_one_in_markdown_are_shown_as_text_and_cut() -> None:
    evil = ("x" * 100_000, "![seen](https://example.org/pixel.png) <script>alert(1)</script> [a](javascript:alert(2))")
    requests = [request(n, Expected("answer", text="2"), "sum") for n in range(2)]
    text = page(evaluated(requests, {"sft": ["2", "2"], "dpo": list(evil)}))
    parsed = Page(text)
    assert len(text) < 60_000
    assert not {"script", "img", "a"} & set(parsed.tags)
    assert any("(98,800 more characters)" in each for each in parsed.text)
    assert any(each == evil[1] for each in parsed.text)
