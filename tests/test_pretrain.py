"""The corpus, the tokenizer and the loop that make the embedded base model."""

from __future__ import annotations

import json
import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from data import corpus, dialects
from data.corpus.tasks import KINDS
from stages import pretrain
from stages._errors import UserError
from stages._files import write_text
from stages._refusals import compose, settings_of
from stages._schema import publish
from stages._tokens import train_tokenizer

SMALL = pretrain.Config(
    hidden=64, layers=1, heads=1, kv_heads=1, intermediate=64, vocabulary=1024, tokens=30_000, batch_tokens=2048,
    probe_documents=10, final_documents=10, probes=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = pretrain.corpus_texts(random.Random(0), 300)
    return train_tokenizer(texts, 1024, pretrain.TEMPLATE.read_text(encoding="utf-8"))


def documents(count: int) -> list[corpus.Document]:
    rng = random.Random(1)
    return [corpus.draw(rng) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_document_gives_the_same_one_for_the_same_seed(kind: str) -> None:
    assert KINDS[kind](random.Random(3)) == KINDS[kind](random.Random(3))


@pytest.mark.parametrize("dialect", dialects.names())
def test_no_answer_of_the_corpus_reads_as_a_call_or_a_try_in_any_dialect(dialect: str) -> None:
    read = dialects.get(dialect).read
    for document in documents(400):
        for turn in document.turns:
            reading = read(turn.answer, document.tools)
            assert not reading.calls
            assert not reading.attempt


def test_the_writer_writes_what_the_chat_template_renders_and_trains_the_answers(tokenizer: Any) -> None:
    writer = pretrain.Writer(tokenizer)
    for document in documents(60):
        chat = [
            message
            for turn in document.turns
            for message in (
                {"role": "user", "content": turn.question},
                {"role": "assistant", "content": turn.answer},
            )
        ]
        rendered = tokenizer.apply_chat_template(
            chat,
            tools=[tool.as_function() for tool in document.tools] or None,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        row = writer.row(document)
        assert row.ids == rendered["input_ids"]
        assert [number >= 0 for number in row.turn] == [bool(mark) for mark in rendered["assistant_masks"]]


def test_a_span_has_the_same_tokens_wherever_it_stands(tokenizer: Any) -> None:
    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    for span in ("Oslo", "Mira Olsen", "KL482", "14:30", "blue river", "x.y@z.org"):
        inside = ids(span)
        for context in ("weather in {} today", '{{"city": "{}"}}', "{}?", "'{}', please"):
            whole = ids(context.format(span))
            assert any(whole[place : place + len(inside)] == inside for place in range(len(whole)))


def test_text_survives_the_tokenizer(tokenizer: Any) -> None:
    for text in ("Smörgåsbord  costs 12.50 €\n\n\tok", '{"a": [1, 2.5, null]}', "<tool_call>\n{}\n</tool_call>"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def recipe(*words: str) -> pretrain.Config:
    """The settings of stage=pretrain as composed."""
    publish()
    overrides = ["stage=pretrain", *words]
    config: pretrain.Config = settings_of(*compose(overrides), overrides).stage("pretrain")
    return config


def test_the_student_is_a_quarter_of_its_teacher_reads_its_tokens_and_takes_5_mb_at_most() -> None:
    from safetensors import safe_open
    from transformers import PreTrainedTokenizerFast

    config = recipe("model=tiny_student")
    assert recipe() == pretrain.Config()
    assert recipe("model=tiny_student", "pretrain.hidden=64").hidden == 64
    taken = pretrain.taken_tokenizer(config)
    assert taken is not None
    assert taken.samefile(pretrain.ROOT / "assets" / "tiny")
    student = pretrain.build(config, PreTrainedTokenizerFast.from_pretrained(taken))
    weights = sum(one.numel() for one in student.parameters())
    with safe_open(taken / "model.safetensors", framework="pt") as stored:
        teacher = sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118
    assert 0.2 * teacher < weights <= 0.25 * teacher
    others = [file.stat().st_size for file in taken.iterdir() if file.suffix != ".safetensors"]
    assert 2 * weights + sum(others) < 5_000_000


def test_a_tokenizer_that_is_not_there_or_too_large_is_the_users_mistake(tmp_path: Any) -> None:
    with pytest.raises(UserError, match=r"pretrain.tokenizer: nowhere holds no tokenizer.json"):
        pretrain.taken_tokenizer(pretrain.Config(tokenizer="nowhere"))
    job = FakeJob(tmp_path)
    job.config = SMALL.model_copy(update={"tokenizer": "assets/tiny"})
    with pytest.raises(UserError, match=r"pretrain.vocabulary=1024: the tokenizer of .*tiny has \d{4} tokens"):
        pretrain.run(job)  # type: ignore[arg-type]


class Stop(Exception):
    """Raised in the middle of training."""


class FakeJob:
    """As much of a job as pretraining uses; `laps` of them are done before it is stopped."""

    def __init__(self, folder: Any, laps: int | None = None) -> None:
        self.folder, self.config, self.seed, self.laps = folder, SMALL, 0, laps
        self.rows: list[dict[str, Any]] = []

    def say(self, _text: str) -> None: ...

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if len(self.rows) == self.laps:
            raise Stop

    def bar(self, *_: Any) -> Any:
        class Bar:
            def update(self, *_: Any) -> None: ...
            def close(self) -> None: ...

        return Bar()


def test_an_interrupted_pretraining_ends_in_the_same_weights(tmp_path: Any) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "halves").mkdir()
    pretrain.run(FakeJob(tmp_path / "whole"))
    with pytest.raises(Stop):
        pretrain.run(FakeJob(tmp_path / "halves", laps=2))
    found = pretrain.run(FakeJob(tmp_path / "halves"))
    first, second = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "halves"))
    assert first.read_bytes() == second.read_bytes()
    assert found["tokens"] >= SMALL.tokens


def test_the_card_has_the_command_as_it_was_typed(tmp_path: Any) -> None:
    typed = ["stage=pretrain", "model=tiny_student", "pretrain.tokens=1000", "pretrain.start=a folder"]
    manifest = {"schema": 1, "seconds": 60, "threads": 2, "platform": "Linux-6", "overrides": typed, "git": None}
    write_text(tmp_path / "manifest.json", json.dumps(manifest))
    write_text(tmp_path / "metrics.json", json.dumps({"weights": 1e6, "tokens": 1e3, "copy_right": 0.5, "copy_n": 2}))
    job: Any = FakeJob(tmp_path)
    job.settings = SimpleNamespace(model=SimpleNamespace(name="tiny_student"))
    card = pretrain.card(job)
    command = "python train.py stage=pretrain model=tiny_student pretrain.tokens=1000 'pretrain.start=a folder'"
    assert f"    {command}\n" in card
    assert "| copy | 50.0% | 2 |" in card


def test_step_sizes_rise_hold_and_fall_to_zero() -> None:
    config = SMALL.model_copy(update={"warmup": 0.01, "decay": 0.4})
    at = [pretrain.pace(config, int(share * config.tokens)) for share in (0, 0.005, 0.5, 0.8, 1)]
    assert at == pytest.approx([0, 0.5, 1, 0.5, 0], abs=0.02)
