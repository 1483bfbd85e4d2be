"""The reward model: what its numbers mean, where the score is read and in what precision; slow, runs on a toy."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import types
from pathlib import Path
from typing import Any

import pytest

from stages import _model, _reward_model, _training, reward_model
from stages._errors import UserError
from stages._job import execute
from stages._metrics import kendall, sign
from stages._reward_model import calibration, spearman
from stages._shared_prompt import share_prompts
from tests import toys


def test_calibration_of_four_pairs_is_what_is_worked_out_by_hand() -> None:
    # p = sigmoid(d): 0.75, 0.25, 0.9, 0.9. Bins of confidence: [0.75, 0.8) with one right of two, and [0.9, 0.95).
    found = calibration([math.log(3), -math.log(3), math.log(9), math.log(9)])
    assert found["accuracy"] == 0.75
    assert found["brier"] == pytest.approx((0.0625 + 0.5625 + 0.01 + 0.01) / 4)
    assert found["loss"] == pytest.approx(-(math.log(0.75) + math.log(0.25) + 2 * math.log(0.9)) / 4)
    assert found["ece"] == pytest.approx((abs(1 - 1.5) + abs(2 - 1.8)) / 4)


def test_calibration_knows_no_pair_it_cannot_order_and_no_margin_too_large() -> None:
    assert calibration([0.0]) == {"accuracy": 0, "loss": pytest.approx(math.log(2)), "brier": 0.25, "ece": 0.5}
    assert calibration([-1e4])["loss"] == 1e4
    assert calibration([1e4]) == {"accuracy": 1, "loss": 0, "brier": 0, "ece": 0}
    with pytest.raises(ValueError, match="no margins"):
        calibration([])


@pytest.mark.parametrize(
    ("one", "other", "rho", "tau"),
    [
        ([1, 2, 3], [10, 20, 30], 1, 1),
        ([1, 2, 3], [3, 2, 1], -1, -1),
        # Squared rank differences 1, 1, 0, 0: 1 - 6 * 2 / (4 * 15); five pairs in order, one not.
        ([1, 2, 3, 4], [2, 1, 3, 4], 0.8, 4 / 6),
        # Ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4): 4.5 / sqrt(4.5 * 5); five pairs in order, one tied in the first.
        ([1, 2, 2, 3], [1, 2, 3, 4], math.sqrt(0.9), 5 / math.sqrt(5 * 6)),
        ([1, 1], [1, 2], None, None),
        ([], [], None, None),
    ],
)
def test_rank_correlations_are_what_is_worked_out_by_hand(
    one: list[float], other: list[float], rho: float | None, tau: float | None
) -> None:
    assert spearman(one, other) == (rho if rho is None else pytest.approx(rho))
    pairs = itertools.combinations(range(len(one)), 2)
    signs = [(sign(one[a] - one[b]), sign(other[a] - other[b])) for a, b in pairs]
    assert kendall(signs) == (tau if tau is None else pytest.approx(tau))


def test_a_share_of_the_requests_is_held_out_whatever_their_order() -> None:
    ids = [f"r{number}" for number in range(10)]
    held = reward_model.held_out_ids(ids, 0.3, 0)
    assert len(held) == 3
    assert held == reward_model.held_out_ids(ids[::-1], 0.3, 0) != reward_model.held_out_ids(ids, 0.3, 1)
    assert len(reward_model.held_out_ids(ids, 0.01, 0)) == 1
    assert len(reward_model.held_out_ids(ids, 0.99, 0)) == 9
    with pytest.raises(UserError, match="all pairs are of one request"):
        reward_model.held_out_ids(["r0"], 0.5, 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[_model.ModelConfig, Any, Path]:
    """A toy checkpoint, its tokenizer, and an adapter of fine-tuning that is not nothing."""
    import torch
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("reward model")
    config = _model.ModelConfig(path=str(toys.toy_checkpoint(folder / "model")), dtype="float32")
    torch.manual_seed(1)
    lora = LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear", task_type="CAUSAL_LM")
    _model.save_adapter(get_peft_model(_model.load_base(config), lora), folder / "adapter")
    return config, _model.load_tokenizer(config), folder / "adapter"


ROWS = [[5, 6, 7, 8, 1], [5, 6, 9, 1], [5, 6, 7, 7, 7, 7, 1]]


def test_it_starts_from_the_fine_tuned_adapter_and_scores_everything_0(place: Any) -> None:
    import torch

    config, tokenizer, adapter = place
    model = _reward_model.trainable(config, tokenizer, adapter).eval()
    tuned = _model.load_policy(config, adapter)
    ids = torch.tensor(ROWS[:1])
    with torch.no_grad():
        assert model(input_ids=ids).logits.tolist() == [[0.0]]
        own = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        theirs = tuned(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    assert torch.allclose(own, theirs, atol=1e-5)
    names = {name for name, one in model.named_parameters() if one.requires_grad}
    assert sum("score" in name for name in names) == 1
    assert all("lora_" in name or "score" in name for name in names)


def scorer(place: Any, pad: str | None = None) -> Any:
    """A reward model whose head is not 0; `pad` is what the tokenizer pads with."""
    import torch

    from data import dialects

    config, _, adapter = place
    tokenizer = _model.load_tokenizer(config)
    tokenizer.pad_token = pad or tokenizer.pad_token
    model = _reward_model.trainable(config, tokenizer, adapter).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "score" in name:
                one.copy_(torch.randn_like(one))
    return _reward_model.RewardModel(model, tokenizer, dialects.get("native"))


@pytest.mark.parametrize("pad", [None, "<|im_end|>"])
def test_the_score_is_read_at_the_last_token_whatever_rows_are_padded_with(place: Any, pad: str | None) -> None:
    import torch

    found = scorer(place, pad)
    end = found.tokenizer.convert_tokens_to_ids("<|im_end|>")
    rows = [[*row[:-1], end] for row in ROWS]
    base = found.model.get_base_model()
    head = base.score.modules_to_save["default"].weight[0]
    by_hand = []
    for row in rows:
        with torch.no_grad():
            by_hand.append((base.model(input_ids=torch.tensor([row])).last_hidden_state[0, -1] @ head).item())
    assert found.score_ids(rows) == pytest.approx(by_hand, abs=1e-4)
    assert found.score_ids(rows[::-1]) == pytest.approx(by_hand[::-1], abs=1e-4)


def test_a_score_has_the_precision_of_float32_within_autocast(place: Any) -> None:
    import torch

    found = scorer(place)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = found.model(input_ids=torch.tensor(ROWS[:1])).logits
    assert logits.dtype == torch.float32
    assert logits.item() != logits.to(torch.bfloat16).item()


def test_a_completion_is_scored_behind_the_prompt_that_generation_reads(place: Any) -> None:
    from data.transcript import Expected, Message, Request
    from stages import _sampling

    found = scorer(place)
    request = Request("r", "", (), (Message("user", "Hello! <|im_end|>"),), Expected("answer"))
    prompt = _sampling.encode(found.tokenizer, _sampling.prompt_of(found.tokenizer, found.dialect, request))
    end = _sampling.turn_end(found.tokenizer).ids
    welcome, no = (_sampling.encode(found.tokenizer, text) for text in ("Welcome.", "No."))
    said = [_sampling.Completion(text, -1.0, 3, False) for text in ("Welcome.", "No.")]
    assert found.score([request] * 2, said) == found.score_ids([[*prompt, *ids, *end] for ids in (welcome, no)])
    with pytest.raises(ValueError, match="zip"):
        found.score([request], said)
    cut_off = _sampling.Completion("Welcome.", -1.0, 3, True)  # whose end of turn nobody said
    assert found.score([request], [cut_off]) == found.score_ids([[*prompt, *welcome]])
    assert found.score([request], [cut_off]) != found.score([request], said[:1])


def test_the_loss_is_that_of_the_pairs_scores_and_sharing_prompts_changes_nothing(place: Any, tmp_path: Path) -> None:
    import torch
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer
    from trl.trainer.reward_trainer import DataCollatorForPreference

    found = scorer(place)
    pairs = [{"chosen_ids": ROWS[0], "rejected_ids": ROWS[1]}, {"chosen_ids": ROWS[1], "rejected_ids": ROWS[2]}]
    scores = found.score_ids([pair[side] for pair in pairs for side in ("chosen_ids", "rejected_ids")])
    losses = [
        math.log1p(math.exp(other - one)) + 0.5 * (one + other) ** 2
        for one, other in zip(scores[::2], scores[1::2], strict=True)
    ]
    args = RewardConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
        center_rewards_coefficient=0.5, max_length=None,
    )  # fmt: skip
    trainer = _training.ordered(RewardTrainer, [7, 7])(
        model=found.model,
        args=args,
        train_dataset=Dataset.from_list(pairs),
        processing_class=found.tokenizer,
        data_collator=DataCollatorForPreference(_reward_model.padding(found.tokenizer)),
    )
    batch = trainer.data_collator(pairs)
    assert trainer.compute_loss(trainer.model, dict(batch)).item() == pytest.approx(sum(losses) / 2, rel=1e-4)
    assert share_prompts(trainer.model) is None
    with torch.no_grad():
        assert trainer.compute_loss(trainer.model, dict(batch)).item() == pytest.approx(sum(losses) / 2, rel=1e-4)


def test_an_architecture_without_a_score_is_a_users_mistake(tmp_path: Path) -> None:
    path = toys.toy_checkpoint(tmp_path / "model", "tiny_aya")
    config = _model.ModelConfig(path=str(path), dialect="json")
    with pytest.raises(UserError, match=r"model\.path: transformers has no .* that ends in a score"):
        _reward_model.scored_base(config, _model.load_tokenizer(config))


def test_a_tokenizer_that_pads_with_the_end_of_turn_gets_another_padding() -> None:
    tokenizer = toys.toy_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert _reward_model.padding(tokenizer) == tokenizer.pad_token_id != end
    tokenizer.pad_token = "<|im_end|>"
    assert _reward_model.padding(tokenizer) != end


def test_pairs_are_counted_by_kind_and_what_is_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from stages import _preference

    def pair_rows(_tokenizer: Any, rows: Any, _length: int) -> Any:
        short = [row["ids"] for row in rows if "ids" in row]
        return [{"prompt_ids": [0], "chosen_ids": [one], "rejected_ids": [other]} for one, other in short], None

    monkeypatch.setattr(_preference, "pair_rows", pair_rows)
    model: Any = types.SimpleNamespace(tokenizer=None, score_ids=lambda rows: [float(sum(row)) for row in rows])
    job: Any = types.SimpleNamespace(
        say=print, settings=types.SimpleNamespace(model=types.SimpleNamespace(max_length=9))
    )
    rows = [{"kind": "a", "ids": (2, 1)}, {"kind": "a", "ids": (1, 2)}, {"kind": "b", "ids": (5, 1)}, {"kind": "b"}]
    found = reward_model._pairs_ordered(job, model, rows)
    assert (found["held_out_pairs"], found["held_out_pairs_left_out"]) == (3, 1)
    assert (found["pair_accuracy_a"], found["pair_accuracy_b"]) == (0.5, 1)
    assert found["pair_accuracy"] == pytest.approx(2 / 3)
    assert (found["held_out_pairs_a"], found["held_out_pairs_b"]) == (2, 1)


def test_held_out_requests_that_are_not_of_the_data_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data import dialects, load
    from data.transcript import Expected, Message, Request
    from rewards import RewardConfig

    def request(name: str) -> Request:
        return Request(name, "", (), (Message("user", "Hello!"),), Expected("answer", text="Welcome."))

    data = types.SimpleNamespace(preference=[request("a"), request("b"), request("trained on")])
    monkeypatch.setattr(load, "load", lambda _: data)
    said = [("a", "Welcome.", False), ("a", "Welcome.", True), ("a", "Welcome.", True), ("b", "No.", False)]
    said += [("unlabelled/0/u", "Hm.", False), ("trained on", "Hm.", False)]
    rows = [
        {"id": id_, "completion": text, "logprob": -1.0, "tokens": 3, "truncated": cut_off}
        for id_, text, cut_off in said
    ]
    (tmp_path / "candidates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored: list[tuple[str, bool]] = []

    def score(requests: Any, completions: Any) -> list[float]:
        scored.extend((one.id, each.truncated) for one, each in zip(requests, completions, strict=True))
        return [float(number) for number in range(len(requests))]

    model: Any = types.SimpleNamespace(dialect=dialects.get("native"), score=score)
    settings = types.SimpleNamespace(data=None, reward=RewardConfig())
    job: Any = types.SimpleNamespace(settings=settings, parent=lambda _: tmp_path, say=print)
    found = reward_model._agreement(job, model, {"a", "b", "unlabelled/0/u"})
    assert scored == [("a", False), ("a", True), ("b", False)]
    assert (found["table_candidates"], found["table_requests_left_out"]) == (3, 1)


# ----- slow: whole runs -----

MODEL = {"quantization": "none", "micro_batch": 4}
FEW = {"limit": 4, "max_new_tokens": 24}


def run_stage(folder: Path, stage: str = "reward_model", model: dict[str, Any] = MODEL, **more: Any) -> dict[str, Any]:
    own = {"epochs": 3, "batch_size": 4, "log_every": 1, "held_out": 0.3}
    blocks = {"pairs": {"samples": 2, "max_new_tokens": 24}, "reward_model": own} | more
    return execute(stage, toys.toy_settings(folder, stage, folder / "model", model=model, **blocks))


def digest(folder: Path) -> str:
    path = folder / "runs/toy/reward_model/adapter/adapter_model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tuned(folder: Path, model: dict[str, Any] = MODEL) -> None:
    checkpoint = toys.toy_checkpoint(folder / "model")
    execute("sft", toys.toy_settings(folder, "sft", checkpoint, model=model, sft={"max_steps": 4, "batch_size": 8}))


@pytest.mark.slow
def test_grpo_brings_it_it_goes_on_after_an_interruption_and_peft_alone_loads_it(tmp_path: Path) -> None:
    tuned(tmp_path)
    metrics = run_stage(tmp_path)
    assert metrics["loss_first"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["loss_last"] < metrics["loss_first"]
    assert 0 <= metrics["pair_accuracy"] <= 1
    assert metrics["held_out_pairs"] > 0 < metrics["table_candidates"]
    whole = digest(tmp_path)

    (tmp_path / "runs/toy/reward_model").rename(tmp_path / "before")
    with toys.interrupted("toy/reward_model", 2):
        run_stage(tmp_path)
    few = {"reward": "model", "group_size": 4, "batch_size": 8, "max_steps": 2, "max_new_tokens": 12}
    reinforced = run_stage(tmp_path, "grpo", grpo=few, evaluate=FEW)
    assert digest(tmp_path) == whole
    assert reinforced["reward_last"] != reinforced["sampled_points"]
    assert by_peft_alone(tmp_path) == pytest.approx(by_ours(tmp_path), abs=1e-4)


IDS = [[40, 41, 42, 43, 44, 45], [40, 41, 50, 51, 52, 53]]


def by_ours(folder: Path) -> list[float]:
    config = _model.ModelConfig(path=str(folder / "model"))
    return _reward_model.RewardModel.load(folder / "runs/toy/reward_model", config).score_ids(IDS)


def by_peft_alone(folder: Path) -> list[float]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=1)
    model = PeftModel.from_pretrained(base, folder / "runs/toy/reward_model/adapter").eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS)).logits[:, 0].tolist()


@pytest.mark.slow
def test_in_4_bits_it_is_trained_and_read_back(tmp_path: Path) -> None:
    model = {"quantization": "nf4", "micro_batch": 4}
    tuned(tmp_path, model)
    metrics = run_stage(tmp_path, model=model)
    assert metrics["loss_first"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["loss_last"] < metrics["loss_first"]
