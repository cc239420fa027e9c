"""How a wrong word in a person's file is told: one line with the place, what was found, what was expected."""

from __future__ import annotations

import datetime
import difflib
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError


def nearest(word: object, options: Iterable[str]) -> str:
    """A hint at the option a misspelt word most likely meant.

    Args:
        word: What was found.
        options: The words that would have been right.

    Returns:
        ``'; did you mean "nullable"?'``, or nothing when no option is near.
    """
    known = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(word).lower(), known, n=1, cutoff=0.6)
    return f'; did you mean "{known[near[0]]}"?' if near else ""


def shown(value: object) -> str:
    """A value as a message shows it: quoted text, bounded length, one line."""
    if isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, datetime.datetime | datetime.date):
        text = value.isoformat(" ") if isinstance(value, datetime.datetime) else value.isoformat()
    elif isinstance(value, dict | list | tuple):
        text = f"{'a mapping' if isinstance(value, dict) else 'a list'} of {len(value)}"
    else:
        text = "nothing" if value is None else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."


def explain(error: ValidationError, origin: str, model: type[BaseModel]) -> str:
    """The first thing pydantic found wrong, in one line.

    Args:
        error: What pydantic raised.
        origin: The file (or parameter) the data came from; leads the line.
        model: The model that was being read; names the right keys for a misspelt one.

    Returns:
        For example ``contract.yaml: columns.late: found the unknown key "nulable"; did you mean "nullable"?``
    """
    details = error.errors(include_url=False)
    # A misspelt key is the cause of the "missing" one beside it: tell that one first.
    first = next((detail for detail in details if detail["type"] == "extra_forbidden"), details[0])
    place, kind, found = first["loc"], first["type"], first["input"]
    if kind == "extra_forbidden":
        options = list(_keys(model, place[:-1]))
        where, found_text = place[:-1], f"the unknown key {shown(place[-1])}{nearest(place[-1], options)}"
        expected = "one of " + ", ".join(options)
        line = (
            f"found {found_text} Expected {expected}"
            if "?" in found_text
            else f"found {found_text}, expected {expected}"
        )
        return f"{origin}: {_dotted(where)}{line}"
    if kind == "missing":
        return f'{origin}: {_dotted(place[:-1])}the key "{place[-1]}" is missing, expected one'
    if kind == "literal_error":
        options = [
            option.strip().strip("'") for option in first["ctx"]["expected"].replace(" or ", ", ").split(",")
        ]
        hint = nearest(found, options)
        line = f"found {shown(found)}, expected one of {', '.join(options)}{hint}"
    elif kind == "value_error":
        line = str(first["ctx"]["error"])
    else:
        line = f"found {shown(found)}, expected {_expected(first['msg'])}"
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{origin}: {_dotted(place)}{line}{more}"


def _dotted(place: Sequence[int | str]) -> str:
    return ".".join(" ".join(str(part).split()) for part in place) + ": " if place else ""


def _expected(message: str) -> str:
    lowered = message[:1].lower() + message[1:]
    for prefix in ("input should be an instance of ", "input should be "):
        lowered = lowered.removeprefix(prefix)
    return lowered


def _keys(model: type[BaseModel], place: Sequence[int | str]) -> Iterable[str]:
    """The keys allowed at ``place``, found by walking down the model's annotations."""
    current: Any = model
    for part in place:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation
        else:
            arguments = typing.get_args(current)
            current = arguments[-1] if arguments else current
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []
