"""A bundle's server in the cluster: as main where nothing is live, else as a canary at weight 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from canaryflow.bundle.format import Bundle
from canaryflow.delivery import changes, moves, proof, seldon
from canaryflow.delivery.clock import Clock, patiently
from canaryflow.delivery.cluster import Cluster
from canaryflow.delivery.driver import Driver, Listener
from canaryflow.delivery.rollout_state import STATE, RolloutState, read_state
from canaryflow.delivery.seldon import CANARY, MAIN, ServerSpec
from canaryflow.errors import Conflict, GateFailed, NotFound, PlatformError

_HOPELESS = (
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "CreateContainerConfigError",
)
_HOPELESS_SECONDS = 20.0  # a pod may crash once or twice while what it needs comes up
_PROOF_SECONDS = 15.0
_ANSWER_SECONDS = 25.0  # one proof may take this long, with nobody to renew the lease meanwhile


@dataclass(frozen=True)
class Deployed:
    """What `deploy` did.

    Attributes:
        arm: ``main`` (it takes all traffic) or ``canary`` (it takes none before a rollout).
        version: The bundle's version.
        created: Whether this call put it there.
    """

    arm: Literal["main", "canary"]
    version: str
    created: bool


def deploy(
    cluster: Cluster,
    name: str,
    spec: ServerSpec,
    samples: Bundle,
    timeout: float = 600.0,
    on_event: Listener = lambda event: None,
    clock: Clock | None = None,
) -> Deployed:
    """Put a bundle in front of traffic, but give it none where another version is live.

    It may be called again at any time, and carries on. It returns when the pods are ready and the bundle's
    samples were answered as recorded through the predictor's own Service.

    Args:
        cluster: Where to.
        name: The SeldonDeployment.
        spec: What the server runs.
        samples: The same bundle, for its samples.
        timeout: Seconds that the pods may take to get ready.
        on_event: Told of every event.
        clock: Time.

    Raises:
        GateFailed: The pods did not get ready in time, or answered otherwise than recorded; they were
            removed.
        PlatformError: Another process drives this deployment, or its predictors are not canaryflow's.
        InputError: The name cannot be one.
    """
    seldon.check_name(name)
    clock = clock or Clock()
    created = patiently(clock, lambda: _create_if_missing(cluster, name, spec))
    driver = Driver(cluster, name, on_event, clock)
    driver.acquire()
    try:
        return _Deployment(driver, spec, samples, timeout).run(created)
    finally:
        driver.release()


def _create_if_missing(cluster: Cluster, name: str, spec: ServerSpec) -> bool:
    try:
        cluster.get(name)
    except NotFound:
        body = seldon.seldon_deployment(name, cluster.namespace, spec)
        # Marked until it is proved, so that whoever carries on knows that nobody depends on it yet.
        body["metadata"]["annotations"][STATE] = RolloutState(phase="first", main_version=spec.version).dump()
        try:
            cluster.create(body)
        except Conflict:
            return False  # somebody was faster; what is there now decides
        return True
    return False


class _Deployment:
    def __init__(self, driver: Driver, spec: ServerSpec, samples: Bundle, timeout: float) -> None:
        self.driver = driver
        self.spec = spec
        self.samples = samples
        self.timeout = timeout

    def run(self, created: bool) -> Deployed:
        driver, version = self.driver, self.spec.version
        main = seldon.main_of(driver.sdep)
        if driver.state.phase == "first":
            self._first()
            return Deployed(MAIN, version, created)
        self._clear_the_way()
        canary = seldon.find(driver.sdep, CANARY)
        if canary is not None:
            if driver.state.phase != "promoting":
                self._prove_canary()
            return Deployed(CANARY, version, False)
        main = seldon.main_of(driver.sdep)
        if seldon.version_of(main) == version:
            self._already_live()
            return Deployed(MAIN, version, False)
        driver.insist(self._append)
        self._prove_canary()
        return Deployed(CANARY, version, True)

    def _first(self) -> None:
        """Wait for a main that never served; where it fails, nothing of it stays."""
        driver = self.driver
        if seldon.version_of(seldon.main_of(driver.sdep)) != self.spec.version:
            driver.insist(self._replace_first)
        driver.note(f"{self.spec.version} is created as main")
        fault = self._fault(MAIN)
        if fault:
            self._remove()
            raise GateFailed(
                f"{driver.name}: version {self.spec.version} did not come up and was removed: {fault}"
            )
        driver.insist(self._mark_live)

    def _remove(self) -> None:
        """Delete it as it was read just now, by a driver that still holds the lease."""
        driver = self.driver
        try:
            driver.insist(
                lambda: driver.cluster.delete(driver.name, driver.sdep["metadata"]["resourceVersion"])
            )
        except NotFound:
            return  # an answer was lost, or somebody was faster

    def _replace_first(self) -> None:
        body = seldon.predictor(MAIN, self.spec, 100)
        self.driver.state.main_version = self.spec.version
        self.driver.write([{"op": "replace", "path": "/spec/predictors/0", "value": body}])

    def _mark_live(self) -> None:
        self.driver.state = RolloutState(phase="live", main_version=self.spec.version)
        self.driver.write(say=f"{self.spec.version} is live")

    def _already_live(self) -> None:
        fault = self._fault(MAIN)
        if fault:
            raise PlatformError(
                f"{self.driver.name}: version {self.spec.version} is live but not well: {fault}"
            )
        state = self.driver.state
        if state.phase != "live" and not (
            state.decision == "promoted" and state.canary_version == self.spec.version
        ):
            # A roll-back that ended here would otherwise be taken for this version's.
            self.driver.insist(self._mark_live)
        self.driver.note(f"{self.spec.version} is live already")

    def _clear_the_way(self) -> None:
        """Bring to an end what an earlier rollout left, unless it is about this very version."""
        driver, state = self.driver, self.driver.state
        canary = seldon.find(driver.sdep, CANARY)
        if canary is None and state.phase not in ("promoting", "rolling back"):
            return
        ours = canary is not None and seldon.version_of(canary) == self.spec.version
        if canary is not None and (read_state(driver.sdep) is None or state.phase in ("live", "done")):
            raise PlatformError(
                f"SeldonDeployment {driver.name}: has a canary ({seldon.version_of(canary) or 'no version'}) "
                "that no rollout of canaryflow knows; expected main alone: remove the canary first"
            )
        if ours and state.phase != "rolling back":
            return
        main_is_new = seldon.version_of(seldon.main_of(driver.sdep)) == state.canary_version
        driver.note(f"an earlier rollout of {state.canary_version} is brought to its end")
        if state.phase == "promoting" and main_is_new:
            state.decision = "promoted"
            driver.insist(lambda: moves.promote(driver))
            return
        self._roll_back(state.reasons or [f"orphaned: version {self.spec.version} was deployed"])

    def _append(self) -> None:
        """The canary at weight 0, and main's floor at what carries everything now, in one patch."""
        driver, spec = self.driver, self.spec
        live = driver.look()
        main = seldon.main_of(live.sdep)
        if seldon.find(live.sdep, CANARY) is not None:
            return
        least, most = seldon.scaling(main)
        floor = min(most, max(least, live.replicas(MAIN)))
        driver.state = RolloutState(
            phase="prepared",
            main_version=seldon.version_of(main),
            canary_version=spec.version,
            main_scaling=(least, most),
            canary_scaling=(spec.min_replicas, spec.max_replicas),
            floor=floor,
            started=driver.clock.now(),
        )
        body = seldon.predictor(CANARY, spec, 0)
        append = changes.append_canary(body, live.sdep["metadata"]["resourceVersion"])
        added = f"{spec.version} is added as canary, with no traffic yet"
        driver.write([*append, *changes.scale(main, floor)], say=added)

    def _prove_canary(self) -> None:
        fault = self._fault(CANARY)
        if not fault:
            self.driver.note(f"{self.spec.version} is ready, and answers its samples as recorded")
            return
        self._roll_back([fault])
        raise GateFailed(
            f"{self.driver.name}: version {self.spec.version} did not come up and was removed; "
            f"{self.driver.state.main_version} stays live: {fault}"
        )

    def _roll_back(self, reasons: list[str]) -> None:
        driver = self.driver
        driver.state.phase, driver.state.decision, driver.state.reasons = (
            "rolling back",
            "rolled back",
            reasons,
        )
        driver.insist(lambda: moves.roll_back(driver))

    def _fault(self, predictor: Literal["main", "canary"]) -> str:
        """Why a predictor does not serve as the bundle says; empty when it does."""
        driver = self.driver
        patience = _Patience(driver, predictor)
        ready = driver.until(lambda live: live.ready(predictor) or patience.over(), self.timeout, twice=True)
        if not ready or patience.hopeless:
            lines = patiently(driver.clock, lambda: driver.cluster.troubles(driver.name, predictor))
            return "; ".join(lines) or f"its pods were not ready after {self.timeout:g} s and give no reason"
        deadline = driver.clock.steady() + _PROOF_SECONDS
        while True:
            driver.insist(lambda: driver.keep(_ANSWER_SECONDS))
            try:
                url = patiently(driver.clock, lambda: driver.cluster.service_url(driver.name, predictor))
                proof.prove(url, self.samples)
                return ""
            except (proof.NotProved, NotFound) as error:
                if driver.clock.steady() >= deadline:
                    return str(error)
            driver.clock.sleep(0.25)


class _Patience:
    """Ends a wait early where the pods say that waiting does not help."""

    def __init__(self, driver: Driver, predictor: str) -> None:
        self._driver = driver
        self._predictor = predictor
        self._since: float | None = None
        self.hopeless = False

    def over(self) -> bool:
        now: Callable[[], float] = self._driver.clock.steady
        lines: Any = self._driver.cluster.troubles(self._driver.name, self._predictor)
        if not any(word in line for line in lines for word in _HOPELESS):
            self._since = None
        elif self._since is None:
            self._since = now()
        self.hopeless = self._since is not None and now() - self._since > _HOPELESS_SECONDS
        return self.hopeless
