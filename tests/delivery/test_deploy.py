from __future__ import annotations

import pytest

from canaryflow.delivery import seldon
from canaryflow.delivery.deploy import Deployed, deploy
from canaryflow.delivery.driver import Busy, Driver
from canaryflow.delivery.rollout_state import read_lease, read_state
from canaryflow.errors import GateFailed, InputError, NotFound, PlatformError
from tests.delivery.bench import Bench, Killed, Mortal, Unavailable


def put(paper: Bench, label: str, timeout: float = 60.0, **changes) -> Deployed:
    return deploy(
        paper.cluster,
        "iris",
        paper.spec(label, **changes),
        paper.bundle(label),
        timeout,
        clock=paper.time.clock,
    )


def test_first_version_takes_all_traffic(paper: Bench):
    deployed = put(paper, "one")
    version = paper.bundle("one").manifest.version
    assert deployed == Deployed("main", version, True)
    assert paper.cluster.weights("iris") == {"main": 100}
    sdep = paper.cluster.get("iris")
    assert seldon.version_of(seldon.main_of(sdep)) == version
    assert read_state(sdep).phase == "live"
    assert read_lease(sdep) is None
    assert put(paper, "one") == Deployed("main", version, False)


def test_second_version_waits_as_canary_without_traffic(paper: Bench):
    put(paper, "one", min_replicas=2)
    deployed = put(paper, "two")
    sdep = paper.cluster.get("iris")
    assert deployed == Deployed("canary", paper.bundle("two").manifest.version, True)
    assert [entry["name"] for entry in sdep["spec"]["predictors"]] == ["main", "canary"]
    assert paper.cluster.weights("iris") == {"main": 100, "canary": 0}
    state = read_state(sdep)
    assert (state.phase, state.main_scaling, state.canary_scaling, state.floor) == (
        "prepared",
        (2, 4),
        (1, 4),
        2,
    )
    assert put(paper, "two") == Deployed("canary", paper.bundle("two").manifest.version, False)


def test_mains_floor_is_raised_to_what_carries_everything_now(paper: Bench):
    put(paper, "one")
    # An HPA has scaled main to 3: the floor must hold them while the canary takes some of the load away.
    real = paper.cluster.deployments

    def scaled(name: str):
        found = real(name)
        for deployment in found:
            if deployment["metadata"]["name"].startswith("iris-main"):
                counts = {"replicas": 3, "updatedReplicas": 3, "readyReplicas": 3}
                deployment["spec"]["replicas"] = 3
                deployment["status"] |= counts
        return found

    paper.cluster.deployments = scaled
    put(paper, "two")
    assert seldon.scaling(seldon.main_of(paper.cluster.get("iris"))) == (3, 4)
    assert read_state(paper.cluster.get("iris")).main_scaling == (1, 4)


def test_first_version_that_never_gets_ready_is_removed(paper: Bench):
    paper.pods.broken.add(str(paper.bundle("one").path))
    with pytest.raises(GateFailed, match=r"CrashLoopBackOff"):
        put(paper, "one")
    with pytest.raises(NotFound):
        paper.cluster.get("iris")


@pytest.mark.parametrize("fault", ["broken", "lying"])
def test_a_canary_that_fails_is_removed_and_main_is_as_it_was(paper: Bench, fault: str):
    put(paper, "one")
    before = paper.cluster.get("iris")["spec"]
    getattr(paper.pods, fault).add(str(paper.bundle("two").path))
    expected = "CrashLoopBackOff" if fault == "broken" else "sample 0 was answered"
    with pytest.raises(GateFailed, match=expected):
        put(paper, "two")
    assert paper.cluster.get("iris")["spec"] == before
    assert paper.cluster.weights("iris") == {"main": 100}


def test_the_bundle_that_serves_must_be_the_one_that_was_meant(paper: Bench):
    paper.bundle("two")
    with pytest.raises(GateFailed, match="expected"):
        deploy(paper.cluster, "iris", paper.spec("one"), paper.bundle("two"), 5.0, clock=paper.time.clock)


def test_an_orphaned_canary_makes_way_for_the_next(paper: Bench):
    put(paper, "one")
    put(paper, "two")
    deployed = put(paper, "three")
    sdep = paper.cluster.get("iris")
    assert deployed.created
    assert seldon.version_of(seldon.find(sdep, "canary")) == paper.bundle("three").manifest.version
    assert read_state(sdep).canary_version == paper.bundle("three").manifest.version


def test_a_foreign_canary_is_not_touched(paper: Bench):
    put(paper, "one")
    canary = seldon.predictor("canary", paper.spec("two"), 0)
    operations = [
        {"op": "add", "path": "/spec/predictors/-", "value": canary},
        {"op": "add", "path": "/spec/predictors/0/traffic", "value": 100},
    ]
    paper.cluster.patch("iris", operations)
    with pytest.raises(PlatformError, match="no rollout of canaryflow knows"):
        put(paper, "three")
    assert seldon.find(paper.cluster.get("iris"), "canary") is not None


def test_a_name_that_cannot_be_one_is_refused_before_anything_is_made(paper: Bench):
    for name in ("Iris", "a" * 60, "-x", ""):
        with pytest.raises(InputError, match="name"):
            deploy(paper.cluster, name or "", paper.spec("one"), paper.bundle("one"), clock=paper.time.clock)


def test_the_lease_is_kept_while_the_bundle_proves_itself(paper: Bench):
    put(paper, "one")
    paper.pods.lying.add(str(paper.bundle("two").path))
    paper.pods.lag = 40
    real, alive = paper.cluster.service_url, []

    def slow(name: str, predictor: str) -> str:
        paper.time.sleep(14.0)
        alive.append(read_lease(paper.cluster.get("iris")).is_alive(paper.time.now))
        return real(name, predictor)

    paper.cluster.service_url = slow
    with pytest.raises(GateFailed, match="sample 0 was answered"):
        put(paper, "two")
    assert alive == [True, True]


def test_a_first_version_that_another_process_took_over_is_not_deleted(paper: Bench):
    paper.pods.lag = 10_000
    real, began, others = paper.cluster.troubles, paper.time.now, []

    def late(name: str, predictor: str) -> list[str]:
        if not others and paper.time.now - began >= 5.0:
            paper.time.sleep(60)
            others.append(Driver(paper.cluster, "iris", clock=paper.time.clock))
            others[0].acquire()
        return real(name, predictor)

    paper.cluster.troubles = late
    with pytest.raises(Busy, match="lost its lease"):
        put(paper, "one", timeout=5.0)
    assert others[0].read()["metadata"]["name"] == "iris"


def test_a_delete_whose_answer_was_lost_is_taken_for_done(paper: Bench):
    paper.pods.broken.add(str(paper.bundle("one").path))
    real = paper.cluster.delete

    def lossy(name: str, resource_version: str = "") -> None:
        real(name, resource_version)
        raise Unavailable("the answer was lost")

    paper.cluster.delete = lossy
    with pytest.raises(GateFailed, match="CrashLoopBackOff"):
        put(paper, "one")
    with pytest.raises(NotFound):
        paper.cluster.get("iris")


@pytest.mark.parametrize("how", [Killed, Unavailable])
@pytest.mark.parametrize("start", ["nothing", "live"])
def test_a_deploy_killed_anywhere_is_carried_on(paper: Bench, start: str, how: type[BaseException]):
    """Exhaustive: killed (or refused) before and after each of its calls, it ends as if nothing had been."""
    name = "iris"
    attempt, calls = 0, 10_000
    while attempt < calls:
        for after in (False, True):
            paper.cluster.delete(name)
            if start == "live":
                put(paper, "zero")
            mortal = Mortal(paper.cluster, attempt, after=after, how=how)
            bundle, spec = paper.bundle("one"), paper.spec("one")
            try:
                deploy(mortal, name, spec, bundle, 60.0, clock=paper.time.clock)
            except Killed:
                deploy(paper.cluster, name, spec, bundle, 60.0, clock=paper.time.clock)
            else:
                calls = len(mortal.calls)
            sdep = paper.cluster.get(name)
            arm = "main" if start == "nothing" else "canary"
            assert seldon.version_of(seldon.find(sdep, arm)) == spec.version
            assert read_state(sdep).phase == ("live" if start == "nothing" else "prepared")
            assert seldon.weights(sdep)["main"] == 100
            assert read_lease(sdep) is None
        attempt += 1
    assert attempt > 10
