from collections.abc import Iterator
from pathlib import Path

import pytest

from canaryflow.local import platform
from tests.local.bench import STAND_IN, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    workspace = tmp_path / "workspace"
    yield Bench(workspace, platform.up(workspace, server=STAND_IN, tied=True))
    platform.down(workspace)


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    return tmp_path / "bundles"
