"""The command `canaryflow`: what a person says, checked and handed to the library.

Exit status: 0 when it did what was asked, 1 when a gate failed or a canary was rolled back, 2 on bad
input or a missing part, 130 on Ctrl-C, 143 on SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

import click

from canaryflow import __version__
from canaryflow.cli import files, live, pipeline
from canaryflow.errors import CanaryflowError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def cli(debug: bool) -> None:
    """From raw data to live traffic: gated, canaried on real requests, rolled back by evidence."""


for _module in (pipeline, live, files):
    for _command in _module.COMMANDS:
        cli.add_command(_command)


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
        click.echo(f"canaryflow: {' '.join(str(error).split())}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        # A full disk, a folder without permission: the thing is named, a traceback would only hide it.
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"canaryflow: {where}{error.strerror or error}", err=True)
        sys.exit(2)
    except Exception as error:
        if debug:
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        click.echo(f"canaryflow: {text} (a defect; `canaryflow --debug ...` shows where)", err=True)
        sys.exit(2)


def _terminated(signum: int, frame: FrameType | None) -> None:
    """End as on Ctrl-C: every `finally` on the way out stops what it started."""
    raise SystemExit(128 + signum)
