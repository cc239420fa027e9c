"""One metric of a rollout, main against canary: its counts, its two tests, and what they say in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from canaryflow.delivery.sequential import Block, NonInferiority, ObjectiveTest, TwoSampleTest

_CAP_ABOVE = 3.0
"""How far (nats) the proof of non-inferiority may pile up over its threshold: a bad block must undo it."""


class Comparison:
    """One metric's two tests and its counts.

    Args:
        name: "errors" or "latency".
        events: What is counted, for a person ("errors", "answers slower than 25 ms").
        tolerance: The difference that is no reason to roll back.
        margin: The difference that must be excluded to promote.
        alpha: The metric's part of alpha.
        dispersion: How many requests count as one, to roll back and to promote.
    """

    def __init__(
        self,
        name: str,
        events: str,
        tolerance: float,
        margin: float,
        alpha: float,
        dispersion: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        self.name, self.events, self.margin, self.alpha = name, events, margin, alpha
        self.threshold = float(math.ceil(1 / alpha))
        self.worse = TwoSampleTest(tolerance, dispersion[0])
        self.safe = NonInferiority(margin, math.log(self.threshold) + _CAP_ABOVE, dispersion[1])
        self.totals = [0, 0, 0, 0]

    def update(self, block: Block) -> None:
        """Add a block to both tests and to the counts."""
        self.worse.update(block)
        self.safe.update(block)
        counts = (block.main_n, block.main_k, block.canary_n, block.canary_k)
        self.totals = [total + count for total, count in zip(self.totals, counts, strict=True)]

    @property
    def is_worse(self) -> bool:
        """Whether it is proved that the canary is worse than main."""
        return self.worse.log_e >= math.log(self.threshold)

    @property
    def is_safe(self) -> bool:
        """Whether it is proved that the canary is not worse by the margin."""
        return self.safe.log_e >= math.log(self.threshold)

    def sentence(self) -> str:
        """Both arms' counts."""
        main_n, main_k, canary_n, canary_k = self.totals
        return f"{self.events}: canary {_rate(canary_k, canary_n)}, main {_rate(main_k, main_n)}"

    def proof_of_worse(self) -> str:
        """Why the canary is rolled back."""
        found = f"E = {_e(self.worse.log_e)}, limit {self.threshold:g}"
        return f"{self.sentence()}; sequential two-sample test: {found}"

    def state_of_proof(self) -> str:
        """How far the proof of non-inferiority is."""
        margin = f"{100 * self.margin:g} percentage points"
        if self.is_safe:
            return f"{self.sentence()}; worse by {margin} is excluded (E = {_e(self.safe.log_e)})"
        return (
            f"{self.sentence()}; not yet excluded that it is worse by {margin} "
            f"(E = {_e(self.safe.log_e)}, needed {self.threshold:g})"
        )

    def numbers(self) -> dict[str, float]:
        """The counts, both e-values, the threshold and the upper bound of the difference."""
        main_n, main_k, canary_n, canary_k = self.totals
        return {
            "main_n": main_n,
            "main_k": main_k,
            "canary_n": canary_n,
            "canary_k": canary_k,
            "e_value": self.worse.e_value,
            "e_safe": self.safe.e_value,
            "threshold": self.threshold,
            "upper_bound": self.safe.upper_bound(self.alpha),
        }

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready state."""
        return {"n": self.totals, "worse": self.worse.to_dict(), "safe": self.safe.to_dict()}

    def restore(self, data: Mapping[str, Any]) -> Self:
        """Carry on from `to_dict`."""
        self.totals = [int(total) for total in data["n"]]
        self.worse.restore(data["worse"])
        self.safe.restore(data["safe"])
        return self


class Objective:
    """An absolute limit for the canary's error rate.

    Main plays a part in one thing: where it does not hold the objective itself, the canary is not blamed
    (something that both share is broken), though it is not promoted either.

    Args:
        rate: The greatest error rate allowed, in [0, 1]; 1 allows all.
        alpha: The objective's part of alpha.
    """

    def __init__(self, rate: float, alpha: float) -> None:
        self.rate, self.threshold = rate, float(math.ceil(1 / alpha))
        self.test = ObjectiveTest(rate)

    def against(self, totals: Sequence[int]) -> list[str]:
        """Why the canary is rolled back, if it is, given n and k of main and of the canary."""
        main_n, main_k, canary_n, canary_k = totals
        if self.test.log_e < math.log(self.threshold) or main_k > self.rate * main_n:
            return []
        found = f"E = {_e(self.test.log_e)}, limit {self.threshold:g}"
        return [
            f"errors: canary {_rate(canary_k, canary_n)}, main {_rate(main_k, main_n)}; "
            f"the objective of at most {100 * self.rate:g} % is broken: {found}"
        ]

    def unproved(self, totals: Sequence[int]) -> list[str]:
        """Why the canary is not promoted, if the objective forbids it."""
        main_n, main_k, canary_n, canary_k = totals
        if canary_k <= self.rate * canary_n:
            return []
        blame = ", but main does not hold it either" if main_k > self.rate * main_n else ""
        over = f"over the objective of {100 * self.rate:g} %"
        return [f"the canary's error rate {_rate(canary_k, canary_n)} is {over}{blame}"]


def _rate(k: int, n: int) -> str:
    return f"{k:,} of {n:,} ({100 * k / n:.2f} %)" if n else "no requests"


def _e(log_e: float) -> str:
    """An e-value for a person; as a power of ten where it is beyond all print."""
    return f"{math.exp(log_e):.3g}" if log_e < 20 else f"10^{log_e / math.log(10):.0f}"
