"""Commands for what is live: the platform of this machine, its traffic, a rollout under way."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from canaryflow.cli.options import PATH, PORT, RATE, WORKSPACE
from canaryflow.errors import GateFailed, InputError, NotFound

if TYPE_CHECKING:
    from canaryflow.delivery.cluster import Cluster
    from canaryflow.delivery.status import Status
    from canaryflow.local.platform import Platform
    from canaryflow.local.workspace import Workspace

_START_SECONDS = 30.0


@click.command()
@click.argument("table", type=PATH)
@click.option("--target", required=True, help="The column with the truth; it is sent as feedback alone.")
@click.option("--name", required=True, help="The SeldonDeployment.")
@click.option("--namespace", default="default", show_default=True)
@click.option("--platform", "address", help="The one-machine platform; the workspace's own when left out.")
@WORKSPACE
@RATE
@click.option("--duration", type=float, help="Seconds; until Ctrl-C when left out.")
@click.option("--count", type=int, help="Requests to send.")
@click.option("--summary", type=PATH, help="A JSON file with the counts, renewed every second.")
def replay(
    table: Path,
    target: str,
    name: str,
    namespace: str,
    address: str | None,
    workspace: Path,
    rate: float,
    duration: float | None,
    count: int | None,
    summary: Path | None,
) -> None:
    """Send a table's rows (Parquet) through the gateway as real requests, and count what comes back.

    No request is sent twice: one that fails is an error that a user would have seen. Exit 1 where one failed.
    """
    from functools import partial

    from canaryflow.delivery.cluster import connect
    from canaryflow.local.replay import Replay

    api, gateway = addresses(workspace, address)
    cluster = connect(api, namespace)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    counted = Replay(
        table,
        f"{gateway}/seldon/{namespace}/{name}",
        target,
        rate=rate,
        feedback_url=partial(cluster.service_url, name),
        duration=duration,
        count=count,
        summary=summary,
    ).run(stop)
    click.echo(f"{counted.requests:,} requests in {counted.seconds:.1f} s, {counted.errors:,} failed")
    for arm, seen in counted.arms.items():
        latency = seen.latency_ms
        click.echo(f"  {arm:<8}{seen.requests:>9,}  p50 {latency.p50:.1f} ms  p99 {latency.p99:.1f} ms")
    if counted.errors:
        raise GateFailed(f"{counted.errors:,} of {counted.requests:,} requests failed")


@click.group()
def rollout() -> None:
    """Look at a rollout, or take it in hand."""


def _rollout_command(verb: str, text: str) -> None:
    @rollout.command(verb, help=text)
    @click.argument("name")
    @click.option("--namespace", default="", help="The context's own when left out.")
    @click.option("--platform", "address", help="kubernetes, or the one-machine platform's address.")
    @WORKSPACE
    def obey(name: str, namespace: str, address: str | None, workspace: Path) -> None:
        from canaryflow.delivery import status
        from canaryflow.local.workspace import Workspace

        cluster = cluster_of(workspace, address, namespace)
        try:
            now = status.status(cluster, name)
        except NotFound:
            raise InputError(f"{name}: no SeldonDeployment of that name in {cluster.namespace}") from None
        if verb == "status":
            click.echo("\n".join(now.lines()))
        else:
            click.echo(status.command(cluster, name, verb, by=_who()))
            _follow_champion(status.status(cluster, name), Workspace(workspace))


def _who() -> str:
    """Who asks; a container's user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _follow_champion(now: Status, workspace: Workspace) -> None:
    """Where no run drives a rollout, nobody but this command can move the registry's champion with it."""
    tracked = workspace.root / "mlflow.db"
    if now.phase == "done" and now.decision == "promoted" and tracked.is_file():
        from canaryflow.model.tracking import promote_champion

        promote_champion(workspace.tracking_uri, now.name, now.main_version)


_rollout_command("status", "Say how a rollout stands, and why.")
_rollout_command("pause", "Hold the weights where they are, until resumed.")
_rollout_command("resume", "Go on after a pause.")
_rollout_command("promote", "Make the canary main now, whatever the evidence says.")
_rollout_command("abort", "Take the canary away now.")


@click.group()
def local() -> None:
    """The platform on this machine: gateway, operator, servers."""


@local.command("up")
@WORKSPACE
@PORT
def local_up(workspace: Path, port: int) -> None:
    """Start it, and leave it running."""
    from canaryflow.local import platform

    live = platform.up(workspace, port)
    click.echo(f"gateway {live.gateway}\napi     {live.api}")
    for name, state in _settled(workspace).items():
        click.echo(f"{name} is {state}")


def _settled(workspace: Path) -> dict[str, str]:
    """What is live and how it is, once its servers had the time to start."""
    from canaryflow.local import platform

    deadline = time.monotonic() + _START_SECONDS
    while True:
        found = {live["name"]: live["state"] for live in platform.status(workspace)["live"]}
        if "Creating" not in found.values() or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


@local.command("down")
@WORKSPACE
def local_down(workspace: Path) -> None:
    """Stop it with everything it started."""
    from canaryflow.local import platform

    click.echo("stopped" if platform.down(workspace) else f"nothing was running on {workspace}")


@local.command("status")
@WORKSPACE
def local_status(workspace: Path) -> None:
    """Say what is running."""
    import json

    from canaryflow.local import platform

    click.echo(json.dumps(platform.status(workspace), indent=2))


@contextlib.contextmanager
def platform_of(workspace: Path, port: int) -> Iterator[Platform]:
    """The workspace's platform: the one that runs, or one for as long as this command takes."""
    from canaryflow.local import platform

    live = platform.up(workspace, port, tied=True)
    try:
        yield live
    finally:
        if live.started:
            platform.down(workspace, live.pid)


def addresses(workspace: Path, api: str | None) -> tuple[str, str]:
    """The platform's API and its gateway."""
    import json
    from urllib.error import URLError
    from urllib.request import urlopen

    from canaryflow.local import platform

    if api is None:
        found = platform.status(workspace)
        if "api" not in found:
            raise InputError(f"workspace {workspace}: has no platform; start one by `canaryflow local up`")
        return found["api"], found["gateway"]
    try:
        with urlopen(f"{api}/gateway", timeout=10) as answer:  # noqa: S310 - the address that was given
            return api, json.load(answer)["url"]
    except (URLError, ValueError, KeyError) as error:
        raise InputError(f"--platform {api}: no one-machine platform answers there ({error})") from error


def cluster_of(workspace: Path, address: str | None, namespace: str) -> Cluster:
    """The cluster that is meant: the one that is named, or the workspace's platform."""
    from canaryflow.delivery.cluster import connect

    return connect(address or addresses(workspace, None)[0], namespace)


COMMANDS = (replay, rollout, local)
