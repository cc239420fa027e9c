"""The lock files: complete, hashed, of one mind, and without anybody's address."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).resolve().parents[2]
LOCKS = ["bootstrap", "run", "serving", "dev"]
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def read(name: str) -> list[str]:
    return (CHECKOUT / "requirements" / f"{name}.txt").read_text().splitlines()


def pins(name: str) -> dict[str, set[str]]:
    """Each package's pinned versions; one package may have several, each for another interpreter."""
    found: dict[str, set[str]] = {}
    for line in read(name):
        if not line.startswith(" "):
            requirement = Requirement(line.removesuffix("\\").strip())
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", line
            found.setdefault(canonicalize_name(requirement.name), set()).add(specifier.version)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_hashes_and_no_line_an_address(name):
    lines = read(name)
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith(" "):
            assert HASH.fullmatch(line), line
        else:
            assert line.endswith("\\"), line
            assert HASH.fullmatch(following), line


@pytest.mark.parametrize("name", LOCKS)
def test_all_agree_with_the_environment_of_the_tests(name):
    dev = pins("dev")
    differing = {
        package: (versions, dev[package])
        for package, versions in pins(name).items()
        if package in dev and not versions <= dev[package]
    }
    assert not differing


def project() -> dict:
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def test_the_locks_hold_what_the_project_asks_for():
    asked = project()
    run = asked["project"]["dependencies"] + asked["project"]["optional-dependencies"]["sample"]
    serving = [line for line in (CHECKOUT / "requirements/serving.in").read_text().splitlines() if line]
    bootstrap = [line for line in (CHECKOUT / "requirements/bootstrap.in").read_text().splitlines() if line]
    wanted = {
        "run": run,
        "dev": run + asked["dependency-groups"]["dev"],
        "serving": serving,
        "bootstrap": bootstrap + asked["build-system"]["requires"],
    }
    for name, requirements in wanted.items():
        locked = pins(name)
        for requirement in map(Requirement, requirements):
            versions = locked.get(canonicalize_name(requirement.name), set())
            assert versions, f"{name}.txt lacks {requirement}"
            assert all(requirement.specifier.contains(version) for version in versions), (
                name,
                str(requirement),
            )


def test_the_server_asks_for_nothing_that_the_project_does_not():
    declared = {Requirement(line).name for line in project()["project"]["dependencies"]}
    serving = (CHECKOUT / "requirements/serving.in").read_text().splitlines()
    assert {Requirement(line).name for line in serving if line} <= declared
