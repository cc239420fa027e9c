"""How rows are held out: forward in time where there is time, stratified or random elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import KFold, StratifiedKFold

from canaryflow.errors import InputError
from canaryflow.model.dataset import Dataset

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Folds:
    """Cross-validation folds.

    Attributes:
        kind: How they were made, in words for a report.
        parts: Pairs of row positions: trained on, held out.
    """

    kind: str
    parts: tuple[tuple[Rows, Rows], ...]


def make_folds(data: Dataset, count: int, seed: int) -> Folds:
    """Split rows into folds.

    With a time column each fold trains on what came before the rows it holds out (rows of one time never
    straddle): a model is used on the future, and neighbours in time share what a random fold would leak.
    Without one, folds are random, stratified for classification.

    Args:
        data: The rows.
        count: Number of folds, at least 2.
        seed: Of the shuffle.

    Raises:
        InputError: There are fewer rows than folds, or a class has fewer rows than two.
    """
    if count < 2:
        raise InputError(f"cv_folds: found {count}, expected at least 2")
    if len(data) < 2 * count:
        raise InputError(
            f"cross-validation: found {len(data)} rows, expected at least {2 * count} for {count} folds"
        )
    if data.times is not None:
        parts = tuple(part for part in forward(data.times, count) if _usable(data, *part))
        if parts:
            return Folds("forward in time", parts)
    if data.problem == "regression":
        splitter = KFold(count, shuffle=True, random_state=seed)
        kind = "random"
    else:
        smallest = int(np.bincount(data.target, minlength=len(data.classes)).min())
        if smallest < 2:
            rare = data.classes[int(np.bincount(data.target, minlength=len(data.classes)).argmin())]
            raise InputError(f"cross-validation: class {rare!r} has {smallest} rows, expected at least 2")
        splitter = StratifiedKFold(min(count, smallest), shuffle=True, random_state=seed)
        kind = "random, stratified by class"
    return Folds(kind, tuple(splitter.split(np.zeros(len(data)), data.target)))


def forward(times: npt.NDArray[np.generic], count: int) -> list[tuple[Rows, Rows]]:
    """Cut rows in ``count + 1`` parts by time; each part but the first is held out once, after all before it.

    Args:
        times: Shape (n,).
        count: Number of folds. Rows of one time stay together, so a fold may be empty.

    Returns:
        Pairs of row positions: trained on, held out.
    """
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    cuts = [
        int(np.searchsorted(ordered, ordered[len(times) * part // (count + 1)], side="left"))
        for part in range(1, count + 1)
    ] + [len(times)]
    return [(order[:start], order[start:end]) for start, end in pairwise(cuts)]


def _usable(data: Dataset, train: Rows, held_out: Rows) -> bool:
    if len(train) < 2 or len(held_out) < 2:
        return False
    if data.problem == "regression":
        return True
    return all(len(np.unique(data.target[rows])) > 1 for rows in (train, held_out))
