"""What a bundle holds: read, verified, sealed. Standard library only.

A bundle is a folder. ``bundle.json`` describes it and is written last, so a folder with a ``bundle.json`` is
whole. The version is a digest of what decides the answers (model, samples, profile, signature); provenance is
outside of it, so the same training gives the same version.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from canaryflow.errors import BundleError

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
MODEL = "model.onnx"
ESTIMATOR = "model.skops"
SAMPLES = "samples.json"
PROFILE = "profile.json"
REPORT = "report.html"

_DECISIVE = (MODEL, SAMPLES, PROFILE)
_TEMPORARY = ".tmp"
_MANIFEST_LIMIT = 64 * 1024 * 1024

Kind = Literal["number", "categorical", "boolean"]
Problem = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True)
class Feature:
    """One input of the model.

    Attributes:
        name: The column's name, and the name of the ONNX graph's input.
        kind: ``number`` and ``boolean`` enter the graph as float32, ``categorical`` as text.
        nullable: Whether a row may leave it out or give null.
        minimum: Smallest value the contract or the training data know; None for kinds without an order.
        maximum: Largest such value.
        categories: The values seen in training; others are answered too, and counted.
    """

    name: str
    kind: Kind
    nullable: bool = True
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signature:
    """What goes in and what comes out.

    Attributes:
        problem: ``binary``, ``multiclass`` or ``regression``.
        target: The name of what is predicted.
        features: The inputs, in the order of a row given without names.
        classes: The labels, in the order of the probabilities; binary: the second is the positive one.
            Empty for regression.
        threshold: Binary only: the positive class is answered from this probability on; None means 0.5.
    """

    problem: Problem
    target: str
    features: tuple[Feature, ...]
    classes: tuple[str, ...] = ()
    threshold: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, in order."""
        return tuple(feature.name for feature in self.features)


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle: its SHA-256 (hex) and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The content of ``bundle.json``.

    Attributes:
        schema_version: The version of this format.
        name: The model's name.
        version: 12 hex digits, a digest of what decides the answers.
        created: When it was sealed, ISO 8601 in UTC.
        signature: Inputs and outputs.
        tolerance: How far an answer may be from the recorded one, times ``max(1, |answer|)``.
        provenance: Where it comes from: digests of data and contract, run, metrics, libraries.
        files: Every other file of the folder.
    """

    schema_version: int
    name: str
    version: str
    created: str
    signature: Signature
    tolerance: float
    provenance: dict[str, Any] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk: its folder and what its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def signature(self) -> Signature:
        """The model's inputs and outputs."""
        return self.manifest.signature

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.manifest.version

    def file(self, name: str) -> Path:
        """The path of a file that the manifest lists.

        Raises:
            BundleError: The bundle holds no such file.
        """
        if name not in self.manifest.files:
            raise BundleError(
                f"{self.path}: the bundle holds no {name}; it holds {sorted(self.manifest.files)}"
            )
        return self.path / name

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> Bundle:
        """Read a bundle, and by default verify every file's size and SHA-256 and the version.

        Raises:
            BundleError: A file is missing, truncated, altered or of an unknown schema; the message names it.
        """
        path = Path(path)
        bundle = cls(path, _read_manifest(path / MANIFEST))
        if verify:
            bundle.verify()
        return bundle

    def verify(self) -> None:
        """Compare every listed file with its recorded size and SHA-256, and the version with both.

        Raises:
            BundleError: The first file that is missing, truncated or altered.
        """
        for name, entry in self.manifest.files.items():
            _verify_file(self.path / name, entry)
        version = _version(self.manifest.signature, self.manifest.files)
        if version != self.manifest.version:
            raise BundleError(
                f"{self.path / MANIFEST}: altered: it says version {self.manifest.version}, "
                f"its signature and files make {version}"
            )


def seal(
    path: Path | str,
    name: str,
    signature: Signature,
    tolerance: float,
    provenance: Mapping[str, Any],
) -> Bundle:
    """Make a folder a bundle: digest every file in it and write ``bundle.json`` last, atomically.

    Args:
        path: A folder with at least ``model.onnx``, ``samples.json`` and ``profile.json``.
        name: The model's name.
        signature: Inputs and outputs.
        tolerance: See `Manifest`.
        provenance: JSON-ready facts on where the model comes from; not part of the version.

    Raises:
        BundleError: A file is missing, or the signature or the provenance cannot be recorded.
    """
    path = Path(path)
    for required in _DECISIVE:
        if not (path / required).is_file():
            raise BundleError(f"{path / required}: missing; a bundle holds {', '.join(_DECISIVE)}")
    files = {}
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path).as_posix()
        if file.is_file() and relative != MANIFEST and not relative.endswith(_TEMPORARY):
            files[relative] = FileEntry(_sha256(file), file.stat().st_size)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = Manifest(
        SCHEMA_VERSION,
        name,
        _version(signature, files),
        created,
        signature,
        tolerance,
        dict(provenance),
        files,
    )
    target = path / MANIFEST
    try:
        text = json.dumps(asdict(manifest), indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{target}: the signature or the provenance is not JSON: {error}") from error
    # What is written must be what `open` accepts: a signature that contradicts itself is found here.
    parsed = _parse_manifest(json.loads(text), target)
    temporary = path / (MANIFEST + _TEMPORARY)
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(target)
    return Bundle(path, parsed)


def _version(signature: Signature, files: Mapping[str, FileEntry]) -> str:
    decisive: dict[str, Any] = {name: files[name].sha256 for name in _DECISIVE if name in files}
    decisive["signature"] = asdict(signature)
    canonical = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _verify_file(file: Path, entry: FileEntry) -> None:
    try:
        size = file.stat().st_size
        if size != entry.size:
            raise BundleError(f"{file}: truncated or altered: {size} bytes, expected {entry.size}")
        digest = _sha256(file)
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from error
    if digest != entry.sha256:
        raise BundleError(f"{file}: altered: sha256 {digest[:12]}..., expected {entry.sha256[:12]}...")


def _read_manifest(file: Path) -> Manifest:
    try:
        if file.stat().st_size > _MANIFEST_LIMIT:
            raise BundleError(f"{file}: {file.stat().st_size} bytes, expected at most {_MANIFEST_LIMIT}")
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{file}: missing; expected the manifest of a bundle") from error
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file}: truncated or not JSON: {error}") from error
    return _parse_manifest(data, file)


def _parse_manifest(data: object, file: Path) -> Manifest:
    if not isinstance(data, dict):
        raise BundleError(f"{file}: expected a JSON object, found {type(data).__name__}")
    if data.get("schema_version") != SCHEMA_VERSION:
        found = data.get("schema_version", "none")
        raise BundleError(f"{file}: schema version {found}, this canaryflow reads {SCHEMA_VERSION}")
    try:
        manifest = Manifest(
            **data
            | {
                "signature": _parse_signature(data["signature"]),
                "tolerance": float(data["tolerance"]),
                "files": {name: FileEntry(**entry) for name, entry in data["files"].items()},
            }
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{file}: not a bundle's manifest: {type(error).__name__}: {error}") from error
    fault = _fault(manifest)
    if fault:
        raise BundleError(f"{file}: {fault}")
    return manifest


def _parse_signature(data: Mapping[str, Any]) -> Signature:
    features = tuple(
        Feature(**feature | {"categories": tuple(feature.get("categories", ()))})
        for feature in data["features"]
    )
    return Signature(**dict(data) | {"features": features, "classes": tuple(data["classes"])})


def _fault(manifest: Manifest) -> str | None:
    """What contradicts itself in a manifest of the right shape."""
    signature = manifest.signature
    kinds = {feature.kind for feature in signature.features}
    classes = len(signature.classes)
    if not signature.features:
        return "signature: no features, expected at least one"
    if len(set(signature.names)) != len(signature.names):
        return f"signature: feature names repeat: {list(signature.names)}"
    if not kinds <= set(get_args(Kind)):
        return f"signature: feature kinds {sorted(kinds)}, expected {list(get_args(Kind))}"
    if signature.problem not in get_args(Problem):
        return f"signature: problem {signature.problem!r}, expected one of {list(get_args(Problem))}"
    expected = {"binary": classes == 2, "multiclass": classes >= 3, "regression": classes == 0}
    if not expected[signature.problem]:
        return f"signature: {classes} classes do not fit a {signature.problem} problem"
    if signature.threshold is not None and not (
        signature.problem == "binary" and 0 <= signature.threshold <= 1
    ):
        return f"signature: threshold {signature.threshold} of a {signature.problem} problem"
    if not (math.isfinite(manifest.tolerance) and manifest.tolerance >= 0):
        return f"tolerance {manifest.tolerance}, expected a finite number from 0 on"
    missing = [name for name in _DECISIVE if name not in manifest.files]
    if missing:
        return f"files: {missing} not listed"
    outside = [
        name
        for name in manifest.files
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
    ]
    if outside:
        return f"files: {outside} lie outside of the bundle"
    return None
