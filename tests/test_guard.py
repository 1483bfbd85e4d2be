"""Guards of preference training, on made-up log rows and weights that are the number of their step."""

from __future__ import annotations

import math
import random
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stages._guard import KINDS, GuardConfig, Guards, allowed_drop, is_displaced

BETA = 0.1


class Watched(types.SimpleNamespace):
    """Guards over a model of one weight, with what they said and recorded."""

    guards: Guards
    weight: Any
    said: list[str]
    facts: dict[str, Any]


def watched(missed: Callable[[], float] | None = None, checkpoint: Path | None = None, **config: Any) -> Watched:
    import torch

    model = torch.nn.Linear(1, 1, bias=False)
    said: list[str] = []
    facts: dict[str, Any] = {}
    job: Any = types.SimpleNamespace(
        name="dpo", say=said.append, record=lambda **more: facts.update(more), log=lambda row: None
    )
    move(model.weight, 0)
    guards = Guards(job, GuardConfig(**config), BETA, model, missed, "patience")
    guards.begin(checkpoint)
    return Watched(guards=guards, weight=model.weight, said=said, facts=facts)


def move(weight: Any, step: int) -> None:
    weight.data.fill_(step)


def row(chosen: float, rejected: float = -50.0, reference: float = -100.0) -> dict[str, float]:
    """A logged row, from what answers gained on the reference, in nats."""
    rewards = {"rewards/chosen": BETA * chosen, "rewards/rejected": BETA * rejected}
    return rewards | {"logps/chosen": reference + chosen, "loss": 0.5}


def steps(one: Watched, rows: Iterator[dict[str, float]] | list[dict[str, float]], first: int = 1) -> int | None:
    """Train as the trainer does, a row a step; the step that ended it."""
    for step, logs in enumerate(rows, first):
        move(one.weight, step)
        ended = one.guards.step(step)
        if one.guards.row(step, logs) or ended:
            return step
    return None


@pytest.mark.parametrize(
    ("config", "reference", "nats"),
    [
        ({}, -200.0, 8.0),  # the knob in nats is the smaller one
        ({}, -40.0, 4.0),  # a tenth of what the reference gives
        ({}, -0.01, 1.0),  # a reference that is nearly sure: a tenth of it would be noise
        ({"guard_drop": 0.5}, -0.01, 0.5),  # but the knob in nats means what it says
        ({"guard_drop_share": None}, -40.0, 8.0),
        ({"guard_drop_share": 0.5}, -10.0, 5.0),
    ],
)
def test_what_chosen_answers_may_lose(config: dict[str, Any], reference: float, nats: float) -> None:
    assert allowed_drop(GuardConfig(**config), reference) == pytest.approx(nats)
    one = watched(**config)
    one.guards.row(1, row(-nats + 0.01, reference=reference))
    assert one.guards.tripped == {}
    one.guards.row(2, row(-nats - 0.01, reference=reference))
    assert one.guards.tripped["chosen_drop"]["step"] == 2


@pytest.mark.parametrize(("guard", "ends", "says"), [("stop", 3, 2), ("warn", None, 1)])
def test_stop_ends_training_and_warn_says_it_once(guard: str, ends: int | None, says: int) -> None:
    one = watched(guard=guard)
    assert steps(one, [row(0), row(-7), row(-9), row(-10)]) == ends
    assert len(one.said) == says
    assert "step 3: chosen answers lost 9.0 nats against the reference, 8.0 are allowed" in one.said[0]
    assert "dpo.guard_drop=8.0, dpo.guard_drop_share=0.1" in one.said[0]
    assert one.facts["guard"]["action"] == guard
    assert one.facts["guard"]["tripped"]["chosen_drop"] == {"step": 3, "chosen_gain_nats": pytest.approx(-9)}
    found = one.guards.finish(3)
    assert [found[f"guard_{kind}_step"] for kind in KINDS] == [3, None, None]


def test_rewards_that_are_no_numbers_count_as_fallen() -> None:
    assert steps(watched(guard="stop"), [row(0), row(math.nan)]) == 2


def test_rows_without_rewards_are_passed_over() -> None:
    assert not watched(guard="stop").guards.row(1, {"train_runtime": 3.0})


def test_stop_goes_back_to_the_newest_weights_that_a_row_spoke_well_of() -> None:
    one = watched(guard="stop")
    # The row of step 4 speaks of the weights of step 3, and that of step 3 of those of step 2.
    assert steps(one, [row(0), row(-1), row(-2), row(-9)]) == 4
    assert one.weight.item() == 2
    assert one.guards.finish(4)["kept_step"] == 2
    assert "the adapter is that of step 2" in one.said[-1]


def test_rows_of_several_steps_vouch_for_their_first_weights() -> None:
    one = watched(guard="stop")
    for step in range(1, 16):
        move(one.weight, step)
        if step % 5 == 0 and one.guards.row(step, row(-9 if step == 15 else 0)):
            break
    assert one.weight.item() == 5


def noise(seed: int, falling: float, more: float) -> list[tuple[float, float]]:
    dice = random.Random(seed)
    shared = [dice.gauss(0, 1) for _ in range(8)]
    return [
        (-2 - falling * place + both + dice.gauss(0, 0.5), -4 - more * place + both + dice.gauss(0, 0.5))
        for place, both in enumerate(shared)
    ]


@pytest.mark.parametrize(
    ("rows", "displaced"),
    [
        ([(-1 - k, -1 - 2 * k) for k in range(8)], True),
        ([(-1 - k, -1 - k) for k in range(8)], False),  # the margin stays
        ([(k, -k) for k in range(8)], False),  # chosen answers gain
        ([(-k, k) for k in range(8)], False),  # margins shrink
        ([(5 - 0.5 * k, 5 - k) for k in range(8)], False),  # chosen answers fall, and are still above the reference
        ([(-0.1 * k, -0.3 * k) for k in range(8)], False),  # by less than a nat
        ([(-5.0, -9.0)] * 8, False),
    ],
)
def test_displacement_is_margins_growing_while_both_sides_fall(
    rows: list[tuple[float, float]], displaced: bool
) -> None:
    assert is_displaced(rows) is displaced


def test_noise_alone_is_no_displacement_and_hides_none_that_is_large() -> None:
    assert not any(is_displaced(noise(seed, 0, 0)) for seed in range(300))
    assert sum(is_displaced(noise(seed, 1.5, 3)) for seed in range(300)) > 250


def test_displacement_needs_a_full_window_and_stops() -> None:
    falling = [row(-k / 2, -k, reference=-300.0) for k in range(1, 12)]
    assert steps(watched(guard="stop", guard_drop=100), falling[:7]) is None
    one = watched(guard="stop", guard_drop=100)
    assert steps(one, falling) == 8
    assert one.guards.tripped["displacement"] == {
        "step": 8, "chosen_gain_nats": pytest.approx(-4), "rejected_gain_nats": pytest.approx(-8),
    }  # fmt: skip
    assert one.weight.item() == 6


@pytest.mark.parametrize(
    ("rates", "ends", "kept"),
    [
        ([0.10, 0.11, 0.12, 0.10], None, None),  # two points more are allowed
        ([0.10, 0.11, 0.14, 0.50], 4, 2),  # measured at steps 2 and 4
        ([0.10, 0.20], 2, 0),
    ],
)
def test_missed_calls_may_rise_so_far_over_those_before_training(
    rates: list[float], ends: int | None, kept: int | None
) -> None:
    left = iter(rates)
    one = watched(lambda: next(left), guard="stop", guard_every=2)
    assert steps(one, [row(0)] * 6) == ends
    assert one.guards.kept == kept
    if ends is not None:
        assert one.weight.item() == kept
        assert one.guards.tripped["missed_calls"]["step"] == ends
        metrics = one.guards.finish(ends)
        assert metrics["guard_missed_rate"] == rates[ends // 2 - 1]  # of the weights that are kept
        assert metrics["guard_missed_rate_before"] == 0.1


def test_weights_whose_missed_calls_nobody_measured_are_not_the_last_good_ones() -> None:
    one = watched(lambda: 0.1, guard="stop", guard_every=3)
    assert steps(one, [row(0)] * 5 + [row(-9)]) == 6
    assert one.weight.item() == 3  # rows spoke well of step 4 too


@pytest.mark.parametrize(("guard", "kept"), [("stop", 0), ("warn", 3)])
def test_measured_only_at_the_end_the_first_weights_are_the_last_good_ones(guard: str, kept: int) -> None:
    left = iter([0.1, 0.3])
    one = watched(lambda: next(left), guard=guard)
    assert steps(one, [row(0)] * 3) is None
    metrics = one.guards.finish(3)
    assert (metrics["kept_step"], metrics["guard_missed_calls_step"]) == (kept, 3)
    assert one.weight.item() == kept
    assert metrics["guard_missed_rate"] == (0.1 if guard == "stop" else 0.3)


@pytest.mark.parametrize(("rate", "kept"), [(0.12, 2), (0.2, 0)])
def test_after_a_stop_missed_calls_of_the_weights_that_are_kept_are_measured(rate: float, kept: int) -> None:
    left = iter([0.1, rate])
    one = watched(lambda: next(left), guard="stop")
    assert steps(one, [row(0), row(-1), row(-2), row(-9)]) == 4
    metrics = one.guards.finish(4)
    assert one.weight.item() == metrics["kept_step"] == kept
    assert metrics["guard_missed_rate"] == (rate if kept else 0.1)


def test_without_requests_that_need_a_call_rows_alone_decide() -> None:
    one = watched(None, guard="stop", guard_every=2)
    assert steps(one, [row(0), row(-1), row(-2), row(-9)]) == 4
    assert one.weight.item() == 2
    assert one.guards.finish(4)["guard_missed_rate"] is None


@pytest.mark.parametrize("every", [0, 3])
@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_a_resumed_run_stops_at_the_same_step_with_the_same_weights(tmp_path: Path, every: int, cut: int) -> None:
    rows = [row(0), row(-1), row(-2), row(-3), row(-4), row(-9)]
    one = watched(lambda: 0.1, guard="stop", guard_every=every)
    assert steps(one, rows) == 6
    cut_off = watched(lambda: 0.1, guard="stop", guard_every=every)
    assert steps(cut_off, rows[:cut]) is None
    cut_off.guards.save(tmp_path)
    resumed = watched(pytest.fail, checkpoint=tmp_path, guard="stop", guard_every=every)
    resumed.guards.missed = lambda: 0.1  # it was measured before training, and not again
    assert steps(resumed, rows[cut:], first=cut + 1) == 6
    assert resumed.weight.item() == one.weight.item() == (3 if every else 4)
    assert resumed.guards.finish(6) == one.guards.finish(6)


def test_a_run_resumed_after_its_stop_remembers_what_stopped_it(tmp_path: Path) -> None:
    one = watched(guard="stop")
    steps(one, [row(0), row(-1), row(-2), row(math.nan)])
    one.guards.save(tmp_path)
    again = watched(checkpoint=tmp_path, guard="stop")
    assert again.facts["guard"]["tripped"]["chosen_drop"]["step"] == 4
    assert again.guards.finish(4) == one.guards.finish(4)
    assert again.guards.finish(4)["kept_step"] == 2
