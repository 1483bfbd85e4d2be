"""From a configuration to transcripts and requests: splits, and mistakes told all at once."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from data.load import DataConfig, load
from data.transcript import DataError

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
    (tmp_path / "rows.csv").write_text("a,b")
    (tmp_path / "folder.jsonl").mkdir()
    for name, message in (("none.jsonl", "no such file"), ("rows.csv", "jsonl file"), ("folder.jsonl", "no such file")):
        for field in ("train", "test", "tools"):
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
