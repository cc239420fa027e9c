"""The hand on the wheel: one process at a time changes a SeldonDeployment, and every write of it is guarded.

A driver holds a lease in an annotation. Each of its patches tests that the lease is still its own, and
renews it: a driver that was taken for dead cannot write any more, and a delayed write of its own cannot
land twice. The state of the rollout and the change of the spec go in one patch, so a process that is killed
leaves both or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from canaryflow.delivery import seldon
from canaryflow.delivery.clock import Clock, patiently
from canaryflow.delivery.cluster import Cluster, Operation, Unavailable
from canaryflow.delivery.live import Live, look
from canaryflow.delivery.rollout_state import (
    COMMAND,
    LEASE,
    STATE,
    Command,
    Lease,
    RolloutState,
    annotations_of,
    read_command,
    read_lease,
    read_state,
)
from canaryflow.errors import Conflict, PlatformError

T = TypeVar("T")

POLL_SECONDS = 0.5


class Busy(PlatformError):  # noqa: N818 - a state of affairs
    """Another process drives this SeldonDeployment."""


@dataclass(frozen=True)
class Event:
    """Something that happened in a deployment or a rollout.

    Attributes:
        at: Seconds since the epoch.
        text: One line for a person.
        weights: The weights that the spec asks for, by predictor.
    """

    at: float
    text: str
    weights: dict[str, int]

    def __str__(self) -> str:
        return self.text


Listener = Callable[[Event], None]


class Driver:
    """Holds the lease of a SeldonDeployment; made by `acquire`.

    Args:
        cluster: Where it is.
        name: Its name.
        listener: Told of every event.
        clock: Time.
        lease_seconds: How long the lease lasts when it is not renewed.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        listener: Listener = lambda event: None,
        clock: Clock | None = None,
        lease_seconds: float = 30.0,
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.clock = clock or Clock()
        self.state = RolloutState()
        self.sdep: dict[str, Any] = {}
        self._listener = listener
        self._lease_seconds = lease_seconds
        self._lease = Lease.new(0.0)
        self._held = False
        self._moment = self.clock.steady()

    def acquire(self, patience: float | None = None) -> None:
        """Take the lease; where another holds it, wait for its end, and give up once it is renewed.

        Args:
            patience: Seconds to wait for a lease that its holder no longer renews; None waits for as long
                as a lease lasts.

        Raises:
            Busy: Another driver is at work.
            NotFound: There is no such SeldonDeployment.
            Unavailable: The API has been away for a minute.
        """
        patiently(self.clock, lambda: self._acquire(patience))

    def _acquire(self, patience: float | None) -> None:
        deadline = self.clock.steady() + (self._lease_seconds * 1.5 if patience is None else patience)
        first: Lease | None = None
        while True:
            self.sdep = self.cluster.get(self.name)
            other = read_lease(self.sdep)
            if other is None or other.holder == self._lease.holder or not other.is_alive(self.clock.now()):
                if self._take():
                    return
                continue
            if (first is not None and other != first) or self.clock.steady() >= deadline:
                raise Busy(
                    f"SeldonDeployment {self.name}: driven by {other.name}; "
                    "expected no other rollout or deployment"
                )
            first = other
            self.clock.sleep(POLL_SECONDS)

    def _take(self) -> bool:
        lease = self._lease.renewed(self.clock.now() + self._lease_seconds)
        version = self.sdep["metadata"]["resourceVersion"]
        operations = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}]
        if not self.sdep["metadata"].get("annotations"):
            operations.append({"op": "add", "path": "/metadata/annotations", "value": {}})
        try:
            self.sdep = self.cluster.patch(self.name, [*operations, _annotate(LEASE, lease.dump())])
        except Conflict:
            self.clock.sleep(0.02)
            return False
        self._held = True
        self.state = read_state(self.sdep) or RolloutState()
        self._moment = self.clock.steady()
        return True

    def release(self) -> None:
        """Give the lease back, so that the next driver need not wait; else it ends by itself."""
        for _ in range(3):
            if not self._held:
                return
            try:
                self.read()
                self.cluster.patch(self.name, [self._guard(), {"op": "remove", "path": _pointer(LEASE)}])
                self._held = False
            except PlatformError:
                self.clock.sleep(0.1)

    def read(self) -> dict[str, Any]:
        """Read the object again.

        Raises:
            Busy: Another driver has taken over.
        """
        self.sdep = self.cluster.get(self.name)
        lease = read_lease(self.sdep)
        if lease is None or lease.holder != self._lease.holder:
            self._held = False
            who = lease.name if lease else "nobody"
            raise Busy(f"SeldonDeployment {self.name}: this process lost its lease, which {who} holds now")
        return self.sdep

    def look(self) -> Live:
        """Read the object, its Deployments and the gateway's weights."""
        return look(self.cluster, self.name, self.read())

    @property
    def commanded(self) -> bool:
        """Whether a command of a person waits, whatever it says."""
        return bool(annotations_of(self.sdep).get(COMMAND))

    @property
    def command(self) -> Command | None:
        """The command of a person that waits in the object as last read."""
        return read_command(self.sdep)

    def write(self, operations: Sequence[Operation] = (), *, say: str = "", consume: bool = False) -> None:
        """Change the object, its state and its lease in one patch, from the object as last read.

        Args:
            operations: What changes in the spec.
            say: The event that this write is; empty for none.
            consume: Take the waiting command away, as this write obeys it.

        Raises:
            Conflict: Something else changed what was read: read again and think again.
            Unavailable: The API cannot answer; whether the write was made is to be read.
        """
        self.pass_time()
        events = list(self.state.events)
        if say:
            self.state.note(say)
        patch = [self._guard(), *operations, _annotate(STATE, self.state.dump())]
        if consume:
            waiting = annotations_of(self.sdep)[COMMAND]
            patch += [
                {"op": "test", "path": _pointer(COMMAND), "value": waiting},
                {"op": "remove", "path": _pointer(COMMAND)},
            ]
        renewed = self._lease.renewed(self.clock.now() + self._lease_seconds)
        try:
            self.sdep = self.cluster.patch(self.name, [*patch, _annotate(LEASE, renewed.dump())])
        except PlatformError:
            self.state.events = events
            raise
        self.state.weigh(seldon.weights(self.sdep).get(seldon.CANARY, 0))
        if say:
            self._tell(say)

    def finish(self, operations: Sequence[Operation], say: str) -> None:
        """The last write: the state is done with it, and only with it.

        Raises:
            Conflict: As `write`; the state is as it was.
            Unavailable: As `write`; the state is as it was.
        """
        phase = self.state.phase
        self.state.phase = "done"
        try:
            if self.commanded:
                self.note(f"{self._waiting()}: too late, the rollout is over")
            # A command that nobody could obey any more must not be taken for one to the next rollout.
            self.write(operations, say=say, consume=self.commanded)
        except PlatformError:
            self.state.phase = phase
            raise

    def _waiting(self) -> str:
        try:
            return f"{self.command.verb} by {self.command.by}" if self.command else ""
        except PlatformError as error:
            return str(error)

    def pass_time(self) -> None:
        """Count the time since the last call to the rollout's, or to the pause's."""
        now = self.clock.steady()
        passed, self._moment = max(0.0, now - self._moment), now
        self.state.age += passed
        if self.state.paused_by:
            self.state.paused_seconds += passed
        else:
            self.state.elapsed += passed

    def note(self, text: str) -> None:
        """Tell the listener of an event, and keep it with the next write; said twice in a row, it is one."""
        self.pass_time()
        if self.state.events and self.state.events[-1][1] == text:
            return
        self.state.note(text)
        self._tell(text)

    def _tell(self, text: str) -> None:
        self._listener(Event(self.clock.now(), text, seldon.weights(self.sdep)))

    def keep(self, least: float | None = None) -> None:
        """Renew the lease unless it lasts for some time yet.

        Args:
            least: So many seconds; None asks for half of the whole.
        """
        lease = read_lease(self.sdep)
        wanted = self._lease_seconds / 2 if least is None else least
        if lease is None or lease.expires - self.clock.now() < wanted:
            self.write()

    def until(
        self, holds: Callable[[Live], bool], seconds: float, *, twice: bool = False, heed: bool = False
    ) -> bool:
        """Wait until what the cluster does is as it should be; the lease is kept meanwhile.

        Args:
            holds: Whether it is.
            seconds: How long to wait.
            twice: Ask for two looks in a row: a spec that was just written may not have been seen yet.
            heed: Stop waiting when a command of a person comes.

        Returns:
            Whether it came to hold; with `heed`, False when a command waits.
        """
        deadline = self.clock.steady() + seconds
        held = False
        while True:
            try:
                live = self.look()
                if heed and self.commanded:
                    return False
                now = holds(live)
                if now and (held or not twice):
                    return True
                held = now
                self.keep()
            except (Conflict, Unavailable):
                held = False  # the next look says what is true
            if self.clock.steady() >= deadline:
                return False
            self.clock.sleep(min(POLL_SECONDS / 2, max(0.01, deadline - self.clock.steady())))

    def insist(self, action: Callable[[], T], patience: float = 300.0) -> T:
        """Do something that may meet conflicts and an API that is away: read again and think again.

        Args:
            action: Safe to repeat: it looks at what is there before it changes anything.
            patience: Seconds for which it may fail in a row, from the first failure.

        Raises:
            PlatformError: What it failed with at last.
        """
        deadline: float | None = None  # an action may be at work for longer than it may fail
        delay = 0.05
        while True:
            try:
                self.read()
                return action()
            except (Conflict, Unavailable) as error:
                if deadline is None:
                    deadline = self.clock.steady() + patience
                if self.clock.steady() >= deadline:
                    raise
                if isinstance(error, Unavailable):
                    self.note(f"waiting: {error}")
                self.clock.sleep(delay)
                delay = min(5.0, delay * 2)

    def _guard(self) -> Operation:
        return {"op": "test", "path": _pointer(LEASE), "value": annotations_of(self.sdep).get(LEASE, "")}


def _pointer(annotation: str) -> str:
    return "/metadata/annotations/" + annotation.replace("~", "~0").replace("/", "~1")


def _annotate(annotation: str, value: str) -> Operation:
    return {"op": "add", "path": _pointer(annotation), "value": value}
