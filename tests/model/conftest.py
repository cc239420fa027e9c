from __future__ import annotations

from pathlib import Path

import pytest

from canaryflow.bundle.format import Bundle
from canaryflow.model.training import TrainSpec, train
from tests.model.tables import contract, write

PROBLEMS = ("binary", "multiclass", "regression")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """A bundle per problem; read only."""
    bundles = {}
    for problem in PROBLEMS:
        folder = tmp_path_factory.mktemp(problem)
        source = write(folder, problem)
        spec = TrainSpec(f"shop-{problem}", search_trials=2)
        bundles[problem] = train(source, contract(problem), spec, folder / "bundle", None)
    return bundles


@pytest.fixture
def tests_of(tmp_path: Path):
    """Writes test rows of a problem."""
    return lambda problem, **options: write(tmp_path, problem, "test", seed=99, **options)
