"""TRL's SFTTrainer for a student: the NLL of its rows, and beside it what is learned from the teacher's inside.

The loss of a step is a sum over its tokens divided by their number in the whole step, whatever it is accumulated from.
With `on_policy`, some steps are on what the student itself answers to the prompts of their rows (Agarwal et al. 2024,
arXiv 2306.13649): those have no NLL, for nothing says that they are right; the teacher's distributions alone teach.

TRL's own DistillationTrainer and GKDTrainer are not used: the one is on-policy only and takes no tools of single rows,
the other's collator drops tools, its temperature does not reach the loss, and neither reads stored distributions.
Left out: the auxiliary loss of mixtures of experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._divergence import Divergence, Targets, divergence, targets
from stages._features import Distance, feature_loss
from stages._rows import IGNORED, Row

if TYPE_CHECKING:
    import torch

    from stages._soft_targets import SoftTargets

_WIDTH = 32  # answers are looked at in spans of a multiple of this: on a CPU each new shape is a new kernel to make
_PROJECTIONS = "projections.safetensors"


@dataclass(frozen=True, slots=True)
class Logits:
    """How the teacher's distributions are learned; both models are cut to the `vocabulary` that they share."""

    kind: Divergence
    temperature: float
    top_k: int | None
    vocabulary: int
    stored: SoftTargets | None = None


@dataclass(frozen=True, slots=True)
class OwnAnswers:
    """How the student answers in a share of the steps; `stops` end an answer, `end` is how a turn ends in a row."""

    share: float
    seed: int
    temperature: float
    max_new_tokens: int
    stops: frozenset[int]
    end: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Features:
    """Which layers are drawn together, on the tokens that predict answers or on all; `maps` are trained too."""

    maps: torch.nn.ModuleList
    pairs: list[tuple[int, int]]
    distance: Distance
    weight: float
    everywhere: bool


@dataclass(frozen=True, slots=True)
class Goal:
    """What the student learns beside its rows; without logits and features it is plain fine-tuning."""

    cross_entropy: float
    teacher: Any = None  # frozen, in evaluation mode
    logits: Logits | None = None
    features: Features | None = None
    own: OwnAnswers | None = None


def student_trainer(goal: Goal) -> type[Any]:
    """The trainer class. Its dataset has input_ids, labels and row, the number of the row."""
    import torch
    from torch.nn.functional import cross_entropy
    from trl import SFTTrainer

    class StudentTrainer(SFTTrainer):
        loss_is_scaled_for_ga = True  # by the tokens of the step: the Trainer must not divide again

        def __init__(self, model: Any, **more: Any) -> None:
            if goal.features:
                model.projections = goal.features.maps  # before there is an optimizer, which takes what the model has
            super().__init__(model=model, **more)
            collate = self.data_collator
            self.data_collator: Any = lambda rows: collate(rows) | {"row": torch.tensor([row["row"] for row in rows])}

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            if "row" not in self._signature_columns:
                self._signature_columns.append("row")

        def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
            batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
            if goal.own and falls_on(self.state.global_step, goal.own.share):
                batches = self._answered(batches, goal.own)
            answer = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches)
            everywhere = sum(int(batch["attention_mask"].sum()) for batch in batches)
            return [dict(batch) | {"tokens_of_step": everywhere} for batch in batches], torch.tensor(
                answer, device=device
            )

        def _answered(self, batches: Sequence[Any], own: OwnAnswers) -> list[Any]:
            """The batches with the student's own answers in place of theirs."""
            rows = [
                (int(number), ids[: int((labels != IGNORED).int().argmax())].tolist())
                for batch in batches
                for number, ids, labels in zip(batch["row"], batch["input_ids"], batch["labels"], strict=True)
            ]
            names = [f"{own.seed}/own/{self.state.global_step}/{number}" for number, _ in rows]
            with self.accelerator.autocast():
                answers = own_answers(self.model, [prompt for _, prompt in rows], names, own)
            made = [
                {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer, "row": number}
                for (number, prompt), answer in zip(rows, answers, strict=True)
            ]
            place, found = 0, []
            for batch in batches:
                size = len(batch["row"])
                found.append(dict(self.data_collator(made[place : place + size])) | {"own": True})
                place += size
            return found

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            inputs = dict(inputs)
            numbers, own = inputs.pop("row", None), inputs.pop("own", False)
            tokens = inputs.pop("tokens_of_step", None)
            if goal.logits is None and goal.features is None:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            ids, mask, labels = inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
            columns = answer_columns(labels)
            answer = labels[:, columns + 1] != IGNORED
            here = int(answer.sum())
            count = here if num_items_in_batch is None else num_items_in_batch
            outputs = model(
                input_ids=ids,
                attention_mask=mask,
                use_cache=False,
                logits_to_keep=columns,
                output_hidden_states=goal.features is not None,
            )
            logits = outputs.logits[answer].float()
            sums: dict[str, tuple[float, torch.Tensor, Any, int]] = {}  # weight, sum, its tokens in the step, and here
            if goal.cross_entropy and not own:
                wanted = labels[:, columns + 1][answer]
                sums["cross_entropy"] = (
                    goal.cross_entropy,
                    cross_entropy(logits, wanted, reduction="sum"),
                    count,
                    here,
                )
            if goal.logits:
                taught = self._taught(goal.logits, ids, mask, columns, answer, None if own else numbers)
                known = logits[:, : goal.logits.vocabulary]
                found = divergence(goal.logits.kind, known, taught, goal.logits.temperature)
                sums[goal.logits.kind] = (1.0, found.sum(), count, here)
            if features := goal.features:
                chosen = mask.bool() if features.everywhere else predicts(labels)
                with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
                    theirs = goal.teacher(
                        input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1, output_hidden_states=True
                    ).hidden_states
                found = feature_loss(
                    features.maps, features.pairs, outputs.hidden_states, theirs, chosen, features.distance
                )
                over = (int(mask.sum()) if tokens is None else tokens) if features.everywhere else count
                sums["features"] = (features.weight, found.sum(), over, int(chosen.sum()))
            for name, (_, total, _, own_tokens) in sums.items():
                self._metrics["train"][name].append(total.item() / max(1, own_tokens))
            loss = sum(weight * total / over for weight, total, over, _ in sums.values())
            return (loss, outputs) if return_outputs else loss

        def _taught(
            self, how: Logits, ids: Any, mask: Any, columns: Any, answer: Any, numbers: torch.Tensor | None
        ) -> Targets:
            if how.stored is not None and numbers is not None:
                found = how.stored.of(numbers.tolist())
                return Targets(*(one if one is None else one.to(ids.device) for one in found))
            return asked(goal.teacher, how, ids, mask, columns, answer)

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            super()._save(output_dir, state_dict)
            if goal.features:
                from safetensors.torch import save_file

                state = goal.features.maps.state_dict()
                save_file(state, Path(output_dir or self.args.output_dir) / _PROJECTIONS)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            if goal.features:
                from safetensors.torch import load_file

                goal.features.maps.load_state_dict(load_file(Path(resume_from_checkpoint) / _PROJECTIONS))

    return StudentTrainer


def falls_on(step: int, share: float) -> bool:
    """Whether this step, from 0, is one of the share: evenly spread, and the same when resumed.

    >>> [falls_on(step, 0.4) for step in range(5)]
    [False, False, True, False, True]
    """
    return int((step + 1) * share + 1e-9) > int(step * share + 1e-9)


def predicts(labels: torch.Tensor) -> torch.Tensor:
    """Which positions predict an answer token, [rows, length]: a label is of the token that stands at its place."""
    import torch

    return torch.nn.functional.pad(labels[:, 1:] != IGNORED, (0, 1))


def answer_columns(labels: torch.Tensor) -> torch.Tensor:
    """A span of columns that holds every position that predicts an answer token, of a multiple of 32 where it can be.

    Only there are logits computed. Its last column is never the last of all, which predicts nothing.
    """
    import torch

    places = predicts(labels).any(0).nonzero().squeeze(1)
    if not len(places):
        return torch.zeros(0, dtype=torch.long, device=labels.device)
    first, last = int(places[0]), int(places[-1])
    width = -(-(last + 1 - first) // _WIDTH) * _WIDTH
    return torch.arange(max(0, last + 1 - width), last + 1, device=labels.device)


def asked(teacher: Any, how: Logits, ids: Any, mask: Any, columns: Any, answer: Any) -> Targets:
    """The teacher's distributions where `answer`, [rows, columns], says; never in a lower precision than its own."""
    import torch

    with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
        logits = teacher(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=columns).logits[answer]
        return targets(logits[:, : how.vocabulary], how.temperature, how.top_k)


def padded(rows: Sequence[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, labels and attention mask of rows, each [rows, length], padded on the right to a multiple of 32."""
    import torch

    longest = -(-max(len(row.input_ids) for row in rows) // _WIDTH) * _WIDTH
    ids = torch.full((len(rows), longest), pad)
    labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for number, row in enumerate(rows):
        length = len(row.input_ids)
        ids[number, :length], mask[number, :length] = torch.tensor(row.input_ids), 1
        labels[number, :length] = torch.tensor(row.labels)
    return ids, labels, mask


def taught_rows(teacher: Any, how: Logits, rows: Sequence[Row], at_once: int, pad: int) -> list[Targets]:
    """The teacher's distributions at the answer tokens of each row, `at_once` rows of like length at a time."""
    place = next(teacher.parameters()).device
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].input_ids))
    found: dict[int, Targets] = {}
    for start in range(0, len(order), at_once):
        numbers = order[start : start + at_once]
        ids, labels, mask = (each.to(place) for each in padded([rows[number] for number in numbers], pad))
        columns = answer_columns(labels)
        answer = labels[:, columns + 1] != IGNORED
        all_of_them = asked(teacher, how, ids, mask, columns, answer)
        sizes = answer.sum(1).tolist()
        tokens = all_of_them.tokens.split(sizes) if all_of_them.tokens is not None else [None] * len(sizes)
        for number, logprobs, kept in zip(numbers, all_of_them.logprobs.split(sizes), tokens, strict=True):
            found[number] = Targets(logprobs, kept)
    return [found[number] for number in range(len(rows))]


def own_answers(model: Any, prompts: Sequence[list[int]], names: Sequence[str], own: OwnAnswers) -> list[list[int]]:
    """What the model answers to each prompt, with the end of its turn unless it was cut off.

    Its random numbers are drawn from the names alone. The model is left as it was.
    """
    import torch

    from stages._decoding import decode
    from stages._sampling import noise_of

    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    noise = noise_of([names[place] for place in order], own.max_new_tokens)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        rows = decode(
            model, [prompts[place] for place in order], 1, own.max_new_tokens, own.stops, own.temperature, noise
        )
    model.train(was_training)
    found = {place: ids + (list(own.end) if ended else []) for place, (ids, _, ended) in zip(order, rows, strict=True)}
    return [found[place] for place in range(len(prompts))]
