from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from canaryflow.model.champion import compare
from canaryflow.model.folds import forward
from canaryflow.model.metrics import balanced_accuracy, base_rate, best_f1_threshold, measure

scores = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=60).filter(
    lambda rows: len({truth for truth, _ in rows}) == 2
)


def arrays(rows: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    truth = np.array([int(truth) for truth, _ in rows])
    positive = np.array([score for _, score in rows]) / 8
    return truth, np.column_stack([1 - positive, positive])


@given(scores)
def test_the_area_counted_by_groups_is_the_area_with_ties(rows: list[tuple[bool, int]]) -> None:
    truth, values = arrays(rows)
    found = compare("binary", truth, values, values[:, ::-1], None)
    assert found.challenger == pytest.approx(sk.roc_auc_score(truth, values[:, 1]))
    assert found.champion == pytest.approx(1 - found.challenger)


@given(scores)
def test_no_threshold_has_a_larger_f1(rows: list[tuple[bool, int]]) -> None:
    truth, values = arrays(rows)
    chosen = best_f1_threshold(truth, values[:, 1])
    reached = sk.f1_score(truth, values[:, 1] >= chosen, zero_division=0.0)
    everywhere = [sk.f1_score(truth, values[:, 1] >= cut, zero_division=0.0) for cut in np.arange(9) / 8]
    assert reached == pytest.approx(max(everywhere))


@given(st.lists(st.integers(0, 30), min_size=8, max_size=80), st.integers(2, 5))
def testforward_folds_never_train_on_what_comes_later(times: list[int], count: int) -> None:
    at = np.array(times)
    for train, held_out in forward(at, count):
        if len(train) and len(held_out):
            assert at[train].max() < at[held_out].min()


@pytest.mark.parametrize("times", [None, np.arange(4000)])
def test_the_bound_covers_the_difference_as_often_as_it_says(times: np.ndarray | None) -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(60):
        truth = generator.integers(0, 2, 4000)
        # Both models see the truth through noise of one size: the true difference is 0.
        ours, theirs = (truth + generator.normal(0, 2, 4000) for _ in range(2))
        values = [np.column_stack([-score, score]) for score in (ours, theirs)]
        covered += compare("binary", truth, *values, times).upper >= 0
    assert 51 <= covered <= 60  # 57 expected of 60, standard deviation 1.7


def test_a_real_difference_is_seen() -> None:
    generator = np.random.default_rng(6)
    truth = generator.normal(0, 1, 500)
    ours, theirs = truth + generator.normal(0, 1.2, 500), truth + generator.normal(0, 1, 500)
    worse = compare("regression", truth, ours, theirs, None)
    assert worse.worse == pytest.approx(0.2, abs=0.1)
    assert worse.worse < worse.upper < 0.4
    assert compare("regression", truth, theirs, ours, None).upper < 0


def test_metrics_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(7)
    truth = generator.integers(0, 3, 300)
    values = generator.dirichlet([1, 1, 1], 300)
    found = measure("multiclass", truth, values)
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, values))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, values.argmax(axis=1)))
    said = values.argmax(axis=1)
    assert balanced_accuracy(truth, said) == pytest.approx(sk.balanced_accuracy_score(truth, said))
    numbers = measure("regression", values[:, 0], values[:, 1])
    assert numbers["rmse"] == pytest.approx(sk.root_mean_squared_error(values[:, 0], values[:, 1]))
    assert numbers["r2"] == pytest.approx(sk.r2_score(values[:, 0], values[:, 1]))
    binary = measure("binary", (truth > 0).astype(int), values[:, :2], 0.4)
    assert binary["recall"] == pytest.approx(sk.recall_score(truth > 0, values[:, 1] >= 0.4))


def test_the_base_rate_is_the_best_constant() -> None:
    truth = np.array([0, 0, 0, 1])
    name, value = base_rate("binary", truth)
    constant = np.tile([0.75, 0.25], (4, 1))
    assert (name, value) == ("log_loss", pytest.approx(measure("binary", truth, constant)["log_loss"]))
    assert base_rate("regression", np.array([1.0, 3.0])) == ("rmse", 1.0)
