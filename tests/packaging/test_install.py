"""A fresh copy of the project becomes an environment, and its wheel works far from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PARTS = [
    "Makefile",
    "requirements",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "canaryflow",
    "components",
    "pipelines",
]
COMPONENTS = ["ingest", "validate", "split", "train", "evaluate", "register", "deploy", "rollout", "fail"]

pytestmark = pytest.mark.needs("make")


def call(*command: str | Path, cwd: Path, seconds: float = 300) -> str:
    environment = {
        name: value
        for name, value in os.environ.items()
        # A make that runs the tests tells its children that they are parts of it.
        if name not in ("PYTHONPATH", "VIRTUAL_ENV", "MAKELEVEL", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES")
    }
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of the project with its environment made by `make env`."""
    folder = tmp_path_factory.mktemp("clone") / "project"
    folder.mkdir()
    for part in PARTS:
        source = CHECKOUT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    call("make", "env", f"PYTHON={sys.executable}", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(copy: Path) -> Path:
    call(copy / ".venv/bin/hatchling", "build", "-t", "wheel", "-d", "made", cwd=copy)
    (made,) = (copy / "made").glob("*.whl")
    return made


def test_a_second_make_does_nothing(copy):
    assert call("make", "env", cwd=copy).strip() in ("", "make: Nothing to be done for 'env'.")


def test_what_was_installed_fits_together(copy):
    call(copy / ".venv/bin/uv", "pip", "check", "--python", copy / ".venv", cwd=copy)


def test_the_wheel_holds_what_a_user_needs_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "canaryflow/py.typed" in names
    assert {f"canaryflow/compiled/components/{name}.yaml" for name in COMPONENTS} <= names
    assert "canaryflow/compiled/pipelines/train_and_deploy.yaml" in names
    assert {name.split("/")[0] for name in names} == {"canaryflow", metadata.split("/")[0]}


def test_the_wheel_works_without_the_checkout(copy, wheel, tmp_path):
    python = copy / ".venv/bin/python"
    uv = copy / ".venv/bin/uv"
    call(
        uv, "pip", "install", "--python", python, "--no-deps", "--reinstall", "--offline", wheel, cwd=tmp_path
    )
    assert "Usage:" in call(copy / ".venv/bin/canaryflow", "--help", cwd=tmp_path)
    code = (
        "import canaryflow\n"
        f"assert 'site-packages' in canaryflow.__file__, canaryflow.__file__\n"
        "print(canaryflow.pipeline_path('train_and_deploy').stat().st_size)\n"
        f"for name in {COMPONENTS}: assert canaryflow.load_component(name).name == name\n"
    )
    assert int(call(python, "-c", code, cwd=tmp_path)) > 0


def test_the_server_runs_on_its_slim_requirements(copy, wheel, tmp_path):
    uv = copy / ".venv/bin/uv"
    slim = tmp_path / "slim"
    call(uv, "venv", "--quiet", "--python", sys.executable, slim, cwd=tmp_path)
    lock = CHECKOUT / "requirements/serving.txt"
    call(uv, "pip", "sync", "--quiet", "--python", slim, "--require-hashes", lock, cwd=tmp_path)
    call(uv, "pip", "install", "--quiet", "--python", slim, "--no-deps", "--offline", wheel, cwd=tmp_path)
    assert "--management-port" in call(
        slim / "bin/python", "-m", "canaryflow.serving", "--help", cwd=tmp_path
    )
    everything = (
        "import importlib, pkgutil, canaryflow.bundle, canaryflow.serving\n"
        "for package in (canaryflow.bundle, canaryflow.serving):\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
    )
    call(slim / "bin/python", "-c", everything, cwd=tmp_path)
