"""What counts as a key or a password, and what does not although it looks a little like one."""

from __future__ import annotations

import pytest

from stages._errors import UserError
from stages._secrets import BLOT, in_settings, redacted

TOKEN = "aB3" * 12
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "text",
    [
        f"hf_{TOKEN}",
        f"sk-{TOKEN}",
        f"sk-ant-api03-{TOKEN}",
        f"wandb_v1_{TOKEN}",
        f"ghp_{TOKEN}",
        f"github_pat_{TOKEN}",
        f"AKIA{'A1B2' * 4}",
        f"eyJ{TOKEN}.{TOKEN}.{TOKEN}",
        f"https://me:{TOKEN}@host/v1",
        f"https://{TOKEN}@host/v1",
        f"https://host/v1?token={TOKEN}&x=1",
        f"Authorization: Bearer {TOKEN}",
        f"api_key={TOKEN}",
        f'{{"password": "{TOKEN}"}}',
        f"WANDB_API_KEY={COMMIT}",
    ],
)
def test_a_key_is_taken_out_of_a_text_and_refused_in_a_setting(text):
    told = redacted(f"before {text} after")
    assert BLOT in told
    assert TOKEN not in told
    assert COMMIT not in told
    assert told.startswith("before ")
    assert told.endswith(" after")
    assert list(in_settings({"a": {"b": [1, text]}})) == ["a.b.1"]


@pytest.mark.parametrize(
    "name", ["hub_token", "api_key", "OPENAI_API_KEY", "password", "aws-secret", "trainer.hf_token"]
)
def test_what_is_called_a_key_is_one_whatever_it_looks_like(name):
    assert redacted({name: "abc", "rank": 8}) == {name: BLOT, "rank": 8}
    assert redacted({name: None, "x": ""}) == {name: None, "x": ""}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("eos_token", "<|im_end|>"),
        ("api_key_variable", "MY_KEY"),
        ("revision", COMMIT),
        ("path", f"/hub/models--a--b/snapshots/{COMMIT}"),
        ("digest", COMMIT + COMMIT[:24]),
        ("base_url", "http://localhost:8000/v1"),
        ("train", "task-list-of-many-words-in-a-row.jsonl"),
        ("note", "12,345 tokens: 678 of them trained"),
    ],
)
def test_words_that_only_resemble_keys_stay(name, text):
    assert redacted({name: text}) == {name: text}
    assert not list(in_settings({name: text}))


def test_the_value_of_a_variable_that_is_called_a_key_is_known_by_heart(monkeypatch):
    monkeypatch.setenv("MY_SERVICE_KEY", "no-known-shape-42")
    monkeypatch.setenv("CACHE_KEY", "tensorboard")  # a word, not a key
    monkeypatch.setenv("SSH_KEY", "/home/me/.ssh/id_ed25519")
    said = "no-known-shape-42 in tensorboard at /home/me/.ssh/id_ed25519"
    assert redacted(said) == f"{BLOT} in tensorboard at /home/me/.ssh/id_ed25519"
    assert UserError(f"the server refused {said}").lines == (f"the server refused {redacted(said)}",)


def test_a_whole_value_of_40_hexadecimal_digits_is_a_key_unless_it_is_a_commit():
    assert list(in_settings({"data": {"train": COMMIT, "revision": COMMIT}})) == ["data.train"]


def test_a_bug_is_shown_without_the_key_that_its_message_quotes(monkeypatch, capsys):
    import train

    def fails(_words):
        raise RuntimeError(f"401 for hf_{TOKEN}")

    monkeypatch.setattr(train, "_main", fails)
    monkeypatch.setattr(train.signal, "signal", lambda *_: None)
    assert train.main() == 1
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last):" in shown
    assert f"RuntimeError: 401 for {BLOT}" in shown
    assert TOKEN not in shown
