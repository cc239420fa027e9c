"""Commands that run the pipeline on this machine, and the data to start with."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from canaryflow.cli.live import platform_of
from canaryflow.cli.options import PATH, PORT, RATE, WORKSPACE
from canaryflow.errors import InputError

if TYPE_CHECKING:
    from canaryflow.local.run import RunResult


@click.command()
@click.option("-f", "--file", type=PATH, help="Parameters, as YAML.")
@click.option("-p", "--parameter", "pairs", multiple=True, metavar="KEY=VALUE", help="Wins over the file.")
@WORKSPACE
@click.option("--pipeline", type=PATH, help="A compiled pipeline; train_and_deploy when left out.")
@click.option(
    "--replay", default="", metavar="FILE|none", help="A canary's traffic; the test split if left out."
)
@RATE
@PORT
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
    from canaryflow.local.run import PipelineRun
    from canaryflow.local.traffic import Replay
    from canaryflow.local.workspace import Workspace
    from canaryflow.parameters import resolve

    path = (pipeline or pipeline_path()).resolve()
    place = Workspace(workspace)
    arguments = resolve(path, file, pairs, **place.arguments())
    _check(path, arguments)
    traffic = (
        None if replay == "none" else Replay(_replayable(Path(replay), arguments) if replay else None, rate)
    )
    display = Display()
    with _named(workspace), platform_of(workspace, port) as live, display.busy("pipeline"):
        result = PipelineRun(workspace, live.api, path, arguments, traffic, display.listen).run()
    display.heading("Reports")
    display.links(report_links(result))
    _end(result)


@click.command()
@click.option("--workspace", type=PATH, help="A new folder; made under the temporary folder when left out.")
@click.option("--sabotage", type=click.Choice(["errors", "slow"]), help="Spoil the canary after its gates.")
@RATE
@PORT
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
    display.line(f"stopped; canaryflow local up --workspace {workspace} serves it again")


@click.group()
def sample() -> None:
    """Data to start from."""


@sample.command("flights")
@click.option(
    "--to", "folder", type=PATH, required=True, help="Folder for database, contract and parameters."
)
def sample_flights(folder: Path) -> None:
    """Write the flights of 2013 from New York, with a contract and parameters to start from."""
    from canaryflow.data.samples import write_flights

    written = write_flights(folder)
    click.echo(f"{written.database}\n{written.contract}\n{written.params}\n{written.replay}")
    click.echo(f"next: canaryflow run -f {written.params}")


def _wait() -> None:
    """Until Ctrl-C, which ends a mission that was accomplished: nothing was broken off."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


@contextlib.contextmanager
def _named(workspace: Path) -> Iterator[None]:
    """Say where there is no room: a full disk's error knows no file."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.strerror is None:
            raise
        raise OSError(error.errno, error.strerror, str(workspace)) from error


def _replayable(path: Path, arguments: Mapping[str, Any]) -> Path:
    """A table that can be replayed: a canary must not wait for requests that cannot come."""
    from canaryflow.data.contract import Contract
    from canaryflow.data.tables import open_parquet

    names = open_parquet(path).schema_arrow.names
    if "contract" in arguments:
        contract = Contract.parse(arguments["contract"], "contract")
        missing = [name for name in (*contract.features, contract.target[0]) if name not in names]
        if missing:
            raise InputError(f"--replay {path}: no column {missing[0]!r}; expected the contract's")
    return path.resolve()


def _check(pipeline: Path, arguments: Mapping[str, Any]) -> None:
    """Refuse at once what a late step would refuse after minutes of work, or with a canary already there."""
    from canaryflow.data.contract import Contract
    from canaryflow.delivery.plan import RolloutPlan
    from canaryflow.delivery.seldon import ServerSpec, check_name
    from canaryflow.model.estimators import family

    if "contract" in arguments:
        _check_own_contract(pipeline, arguments)
        Contract.parse(arguments["contract"], "contract")
    if "name" in arguments:
        check_name(arguments["name"])
    if "estimator" in arguments:
        family(arguments["estimator"])
    if not 0 < arguments.get("test_fraction", 0.5) < 1:
        raise InputError(f"test_fraction: found {arguments['test_fraction']}, expected between 0 and 1")
    sizes = ("min_replicas", "max_replicas", "cpu_target", "memory_target")
    sizing = {size: arguments[size] for size in sizes if size in arguments}
    ServerSpec(image="any", bundle_uri="any", version="any", **sizing)
    RolloutPlan.from_parameters(arguments)


def _check_own_contract(pipeline: Path, arguments: Mapping[str, Any]) -> None:
    """The default contract is the default sample's: rows of one's own can only break it."""
    from canaryflow.parameters import resolve

    defaults = resolve(pipeline)
    source = arguments.get("source")
    if source != defaults.get("source") and arguments["contract"] == defaults.get("contract"):
        raise InputError(
            f"source is {source} but no contract is given; "
            "`canaryflow contract infer` writes one to start from"
        )


def _end(result: RunResult) -> None:
    if result.exit_code:
        click.echo(f"canaryflow: {result.message}", err=True)
        sys.exit(result.exit_code)
    click.echo(result.message)


COMMANDS = (run, demo, sample)
