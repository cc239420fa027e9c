from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.bench import Bench, bench


@pytest.fixture
def paper(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as running:
        yield running
