import shutil

import pytest

from tests.bundle import models


@pytest.fixture(scope="session")
def sealed(tmp_path_factory):
    """One sealed bundle of each problem type, read only."""
    root = tmp_path_factory.mktemp("bundles")
    return {problem: models.make(problem, root / problem) for problem in models.CLASSES}


@pytest.fixture
def copy(sealed, tmp_path):
    """A copy of a bundle that a test may spoil."""

    def make(problem="binary"):
        return shutil.copytree(sealed[problem].path, tmp_path / problem)

    return make
