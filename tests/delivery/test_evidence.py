"""What a rollout concludes from the counters of both arms."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryflow.delivery.evidence import Evidence, choose_latency_edge
from canaryflow.delivery.metrics import ArmCounters
from canaryflow.errors import InputError

EDGE = 0.025
NOTHING: dict[str, ArmCounters] = {"main": ArmCounters(), "canary": ArmCounters()}


@dataclass(frozen=True)
class Plan:
    alpha: float = 0.01
    error_margin: float = 0.01
    latency_margin: float = 0.1
    max_error_rate: float = 0.05


@dataclass
class Arm:
    """One arm's truth, and its counters so far."""

    errors: float = 0.0
    slow: float = 0.08
    requests: int = 0
    failed: int = 0
    over: int = 0

    def serve(self, n: int, rng: np.random.Generator) -> None:
        self.requests += n
        self.failed += int(rng.binomial(n, self.errors))
        self.over += int(rng.binomial(n, self.slow))

    @property
    def counters(self) -> ArmCounters:
        return counters(self.requests, self.failed, self.over)


def counters(requests: int, errors: int = 0, over: int = 0) -> ArmCounters:
    return ArmCounters(requests, errors, ((EDGE, requests - over), (math.inf, requests)))


class Traffic:
    """Both arms under one stream of requests, observed look by look."""

    def __init__(self, main: Arm, canary: Arm, plan: Plan | None = None, seed: int = 1) -> None:
        self.main, self.canary, self.rng = main, canary, np.random.default_rng(seed)
        self.evidence = Evidence(plan or Plan(), EDGE)
        self.before = {"main": main.counters, "canary": canary.counters}

    def look(self, requests: int, weight: float) -> str:
        n = int(self.rng.binomial(requests, weight))
        self.canary.serve(n, self.rng)
        self.main.serve(requests - n, self.rng)
        after = {"main": self.main.counters, "canary": self.canary.counters}
        self.evidence.observe(self.before, after)
        self.before = after
        return self.evidence.decision().action

    def ramp(self, looks: int = 40, requests: int = 500) -> str:
        for look in range(looks):
            weight = (0.05, 0.10, 0.25, 0.50)[min(look // 2, 3)]
            action = self.look(requests, weight)
            if action != "continue":
                return action
        return "continue"


@pytest.mark.parametrize("seed", range(5))
def test_a_canary_without_errors_and_a_little_colder_is_promoted_within_2000_requests(
    seed: int,
) -> None:
    traffic = Traffic(Arm(), Arm(slow=0.10), seed=seed)
    assert traffic.ramp() == "promote"
    assert traffic.canary.requests <= 2000


@pytest.mark.parametrize("seed", range(5))
def test_one_failure_in_twenty_is_caught_within_a_few_dozen_requests(seed: int) -> None:
    traffic = Traffic(Arm(), Arm(errors=0.05), seed=seed)
    while traffic.look(200, 0.05) == "continue":
        assert traffic.canary.requests < 200
    assert traffic.evidence.decision().action == "roll back"
    (reason,) = traffic.evidence.decision().reasons
    assert "canary" in reason
    assert "main 0 of" in reason
    assert "sequential two-sample test: E = " in reason


def test_a_slow_canary_is_rolled_back_for_its_latency_alone() -> None:
    traffic = Traffic(Arm(), Arm(slow=0.9))
    assert traffic.ramp() == "roll back"
    assert traffic.canary.requests <= 100
    (reason,) = traffic.evidence.decision().reasons
    assert reason.startswith("answers slower than 25 ms: canary ")


def test_a_canary_that_is_only_colder_is_never_rolled_back() -> None:
    for seed in range(15):
        traffic = Traffic(Arm(errors=0.01, slow=0.05), Arm(errors=0.01, slow=0.12), seed=seed)
        assert traffic.ramp(looks=16, requests=2000) != "roll back"


def test_a_canary_as_broken_as_main_is_neither_blamed_nor_promoted() -> None:
    for seed in range(5):
        traffic = Traffic(Arm(errors=0.3), Arm(errors=0.3), seed=seed)
        assert traffic.ramp(looks=20) == "continue"
    assert "main does not hold it either" in " ".join(traffic.evidence.decision().reasons)


def test_the_objective_stands_beside_the_comparison() -> None:
    # Worse than main by less than the tolerance, so only the objective speaks.
    plan = Plan(error_margin=0.9, max_error_rate=0.05)
    traffic = Traffic(Arm(errors=0.045), Arm(errors=0.085), plan)
    assert traffic.ramp() == "roll back"
    assert "the objective of at most 5 % is broken" in traffic.evidence.decision().reasons[0]
    assert (
        Traffic(Arm(errors=0.045), Arm(errors=0.085), replace(plan, max_error_rate=1.0)).ramp() == "promote"
    )


def test_no_promotion_before_the_canary_has_answered_enough() -> None:
    evidence = Evidence(Plan(error_margin=0.2))
    evidence.observe(NOTHING, {"main": counters(5000), "canary": counters(400)})
    decision = evidence.decision()
    assert decision.action == "continue"
    assert "the canary answered 400 requests, 500 are needed" in decision.reasons
    evidence.observe(NOTHING, {"main": counters(5000), "canary": counters(400)})
    assert evidence.decision().action == "promote"


def test_no_requests_are_neither_good_nor_bad() -> None:
    evidence = Evidence(Plan(), EDGE)
    assert evidence.decision().action == "continue"
    for before, after in (({}, {}), (NOTHING, NOTHING), (NOTHING, {"main": counters(10_000)}), (NOTHING, {})):
        evidence.observe(before, after)
    assert evidence.decision().action == "continue"
    assert evidence.summary()["errors"]["canary_n"] == 0
    assert evidence.summary()["errors"]["e_value"] == pytest.approx(1)
    assert evidence.summary()["latency"]["upper_bound"] == 1.0


def test_a_reset_counts_from_zero_and_a_series_born_late_counts_whole() -> None:
    evidence = Evidence(Plan(), EDGE)
    evidence.observe(
        {"main": counters(1000, 10, 100)}, {"main": counters(300, 3, 20), "canary": counters(70, 7, 9)}
    )
    errors, latency = evidence.summary()["errors"], evidence.summary()["latency"]
    assert [errors[key] for key in ("main_n", "main_k", "canary_n", "canary_k")] == [300, 3, 70, 7]
    assert [latency[key] for key in ("main_n", "main_k", "canary_n", "canary_k")] == [300, 20, 70, 9]


def test_a_histogram_that_is_missing_or_lags_leaves_latency_out_and_errors_in() -> None:
    evidence = Evidence(Plan(), EDGE)
    bare = {"main": ArmCounters(1000, 0), "canary": ArmCounters(100, 0)}
    evidence.observe(NOTHING, bare)
    other = {arm: replace(now, buckets=((0.5, 5), (math.inf, 5))) for arm, now in bare.items()}
    evidence.observe(NOTHING, other)
    assert evidence.summary()["errors"]["main_n"] == 2000
    assert evidence.summary()["latency"]["main_n"] == 0
    evidence.observe(bare, {"main": counters(2000, 0, 50), "canary": counters(200, 0, 7)})
    assert evidence.summary()["latency"]["main_n"] == 2000
    assert evidence.summary()["latency"]["canary_k"] == 7


def test_a_reading_that_contradicts_itself_is_no_evidence() -> None:
    evidence = Evidence(Plan())
    evidence.observe(NOTHING, {"main": ArmCounters(1000, 0), "canary": ArmCounters(10, 500)})
    assert evidence.summary()["errors"]["canary_n"] == 0
    assert evidence.decision().action == "continue"


def test_the_state_is_small_carries_on_and_decides_alike() -> None:
    traffic = Traffic(Arm(errors=0.01), Arm(errors=0.02))
    for _ in range(300):
        traffic.look(100_000, 0.5)
    text = json.dumps(traffic.evidence.to_dict())
    assert len(text) < 6000
    again = Evidence.from_dict(Plan(), json.loads(text))
    assert again.decision() == traffic.evidence.decision()
    assert again.to_dict() == json.loads(text)


@pytest.mark.parametrize(
    "data", [{}, {"edge": 0.0}, {"edge": "x"}, {"edge": 0.0, "errors": 3, "objective": []}]
)
def test_a_state_that_is_not_one_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(InputError, match="saved evidence"):
        Evidence.from_dict(Plan(), data)


@pytest.mark.parametrize(
    "plan", [Plan(alpha=0), Plan(alpha=math.nan), Plan(error_margin=1), Plan(max_error_rate=2)]
)
def test_a_plan_out_of_range_is_refused(plan: Plan) -> None:
    with pytest.raises(InputError, match="expected a number from"):
        Evidence(plan)


@pytest.mark.parametrize("plan", [Plan(error_margin=0, latency_margin=0), Plan(max_error_rate=0)])
def test_margins_and_objectives_of_zero_work(plan: Plan) -> None:
    assert Traffic(Arm(), Arm(), plan).ramp(looks=4) == "continue"
    assert Traffic(Arm(), Arm(errors=0.2), plan).ramp() == "roll back"


def test_one_decision_takes_under_ten_milliseconds() -> None:
    evidence = Evidence(Plan(), EDGE)
    after = {"main": counters(10**9, 10**7, 10**8), "canary": counters(10**8, 10**6, 10**7)}
    evidence.observe(NOTHING, after)
    times = []
    for _ in range(15):
        start = time.perf_counter()
        evidence.observe(NOTHING, after)
        evidence.decision()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.010


BUCKETS = ((0.001, 10), (0.005, 700), (0.01, 910), (0.025, 999), (math.inf, 1000))


def test_the_latency_edge_is_the_least_that_few_of_mains_answers_exceed() -> None:
    main = ArmCounters(1000, 0, BUCKETS)
    assert choose_latency_edge(main, share=0.1) == 0.01
    assert choose_latency_edge(main, share=0.995) == 0.001
    assert choose_latency_edge(main, share=0.995, least=0.002) == 0.005
    assert choose_latency_edge(main, share=0.3) == 0.005
    assert choose_latency_edge(main, share=0.0001) == 0.025
    for empty in (
        ArmCounters(),
        ArmCounters(5, 0, ((0.1, 0), (math.inf, 0))),
        ArmCounters(5, 0, ((math.inf, 5),)),
    ):
        with pytest.raises(InputError, match="histogram"):
            choose_latency_edge(empty)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=20).filter(any), st.floats(0.01, 0.99))
def test_the_latency_edge_is_always_one_of_the_histogram(counts: list[int], share: float) -> None:
    edges = [0.0002 * 2**i for i in range(len(counts) - 1)] + [math.inf]
    buckets = tuple(zip(edges, np.cumsum(counts).tolist(), strict=True))
    edge = choose_latency_edge(ArmCounters(sum(counts), 0, buckets), share)
    under = dict(buckets)[edge]
    assert edge in edges[:-1]
    assert sum(counts) - under <= share * sum(counts) or edge == edges[-2]
