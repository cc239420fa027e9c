"""Truths sent back to real server processes."""

import pytest

from canaryflow.bundle.scorer import Scorer
from canaryflow.serving.protocol import Query, write_answers
from tests.bundle import models

ROWS = models.rows(6, seed=4)
REQUEST = {"jsonData": ROWS}


def truth(values):
    return {"data": {"ndarray": [[value] for value in values]}}


@pytest.mark.parametrize("route", ["/api/v1.0/feedback", "/send-feedback"])
def test_truths_are_counted_by_truth_and_answer(servers, route):
    server = servers["binary"]
    answer = server.request("/predict", REQUEST)[1]
    message = server.request("/predict", {"data": {"ndarray": [list(row.values()) for row in ROWS]}})[1]
    labels = [each["class"] for each in answer["jsonData"]]
    truths = [True, "no", 1, 0.0, "yes", False]
    words = ["yes", "no", "yes", "no", "yes", "no"]
    pairs = {(t, a) for t in ("yes", "no") for a in ("yes", "no")}

    def counts():
        return {
            pair: server.metric("canaryflow_feedback_total", truth=pair[0], answer=pair[1]) for pair in pairs
        }

    for body in ({"request": REQUEST}, {"request": REQUEST, "response": message}, {"response": message}):
        before = counts()
        status, said, _ = server.request(route, body | {"truth": truth(truths), "reward": 0})
        assert status == 200 and said["meta"]["tags"]["counted"] == 6
        seen = list(zip(words, labels, strict=True))
        assert counts() == {pair: before[pair] + seen.count(pair) for pair in pairs}


def test_a_regressions_truths_give_its_error(servers):
    server = servers["regression"]
    values = [each["prediction"] for each in server.request("/predict", {"rows": ROWS})[1]["answers"]]
    names = (
        "canaryflow_feedback_absolute_error_sum",
        "canaryflow_feedback_squared_error_sum",
        "canaryflow_feedback_rows_total",
    )
    before = [server.metric(name) for name in names]
    off = {"tensor": {"shape": [6, 1], "values": [value + 3 for value in values]}}
    assert server.request("/send-feedback", {"request": REQUEST, "truth": {"data": off}})[0] == 200
    grown = [server.metric(name) - start for name, start in zip(names, before, strict=True)]
    assert grown == pytest.approx([18, 54, 6], abs=1e-3)


@pytest.mark.parametrize("problem", models.CLASSES)
@pytest.mark.parametrize("encoding", ["ndarray", "tensor", "jsonData"])
def test_every_answer_of_the_server_comes_back_as_a_response(servers, bundles, problem, encoding):
    server, classes = servers[problem], models.CLASSES[problem]
    scorer = Scorer(bundles[problem])
    query = Query(scorer.rows.from_records(ROWS), len(ROWS), encoding, "p", {})
    answers = scorer.score(query.columns)
    response = write_answers(query, answers, answers.indices() if classes else None, scorer)
    if encoding != "tensor":  # the model has features that no tensor can carry
        matrix = {"data": {"ndarray": [list(row.values()) for row in ROWS]}}
        said = server.request("/predict", REQUEST if encoding == "jsonData" else matrix)[1]
        part = "jsonData" if encoding == "jsonData" else "data"
        assert said[part] == response[part]

    def count(name, **labels):
        return server.metric(f"canaryflow_feedback{name}", **labels)

    truths = [classes[0] if classes else value + 2 for value in answers.values.ravel().tolist()[: len(ROWS)]]
    off = count("_absolute_error_sum")
    pairs = [count("_total", truth=classes[0], answer=label) for label in classes]
    status, counted, _ = server.request("/send-feedback", {"response": response, "truth": truth(truths)})
    assert status == 200 and counted["meta"]["tags"]["counted"] == len(ROWS), counted
    assert count("_absolute_error_sum") - off == pytest.approx(0 if classes else 2 * len(ROWS), abs=1e-3)
    labels = answers.labels() if classes else []
    grown = [before + labels.count(label) for before, label in zip(pairs, classes, strict=True)]
    assert [count("_total", truth=classes[0], answer=label) for label in classes] == grown


@pytest.mark.parametrize(
    ("problem", "row", "info"),
    [
        ("binary", {"class": "no"}, "an object with ['class'], expected probabilities of no, yes"),
        ("binary", {"probabilities": {"no": 1}}, "expected probabilities of no, yes"),
        ("binary", {"probabilities": {"no": "a", "yes": 1}}, "expected rows of 2 probabilities"),
        ("regression", {"class": "no"}, "expected a prediction"),
    ],
)
def test_a_response_of_objects_without_their_numbers_is_refused(servers, problem, row, info):
    body = {"response": {"jsonData": [row]}, "truth": truth([1])}
    status, said, _ = servers[problem].request("/send-feedback", body)
    assert status == 400 and info in said["status"]["info"]


def test_a_reward_alone_is_counted(servers):
    server = servers["multiclass"]
    before = server.metric("seldon_api_model_feedback_reward_total")
    assert server.request("/send-feedback", {"reward": 0.5})[0] == 200
    assert server.metric("seldon_api_model_feedback_reward_total") == before + 0.5


def test_feedback_on_another_versions_answers_is_kept_apart(servers):
    server = servers["binary"]
    answer = {"data": {"ndarray": [[0.1, 0.9]]}, "meta": {"tags": {"model_version": "another"}}}
    rows, foreign = (
        server.metric("canaryflow_feedback_rows_total"),
        server.metric("canaryflow_feedback_foreign_total"),
    )
    status, said, _ = server.request("/send-feedback", {"response": answer, "truth": truth(["yes"])})
    assert status == 200 and said["meta"]["tags"]["counted"] == 0
    assert server.metric("canaryflow_feedback_rows_total") == rows
    assert server.metric("canaryflow_feedback_foreign_total") == foreign + 1


@pytest.mark.parametrize(
    ("body", "info"),
    [
        ([], "no JSON object"),
        ({}, "neither truth nor reward"),
        ({"reward": True}, "reward is no number"),
        ({"truth": truth(["yes"])}, "needs the request or the response"),
        ({"request": REQUEST, "truth": truth(["yes"])}, "1 truths for 6 answers"),
        (
            {"request": {"jsonData": ROWS[:1]}, "truth": truth(["maybe"])},
            "found 'maybe', expected one of no, yes",
        ),
        ({"request": {"jsonData": ROWS[:1]}, "truth": truth([2])}, "expected one of no, yes"),
        ({"request": {"jsonData": ROWS[:1]}, "truth": truth([None])}, "found None"),
        ({"request": {"jsonData": [{"distance": 1}]}, "truth": truth([1])}, "'carrier': found nothing"),
        ({"response": {"data": {"ndarray": [["a"]]}}, "truth": truth([1])}, "rows of 2 probabilities"),
        ({"response": {"data": {"ndarray": [[1, 2, 3]]}}, "truth": truth([1])}, "rows of 2 probabilities"),
        ({"response": 5, "truth": truth([1])}, "response: expected a message"),
        ({"request": REQUEST, "truth": 5}, "truth: expected a message"),
        ({"request": REQUEST, "truth": {"data": {"tensor": {"shape": [9], "values": [1]}}}}, "do not fill"),
    ],
)
def test_feedback_that_says_nothing_is_refused(servers, body, info):
    status, said, _ = servers["binary"].request("/send-feedback", body)
    assert status == 400 and info in said["status"]["info"]
