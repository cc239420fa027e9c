"""Envoy's view is the judge of a canary: its histogram must say what the requests took."""

import asyncio
import re
from bisect import bisect_right
from pathlib import Path

import aiohttp
from aiohttp import web

from canaryflow.local.gateway import Gateway
from canaryflow.local.ports import Ports
from canaryflow.local.xds import LATENCY_EDGES, Arm

MAIN = Arm("default", "iris", "main")


async def measure(folder: Path) -> tuple[list[int], dict[float, int], list[int]]:
    """What single requests took in Envoy's own words, and what its histogram and counters say afterwards."""

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.query["take"]) / 1000)
        return web.Response(status=int(request.query["status"]))

    ports = Ports()
    app = web.Application()
    app.router.add_get("/x", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = ports.take()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    gateway = Gateway(folder, folder / "envoy.log", ports)
    await gateway.start()
    try:
        await gateway.apply({MAIN: ports.take()}, {("default", "iris"): {"main": 100}})
        await gateway.set_endpoints(MAIN, [port])
        took, statuses = [], []
        async with aiohttp.ClientSession() as session:
            for number, take in enumerate([*(half / 2 for half in range(60)), 95, 103, 146, 152, 245, 253]):
                query = f"?take={take}&status={500 if number % 6 == 0 else 200}"
                async with session.get(f"{gateway.url}/seldon/default/iris/x{query}") as one:
                    took.append(int(one.headers["x-envoy-upstream-service-time"]))
                    statuses.append(one.status)
        await asyncio.sleep(0.6)
        text = await gateway.metrics()
    finally:
        await gateway.stop()
        await runner.cleanup()
    name = 'envoy_cluster_name="default/iris/main"'
    buckets = re.findall(rf'envoy_cluster_upstream_rq_time_bucket{{{name},le="([0-9.]+)"}} (\d+)', text)
    for status in (200, 500):
        counter = f'envoy_cluster_upstream_rq{{envoy_response_code="{status}",{name}}}'
        assert f"{counter} {statuses.count(status)}" in text
    return took, {float(edge): int(count) for edge, count in buckets}, statuses


def test_the_histogram_agrees_with_the_requests_at_every_edge(tmp_path: Path) -> None:
    took, buckets, _ = asyncio.run(measure(tmp_path))
    assert tuple(buckets) == tuple(float(edge) for edge in LATENCY_EDGES)
    took.sort()
    expected = {edge: bisect_right(took, edge) for edge in buckets}
    # The header is written when the answer begins, the histogram when it has ended: on a busy machine
    # that is now and then a millisecond later, never earlier.
    later = {edge: bisect_right([one + 1 for one in took], edge) for edge in buckets}
    assert all(later[edge] <= count <= expected[edge] for edge, count in buckets.items()), (buckets, expected)
    assert sum(buckets[edge] == expected[edge] for edge in buckets) >= 0.6 * len(buckets)
    assert max(buckets.values()) == len(took)
    assert len(set(buckets.values())) > 8


async def after_a_restart(folder: Path) -> list[int | str]:
    """What a request meets: before the stop; after it, with no pod yet; and as soon as there is another."""

    async def serve(port: int, name: str) -> web.AppRunner:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(text=name)

        app = web.Application()
        app.router.add_get("/x", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner

    async def ask(gateway: Gateway) -> int | str:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{gateway.url}/seldon/default/iris/x") as answer,
        ):
            return await answer.text() if answer.status == 200 else answer.status

    ports, met = Ports(), []
    old, new = ports.take(), ports.take()
    runners = [await serve(old, "old"), await serve(new, "new")]
    for port in (old, new):
        gateway = Gateway(folder, folder / "envoy.log", ports)
        await gateway.start()
        try:
            await gateway.apply({MAIN: ports.take()}, {("default", "iris"): {"main": 100}})
            if port == new:
                met.append(await ask(gateway))
            # The first one's versions get ahead of what the second counts to.
            for _ in range(5 if port == old else 1):
                await gateway.set_endpoints(MAIN, [port])
            met.append(await ask(gateway))
        finally:
            await gateway.stop()
    for runner in runners:
        await runner.cleanup()
    return met


def test_a_restart_forgets_where_the_pods_were(tmp_path: Path) -> None:
    assert asyncio.run(after_a_restart(tmp_path)) == ["old", 503, "new"]
