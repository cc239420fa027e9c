"""Trees whose splits mean the same in double precision (scikit-learn) and in single precision (ONNX).

Features are float32 everywhere. scikit-learn splits in float64, in the middle between two values that
occurred; ONNX holds the split in float32, rounded to the nearest. Where the nearest is above the middle and
is itself a value that a row may have, as with measurements of one decimal, that row goes left in one and
right in the other. For a float32 x, "x <= t" and "x <= the greatest float32 not above t" are the same
statement, so the second is put into the trees: scikit-learn answers as before, and the conversion has
nothing left to round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def make_exact(estimator: Any) -> None:  # noqa: ANN401 - sklearn is untyped
    """Put float32 splits into the trees of a fitted estimator, in place; one without trees is left as it is.

    Args:
        estimator: A fitted HistGradientBoosting, forest or extra trees; or anything else.
    """
    for stage in getattr(estimator, "_predictors", ()):
        for predictor in stage:
            inner = predictor.nodes["is_leaf"] == 0
            predictor.nodes["num_threshold"][inner] = _floor(predictor.nodes["num_threshold"][inner])
    for member in getattr(estimator, "estimators_", ()):
        if hasattr(member, "tree_"):
            inner = member.tree_.children_left != -1
            member.tree_.threshold[inner] = _floor(member.tree_.threshold[inner])


def _floor(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The greatest float32 that is not above each value."""
    with np.errstate(over="ignore"):
        near = thresholds.astype(np.float32)
    below = np.nextafter(near, np.float32(-np.inf))
    return np.where(near.astype(np.float64) > thresholds, below, near).astype(np.float64)
