"""Components and pipelines as the YAML that users upload, load or apply."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from canaryflow import __version__, pipeline_path
from canaryflow.errors import InputError


def compile_checkout(root: Path) -> dict[Path, str]:
    """Compile every component and pipeline of a checkout.

    Args:
        root: The checkout: the folder that holds components/ and pipelines/.

    Returns:
        The text of each compiled file by its path below `root`. The same sources give the same text.

    Raises:
        InputError: `root` is no checkout.
    """
    if not (root / "components" / "ingest.py").is_file():
        raise InputError(f"{root}: holds no components/ and pipelines/; run this in a checkout of canaryflow")
    sys.path.insert(0, str(root))
    try:
        texts = {}
        for name, component in _definitions(root, "components"):
            texts[Path("components/compiled") / f"{name}.yaml"] = _compile(component)
        for name, pipeline in _definitions(root, "pipelines"):
            texts[Path("pipelines") / f"{name}.yaml"] = _compile(pipeline)
            manifest = _compile(pipeline, kubernetes_name=name.replace("_", "-"))
            texts[Path("manifests/pipelines") / f"{name}.yaml"] = manifest
        return texts
    finally:
        sys.path.remove(str(root))


def with_image(text: str, image: str) -> str:
    """Set the image of every step in a compiled component or pipeline."""
    documents = list(yaml.safe_load_all(text))
    for document in documents:
        specification = document.get("spec", {}).get("pipelineSpec", document)
        for executor in specification.get("deploymentSpec", {}).get("executors", {}).values():
            executor["container"]["image"] = image
    return _dump(documents)


def compile_pipeline(name: str, image: str | None) -> str:
    """A shipped pipeline's YAML, with another image for its steps where one is given."""
    text = pipeline_path(name).read_text(encoding="utf-8")
    return with_image(text, image) if image else text


def _definitions(root: Path, package: str) -> Iterator[tuple[str, Any]]:
    """Each file defines the component or pipeline that it is named after."""
    for path in sorted((root / package).glob("*.py")):
        if path.stem != "__init__":
            yield path.stem, getattr(importlib.import_module(f"{package}.{path.stem}"), path.stem)


def _compile(definition: Any, kubernetes_name: str = "") -> str:  # noqa: ANN401 - kfp has no type for it
    from kfp.compiler import Compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compiled.yaml"
        if kubernetes_name:
            options = KubernetesManifestOptions(
                pipeline_name=kubernetes_name,
                pipeline_version_name=f"{kubernetes_name}-{__version__.replace('.', '-')}",
                include_pipeline_manifest=True,
            )
            Compiler().compile(
                definition,
                str(path),
                kubernetes_manifest_format=True,
                kubernetes_manifest_options=options,
            )
        else:
            Compiler().compile(definition, str(path))
        # kfp heads the file with comments in an order that changes from run to run: only the content is kept.
        return _dump(list(yaml.safe_load_all(path.read_text(encoding="utf-8"))))


def _dump(documents: list[Any]) -> str:
    text: str = yaml.safe_dump_all(documents, sort_keys=True, width=110, allow_unicode=True)
    return text
