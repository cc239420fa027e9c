"""Nothing is lost while weights change, versions roll and canaries go: real processes, real Envoy, no retries."""

import asyncio
from pathlib import Path

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
