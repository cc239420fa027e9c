"""The estimators a training may name: those that ONNX carries exactly.

Each is a scikit-learn pipeline of a column transformer and the estimator. What is left out is left out for a
measured reason: ONNX's trees misread NaN of forests (so those get imputed numbers), native categoricals of
histogram boosting convert to wrong labels, and a scaler before trees moves their thresholds.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from canaryflow.bundle.format import Problem
from canaryflow.errors import InputError
from canaryflow.model.dataset import Dataset

Params = dict[str, Any]


@dataclass(frozen=True)
class Float:
    """A hyperparameter between two floats; searched on a logarithmic scale."""

    low: float
    high: float


@dataclass(frozen=True)
class Integer:
    """A hyperparameter between two integers; searched on a logarithmic scale."""

    low: int
    high: int


@dataclass(frozen=True)
class Family:
    """One name a training may ask for.

    Attributes:
        classifier: Makes the classifier.
        regressor: Makes the regressor.
        start: The hyperparameters tried first; the ones used when nothing is searched.
        space: What the search may vary.
        columns: How columns enter: "nan" (trees that take NaN), "imputed" (trees that do not), "scaled".
    """

    classifier: Callable[..., Any]
    regressor: Callable[..., Any]
    start: Params
    space: Mapping[str, Float | Integer]
    columns: Literal["nan", "imputed", "scaled"]

    def build(self, data: Dataset, params: Params, seed: int) -> Any:  # noqa: ANN401 - sklearn is untyped
        """An unfitted pipeline for a data set.

        Args:
            data: Names the columns and the problem; its rows are not looked at.
            params: Values for the names in ``space`` (or any the estimator takes).
            seed: Of the estimator and of the target encoder's inner folds.
        """
        make = self.regressor if data.problem == "regression" else self.classifier
        estimator = make(random_state=seed, **params)
        return Pipeline([("columns", self._columns(data, seed)), ("estimator", estimator)])

    def _columns(self, data: Dataset, seed: int) -> Any:  # noqa: ANN401 - sklearn is untyped
        parts: list[tuple[str, Any, list[str]]] = []
        if data.categorical:
            parts.append(("categorical", self._encoder(data.problem, seed), data.categorical))
        if data.numeric:
            parts.append(("numeric", self._numbers(), data.numeric))
        return ColumnTransformer(parts, verbose_feature_names_out=False)

    def _encoder(self, problem: Problem, seed: int) -> Any:  # noqa: ANN401 - sklearn is untyped
        if self.columns == "scaled":
            return OneHotEncoder(handle_unknown="ignore")
        if problem == "multiclass":  # skl2onnx has no target encoder of several classes
            return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        inner = KFold if problem == "regression" else StratifiedKFold
        return TargetEncoder(cv=inner(5, shuffle=True, random_state=seed))

    def _numbers(self) -> Any:  # noqa: ANN401 - sklearn is untyped
        if self.columns == "nan":
            return "passthrough"
        imputer = SimpleImputer(strategy="median", keep_empty_features=True)
        if self.columns == "imputed":
            return imputer
        return Pipeline([("impute", imputer), ("scale", StandardScaler())])


def _logistic(**params: Any) -> Any:  # noqa: ANN401 - sklearn is untyped
    strength = params.pop("alpha")
    return LogisticRegression(C=1 / strength, max_iter=500, **params)


def _hist_boosting(estimator: Callable[..., Any]) -> Callable[..., Any]:
    # Early stopping would hold out rows at random, against the folds' order in time.
    return lambda **params: estimator(early_stopping=False, **params)


_FOREST_SPACE: dict[str, Float | Integer] = {
    "max_depth": Integer(6, 16),
    "min_samples_leaf": Integer(5, 100),
    "max_features": Float(0.2, 1.0),
}

FAMILIES: Mapping[str, Family] = {
    "hist_gradient_boosting": Family(
        _hist_boosting(HistGradientBoostingClassifier),
        _hist_boosting(HistGradientBoostingRegressor),
        {
            "max_iter": 100,
            "learning_rate": 0.1,
            "max_leaf_nodes": 31,
            "min_samples_leaf": 20,
            "l2_regularization": 0.1,
        },
        {
            # Narrow on the weak side: on the search's sample weak settings look better than on all rows.
            "max_iter": Integer(80, 140),
            "learning_rate": Float(0.05, 0.15),
            "max_leaf_nodes": Integer(16, 48),
            "min_samples_leaf": Integer(20, 120),
            "l2_regularization": Float(0.01, 10.0),
        },
        "nan",
    ),
    "random_forest": Family(
        RandomForestClassifier,
        RandomForestRegressor,
        {"n_estimators": 80, "max_depth": 12, "min_samples_leaf": 10, "max_features": 0.4},
        _FOREST_SPACE,
        "imputed",
    ),
    "extra_trees": Family(
        ExtraTreesClassifier,
        ExtraTreesRegressor,
        {"n_estimators": 80, "max_depth": 14, "min_samples_leaf": 10, "max_features": 0.6},
        _FOREST_SPACE,
        "imputed",
    ),
    "decision_tree": Family(
        DecisionTreeClassifier,
        DecisionTreeRegressor,
        {"max_depth": 8, "min_samples_leaf": 20},
        {"max_depth": Integer(3, 14), "min_samples_leaf": Integer(5, 200)},
        "imputed",
    ),
    "linear": Family(_logistic, Ridge, {"alpha": 1.0}, {"alpha": Float(0.001, 1000.0)}, "scaled"),
    "neural_network": Family(
        lambda **params: MLPClassifier(max_iter=60, **params),
        lambda **params: MLPRegressor(max_iter=60, **params),
        {"hidden_layer_sizes": (32, 16), "alpha": 0.001, "learning_rate_init": 0.003},
        {"alpha": Float(0.00001, 0.1), "learning_rate_init": Float(0.0005, 0.01)},
        "scaled",
    ),
}


def family(name: str) -> Family:
    """Find an estimator by its name.

    Raises:
        InputError: It is not allowed; the message lists those that are, and the nearest.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    close = difflib.get_close_matches(str(name), FAMILIES, n=1, cutoff=0.4)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise InputError(f"estimator: found {name!r}, expected one of {', '.join(FAMILIES)}{hint}")
