"""What a rollout remembers between two processes: JSON in the SeldonDeployment's own annotations.

Three annotations, because three parties write: the driver its state, whoever drives the lease, a person the
command. They are in ``metadata``, never in ``spec``: the operator restarts pods when it sees a predictor
change.
"""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import psutil

from canaryflow.errors import InputError, PlatformError

STATE, LEASE, COMMAND = (
    "canaryflow.io/rollout",
    "canaryflow.io/rollout-lease",
    "canaryflow.io/rollout-command",
)

Phase = Literal["first", "live", "prepared", "baseline", "ramp", "promoting", "rolling back", "done"]
Verb = Literal["pause", "resume", "promote", "abort"]

_MOST_EVENTS, _MOST_SAMPLES, _MOST_BYTES = 60, 120, 64 * 1024


@dataclass
class RolloutState:
    """Where a rollout stands; everything that the next process needs to carry on.

    Attributes:
        phase: "first" (main was created and never proved), "live" (main alone), "prepared" (a canary at
            weight 0), then "baseline", "ramp", "promoting" or "rolling back", "done".
        main_version: What main served when the canary came.
        canary_version: What the canary serves.
        main_scaling: Main's own fewest and most replicas, to be put back after a roll-back.
        canary_scaling: The canary's own, which main gets with a promotion.
        floor: The replicas that main keeps while the canary is there: enough to carry everything.
        plan: The plan's values, so that anyone can carry on with the same one.
        step: Index of the step of the ramp.
        step_requests: Requests seen in this step by arm.
        elapsed: Seconds that the rollout was driven and not paused.
        age: Seconds that it was driven; the reports' time axis.
        paused_by: Who paused it; empty while it runs.
        paused_seconds: How long it has been paused.
        latency_edge: The objective in seconds; 0 when latency is not judged.
        evidence: What `canaryflow.delivery.evidence.Evidence` wrote.
        decision: How it ended: "promoted", "rolled back", "aborted".
        reasons: Why, a sentence each.
        by: Who decided, when a person did.
        started: When it began (seconds since the epoch).
        events: [age in seconds, text], the newest last.
        weights: [age in seconds, the canary's share in percent], whenever it changed.
        samples: What was seen at each look, for the report; thinned when there are many.
    """

    phase: Phase = "live"
    main_version: str = ""
    canary_version: str = ""
    main_scaling: tuple[int, int] = (1, 1)
    canary_scaling: tuple[int, int] = (1, 1)
    floor: int = 1
    plan: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    step_requests: dict[str, int] = field(default_factory=dict)
    elapsed: float = 0.0
    age: float = 0.0
    paused_by: str = ""
    paused_seconds: float = 0.0
    latency_edge: float = 0.0
    evidence: dict[str, Any] = field(default_factory=dict)
    decision: str = ""
    reasons: list[str] = field(default_factory=list)
    by: str = ""
    started: float = 0.0
    events: list[tuple[float, str]] = field(default_factory=list)
    weights: list[tuple[float, int]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add an event; the oldest but the first few go when there are too many."""
        self.events.append((round(self.age, 2), text[:500]))
        if len(self.events) > _MOST_EVENTS:
            del self.events[_MOST_EVENTS // 4]

    def sample(self, values: dict[str, Any]) -> None:
        """Add what a look saw; every second one goes when there are too many (they are cumulative)."""
        self.samples.append(values)
        if len(self.samples) > _MOST_SAMPLES:
            self.samples = self.samples[:-1:2] + self.samples[-1:]

    def weigh(self, canary: int) -> None:
        """Keep the canary's share where it changed."""
        if not self.weights or self.weights[-1][1] != canary:
            self.weights = [*self.weights[-_MOST_SAMPLES:], (round(self.age, 2), canary)]

    def dump(self) -> str:
        """The annotation's text."""
        text = json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)
        if len(text) <= _MOST_BYTES:
            return text
        short = asdict(self) | {"samples": self.samples[-10:], "events": self.events[-10:]}
        return json.dumps(short, separators=(",", ":"), allow_nan=False)


def read_state(sdep: Mapping[str, Any]) -> RolloutState | None:
    """The state in a SeldonDeployment's annotations; None where there is none.

    Raises:
        PlatformError: There is one, and it is not ours to read.
    """
    text = annotations_of(sdep).get(STATE)
    if not text:
        return None
    try:
        data = json.loads(text)
        known = {entry.name for entry in fields(RolloutState)}
        state = RolloutState(**{key: value for key, value in data.items() if key in known})
        state.main_scaling = _pair(state.main_scaling)
        state.canary_scaling = _pair(state.canary_scaling)
        state.weights = [(float(at), int(share)) for at, share in state.weights]
        state.events = [(float(at), str(what)) for at, what in state.events]
    except (ValueError, TypeError, AttributeError) as error:
        raise PlatformError(
            f"annotation {STATE}: cannot be read ({error}); expected a rollout's state"
        ) from error
    if state.phase not in get_args(Phase):
        raise PlatformError(
            f"annotation {STATE}: found phase {state.phase!r}, expected one of {get_args(Phase)}"
        )
    return state


def _pair(values: Any) -> tuple[int, int]:  # noqa: ANN401 - straight from JSON
    least, most = values
    return int(least), int(most)


def annotations_of(sdep: Mapping[str, Any]) -> Mapping[str, str]:
    """The object's annotations."""
    found: Mapping[str, str] = sdep.get("metadata", {}).get("annotations") or {}
    return found


@dataclass(frozen=True)
class Lease:
    """Who drives a rollout, and until when. Every write of the driver tests and renews it.

    Attributes:
        holder: Unique for each driver.
        host: Where it runs, for a person.
        machine: Boot and process namespace, so that a driver on this machine can be seen to have died.
        pid: The driver's process.
        born: When that process started (seconds since the epoch).
        expires: When the lease ends (seconds since the epoch).
    """

    holder: str
    host: str
    machine: str
    pid: int
    born: float
    expires: float

    @classmethod
    def new(cls, expires: float) -> Lease:
        """A lease for this process."""
        process = psutil.Process()
        host = socket.gethostname()
        return cls(uuid.uuid4().hex, host, _machine(), process.pid, process.create_time(), expires)

    def renewed(self, expires: float) -> Lease:
        """The same with another end."""
        return Lease(self.holder, self.host, self.machine, self.pid, self.born, expires)

    def dump(self) -> str:
        """The annotation's text."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @property
    def name(self) -> str:
        """Who it is, for a person."""
        return f"process {self.pid} on {self.host}"

    def is_alive(self, now: float) -> bool:
        """Whether the holder may still act: its time is not over, and its process not seen dead."""
        return now < self.expires and not self.is_dead()

    def is_dead(self) -> bool:
        """Whether the holder ran on this machine and is gone."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.born) < 1.0
            return not same or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


def read_lease(sdep: Mapping[str, Any]) -> Lease | None:
    """The lease in a SeldonDeployment's annotations; None where nobody holds one."""
    text = annotations_of(sdep).get(LEASE)
    if not text:
        return None
    try:
        return Lease(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise PlatformError(
            f"annotation {LEASE}: cannot be read ({error}); expected a driver's lease"
        ) from error


def _machine() -> str:
    """This boot and this process namespace: a pid means something only within both."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


@dataclass(frozen=True)
class Command:
    """What a person wants of a running rollout.

    Attributes:
        verb: pause, resume, promote or abort.
        by: Who.
        at: When (seconds since the epoch).
    """

    verb: Verb
    by: str
    at: float

    def __post_init__(self) -> None:
        if self.verb not in get_args(Verb):
            raise InputError(
                f"rollout command: found {self.verb!r}, expected one of {', '.join(get_args(Verb))}"
            )

    def dump(self) -> str:
        """The annotation's text."""
        return json.dumps(asdict(self), separators=(",", ":"))


def read_command(sdep: Mapping[str, Any]) -> Command | None:
    """The command that waits in a SeldonDeployment's annotations; None where there is none.

    Raises:
        PlatformError: There is one, and it makes no sense.
    """
    text = annotations_of(sdep).get(COMMAND)
    if not text:
        return None
    try:
        return Command(**json.loads(text))
    except (ValueError, TypeError, InputError) as error:
        raise PlatformError(f"annotation {COMMAND}: cannot be read ({error}); expected a command") from error
