"""A gate's answer: pass or fail, with the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Check:
    """One claim that a gate looked at.

    Attributes:
        name: What was checked, in a few words ("distance: at most 6000").
        passed: Whether it held.
        found: What was seen, ready to print ("23 of 1,000 rows, for example 7125 in row 18").
        expected: What was wanted, ready to print.
        severity: A failed ``warning`` is reported and does not fail the gate.
    """

    name: str
    passed: bool
    found: str
    expected: str
    severity: Severity = "error"


@dataclass(frozen=True)
class Verdict:
    """What a gate decided.

    Attributes:
        gate: The gate's name ("validate", "evaluate", "rollout").
        checks: All that was looked at, passed or not.
        summary: One sentence for a person.
    """

    gate: str
    checks: tuple[Check, ...]
    summary: str = ""

    @property
    def passed(self) -> bool:
        """True when no check of severity ``error`` failed."""
        return all(check.passed or check.severity == "warning" for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """The failed checks of severity ``error``, one line each."""
        return [
            f"{check.name}: found {check.found}, expected {check.expected}"
            for check in self.checks
            if not check.passed and check.severity == "error"
        ]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` reads it back."""
        return asdict(self) | {"passed": self.passed}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Verdict:
        """Read what `to_dict` wrote."""
        return cls(data["gate"], tuple(Check(**check) for check in data["checks"]), data.get("summary", ""))
