"""Which predictors are sabotaged, and how much slower slow is."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from canaryflow.errors import PlatformError
from canaryflow.local.store import Object
from canaryflow.local.xds import ARM_HEADER, Arm

_ASKED = 80
_SLOWER = 3


class Sabotage:
    """The faults that were asked for. They are forgotten when the platform stops.

    Args:
        measure: Gives the median time, in seconds, that a user waits for an answer of an arm.
    """

    def __init__(self, measure: Callable[[Arm, Object], Awaitable[float]]) -> None:
        self._measure = measure
        self._faults: dict[Arm, tuple[str, float | None]] = {}

    def set(self, arm: Arm, kind: str | None) -> None:
        """Sabotage an arm (``errors``, ``slow``), or stop doing so (None)."""
        if kind is None:
            self._faults.pop(arm, None)
        else:
            self._faults[arm] = (kind, None)

    def items(self) -> list[Object]:
        """The faults, as the API shows them."""
        return [
            {**arm._asdict(), "kind": kind, "delay_ms": delay} for arm, (kind, delay) in self._faults.items()
        ]

    async def prepare(self, sdep: Object) -> None:
        """Measure what a slow arm's delay follows from, once, before its pods start.

        Raises:
            PlatformError: There is nothing to measure by: main does not answer.
        """
        namespace, name = sdep["metadata"]["namespace"], sdep["metadata"]["name"]
        predictors = sdep["spec"]["predictors"]
        for predictor in predictors:
            arm = Arm(namespace, name, predictor["name"])
            if self._faults.get(arm) != ("slow", None):
                continue
            if predictor is predictors[0]:
                raise PlatformError(
                    f"fault slow on {arm.cluster}: found no other predictor to measure main by"
                )
            seconds = await self._measure(Arm(namespace, name, predictors[0]["name"]), predictors[0])
            self._faults[arm] = ("slow", round((_SLOWER - 1) * seconds * 1000, 3))

    def wrapper(self, arm: Arm) -> tuple[str, ...]:
        """The program in place of the server; empty for an arm that is not sabotaged."""
        kind, delay = self._faults.get(arm, ("", None))
        if not kind:
            return ()
        command = (sys.executable, "-m", "canaryflow.local.faults", kind)
        return command if delay is None else (*command, f"--delay-ms={delay}")


async def median_through_gateway(
    session: aiohttp.ClientSession, gateway_url: str, arm: Arm, bundle: Path
) -> float:
    """How long a user waits for an arm, measured with the bundle's own sample rows.

    Args:
        session: What asks.
        gateway_url: The gateway.
        arm: Only its answers count, whatever the weights.
        bundle: The bundle that the arm serves.

    Returns:
        The median, in seconds.

    Raises:
        PlatformError: It did not answer, or its bundle has no samples.
    """
    try:
        rows = json.loads((bundle / "samples.json").read_text())["inputs"]
    except (OSError, ValueError, KeyError) as error:
        raise PlatformError(f"bundle {bundle}: no samples to measure {arm.cluster} with ({error})") from error
    url = f"{gateway_url}/seldon/{arm.namespace}/{arm.name}/predict"
    times = []
    for turn in range(_ASKED):
        began = time.perf_counter()
        try:
            async with session.post(url, json={"rows": [rows[turn % len(rows)]]}) as answer:
                await answer.read()
                if answer.status == 200 and answer.headers.get(ARM_HEADER) == arm.predictor:
                    times.append(time.perf_counter() - began)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PlatformError(f"{url}: no answer ({error})") from error
        await asyncio.sleep(0.002)
    if len(times) < _ASKED // 4:
        raise PlatformError(
            f"{url}: found {len(times)} good answers of {arm.predictor}, expected {_ASKED // 4}"
        )
    return statistics.median(times)
