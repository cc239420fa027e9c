"""The API answers as Kubernetes does: codes, versions, generations, the webhook's refusals."""

import copy
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from canaryflow.local import platform
from tests.local.bench import SDEP, STAND_IN, Bench, predictor, sdep, write_bundle

GENERIC = "the server rejected our request due to an error in our request"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    workspace = tmp_path_factory.mktemp("workspace")
    yield Bench(workspace, platform.up(workspace, server=STAND_IN, tied=True))
    platform.down(workspace)


@pytest.fixture
def stored(shared: Bench, tmp_path: Path) -> Iterator[Bench]:
    shared.create(sdep(predictor("main", write_bundle(tmp_path, "v1"), 100)))
    shared.wait_settled(main=100)
    yield shared
    shared.call("DELETE", f"{SDEP}/iris")
    shared.wait(lambda: shared.pods() == [], "no pod left")


def test_create_get_list_and_a_second_create(stored: Bench) -> None:
    found = stored.get()
    assert found["kind"] == "SeldonDeployment"
    assert found["metadata"]["namespace"] == "default"
    assert found["metadata"]["uid"] and found["metadata"]["creationTimestamp"]
    assert found["metadata"]["generation"] == 1
    listed = stored.call("GET", SDEP).body
    assert (listed["kind"], [item["metadata"]["name"] for item in listed["items"]]) == (
        "SeldonDeploymentList",
        ["iris"],
    )
    again = stored.call("POST", SDEP, sdep(*found["spec"]["predictors"]))
    assert (again.status, again.body["reason"]) == (409, "AlreadyExists")


def test_what_is_not_there_is_404_with_a_status_body(shared: Bench) -> None:
    for path in (f"{SDEP}/none", "/api/v1/namespaces/default/services/none", "/nowhere"):
        answer = shared.call("GET", path)
        assert (answer.status, answer.body["kind"], answer.body["reason"]) == (404, "Status", "NotFound")


def test_a_stale_test_is_a_generic_422_and_changes_nothing(stored: Bench) -> None:
    before = stored.get()
    answer = stored.patch(
        ("test", "/metadata/resourceVersion", "1"), ("add", "/metadata/labels", {"changed": "yes"})
    )
    assert (answer.status, answer.body["message"]) == (422, GENERIC)
    missing = stored.patch(("replace", "/spec/predictors/7/traffic", 1))
    assert (missing.status, missing.body["message"]) == (422, GENERIC)
    assert stored.get() == before
    version = before["metadata"]["resourceVersion"]
    good = stored.patch(
        ("test", "/metadata/resourceVersion", version), ("add", "/metadata/labels", {"changed": "yes"})
    )
    assert good.status == 200
    assert int(good.body["metadata"]["resourceVersion"]) > int(version)
    stale = stored.patch(
        ("test", "/metadata/resourceVersion", version), ("add", "/metadata/labels", {"changed": "twice"})
    )
    assert stale.status == 422


def test_put_and_merge_patch_with_a_stale_version_are_409(stored: Bench) -> None:
    before = stored.get()
    merge = {"metadata": {"annotations": {"a": "1", "b": "2"}}}
    kind = "application/merge-patch+json"
    assert stored.call("PATCH", f"{SDEP}/iris", merge, kind).status == 200
    stale = stored.call("PUT", f"{SDEP}/iris", before)
    assert (stale.status, stale.body["reason"]) == (409, "Conflict")
    old = {"metadata": {"resourceVersion": before["metadata"]["resourceVersion"], "annotations": {"a": "3"}}}
    assert stored.call("PATCH", f"{SDEP}/iris", old, kind).status == 409
    gone = stored.call("PATCH", f"{SDEP}/iris", {"metadata": {"annotations": {"a": None}}}, kind)
    assert gone.body["metadata"]["annotations"] == {"b": "2"}
    fresh = stored.get()
    fresh["metadata"]["annotations"] = {"c": "4"}
    assert stored.call("PUT", f"{SDEP}/iris", fresh).body["metadata"]["annotations"] == {"c": "4"}


def test_generation_follows_the_spec_and_status_only_its_own_path(stored: Bench) -> None:
    before = stored.get()
    changed = copy.deepcopy(before)
    changed["status"] = {"state": "Nonsense"}
    changed["metadata"]["labels"] = {"team": "a"}
    after = stored.call("PUT", f"{SDEP}/iris", changed).body
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["status"] == before["status"]
    same = stored.call("PUT", f"{SDEP}/iris", stored.get()).body
    assert same["metadata"]["resourceVersion"] == stored.get()["metadata"]["resourceVersion"]
    spec = stored.patch(("replace", "/spec/predictors/0/componentSpecs/0/hpaSpec/maxReplicas", 4)).body
    assert spec["metadata"]["generation"] == before["metadata"]["generation"] + 1


def refusal(stored: Bench, *predictors: dict) -> str:
    answer = stored.call("POST", SDEP, sdep(*predictors, name="other"))
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert stored.call("GET", f"{SDEP}/other").status == 404
    return answer.body["message"]


def test_the_webhook_and_the_schema_refuse(shared: Bench) -> None:
    main, canary = predictor("main", "/b", 60), predictor("canary", "/b", 30)
    assert "Traffic must sum to 100" in refusal(shared, main, canary)
    assert "Duplicate predictor name" in refusal(shared, main, predictor("main", "/b", 40))
    assert "Traffic must be 100 for a single predictor" in refusal(shared, main)
    assert "Can't find container" in refusal(shared, main | {"graph": {"name": "other"}})
    assert 'must be of type integer: "string"' in refusal(shared, main | {"traffic": "60"})
    assert "spec.predictors: Required value" in refusal(shared)
    assert "graph: Required value" in refusal(shared, main | {"graph": None})
    assert "need Kubernetes" in refusal(shared, main | {"shadow": True})
    bad_name = shared.call("POST", SDEP, sdep(predictor("main", "/b", 100), name="../etc"))
    assert bad_name.status == 422
    assert "RFC 1123" in bad_name.body["message"]


def test_unknown_fields_are_pruned_in_silence(stored: Bench) -> None:
    container = "/spec/predictors/0/componentSpecs/0/spec/containers/0"
    stored.patch(
        ("add", "/spec/predictors/0/colour", "blue"),
        ("add", container + "/lifecycle/preStop", {"sleep": {"seconds": 5}}),
    )
    first = stored.get()["spec"]["predictors"][0]
    assert "colour" not in first
    assert first["componentSpecs"][0]["spec"]["containers"][0]["lifecycle"]["preStop"] == {}


def test_a_body_that_is_no_json_and_an_unknown_kind_of_patch_are_refused(stored: Bench) -> None:
    connection = http.client.HTTPConnection(urlsplit(stored.live.api).netloc, timeout=5)
    connection.request("POST", SDEP, b"{", {"content-type": "application/json"})
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["reason"]) == (400, "BadRequest")
    assert stored.call("PATCH", f"{SDEP}/iris", {}, "application/strategic-merge-patch+json").status == 415
    assert stored.call("PATCH", f"{SDEP}/iris", {}, "application/json-patch+json").status == 400


@pytest.mark.parametrize("header", [{"Origin": "http://example.com"}, {"Host": "example.com"}])
def test_a_browsers_page_is_refused(shared: Bench, header: dict[str, str]) -> None:
    connection = http.client.HTTPConnection(urlsplit(shared.live.api).netloc, timeout=5)
    connection.request("GET", "/gateway", headers=header)
    assert connection.getresponse().status == 403


def test_pods_and_their_logs_can_be_read(stored: Bench) -> None:
    pod = stored.pods("main")[0]
    assert pod["status"]["containerStatuses"][0]["ready"] is True
    connection = http.client.HTTPConnection(urlsplit(stored.live.api).netloc, timeout=5)
    connection.request("GET", f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}/log")
    assert connection.getresponse().status == 200
