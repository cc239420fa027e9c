import json
import shutil

import numpy as np
import pytest

from canaryflow.bundle.format import MODEL, SAMPLES, Bundle, Feature, Signature, seal
from canaryflow.bundle.scorer import Answers, Scorer
from canaryflow.errors import BundleError
from tests.bundle import models


def reseal(path, signature=None, tolerance=models.TOLERANCE):
    bundle = Bundle.open(path, verify=False)
    return seal(path, bundle.manifest.name, signature or bundle.signature, tolerance, {})


def change_samples(path, change):
    data = json.loads((path / SAMPLES).read_text())
    change(data)
    (path / SAMPLES).write_text(json.dumps(data))


@pytest.mark.parametrize("problem", models.CLASSES)
def test_a_bundle_proves_itself_and_answers_in_shape(sealed, problem):
    scorer = Scorer(Bundle.open(sealed[problem].path))
    assert scorer.prove() == 40
    answers = scorer.score(scorer.rows.from_records(models.rows(7)))
    width = len(models.CLASSES[problem])
    assert answers.values.shape == ((7, width) if width else (7,)) and answers.values.dtype == np.float32
    if width:
        np.testing.assert_allclose(answers.values.sum(axis=1), 1, atol=1e-5)
        assert set(answers.labels()) <= set(models.CLASSES[problem])


def test_many_rows_are_scored_in_batches_with_the_same_answers(sealed):
    scorer = Scorer(sealed["binary"])
    few = scorer.score(scorer.rows.from_records(models.rows(50))).values
    many = scorer.score(
        {n: np.tile(c, (400, 1)) for n, c in scorer.rows.from_records(models.rows(50)).items()}
    )
    np.testing.assert_array_equal(many.values, np.tile(few, (400, 1)))


def test_labels_follow_the_threshold_exactly():
    signature = models.signature("binary", threshold=0.4)
    answers = Answers(np.array([[0.6, 0.4], [0.61, 0.39], [0.2, 0.8]], dtype=np.float32), signature)
    # float32(0.4) is above 0.4, so a client that compares the number it was sent answers the same.
    assert answers.labels() == ["yes", "no", "yes"]
    assert answers.labels(0.7) == ["no", "no", "yes"]
    # float32(0.7) is below 0.7, although both print alike.
    assert Answers(np.array([[0.3, 0.7]], dtype=np.float32), signature).labels(0.7) == ["no"]
    three = Answers(np.array([[0.2, 0.5, 0.3]], dtype=np.float32), models.signature("multiclass"))
    assert three.labels() == ["mid"]
    with pytest.raises(ValueError, match="regression"):
        Answers(np.zeros(1, dtype=np.float32), models.signature("regression")).labels()


@pytest.mark.parametrize("problem", models.CLASSES)
def test_an_answer_off_by_more_than_the_tolerance_is_found(copy, problem):
    path = copy(problem)

    def shift(amount):
        def change(data):
            answers = data["answers"]
            scale = max(1.0, abs(answers[3])) if problem == "regression" else 1.0
            answers[3] = (
                answers[3] + amount * scale if problem == "regression" else [v + amount for v in answers[3]]
            )

        change_samples(path, change)
        return Scorer(reseal(path))

    assert shift(models.TOLERANCE / 2).prove() == 40
    with pytest.raises(BundleError, match=r"samples.json: sample 3 .* tolerance 1e-05"):
        shift(models.TOLERANCE * 2).prove()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["inputs"][2].update(distance="far"), "a sample does not fit the signature: row 2"),
        (lambda data: data["inputs"].pop(), "39 inputs and answers of shape"),
        (lambda data: data.pop("answers"), "not a bundle's samples"),
        (lambda data: (data["inputs"].clear(), data["answers"].clear()), "0 inputs"),
    ],
)
def test_samples_that_cannot_prove_anything_are_refused(copy, change, message):
    path = copy()
    change_samples(path, change)
    with pytest.raises(BundleError, match=message):
        Scorer(reseal(path)).prove()


def test_another_model_in_a_bundle_is_found(copy, sealed):
    path = copy("binary")
    shutil.copy(models.make("binary", path.parent / "other", seed=5).path / MODEL, path / MODEL)
    with pytest.raises(BundleError, match="sample 0"):
        Scorer(reseal(path)).prove()
    shutil.copy(sealed["multiclass"].path / MODEL, path / MODEL)
    with pytest.raises(BundleError, match=r"answers of shape \[40, 3\], expected \[40, 2\]"):
        Scorer(reseal(path)).prove()
    (path / MODEL).write_bytes(b"not a model")
    with pytest.raises(BundleError, match="onnxruntime cannot load it"):
        Scorer(reseal(path))


def test_a_signature_that_is_not_the_models_is_refused(copy, sealed):
    path = copy()
    features = sealed["binary"].signature.features
    for changed, message in [
        (features[:-1], "input 'holiday': the model has tensor.float., the signature expects none"),
        ((*features, Feature("wind", "number")), "input 'wind': the model has none"),
        ((*features[:-1], Feature("holiday", "categorical")), "'holiday'.*tensor.string."),
    ]:
        with pytest.raises(BundleError, match=message):
            Scorer(reseal(path, Signature("binary", "late", changed, ("no", "yes"))))
