"""What a model answered: probabilities or numbers, and the classes they mean. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from canaryflow.bundle.format import Signature


@dataclass(frozen=True)
class Answers:
    """The model's answers.

    Attributes:
        values: float32; probabilities of shape (n, classes), or predictions of shape (n,) for regression.
        signature: Says what the columns mean.
    """

    values: npt.NDArray[np.float32]
    signature: Signature

    def labels(self, threshold: float | None = None) -> list[str]:
        """The class of each row: binary by the threshold, multiclass by the largest probability.

        Args:
            threshold: Binary only: the positive class is answered from this probability on. None takes the
                signature's (0.5 if it has none).

        Raises:
            ValueError: The problem is a regression.
        """
        classes = self.signature.classes
        return [classes[index] for index in self.indices(threshold)]

    def indices(self, threshold: float | None = None) -> list[int]:
        """As `labels`, but the position of the class in ``signature.classes``."""
        if self.signature.problem == "regression":
            raise ValueError("a regression has no classes")
        if self.signature.problem == "binary":
            limit = self.signature.threshold if threshold is None else threshold
            # As the float64 that JSON shows: a client that applies the threshold itself gets the same label.
            positive = self.values[:, 1].astype(np.float64) >= (0.5 if limit is None else limit)
            return [int(value) for value in positive.tolist()]
        indices: list[int] = self.values.argmax(axis=1).tolist()
        return indices
