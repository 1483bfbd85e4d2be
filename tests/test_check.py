"""stage=check: published files pass, planted defects are found by line and nothing else is, and sft heeds the rest."""

from __future__ import annotations

import ast
import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data import dialects, source
from data.transcript import Expected, Message, Request, RowError, Tool, ToolCall, Transcript
from rewards import RewardConfig
from stages import _content, _encoded, _preflight
from stages._check_report import findings, transcripts
from stages._encoded import Encoder
from stages._errors import UserError
from stages._job import Job, execute
from stages._problems import BY_CODE, HELD, PROBLEMS
from stages._rows import IGNORED, Row
from tests import toys
from tests.test_report import EVIL, Page

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT.parent / "shared" / "samples"


@dataclasses.dataclass
class Checked:
    """What a check left behind; `refused` are the lines it ended with, none where it exits 0."""

    folder: Path
    refused: tuple[str, ...]

    @property
    def metrics(self) -> Any:
        return json.loads((self.folder / "metrics.json").read_text())

    def rows(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.folder / f"{name}.jsonl").read_text().splitlines()]

    def lines(self) -> dict[str, list[tuple[str, int]]]:
        """File and line of every rejected row and every warning, by problem."""
        found: dict[str, list[tuple[str, int]]] = {}
        for row in (*self.rows("rejected"), *self.rows("warnings")):
            found.setdefault(row["code"], []).append((Path(row["file"]).name, row["line"]))
        return found


def settings_of(folder: Path, stage: str, *overrides: str) -> Any:
    from stages._refusals import compose, settings_of
    from stages._schema import publish

    publish()
    words = (f"stage={stage}", f"runs_dir={folder}/runs", "threads=1", *overrides)
    return settings_of(*compose(words), words)


def check(folder: Path, *overrides: str) -> Checked:
    try:
        execute("check", settings_of(folder, "check", *overrides))
    except UserError as error:
        return Checked(folder / "runs/default/check", error.lines)
    return Checked(folder / "runs/default/check", ())


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


TOOLS = [
    {"name": f"get_{what}", "description": f"Get the {what} of a place.", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"],
    }} for what in ("weather", "news")
]  # fmt: skip


def row(number: int) -> dict[str, Any]:
    """An openai row, unlike any other; every seventh holds no call, every other call has its result and an answer."""
    city = f"town {number}"
    if number % 7 == 0:
        return {
            "tools": TOOLS,
            "messages": [said("user", f"I live in {city}."), said("assistant", f"So you know {city}!")],
        }
    arguments: Any = {"city": city, "days": number}
    call = {"id": f"c{number}", "function": {"name": "get_weather", "arguments": arguments}}
    if number % 3:
        call["function"]["arguments"] = json.dumps(arguments)
    messages = [said("user", f"What is the weather of {city}?"), said("assistant", "", tool_calls=[call])]
    if number % 2:
        messages += [said("tool", f"rain {number}", tool_call_id=f"c{number}"), said("assistant", f"Rain in {city}.")]
    return {"tools": TOOLS, "messages": messages}


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content} | more


@pytest.mark.parametrize(
    "file",
    [
        "bfcl_v4_irrelevance.jsonl",
        "bfcl_v4_multiple.jsonl",
        "bfcl_v4_parallel.jsonl",
        "bfcl_v4_simple_python.jsonl",
        "seal_tools_dev.jsonl",
        "sharegpt_glaive_demo.json",
        "simple_tool_calling.jsonl",
    ],
)
def test_a_published_file_passes_but_for_rows_that_break_their_own_schema(file, tmp_path):
    if not (SAMPLES / file).exists():
        pytest.skip("the sample rows are not beside this checkout")
    name = next(name for name in ("bfcl", "seal_tools", "sharegpt", "simple_tool_calling") if file.startswith(name))
    checked = check(tmp_path, f"data={name}", f"data.train={SAMPLES / file}")
    metrics, rejected = checked.metrics, checked.rows("rejected")
    assert metrics["rows_in"] == metrics["rows_kept"] + metrics["rows_rejected"]
    assert len(rejected) == metrics["rows_rejected"] <= 0.02 * metrics["rows_in"]
    assert bool(rejected) == bool(checked.refused)
    assert {each["code"] for each in rejected} <= {"arguments"}
    assert all(each["file"] and each["line"] and each["reason"] for each in rejected)
    assert set(metrics["problems"]) <= {"arguments", "too_long", "duplicate"}
    assert metrics["rows_encoded"] == metrics["rows_kept"]


def test_ten_planted_defects_are_found_by_line_and_nothing_else_is(tmp_path):
    rows: list[Any] = [row(number) for number in range(1, 1001)]
    test = [row(number) for number in range(2001, 2021)]

    def plant(number: int, change: Callable[[list[Any]], Any]) -> None:
        """Change the messages of a row: a call, its result, the answer."""
        assert len(rows[number - 1]["messages"]) == 4
        change(rows[number - 1]["messages"])

    plant(11, lambda chat: chat[1]["tool_calls"][0]["function"].update(arguments={"city": "Oslo", "days": "a few"}))
    plant(101, lambda chat: chat[1]["tool_calls"][0]["function"].update(name="get_wether"))
    plant(211, lambda chat: chat[3].update(content=" "))
    plant(307, lambda chat: chat.append(said("assistant", "And it is windy.")))
    plant(401, lambda chat: chat[2].update(tool_call_id="c9"))
    plant(503, lambda chat: chat.pop(2))
    plant(601, lambda chat: chat[3].update(content="It is " + "very, " * 600 + "wet."))
    rows[702] = json.dumps(rows[702])[:-9]
    rows[804] = json.loads(json.dumps(rows[200]).replace("the weather of", "the  Weather of,"))
    rows[904]["messages"][0]["content"] = "what is the weather of Town 2005"
    train = write(tmp_path / "train.jsonl", rows)
    checked = check(tmp_path, "data=openai", f"data.train={train}", f"data.test={write(tmp_path / 'test.jsonl', test)}")
    planted = {
        "arguments": 11, "unknown_tool": 101, "empty": 211, "role_order": 307, "orphan_result": 401,
        "unanswered_call": 503, "too_long": 601, "unreadable": 703, "duplicate": 805, "overlap": 905,
    }  # fmt: skip
    assert checked.lines() == {code: [("train.jsonl", line)] for code, line in planted.items()}
    metrics = checked.metrics
    assert metrics["problems"] == dict.fromkeys(sorted(planted), 1)
    assert (metrics["rows_in"], metrics["rows_kept"], metrics["rows_rejected"]) == (1020, 1013, 7)
    assert (metrics["transcripts"], metrics["tools"]) == (1013, 2)
    assert 0.1 < metrics["no_tool_share"] < 0.2
    assert len(checked.refused) == 1
    assert "data.train: 7 of 1000 rows" in checked.refused[0]
    reasons = {each["code"]: each["reason"] for each in (*checked.rows("rejected"), *checked.rows("warnings"))}
    assert f"{train}:201" in reasons["duplicate"]
    assert "test.jsonl:5" in reasons["overlap"]


def test_every_silent_failure_of_data_and_template_is_a_problem_or_cannot_happen():
    wanted = {*(f"P{number:02d}" for number in range(1, 18)), "P29"}
    assert {failure for problem in PROBLEMS for failure in problem.failures} | set(HELD) == wanted
    assert len(BY_CODE) == len(PROBLEMS)


def test_every_code_of_a_refused_row_is_in_the_table():
    found = {"field"}
    for path in (*(ROOT / "data").rglob("*.py"), *(ROOT / "stages").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RowError" and len(node.args) == 4:
                assert isinstance(node.args[3], ast.Constant)
                found.add(node.args[3].value)
    assert found == {problem.code for problem in PROBLEMS if problem.rejects}


ARGUMENTS = {"a": 1.0, "b": 1, "c": None, "d": [], "e": {"z": 0, "y": [2**62, -1.5e-7]}, "f": 'a "b"\n\\ü👋<|im_end|>'}
OPEN = Tool("do_it", "Do it.", {"type": "object", "additionalProperties": True})


@pytest.mark.parametrize(("family", "dialect"), toys.SPOKEN)
def test_arguments_are_the_same_bytes_after_template_tokens_and_datasets(family, dialect):
    encoder = Encoder(toys.preset_tokenizer(family), dialects.get(dialect), 4096)
    assert (encoder.dropped, encoder.warnings) == (frozenset(), [])
    turns = [
        Message("user", "Do it."), Message("assistant", tool_calls=(ToolCall("do_it", ARGUMENTS, "c00000000"),)),
        Message("tool", "done", tool_call_id="c00000000", name="do_it"), Message("assistant", " Done.\n\nReally? "),
        Message("user", "Hi"), Message("assistant", "Hello."),
    ]  # fmt: skip
    other = dataclasses.replace(turns[1], tool_calls=(ToolCall("do_it", {"other": {"a": None}}, "c00000001"),))
    rows = [
        source.Row(f"x:{n}", Transcript("t", (OPEN,), (turns[0], turn)), ()) for n, turn in enumerate((turns[1], other))
    ]
    rows.append(source.Row("x:3", Transcript("t", (OPEN,), tuple(turns)), ()))
    checked = encoder.check(rows)
    assert [each.fault for each in checked] == [None] * 3
    trained = [text for text, trained in encoder.segments(checked[2].rows) if trained]
    assert len(trained) == 3


def spoilt(change: Callable[[Row], Row]) -> RowError | None:
    """The fault that is found where `datasets` gives back other rows."""
    encoder = Encoder(toys.preset_tokenizer("toy"), dialects.get("native"), 4096)
    turns = (Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Hi"), Message("assistant", "Yes?"))
    whole = source.Row("x:1", Transcript("t", (), turns), ())
    real = _encoded.transcript_rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_encoded, "transcript_rows", lambda *given: [change(each) for each in real(*given)])
        return encoder.check([whole])[0].fault


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda row: row, None),
        (lambda row: Row(row.input_ids, row.input_ids), "labels"),
        (lambda row: Row(row.input_ids, [IGNORED] * len(row.labels)), "labels"),
        (lambda row: Row(row.input_ids, [IGNORED] * (len(row.labels) - 4) + row.labels[-4:]), "labels"),
        (lambda row: Row(row.input_ids[:-1], row.labels[:-1]), "end_of_turn"),
        (lambda row: Row([*row.input_ids[:-2], row.input_ids[-1]], [*row.labels[:-2], row.labels[-1]]), "labels"),
    ],
)
def test_labels_that_are_not_exactly_the_assistants_turns_are_found(change, code):
    fault = spoilt(change)
    assert (fault and fault.code) == code


def test_rows_that_datasets_gives_back_otherwise_are_found(monkeypatch):
    monkeypatch.setattr(_encoded, "_materialised", lambda rows: [Row(each.input_ids, each.input_ids) for each in rows])
    fault = spoilt(lambda row: row)
    assert fault
    assert fault.code == "arrow"


@pytest.mark.parametrize(
    ("part", "old"),
    [
        ("tools", "{%- if tools %}"),
        ("calls", "{%- for call in message.tool_calls or [] %}"),
        ("results", "{%- elif message.role == 'tool' %}"),
    ],
)
def test_a_template_that_leaves_something_out_is_found_by_its_rows_and_stops_sft(part, old, tmp_path):
    new = {"tools": "{%- if false %}", "calls": "{%- for call in [] %}", "results": "{%- elif message.role == 'tol' %}"}
    assert old in toys.CHATML
    (tmp_path / "half.jinja").write_text(toys.CHATML.replace(old, new[part]))
    given = (
        "data=openai", f"data.train={write(tmp_path / 'rows.jsonl', [row(number) for number in range(1, 43)])}",
        f"model.chat_template={tmp_path}/half.jinja",
    )  # fmt: skip
    checked = check(tmp_path, *given)
    assert set(checked.metrics["problems"]) <= {"template_drops", "round_trip"}
    assert checked.metrics["problems"]["template_drops"] == {"tools": 42, "calls": 36, "results": 18}[part]
    assert part in checked.rows("rejected")[0]["reason"]
    with pytest.raises(UserError) as refused:
        execute("sft", settings_of(tmp_path, "sft", *given))
    assert f"hold {part}" in refused.value.lines[0]
    assert "python train.py stage=check run=default" in refused.value.lines[1]


def test_sft_stops_at_rows_that_cannot_be_used_and_names_the_command_that_lists_them(tmp_path):
    file = write(tmp_path / "rows.jsonl", [row(1), "{"])
    with pytest.raises(UserError) as refused:
        execute("sft", settings_of(tmp_path, "sft", "data=openai", f"data.train={file}"))
    first, last = refused.value.lines
    assert first.startswith(f"{file}:2: ")
    command = f"python train.py stage=check run=default runs_dir={tmp_path}/runs data=openai data.train={file}"
    assert last == f"every problem by line: {command}"


def test_sft_is_told_of_overlap_doubles_and_too_few_rows_without_a_call(tmp_path, capsys):
    rows = [row(number) for number in range(1, 30, 2) if number % 7] * 2
    settings = settings_of(
        tmp_path, "sft", "data=openai", f"data.train={write(tmp_path / 'a.jsonl', rows)}",
        f"data.test={write(tmp_path / 'b.jsonl', [row(3)])}", "data.validation_share=0",
    )  # fmt: skip
    job = Job("sft", settings, tmp_path, {}, False)
    data = _preflight.loaded(job)
    _preflight.check(job, data, toys.preset_tokenizer("toy"), dialects.get("native"))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "warning" in line] == [
        "sft: warning: 0.0% of the rows hold no call, 10% to 20% are usual: a model may learn to call where it should"
        " not",
        f"sft: warning: {len(rows) // 2} of {len(rows)} rows are there twice",
        f"sft: warning: 2 of {len(rows)} rows ask what test requests ask: evaluation will flatter",
    ]


def test_tokens_that_differ_at_the_start_and_text_that_does_not_survive_are_told():
    tokenizer = toys.toy_tokenizer("llama3_2")
    native, turns = (
        dialects.get("json"),
        "{% for m in messages %}<|start_header_id|>{{ m.role }}\n{{ m.content }}<|eot_id|>{% endfor %}",
    )
    ask = "{% if add_generation_prompt %}<|start_header_id|>assistant\n{% endif %}"
    tokenizer.chat_template = "{{ bos_token }}" + turns + ask
    assert Encoder(tokenizer, native, 1024).warnings == []
    tokenizer.chat_template = "{{ bos_token }}{{ bos_token }}" + turns + ask
    assert [code for code, _ in Encoder(tokenizer, native, 1024).warnings] == ["bos"]
    from tokenizers import normalizers

    lossy = toys.toy_tokenizer("toy")
    lossy.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    assert [code for code, _ in Encoder(lossy, dialects.get("native"), 1024).warnings] == ["tokenizer"]


def test_the_share_that_may_be_rejected_is_that_of_the_data_unless_check_has_its_own(tmp_path, capsys):
    rows = [row(number) for number in range(1, 20)]
    given = ("data=openai", f"data.train={write(tmp_path / 'rows.jsonl', [*rows, {}])}", "check.encoded_rows=0")
    first = check(tmp_path, *given)
    assert "1 of 20 rows cannot be used, above the allowed share of 0 (data.max_rejected)" in first.refused[0]
    assert not check(tmp_path, *given, "check.max_rejected=0.05").refused
    assert "check: done already with the same inputs" in capsys.readouterr().out
    assert "(check.max_rejected)" in check(tmp_path, *given, "check.max_rejected=0.04").refused[0]
    assert not check(tmp_path, *given, "data.max_rejected=0.05").refused
    assert check(tmp_path, *given, "data.max_rejected=0.05", "check.max_rejected=0").refused


def test_a_file_that_ends_in_the_middle_leaves_its_counts_and_says_why(tmp_path):
    from data.transcript import DataError

    file = tmp_path / "rows.csv"
    file.write_text('user_content,tool_name,tool_arguments\nQ,search_google,"{""query"": ""a""}"\n"never ends')
    with pytest.raises(DataError, match="line 3 is no CSV"):
        check(tmp_path, "data=simple_tool_calling", f"data.train={file}", "check.encoded_rows=0")
    metrics = json.loads((tmp_path / "runs/default/check/metrics.json").read_text())
    assert (metrics["rows_in"], metrics["rows_kept"], metrics["rows_rejected"]) == (0, 0, 0)


def test_the_built_in_world_is_checked_without_a_file(tmp_path):
    sizes = ("sft_rows=60", "test_rows=30", "unseen_rows=10")
    checked = check(tmp_path, *(f"data.world.{size}" for size in sizes), "check.show=2")
    assert not checked.refused
    metrics = checked.metrics
    assert (metrics["transcripts"], metrics["requests"], metrics["rows_encoded"]) == (60, 40, 100)
    assert set(metrics["problems"]) <= {"duplicate"}
    assert metrics["parts"]["train"]["tokens_trained"] < metrics["parts"]["train"]["tokens"]
    assert len(checked.rows("transcripts")) == 2
    assert findings(checked.folder, metrics)[0].startswith("data.train: 60 rows, 60 kept, 0 rejected; 60 transcripts, ")


def test_requests_without_a_turn_to_learn_are_checked_by_their_prompt(tmp_path):
    tools = [json.dumps(tool) for tool in TOOLS]
    rows = [
        {"tools": tools, "question": "Who are you?", "correct_answer": "cannot_answer"},
        {"tools": tools, "question": "Weather?", "correct_answer": "request_for_info", "answers": {}},
        {"tools": tools, "question": "Weather?", "correct_answer": "tool_call", "answers": {}},
        {"tools": tools, "question": "Weather of Oslo?", "correct_answer": "tool_call", "answers": {
            "tool_call": '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Oslo"}}]</TOOLCALL>'}},
    ]  # fmt: skip
    checked = check(tmp_path, "data=when2call", f"data.train={write(tmp_path / 'rows.jsonl', rows)}")
    assert checked.lines() == {"answer": [("rows.jsonl", 3)]}
    metrics = checked.metrics
    assert (metrics["requests"], metrics["transcripts"], metrics["calls"], metrics["rows_encoded"]) == (3, 0, 1, 3)
    assert metrics["no_tool_share"] == pytest.approx(2 / 3)


def test_shown_rows_mark_what_is_trained_and_obey_nothing_that_the_data_says(tmp_path, monkeypatch):
    chat = [said("user", f"{EVIL} <|im_end|>"), said("assistant", f"No. {EVIL}")]
    file = write(tmp_path / "rows.jsonl", [{"messages": chat}, row(1), row(2), {"messages": [EVIL]}])
    checked = check(tmp_path, "data=openai", f"data.train={file}", "check.show=2")
    text = "\n".join(transcripts(checked.folder))
    assert text.count("⟦") == text.count("⟧") == 3  # one turn, then a call and the answer to its result
    assert "⟦No. " in text
    assert "\x1b" not in text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    coloured = "\n".join(transcripts(checked.folder))
    assert coloured.count("\x1b[32m") == coloured.count("\x1b[0m") == coloured.count("\x1b") // 2 == 3
    page = Page((checked.folder / "report.html").read_text())
    assert page.tags.count("mark") == 4  # the first says what marks mean
    assert not {"script", "img", "a", "link"} & set(page.tags)
    assert any("alert(1)" in each for each in page.text)


def preference(chosen: Any, rejected: Any) -> Request:
    ask = (Message("user", "What is two and two?"),)
    return Request("p", "", (OPEN,), ask, Expected("answer", text="It is 4."), chosen, rejected=rejected)


@pytest.mark.parametrize(
    ("chosen", "rejected", "codes"),
    [
        (Message("assistant", "It is 4."), Message("assistant", "It is 5."), []),
        (
            Message("assistant", "It is 4."),
            Message("assistant", "It is 4. Or is it 7?"),
            ["prefix_pair", "swapped_pair"],
        ),
        (Message("assistant", "It is 4."), Message("assistant", tool_calls=(ToolCall("do_it", {}),)), []),
        (Message("assistant", "It is"), Message("assistant", "It is 5."), ["prefix_pair"]),
        (Message("assistant", tool_calls=(ToolCall("do_it", {}),)), Message("assistant", "It is 4."), ["swapped_pair"]),
    ],
)
def test_doubtful_pairs_are_told(chosen, rejected, codes):
    assert [code for code, _ in _content.doubtful_pair(preference(chosen, rejected), RewardConfig())] == codes


def test_pairs_that_are_the_same_once_rendered_are_rejected():
    call = (ToolCall("do_it", {"a": 1}),)
    request = preference(Message("assistant", "", call), Message("assistant", "Let me see.", call))
    encoder = {name: Encoder(toys.preset_tokenizer("toy"), dialects.get(name), 4096) for name in ("json", "native")}
    faults = {name: each.check([source.Row("x:1", request, ())])[0].fault for name, each in encoder.items()}
    assert faults["native"] is None
    assert faults["json"]
    assert faults["json"].code == "same_pair"


def test_unusual_turns_are_told():
    turns = [Message("user", "Hi"), Message("user", " "), Message("system", "Be brief."), Message("assistant", "Hi!")]
    found = list(_content.unusual(Transcript("t", (), tuple(turns))))
    assert [code for code, _ in found] == ["empty_turn", "unusual_order", "unusual_order"]


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("Add 1.5, please!", "but for case and punctuation the same as x:1"),
        ("add 1.5  please", "the same as x:1"),
        ("add 15 please", None),
        ("add -1.5 please", None),
    ],
)
def test_conversations_are_the_same_but_for_case_spaces_and_punctuation(text, again):
    seen = _content.Seen()
    first, other = (
        Transcript("t", (), (Message("user", words), Message("assistant", "Done.")))
        for words in ("add 1.5  please", text)
    )
    assert list(seen.again("x:1", first)) == []
    assert [reason for _, reason in seen.again("x:2", other)] == ([again] if again else [])
    seen.test("y:7", first)
    found = [reason for _, reason in seen.overlap(other)]
    assert found == ([f"asks {again}".replace("x:1", "y:7")] if again else [])


def test_a_plain_answer_that_reads_as_a_call_is_told():
    encoder = Encoder(toys.preset_tokenizer("toy"), dialects.get("native"), 4096)
    turns = (Message("user", "How?"), Message("assistant", 'Say {"name": "do_it", "arguments": {}} to me.'))
    checked = encoder.check([source.Row("x:1", Transcript("t", (OPEN,), turns), ())])[0]
    assert checked.fault is None
    assert [code for code, _ in checked.warnings] == ["reads_as_call"]


def test_more_rows_shown_than_encoded_are_refused(tmp_path):
    with pytest.raises(UserError, match="encoded_rows lets only 1 be encoded"):
        settings_of(tmp_path, "check", "check.show=2", "check.encoded_rows=1")


def test_the_command_exits_2_where_rows_are_rejected_and_leaves_its_files(tmp_path):
    rows = [row(number) for number in range(1, 30)]
    random.Random(0).shuffle(rows)
    file = write(tmp_path / "rows.jsonl", [*rows, "[]"])
    words = ("stage=check", "data=openai", f"data.train={file}", f"runs_dir={tmp_path}/runs", "check.encoded_rows=5")
    done = subprocess.run(
        [sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("data.train: 1 of 30 rows cannot be used")
    assert "  unreadable            1  " in done.stdout
    folder = tmp_path / "runs/default/check"
    assert json.loads((folder / "rejected.jsonl").read_text())["line"] == 30
    assert json.loads((folder / "manifest.json").read_text())["status"] == "done"
