"""Which features the served model leans on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from canaryflow.bundle.rows import Columns
from canaryflow.bundle.scorer import Scorer
from canaryflow.model.metrics import primary

ROWS = 3000
REPEATS = 3


@dataclass(frozen=True)
class Importance:
    """What shuffling one feature costs.

    Attributes:
        feature: The feature's name.
        drop: Mean loss of the primary metric over the repeats.
        spread: Standard deviation over the repeats.
    """

    feature: str
    drop: float
    spread: float


def permutation_importance(
    scorer: Scorer, columns: Columns, truth: npt.NDArray[Any], seed: int = 0
) -> list[Importance]:
    """Shuffle one feature at a time and see how much worse the answers get (Breiman, 2001).

    Args:
        scorer: The bundle's.
        columns: Arrays of shape (n, 1); an evenly spaced sample of at most `ROWS` rows is used.
        truth: Shape (n,).
        seed: Of the shuffles.

    Returns:
        The largest drop first; empty where the sample does not define the metric.
    """
    chosen = np.unique(np.linspace(0, len(truth) - 1, min(ROWS, len(truth))).astype(np.int64))
    truth = truth[chosen]
    problem = scorer.signature.problem
    if problem == "binary" and len(np.unique(truth)) < 2:
        return []
    sample = {name: values[chosen] for name, values in columns.items()}
    _, score = primary(problem)
    whole = score(truth, scorer.score(sample).values)
    generator = np.random.default_rng(seed)
    found = []
    for name, values in sample.items():
        drops = [
            whole - score(truth, scorer.score(sample | {name: generator.permutation(values)}).values)
            for _ in range(REPEATS)
        ]
        found.append(Importance(name, float(np.mean(drops)), float(np.std(drops))))
    return sorted(found, key=lambda item: -item.drop)
