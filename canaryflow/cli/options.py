"""What several commands ask for."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)
WORKSPACE = click.option(
    "--workspace", type=PATH, default=Path("workspace"), show_default=True, help="Keeps what runs share."
)
RATE = click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=400.0,
    show_default=True,
    help="Requests a second of the replay.",
)
PORT = click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="The gateway's port; 0 takes a free one."
)
