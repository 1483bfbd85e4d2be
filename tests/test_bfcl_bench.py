"""benchmarks/bfcl.py: both judges are asked the same, and each is counted; the package is not the real one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import bfcl
from tests.bfcl_cases import cases
from tests.test_bfcl_rules import OWN

# A checker that looks at how many calls there are, and a scorer that finds every second answer wrong.
PACKAGE = {
    "__init__.py": "",
    "constants/__init__.py": "",
    "constants/enums.py": "class Language:\n    PYTHON = 'python'\n",
    "constants/model_config.py": """
from types import SimpleNamespace as ModelConfig
MODEL_CONFIG_MAPPING = {"a": ModelConfig(underscore_to_dot=True), "b": ModelConfig(underscore_to_dot=False)}
""",
    "eval_checker/__init__.py": "",
    "eval_checker/ast_eval/__init__.py": "",
    "eval_checker/ast_eval/ast_checker.py": """
def ast_checker(functions, calls, wanted, language, category, model):
    assert (language, category, model) == ("python", "simple_python", "b")
    if any("surely_unknown" in given for call in calls for given in call.values()):
        raise KeyError
    return {"valid": len(calls) == len(wanted)}
""",
    "eval_checker/eval_runner.py": """
import json
from pathlib import Path
from bfcl_eval.constants.model_config import MODEL_CONFIG_MAPPING
def main(models, categories, results, scores, partial_eval):
    assert partial_eval
    for model in models:
        entry = MODEL_CONFIG_MAPPING[model]
        assert entry.is_fc_model and not entry.underscore_to_dot
        for category in categories:
            lines = Path(results, model, f"BFCL_v4_{category}_result.json").read_text().splitlines()
            ids = [json.loads(line)["id"] for line in lines]
            file = Path(scores, model, "non_live", f"BFCL_v4_{category}_score.json")
            file.parent.mkdir(parents=True)
            rows = [{"accuracy": 1 - len(ids[::2]) / len(ids)}, *({"id": each} for each in ids[::2])]
            file.write_text("".join(json.dumps(row) + chr(10) for row in rows))
""",
    "model_handler/__init__.py": "",
    "model_handler/api_inference/__init__.py": "",
    "model_handler/api_inference/openai_completion.py": "OpenAICompletionsHandler = object\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package bfcl_eval on the path of any python, whose simple_python has the rows of OWN; it has no others."""
    for name, text in PACKAGE.items():
        file = tmp_path / "bfcl_eval" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    data = tmp_path / "bfcl_eval" / "data"
    (data / "possible_answer").mkdir(parents=True)
    for category in bfcl.CATEGORIES:
        rows = OWN if category == "simple_python" else []
        for folder in (data, data / "possible_answer"):
            (folder / f"BFCL_v4_{category}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    about = tmp_path / "bfcl_eval-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: bfcl-eval\nVersion: 1.2\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_each_case_is_judged_by_both_and_what_no_known_rule_explains_is_told(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bfcl.compare(sys.executable)
    told = capsys.readouterr().out
    asked = [(row, kind, calls) for row in OWN for kind, calls in cases(row)]
    accepted = sum(kind == "as accepted" for _, kind, _ in asked)
    assert f"bfcl_eval 1.2: {len(OWN)} rows, {len(asked):,} cases" in told
    assert f"accepted calls taken as right: {accepted} by ours, {accepted} by theirs, of {accepted}" in told
    assert "unexplained" in told
    assert "tests/bfcl_rules.py says something else than theirs of 0 cases" not in told


def test_a_runs_answers_are_scored_by_both(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bfcl, "RUNS", package / "runs")
    folder = package / "runs" / "mine" / "evaluate"
    (folder / "bfcl" / "sft").mkdir(parents=True)
    outcomes = ["exact_call", "missed_call", "missed_call", "exact_call"]  # theirs: wrong, right, wrong, right
    ids = [f"multiple_{number}" for number in range(4)]
    results = "".join(json.dumps({"id": each}) + "\n" for each in ids)
    (folder / "bfcl" / "sft" / "BFCL_v4_multiple_result.json").write_text(results)
    (folder / "metrics.json").write_text(json.dumps({"sft": {"bfcl": {"multiple": {"n": 4, "accuracy": 0.5}}}}))
    rows = [{"id": each, "model": "sft", "outcome": outcome} for each, outcome in zip(ids, outcomes, strict=True)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bfcl.score(sys.executable, "mine")
    assert "| sft | multiple | 4 | 50.0 % | 50.0 % | 1 | 1 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("python", "run", "said"),
    [
        (sys.executable, None, "bfcl_eval is not installed"),
        ("no/python", None, "no/python: No such file or directory"),
        (sys.executable, "nowhere", "has no results; make them: python train.py stage=evaluate run=nowhere"),
    ],
)
def test_what_is_missing_is_one_line(python: str, run: str | None, said: str) -> None:
    words = [sys.executable, "-m", "benchmarks.bfcl", python, *(["--run", run] if run else [])]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
