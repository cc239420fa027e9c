"""Rows in, the model's inputs out: one column per feature, checked against the signature. numpy only.

A column is what the ONNX graph wants: numbers and booleans as float32 of shape (n, 1) with NaN for null,
categories as an object array of text of shape (n, 1) with "" for null. The usual case is checked a column at
a time; only when something is wrong are the rows walked one by one, to name the row and the field.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from canaryflow.bundle.format import Feature, Signature
from canaryflow.errors import InputError

Columns = dict[str, npt.NDArray[Any]]

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_NUMBERS: frozenset[type] = frozenset({int, float})
_NUMBERS_OR_NULL: frozenset[type] = frozenset({int, float, type(None)})
_BOOLEANS: frozenset[type] = frozenset({bool, int, float})
_TEXT: frozenset[type] = frozenset({str})
_TEXT_OR_NULL: frozenset[type] = frozenset({str, type(None)})
_EXPECTED = {"number": "a finite number", "boolean": "true or false", "categorical": "text"}


class RowError(InputError):
    """A row does not fit the signature.

    Attributes:
        row: The row's index, from 0; None where the trouble is not in one row.
        field: The feature's name, or the name that is not one; None where it is the row as a whole.
        found: What came, ready to print.
        expected: What was wanted, ready to print.
    """

    def __init__(self, row: int | None, field: str | None, found: str, expected: str):
        self.row = row
        self.field = field
        self.found = found
        self.expected = expected
        place = [f"row {row}"] if row is not None else []
        place += [f"field {field!r}"] if field is not None else []
        super().__init__(f"{', '.join(place) or 'rows'}: found {found}, expected {expected}")


class RowReader:
    """Reads rows of any accepted shape into columns.

    Args:
        signature: The model's inputs.
    """

    def __init__(self, signature: Signature):
        self.signature = signature
        self.names = signature.names
        self._known = frozenset(self.names)
        self._features = {feature.name: feature for feature in signature.features}
        self._categories = [
            (feature.name, frozenset(feature.categories) | {""})
            for feature in signature.features
            if feature.kind == "categorical" and feature.categories
        ]
        self._readers: list[tuple[Feature, Callable[[list[Any]], npt.NDArray[Any] | None]]] = [
            (feature, _reader(feature)) for feature in signature.features
        ]

    def from_records(self, rows: Sequence[object]) -> Columns:
        """JSON objects to columns. A nullable field may be left out.

        Raises:
            RowError: The first row with an unknown field, a wrong type, a number that float32 cannot hold, or
                without a field that may not be null.
        """
        for index, row in enumerate(rows):
            if type(row) is not dict or not row.keys() <= self._known:
                self._refuse_record(index, row)
        columns = {}
        for feature, read in self._readers:
            name = feature.name
            column = read([row.get(name) for row in rows])  # type: ignore[attr-defined] # all are dicts by now
            if column is None:
                self._refuse(list(map(self._values, rows)))
            columns[name] = column
        return columns

    def from_matrix(self, rows: Sequence[object], names: Sequence[object] | None = None) -> Columns:
        """Lists of values to columns, as in Seldon's ``ndarray``.

        Args:
            rows: One list per row.
            names: Which feature each position is; without them the order is the signature's. Features that
                are not named are null.

        Raises:
            RowError: As `from_records`; also a row of another length.
        """
        order = self._order(names)
        width = len(order)
        for index, row in enumerate(rows):
            if type(row) is not list:
                raise RowError(index, None, _shown(row), f"a list of {width} values")
            if len(row) != width:
                raise RowError(index, None, f"{len(row)} values", f"{width}: {_listed(order)}")
        position = {name: place for place, name in enumerate(order)}
        columns = {}
        for feature, read in self._readers:
            place = position.get(feature.name)
            values = [None] * len(rows) if place is None else [row[place] for row in rows]  # type: ignore[index]
            column = read(values)
            if column is None:
                self._refuse([dict(zip(order, row, strict=True)) for row in rows])  # type: ignore[call-overload]
            columns[feature.name] = column
        return columns

    def from_tensor(
        self, values: Sequence[object], shape: Sequence[object], names: Sequence[object] | None = None
    ) -> Columns:
        """Flat numbers and a shape (rows, features) to columns, as in Seldon's ``tensor``.

        Raises:
            RowError: As `from_matrix`; also a shape that does not fit the values.
        """
        fits = (
            len(shape) == 2
            and all(type(size) is int and size >= 0 for size in shape)
            and shape[0] * shape[1] == len(values)  # type: ignore[operator]
        )
        if not fits:
            raise RowError(
                None,
                "tensor",
                f"shape {_shown(list(shape))} with {len(values)} values",
                "shape [rows, features]",
            )
        width: int = shape[1]  # type: ignore[assignment]
        rows = (
            [list(values[start : start + width]) for start in range(0, len(values), width)] if width else []
        )
        return self.from_matrix(rows, names)

    def from_table(self, table: Mapping[str, npt.ArrayLike]) -> Columns:
        """Columns of a table to the model's columns: the fast path of evaluation.

        Args:
            table: By name, arrays or sequences of one length, one for every feature. None and NaN are null;
                other columns are ignored.

        Raises:
            RowError: As `from_records`; also a feature without a column, nullable or not: a whole column that
                is missing is a table for another model, not a null.
        """
        sizes = {len(table[name]) for name in self.names if name in table}  # type: ignore[arg-type]
        if len(sizes) != 1:
            raise RowError(
                None,
                None,
                f"columns of {sorted(sizes)} rows",
                f"columns of one length: {_listed(self.names)}",
            )
        columns = {}
        for feature, read in self._readers:
            if feature.name not in table:
                raise RowError(None, feature.name, "no column", f"columns {_listed(self.names)}")
            values = np.asarray(table[feature.name])
            column = _direct(feature, values)
            if column is None:
                listed = [None if value != value else value for value in values.tolist()]
                column = read(listed)
                if column is None:
                    self._refuse([{feature.name: value} for value in listed], only=feature)
            columns[feature.name] = column
        return columns

    def unknown_categories(self, columns: Columns) -> dict[str, int]:
        """How many values of each categorical feature training had not seen; zeros are left out."""
        counts = {}
        for name, known in self._categories:
            column = columns[name]
            if len(column) == 1:
                count = int(column.item() not in known)
            else:
                count = sum(value not in known for value in column[:, 0].tolist())
            if count:
                counts[name] = count
        return counts

    def out_of_range(self, columns: Columns) -> dict[str, int]:
        """How many values of each number lie outside of its minimum and maximum; zeros are left out."""
        counts = {}
        for feature in self.signature.features:
            if feature.kind != "number" or (feature.minimum is None and feature.maximum is None):
                continue
            column = columns[feature.name]
            low = 0 if feature.minimum is None else np.count_nonzero(column < np.float32(feature.minimum))
            high = 0 if feature.maximum is None else np.count_nonzero(column > np.float32(feature.maximum))
            if low + high:
                counts[feature.name] = int(low + high)
        return counts

    def _values(self, row: object) -> dict[str, Any]:
        return row if isinstance(row, dict) else {}

    def _order(self, names: Sequence[object] | None) -> Sequence[str]:
        if not names:
            return self.names
        for name in names:
            if not isinstance(name, str) or name not in self._known:
                raise RowError(None, "names", _shown(name), self._nearest(name))
        if len(set(names)) != len(names):
            raise RowError(None, "names", _shown(list(names)), "each feature at most once")
        return names  # type: ignore[return-value] # all are str by now

    def _nearest(self, name: object) -> str:
        close = difflib.get_close_matches(str(name), self.names, n=1)
        return f"{close[0]!r}" if close else f"one of the features {_listed(self.names)}"

    def _refuse_record(self, index: int, row: object) -> NoReturn:
        if not isinstance(row, dict):
            raise RowError(index, None, _shown(row), "an object of field and value")
        for name in row:
            if name not in self._known:
                raise RowError(index, str(name)[:80], "an unknown field", self._nearest(name))
        raise RowError(index, None, f"a {type(row).__name__}", "a plain dict of field and value")

    def _refuse(self, rows: Sequence[dict[str, Any]], only: Feature | None = None) -> NoReturn:
        """Find the first value that its reader refused, in the order a person reads: row by row."""
        readers = [(f, read) for f, read in self._readers if only is None or f is only]
        for index, row in enumerate(rows):
            for feature, read in readers:
                value = row.get(feature.name)
                if read([value]) is None:
                    expected = _EXPECTED[feature.kind] + (" or null" if feature.nullable else "")
                    found = "nothing" if feature.name not in row else _shown(value)
                    raise RowError(index, feature.name, found, expected)
        raise AssertionError("a column was refused and none of its values")


def _reader(feature: Feature) -> Callable[[list[Any]], npt.NDArray[Any] | None]:
    """The function that makes a feature's values a column, or answers None when one of them does not fit."""
    if feature.kind == "categorical":
        return _text_reader(_TEXT_OR_NULL if feature.nullable else _TEXT, feature)
    if feature.kind == "boolean":
        return _boolean_reader(_BOOLEANS | {type(None)} if feature.nullable else _BOOLEANS)
    return _number_reader(_NUMBERS_OR_NULL if feature.nullable else _NUMBERS)


def _number_reader(allowed: frozenset[type]) -> Callable[[list[Any]], npt.NDArray[Any] | None]:
    def read(values: list[Any]) -> npt.NDArray[Any] | None:
        if len(values) == 1:  # one row a request is the common case: no set, no reduction
            value = values[0]
            if type(value) not in allowed:
                return None
            if value is None:
                return np.array([[np.nan]], dtype=np.float32)
            return np.array([[value]], dtype=np.float32) if -_FLOAT32_MAX <= value <= _FLOAT32_MAX else None
        if not allowed.issuperset(map(type, values)):
            return None
        try:
            column = np.array(values, dtype=np.float64)
        except OverflowError:
            return None
        if len(column) and not _holds_float32(column, values):
            return None
        return column.astype(np.float32).reshape(-1, 1)

    return read


def _holds_float32(column: npt.NDArray[np.float64], values: list[Any]) -> bool:
    # NaN is what null became; a NaN that came as a number is not JSON and is refused.
    nulls = np.isnan(column)
    if nulls.any() and int(nulls.sum()) != values.count(None):
        return False
    return bool(np.all(np.abs(column[~nulls]) <= _FLOAT32_MAX))


def _boolean_reader(allowed: frozenset[type]) -> Callable[[list[Any]], npt.NDArray[Any] | None]:
    def read(values: list[Any]) -> npt.NDArray[Any] | None:
        if not allowed.issuperset(map(type, values)) or any(
            value is not None and value != 0 and value != 1 for value in values
        ):
            return None
        return np.array(values, dtype=np.float32).reshape(-1, 1)

    return read


def _text_reader(
    allowed: frozenset[type], feature: Feature
) -> Callable[[list[Any]], npt.NDArray[Any] | None]:
    # "" is how null enters the graph: where null may not come, "" may only if training saw it as a category.
    empty_allowed = feature.nullable or "" in feature.categories

    def read(values: list[Any]) -> npt.NDArray[Any] | None:
        if not allowed.issuperset(map(type, values)) or (not empty_allowed and "" in values):
            return None
        column = np.empty((len(values), 1), dtype=object)
        column[:, 0] = ["" if value is None else value for value in values]
        return column

    return read


def _direct(feature: Feature, values: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """A numeric array to a column without Python objects in between; None where that is not safe."""
    if feature.kind == "categorical" or values.ndim != 1 or values.dtype.kind not in "fiub":
        return None
    if feature.kind == "number" and values.dtype.kind == "b":
        return None
    column = values.astype(np.float64)
    nulls = np.isnan(column)
    present = column[~nulls]
    if not feature.nullable and nulls.any():
        return None
    if np.any(np.abs(present) > _FLOAT32_MAX):
        return None
    if feature.kind == "boolean" and not np.all((present == 0) | (present == 1)):
        return None
    return column.astype(np.float32).reshape(-1, 1)


def _shown(value: object) -> str:
    text = (
        repr(value)
        if not isinstance(value, bool | type(None))
        else {True: "true", False: "false", None: "null"}[value]
    )
    return text if len(text) <= 80 else text[:77] + "..."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 30 else ", ".join(names[:30]) + f" and {len(names) - 30} more"
