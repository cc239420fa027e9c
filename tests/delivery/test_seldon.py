from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryflow.delivery import changes, seldon
from canaryflow.delivery.plan import RolloutPlan
from canaryflow.delivery.rollout_state import RolloutState, read_state
from canaryflow.delivery.seldon import ServerSpec
from canaryflow.errors import InputError, PlatformError
from canaryflow.local.webhook import admit

SPEC = ServerSpec("server:1", "s3://store/iris/abc", "abc")


def pod(spec: ServerSpec = SPEC) -> dict:
    return seldon.predictor("main", spec, 100)["componentSpecs"][0]["spec"]


def test_the_schema_knows_every_field_and_the_webhook_takes_it():
    body = seldon.seldon_deployment("iris", "ml", SPEC)
    assert admit(body) == body


def test_pods_pass_pod_security_restricted():
    spec = pod()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*spec["initContainers"], *spec["containers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert {"requests", "limits"} <= container["resources"].keys()


def test_a_pod_leaves_the_gateway_before_it_stops():
    (server,) = pod()["containers"]
    assert server["lifecycle"]["preStop"]["httpGet"] == {"path": "/drain", "port": 6000, "scheme": "HTTP"}
    assert server["readinessProbe"]["httpGet"]["path"] == "/health/status"
    held = next(int(word.split("=")[1]) for word in server["args"] if word.startswith("--drain-seconds"))
    assert held < pod()["terminationGracePeriodSeconds"]


def test_the_autoscaler_looks_at_the_model_alone():
    hpa = seldon.predictor("main", SPEC, 100)["componentSpecs"][0]["hpaSpec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (2, 10)
    found = {
        metric["containerResource"]["name"]: metric["containerResource"]["target"]["averageUtilization"]
        for metric in hpa["metricsv2"]
    }
    assert found == {"cpu": 70, "memory": 80}
    assert {metric["containerResource"]["container"] for metric in hpa["metricsv2"]} == {"model"}


def test_the_bundle_and_secrets_travel_by_reference():
    spec = pod(ServerSpec("server:1", "s3://b/x", "abc", store_secret="store", fetch_image="steps:1"))
    (fetch,), (server,) = spec["initContainers"], spec["containers"]
    variable = {"name": "CANARYFLOW_BUNDLE_URI", "value": "s3://b/x"}
    assert variable in fetch["env"]
    assert variable in server["env"]
    assert fetch["image"] == "steps:1"
    assert fetch["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert "envFrom" not in server


def test_only_main_has_a_disruption_budget():
    main, canary = (seldon.predictor(name, SPEC, 0)["componentSpecs"][0] for name in ("main", "canary"))
    assert "pdbSpec" in main
    assert "pdbSpec" not in canary


def test_with_the_executor_floors_do_not_move():
    with_executor = ServerSpec("server:1", "b", "abc", executor=True)
    body = seldon.predictor("main", with_executor, 100)
    assert "seldon.io/no-engine" not in body["annotations"]
    assert body["svcOrchSpec"]["resources"]["requests"]
    assert changes.scale(body, 5) == []
    assert changes.scale(seldon.predictor("main", SPEC, 100), 5)
    assert changes.scale(seldon.predictor("main", SPEC, 100), 2) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": ""},
        {"version": ""},
        {"min_replicas": 0},
        {"min_replicas": 3, "max_replicas": 2},
        {"cpu_target": 0},
        {"memory_target": 101},
    ],
)
def test_a_spec_out_of_range_is_refused_by_name(wrong: dict):
    values = {"image": "i", "bundle_uri": "b", "version": "v"} | wrong
    with pytest.raises(InputError, match=next(iter(wrong))):
        ServerSpec(**values)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": ()},
        {"steps": (5, 5)},
        {"steps": (10, 5)},
        {"steps": (0, 5)},
        {"steps": (50, 100)},
        {"steps": (True,)},
        {"step_requests": 0},
        {"interval_seconds": 0},
        {"alpha": 0.9},
        {"max_error_rate": 1.5},
        {"max_minutes": float("nan")},
        {"on_inconclusive": "hope"},
    ],
)
def test_a_plan_out_of_range_is_refused_by_name(wrong: dict):
    name = next(iter(wrong)).replace("steps", "canary_steps")
    with pytest.raises(InputError, match=name):
        RolloutPlan(**wrong)


@given(
    st.sets(st.integers(1, 99), min_size=1, max_size=10).map(sorted).map(tuple),
    st.integers(1, 10**6),
    st.sampled_from(["rollback", "pause", "promote"]),
)
def test_a_plan_is_read_back_as_it_was(steps: tuple[int, ...], requests: int, inconclusive: str):
    plan = RolloutPlan(steps=steps, step_requests=requests, on_inconclusive=inconclusive)
    assert RolloutPlan.from_dict(plan.to_dict()) == plan


@given(
    st.builds(
        RolloutState,
        phase=st.sampled_from(["prepared", "ramp", "done"]),
        main_scaling=st.tuples(st.integers(1, 9), st.integers(9, 20)),
        elapsed=st.floats(0, 1e6),
        reasons=st.lists(st.text(max_size=20), max_size=3),
        events=st.lists(st.tuples(st.floats(0, 1e6), st.text(max_size=20)), max_size=5),
        weights=st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 100)), max_size=5),
    )
)
def test_a_state_is_read_back_as_it_was(state: RolloutState):
    sdep = {"metadata": {"annotations": {"canaryflow.io/rollout": state.dump()}}}
    assert read_state(sdep) == state


@given(st.lists(st.text(max_size=600), max_size=400))
def test_however_much_happens_the_state_stays_small(texts: list[str]):
    state = RolloutState()
    for index, text in enumerate(texts):
        state.note(text)
        state.sample({"t": index, "weight": 5, "metrics": {"errors": [index, 0, 0, 0, 0.0, 0.0]}})
    assert len(state.dump()) < 128 * 1024
    assert len(state.samples) <= 121
    if texts:
        assert state.samples[-1]["t"] == len(texts) - 1
        assert state.samples[0]["t"] == 0


def test_a_state_that_is_not_ours_is_refused():
    for text in ("{", "[]", '{"phase": "flying"}', '{"main_scaling": 3}'):
        with pytest.raises(PlatformError, match=r"canaryflow\.io/rollout"):
            read_state({"metadata": {"annotations": {"canaryflow.io/rollout": text}}})


def test_predictors_of_another_shape_are_not_driven():
    for names in ([], ["canary"], ["main", "shadow"], ["main", "canary", "x"]):
        sdep = {"metadata": {"name": "iris"}, "spec": {"predictors": [{"name": name} for name in names]}}
        with pytest.raises(PlatformError, match="expected main first"):
            seldon.main_of(sdep)


def test_weights_as_the_webhook_lets_them_be():
    assert seldon.weights({"spec": {"predictors": [{"name": "main"}]}}) == {"main": 100}
    both = [{"name": "main", "traffic": 100}, {"name": "canary"}]
    assert seldon.weights({"spec": {"predictors": both}}) == {"main": 100, "canary": 0}
