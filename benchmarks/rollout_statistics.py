"""How often a good canary is rolled back, how soon a bad one is found, and what other rules would have done.

All rules judge the same simulated rollouts: 30 looks at 1,000 requests each over a ramp of weights. Ours is
the test of `canaryflow.delivery.sequential` at the limit that a rollout uses for two metrics; the others are
what users pick instead. Prints tables; `--runs 10000` gives the figures of docs/evidence.md (some minutes).

    python benchmarks/rollout_statistics.py [--runs 1000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import mannwhitneyu

from canaryflow.delivery.evidence import Evidence
from canaryflow.delivery.metrics import ArmCounters
from canaryflow.delivery.plan import RolloutPlan
from canaryflow.delivery.sequential import TwoSampleTest, log_returns

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ALPHA = 0.01
LIMIT = 223.0  # one of two metrics: 45 % of alpha
TOLERANCE = 0.0005  # a twentieth of the default error margin
LOOK = 1000
DEFAULT_RAMP = ((0.05, 2), (0.10, 3), (0.25, 8), (0.50, 17))
EQUAL_RAMP = ((0.05, 8), (0.10, 8), (0.25, 7), (0.50, 7))
CHUNK = 250
CASES = (
    ((0.0, 0.08), (0.0, 0.10)),
    ((0.01, 0.08), (0.01, 0.10)),
    ((0.01, 0.08), (0.02, 0.08)),
    ((0.0, 0.08), (0.05, 0.08)),
    ((0.0, 0.08), (0.0, 0.9)),
    ((0.3, 0.1), (0.3, 0.1)),
)
"""(errors, slow) of main and of the canary."""


@dataclass(frozen=True)
class Rollouts:
    """Counts of many simulated rollouts, shape (runs, looks)."""

    main_n: Ints
    main_k: Ints
    canary_n: Ints
    canary_k: Ints

    @property
    def runs(self) -> int:
        return int(self.main_n.shape[0])


Rule = Callable[[Rollouts], NDArray[np.bool_]]
"""Where a rule would roll back, by run and look."""


def simulate(
    main: float,
    canary: float,
    runs: int,
    ramp: tuple[tuple[float, int], ...] = DEFAULT_RAMP,
    *,
    restless: bool = False,
    seed: int = 0,
) -> Rollouts:
    """Draw rollouts; ``restless`` traffic varies sixfold over time, and both arms' rates drift threefold."""
    rng = np.random.default_rng(seed)
    weights = np.repeat([weight for weight, _ in ramp], [looks for _, looks in ramp])
    looks = np.arange(len(weights))
    sizes, drift = np.full(len(weights), LOOK), np.ones(len(weights))
    if restless:
        sizes = (LOOK * (1.17 + 0.83 * np.sin(looks / 3.0))).astype(np.int64)
        drift = 1.0 + np.sin(looks / 5.0 - 1.0) * 0.5
    canary_n = rng.binomial(sizes, weights, (runs, len(weights)))
    main_n = sizes - canary_n
    main_k = rng.binomial(main_n, np.minimum(1.0, main * drift))
    return Rollouts(main_n, main_k, canary_n, rng.binomial(canary_n, np.minimum(1.0, canary * drift)))


class ManyTests(TwoSampleTest):
    """The same test for many rollouts at once: the wealth has a row for each."""

    def __init__(self, tolerance: float, runs: int) -> None:
        super().__init__(tolerance)
        self._wealth = np.tile(self._wealth, (runs, 1))

    def look(self, counts: list[Ints]) -> Floats:
        """Add a block for each run (arrays of shape (runs, 1)); the log e-values."""
        self.settle(log_returns(self._main, self._canary, tuple(counts), self._tolerance))  # type: ignore[arg-type]
        return np.asarray(logsumexp(self._wealth, axis=-1))


def ours(rollouts: Rollouts) -> NDArray[np.bool_]:
    """The two-sample e-process."""
    parts = []
    for start in range(0, rollouts.runs, CHUNK):
        arrays = (rollouts.main_n, rollouts.main_k, rollouts.canary_n, rollouts.canary_k)
        chunk = [array[start : start + CHUNK] for array in arrays]
        tests = ManyTests(TOLERANCE, len(chunk[0]))
        looks = range(chunk[0].shape[1])
        found = [tests.look([array[:, look, None] for array in chunk]) >= np.log(LIMIT) for look in looks]
        parts.append(np.stack(found, axis=1))
    return np.concatenate(parts)


def z_scores(rollouts: Rollouts) -> Floats:
    """The pooled z of the totals so far."""
    arrays = (rollouts.main_n, rollouts.main_k, rollouts.canary_n, rollouts.canary_k)
    main_n, main_k, canary_n, canary_k = (np.cumsum(array, axis=1) for array in arrays)
    pooled = (main_k + canary_k) / (main_n + canary_n)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / main_n + 1 / canary_n), 1e-12))
    return np.asarray((canary_k / canary_n - main_k / main_n) / spread)


def peeked_z(rollouts: Rollouts) -> NDArray[np.bool_]:
    """A one-sided z-test at alpha 0.01, looked at each time."""
    return np.asarray(z_scores(rollouts) > 2.326)


def group_sequential(rollouts: Rollouts) -> NDArray[np.bool_]:
    """O'Brien and Fleming's limits for 30 looks of equal information, one-sided alpha 0.01.

    The constant is from simulated Brownian motion; on a ramp the looks are not of equal information.
    """
    looks = z_scores(rollouts).shape[1]
    paths = np.cumsum(np.random.default_rng(1).standard_normal((100_000, looks)), axis=1) / np.sqrt(looks)
    constant = np.quantile(paths.max(axis=1), 1 - ALPHA)
    return np.asarray(z_scores(rollouts) > constant * np.sqrt(looks / np.arange(1, looks + 1)))


def mann_whitney(rollouts: Rollouts) -> NDArray[np.bool_]:
    """The rates of the looks so far, one sample a look, as Kayenta's judge compares them (two-sided 98 %)."""
    main, canary = rollouts.main_k / rollouts.main_n, rollouts.canary_k / rollouts.canary_n
    found = np.zeros(main.shape, dtype=bool)
    for look in range(4, main.shape[1]):
        tested = mannwhitneyu(canary[:, : look + 1], main[:, : look + 1], alternative="greater", axis=1)
        found[:, look] = tested.pvalue < 0.01
    return found


def fixed_threshold(rollouts: Rollouts) -> NDArray[np.bool_]:
    """Fail after 5 looks in which the canary's success rate was under 99 %, as Flagger's examples have it."""
    failed = rollouts.canary_k / np.maximum(rollouts.canary_n, 1) > 0.01
    return np.asarray(np.cumsum(failed, axis=1) >= 5)


RULES: dict[str, Rule] = {
    "e-process (ours)": ours,
    "z-test, peeked": peeked_z,
    "Mann-Whitney, peeked": mann_whitney,
    "5 looks over 1 %": fixed_threshold,
    "group-sequential": group_sequential,
}


def judged(rule: Rule, rollouts: Rollouts) -> tuple[float, float, float]:
    """Share rolled back; median requests until then; median canary requests that failed until then."""
    found = rule(rollouts)
    stopped = found.any(axis=1)
    at = found.argmax(axis=1)
    rows = np.arange(len(at))
    requests = np.cumsum(rollouts.main_n + rollouts.canary_n, axis=1)[rows, at]
    hurt = np.cumsum(rollouts.canary_k, axis=1)[rows, at]
    never = np.inf
    return (
        float(stopped.mean()),
        float(np.median(np.where(stopped, requests, never))),
        float(np.median(np.where(stopped, hurt, never))),
    )


def table(title: str, cases: dict[str, Rollouts], rules: dict[str, Rule], *, alarms: bool) -> None:
    """Print a table: a row for each rule, a column for each case."""
    print(f"\n{title}\n")
    print("| rule | " + " | ".join(cases) + " |")
    print("|---" * (len(cases) + 1) + "|")
    for name, rule in rules.items():
        cells = []
        for rollouts in cases.values():
            share, requests, hurt = judged(rule, rollouts)
            cell = f"{100 * share:.2f} %"
            cells.append(cell if alarms else f"{cell}, {requests:,.0f} requests, {hurt:,.0f} failed")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


class Arms:
    """Both arms' counters under simulated requests, for the whole of the evidence."""

    EDGE = 0.025

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._counts = {"main": [0, 0, 0], "canary": [0, 0, 0]}

    def serve(self, arm: str, n: int, errors: float, slow: float) -> None:
        counts = self._counts[arm]
        for place, count in enumerate((n, self._rng.binomial(n, errors), self._rng.binomial(n, slow))):
            counts[place] += int(count)

    def read(self) -> dict[str, ArmCounters]:
        return {
            arm: ArmCounters(n, failed, ((self.EDGE, n - slow), (float("inf"), n)))
            for arm, (n, failed, slow) in self._counts.items()
        }


def whole(main: tuple[float, float], canary: tuple[float, float], runs: int, looks: int = 60) -> str:
    """Ask all of the evidence (errors, latency, objective) at each look; rates are (errors, slow)."""
    ended: dict[str, list[int]] = {"promote": [], "roll back": [], "continue": []}
    for run in range(runs):
        rng = np.random.default_rng(run)
        arms, evidence = Arms(rng), Evidence(RolloutPlan(), Arms.EDGE)
        before: dict[str, ArmCounters] = {}
        seen, action = 0, "continue"
        for look in range(looks):
            weight = (0.05, 0.05, 0.10, 0.10, 0.25, 0.25)[look] if look < 6 else 0.50
            n = int(rng.binomial(500, weight))
            arms.serve("canary", n, *canary)
            arms.serve("main", 500 - n, *main)
            after = arms.read()
            evidence.observe(before, after)
            before, seen, action = after, seen + n, evidence.decision().action
            if action != "continue":
                break
        ended[action].append(seen)
    cells = []
    for seen_until in ended.values():
        median = f" ({np.median(seen_until):,.0f})" if seen_until else ""
        cells.append(f"{len(seen_until)} of {runs}{median}")
    return " | ".join(cells)


def decision_time() -> str:
    """Milliseconds for one observation with its decision, 10^9 requests behind it."""
    evidence = Evidence(RolloutPlan(), Arms.EDGE)
    buckets = ((Arms.EDGE, 900_000_000), (float("inf"), 1_000_000_000))
    after = {arm: ArmCounters(1_000_000_000, 10_000_000, buckets) for arm in ("main", "canary")}
    times = []
    for _ in range(200):
        start = time.perf_counter()
        evidence.observe({}, after)
        evidence.decision()
        times.append(1000 * (time.perf_counter() - start))
    return f"{np.median(times):.1f} ms (99 %: {np.quantile(times, 0.99):.1f} ms)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    rates = (0.001, 0.01, 0.05)
    quiet = {f"{100 * rate:g} %": simulate(rate, rate, runs) for rate in rates}
    restless = {f"{100 * rate:g} %, restless": simulate(rate, rate, runs, restless=True) for rate in rates}
    table(f"Good canaries rolled back ({runs:,} rollouts each)", quiet | restless, RULES, alarms=True)
    bad = {
        "1 % -> 2 %": simulate(0.01, 0.02, runs),
        "1 % -> 3 %": simulate(0.01, 0.03, runs),
        "0 % -> 5 %": simulate(0.0, 0.05, runs),
        "0.1 % -> 0.5 %": simulate(0.001, 0.005, runs),
    }
    table("Bad canaries found, median requests of both arms until then", bad, RULES, alarms=False)
    even = {
        "1 % -> 2 %": simulate(0.01, 0.02, runs, EQUAL_RAMP),
        "1 % -> 3 %": simulate(0.01, 0.03, runs, EQUAL_RAMP),
    }
    table(
        "The same, the looks spread evenly over the weights", even, {"e-process (ours)": ours}, alarms=False
    )
    few = min(100, max(20, runs // 50))
    print(f"\nAll of the evidence, looks of 500 requests, {few} rollouts each (median canary requests)\n")
    print("| main: errors, slow | canary | promote | roll back | undecided after 30,000 |")
    print("|---|---|---|---|---|")
    for case in CASES:
        names = [f"{100 * errors:g} %, {100 * slow:g} %" for errors, slow in case]
        print(f"| {names[0]} | {names[1]} | {whole(*case, few)} |", flush=True)
    print(f"\nOne observation with its decision: {decision_time()}")


if __name__ == "__main__":
    main()
