"""Commands about files: compiled pipelines, contracts, bundles, reports."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from canaryflow.cli.options import PATH
from canaryflow.errors import GateFailed, InputError
from canaryflow.whole import write_whole


@click.command("compile")
@click.option("--image", help="Image of every step; this version's own when left out.")
@click.option("--pipeline", default="train_and_deploy", show_default=True)
@click.option("--to", "target", type=PATH, help="File to write; standard output when left out.")
@click.option("--checkout", type=PATH, help="Compile everything in a checkout, in place.")
@click.option("--check", is_flag=True, help="With --checkout: change nothing, fail if a file is not current.")
def compile_command(
    image: str | None, pipeline: str, target: Path | None, checkout: Path | None, check: bool
) -> None:
    """Write a pipeline as YAML, to upload to the dashboard or to apply."""
    from canaryflow.compile import compile_checkout, compile_pipeline

    if check and checkout is None:
        raise click.UsageError("--check holds a checkout against its sources; say which by --checkout")
    if checkout is not None and (image or target):
        raise click.UsageError("--checkout compiles all in place; --image and --to are for one pipeline")
    if checkout is not None:
        _compile_in_place(compile_checkout(checkout), checkout, check)
        return
    text = compile_pipeline(pipeline, image)
    if target is None:
        click.echo(text, nl=False)
    else:
        write_whole(target, text)


def _compile_in_place(texts: dict[Path, str], checkout: Path, check: bool) -> None:
    stale = []
    for name, text in texts.items():
        path = checkout / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(name))
        if not check:
            write_whole(path, text)
    if check and stale:
        raise GateFailed(f"not current: {', '.join(stale)}; run `make compile` and commit the result")
    click.echo(
        f"{len(texts)} files, {len(stale)} written" if not check else f"{len(texts)} files are current"
    )


@click.group()
def contract() -> None:
    """The rules that data must meet."""


@contract.command("infer")
@click.argument("source")
@click.option("--query", default="", help="SQL, for a database source.")
@click.option("--query-args", default="{}", metavar="JSON", help="Values for the names in the query.")
@click.option("--target", help="The column to predict; guessed when left out.")
def contract_infer(source: str, query: str, query_args: str, target: str | None) -> None:
    """Print a contract to start from, as seen in SOURCE (CSV, Parquet, sqlite:///PATH)."""
    import tempfile

    import yaml

    from canaryflow.data.contract import infer
    from canaryflow.data.sources import ingest

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table"
        ingest(source, query, _mapping(query_args), table)
        try:
            guessed = infer(table)
        except InputError as error:
            raise InputError(str(error).replace(str(table), source)) from None
    columns = guessed["columns"]
    if target is not None and target not in columns:
        raise InputError(f"--target: no column {target!r} in {source}; expected one of {', '.join(columns)}")
    for name, column in columns.items():
        if target is not None and (name == target or column.get("role") == "target"):
            column.pop("role", None)
    if target is not None:
        columns[target]["role"] = "target"
    chosen = next(name for name, column in columns.items() if column.get("role") == "target")
    click.echo(f"# Guessed from {source}; check every line. The target: {chosen}.")
    click.echo("# A number that only tells rows apart is no feature: give it role: id.")
    click.echo("# A column that should be a number and is categorical here holds values that are none.")
    click.echo(yaml.safe_dump(guessed, sort_keys=False), nl=False)


def _mapping(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f'--query-args: {text!r} is not JSON; expected {{"name": value}}') from error
    if not isinstance(found, dict):
        raise InputError(f'--query-args: found {text!r}; expected {{"name": value}}')
    return found


@contract.command("check")
@click.argument("file", type=PATH)
def contract_check(file: Path) -> None:
    """Read a contract, and say whether it can be used."""
    from canaryflow.data.contract import Contract

    rules = Contract.load(file)
    click.echo(
        f"{file}: {len(rules.columns)} columns, {len(rules.features)} features, target {rules.target[0]}"
    )


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Serve a bundle: canaryflow serve BUNDLE [--port P]."""
    from canaryflow.serving.__main__ import main as serve_bundle

    sys.exit(serve_bundle(list(arguments)))


@click.command("report")
@click.argument("file", type=PATH)
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


COMMANDS = (compile_command, contract, serve, show_report)
