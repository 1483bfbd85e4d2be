"""Calibration of P(call), against values made by hand."""

from __future__ import annotations

import pytest

from stages._reliability import auroc, brier, expected_calibration_error, reliability, risk_coverage

PAIRS = [(0.9, True), (0.91, False), (0.1, False), (1.0, True)]


def test_the_calibration_error_is_the_gap_in_each_bin_by_its_size() -> None:
    # 0.9 and 0.91 share the bin from 13/15, where one of two needs a call; 0.1 is alone; 1.0 is in the last one.
    assert expected_calibration_error(PAIRS) == pytest.approx((0.81 + 0.1 + 0.0) / 4)
    assert expected_calibration_error([(0.99, True), (1.0, False)]) == pytest.approx(0.99 / 2)
    # The lower end belongs to a bin: 1/15 is not in the one of 0, so that the two gaps do not cancel out.
    assert expected_calibration_error([(0.0, True), (1 / 15, False)]) == pytest.approx((1 + 1 / 15) / 2)


def test_the_brier_score_is_the_mean_squared_gap() -> None:
    assert brier(PAIRS) == pytest.approx((0.01 + 0.8281 + 0.01 + 0.0) / 4)


def test_auroc_counts_pairs_in_the_right_order_and_ties_half() -> None:
    assert auroc(PAIRS) == 3 / 4
    assert auroc([(0.5, True), (0.5, False)]) == 0.5
    assert auroc([(0.2, True), (0.7, False), (0.2, False)]) == 1 / 4
    assert auroc([(0.2, True)]) is None


def test_answers_that_do_not_tell_are_left_out_and_counted() -> None:
    fields = reliability([0.9, None, 0.1], [True, True, False])
    assert fields["n_p_call"] == 2
    assert fields["call_auroc"] == 1.0
    assert fields["call_ece"] == pytest.approx(0.1)
    assert reliability([None], [True]) == {"n_p_call": 0, "call_ece": None, "call_brier": None, "call_auroc": None}


def test_risk_is_the_share_of_wrong_decisions_among_the_surest() -> None:
    rows = [(0.9, True, True), (0.2, False, True), (0.95, True, False), (0.4, False, False)]
    # By how sure: 0.95 wrong, 0.9 right, 0.8 wrong, 0.6 right.
    assert risk_coverage(rows) == [(0.25, 1.0), (0.5, 0.5), (0.75, 2 / 3), (1.0, 0.5)]


def test_decisions_that_are_equally_sure_come_together_in_any_order() -> None:
    rows = [(0.75, True, True), (0.75, True, False), (1.0, True, True), (0.25, False, False)]
    assert risk_coverage(rows) == risk_coverage(rows[::-1]) == [(0.25, 0.0), (1.0, 0.25)]
    assert risk_coverage([]) == []
