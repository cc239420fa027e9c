"""The e-processes themselves: fair whatever the truth within the null, quick outside of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import rel_entr

from canaryflow.delivery.sequential import Block, NonInferiority, ObjectiveTest, TwoSampleTest, log_returns

RATES = st.one_of(st.sampled_from([0.0, 1e-3, 0.01, 0.05, 0.5, 0.95, 1.0]), st.floats(0, 1))
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
PAST = st.lists(st.tuples(st.integers(1, 2000), RATES, st.integers(1, 200), RATES), max_size=3)

Past = list[tuple[int, float, int, float]]


def chance_of(k: int, n: int, rate: float) -> float:
    """The binomial probability; scipy's overflows where the rate is next to nothing."""
    return math.comb(n, k) * rate**k * (1 - rate) ** (n - k)


def expected_growth(
    make: Callable[[], TwoSampleTest | NonInferiority],
    past: Past,
    sizes: tuple[int, int],
    main: float,
    canary: float,
) -> float:
    """The exact expectation of what one more block multiplies the e-value by, over all its outcomes."""

    def played() -> TwoSampleTest | NonInferiority:
        test = make()
        for main_n, main_rate, canary_n, canary_rate in past:
            test.update(Block(main_n, round(main_n * main_rate), canary_n, round(canary_n * canary_rate)))
        return test

    start = played().log_e
    total = 0.0
    for main_k in range(sizes[0] + 1):
        for canary_k in range(sizes[1] + 1):
            test = played()
            test.update(Block(sizes[0], main_k, sizes[1], canary_k))
            chance = chance_of(main_k, sizes[0], main) * chance_of(canary_k, sizes[1], canary)
            total += chance * math.exp(test.log_e - start)
    return float(total)


@settings(max_examples=25, deadline=None)
@given(
    past=PAST,
    sizes=SIZES,
    main=RATES,
    share=st.floats(0, 1),
    tolerance=st.sampled_from([0, 0.0005, 0.05, 0.3]),
)
def test_no_block_is_expected_to_speak_against_a_canary_within_the_tolerance(
    past: Past,
    sizes: tuple[int, int],
    main: float,
    share: float,
    tolerance: float,
) -> None:
    canary = share * min(1.0, main + tolerance)
    assert expected_growth(lambda: TwoSampleTest(tolerance), past, sizes, main, canary) <= 1 + 1e-9


@settings(max_examples=25, deadline=None)
@given(past=PAST, sizes=SIZES, share=st.floats(0, 1), main=RATES, margin=st.sampled_from([0.01, 0.1, 0.4]))
def test_no_block_is_expected_to_speak_for_a_canary_that_is_worse_by_the_margin(
    past: Past,
    sizes: tuple[int, int],
    share: float,
    main: float,
    margin: float,
) -> None:
    main = main * (1 - margin)
    canary = main + margin + share * (1 - margin - main)
    assert expected_growth(lambda: NonInferiority(margin), past, sizes, main, canary) <= 1 + 1e-9


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 30), objective=st.sampled_from([0.01, 0.05, 0.5]), share=st.floats(0, 1))
def test_no_block_is_expected_to_speak_against_an_objective_that_is_held(
    n: int, objective: float, share: float
) -> None:
    total = 0.0
    for k in range(n + 1):
        test = ObjectiveTest(objective)
        test.update(n, k)
        total += chance_of(k, n, share * objective) * test.e_value
    assert total <= 1 + 1e-9


def test_a_bet_that_is_right_grows_and_one_against_the_truth_does_not() -> None:
    bets = (np.array([0.01]), np.array([0.05]))
    assert log_returns(*bets, (1000, 10, 1000, 50), 0.0)[0] > 10
    assert log_returns(*bets, (1000, 10, 1000, 10), 0.0)[0] < 0
    assert log_returns(np.array([0.05]), np.array([0.05]), (1000, 10, 1000, 99), 0.0)[0] == 0


@settings(max_examples=60, deadline=None)
@given(
    first=st.floats(1e-5, 0.9), gap=st.floats(1e-4, 0.9), n=st.integers(1, 10_000), m=st.integers(1, 10_000),
    tolerance=st.sampled_from([0.0, 0.05, -0.01, -0.3]),
)  # fmt: skip
def test_the_price_of_a_bet_is_the_nearest_point_of_the_null(
    first: float, gap: float, n: int, m: int, tolerance: float
) -> None:
    second = first + tolerance + gap
    if not 1e-5 < second < 0.99:
        return

    def distance(p: float) -> float:
        q = p + tolerance
        pairs = ((n, first, p), (m, second, q))
        return float(sum(k * (rel_entr(t, x) + rel_entr(1 - t, 1 - x)) for k, t, x in pairs))

    ends = max(1e-12, 1e-12 - tolerance), min(1.0, 1 - tolerance) - 1e-12
    nearest = minimize_scalar(distance, bounds=ends, method="bounded", options={"xatol": 1e-12})
    # At these counts the bet pays, on average, its distance from the null.
    mean = log_returns(
        np.array([first]),
        np.array([second]),
        (n, n * first, m, m * second),
        tolerance,  # type: ignore[arg-type]
    )
    assert mean[0] == pytest.approx(nearest.fun, rel=1e-4, abs=1e-6)


RAMP = [0.05] * 2 + [0.10] * 3 + [0.25] * 8 + [0.50] * 17


def looks_until(
    test: TwoSampleTest, rng: np.random.Generator, main: float, canary: float, limit: float
) -> int:
    """Looks of 1,000 requests over the ramp until the limit; one more than there are if never."""
    for look, weight in enumerate(RAMP, start=1):
        n = int(rng.binomial(1000, weight))
        test.update(Block(1000 - n, int(rng.binomial(1000 - n, main)), n, int(rng.binomial(n, canary))))
        if test.e_value >= limit:
            return look
    return len(RAMP) + 1


@pytest.mark.parametrize(("rate", "limit"), [(0.001, 20), (0.01, 20), (0.05, 20)])
def test_equal_arms_raise_no_more_false_alarms_than_alpha(rate: float, limit: float) -> None:
    rng = np.random.default_rng(3)
    runs = 150
    alarms = sum(looks_until(TwoSampleTest(), rng, rate, rate, limit) <= len(RAMP) for _ in range(runs))
    # At alpha 5 % more than 15 of 150 have a chance under 0.2 %; a peeked z-test raises some 50.
    assert alarms <= 15


def test_twice_the_errors_are_found_within_the_ramp() -> None:
    rng = np.random.default_rng(4)
    found = [looks_until(TwoSampleTest(0.0005), rng, 0.01, 0.02, 223) for _ in range(80)]
    assert np.mean([look <= len(RAMP) for look in found]) >= 0.95
    assert np.median(found) <= 15
    thrice = [looks_until(TwoSampleTest(0.0005), rng, 0.01, 0.03, 223) for _ in range(40)]
    assert max(thrice) <= len(RAMP)
    assert np.median(thrice) <= 7


def test_a_canary_that_turns_bad_late_is_found_too() -> None:
    test = TwoSampleTest(0.0005)
    for _ in range(200):
        test.update(Block(9500, 95, 500, 5))
    looks = 0
    while test.e_value < 223:
        test.update(Block(500, 5, 500, 15))
        looks += 1
    assert looks <= 8


def test_good_evidence_of_yesterday_cannot_hide_a_bad_block() -> None:
    test = NonInferiority(0.01, cap=math.log(100) + 3)
    for _ in range(100):
        test.update(Block(5000, 5, 5000, 5))
    assert test.e_value > 100
    assert test.upper_bound(0.01) <= 0.005
    test.update(Block(500, 0, 500, 25))
    assert test.e_value < 100
    assert test.upper_bound(0.01) > 0.01


def test_without_errors_a_few_hundred_canary_requests_prove_a_margin_of_one_in_a_hundred() -> None:
    test = NonInferiority(0.01)
    seen = 0
    while test.e_value < 223:
        test.update(Block(950, 0, 50, 0))
        seen += 50
    assert 500 <= seen <= 1000


def test_the_upper_bound_covers_the_truth() -> None:
    rng = np.random.default_rng(5)
    missed, bounds = 0, []
    for _ in range(60):
        test = NonInferiority(0.02)
        lowest = 1.0
        for _ in range(20):
            test.update(Block(1000, int(rng.binomial(1000, 0.03)), 500, int(rng.binomial(500, 0.035))))
            lowest = min(lowest, test.upper_bound(0.05))
        missed += lowest < 0.005
        bounds.append(lowest)
    assert missed <= 7  # 3 expected at most
    assert np.median(bounds) <= 0.03  # and it is no empty promise


@settings(max_examples=30, deadline=None)
@given(past=PAST, tolerance=st.sampled_from([0.0, 0.05]))
def test_a_saved_test_carries_on_and_never_claims_more(past: Past, tolerance: float) -> None:
    test, safe = TwoSampleTest(tolerance), NonInferiority(0.05)
    for main_n, main_rate, canary_n, canary_rate in past:
        block = Block(main_n, round(main_n * main_rate), canary_n, round(canary_n * canary_rate))
        test.update(block)
        safe.update(block)
    again = TwoSampleTest(tolerance).restore(json.loads(json.dumps(test.to_dict())))
    assert test.log_e - 0.0011 <= again.log_e <= test.log_e or test.log_e < -150
    restored = NonInferiority(0.05).restore(json.loads(json.dumps(safe.to_dict())))
    assert restored.log_e == pytest.approx(safe.log_e, abs=0.0011)


def test_neighbours_that_share_their_fate_count_as_one() -> None:
    one, four = TwoSampleTest(0.05), TwoSampleTest(0.05, dispersion=4)
    safe, safe_four = NonInferiority(0.1), NonInferiority(0.1, dispersion=4)
    for canary_k in (3, 20, 11):
        for test in (one, safe):
            test.update(Block(200, 10, 50, canary_k))
        for test in (four, safe_four):
            test.update(Block(800, 40, 200, 4 * canary_k))
    assert four.log_e == pytest.approx(one.log_e)
    assert safe_four.log_e == pytest.approx(safe.log_e)


def test_a_state_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 97"):
        TwoSampleTest().restore(NonInferiority(0.01).to_dict())
    with pytest.raises(ValueError, match="0 <= events <= requests"):
        Block(1, 2, 1, 0)


def test_blocks_in_which_one_arm_is_silent_tell_nothing() -> None:
    test, safe = TwoSampleTest(), NonInferiority(0.01)
    for block in (Block(0, 0, 0, 0), Block(1000, 10, 0, 0), Block(0, 0, 1000, 900)):
        test.update(block)
        safe.update(block)
    assert test.log_e == pytest.approx(0, abs=1e-12)
    assert safe.log_e == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("main_k", "canary_k"), [(0, 10**6), (10**6, 10**6), (0, 0), (10**6, 0)])
def test_extreme_counts_stay_finite(main_k: int, canary_k: int) -> None:
    test, safe, objective = TwoSampleTest(0.05), NonInferiority(0.1), ObjectiveTest(0.0)
    for _ in range(20):
        test.update(Block(10**6, main_k, 10**6, canary_k))
        safe.update(Block(10**6, main_k, 10**6, canary_k))
        objective.update(10**6, canary_k)
    for process in (test, safe, objective):
        assert math.isfinite(process.log_e)
        assert process.e_value >= 0
        process.restore(process.to_dict())
