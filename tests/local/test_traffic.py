"""Nothing is lost while weights change, versions roll and canaries go: real processes, real Envoy."""

import asyncio
import os
import signal
from pathlib import Path

import psutil

from tests.local.bench import Bench, load, predictor, sdep, write_bundle


def test_no_request_is_lost_from_first_canary_to_promotion(bench: Bench, bundles: Path) -> None:
    one, two = write_bundle(bundles, "v1"), write_bundle(bundles, "v2")
    bench.create(sdep(predictor("main", one, 100, replicas=2)))
    bench.wait_settled(main=100)

    async def ramp():
        async with load(bench) as result:
            bench_do = asyncio.to_thread
            await bench_do(bench.append_canary, predictor("canary", two, 0))
            await bench_do(bench.wait_settled, main=100, canary=0)
            for weight in (10, 50, 100):
                await bench_do(bench.set_weights, 100 - weight, weight)
                await bench_do(bench.wait_settled, main=100 - weight, canary=weight)
                await asyncio.sleep(0.5)
            promoted = predictor("main", two, 0, replicas=2)
            await bench_do(bench.patch, ("replace", "/spec/predictors/0", promoted))
            await bench_do(bench.wait_settled, main=0, canary=100)
            await bench_do(bench.set_weights, 100, 0)
            await bench_do(bench.wait_settled, main=100, canary=0)
            seen = result.versions["v1"]
            await bench_do(bench.remove_canary)
            await bench_do(bench.wait_settled, main=100)
            await asyncio.sleep(0.5)
            return result, seen

    result, seen = asyncio.run(ramp())
    assert result.failures == []
    assert result.versions["v1"] == seen, "the old version answered after the switch"
    assert min(result.versions["v1"], result.versions["v2"], result.arms["canary"]) > 50


def test_a_killed_pod_is_replaced_and_costs_at_most_what_it_had_in_flight(
    bench: Bench, bundles: Path
) -> None:
    one = write_bundle(bundles, "v1", delay=0.01)
    bench.create(sdep(predictor("main", one, 100, replicas=2)))
    bench.wait_settled(main=100)
    victim, survivor = bench.pids("main")

    async def kill():
        async with load(bench) as result:
            await asyncio.sleep(0.5)
            os.kill(victim, signal.SIGKILL)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(bench.wait_settled, main=100)
            await asyncio.sleep(0.3)
        return result

    result = asyncio.run(kill())
    assert result.lost <= 5, result.failures
    assert result.statuses[200] > 100
    pids = bench.pids("main")
    assert survivor in pids and victim not in pids and len(pids) == 2


def test_a_canary_at_half_the_traffic_goes_in_one_patch_without_a_loss(bench: Bench, bundles: Path) -> None:
    bench.create(sdep(predictor("main", write_bundle(bundles, "v1", delay=0.005), 100)))
    bench.wait_settled(main=100)
    bench.append_canary(predictor("canary", write_bundle(bundles, "v2", delay=0.005), 50))
    bench.wait_settled(main=50, canary=50)

    async def remove():
        async with load(bench) as result:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(bench.remove_canary)
            await asyncio.to_thread(bench.wait_settled, main=100)
            await asyncio.to_thread(bench.wait, lambda: bench.pods("canary") == [], "the pod is gone")
        return result

    result = asyncio.run(remove())
    assert result.failures == []
    assert min(result.arms.values()) > 30


def test_envoy_is_started_again_where_it_was(bench: Bench, bundles: Path) -> None:
    bench.create(sdep(predictor("main", write_bundle(bundles, "v1"), 100)))
    bench.wait_settled(main=100)
    envoys = [child for child in psutil.Process(bench.live.pid).children() if "envoy" in child.name()]
    assert len(envoys) == 1
    envoys[0].kill()

    async def asked() -> int:
        async with load(bench, 50) as result:
            await asyncio.sleep(0.5)
        return result.statuses[200]

    bench.wait(lambda: asyncio.run(asked()) > 20, "answers again")
