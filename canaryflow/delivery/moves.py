"""The two ways out of a canary: promotion and roll-back.

Each looks at what is there before every change, so it can be begun again at any point, by any process. The
order of the changes is what loses no request: see the tables in the documentation of Seldon's behaviour
under load.
"""

from __future__ import annotations

from canaryflow.delivery import changes, seldon
from canaryflow.delivery.cluster import Operation, Unavailable
from canaryflow.delivery.driver import Driver
from canaryflow.delivery.seldon import CANARY, MAIN
from canaryflow.errors import PlatformError

FOLLOW_SECONDS = 10.0  # a healthy operator moves the gateway's weights in tenths of a second
DRAIN_SECONDS = 1.0  # the last request of the old weights is on its way 0.3 s after the change
READY_SECONDS = 600.0  # nodes may have to be added


class CannotPromote(PlatformError):  # noqa: N818 - a state of affairs
    """The canary cannot carry everything; main still serves the old version."""


def roll_back(driver: Driver) -> None:
    """Take the canary out of the traffic and away, and put main's own scaling back.

    Raises:
        Conflict: Something else changed the object: begin again.
        Unavailable: The API is away, or the gateway does not follow: begin again.
    """
    live = driver.look()
    if seldon.find(live.sdep, CANARY) is not None:
        if live.weights.get(CANARY, 0) > 0 and not live.frozen:
            # A healthy canary finishes what it has begun before it goes.
            if seldon.weights(live.sdep)[CANARY] != 0:
                driver.write(changes.shift(0))
            if driver.until(lambda now: now.carries(0), FOLLOW_SECONDS):
                driver.clock.sleep(DRAIN_SECONDS)
        driver.read()
        operations = [*changes.remove_canary(), *_unfreeze(driver)]
        driver.write(operations, say="canary removed, main takes all traffic")
    if not driver.until(lambda now: now.carries(0), FOLLOW_SECONDS):
        driver.write(_unfreeze(driver))
        live = driver.look()
        raise Unavailable(
            f"SeldonDeployment {driver.name}: the gateway still sends {dict(live.weights)}, "
            f"expected all to main; {_why(driver, MAIN)}"
        )
    scale = changes.scale(seldon.main_of(driver.sdep), *driver.state.main_scaling)
    driver.finish(scale, f"over: {driver.state.decision}")


def _unfreeze(driver: Driver) -> list[Operation]:
    """The operator holds the weights while main has a pod that is not ready: ask for those that are."""
    live = driver.look()
    ready = live.ready_replicas(MAIN)
    if live.ready(MAIN) or ready == 0:
        return []
    main = seldon.main_of(live.sdep)
    driver.note(
        f"main has pods that are not ready: limited to the {ready} that are, so that the weights move"
    )
    return changes.scale(main, min(seldon.scaling(main)[0], ready), ready)


def promote(driver: Driver) -> None:
    """Let main run the canary's version, with no capacity lost and no request on the old version again.

    It returns before its end, with main as it was, when a command comes while that can still be obeyed.

    Raises:
        CannotPromote: The canary did not get ready to carry everything, and main is as it was.
        Conflict: Something else changed the object: begin again.
        Unavailable: The API is away, or main's new pods do not get ready: begin again.
    """
    sdep = driver.read()
    canary = seldon.find(sdep, CANARY)
    if canary is not None:
        updated = seldon.version_of(seldon.main_of(sdep)) == seldon.version_of(canary)
        if updated or _hand_over(driver):
            _hand_back(driver)
        return
    driver.finish(changes.scale(seldon.main_of(sdep), *driver.state.canary_scaling), "over: promoted")


def _hand_over(driver: Driver) -> bool:
    """All traffic to the canary, with as many pods as main has; then main's update, while it is idle.

    Returns:
        Whether main was updated; False when a command waits.
    """
    canary = seldon.find(driver.sdep, CANARY) or {}
    least, most = seldon.scaling(canary)
    floor = max(least, driver.state.floor)
    if grow := changes.scale(canary, floor, max(most, floor)):
        driver.write(grow)
    if not driver.until(lambda now: now.ready(CANARY), READY_SECONDS, heed=True):
        if driver.commanded:
            return False
        raise CannotPromote(f"the canary did not get {floor} replicas ready: {_why(driver, CANARY)}")
    if seldon.weights(driver.sdep)[CANARY] != 100:
        driver.write(changes.shift(100), say="canary takes all traffic")
    if not driver.until(lambda now: now.carries(100), FOLLOW_SECONDS, heed=True):
        if driver.commanded:
            return False
        raise CannotPromote(f"the gateway does not follow: {_why(driver, MAIN)}")
    driver.clock.sleep(DRAIN_SECONDS)
    driver.read()
    if driver.commanded:
        return False
    main, canary = seldon.main_of(driver.sdep), seldon.find(driver.sdep, CANARY) or {}
    update = changes.copy_canary_into_main(main, canary, driver.state.floor)
    driver.write(update, say=f"main, idle, is updated to {driver.state.canary_version}")
    return True


def _hand_back(driver: Driver) -> None:
    """All traffic to the new main once it is whole; then the canary goes, and main's floor."""
    if not driver.until(lambda now: now.ready(MAIN), READY_SECONDS, twice=True):
        raise Unavailable(
            f"SeldonDeployment {driver.name}: main's new pods do not get ready, "
            f"the canary carries everything; {_why(driver, MAIN)}"
        )
    if seldon.weights(driver.sdep)[CANARY] != 0:
        driver.write(changes.shift(0), say="main takes all traffic again")
    if not driver.until(lambda now: now.carries(0), FOLLOW_SECONDS):
        raise Unavailable(
            f"SeldonDeployment {driver.name}: the gateway does not follow; {_why(driver, MAIN)}"
        )
    driver.clock.sleep(DRAIN_SECONDS)
    driver.read()
    scale = changes.scale(seldon.main_of(driver.sdep), *driver.state.canary_scaling)
    driver.finish([*changes.remove_canary(), *scale], "canary removed: promoted")


def _why(driver: Driver, predictor: str) -> str:
    lines = driver.cluster.troubles(driver.name, predictor)
    return "; ".join(lines) or "its pods give no reason"
