"""What the routes say, asked of real server processes."""

import re
from datetime import UTC, datetime

import numpy as np
import pytest

from canaryflow.bundle.scorer import Scorer
from tests.bundle import models

ROWS = models.rows(12, seed=3)
NAMES = list(ROWS[0])
MATRIX = [[row[name] for name in NAMES] for row in ROWS]
GOOD = {"distance": 500, "temp": 1.5, "carrier": "AA", "origin": "JFK", "holiday": True}


@pytest.fixture
def server(servers):
    return servers["binary"]


def expected(bundle):
    scorer = Scorer(bundle)
    answers = scorer.score(scorer.rows.from_records(ROWS))
    return answers, [] if scorer.signature.problem == "regression" else answers.labels()


@pytest.mark.parametrize("problem", models.CLASSES)
@pytest.mark.parametrize("route", ["/api/v1.0/predictions", "/predict"])
def test_what_is_served_is_what_the_scorer_answers(servers, bundles, problem, route):
    answers, labels = expected(bundles[problem])
    status, said, headers = servers[problem].request(
        route, {"data": {"ndarray": MATRIX}, "meta": {"puid": "p1"}}
    )
    assert status == 200 and headers["content-type"] == "application/json"
    values = np.array(said["data"]["ndarray"])
    np.testing.assert_array_equal(values, answers.values.reshape(len(ROWS), -1).astype(float))
    assert said["data"]["names"] == (list(models.CLASSES[problem]) or ["late"])
    tags = said["meta"]["tags"]
    assert said["meta"]["puid"] == "p1"
    assert (tags["model_name"], tags["model_version"]) == (f"tiny-{problem}", bundles[problem].version)
    assert abs(datetime.fromisoformat(tags["time"]) - datetime.now(UTC)).total_seconds() < 60
    assert tags.get("classes", []) == labels
    if labels:
        picked = [
            row[models.CLASSES[problem].index(label)] for row, label in zip(values, labels, strict=True)
        ]
        assert tags["probabilities"] == picked


def test_every_encoding_gives_the_same_answer_in_its_own_form(server):
    plain = server.request("/predict", {"data": {"ndarray": MATRIX}})[1]["data"]["ndarray"]
    turned = [list(reversed(row)) for row in MATRIX]
    named = server.request("/predict", {"data": {"names": NAMES[::-1], "ndarray": turned}})[1]
    assert named["data"]["ndarray"] == plain
    rows = server.request("/predict", {"rows": ROWS})[1]
    one = server.request("/predict", ROWS[0])[1]
    json_data = server.request("/predict", {"jsonData": ROWS})[1]
    assert rows["answers"] == json_data["jsonData"]
    assert one["answers"] == rows["answers"][:1]
    assert [list(answer["probabilities"].values()) for answer in rows["answers"]] == plain
    assert rows["model"]["version"] == json_data["meta"]["tags"]["model_version"]
    assert len(json_data["meta"]["puid"]) == 32
    first = rows["answers"][0]
    assert first["probability"] == first["probabilities"][first["class"]]


def test_a_tensor_comes_back_as_a_tensor(servers):
    number = {"shape": [2, 2], "values": [500, 1, 700, 0]}
    status, said, _ = servers["regression"].request(
        "/predict", {"data": {"names": ["distance", "holiday"], "tensor": number}}
    )
    assert status == 400 and "'carrier': found nothing" in said["status"]["info"]
    assert (
        servers["regression"].request("/predict", {"data": {"tensor": {"shape": [1, 5], "values": [1] * 5}}})[
            0
        ]
        == 400
    )


def test_a_bad_row_is_answered_with_row_field_found_and_expected(server):
    status, said, _ = server.request(
        "/api/v1.0/predictions", {"data": {"ndarray": [*MATRIX, [1, "hot", "AA", None, None]]}}
    )
    assert status == 400
    assert said["status"] == {
        "code": 400, "reason": "bad_row", "status": "FAILURE",
        "info": "row 12, field 'temp': found 'hot', expected a finite number or null",
    }  # fmt: skip
    assert said["meta"]["tags"] == {
        "row": 12,
        "field": "temp",
        "found": "'hot'",
        "expected": "a finite number or null",
    }


@pytest.mark.parametrize(
    ("body", "status", "info"),
    [
        (b"", 400, "an empty body"),
        (b"{", 400, "not JSON"),
        (b"[" * 5000, 400, "not JSON"),
        (b'{"distance": NaN}', 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"null", 400, "the body is null"),
        (b"[1]", 400, "the body is a list"),
        (b"{}", 400, "field 'distance': found nothing"),
        ({"rows": []}, 400, "has no rows"),
        ({"rows": GOOD}, 400, "rows is an object"),
        ({"rows": [GOOD], "row": 1}, 400, "unknown key 'row'"),
        ({"rows": [GOOD] * 501}, 413, "501 rows, expected at most 500"),
        ({"data": {"ndarray": [[1]] * 501}}, 413, "501 rows"),
        ({"data": {"tensor": {"shape": [501, 1], "values": [1] * 501}}}, 413, "501 rows"),
        ({"data": {"tensor": {"shape": [10**12, 1], "values": [1]}}}, 413, "rows"),
        ({"data": {"tensor": 5}}, 400, "data.tensor is a number"),
        ({"data": {"ndarray": 5}}, 400, "data.ndarray is a number"),
        ({"data": {"names": 5, "ndarray": [[1]]}}, 400, "data.names is a number"),
        ({"data": {"tftensor": {}}}, 400, "expected ndarray or tensor"),
        ({"data": 5}, 400, "carries data"),
        ({"strData": "x"}, 400, "carries strData"),
        ({"binData": "eA=="}, 400, "carries binData"),
        ({"distance": 5, "carier": "AA"}, 400, "expected 'carrier'"),
        (b"x" * 200_001, 413, "200001 bytes, expected at most 200000"),
    ],
)
def test_a_body_that_cannot_be_answered_is_refused_with_the_reason(server, body, status, info):
    before = server.metric("canaryflow_errors_total")
    found, said, _ = server.request("/predict", body)
    assert (found, said["status"]["code"], said["status"]["status"]) == (status, status, "FAILURE")
    assert info in said["status"]["info"]
    assert server.metric("canaryflow_errors_total") == before + 1


def test_a_body_without_a_length_is_bounded_too(server):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("POST", "/predict", (b"x" * 50_000 for _ in range(5)), encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413 and b"more than 200000" in answer.read()
    connection.close()


def test_routes_and_methods_that_are_not_there(server):
    assert server.request("/nothing")[0] == 404
    status, said, headers = server.request("/predict")
    assert (status, headers["allow"]) == (405, "POST") and "takes POST" in said["status"]["info"]
    assert server.request("/health/ping", b"{}")[0] == 405
    assert (
        server.request("/predict", b"--x", headers={"content-type": "multipart/form-data; boundary=x"})[0]
        == 415
    )
    assert server.request("/drain")[0] == 404, "the drain is closed to the gateway"


def test_health_and_metadata(server, bundles):
    assert server.request("/health/ping")[:2] == (200, "pong")
    status, said, _ = server.request("/health/status")
    assert (status, said) == (
        200,
        {"status": "ready", "model": "tiny-binary", "version": bundles["binary"].version},
    )
    assert server.request("/health/status", port=server.management)[:2] == (200, said)
    for route in ("/metadata", "/api/v1.0/metadata"):
        told = server.request(route)[1]
        assert (told["name"], told["versions"]) == ("tiny-binary", [bundles["binary"].version])
        assert [(each["name"], each["datatype"]) for each in told["inputs"]][::2] == [
            ("distance", "FP32"), ("carrier", "BYTES"), ("holiday", "BOOL"),
        ]  # fmt: skip


def test_what_is_unusual_is_answered_tagged_and_counted(server):
    before = server.metric("canaryflow_unknown_categories_total", feature="carrier")
    outside = server.metric("canaryflow_out_of_range_total", feature="distance")
    odd = GOOD | {"carrier": "QQ", "distance": 9999}
    status, said, _ = server.request("/predict", {"rows": [odd, odd, GOOD]})
    assert status == 200
    assert said["warnings"] == {"unknown_categories": {"carrier": 2}, "out_of_range": {"distance": 2}}
    tags = server.request("/predict", {"jsonData": odd})[1]["meta"]["tags"]
    assert tags["unknown_categories"] == {"carrier": 1}
    assert server.metric("canaryflow_unknown_categories_total", feature="carrier") == before + 3
    assert server.metric("canaryflow_out_of_range_total", feature="distance") == outside + 3


def test_predictions_are_counted_by_class_and_requests_in_seldons_histogram(server, bundles):
    name = "seldon_api_executor_server_requests_seconds"
    ok = {"service": "predictions", "method": "post", "code": "200"}
    _, labels = expected(bundles["binary"])
    before = {
        label: server.metric("canaryflow_predictions_total", **{"class": label}) for label in ("no", "yes")
    }
    count, rows = server.metric(f"{name}_count", **ok), server.metric("canaryflow_rows_total")
    bad = server.metric(f"{name}_count", service="predictions", code="400")
    server.request("/predict", {"rows": ROWS})
    server.request("/predict", b"{")
    for label in ("no", "yes"):
        assert server.metric("canaryflow_predictions_total", **{"class": label}) == before[
            label
        ] + labels.count(label)
    assert server.metric(f"{name}_count", **ok) == count + 1
    assert server.metric(f"{name}_bucket", le="+Inf", **ok) == count + 1
    assert server.metric(f"{name}_bucket", le="10.0", **ok) == count + 1
    assert server.metric(f"{name}_count", service="predictions", code="400") == bad + 1
    assert server.metric("canaryflow_rows_total") == rows + len(ROWS)
    assert server.metric("canaryflow_model_info", version=bundles["binary"].version, problem="binary") == 1
    assert server.metric("canaryflow_ready") == 1


def test_the_text_for_prometheus_is_well_formed_and_on_both_ports(server):
    server.request("/predict", GOOD)
    _, text, headers = server.request("/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    sample = re.compile(r'^[a-z_]+(\{([a-z_]+="([^"\\\n]|\\.)*",?)*\})? [0-9.e+-]+$')
    typed = set()
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            name = line.split()[2]
            assert name not in typed
            typed.add(name)
        elif not line.startswith("#"):
            assert sample.match(line), line
            assert any(line.startswith(name) for name in typed), line
    assert (
        "seldon_api_executor_server_requests_seconds"
        in server.request("/prometheus", port=server.management)[1]
    )
