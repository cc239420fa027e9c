"""The contract: the schema and the rules that data must meet, as a person writes them in YAML."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from canaryflow.data.wording import explain, nearest, shown
from canaryflow.errors import InputError
from canaryflow.strict_yaml import read_yaml
from canaryflow.verdict import Severity

Kind = Literal["number", "integer", "categorical", "boolean", "timestamp", "text"]
Role = Literal["feature", "target", "time", "id", "ignore"]

FEATURE_KINDS = frozenset({"number", "integer", "categorical", "boolean"})
TARGET_KINDS = frozenset({"number", "categorical", "boolean"})
TIME_KINDS = frozenset({"timestamp", "number", "integer"})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Column(_Strict):
    """What one column must look like.

    Attributes:
        kind: What its values are. ``integer`` is a whole number, ``categorical`` a label, ``text`` free text.
        role: What it is for: a ``feature`` of the model, the ``target``, the ``time`` a row belongs to, an
            ``id``, or ``ignore`` (checked, not used).
        nullable: Whether a value may be missing (null, or a NaN).
        min: Smallest allowed value (number, integer: a number; timestamp: an ISO date or time).
        max: Largest allowed value.
        pattern: A regular expression (Rust syntax) that the whole of a categorical or text value must match.
        allowed: The only values allowed (categorical, text, integer).
        max_missing_fraction: Largest allowed share of missing values, 0 to 1; needs ``nullable: true``.
        unit: The unit of its values, for people.
        description: What it means, for people.
        severity: Whether a broken rule fails the gate (``error``) or is only reported (``warning``). A column
            that is missing or of another kind always fails.
    """

    kind: Kind
    role: Role = "feature"
    nullable: bool = False
    min: Any = None
    max: Any = None
    pattern: str | None = None
    allowed: list[Any] | None = Field(default=None, min_length=1)
    max_missing_fraction: float | None = Field(default=None, ge=0, le=1)
    unit: str = ""
    description: str = ""
    severity: Severity = "error"

    @model_validator(mode="after")
    def _fits_together(self) -> Column:
        self._check_role()
        self._check_bounds()
        self._check_texts()
        if self.max_missing_fraction is not None and not self.nullable:
            raise ValueError("found max_missing_fraction without nullable, expected nullable: true beside it")
        return self

    def _check_role(self) -> None:
        allowed = {"feature": FEATURE_KINDS, "target": TARGET_KINDS, "time": TIME_KINDS}.get(self.role)
        if allowed is not None and self.kind not in allowed:
            hint = {
                "feature": "; give it another role (time, id, ignore)",
                "target": "; number is a regression, categorical and boolean are a classification",
            }.get(self.role, "")
            raise ValueError(
                f"found kind {self.kind} with role {self.role}, "
                f"expected kind {' or '.join(sorted(allowed))}{hint}"
            )
        if self.role in ("target", "time") and (self.nullable or self.severity == "warning"):
            wrong = "nullable: true" if self.nullable else "severity: warning"
            raise ValueError(
                f"found {wrong} with role {self.role}, expected a {self.role} that is always there"
            )

    def _check_bounds(self) -> None:
        for key, value in (("min", self.min), ("max", self.max)):
            if value is None:
                continue
            if self.kind == "timestamp":
                _moment(key, value)
            elif self.kind not in ("number", "integer"):
                raise ValueError(
                    f"found {key} on kind {self.kind}, expected it on number, integer or timestamp only"
                )
            elif isinstance(value, bool) or not isinstance(value, int | float) or value != value:
                raise ValueError(f"{key}: found {shown(value)}, expected a number")
        low, high = self.bounds
        if low is not None and high is not None and low > high:
            raise ValueError(f"found min {shown(self.min)} above max {shown(self.max)}, expected min <= max")

    def _check_texts(self) -> None:
        if self.pattern is not None:
            if self.kind not in ("categorical", "text"):
                raise ValueError(
                    f"found pattern on kind {self.kind}, expected it on categorical or text only"
                )
            try:
                pl.Series([""]).str.contains(self.pattern)
            except pl.exceptions.PolarsError as error:
                # The engine's first paragraph ends with the reason; the rest is its own plan.
                reason = str(error).split("\n\n")[0].rpartition("error: ")[2].strip()
                raise ValueError(
                    f"pattern: found {shown(self.pattern)}, expected a regular expression ({reason})"
                ) from None
        wanted: dict[str, type] = {"categorical": str, "text": str, "integer": int}
        for value in self.allowed or ():
            if self.kind not in wanted:
                raise ValueError(
                    f"found allowed on kind {self.kind}, expected it on {', '.join(wanted)} only"
                )
            if type(value) is not wanted[self.kind]:
                word = "a whole number" if self.kind == "integer" else "text (quote it)"
                raise ValueError(f"allowed: found {shown(value)}, expected {word}")

    @property
    def bounds(self) -> tuple[Any, Any]:
        """``min`` and ``max`` ready to compare with: numbers, or naive UTC datetimes for a timestamp."""
        if self.kind != "timestamp":
            return self.min, self.max
        low = None if self.min is None else _moment("min", self.min)
        return low, None if self.max is None else _moment("max", self.max)


def _moment(key: str, value: object) -> datetime.datetime:
    try:
        moment = datetime.datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"{key}: found {shown(value)}, expected an ISO date or time (2013-10-01)") from None
    return moment.astimezone(datetime.UTC).replace(tzinfo=None) if moment.tzinfo else moment


class Table(_Strict):
    """What the table as a whole must look like.

    Attributes:
        min_rows: Fewest rows allowed.
        primary_key: Columns that together tell rows apart.
        max_duplicate_fraction: Largest allowed share of rows that repeat an earlier row's primary key (or,
            without a key, the whole row). With a key it is 0 unless said otherwise; without one, unchecked.
        extra_columns: Whether a column the contract does not name is an ``error`` or left out (``ignore``).
    """

    min_rows: int = Field(default=1, ge=1)
    primary_key: list[str] | None = Field(default=None, min_length=1)
    max_duplicate_fraction: float | None = Field(default=None, ge=0, le=1)
    extra_columns: Literal["error", "ignore"] = "error"


class Contract(_Strict):
    """The schema and the rules that a data set must meet.

    Attributes:
        version: Version of the contract's language; 1.
        table: Rules on the table as a whole.
        columns: What each column must look like, by name.
    """

    version: Literal[1]
    table: Table = Table()
    columns: dict[str, Column] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_together(self) -> Contract:
        targets = [name for name, column in self.columns.items() if column.role == "target"]
        if len(targets) != 1:
            raise ValueError(f"columns: found {_listed(targets)} with role target, expected exactly one")
        times = [name for name, column in self.columns.items() if column.role == "time"]
        if len(times) > 1:
            raise ValueError(f"columns: found {_listed(times)} with role time, expected at most one")
        if not self.features:
            raise ValueError("columns: found none with role feature, expected at least one")
        for name in self.table.primary_key or ():
            if name not in self.columns:
                hint = nearest(name, self.columns)
                raise ValueError(
                    f'table.primary_key: found the unknown column "{name}", expected one of columns{hint}'
                )
        return self

    @classmethod
    def load(cls, path: Path) -> Contract:
        """Read a contract from a YAML file.

        Raises:
            InputError: The file is missing, is not YAML, or says something a contract cannot say.
        """
        return cls.parse(read_yaml(Path(path)), str(path))

    @classmethod
    def parse(cls, data: Mapping[str, Any], origin: str) -> Contract:
        """Read a contract from plain data (a parsed YAML or JSON object).

        Args:
            data: The contract's keys.
            origin: Where it came from, to lead an error's line.

        Raises:
            InputError: A key is unknown (the nearest is named), a value is wrong, or parts contradict.
        """
        if not isinstance(data, Mapping):
            raise InputError(
                f"{origin}: found {shown(data)}, expected a mapping with version, table and columns"
            )
        try:
            return cls.model_validate(_plain(data))
        except ValidationError as error:
            raise InputError(explain(error, origin, cls)) from None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form without what is left at its default; `parse` reads it back."""
        return {"version": self.version} | self.model_dump(mode="json", exclude_defaults=True)

    @property
    def digest(self) -> str:
        """SHA-256 of what the contract says (hex, 64 characters); layout and defaults do not change it."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def in_order_of(self, names: Sequence[str]) -> Contract:
        """The same contract with its columns in a table's order; those that the table lacks come last.

        KFP passes a mapping without its order. The table's is the same every time, so that the same data
        gives the same model, and positions in a request mean the same.
        """
        places = {name: place for place, name in enumerate(names)}
        ordered = sorted(self.columns, key=lambda name: (places.get(name, len(places)), name))
        return self.model_copy(update={"columns": {name: self.columns[name] for name in ordered}})

    @property
    def features(self) -> dict[str, Column]:
        """The columns a model learns from, in the contract's order."""
        return {name: column for name, column in self.columns.items() if column.role == "feature"}

    @property
    def target(self) -> tuple[str, Column]:
        """The column to predict, with its name."""
        return next((name, column) for name, column in self.columns.items() if column.role == "target")

    @property
    def time(self) -> str | None:
        """The name of the column that says when a row happened, if there is one."""
        return next((name for name, column in self.columns.items() if column.role == "time"), None)


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "none"


def _plain(value: Any) -> Any:  # noqa: ANN401 - any YAML
    """The same data from YAML, from JSON and through KFP.

    YAML's dates become ISO text. KFP passes JSON with one kind of number, so 100 arrives as 100.0: a whole
    number is an integer.
    """
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.isoformat() if isinstance(value, datetime.date) else value


def infer(table: Path) -> dict[str, Any]:
    """A contract to start from, guessed from a table; a person should check every line of it.

    The target is a column called target, label, class, y or outcome, otherwise the last that can be one.
    The first timestamp is the time. Text with many different values is ignored.

    Args:
        table: A Parquet file.

    Returns:
        Plain data that `Contract.parse` reads.

    Raises:
        InputError: The file cannot be read, or no column can be a target.
    """
    from canaryflow.data.inference import infer_contract  # it knows contracts itself

    return infer_contract(table)
