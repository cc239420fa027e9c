"""The folder that keeps what a machine's runs share: the live model, the store of bundles, the tracking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NAMESPACE = "default"


@dataclass(frozen=True)
class Workspace:
    """A workspace's places.

    Attributes:
        root: The folder; it is made when it is first used.
    """

    root: Path

    @property
    def store(self) -> str:
        """The store of bundles."""
        return str((self.root / "store").resolve())

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry, an SQLite file."""
        return f"sqlite:///{(self.root / 'mlflow.db').resolve()}"

    def arguments(self) -> dict[str, object]:
        """What takes the place of a cluster's addresses in a pipeline's parameters."""
        return {"store": self.store, "tracking_uri": self.tracking_uri, "namespace": NAMESPACE}
