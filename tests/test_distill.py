"""Distillation: divergences, features, the trainer's sums, what is learned from; and, slow, whole runs on toys."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import ValidationError

from data import dialects
from data.transcript import AcceptedCall, Expected, Message, Request, Tool, ToolCall, Transcript
from rewards import RewardConfig
from stages import _features, _scoring, _student, _teaching, distill
from stages._divergence import Targets, divergence, targets
from stages._errors import UserError
from stages._job import execute
from stages._rows import IGNORED, Row
from stages._sampling import Completion, completion_of, encode, prompt_of
from stages._soft_targets import store
from tests import toys

# ----- divergences, by hand -----


def kl(p: list[float], q: list[float]) -> float:
    return sum(one * math.log(one / other) for one, other in zip(p, q, strict=True))


def softened(p: list[float], temperature: float) -> list[float]:
    raised = [one ** (1 / temperature) for one in p]
    return [one / sum(raised) for one in raised]


TEACHER, STUDENT = [0.7, 0.2, 0.08, 0.02], [0.4, 0.1, 0.2, 0.3]


def by_hand(kind: str, p: list[float], q: list[float]) -> float:
    m = [(one + other) / 2 for one, other in zip(p, q, strict=True)]
    return {"forward_kl": kl(p, q), "reverse_kl": kl(q, p), "jsd": (kl(p, m) + kl(q, m)) / 2}[kind]


def logits(p: list[float]) -> Any:
    import torch

    return torch.tensor([p]).log() + 3.0  # a constant added changes no distribution


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_a_divergence_is_what_its_formula_gives_times_the_temperature_squared(kind: Any, temperature: float) -> None:
    found = divergence(kind, logits(STUDENT), targets(logits(TEACHER), temperature, None), temperature)
    wanted = temperature**2 * by_hand(kind, softened(TEACHER, temperature), softened(STUDENT, temperature))
    assert found.tolist() == pytest.approx([wanted], rel=1e-5)
    assert divergence(kind, logits(TEACHER), targets(logits(TEACHER), temperature, None), temperature).item() < 1e-6


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_beyond_the_likeliest_tokens_of_the_teacher_all_are_one(kind: Any) -> None:
    known = targets(logits(TEACHER), 1.0, 2)
    assert known.tokens is not None
    assert known.tokens.tolist() == [[0, 1]]
    assert known.logprobs.exp().tolist()[0] == pytest.approx([0.7, 0.2, 0.1])
    found = divergence(kind, logits(STUDENT), known, 1.0).item()
    assert found == pytest.approx(by_hand(kind, [0.7, 0.2, 0.1], [0.4, 0.1, 0.5]), rel=1e-5)
    assert found < divergence(kind, logits(STUDENT), targets(logits(TEACHER), 1.0, None), 1.0).item()
    assert targets(logits(TEACHER), 1.0, 4).tokens is None


def test_the_forward_divergence_pulls_each_logit_by_the_difference_of_probabilities() -> None:
    import torch

    student = logits(STUDENT).requires_grad_()
    divergence("forward_kl", student, targets(logits(TEACHER), 1.0, None), 1.0).sum().backward()
    wanted = [q - p for p, q in zip(TEACHER, STUDENT, strict=True)]
    assert student.grad is not None
    assert student.grad.tolist()[0] == pytest.approx(wanted, abs=1e-6)
    sure = torch.tensor([[60.0, 0.0, 0.0, 0.0]])  # so sure that 1 - p is 0 in float32
    student.grad = None
    divergence("forward_kl", student, targets(sure, 1.0, 1), 1.0).sum().backward()
    assert student.grad.tolist()[0][0] == pytest.approx(0.4 - 1, abs=1e-5)


def test_divergences_are_those_of_trl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its beta is the teacher's weight in the mixture: 0 forward, 1 reverse. It leaves out the factor T^2."""
    import torch

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.gkd import GKDTrainer

    torch.manual_seed(0)
    one, other = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    labels = torch.tensor([[1, 1, IGNORED], [IGNORED, 1, 1]])
    for kind, beta in (("forward_kl", 0.0), ("jsd", 0.5), ("reverse_kl", 1.0)):
        theirs = GKDTrainer.generalized_jsd_loss(one, other, labels, beta=beta, temperature=2.0, reduction="sum")
        kept = labels != IGNORED
        ours = divergence(kind, one[kept], targets(other[kept], 2.0, None), 2.0)  # type: ignore[arg-type]
        assert ours.sum().item() == pytest.approx(4 * theirs.item(), rel=1e-5)


# ----- features, by hand -----


def test_the_distance_of_hidden_states_is_relative_to_the_teachers_length() -> None:
    import torch

    maps = _features.projections(2, 3, 1, seed=0)
    with torch.no_grad():
        maps[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    student, teacher = torch.zeros(1, 2, 2), torch.zeros(1, 2, 3)
    student[0, 1] = torch.tensor([1.0, 2.0])  # projected: 1, 2, 3
    teacher[0, 1] = torch.tensor([2.0, 2.0, 1.0])  # 9 long squared; 1 + 0 + 4 away squared
    chosen = torch.tensor([[False, True]])
    mse, cosine = (
        _features.feature_loss(maps, [(0, 0)], [student], [teacher], chosen, distance).tolist()
        for distance in ("mse", "cosine")
    )
    assert mse == pytest.approx([5 / 9])
    assert cosine == pytest.approx([1 - (2 + 4 + 3) / math.sqrt(14 * 9)])


def test_the_loss_is_the_mean_over_pairs_of_layers() -> None:
    import torch

    maps = _features.projections(2, 2, 2, seed=0)
    states = [torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    chosen = torch.ones(1, 3, dtype=torch.bool)
    single = [
        _features.feature_loss(maps[n : n + 1], [(n, n)], states[:2], states[2:], chosen, "mse") for n in range(2)
    ]
    both = _features.feature_loss(maps, [(0, 0), (1, 1)], states[:2], states[2:], chosen, "mse")
    assert torch.allclose(both, (single[0] + single[1]) / 2)


def test_layers_that_are_not_there_are_named() -> None:
    with pytest.raises(UserError, match=r"distill.feature_layers: \[3, 1\] names no pair .* student has 0 to 2"):
        _features.layer_pairs([[1, 1], [3, 1]], 2, 4)
    assert _features.layer_pairs([[0, 4]], 2, 4) == [(0, 4)]


def test_the_seed_decides_the_projections() -> None:
    first, again, other = (_features.projections(4, 8, 1, seed)[0].weight for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


# ----- the trainer -----

ROWS = [
    Row([5, 6, 7, 8, 9, 10], [IGNORED] * 3 + [8, 9, 10]),
    Row([5, 6, 7, 11, 12], [IGNORED] * 4 + [12]),
    Row([6, 7, 5, 9, 8, 7, 6, 5], [IGNORED] * 2 + [5, 9, 8, 7, 6, 5]),
    Row([7, 7, 8, 9], [IGNORED] * 2 + [8, 9]),
]


def small_models() -> tuple[Any, Any, Any]:
    """A student with an adapter that does something, a teacher, and the tokenizer of both."""
    import torch
    from peft import LoraConfig, get_peft_model

    tokenizer = toys.toy_tokenizer()
    torch.manual_seed(3)
    lora = LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear", task_type="CAUSAL_LM")
    student = get_peft_model(toys.toy_model("toy", len(tokenizer), hidden=64, layers=2), lora)
    teacher = toys.toy_model("toy", len(tokenizer), hidden=128, layers=3).eval().requires_grad_(False)
    with torch.no_grad():
        for one in teacher.parameters():  # further from uniform than fresh weights are
            one.mul_(2.0)
    return student, teacher, tokenizer


def trainer_of(folder: Path, goal: Any, student: Any, tokenizer: Any, micro: int, **more: Any) -> Any:
    from datasets import Dataset
    from trl import SFTConfig

    args = SFTConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
        max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, per_device_train_batch_size=micro,
        gradient_accumulation_steps=len(ROWS) // micro, pad_to_multiple_of=32, **more,
    )  # fmt: skip
    columns = {
        "input_ids": [row.input_ids for row in ROWS],
        "labels": [row.labels for row in ROWS],
        "row": list(range(len(ROWS))),
    }
    return _student.student_trainer(goal)(
        model=student, args=args, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer
    )


def step_of(trainer: Any) -> tuple[float, Any]:
    """Loss and gradients of one whole step, as the Trainer accumulates it."""
    import torch

    trainer.model.train()
    trainer.model.zero_grad()
    trainer.state.global_step = 0
    loader = trainer.accelerator.prepare(trainer.get_train_dataloader())
    parts = trainer.args.gradient_accumulation_steps
    batches, count = trainer.get_batch_samples(iter(loader), parts, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = parts
    loss = sum(trainer.training_step(trainer.model, batch, count).item() for batch in batches)
    return loss, {name: one.grad.clone() for name, one in trainer.model.named_parameters() if one.requires_grad}


def goals(teacher: Any, vocabulary: int) -> dict[str, Any]:
    maps = _features.projections(64, 128, 2, seed=0)
    everywhere = _student.Features(maps, [(1, 1), (2, 3)], "mse", 0.5, everywhere=True)
    answers = _student.Features(maps, [(0, 0), (2, 3)], "cosine", 0.5, everywhere=False)
    soft = _student.Logits("jsd", 2.0, 16, vocabulary)
    own = _student.OwnAnswers(1.0, 0, 1.0, 4, frozenset({0}), (0,))
    return {
        "response": _student.Goal(1.0),
        "logit": _student.Goal(0.5, teacher, logits=soft),
        "on_policy": _student.Goal(0.5, teacher, logits=soft, own=own),
        "feature": _student.Goal(1.0, teacher, features=answers),
        "feature_everywhere": _student.Goal(1.0, teacher, features=everywhere),
    }


@pytest.mark.parametrize("name", ["response", "logit", "on_policy", "feature", "feature_everywhere"])
def test_a_step_is_the_same_in_one_batch_and_accumulated_from_several(name: str, tmp_path: Path) -> None:
    import torch

    found = []
    for micro in (4, 2, 1):
        student, teacher, tokenizer = small_models()
        goal = goals(teacher, 1024)[name]
        found.append(step_of(trainer_of(tmp_path, goal, student, tokenizer, micro)))
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=1e-6)
        assert gradients.keys() == found[0][1].keys()
        for key, gradient in gradients.items():
            assert torch.allclose(gradient, found[0][1][key], atol=1e-6), key
    assert all(gradient.abs().max() > 0 for key, gradient in found[0][1].items() if "projections" in key)
    assert any("projections" in key for key in found[0][1]) == name.startswith("feature")


def test_the_loss_is_the_sum_of_its_parts_over_the_tokens_of_the_step(tmp_path: Path) -> None:
    import torch

    student, teacher, tokenizer = small_models()
    loss, _ = step_of(trainer_of(tmp_path, goals(teacher, 1024)["logit"], student, tokenizer, 2))
    nll, parting, tokens = 0.0, 0.0, 0
    with torch.no_grad():
        for row in ROWS:
            ids = torch.tensor([row.input_ids])
            ours, theirs = student(input_ids=ids).logits[0].float(), teacher(input_ids=ids).logits[0].float()
            for place, label in enumerate(row.labels):
                if label != IGNORED:
                    p, q = theirs[place - 1 : place] / 2, ours[place - 1 : place]
                    nll -= q.log_softmax(-1)[0, label].item()
                    parting += divergence("jsd", q, targets(2 * p, 2.0, 16), 2.0).item()
                    tokens += 1
    assert tokens == 12
    assert loss == pytest.approx((0.5 * nll + parting) / tokens, abs=1e-5)


def test_on_its_own_answers_the_student_has_the_divergence_alone(tmp_path: Path) -> None:
    import torch

    student, teacher, tokenizer = small_models()
    trainer = trainer_of(tmp_path, goals(teacher, 1024)["on_policy"], student, tokenizer, 2)
    loader = trainer.accelerator.prepare(trainer.get_train_dataloader())
    batches, count = trainer.get_batch_samples(iter(loader), 2, torch.device("cpu"))
    prompts = {tuple(row.input_ids[: row.labels.index(label)]) for row in ROWS for label in row.labels if label >= 0}
    answered = 0
    for batch in batches:
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            first = int((labels != IGNORED).int().argmax())
            assert tuple(ids[:first].tolist()) in prompts
            answer = labels[labels != IGNORED]
            assert answer.equal(ids[first : int(mask.sum())])
            assert 1 <= len(answer) <= 4
            answered += len(answer)
    assert int(count) == answered
    trainer.compute_loss(trainer.model, batches[0], num_items_in_batch=count)
    assert set(trainer._metrics["train"]) == {"jsd"}

    def by_row(step: int) -> dict[int, list[int]]:
        trainer.state.global_step = step
        found, _ = trainer.get_batch_samples(iter(loader), 2, torch.device("cpu"))
        rows = [pair for batch in found for pair in zip(batch["row"], batch["labels"], strict=True)]
        return {int(row): labels[labels != IGNORED].tolist() for row, labels in rows}

    assert by_row(0) == by_row(0)
    assert by_row(0).keys() == by_row(1).keys() == set(range(len(ROWS)))
    assert by_row(0) != by_row(1)


def test_plain_fine_tuning_is_trls_own_loss(tmp_path: Path) -> None:
    import torch

    student, _, tokenizer = small_models()
    loss, _ = step_of(trainer_of(tmp_path, _student.Goal(1.0), student, tokenizer, 2))
    nll = 0.0
    with torch.no_grad():
        for row in ROWS:
            logprobs = student(input_ids=torch.tensor([row.input_ids])).logits[0].float().log_softmax(-1)
            nll -= sum(logprobs[n - 1, label].item() for n, label in enumerate(row.labels) if label != IGNORED)
    assert loss == pytest.approx(nll / 12, abs=1e-5)


def test_projections_are_optimised_saved_in_checkpoints_and_taken_up_again(tmp_path: Path) -> None:
    import torch

    student, teacher, tokenizer = small_models()
    goal = goals(teacher, 1024)["feature"]
    trainer = trainer_of(tmp_path, goal, student, tokenizer, 2, max_steps=2, save_steps=2, learning_rate=1e-2)
    before = [one.detach().clone() for one in goal.features.maps.parameters()]
    trainer.train()
    after = [one.detach().clone() for one in goal.features.maps.parameters()]
    assert all((one - other).abs().max() > 1e-3 for one, other in zip(before, after, strict=True))
    adapter = (tmp_path / "checkpoint-2" / "adapter_model.safetensors").read_bytes()
    assert b"projections" not in adapter

    student, teacher, tokenizer = small_models()
    goal = goals(teacher, 1024)["feature"]
    fresh = trainer_of(tmp_path, goal, student, tokenizer, 2)
    fresh._load_from_checkpoint(str(tmp_path / "checkpoint-2"))
    assert all(one.equal(other) for one, other in zip(goal.features.maps.parameters(), after, strict=True))
    assert torch.equal(fresh.model.projections[0].weight, after[0])


def test_logits_are_computed_where_answers_are_predicted_and_nowhere_else() -> None:
    import torch

    labels = torch.full((2, 128), IGNORED)
    labels[0, 70], labels[1, 75] = 5, 6
    assert _student.answer_columns(labels).tolist() == list(range(43, 75))  # 69 to 74, and 32 in all
    assert _student.predicts(labels).nonzero().tolist() == [[0, 69], [1, 74]]
    labels[0, 1] = 5
    assert _student.answer_columns(labels).tolist() == list(range(75))


def test_own_answers_depend_on_their_names_alone_and_leave_the_model_as_it_was() -> None:
    student, _, _ = small_models()
    student.train()
    own = _student.OwnAnswers(0.5, 0, 1.0, 6, frozenset({0}), (0,))
    whole = _student.own_answers(student, [[5, 6], [7, 8, 9]], ["a", "b"], own)
    assert student.training
    assert _student.own_answers(student, [[7, 8, 9]], ["b"], own) == whole[1:]
    assert _student.own_answers(student, [[7, 8, 9]], ["c"], own) != whole[1:]
    assert all(1 <= len(answer) <= 7 for answer in whole)


# ----- distributions on disk -----


class Caching:
    """As much of a job as storing uses."""

    def __init__(self, folder: Path) -> None:
        self.cache = folder
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, items: Any, *_: Any) -> Any:
        return items


def test_stored_distributions_are_the_teachers_and_are_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from stages import _soft_targets

    monkeypatch.setattr(_soft_targets, "_PART", 3)
    _, teacher, _ = small_models()
    how = _student.Logits("forward_kl", 2.0, 8, 1000)
    asked: list[int] = []

    def asker() -> Any:
        def ask(rows: Any) -> list[Targets]:
            asked.append(len(rows))
            if len(asked) == 2 and len(rows) == 1:
                raise KeyboardInterrupt
            return _student.taught_rows(teacher, how, rows, 2, 0)

        return ask

    job: Any = Caching(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store(job, ROWS, {"k": 8}, asker)
    asked.append(0)
    found = store(job, ROWS, {"k": 8}, asker)
    assert asked == [3, 1, 0, 1]  # the part that was there is not asked for again
    assert job.said == ["1 of 2 parts of the teacher's distributions are there"]
    store(job, ROWS, {"k": 8}, asker)
    assert asked == [3, 1, 0, 1]
    stored = found.of([2, 3, 0])
    assert stored.tokens is not None
    wanted = []
    for number in (2, 3, 0):
        row = ROWS[number]
        with torch.no_grad():
            raw = teacher(input_ids=torch.tensor([row.input_ids])).logits[0, :, :1000]
        wanted.append(raw[[place - 1 for place, label in enumerate(row.labels) if label != IGNORED]])
    direct = targets(torch.cat(wanted), 2.0, 8)
    assert direct.tokens is not None
    assert stored.tokens.equal(direct.tokens)
    assert torch.allclose(stored.logprobs, direct.logprobs, atol=1e-5)
    assert stored.logprobs.shape == (6 + 2 + 3, 9)


def test_a_step_on_stored_distributions_is_one_on_the_teachers_own(tmp_path: Path) -> None:
    import torch

    how = _student.Logits("forward_kl", 1.5, 8, 1000)
    student, teacher, tokenizer = small_models()
    loss, gradients = step_of(trainer_of(tmp_path, _student.Goal(0.5, teacher, logits=how), student, tokenizer, 2))
    job: Any = Caching(tmp_path / "cache")
    stored = store(job, ROWS, {}, lambda: lambda rows: _student.taught_rows(teacher, how, rows, 3, 0))
    student, _, _ = small_models()
    goal = _student.Goal(0.5, logits=_student.Logits("forward_kl", 1.5, 8, 1000, stored))
    again, others = step_of(trainer_of(tmp_path, goal, student, tokenizer, 2))
    assert again == pytest.approx(loss, abs=1e-6)
    assert all(torch.allclose(one, others[key], atol=1e-6) for key, one in gradients.items())


# ----- what is learned from -----

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = Tool("get_weather", "Weather.", CITY)
ASK = (Message("user", "What is the weather in Oslo?"),)
CALL = Message("assistant", tool_calls=(ToolCall("get_weather", {"city": "Oslo"}),))
NEEDED = Request(
    "r", "", (TOOL,), ASK, Expected("call", (AcceptedCall("get_weather", {"city": ["Oslo", "oslo"]}),)), CALL
)


def call(name: str = "get_weather", **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def scored(text: str, truncated: bool = False, request: Request = NEEDED) -> Any:
    return _scoring.score_one(request, Completion(text, 0.0, 9, truncated), dialects.get("native"), RewardConfig())


@pytest.mark.parametrize(
    ("text", "truncated", "reason"),
    [
        (call(city="Oslo"), False, None),
        (call(city="oslo"), False, None),
        (call(city="Oslo"), True, "cut_off"),
        ('<tool_call>\n{"name": "get_weather", "argu', False, "format"),
        (call("get_wether", city="Oslo"), False, "schema"),
        (call(town="Oslo"), False, "schema"),
        (call(city="Bergen"), False, "ungrounded"),
        (call(city="weather"), False, "outcome"),
        ("It is sunny.", False, "outcome"),
        (call(city="Oslo") + "\n" + call(city="Oslo"), False, "outcome"),
    ],
)
def test_an_answer_is_left_out_for_the_first_rule_that_it_breaks(
    text: str, truncated: bool, reason: str | None
) -> None:
    assert _teaching.fault(NEEDED, scored(text, truncated)) == reason


def teach(texts: list[str], gold: Any, request: Request = NEEDED, **more: Any) -> Any:
    tokenizer = toys.toy_tokenizer()
    rows = [[scored(text, request=request) for text in texts]]
    how = {"max_length": 512, "translate": False} | more
    return _teaching.teach([request], rows, gold, tokenizer, dialects.get("native"), **how)


def test_right_answers_become_rows_once_each_and_every_other_is_counted() -> None:
    tokenizer, native = toys.toy_tokenizer(), dialects.get("native")
    taught = teach([call(city="Oslo"), call(city="Oslo"), call(city="oslo"), "No."], "all")
    assert (taught.from_teacher, taught.from_gold, taught.unanswered) == (2, 0, 0)  # the data's turn is the first one
    assert taught.left_out == {"duplicate": 1, "outcome": 1}
    assert [row["left_out"] for row in taught.answers] == [None, "duplicate", None, "outcome"]
    row = taught.rows[0]
    prompt = encode(tokenizer, prompt_of(tokenizer, native, NEEDED))
    assert row.input_ids[: len(prompt)] == prompt
    assert row.labels == [IGNORED] * len(prompt) + row.input_ids[len(prompt) :]
    assert tokenizer.decode(row.input_ids[len(prompt) :]) == call(city="Oslo") + "<|im_end|>"


@pytest.mark.parametrize(
    ("texts", "gold", "kept"),
    [
        (["No."], "none", (0, 0, 1)),
        (["No."], "missing", (0, 1, 0)),
        ([call(city="oslo")], "missing", (1, 0, 0)),
        ([call(city="oslo")], "all", (1, 1, 0)),
        ([], "missing", (0, 1, 0)),
    ],
)
def test_the_turn_of_the_data_is_learned_from_where_it_is_wanted(
    texts: list[str], gold: str, kept: tuple[int, int, int]
) -> None:
    taught = teach(texts, gold)
    assert (taught.from_teacher, taught.from_gold, taught.unanswered) == kept
    assert len(taught.rows) == taught.counts.kept == kept[0] + kept[1]


def test_rows_that_are_too_long_are_counted() -> None:
    taught = teach([call(city="Oslo")], "missing", max_length=20)
    assert (taught.counts.total, taught.counts.kept, taught.counts.too_long) == (2, 0, 2)
    assert taught.unanswered == 1
    with pytest.raises(UserError, match=r"distill.max_dropped: 2 of 2 rows"):
        taught.counts.check(0.1, "distill.max_dropped")


def test_a_teacher_with_another_template_is_learned_from_in_the_students_own_words() -> None:
    tokenizer, native = toys.toy_tokenizer(), dialects.get("native")
    spaced = call(city="Oslo").replace(": ", ":   ")
    taught = teach([spaced, call(city="Oslo")], "none", translate=True)
    assert taught.left_out == {"duplicate": 1}
    assert taught.answers[0]["completion"] == completion_of(tokenizer, native, NEEDED, CALL)


def test_every_turn_of_the_data_is_asked_once() -> None:
    final = Message("assistant", "It is 3.")
    whole = Transcript("t", (TOOL,), (*ASK, CALL, Message("tool", "3"), final))
    twice = Request("t/1", "", (TOOL,), whole.messages[:3], Expected("answer"), final)

    class Data:
        sft, preference = [whole], [twice, NEEDED]

    assert [request.id for request in _teaching.all_requests(Data())] == ["t/0", "t/1", "r"]  # type: ignore[arg-type]


# ----- settings -----


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"samples": 0}, "samples: kind=response learns"),
        ({"kind": "logit", "samples": 0, "gold": "none"}, "gold: neither answers"),
        ({"cross_entropy": 0.5}, "cross_entropy: kind=response"),
        ({"on_policy": 0.5}, "on_policy: only kind=logit"),
        ({"divergence": "jsd"}, "divergence: only kind=logit"),
        ({"kind": "feature", "top_k": 8, "loss_temperature": 2.0}, "loss_temperature: only kind=logit.*top_k: only"),
        ({"kind": "logit", "feature_layers": [[1, 1]]}, "feature_layers: only kind=feature"),
        ({"feature_tokens": "all", "feature_loss": "cosine"}, "feature_tokens: only kind=feature.*feature_loss: only"),
        ({"kind": "logit", "feature_weight": 1.0}, "feature_weight: only kind=feature"),
        ({"kind": "logit", "store": True}, "store: only kind=logit"),
        ({"kind": "feature", "feature_layers": [[1, 2, 3]]}, "feature_layers: pairs of layers"),
        (
            {"kind": "logit", "sampler": "openai", "base_url": "http://localhost/v1", "endpoint_model": "m"},
            "sampler: an endpoint tells its answers alone",
        ),
        ({"sampler": "openai"}, "distill.base_url=http"),
    ],
)
def test_settings_that_do_nothing_or_contradict_each_other_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        distill.Config(**settings)


def settings_of(folder: Path, teacher: Path, **more: Any) -> Any:
    blocks = {"pairs": {"samples": 2, "max_new_tokens": 24}, "evaluate": {"limit": 6, "max_new_tokens": 24}}
    blocks |= {"dpo": {"epochs": 1, "batch_size": 4, "log_every": 1, "guard": "off"}}
    return toys.toy_settings(folder, "distill", teacher, model={"micro_batch": 4}, distill=more, **blocks)


def test_the_embedded_student_that_is_not_there_names_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "EMBEDDED", "assets/nobody")
    for place, way_out in (
        ("assets/nobody", "make it: python train.py stage=pretrain model=tiny_student"),
        ("./x", ""),
    ):
        with pytest.raises(UserError) as error:
            distill.refuse(settings_of(tmp_path, tmp_path, student=place), {})
        (line,) = error.value.lines
        assert line.startswith(f"distill.student: no such folder: {place}; {way_out}")


def test_a_teacher_that_is_not_there_says_what_to_run_first(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    settings = settings_of(tmp_path, tmp_path / "model", student=str(tmp_path / "model"))
    with pytest.raises(UserError, match=r"run first: python train.py stage=sft run=toy"):
        distill.refuse(settings, {})


def test_a_student_with_other_tokens_learns_answers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "require", lambda *_: {})
    for name, family in (("one", "toy"), ("same", "toy"), ("other", "qwen3")):
        (tmp_path / name).mkdir()
        toys.toy_model(family, 1100, 64, 1).config.save_pretrained(tmp_path / name)
        toys.toy_tokenizer(family).save_pretrained(tmp_path / name)
    for kind, student in (("logit", "same"), ("response", "other")):
        distill.refuse(settings_of(tmp_path, tmp_path / "one", kind=kind, student=str(tmp_path / student)), {})
    with pytest.raises(UserError, match=r"has other tokens .* choose distill.kind=response") as error:
        distill.refuse(settings_of(tmp_path, tmp_path / "one", kind="feature", student=str(tmp_path / "other")), {})
    assert len(error.value.lines) == 1


# ----- slow: whole runs -----


class Tuned(NamedTuple):
    """A run that has had its supervised fine-tuning, and a student for it."""

    folder: Path
    teacher: Path
    student: Path


FAST: dict[str, Any] = {"samples": 2, "max_new_tokens": 24, "prompts": 24, "epochs": 2, "batch_size": 8, "log_every": 1}
KINDS: dict[str, dict[str, Any]] = {
    "response": {},
    "logit": {"kind": "logit", "divergence": "jsd", "on_policy": 0.5, "top_k": 16, "store": True},
    "feature": {"kind": "feature", "feature_tokens": "all"},
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder = tmp_path_factory.mktemp("tuned")
    teacher = toys.toy_checkpoint(folder / "teacher")
    student = toys.toy_checkpoint(folder / "student", hidden=64, layers=1)
    execute("sft", toys.toy_settings(folder, "sft", teacher, sft={"epochs": 1, "batch_size": 8}))
    return Tuned(folder, teacher, student)


def copied(tuned: Tuned, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    leave = shutil.ignore_patterns("distill", "cache", ".distill.lock")
    shutil.copytree(tuned.folder / "runs", folder / "runs", ignore=leave)
    shutil.copy(tuned.folder / "rows.jsonl", folder)
    return folder


def run_distill(folder: Path, tuned: Tuned, **more: Any) -> dict[str, Any]:
    settings = settings_of(folder, tuned.teacher, **(FAST | {"student": str(tuned.student)} | more))
    return execute("distill", settings)


def adapter_digest(folder: Path) -> str:
    path = folder / "runs" / "toy" / "distill" / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_learns_ends_with_its_rates_and_can_be_interrupted(kind: str, tuned: Tuned, tmp_path: Path) -> None:
    from safetensors import safe_open

    folder, other = copied(tuned, tmp_path / "one"), copied(tuned, tmp_path / "two")
    metrics = run_distill(folder, tuned, **KINDS[kind])
    assert (metrics["kind"], metrics["teacher"]) == (kind, "sft")
    assert metrics["n"] == metrics["n_call"] + metrics["n_no_call"] == 6
    assert {"exact_call_rate", "false_tool_call_rate", "missed_call_rate", "by_kind"} <= metrics.keys()
    assert metrics["answers"] == 48
    left_out = sum(count for name, count in metrics.items() if name.startswith("left_out_"))
    assert metrics["answers_kept"] + left_out == 48
    assert metrics["rows_kept"] == metrics["answers_kept"] + metrics["gold_kept"] >= 24
    assert kind != "feature" or metrics["loss_features"] > 0
    assert kind != "logit" or "loss_jsd" in metrics
    place = folder / "runs/toy/distill"
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["model"]["id"] == str(tuned.student)
    assert list(manifest["parents"]) == ["sft"]
    assert len((place / "predictions.jsonl").read_text().splitlines()) == 6
    with safe_open(place / "adapter" / "adapter_model.safetensors", framework="pt") as stored:
        assert all("lora_" in name for name in stored.keys())  # noqa: SIM118

    with toys.interrupted("toy/distill", 3):
        run_distill(other, tuned, **KINDS[kind])
    again = run_distill(other, tuned, **KINDS[kind])
    assert again["resumed_from_step"] in (3, 4)
    assert adapter_digest(other) == adapter_digest(folder)


@pytest.mark.slow
def test_another_student_or_teacher_is_another_result_and_the_same_one_is_not_made_twice(
    tuned: Tuned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(tuned, tmp_path / "one")
    short = {"max_steps": 2, "prompts": 8}
    run_distill(folder, tuned, **short)
    first = adapter_digest(folder)
    capsys.readouterr()
    run_distill(folder, tuned, **short)
    assert "distill: done already with the same inputs" in capsys.readouterr().out
    student = toys.toy_checkpoint(tmp_path / "student", hidden=64, layers=2)
    run_distill(folder, tuned, **short, student=str(student))
    said = capsys.readouterr().out
    assert "base trained changed" in said
    assert "8 of 8 requests have their samples already" in said
    assert adapter_digest(folder) != first


@pytest.mark.slow
def test_alignment_goes_on_from_the_distilled_student_with_its_own_pairs(tuned: Tuned, tmp_path: Path) -> None:
    folder = copied(tuned, tmp_path / "one")
    metrics = run_distill(folder, tuned, align=True)
    place = folder / "runs/toy/distill"
    assert {"exact_call_rate", "before_alignment_exact_call_rate", "answers_kept"} <= metrics.keys()
    parents = json.loads((place / "aligned/dpo/manifest.json").read_text())["parents"]
    assert {name: entry["path"] for name, entry in parents.items()} == {
        "sft": "distill/student/distill",
        "pairs": "distill/aligned/pairs",
    }
    files = [place / part / "adapter_model.safetensors" for part in ("adapter", "aligned/dpo/adapter")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes() != (place / "student/distill/adapter/adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_teacher_behind_an_endpoint_needs_no_fine_tuning_here(tuned: Tuned, tmp_path: Path) -> None:
    import threading

    from tests.test_endpoint import Endpoint

    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.server.serve_forever, daemon=True)
    thread.start()
    try:
        where = {"sampler": "openai", "base_url": endpoint.url, "endpoint_model": "teacher"}
        metrics = run_distill(tmp_path, tuned, **where, max_steps=2, prompts=12)
    finally:
        endpoint.server.shutdown()
        endpoint.server.server_close()
        thread.join()
    assert (metrics["teacher"], metrics["answers"]) == ("teacher", 24)
    assert metrics["answers_kept"] > 0
    manifest = json.loads((tmp_path / "runs/toy/distill/manifest.json").read_text())
    assert manifest["parents"] == {}
    assert manifest["facts"]["samples_of"]["model"] == "teacher"
