"""canaryflow: from raw data to live traffic, gated at every step.

The names here are the ones a user's own code needs. Everything else is imported from where it lives, so that
``import canaryflow`` stays cheap.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfp.dsl import BaseComponent

__version__ = "0.1.0"

#: The images of this version: what the pipeline's steps run in, and what serves a bundle.
STEPS_IMAGE = f"canaryflow-steps:{__version__}"
SERVER_IMAGE = f"canaryflow-server:{__version__}"

__all__ = ["SERVER_IMAGE", "STEPS_IMAGE", "__version__", "load_component", "pipeline_path"]


def _compiled(kind: str, name: str) -> Path:
    """Find a compiled file in the installed package, or beside the package in a checkout."""
    from canaryflow.errors import InputError

    package = Path(__file__).resolve().parent
    checkout = {
        "components": package.parent / "components" / "compiled",
        "pipelines": package.parent / "pipelines",
    }
    folders = [package / "compiled" / kind, checkout[kind]]
    for folder in folders:
        if (path := folder / f"{name}.yaml").is_file():
            return path
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise InputError(f"no {kind[:-1]} named {name!r}; expected one of: {', '.join(known)}")


def pipeline_path(name: str = "train_and_deploy") -> Path:
    """The path of a compiled pipeline, to upload or to load.

    Raises:
        InputError: There is no pipeline of that name.
    """
    return _compiled("pipelines", name)


def load_component(name: str) -> BaseComponent:
    """A component, to use in a pipeline of your own.

    Args:
        name: One of ingest, validate, split, train, evaluate, register, deploy, rollout, fail.

    Raises:
        InputError: There is no component of that name.
    """
    path = _compiled("components", name)
    from kfp.components import load_component_from_file

    return load_component_from_file(str(path))
