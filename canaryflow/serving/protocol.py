"""Requests read and answers written: Seldon's protocol v1, and rows as JSON objects.

Seldon's messages are those of ``prediction.proto`` in JSON (Seldon Core v1, external prediction API):
``data.ndarray``, ``data.tensor``, ``jsonData``; an answer comes back in the encoding of its request. What an
answer says beyond its numbers stands in ``meta.tags``, the message's own place for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from canaryflow.bundle.answers import Answers
from canaryflow.bundle.rows import Columns, RowError, RowReader
from canaryflow.errors import InputError

if TYPE_CHECKING:
    from canaryflow.bundle.scorer import Scorer

Encoding = Literal["ndarray", "tensor", "jsonData", "rows"]
_SELDON_KEYS = ("data", "jsonData", "strData", "binData")


class Refusal(InputError):  # noqa: N818 - what it is, not what went wrong
    """A request that is answered with an error.

    Attributes:
        status: The HTTP status.
        reason: A word for metrics and clients ("bad_row").
        details: What a program may want to read: row, field, found, expected.
    """

    def __init__(self, status: int, reason: str, info: str, details: Mapping[str, object] | None = None):
        self.status = status
        self.reason = reason
        self.details = dict(details or {})
        super().__init__(info)


@dataclass(frozen=True)
class Query:
    """A request to score, read and checked.

    Attributes:
        columns: The model's inputs.
        size: Rows.
        encoding: How it came, and how the answer goes back.
        puid: The request's id; made up where the client gave none.
        warnings: Counts by feature of what is unusual and answered all the same.
    """

    columns: Columns
    size: int
    encoding: Encoding
    puid: str = ""
    warnings: dict[str, dict[str, int]] = field(default_factory=dict)


def read_query(body: object, reader: RowReader, max_rows: int) -> Query:
    """Read a SeldonMessage, ``{"rows": [...]}`` or a single row.

    Raises:
        Refusal: The body is none of these, or has more than ``max_rows`` rows.
        RowError: A row does not fit the signature.
    """
    if not isinstance(body, dict):
        raise Refusal(400, "bad_request", f"the body is {_kind(body)}, expected a JSON object")
    if any(key in body for key in _SELDON_KEYS) and not body.keys() <= set(reader.names):
        return read_message(body, reader, max_rows)
    if "rows" in body and "rows" not in reader.names:
        extra = sorted(body.keys() - {"rows"})
        if extra:
            raise Refusal(400, "bad_request", f"unknown key {extra[0]!r} beside 'rows'")
        return _query(_rows(body["rows"], "rows", max_rows), "rows", reader, None, "")
    return _query([body], "rows", reader, None, "")


def read_message(body: object, reader: RowReader, max_rows: int) -> Query:
    """Read a SeldonMessage.

    Raises:
        Refusal: It is none, carries ``strData`` or ``binData``, or has more than ``max_rows`` rows.
        RowError: A row does not fit the signature.
    """
    if not isinstance(body, dict):
        raise Refusal(400, "bad_request", f"the message is {_kind(body)}, expected a SeldonMessage")
    meta = body.get("meta")
    puid = meta.get("puid", "") if isinstance(meta, dict) else ""
    puid = puid if isinstance(puid, str) else ""
    if "jsonData" in body:
        rows = body["jsonData"]
        rows = [rows] if isinstance(rows, dict) else rows
        return _query(_rows(rows, "jsonData", max_rows), "jsonData", reader, None, puid)
    data = body.get("data")
    if not isinstance(data, dict):
        given = next((key for key in _SELDON_KEYS if key in body), "nothing")
        raise Refusal(
            400, "bad_request", f"the message carries {given}, expected data.ndarray, data.tensor or jsonData"
        )
    names = data.get("names")
    if names is not None and not isinstance(names, list):
        raise Refusal(400, "bad_request", f"data.names is {_kind(names)}, expected a list of feature names")
    if "ndarray" in data:
        return _query(_rows(data["ndarray"], "data.ndarray", max_rows), "ndarray", reader, names, puid)
    if "tensor" in data:
        return _tensor(data["tensor"], reader, names, puid, max_rows)
    raise Refusal(400, "bad_request", f"data holds {sorted(map(str, data))[:5]}, expected ndarray or tensor")


def _query(
    rows: list[Any], encoding: Encoding, reader: RowReader, names: list[Any] | None, puid: str
) -> Query:
    columns = reader.from_matrix(rows, names) if encoding == "ndarray" else reader.from_records(rows)
    return Query(columns, len(rows), encoding, puid or _new_puid(), _warnings(reader, columns))


def _tensor(tensor: object, reader: RowReader, names: list[Any] | None, puid: str, max_rows: int) -> Query:
    if not isinstance(tensor, dict):
        raise Refusal(400, "bad_request", f"data.tensor is {_kind(tensor)}, expected shape and values")
    shape, values = tensor.get("shape"), tensor.get("values")
    if not isinstance(shape, list) or not isinstance(values, list):
        raise Refusal(400, "bad_request", "data.tensor: expected lists named shape and values")
    size = shape[0] if shape and type(shape[0]) is int else 0
    _check_size(size, "data.tensor", max_rows)
    columns = reader.from_tensor(values, shape, names)
    return Query(columns, size, "tensor", puid or _new_puid(), _warnings(reader, columns))


def _rows(rows: object, where: str, max_rows: int) -> list[Any]:
    if not isinstance(rows, list):
        raise Refusal(400, "bad_request", f"{where} is {_kind(rows)}, expected a list of rows")
    _check_size(len(rows), where, max_rows)
    return rows


def _check_size(size: int, where: str, max_rows: int) -> None:
    if size < 1:
        raise Refusal(400, "bad_request", f"{where} has no rows, expected at least one")
    if size > max_rows:
        raise Refusal(413, "too_many_rows", f"{where} has {size} rows, expected at most {max_rows} a request")


def _warnings(reader: RowReader, columns: Columns) -> dict[str, dict[str, int]]:
    warnings = {}
    unknown = reader.unknown_categories(columns)
    if unknown:
        warnings["unknown_categories"] = unknown
    outside = reader.out_of_range(columns)
    if outside:
        warnings["out_of_range"] = outside
    return warnings


def write_answers(
    query: Query, answers: Answers, indices: list[int] | None, scorer: Scorer
) -> dict[str, Any]:
    """The JSON-ready answer to a query, in the query's encoding.

    Args:
        query: What was asked.
        answers: The model's answers to it.
        indices: The answered class of each row, as positions; None for regression.
        scorer: Knows the model's name, version and classes.
    """
    manifest = scorer.bundle.manifest
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    values = answers.values.tolist()
    if query.encoding == "rows":
        model = {"name": manifest.name, "version": manifest.version}
        answer: dict[str, Any] = {
            "answers": _row_answers(values, indices, scorer),
            "model": model,
            "time": time,
        }
        return answer | {"warnings": query.warnings} if query.warnings else answer
    tags: dict[str, Any] = {"model_name": manifest.name, "model_version": manifest.version, "time": time}
    classes = scorer.signature.classes
    if indices is not None:
        tags["classes"] = [classes[index] for index in indices]
        tags["probabilities"] = [row[index] for row, index in zip(values, indices, strict=True)]
    tags |= query.warnings
    path = {"model": f"{manifest.name}:{manifest.version}"}
    message: dict[str, Any] = {"meta": {"puid": query.puid, "tags": tags, "requestPath": path}}
    if query.encoding == "jsonData":
        return message | {"jsonData": _row_answers(values, indices, scorer)}
    data: dict[str, Any] = {"names": list(classes) or [scorer.signature.target]}
    if query.encoding == "tensor":
        data["tensor"] = {"shape": [query.size, len(classes) or 1], "values": answers.values.ravel().tolist()}
    else:
        data["ndarray"] = values if classes else [[value] for value in values]
    return message | {"data": data}


def _row_answers(values: list[Any], indices: list[int] | None, scorer: Scorer) -> list[dict[str, Any]]:
    if indices is None:
        return [{"prediction": value} for value in values]
    classes = scorer.signature.classes
    return [
        {
            "class": classes[index],
            "probability": row[index],
            "probabilities": dict(zip(classes, row, strict=True)),
        }
        for row, index in zip(values, indices, strict=True)
    ]


def write_refusal(status: int, reason: str, info: str, details: Mapping[str, object]) -> dict[str, Any]:
    """An error as a SeldonMessage with ``status``; row, field, found and expected stand in ``meta.tags``."""
    message: dict[str, Any] = {
        "status": {"code": status, "info": info, "reason": reason, "status": "FAILURE"}
    }
    if details:
        message["meta"] = {"tags": dict(details)}
    return message


def row_details(error: RowError) -> dict[str, object]:
    """The parts of a `RowError` that a program may want to read."""
    details = {"row": error.row, "field": error.field, "found": error.found, "expected": error.expected}
    return {name: value for name, value in details.items() if value is not None}


def metadata(scorer: Scorer) -> dict[str, Any]:
    """What ``/metadata`` says: the model's name, version, inputs and outputs."""
    manifest = scorer.bundle.manifest
    signature = manifest.signature
    types = {"number": "FP32", "boolean": "BOOL", "categorical": "BYTES"}
    inputs = [{"name": f.name, "datatype": types[f.kind], "shape": [-1, 1]} for f in signature.features]
    width = len(signature.classes) or 1
    names = list(signature.classes) or [signature.target]
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": "onnxruntime",
        "inputs": inputs,
        "outputs": [{"name": signature.target, "datatype": "FP32", "shape": [-1, width]}],
        "custom": {"problem": signature.problem, "outputs": ",".join(names), "created": manifest.created},
    }


def _new_puid() -> str:
    return os.urandom(16).hex()


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return kinds.get(type(value), "a number")
