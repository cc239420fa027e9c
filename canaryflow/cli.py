"""The command `canaryflow`: what a person says, checked and handed to the library.

Exit status: 0 when it did what was asked, 1 when a gate failed or a canary was rolled back, 2 on bad
input or a missing part, 130 on Ctrl-C, 143 on SIGTERM.
"""

from __future__ import annotations

import contextlib
import getpass
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from canaryflow import __version__
from canaryflow.errors import CanaryflowError, GateFailed, InputError

if TYPE_CHECKING:
    from canaryflow.delivery.cluster import Cluster
    from canaryflow.local.platform import Platform
    from canaryflow.local.run import RunResult

_PATH = click.Path(path_type=Path)
_WORKSPACE = click.option(
    "--workspace", type=_PATH, default=Path("workspace"), show_default=True, help="Keeps what runs share."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def cli(debug: bool) -> None:
    """From raw data to live traffic: gated, canaried on real requests, rolled back by evidence."""


@cli.command()
@click.option("-f", "--file", type=_PATH, help="Parameters, as YAML.")
@click.option("-p", "--parameter", "pairs", multiple=True, metavar="KEY=VALUE", help="Wins over the file.")
@_WORKSPACE
@click.option("--pipeline", type=_PATH, help="A compiled pipeline; train_and_deploy when left out.")
@click.option(
    "--replay", default="", metavar="FILE|none", help="A canary's traffic; the test split if left out."
)
@click.option("--rate", default=400.0, show_default=True, help="Requests a second of the replay.")
@click.option("--port", default=0, help="The gateway's port; 0 takes a free one.")
def run(
    file: Path | None,
    pairs: tuple[str, ...],
    workspace: Path,
    pipeline: Path | None,
    replay: str,
    rate: float,
    port: int,
) -> None:
    """Run the pipeline on this machine, with no cluster.

    The workspace keeps the live model, the store and the tracking; a later run carries on from there.
    What this command starts it stops again, unless `canaryflow local up` keeps the platform running.
    """
    from canaryflow import pipeline_path
    from canaryflow.local.display import Display, report_links
    from canaryflow.local.run import PipelineRun, Replay
    from canaryflow.local.workspace import Workspace
    from canaryflow.parameters import resolve

    path = (pipeline or pipeline_path()).resolve()
    place = Workspace(workspace)
    arguments = resolve(path, file, pairs, **place.arguments())
    _check(arguments)
    traffic = None if replay == "none" else Replay(_readable(Path(replay)) if replay else None, rate)
    display = Display()
    with _platform(workspace, port) as live, display.busy("pipeline"):
        result = PipelineRun(workspace, live.api, path, arguments, traffic, display.listen).run()
    display.heading("Reports")
    display.links(report_links(result))
    _end(result)


@cli.command()
@click.option("--workspace", type=_PATH, help="A new folder; made under the temporary folder when left out.")
@click.option("--sabotage", type=click.Choice(["errors", "slow"]), help="Spoil the canary after its gates.")
@click.option("--rate", default=400.0, show_default=True, help="Requests a second of the replay.")
@click.option("--port", default=0, help="The gateway's port; 0 takes a free one.")
def demo(workspace: Path | None, sabotage: str | None, rate: float, port: int) -> None:
    """Do the whole mission on real flights: two models, the second a canary on live traffic."""
    import tempfile

    from canaryflow.demo import Demo
    from canaryflow.local import platform
    from canaryflow.local.display import Display
    from canaryflow.local.workspace import Workspace

    if workspace is None:
        workspace = Path(tempfile.mkdtemp(prefix="canaryflow-"))
    elif workspace.is_dir() and any(workspace.iterdir()):
        raise InputError(f"--workspace {workspace}: is not empty; expected a new folder")
    display = Display()
    try:
        Demo(Workspace(workspace.resolve()), port, sabotage or "", rate).run(display)
        if sys.stdin.isatty() and sys.stdout.isatty():
            display.heading("Serving until Ctrl-C")
            _wait()
    finally:
        platform.down(workspace)


@cli.command()
@click.argument("table", type=_PATH)
@click.option("--target", required=True, help="The column with the truth; it is sent as feedback alone.")
@click.option("--name", required=True, help="The SeldonDeployment.")
@click.option("--namespace", default="default", show_default=True)
@click.option("--platform", "address", help="The one-machine platform; the workspace's own when left out.")
@_WORKSPACE
@click.option("--rate", default=400.0, show_default=True, help="Requests a second.")
@click.option("--duration", type=float, help="Seconds; until Ctrl-C when left out.")
@click.option("--count", type=int, help="Requests to send.")
@click.option("--summary", type=_PATH, help="A JSON file with the counts, renewed every second.")
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

    api, gateway = _addresses(workspace, address)
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


@cli.group()
def rollout() -> None:
    """Look at a rollout, or take it in hand."""


def _rollout_command(verb: str, text: str) -> None:
    @rollout.command(verb, help=text)
    @click.argument("name")
    @click.option("--namespace", default="", help="The context's own when left out.")
    @click.option("--platform", "address", help="kubernetes, or the one-machine platform's address.")
    @_WORKSPACE
    def obey(name: str, namespace: str, address: str | None, workspace: Path) -> None:
        from canaryflow.delivery import status

        cluster = _cluster(workspace, address, namespace)
        if verb == "status":
            click.echo("\n".join(status.status(cluster, name).lines()))
        else:
            click.echo(status.command(cluster, name, verb, by=getpass.getuser()))


_rollout_command("status", "Say how a rollout stands, and why.")
_rollout_command("pause", "Hold the weights where they are, until resumed.")
_rollout_command("resume", "Go on after a pause.")
_rollout_command("promote", "Make the canary main now, whatever the evidence says.")
_rollout_command("abort", "Take the canary away now.")


@cli.group()
def sample() -> None:
    """Data to start from."""


@sample.command("flights")
@click.option(
    "--to", "folder", type=_PATH, required=True, help="Folder for database, contract and parameters."
)
def sample_flights(folder: Path) -> None:
    """Write the flights of 2013 from New York, with a contract and parameters to start from."""
    from canaryflow.data.samples import write_flights

    written = write_flights(folder)
    click.echo(f"{written.database}\n{written.contract}\n{written.params}\n{written.replay}")
    click.echo(f"next: canaryflow run -f {written.params}")


@cli.group()
def local() -> None:
    """The platform on this machine: gateway, operator, servers."""


@local.command("up")
@_WORKSPACE
@click.option("--port", default=0, help="The gateway's port; 0 takes a free one.")
def local_up(workspace: Path, port: int) -> None:
    """Start it, and leave it running."""
    from canaryflow.local import platform

    live = platform.up(workspace, port)
    click.echo(f"gateway {live.gateway}\napi     {live.api}")


@local.command("down")
@_WORKSPACE
def local_down(workspace: Path) -> None:
    """Stop it with everything it started."""
    from canaryflow.local import platform

    platform.down(workspace)


@local.command("status")
@_WORKSPACE
def local_status(workspace: Path) -> None:
    """Say what is running."""
    import json

    from canaryflow.local import platform

    click.echo(json.dumps(platform.status(workspace), indent=2))


@cli.command("compile")
@click.option("--image", help="Image of every step; this version's own when left out.")
@click.option("--pipeline", default="train_and_deploy", show_default=True)
@click.option("--to", "target", type=_PATH, help="File to write; standard output when left out.")
@click.option("--checkout", type=_PATH, help="Compile everything in a checkout, in place.")
@click.option("--check", is_flag=True, help="With --checkout: change nothing, fail if a file is not current.")
def compile_command(
    image: str | None, pipeline: str, target: Path | None, checkout: Path | None, check: bool
) -> None:
    """Write a pipeline as YAML, to upload to the dashboard or to apply."""
    from canaryflow.compile import compile_checkout, compile_pipeline

    if checkout is not None:
        _compile_in_place(compile_checkout(checkout), checkout, check)
        return
    text = compile_pipeline(pipeline, image)
    if target is None:
        click.echo(text, nl=False)
    else:
        _write(target, text)


def _compile_in_place(texts: dict[Path, str], checkout: Path, check: bool) -> None:
    stale = []
    for name, text in texts.items():
        path = checkout / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(name))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, text)
    if check and stale:
        raise GateFailed(f"not current: {', '.join(stale)}; run `make compile` and commit the result")
    click.echo(
        f"{len(texts)} files, {len(stale)} written" if not check else f"{len(texts)} files are current"
    )


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


@cli.group()
def contract() -> None:
    """The rules that data must meet."""


@contract.command("infer")
@click.argument("source")
@click.option("--query", default="", help="SQL, for a database source.")
def contract_infer(source: str, query: str) -> None:
    """Print a contract to start from, as seen in SOURCE (CSV, Parquet, sqlite:///PATH)."""
    import tempfile

    import yaml

    from canaryflow.data.contract import infer
    from canaryflow.data.sources import ingest

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table"
        ingest(source, query, {}, table)
        click.echo(yaml.safe_dump(infer(table), sort_keys=False), nl=False)


@contract.command("check")
@click.argument("file", type=_PATH)
def contract_check(file: Path) -> None:
    """Read a contract, and say whether it can be used."""
    from canaryflow.data.contract import Contract

    rules = Contract.load(file)
    click.echo(
        f"{file}: {len(rules.columns)} columns, {len(rules.features)} features, target {rules.target[0]}"
    )


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Serve a bundle: canaryflow serve BUNDLE [--port P]."""
    from canaryflow.serving.__main__ import main as serve_bundle

    sys.exit(serve_bundle(list(arguments)))


@cli.command("report")
@click.argument("file", type=_PATH)
def show_report(file: Path) -> None:
    """Print the verdict that a report carries; exit 1 where it is a failure."""
    from canaryflow.report import read_verdict

    verdict = read_verdict(file)
    click.echo(f"{verdict.gate}: {'passed' if verdict.passed else 'failed'}. {verdict.summary}")
    for check in verdict.checks:
        mark = "ok  " if check.passed else "warn" if check.severity == "warning" else "FAIL"
        click.echo(f"  {mark}  {check.name}: found {check.found}, expected {check.expected}")
    if not verdict.passed:
        sys.exit(GateFailed.exit_code)


def main() -> NoReturn:
    """Run the command; an error for a person is one line on standard error."""
    debug = "--debug" in sys.argv
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
    try:
        cli(prog_name="canaryflow", standalone_mode=False)
        sys.exit(0)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("canaryflow: stopped", err=True)
        sys.exit(130)
    except CanaryflowError as error:
        if debug:
            raise
        click.echo(f"canaryflow: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        # A full disk, a folder without permission: the thing is named, a traceback would only hide it.
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"canaryflow: {where}{error.strerror or error}", err=True)
        sys.exit(2)


def _terminated(signum: int, frame: FrameType | None) -> None:
    """End as on Ctrl-C: every `finally` on the way out stops what it started."""
    raise SystemExit(128 + signum)


@contextlib.contextmanager
def _platform(workspace: Path, port: int) -> Iterator[Platform]:
    """The workspace's platform: the one that runs, or one for as long as this command takes."""
    from canaryflow.local import platform

    kept = platform.status(workspace)["running"]
    live = platform.up(workspace, port, tied=not kept)
    try:
        yield live
    finally:
        if not kept:
            platform.down(workspace)


def _addresses(workspace: Path, api: str | None) -> tuple[str, str]:
    """The platform's API and its gateway."""
    import json
    from urllib.error import URLError
    from urllib.request import urlopen

    from canaryflow.local import platform

    if api is None:
        found = platform.status(workspace)
        if not found["running"]:
            raise InputError(f"workspace {workspace}: has no platform; start one by `canaryflow local up`")
        return found["api"], found["gateway"]
    try:
        with urlopen(f"{api}/gateway", timeout=10) as answer:  # noqa: S310 - the address that was given
            return api, json.load(answer)["url"]
    except (URLError, ValueError, KeyError) as error:
        raise InputError(f"--platform {api}: no one-machine platform answers there ({error})") from error


def _cluster(workspace: Path, address: str | None, namespace: str) -> Cluster:
    from canaryflow.delivery.cluster import connect

    return connect(address or _addresses(workspace, None)[0], namespace)


def _wait() -> None:
    while True:
        time.sleep(3600)


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"--replay {path}: no such file; expected Parquet, or none")
    return path.resolve()


def _check(arguments: Mapping[str, Any]) -> None:
    """Refuse at once what a late step would refuse after minutes of work, or with a canary already there."""
    from canaryflow.data.contract import Contract
    from canaryflow.delivery.plan import RolloutPlan

    if "contract" in arguments:
        Contract.parse(arguments["contract"], "contract")
    RolloutPlan.from_parameters(arguments)


def _end(result: RunResult) -> None:
    if result.exit_code:
        click.echo(f"canaryflow: {result.message}", err=True)
        sys.exit(result.exit_code)
    click.echo(result.message)
