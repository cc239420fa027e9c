"""What a person writes about a run: a params file and key=value pairs, checked before anything starts."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from canaryflow.errors import InputError
from canaryflow.strict_yaml import read_yaml

_WORDS = {
    "STRING": "text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "STRUCT": "a mapping",
    "LIST": "a list",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a compiled pipeline.

    Attributes:
        name: As in the form, in params.yaml and in the documentation.
        kind: KFP's parameter type (STRING, NUMBER_INTEGER, NUMBER_DOUBLE, BOOLEAN, STRUCT, LIST).
        default: Used when nothing is given.
        description: From the pipeline's docstring.
    """

    name: str
    kind: str
    default: Any
    description: str


def parameters_of(pipeline: Path) -> dict[str, Parameter]:
    """Read the parameters of a compiled pipeline.

    Raises:
        InputError: The file is missing or is no compiled pipeline.
    """
    document = read_yaml(pipeline)
    try:
        inputs = document["root"]["inputDefinitions"]["parameters"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{pipeline}: has no root.inputDefinitions; expected a compiled pipeline") from error
    return {
        name: Parameter(name, spec["parameterType"], spec.get("defaultValue"), spec.get("description", ""))
        for name, spec in inputs.items()
    }


def resolve(
    pipeline: Path, file: Path | None = None, overrides: Sequence[str] = (), **defaults: object
) -> dict[str, Any]:
    """Settle the arguments of a run.

    Args:
        pipeline: The compiled pipeline that tells names, types and defaults.
        file: A params file. Paths in it (`source`, and `contract` where it is a path) are relative to it.
        overrides: "key=value" pairs, which win over the file; paths are relative to the working directory.
        defaults: Values that take the place of the pipeline's own defaults.

    Returns:
        Every parameter with a value, in its type.

    Raises:
        InputError: An unknown name (the nearest right one is named), a wrong type, an unreadable file.
    """
    known = parameters_of(pipeline)
    arguments = {
        name: _checked(spec, spec.default, str(pipeline))
        for name, spec in known.items()
        if spec.default is not None
    }
    arguments.update(defaults)
    if file is not None:
        written = read_yaml(file)
        if not isinstance(written, Mapping):
            raise InputError(f"{file}: holds {_kind_of(written)}; expected a mapping of parameters")
        for name, value in written.items():
            spec = _known(known, str(name), str(file))
            arguments[spec.name] = _checked(spec, _located(spec, value, file.parent), str(file))
    for pair in overrides:
        name, separator, text = pair.partition("=")
        if not separator:
            raise InputError(f"-p {pair}: has no '='; expected key=value")
        spec = _known(known, name, "-p")
        arguments[name] = _checked(spec, _located(spec, _parsed(spec, text), Path()), "-p")
    return arguments


def _known(known: Mapping[str, Parameter], name: str, origin: str) -> Parameter:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(sorted(known))}"
    raise InputError(f"{origin}: unknown parameter {name!r}; {hint}")


def _parsed(spec: Parameter, text: str) -> Any:  # noqa: ANN401 - the type is the parameter's
    """Read a value from the command line by the parameter's type."""
    if spec.kind == "STRING":
        return text
    if spec.name == "contract" and not text.lstrip().startswith("{"):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"-p {spec.name}: {text!r} cannot be read; expected {_WORDS[spec.kind]}") from error


def _located(spec: Parameter, value: Any, base: Path) -> Any:  # noqa: ANN401 - any parameter's value
    """Resolve what a person wrote as a relative path against the file they wrote it in."""
    if spec.name == "contract" and isinstance(value, str):
        from canaryflow.data.contract import Contract

        Contract.load(base / value)  # here, where an error can name the file
        return read_yaml(base / value)
    if spec.name != "source" or not isinstance(value, str):
        return value
    for prefix in ("sqlite:///", "file://", ""):
        if value.startswith(prefix):
            rest = value[len(prefix) :]
            if not prefix and ":" in value.split("/", 1)[0]:
                return value  # another scheme: sample:, s3://
            return prefix + str((base / rest).absolute())
    return value


def _checked(spec: Parameter, value: Any, origin: str) -> Any:  # noqa: ANN401 - any parameter's value
    """Hold a value to the parameter's type; a whole number is fine where a number is wanted."""
    if spec.kind.startswith("NUMBER") and isinstance(value, str):
        # YAML 1.1 takes 1e-3 for text.
        with contextlib.suppress(ValueError):
            value = float(value)
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    fits = {
        "STRING": isinstance(value, str),
        "NUMBER_INTEGER": number and float(value).is_integer() if number else False,
        "NUMBER_DOUBLE": number,
        "BOOLEAN": isinstance(value, bool),
        "STRUCT": isinstance(value, Mapping),
        "LIST": isinstance(value, list),
    }[spec.kind]
    if not fits:
        raise InputError(f"{origin}: {spec.name} is {_kind_of(value)}; expected {_WORDS[spec.kind]}")
    if spec.kind == "STRUCT":
        # Dates in YAML become objects that JSON lacks; a contract or a query's argument means their text.
        return json.loads(json.dumps(value, default=str))
    return {"NUMBER_INTEGER": int, "NUMBER_DOUBLE": float}.get(spec.kind, lambda same: same)(value)


def _kind_of(value: object) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 60 else shown[:57] + '...'}"
