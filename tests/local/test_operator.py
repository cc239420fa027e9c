"""The real operator's traps, on this platform: what a careful rollout has to live with."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.local.bench import Bench, load, predictor, sdep, write_bundle


@pytest.fixture
def main_live(bench: Bench, bundles: Path) -> Bench:
    bench.create(sdep(predictor("main", write_bundle(bundles, "v1"), 100, replicas=2)))
    bench.wait_settled(main=100)
    return bench


def steady(holds, seconds: float = 1.0) -> bool:
    """Whether something holds for a while."""

    async def watch() -> bool:
        for _ in range(int(seconds / 0.05)):
            if not holds():
                return False
            await asyncio.sleep(0.05)
        return True

    return asyncio.run(watch())


def test_a_new_canary_that_is_not_ready_freezes_the_weights_until_it_is_removed(
    main_live: Bench, bundles: Path
) -> None:
    main_live.append_canary(predictor("canary", write_bundle(bundles, "bad", crash=True), 20))
    assert steady(lambda: main_live.weights() == {"main": 100})
    main_live.set_weights(100, 0)
    main_live.set_weights(70, 30)
    assert steady(lambda: main_live.weights() == {"main": 100})
    assert main_live.state() == "Creating"
    main_live.wait(
        lambda: (
            "sabotaged by a test"
            in str(main_live.pods("canary")[0]["status"]["containerStatuses"][0]["state"])
        ),
        "the reason of the crash",
    )
    waiting = main_live.pods("canary")[0]["status"]["containerStatuses"][0]
    assert waiting["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert waiting["restartCount"] >= 2
    main_live.remove_canary()
    main_live.wait_settled(main=100)
    main_live.wait(lambda: main_live.pids("canary") == [], "no pod of the canary is left")


def test_a_canary_broken_in_place_serves_on_is_never_failed_and_freezes_the_weights(
    main_live: Bench, bundles: Path
) -> None:
    main_live.append_canary(predictor("canary", write_bundle(bundles, "v2"), 20, progressDeadlineSeconds=1))
    main_live.wait_settled(main=80, canary=20)
    broken = predictor("canary", write_bundle(bundles, "bad", crash=True), 20, progressDeadlineSeconds=1)
    assert main_live.patch(("replace", "/spec/predictors/1", broken)).status == 200
    main_live.wait(lambda: main_live.state() == "Creating", "the broken pod is seen")
    main_live.set_weights(100, 0)
    assert steady(lambda: main_live.weights() == {"main": 80, "canary": 20}, 1.5)
    assert main_live.state() == "Creating"
    deployment = main_live.deployments()["iris-canary-1-model"]
    assert (deployment["status"]["readyReplicas"], deployment["status"]["updatedReplicas"]) == (1, 1)

    async def asked() -> int:
        async with load(main_live, 100) as result:
            await asyncio.sleep(0.5)
        assert result.failures == []
        return result.versions["v2"]

    assert asyncio.run(asked()) > 0
    main_live.remove_canary()
    main_live.wait_settled(main=100)


def test_a_new_canary_is_failed_after_its_deadline_and_removal_works_still(
    main_live: Bench, bundles: Path
) -> None:
    bad = write_bundle(bundles, "never", ready_after=1000)
    main_live.append_canary(predictor("canary", bad, 20, progressDeadlineSeconds=1))
    main_live.wait(lambda: main_live.state() == "Failed", "Failed")
    assert "iris-canary-1-model" in main_live.get()["status"]["description"]
    main_live.remove_canary()
    main_live.wait_settled(main=100)


def test_main_with_a_pod_that_is_not_ready_freezes_even_the_removal_of_the_canary(
    main_live: Bench, bundles: Path
) -> None:
    main_live.append_canary(predictor("canary", write_bundle(bundles, "v2"), 20))
    main_live.wait_settled(main=80, canary=20)
    # From now on main's new pods do not become ready, as on a full node.
    write_bundle(bundles, "v1", ready_after=1000)
    hpa = "/spec/predictors/0/componentSpecs/0/hpaSpec/"
    assert main_live.patch(("replace", hpa + "minReplicas", 3)).status == 200
    main_live.wait(lambda: len(main_live.pods("main")) == 3, "the third pod")
    main_live.wait(lambda: main_live.state() == "Creating", "Creating")
    main_live.remove_canary()
    assert steady(lambda: main_live.weights() == {"main": 80, "canary": 20})
    assert len(main_live.pods("canary")) == 1
    answer = main_live.patch(("replace", hpa + "maxReplicas", 2), ("replace", hpa + "minReplicas", 2))
    assert answer.status == 200
    main_live.wait_settled(main=100)


def test_scaling_keeps_the_pods_and_an_annotation_replaces_them(main_live: Bench) -> None:
    before = set(main_live.pids("main"))
    hpa = "/spec/predictors/0/componentSpecs/0/hpaSpec/minReplicas"
    assert main_live.patch(("replace", hpa, 3)).status == 200
    main_live.wait_settled(main=100)
    main_live.wait(lambda: main_live.deployments()["iris-main-0-model"]["status"]["replicas"] == 3, "3 pods")
    main_live.wait_settled(main=100)
    assert before < set(main_live.pids("main"))
    assert main_live.patch(("replace", hpa, 2)).status == 200
    main_live.wait(lambda: len(main_live.pids("main")) == 2, "2 pods")
    assert before == set(main_live.pids("main"))
    assert main_live.patch(("add", "/spec/predictors/0/annotations/note", "edited")).status == 200
    main_live.wait(lambda: not before & set(main_live.pids("main")), "all pods replaced")
    main_live.wait_settled(main=100)


def test_metadata_and_traffic_restart_nothing_and_the_index_names_the_deployment(
    main_live: Bench, bundles: Path
) -> None:
    main_live.append_canary(predictor("canary", write_bundle(bundles, "v2"), 20))
    main_live.wait_settled(main=80, canary=20)
    before = set(main_live.pids())
    generation = main_live.get()["metadata"]["generation"]
    assert main_live.patch(("add", "/metadata/annotations", {"canaryflow.io/rollout": "{}"})).status == 200
    assert main_live.get()["metadata"]["generation"] == generation
    main_live.set_weights(30, 70)
    main_live.wait_settled(main=30, canary=70)
    assert set(main_live.pids()) == before
    # Dropping index 0 moves the canary to it, and its pods are replaced for that.
    answer = main_live.patch(("remove", "/spec/predictors/0"), ("replace", "/spec/predictors/0/traffic", 100))
    assert answer.status == 200
    main_live.wait_settled(canary=100)
    assert set(main_live.deployments()) == {"iris-canary-0-model"}
    assert not before & set(main_live.pids("canary")) or len(main_live.pids("canary")) > 1


@pytest.mark.parametrize(
    ("first_to_zero", "drains", "lost"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_removal_at_once_cuts_what_is_in_flight_unless_the_weight_was_0_before_or_the_pod_drains(
    bench: Bench, bundles: Path, first_to_zero: bool, drains: bool, lost: bool
) -> None:
    bench.create(sdep(predictor("main", write_bundle(bundles, "v1"), 100)))
    bench.wait_settled(main=100)
    bench.append_canary(predictor("canary", write_bundle(bundles, "v2", abrupt=True), 100, drains=drains))
    bench.wait_settled(main=0, canary=100)

    async def remove_in_flight() -> int:
        async with aiohttp.ClientSession() as session:
            url = f"{bench.live.gateway}/seldon/default/iris/api/v1.0/predictions"
            slow = asyncio.create_task(session.post(url, json={}, headers={"x-take": "0.7"}))
            await asyncio.sleep(0.1)
            if first_to_zero:
                await asyncio.to_thread(bench.set_weights, 100, 0)
                await asyncio.to_thread(bench.wait_settled, main=100, canary=0)
                await asyncio.sleep(0.8)
            await asyncio.to_thread(bench.remove_canary)
            return (await slow).status

    assert (asyncio.run(remove_in_flight()) != 200) == lost
    bench.wait_settled(main=100)


def test_promotion_in_one_patch_lets_the_old_version_answer_until_the_new_one_is_ready(
    main_live: Bench, bundles: Path
) -> None:
    two = write_bundle(bundles, "v2", ready_after=1.0)
    main_live.append_canary(predictor("canary", two, 0))
    main_live.wait_settled(main=100, canary=0)
    main_live.set_weights(0, 100)
    main_live.wait_settled(main=0, canary=100)
    promoted = predictor("main", two, 100, replicas=2)
    answer = main_live.patch(("remove", "/spec/predictors/1"), ("replace", "/spec/predictors/0", promoted))
    assert answer.status == 200
    main_live.wait(lambda: main_live.weights() == {"main": 100}, "all traffic on main", 0.9)

    async def asked() -> set[str]:
        async with load(main_live, 100) as result:
            await asyncio.sleep(0.2)
        assert result.failures == []
        return set(result.versions)

    assert asyncio.run(asked()) == {"v1"}
    main_live.wait_settled(main=100)
    assert asyncio.run(asked()) == {"v2"}


def test_a_status_right_after_a_change_is_that_of_before(main_live: Bench, bundles: Path) -> None:
    slow = write_bundle(bundles, "slow", ready_after=0.5)
    main_live.append_canary(predictor("canary", slow, 20))
    assert main_live.state() == "Available"
    main_live.wait(lambda: main_live.state() == "Creating", "Creating")
    main_live.wait_settled(main=80, canary=20)


def test_deleting_stops_every_pod_and_the_route(main_live: Bench) -> None:
    pids = main_live.pids()
    from tests.local.bench import SDEP

    assert main_live.call("DELETE", f"{SDEP}/iris").status == 200
    assert main_live.call("GET", f"{SDEP}/iris").status == 404
    main_live.wait(lambda: main_live.pods() == [], "no pod left")
    assert main_live.weights() == {}
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_what_this_platform_does_not_do_is_said_in_the_status(bench: Bench, bundles: Path) -> None:
    first = predictor("main", write_bundle(bundles, "v1"), 150)
    second = predictor("canary", write_bundle(bundles, "v2"), -50)
    bench.create(sdep(first, second))
    bench.wait(lambda: bench.state() == "Failed", "Failed")
    assert bench.get()["status"]["description"] == "predictor main: found traffic 150, expected 0 to 100"
