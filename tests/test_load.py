"""From a configuration to transcripts and requests: splits, and mistakes told all at once."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from data.load import DataConfig, load
from data.source import rows
from data.transcript import DataError, RowError

TOOL = {"name": "get_weather", "description": "Weather.", "parameters": {"type": "object", "properties": {}}}
OTHER = {"name": "send_mail", "description": "Mail.", "parameters": {"type": "object", "properties": {}}}


def row(number, tools=(TOOL,), **more):
    chat = [{"role": "user", "content": f"Question {number}"}, {"role": "assistant", "content": f"Answer {number}"}]
    return {"messages": chat, "tools": list(tools)} | more


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "rows.jsonl", [row(n) for n in range(40)])


def mistakes(**settings):
    with pytest.raises(DataError) as caught:
        load(DataConfig(**settings))
    return caught.value.lines


def test_a_file_is_split_into_parts_that_share_no_row(file):
    dataset = load(DataConfig(format="openai", train=file, test_share=0.25, validation_share=0.1))
    assert (len(dataset.sft), len(dataset.preference), len(dataset.validation), len(dataset.test)) == (27, 27, 3, 10)
    parts = [{request.id for request in part} for part in (dataset.preference, dataset.validation, dataset.test)]
    assert len(set.union(*parts)) == 40
    assert parts[0] == {transcript.id for transcript in dataset.sft}
    assert dataset.counts["test"] == 10


def test_splits_follow_the_data_seed_and_nothing_else(file):
    first, again, other = (load(DataConfig(format="openai", train=file, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert {request.id for request in first.test} != {request.id for request in other.test}
    assert first.digest != other.digest


def test_a_test_file_of_its_own_leaves_the_training_file_whole(file, tmp_path):
    test = write(tmp_path / "test.jsonl", [row(n, [OTHER]) for n in range(3)])
    dataset = load(DataConfig(format="openai", train=file, test=test))
    assert len(dataset.sft) + len(dataset.validation) == 40
    assert [request.unseen for request in dataset.test] == [True] * 3
    assert not any(request.unseen for request in dataset.preference)


@pytest.mark.parametrize(
    ("share", "kept"), [(None, (8, 24)), (0.5, (8, 8)), (0.1, (3, 24)), (0.0, (0, 24)), (0.25, (8, 24))]
)
def test_rows_of_the_sort_that_is_too_many_are_left_out_of_fine_tuning_alone(tmp_path, share, kept):
    def calling(number):
        call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
        chat = [{"role": "user", "content": f"Question {number}"}, {"role": "assistant", "tool_calls": [call]}]
        return {"messages": chat, "tools": [TOOL]}

    train = write(tmp_path / "rows.jsonl", [calling(n) if n % 4 else row(n) for n in range(32)])
    test = write(tmp_path / "test.jsonl", [row(99)])
    config = DataConfig(format="openai", train=train, test=test, validation_share=0, no_call_share=share)
    dataset = load(config)
    calls = [any(message.tool_calls for message in each.messages) for each in dataset.sft]
    assert (calls.count(False), calls.count(True)) == kept
    assert len(dataset.preference) == 32
    places = [each.id for each in load(DataConfig(format="openai", train=train, test=test, validation_share=0)).sft]
    assert [each.id for each in dataset.sft] == [id_ for id_ in places if id_ in {each.id for each in dataset.sft}]
    told = f"data.no_call_share={share or 0:g}: {32 - sum(kept)} of 32 rows left out"
    assert (told in dataset.notes) == (share is not None)


def test_a_share_of_what_is_not_there_is_refused(file, tmp_path):
    (line,) = mistakes(format="openai", train=file, no_call_share=0.5)
    assert line == "data.no_call_share=0.5: no row of the training data holds a call; leave it out"


def test_half_of_a_simple_tool_calling_file_is_for_testing(tmp_path):
    rows = [
        {"user_content": f"Q{n}", "tool_name": "search_google", "tool_arguments": {"query": str(n)}} for n in range(40)
    ]
    dataset = load(DataConfig(format="simple_tool_calling", train=write(tmp_path / "stc.jsonl", rows)))
    assert (len(dataset.sft), len(dataset.validation), len(dataset.test)) == (19, 1, 20)


def test_json_lists_byte_order_marks_and_blank_lines_are_read(tmp_path):
    rows = [row(n) for n in range(4)]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n\r\n".join(json.dumps(row).encode() for row in rows))
    first, second = (load(DataConfig(format="openai", train=str(tmp_path / name))) for name in ("a.json", "b.jsonl"))
    assert len(first.sft) == len(second.sft) == 2
    assert first.test[0].id.startswith("a.json:row ")


def test_tools_beside_the_rows_serve_rows_that_bring_none(tmp_path):
    rows = [row(0, ()), row(1), row(2, ()), row(3, ())]
    settings = {"format": "openai", "train": write(tmp_path / "rows.jsonl", rows), "validation_share": 0}
    tools = write(tmp_path / "tools.jsonl", [OTHER])
    offered = {t.id: [tool.name for tool in t.tools] for t in load(DataConfig(tools=tools, **settings)).sft}
    assert set(map(tuple, offered.values())) <= {("send_mail",), ("get_weather",)}
    assert offered["rows.jsonl:1"] == ["send_mail"] or "rows.jsonl:1" not in offered
    broken = write(tmp_path / "broken.jsonl", [{"name": ""}, {"name": "x", "parameters": 3}])
    assert [line.split(": ")[0] for line in mistakes(tools=broken, **settings)] == ["data.tools"] * 2


PYTHON = '''
def get_weather(city: str, days: int = 1) -> str:
    """Get the weather of a place.

    Args:
        city: Name of the place.
        days: How many days.
    """
'''


def test_tools_may_be_functions_of_a_python_file(tmp_path):
    (tmp_path / "mine.py").write_text(PYTHON)
    call = {"name": "get_weather", "arguments": {"city": "Oslo", "days": "2"}}
    chat = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "tool_calls": [call]}]
    settings = {"format": "openai", "train": write(tmp_path / "rows.jsonl", [{"messages": chat}] * 2)}
    dataset = load(DataConfig(tools=str(tmp_path / "mine.py"), validation_share=0, **settings))
    (tool,) = dataset.sft[0].tools
    assert (tool.name, tool.description) == ("get_weather", "Get the weather of a place.")
    assert tool.parameters["required"] == ["city"]
    assert dataset.sft[0].messages[1].tool_calls[0].arguments == {"city": "Oslo", "days": 2}
    (tmp_path / "mine.py").write_text("def look(where):\n    pass\n")
    (line,) = mistakes(tools=str(tmp_path / "mine.py"), **settings)
    assert line.startswith(f"data.tools: {tmp_path}/mine.py:look: has no docstring")
    (line,) = mistakes(tools=str(tmp_path / "mine.py"), **settings | {"format": "seal_tools"})
    assert line.endswith("seal_tools reads its tools from its own rows, not from Python")
    with pytest.raises(ValidationError, match=r"must be a \.jsonl"):
        DataConfig(answers=str(tmp_path / "mine.py"))


def test_rows_of_one_id_are_kept_apart_and_rows_of_no_kind_are_named_after_their_act(tmp_path):
    file = write(tmp_path / "rows.jsonl", [row(n, id="same") for n in range(3)])
    dataset = load(DataConfig(format="openai", train=file, validation_share=0))
    assert {r.id for r in dataset.preference + dataset.test} == {"same", "same~2", "same~3"}
    assert {r.kind for r in dataset.preference} == {"answer"}


def test_every_bad_row_is_told_with_file_line_and_field(tmp_path):
    good = json.dumps(row(0))
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b"\n".join(
            [good.encode(), b"{", b"[1]", b'{"messages": []}', b"\xff", good.encode(), b'{"a": NaN}', good.encode()]
        )
    )
    lines = mistakes(format="openai", train=str(path))
    assert [line.split(": ")[0] for line in lines] == [f"{path}:{n}" for n in (2, 3, 4, 5, 7)]
    assert lines[2].startswith(f"{path}:4: messages: ")


def test_many_bad_rows_are_counted_behind_the_first_twenty(tmp_path):
    lines = mistakes(format="openai", train=write(tmp_path / "rows.jsonl", [{}] * 50))
    assert len(lines) == 21
    assert lines[-1] == "and 30 more rows that cannot be used, 50 in all"


def test_mistakes_of_both_files_are_told_at_once(tmp_path):
    train = write(tmp_path / "rows.jsonl", [row(0), {}])
    lines = mistakes(format="openai", train=train, test=write(tmp_path / "none.jsonl", []))
    assert len(lines) == 2


def test_what_is_wrong_with_a_file_is_one_line_with_the_way_out(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "object.json").write_text("{}")
    one = write(tmp_path / "one.jsonl", [row(0)])
    cases = {
        str(tmp_path / "empty.jsonl"): "is empty",
        str(tmp_path / "list.json"): "is empty",
        str(tmp_path / "object.json"): "must hold a list",
        one: "too few rows",
    }
    for train, words in cases.items():
        lines = mistakes(format="openai", train=train)
        assert len(lines) == 1
        assert words in lines[0]
        assert lines[0].startswith(("data.train: ", "data.test: "))
        assert train in lines[0]


def test_a_file_that_is_not_there_is_refused_with_the_configuration(tmp_path):
    (tmp_path / "rows.xlsx").write_text("a,b")
    (tmp_path / "folder").mkdir()
    cases = (("none.jsonl", "no such file"), ("rows.xlsx", "must be a .jsonl"), ("folder", "holds no|no such file"))
    for name, message in cases:
        for field in ("train", "test", "tools", "answers"):
            with pytest.raises(ValidationError, match=message):
                DataConfig(**{field: str(tmp_path / name)})
    with pytest.raises(ValidationError, match=r"name it: data\.train=FILE"):
        DataConfig(format="openai")


def test_a_file_that_has_gone_since_is_a_line_too(file):
    config = DataConfig(format="openai", train=file)
    Path(file).unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "opnai"}, "did you mean openai"),
        ({"test_share": 1.0}, "less than 1"),
        ({"shuffle": True}, "Extra inputs"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        DataConfig(**settings)


def test_the_built_in_world_is_taken_as_it_is_made(monkeypatch, file):
    read = load(DataConfig(format="openai", train=file))
    made = SimpleNamespace(sft=read.sft, preference=read.preference, validation=read.validation, test=read.test)
    seeds = []
    monkeypatch.setattr("data.world.generate", lambda config, seed: seeds.append(seed) or made, raising=False)
    dataset = load(DataConfig(seed=3))
    assert seeds == [3]
    assert dataset == read


def call_row(number, **arguments):
    tool = {"name": "add", "parameters": {"type": "dict", "properties": {"a": {"type": "int"}}, "required": ["a"]}}
    turn = {"role": "assistant", "tool_calls": [{"name": "add", "arguments": {"a": number} | arguments}]}
    return {"tools": [tool], "messages": [{"role": "user", "content": f"Add {number}"}, turn]}


def bfcl_rows(count):
    function = {
        "name": "add",
        "description": "",
        "parameters": {"type": "dict", "properties": {"a": {"type": "float"}}},
    }
    chat = [[{"role": "user", "content": "Add!"}]]
    return [{"id": f"simple_{n}", "question": chat, "function": [function]} for n in range(count)]


def test_a_call_to_be_trained_that_breaks_its_schema_is_refused_with_its_line(tmp_path):
    path = write(tmp_path / "rows.jsonl", [call_row(0), call_row(1, a="one"), call_row(2, b=1), call_row(3)])
    lines = mistakes(format="openai", train=path)
    assert [line.split(": ")[0] for line in lines] == [f"{path}:2", f"{path}:3"]
    assert "messages[1].tool_calls[0].arguments.a" in lines[0]


def test_rows_that_cannot_be_used_may_be_left_out_up_to_a_stated_share_and_are_told(tmp_path):
    path = write(tmp_path / "rows.jsonl", [*(call_row(n) for n in range(18)), call_row(1, a="5"), {}])
    assert mistakes(format="openai", train=path, max_rejected=0.04)
    dataset = load(DataConfig(format="openai", train=path, max_rejected=0.05))
    assert len(dataset.sft) + len(dataset.validation) + len(dataset.test) == 19
    assert dataset.notes == [
        f"data.train: 1 of 20 rows left out, the first: {path}:20: messages: must be a list, is missing",
        "data.train: put right in 20 rows: text to number 1, type dict 19, type int 19",
    ]


def test_every_row_is_yielded_once_in_order_as_what_it_is(tmp_path):
    path = write(tmp_path / "rows.jsonl", [call_row(0), {}, call_row(1, a="1"), call_row(2, a="x")])
    found = list(rows(DataConfig(format="openai", train=path), "train"))
    assert [row.place for row in found] == [f"{path}:{n}" for n in (1, 2, 3, 4)]
    assert [row.code if isinstance(row, RowError) else row.changes[2:] for row in found] == [
        (), "field", ("text to number",), "arguments",
    ]  # fmt: skip


def test_requests_without_a_turn_to_learn_from_are_refused_for_training_in_one_line(tmp_path):
    path = write(tmp_path / "x_irrelevance.jsonl", bfcl_rows(30))
    lines = mistakes(format="bfcl", train=path)
    assert len(lines) == 1
    assert "30 of 30 rows" in lines[0]
    assert f"data.test={path} data.test_format=bfcl" in lines[0]


def test_a_test_file_may_be_of_another_format_and_beside_the_built_in_world(tmp_path, file):
    test = write(tmp_path / "x.jsonl", bfcl_rows(3))
    write(tmp_path / "x_answer.jsonl", [{"id": f"simple_{n}", "ground_truth": [{"add": {"a": [1]}}]} for n in range(3)])
    dataset = load(DataConfig(format="openai", train=file, test=test, test_format="bfcl"))
    assert [request.expected.act for request in dataset.test] == ["call"] * 3
    small = {"sft_rows": 5, "preference_rows": 5, "validation_rows": 5, "test_rows": 5, "unseen_rows": 0}
    dataset = load(DataConfig(test=test, test_format="auto", world=small))
    assert (len(dataset.sft), len(dataset.test)) == (5, 3)
    assert dataset.notes[0] == "data.test: guessed format bfcl: the first 3 rows have question and function"


def test_preference_rows_are_learned_from_and_keep_both_answers(tmp_path):
    given = [{"prompt": f"Hi {n}", "chosen": "Hello.", "rejected": f"What, {n}?"} for n in range(10)]
    dataset = load(DataConfig(format="preference", train=write(tmp_path / "p.jsonl", given), validation_share=0))
    assert {row.messages[-1].content for row in dataset.sft} == {"Hello."}
    assert all(request.rejected.content.startswith("What") for request in dataset.preference)


@pytest.mark.parametrize("place", ["x_answer.jsonl", "possible_answer/x.jsonl", "elsewhere.jsonl"])
def test_answers_are_found_beside_their_file_or_named(place, tmp_path):
    path = write(tmp_path / "x.jsonl", bfcl_rows(2))
    (tmp_path / place).parent.mkdir(exist_ok=True)
    answers = write(tmp_path / place, [{"id": "simple_0", "ground_truth": [{"add": {"a": [1]}}]}])
    named = {"answers": answers} if place == "elsewhere.jsonl" else {}
    config = DataConfig(format="bfcl", train=path, **named)
    assert config.beside_train == answers
    first, second = rows(config, "train")
    assert first.value.expected.calls[0].arguments == {"a": [1]}
    assert (second.code, second.place) == ("answer", f"{path}:2")


@pytest.mark.parametrize(
    ("name", "given", "setting", "looked"),
    [
        ("bfcl", bfcl_rows(1), "answers", ["x_dev_answer.jsonl", "possible_answer/x_dev.jsonl"]),
        ("seal_tools", [{"query": "x", "calling": []}], "tools", ["x_tools.jsonl"]),
    ],
)
def test_a_companion_that_is_not_there_is_one_line_that_says_what_was_looked_for(
    name, given, setting, looked, tmp_path
):
    path = write(tmp_path / "x_dev.jsonl", given)
    (line,) = mistakes(format=name, train=path)
    assert all(str(tmp_path / file) in line for file in looked)
    assert line.endswith(f"name it: data.{setting}=FILE")


def test_a_folder_is_read_as_one_without_the_files_that_complete_others(tmp_path):
    write(tmp_path / "x.jsonl", bfcl_rows(2))
    write(tmp_path / "x_answer.jsonl", [{"id": f"simple_{n}", "ground_truth": [{"add": {"a": [1]}}]} for n in range(2)])
    write(tmp_path / "y_irrelevance.jsonl", bfcl_rows(1))
    found = [row.value for row in rows(DataConfig(format="auto", train=str(tmp_path)), "train")]
    assert [request.expected.act for request in found] == ["call", "call", "answer"]


def test_tables_of_text_are_read_too(tmp_path):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, ["tools", "messages"])
        writer.writeheader()
        writer.writerows({key: json.dumps(value) for key, value in call_row(n).items()} for n in range(4))
    assert len(load(DataConfig(format="openai", train=str(path))).sft) == 2


def test_a_format_that_cannot_be_guessed_is_one_line(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"text": "x"}] * 9)
    (line,) = mistakes(format="auto", train=path)
    assert line.startswith(f"data.train: {path}: the first rows fit no format (they have text)")


def test_what_completes_the_rows_counts_as_their_input(tmp_path):
    from stages._manifest import files_named

    path = write(tmp_path / "x.jsonl", bfcl_rows(1))
    answers = write(tmp_path / "x_answer.jsonl", [{"id": "simple_0", "ground_truth": []}])
    config = DataConfig(format="bfcl", train=path)
    before = files_named(config)
    assert set(before) == {"train", "beside_train"}
    write(tmp_path / "x_answer.jsonl", [{"id": "simple_0", "ground_truth": [{"add": {"a": [1]}}]}])
    assert files_named(config)["beside_train"] != before["beside_train"]
    assert config.beside_train == answers
