"""Rows are read from files of every kind, folders and data sets, each with its place."""

from __future__ import annotations

import csv
import json

import pytest

from data import _files
from data.transcript import RowError

ROWS = [{"id": "a", "query": 'Wörter, "so"\nzwei', "tools": "[]"}, {"id": "b", "query": "x", "tools": "[]"}]


def write(path, rows):
    """The rows as the kind of file that the name says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize(
    ("suffix", "places"),
    [
        (".jsonl", (":1", ":2")),
        (".json", (":row 1", ":row 2")),
        (".csv", (":2", ":4")),  # the first row runs over two lines
        (".parquet", (":row 1", ":row 2")),
    ],
)
def test_every_kind_of_file_yields_the_same_rows_with_their_places(suffix, places, tmp_path):
    path = write(tmp_path / f"rows{suffix}", ROWS)
    assert list(_files.read(path)) == [(f"{path}{place}", row) for place, row in zip(places, ROWS, strict=True)]


@pytest.mark.parametrize(("suffix", "count"), [(".jsonl", 2), (".parquet", 2), (".json", None), (".csv", None)])
def test_rows_are_counted_where_that_takes_no_reading(suffix, count, tmp_path):
    assert _files.count(write(tmp_path / f"rows{suffix}", ROWS)) == count


def test_a_json_file_may_be_json_lines_in_truth(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert [found[0] for found in _files.read(path)] == [f"{path}:1", f"{path}:2"]


def test_null_fields_of_arrow_rows_count_as_absent(tmp_path):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [{"name": "f"}]}]
    path = write(tmp_path / "rows.parquet", [{"messages": turns}])
    assert [found[1] for found in _files.read(path)] == [{"messages": turns}]


@pytest.mark.parametrize(
    ("name", "content", "place", "words"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": 1, "a": 2}\n', ":2", "occurs twice"),
        ("a.jsonl", b'{"a": 1}\n\n[1]\n', ":3", "must be an object"),
        ("a.jsonl", b'{"a": "\xff"}\n', ":1", "utf-8"),
        ("a.json", b"[{}, 3]", ":row 2", "must be an object"),
        ("a.csv", b"a,b\n1,2\n\n1\n", ":4", "must have 2 cells"),
        ("a.csv", b'a,b\n"1\n2",2\n1,2,3\n', ":4", "must have 2 cells"),
    ],
)
def test_a_bad_row_is_told_with_its_place_and_the_others_are_read(name, content, place, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    bad = [found for found in _files.read(tmp_path / name) if isinstance(found, RowError)]
    assert [(error.place, error.code) for error in bad] == [(f"{tmp_path / name}{place}", "unreadable")]
    assert words in str(bad[0])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b'{"a": 1}', "is dict"),
        ("a.json", b"[", "character 2"),
        ("a.csv", b'a\n"1" 2\n', "line 2 is no CSV"),
        ("a.csv", b"a\n" + b"x" * 1_000_001, "line 2 is no CSV"),
        ("a.csv", b"a\n\xff\n", "utf-8"),
        ("a.parquet", b"PAR", "no Parquet file"),
    ],
)
def test_a_file_that_is_none_of_its_kind_is_a_value_error(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        list(_files.read(tmp_path / name))


def test_a_folder_is_all_its_files_in_order_without_hidden_ones(tmp_path):
    for name in ("b.jsonl", "a.json", "sub/c.csv", ".cache/d.jsonl", "readme.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [path.relative_to(tmp_path).as_posix() for path in _files.files_in(tmp_path)] == [
        "a.json", "b.jsonl", "sub/c.csv",
    ]  # fmt: skip


def test_what_names_a_data_set_of_the_hub_and_what_is_a_mistyped_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "here").mkdir(parents=True)
    for place in ("org/name", "org/name:test", "org/name/part:test", "a-b/c.d_e"):
        assert _files.is_hub(place)
        assert _files.refusal(place) is None
    for place in ("org/rows.jsonl", "name", "../x", "org/here"):
        assert not _files.is_hub(place)
        assert ("holds no" if place == "org/here" else "no such file") in _files.refusal(place)


def test_a_data_set_is_streamed_through_datasets(tmp_path, monkeypatch):
    """On a folder that `datasets` can load, since tests have no network."""
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", ROWS)
    write(folder / "test.jsonl", ROWS[:1])
    train = list(_files._streamed(str(folder), None, None, "org/name"))
    assert train == [(f"org/name:row {n}", row) for n, row in enumerate(ROWS, start=1)]
    assert [row["id"] for _, row in _files._streamed(str(folder), None, "test", "x")] == ["a"]


def test_the_name_of_a_data_set_says_configuration_and_split(monkeypatch):
    asked = []
    monkeypatch.setattr(_files, "_streamed", lambda *what: asked.append(what) or iter(()))
    for place in ("org/name", "org/name:test", "org/name/small:test"):
        assert not list(_files.read_hub(place))
    assert [what[:3] for what in asked] == [
        ("org/name", None, None), ("org/name", None, "test"), ("org/name", "small", "test"),
    ]  # fmt: skip
