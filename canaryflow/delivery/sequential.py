"""Tests of two rates that may be watched while they run: e-processes over blocks of counts.

An e-process starts at 1 and, while its null hypothesis holds, is expected never to grow. So the chance that
it ever reaches 1/alpha is at most alpha (Ville's inequality), however often it is looked at, and whenever
one stops. Here it is the wealth of a gambler who bets against the null before each block of requests is
seen.

One block. Main answers n_m requests with k_m events (errors, or answers slower than an edge), the canary
n_c with k_c. The null is a convex set H0 of pairs (p_m, p_c). A bet is a pair t = (t_m, t_c) outside of H0;
it pays

    E_t = (t_m/q_m)^k_m ((1-t_m)/(1-q_m))^(n_m-k_m) (t_c/q_c)^k_c ((1-t_c)/(1-q_c))^(n_c-k_c)

where q is the point of H0 nearest to t, in f(p) = n_m KL(t_m, p_m) + n_c KL(t_c, p_c). It is a fair price:
the requests are independent, so log E[E_t] = n_m log(1 + a_m) + n_c log(1 + a_c) <= n_m a_m + n_c a_c, with
a = (p - q)(t/q - (1-t)/(1-q)) in each arm. That sum is the slope of -f at q in the direction p - q, and as
q is the minimum of the convex f over the convex H0, the slope towards any p in H0 is at most 0. Hence
E[E_t] <= 1 on H0.

Many bets. Which t is right is not known, so the wealth is spread over a fixed grid (a mixture; no plug-in
to be learnt, so the first block counts already), a part is kept out of the game, and after each block a
small share of the wealth is spread anew, so that a canary that turns bad late is found too. All that moves
wealth between bets only; the sum stays an e-process. Rates may differ from block to block, and block sizes
too.

Dispersion. Requests that come together share their fate (a burst, a pause of the process), so slow answers
vary more than independent ones would. A test may count d requests as one: its bets pay the d-th root, whose
expectation is at most 1 as well (Jensen), and neighbours that share their fate, d at a time, mislead it no
more.

Turner, Ly and Gruenwald, "Generic E-variables for exact sequential k-sample tests that allow for optional
stopping" (arXiv 2106.02693); Turner and Gruenwald, "Exact anytime-valid confidence intervals for
contingency tables and beyond" (arXiv 2203.09785); Herbster and Warmuth, "Tracking the best expert" (1998),
for the share that is spread anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, xlogy

Floats = NDArray[np.float64]

RESERVE = 0.1
"""The part of the wealth that is kept out of the game: bounds what good news can cost later bad news."""
SHARE = 0.01
"""The part of all wealth that is spread anew over the bets after each block."""

_BASES: Floats = np.array([1e-5, *np.geomspace(1e-4, 0.3, 12), 0.5, 0.7, 0.9])
_ODDS: Floats = np.array([1.5, 2.0, 3.0, 6.0, 20.0, 100.0])
_ODDS_WEIGHTS: Floats = np.array([1.0, 2.0, 2.0, 1.5, 1.0, 0.5])
_HALVINGS = 46
_LEAST_LOG = -200.0


@dataclass(frozen=True)
class Block:
    """What both arms answered in one interval: requests (``_n``) and events among them (``_k``)."""

    main_n: int
    main_k: int
    canary_n: int
    canary_k: int

    def __post_init__(self) -> None:
        if not (0 <= self.main_k <= self.main_n and 0 <= self.canary_k <= self.canary_n):
            raise ValueError(f"{self}: expected 0 <= events <= requests in each arm")


class EProcess:
    """The wealth of a gambler over a fixed grid of bets, in logarithms.

    Args:
        weights: How the wealth is spread at first and when a share is spread anew, shape (bets,) or
            (processes, bets) for several independent processes at once; normalised here.
        cap: The greatest log wealth that is kept; the rest is given away (which no e-process minds).
    """

    def __init__(self, weights: Floats, cap: float = np.inf) -> None:
        kept = np.full((*weights.shape[:-1], 1), RESERVE)
        played = (1 - RESERVE) * weights / weights.sum(axis=-1, keepdims=True)
        self._prior: Floats = np.log(np.concatenate([kept, played], axis=-1))
        self._wealth: Floats = self._prior.copy()
        self._cap = cap

    def settle(self, log_returns: Floats) -> None:
        """Pay the bets of one block (logarithms, shape of the weights), then spread a share anew."""
        self._wealth[..., 1:] += log_returns
        total = logsumexp(self._wealth, axis=-1, keepdims=True)
        kept = self._wealth + np.minimum(0.0, self._cap - total)
        total = np.minimum(total, self._cap)
        self._wealth = np.logaddexp(kept + np.log1p(-SHARE), self._prior + total + np.log(SHARE))

    @property
    def log_e(self) -> float:
        """The natural logarithm of the e-value so far."""
        return float(np.ravel(logsumexp(self._wealth, axis=-1))[0])

    @property
    def e_value(self) -> float:
        """The evidence against the null so far: 1 at the start; reject at 1/alpha."""
        return float(np.exp(min(self.log_e, 700.0)))

    def to_dict(self) -> dict[str, Any]:
        """The state in thousandths of a nat, rounded down: it never claims more than was earned."""
        thousandths = np.floor(np.maximum(self._wealth, _LEAST_LOG) * 1000 + 1e-6)
        return {"w": thousandths.astype(int).ravel().tolist()}

    def restore(self, data: Mapping[str, Any]) -> Self:
        """Carry on from what `to_dict` wrote.

        Raises:
            ValueError: The state is of another grid, or not a list of numbers.
        """
        wealth = np.asarray(data["w"], dtype=np.float64) / 1000
        if wealth.size != self._wealth.size or not np.isfinite(wealth).all():
            raise ValueError(
                f"a test's state of {wealth.size} numbers, expected {self._wealth.size} finite ones"
            )
        self._wealth = wealth.reshape(self._wealth.shape)
        return self


class TwoSampleTest(EProcess):
    """Is the canary worse? H0: p_canary <= p_main + tolerance.

    Args:
        tolerance: A difference of rates that nobody minds, in [0, 1).
        dispersion: How many requests are told apart as one, at least 1 (see the module).
    """

    def __init__(self, tolerance: float = 0.0, dispersion: float = 1.0) -> None:
        main = np.repeat(_BASES, len(_ODDS))
        edge = np.minimum(main + tolerance, 0.97)
        odds = edge / (1 - edge) * np.tile(_ODDS, len(_BASES))
        self._main, self._canary, self._tolerance = main, odds / (1 + odds), tolerance
        self._dispersion = dispersion
        super().__init__(np.tile(_ODDS_WEIGHTS, len(_BASES)))

    def update(self, block: Block) -> None:
        """Add a block; one without requests in both arms tells nothing and changes nothing."""
        if block.main_n and block.canary_n:
            counts = (block.main_n, block.main_k, block.canary_n, block.canary_k)
            self.settle(log_returns(self._main, self._canary, counts, self._tolerance) / self._dispersion)


class NonInferiority(EProcess):
    """Is the canary good enough? H0: p_canary >= p_main + margin; its rejection proves "not worse by margin".

    It is the same test with the arms' roles exchanged (p_main <= p_canary - margin), at the margin and at
    several others: those rejected give the upper end of a confidence sequence for p_canary - p_main.
    Its wealth is capped at ``cap`` (a natural logarithm), so that the good evidence of yesterday cannot hide
    a bad block of today; the bound therefore speaks of the present and may rise again.

    Args:
        margin: The difference that must be excluded, in (0, 1).
        cap: The log wealth to keep at most; above log(1/alpha).
        dispersion: As in `TwoSampleTest`.
    """

    FACTORS = (1.0, 0.1, 0.25, 0.5, 0.75, 1.5, 2.5, 5.0)

    def __init__(self, margin: float, cap: float = np.inf, dispersion: float = 1.0) -> None:
        self._dispersion = dispersion
        margins = np.array([margin * factor for factor in self.FACTORS if margin * factor < 1])
        self._margins: Floats = margins[:, None]
        self._main: Floats = np.tile(_BASES, 2)[None, :]
        behind = np.repeat([0.0, 0.5], len(_BASES))[None, :] * self._margins
        self._canary: Floats = np.minimum(self._main + behind, 0.99)
        super().__init__(np.ones((len(margins), len(_BASES) * 2)), cap)

    def update(self, block: Block) -> None:
        """Add a block; one without requests in both arms tells nothing and changes nothing."""
        if block.main_n and block.canary_n:
            counts = (block.canary_n, block.canary_k, block.main_n, block.main_k)
            self.settle(log_returns(self._canary, self._main, counts, -self._margins) / self._dispersion)

    def upper_bound(self, alpha: float) -> float:
        """The upper end of a (1 - alpha) confidence sequence for p_canary - p_main.

        It is read off a grid (multiples of the margin), so it is rounded up, never down; 1 when nothing is
        excluded yet.
        """
        excluded = logsumexp(self._wealth, axis=-1) >= -np.log(alpha)
        margins = self._margins[:, 0]
        order = np.argsort(margins)[::-1]
        held = np.cumprod(excluded[order]).astype(bool)
        return float(margins[order][held][-1]) if held.any() else 1.0


class ObjectiveTest(EProcess):
    """Does one arm break an absolute objective? H0: p <= objective (a one-sample test; main plays no part).

    A bet t > objective pays (t/o)^k ((1-t)/(1-o))^(n-k), which is expected to be at most 1 for every p <= o.

    Args:
        objective: The greatest rate that is allowed, in [0, 1]; the ends are taken as very near to them.
    """

    def __init__(self, objective: float) -> None:
        objective = min(max(objective, 1e-9), 1 - 1e-9)
        odds = objective / (1 - objective) * np.array([1.2, 1.5, 2.0, 3.0, 6.0, 20.0, 100.0])
        self._objective, self._bets = objective, odds / (1 + odds)
        super().__init__(np.ones(len(self._bets)))

    def update(self, n: int, k: int) -> None:
        """Add ``n`` requests with ``k`` events."""
        if n:
            self.settle(_log_ratio(n, k, self._bets, np.asarray(self._objective)))


def _log_ratio(n: int, k: int, bet: Floats, null: Floats) -> Floats:
    return np.asarray(xlogy(k, bet / null) + xlogy(n - k, (1 - bet) / (1 - null)))


def log_returns(
    first: Floats, second: Floats, counts: tuple[int, int, int, int], tolerance: float | Floats
) -> Floats:
    """The logarithm of what each bet pays for a block, against H0: p_second <= p_first + tolerance.

    Args:
        first: The first arm's rate in each bet, shape broadcastable with ``second`` and ``tolerance``.
        second: The second arm's rate in each bet.
        counts: n and k of the first arm, n and k of the second.
        tolerance: In (-1, 1).

    Returns:
        Shape of the bets; 0 for those inside of H0 (no bet).
    """
    first_n, first_k, second_n, second_k = counts
    null_first, null_second = _nearest(first, second, second_n / (first_n + second_n), tolerance)
    paid = _log_ratio(first_n, first_k, first, null_first) + _log_ratio(
        second_n, second_k, second, null_second
    )
    return np.where(second <= first + tolerance, 0.0, paid)


def _nearest(
    first: Floats, second: Floats, weight: float, tolerance: float | Floats
) -> tuple[Floats, Floats]:
    """The point of H0's border nearest to each bet outside of it, by halving on the sign of the slope.

    On the border p_second = p_first + tolerance the slope of (1-weight) KL(first, p) + weight KL(second,
    p + tolerance) is negative at the smaller of (first, second - tolerance), positive at the greater one.
    """
    least, greatest = np.maximum(0.0, -np.asarray(tolerance)), np.minimum(1.0, 1.0 - np.asarray(tolerance))
    ends = np.clip(np.stack(np.broadcast_arrays(first, second - tolerance)), least, greatest)
    low, high = ends.min(axis=0), ends.max(axis=0)
    for _ in range(_HALVINGS):
        p = (low + high) / 2
        q = p + tolerance
        slope = (1 - weight) * (p - first) * q * (1 - q) + weight * (q - second) * p * (1 - p)
        low, high = np.where(slope < 0, p, low), np.where(slope < 0, high, p)
    p = (low + high) / 2
    return np.clip(p, 1e-12, 1 - 1e-12), np.clip(p + tolerance, 1e-12, 1 - 1e-12)
