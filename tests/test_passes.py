"""Ways to ask beside the greedy one: tools shown otherwise, and sampled answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from data import dialects
from data.dialects import native
from data.transcript import Expected, Message, Request, Tool, ToolCall
from stages import _asking, _passes, _report, _summary, evaluate
from stages._model import ModelConfig, load_tokenizer
from stages._renderings import NAMES, drawn, in_order, lowered, rendered
from stages._sampling import Completion, prompt_of
from tests.test_evaluate import Bench, habit
from tests.test_report import Page, mixed
from tests.toys import toy_checkpoint

TINY = ModelConfig(name="tiny", path="assets/tiny")
PLACE = {"type": "string", "description": "Name of a Place.", "enum": ["Oslo", "Rome"], "default": "Rome"}
SCHEMA = {"type": "object", "properties": {"where": PLACE, "day": {"type": "string"}}, "required": ["where"]}
TOOLS = tuple(Tool(name, f"Gets The {name}.", SCHEMA) for name in ("Weather", "Tides", "Snow", "Roads"))
ASKED = Request("r1", "k", TOOLS, (Message("user", "Tides in Oslo?"),), Expected("answer"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(TINY)


@pytest.mark.parametrize("name", ["native", "hermes", "json", "router", "pythonic"])
def test_every_way_shows_the_same_tools_in_another_prompt(tokenizer: Any, name: str) -> None:
    ways = {way: rendered(ASKED, way, seed=1) for way in NAMES}
    prompts = {way: prompt_of(tokenizer, dialects.get(name), request) for way, request in ways.items()}
    assert len(NAMES) >= 4
    assert len(set(prompts.values())) == len(NAMES)
    for request in ways.values():
        assert sorted(tool.name for tool in request.tools) == ["Roads", "Snow", "Tides", "Weather"]
        assert (request.id, request.messages, request.expected) == (ASKED.id, ASKED.messages, ASKED.expected)
        for tool in request.tools:
            assert tool.parameters["required"] == ["where"]
            assert tool.parameters["properties"]["where"]["enum"] == ["Oslo", "Rome"]


def test_each_way_changes_what_it_says_and_no_more() -> None:
    assert rendered(ASKED, "usual", 1) is ASKED
    assert rendered(ASKED, "reversed", 1).tools == TOOLS[::-1]
    in_alphabet = rendered(ASKED, "sorted_keys", 1).tools
    assert in_alphabet == TOOLS
    assert list(in_alphabet[0].parameters) == ["properties", "required", "type"]
    assert list(in_alphabet[0].parameters["properties"]) == ["day", "where"]
    (weather, *_) = rendered(ASKED, "lower_case", 1).tools
    assert (weather.name, weather.description) == ("Weather", "gets the weather.")
    assert weather.parameters["properties"]["where"] == PLACE | {"description": "name of a place."}
    assert list(weather.parameters["properties"]) == ["where", "day"]


def test_a_random_order_is_drawn_from_seed_and_request() -> None:
    def order(seed: int, id_: str) -> list[str]:
        request = Request(id_, "k", TOOLS, ASKED.messages, ASKED.expected)
        return [tool.name for tool in rendered(request, "shuffled", seed).tools]

    assert order(1, "r1") == order(1, "r1")
    assert len({tuple(order(seed, "r1")) for seed in range(20)}) > 5
    assert len({tuple(order(1, f"r{number}")) for number in range(20)}) > 5


def test_arguments_with_the_names_of_keywords_are_no_descriptions_and_no_values() -> None:
    odd = {"description": {"type": "string", "description": "AN Argument"}, "default": {"description": "ANOTHER"}}
    assert lowered({"properties": odd, "default": ["AS It Is"]}) == {
        "properties": {
            "description": {"type": "string", "description": "an argument"},
            "default": {"description": "another"},
        },
        "default": ["AS It Is"],
    }
    assert json.dumps(in_order({"b": [{"d": 1, "c": 2}], "a": 3})) == '{"a": 3, "b": [{"c": 2, "d": 1}]}'


def test_requests_for_other_ways_are_drawn_by_seed_from_those_that_offer_tools() -> None:
    requests = [
        Request(f"r{number}", "k", TOOLS if number % 2 else (), ASKED.messages, ASKED.expected) for number in range(40)
    ]
    places = drawn(requests, 8, seed=1)
    assert len(set(places)) == 8
    assert places == sorted(places) == drawn(requests, 8, seed=1)
    assert all(place % 2 for place in places)
    assert places != drawn(requests, 8, seed=2)
    assert drawn(requests, 100, seed=1) == list(range(1, 40, 2))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def asking(bench: Bench, said: Callable[[str, Request, str, int], str]) -> list[tuple[str, str]]:
    """Let the models of a bench answer `said(model, request, way, number)`; returns who is asked in which way."""
    asked: list[tuple[str, str]] = []

    def answer(model: _asking.Model, requests: Sequence[Request], way: str = "", **how: Any) -> Any:
        asked.append((model.name, way))
        assert set(how) == ({"n", "temperature"} if "samples" in way else set() if way else {"p_call"})
        assert how.get("temperature", 0.7) == 0.7
        return [
            [Completion(said(model.name, one, way, n), -1.0, 9, False) for n in range(how.get("n", 1))]
            for one in requests
        ]

    bench.monkeypatch.setattr(_asking.Model, "answer", answer)
    return asked


def by_order(model: str, request: Request, way: str, number: int) -> str:
    """A model that calls whatever is asked where the tool for the weather does not come first."""
    if request.tools[0].name == "get_weather":
        return habit("dpo", request)
    return native.write([ToolCall("get_weather", {"city": request.messages[0].content[11:-1]})])


def test_what_a_model_does_otherwise_when_tools_are_shown_otherwise_is_its_format_sensitivity(bench: Bench) -> None:
    asked = asking(bench, by_order)
    job = bench.job(stages=("sft",), renderings=4)
    metrics = evaluate.run(job)
    ways = ["tools reversed", "tools sorted_keys", "tools lower_case"]
    assert asked == [(model, way) for model in ("base", "sft") for way in ("", *ways)]
    found = metrics["sft"]["renderings"]
    assert list(found) == ["usual", "reversed", "sorted_keys", "lower_case"]
    assert [each["false_tool_call_rate"] for each in found.values()] == [0.0, 1.0, 0.0, 0.0]
    assert [each["exact_call_rate"] for each in found.values()] == [1.0] * 4
    assert found["usual"] == {name: metrics["sft"][name] for name in found["usual"]}
    assert metrics["sft"]["format_sensitivity"] == {
        "false_tool_call_rate": 1.0,
        "missed_call_rate": 0.0,
        "exact_call_rate": 0.0,
    }
    rows = bench.rows("renderings.jsonl")
    assert [(row["model"], row["rendering"]) for row in rows][::10] == [
        (model, way) for model in ("base", "sft") for way in NAMES[1:4]
    ]
    assert job.notes["renderings"] == {"names": list(NAMES[:4]), "requests": 10}


def test_other_ways_are_shown_to_a_draw_of_the_requests(bench: Bench) -> None:
    asking(bench, by_order)
    metrics = evaluate.run(bench.job(stages=("sft",), renderings=2, rendering_requests=4))
    assert {each["n"] for each in metrics["sft"]["renderings"].values()} == {4}
    assert metrics["sft"]["n"] == 10
    drawn_first = {row["id"] for row in bench.rows("renderings.jsonl")}
    other = bench.job(stages=("sft",), renderings=2, rendering_requests=4)
    object.__setattr__(other.settings.root, "seed", 5)
    evaluate.run(other)
    assert {row["id"] for row in bench.rows("renderings.jsonl")} == drawn_first, "seeds are compared on the same ones"


def test_none_of_it_happens_unless_it_is_asked_for(bench: Bench) -> None:
    for config in ({}, {"renderings": 1}):
        asked = asking(bench, by_order)
        metrics = evaluate.run(bench.job(stages=("sft",), **config))
        assert asked == [("base", ""), ("sft", "")]
        assert not {"renderings", "format_sensitivity", "sampled"} & set(metrics["sft"])
    folder = bench.folder / "runs/mine/evaluate"
    assert not (folder / "renderings.jsonl").exists()
    assert not (folder / "sampled.jsonl").exists()
    page = (folder / "report.html").read_text()
    assert "Tools shown in other ways" not in page
    assert "Sampled answers" not in page


def wavering(model: str, request: Request, way: str, number: int) -> str:
    """A model whose second sample calls for everything, and whose third says nothing useful at all."""
    return {0: habit("dpo", request), 1: habit("sft", request), 2: "Hm."}[number]


def test_sampled_answers_have_the_mean_and_the_range_of_each_rate(bench: Bench) -> None:
    asked = asking(bench, wavering)
    metrics = evaluate.run(bench.job(stages=("sft",), sampled=3))
    assert asked == [(model, way) for model in ("base", "sft") for way in ("", "3 samples")]
    found = metrics["sft"]["sampled"]
    assert (found["answers"], found["temperature"]) == (3, 0.7)
    assert found["false_tool_call_rate"] == pytest.approx(1 / 3)
    assert found["false_tool_call_rate_range"] == [0.0, 1.0]
    assert found["exact_call_rate"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert found["balanced_accuracy_range"] == [0.5, 1.0]
    assert found["argument_match_accuracy"] == 1.0  # over the sets that have a valid call
    rows = bench.rows("sampled.jsonl")
    assert [(row["model"], row["answer"]) for row in rows][::10] == [(m, n) for m in ("base", "sft") for n in (1, 2, 3)]
    assert [row["attempt"] for row in rows if row["model"] == "sft" and row["id"] == "r1"] == [False, True, False]


def test_passes_that_were_made_before_an_interruption_are_not_made_again(bench: Bench) -> None:
    def until(model: str, way: str) -> Callable[[str, Request, str, int], str]:
        def said(name: str, request: Request, asked: str, number: int) -> str:
            if (name, asked) == (model, way):
                raise KeyboardInterrupt
            return by_order(name, request, asked, number)

        return said

    config = {"renderings": 3, "sampled": 2}
    asking(bench, until("sft", "tools sorted_keys"))
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(bench.job(stages=("sft",), **config))
    asked = asking(bench, by_order)
    resumed = evaluate.run(bench.job(stages=("sft",), resuming=True, **config))
    assert asked == [("sft", "tools sorted_keys"), ("sft", "2 samples")]
    files = {name: bench.rows(f"{name}.jsonl") for name in ("predictions", "renderings", "sampled")}
    asking(bench, by_order)
    assert evaluate.run(bench.job(stages=("sft",), **config)) == resumed
    assert {name: bench.rows(f"{name}.jsonl") for name in files} == files


def test_the_page_and_the_terminal_show_both() -> None:
    found, rows, predictions = mixed()
    rates = ("n", "n_call", "n_no_call", *_passes.ERRORS)
    for fields in found.values():
        usual = {name: fields[name] for name in rates}
        fields["renderings"] = {"usual": usual, "sorted_keys": usual | {"missed_call_rate": None}}
        fields["format_sensitivity"] = dict.fromkeys(_passes.ERRORS, 0.125)
        names = (*_passes.ERRORS, "answer_accuracy")
        fields["sampled"] = {"answers": 3, "temperature": 0.7} | dict.fromkeys(names, 0.5)
        fields["sampled"] |= {f"{name}_range": [0.25, 0.75] for name in names}
    seen = " ".join(" ".join(Page(_report.render(found, rows, predictions, {"run": "s0"})).text).split())
    assert "n usual sorted keys largest difference base: false calls 12 0.0 % 0.0 % 12.5 %" in seen
    assert "dpo: missed calls 12 8.3 % - 12.5 %" in seen
    assert (
        "Mean and range of 3 answers a request at T = 0.7. false calls missed calls exact calls right answers" in seen
    )
    assert "sft 50.0 % [25.0, 75.0] 50.0 % [25.0, 75.0]" in seen
    assert "renderings.jsonl those of that name, sampled.jsonl those of that name" in seen
    lines = [" ".join(line.split()) for line in _summary.findings(found, rows, predictions)]
    assert "dpo: missed calls 12 8.3 % - 12.5 %" in lines
    assert "Sampled answers. Mean and range of 3 answers a request at T = 0.7." in lines


def test_a_real_model_is_asked_in_every_way(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    config = {"renderings": len(NAMES), "rendering_requests": 3, "sampled": 2, "limit": 4, "max_new_tokens": 6}
    job = bench.job(stages=(), ability_requests=0, models=["base"], **config)
    job.settings.blocks["model"].path = str(toy_checkpoint(tmp_path / "base"))  # type: ignore[attr-defined]
    metrics = evaluate.run(job)
    rows = bench.rows("sampled.jsonl")
    first, second = ([row["completion"] for row in rows if row["answer"] == number] for number in (1, 2))
    assert len(first) == len(second) == 4
    assert first != second
    assert len(bench.rows("renderings.jsonl")) == 3 * (len(NAMES) - 1)
    assert metrics["base"]["seconds_per_request"] > 0
    evaluate.run(job)
    assert bench.rows("sampled.jsonl") == rows


def test_more_ways_than_there_are_is_an_error_of_the_configuration(bench: Bench) -> None:
    with pytest.raises(ValueError, match="renderings"):
        evaluate.Config(renderings=len(NAMES) + 1)
    for name in ("renderings", "rendering_requests", "sampled"):
        assert name in evaluate.Config.OWN, "other stages are not made again for it"
