"""Prometheus' text format, read strictly: a page that is cut off or mangled is refused, never half believed.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4; the exemplars and
the ``# EOF`` of OpenMetrics are passed over).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"\s*')
_VALUE = re.compile(r"\s*(\S+)(?:\s+-?\d+(?:\.\d+)?)?\s*(?:#.*)?")
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|nan)", re.IGNORECASE | re.ASCII)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "\\": "\\", '"': '"'}


class ExpositionError(ValueError):
    """The text is not the text format: names the line."""


@dataclass(frozen=True)
class Sample:
    """One line: a series and its value.

    Attributes:
        name: The metric's name, with its suffix ("_bucket", "_total").
        labels: All labels.
        value: May be NaN or infinite.
    """

    name: str
    labels: Mapping[str, str]
    value: float


def parse(text: str, names: Collection[str]) -> Iterator[Sample]:
    """The samples of the named metrics, in the order of the page.

    Args:
        text: A whole page.
        names: Full names of the samples that are wanted; lines of others are not looked into.

    Raises:
        ExpositionError: The page does not end with a line's end (it was cut off); a wanted line is mangled.
    """
    if text and not text.endswith("\n"):
        raise ExpositionError(f"the page ends within a line ({text[-40:]!r}): it was cut off")
    for number, line in enumerate(text.split("\n"), start=1):
        name = _NAME.match(line.lstrip(" \t"))
        if name and name[0] in names:
            try:
                yield _sample(name[0], line.lstrip(" \t")[name.end() :].lstrip(" \t"))
            except ExpositionError as error:
                raise ExpositionError(f"line {number}: {error} in {line[:120]!r}") from None


def _sample(name: str, rest: str) -> Sample:
    labels: dict[str, str] = {}
    if rest.startswith("{"):
        rest = _read_labels(rest, labels)
    value = _VALUE.fullmatch(rest)
    if value is None or not _NUMBER.fullmatch(value[1]):
        raise ExpositionError("no number where the value should be")
    return Sample(name, labels, float(value[1]))


def _read_labels(rest: str, labels: dict[str, str]) -> str:
    """Fill in the labels; return what follows their closing brace."""
    at = 1
    while label := _LABEL.match(rest, at):
        if label[1] in labels:
            raise ExpositionError(f"label {label[1]} twice")
        labels[label[1]] = _ESCAPE.sub(_unescape, label[2])
        at = label.end()
        if rest[at : at + 1] != ",":
            break
        at += 1
    closing = rest[at:].lstrip()
    if not closing.startswith("}"):
        raise ExpositionError("labels that do not close")
    return closing[1:]


def _unescape(match: re.Match[str]) -> str:
    if match[1] not in _ESCAPED:
        raise ExpositionError(f"an unknown escape \\{match[1]}")
    return _ESCAPED[match[1]]
