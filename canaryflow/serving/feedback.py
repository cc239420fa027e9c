"""Truths against answers: Seldon's feedback message, counted.

The answer is taken from the message's ``response`` where it is given, else the model scores the ``request``
again: its answers do not depend on when they are asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from canaryflow.bundle.answers import Answers
from canaryflow.bundle.format import Signature
from canaryflow.bundle.rows import RowError
from canaryflow.serving.protocol import Refusal, read_message

if TYPE_CHECKING:
    from canaryflow.bundle.scorer import Scorer


@dataclass(frozen=True)
class Feedback:
    """What a feedback message said.

    Attributes:
        pairs: Classification: (truth, answer) of each row, as labels.
        errors: Regression: answer minus truth of each row.
        reward: The message's own reward; None where it gave none.
        foreign: The response came from another version of the model, so it was not counted.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    errors: tuple[float, ...] = ()
    reward: float | None = None
    foreign: bool = False

    @property
    def size(self) -> int:
        """Rows that were counted."""
        return len(self.pairs) + len(self.errors)


def read_feedback(body: object, scorer: Scorer, max_rows: int) -> Feedback:
    """Read a feedback message: ``truth`` with ``request`` or ``response``, and perhaps a ``reward``.

    Raises:
        Refusal: Nothing in it can be counted, or truths and answers differ in number.
        RowError: A truth or a row cannot be read.
    """
    if not isinstance(body, dict):
        raise Refusal(400, "bad_request", "the body is no JSON object, expected a Feedback message")
    reward = body.get("reward")
    if reward is not None and (isinstance(reward, bool) or not isinstance(reward, int | float)):
        raise Refusal(400, "bad_request", "reward is no number")
    if "truth" not in body:
        if reward is None:
            raise Refusal(400, "bad_request", "the feedback has neither truth nor reward")
        return Feedback(reward=float(reward))
    if _foreign(body.get("response"), scorer):
        return Feedback(reward=reward, foreign=True)
    truths = _values(body["truth"], "truth")
    if len(truths) > max_rows:
        raise Refusal(
            413, "too_many_rows", f"truth has {len(truths)} rows, expected at most {max_rows} a request"
        )
    answers = _answers(body, scorer, max_rows)
    if len(truths) != len(answers.values):
        raise Refusal(400, "bad_request", f"{len(truths)} truths for {len(answers.values)} answers")
    if scorer.signature.problem == "regression":
        found = zip(truths, answers.values.tolist(), strict=True)
        errors = tuple(answer - _number(truth, row) for row, (truth, answer) in enumerate(found))
        return Feedback(errors=errors, reward=reward)
    labels = zip(truths, answers.labels(), strict=True)
    pairs = tuple((_label(truth, row, scorer.signature), label) for row, (truth, label) in enumerate(labels))
    return Feedback(pairs=pairs, reward=reward)


def _foreign(response: object, scorer: Scorer) -> bool:
    meta = response.get("meta") if isinstance(response, dict) else None
    tags = meta.get("tags") if isinstance(meta, dict) else None
    version = tags.get("model_version") if isinstance(tags, dict) else None
    return version is not None and version != scorer.bundle.version


def _answers(body: dict[str, object], scorer: Scorer, max_rows: int) -> Answers:
    if body.get("response") is not None:
        return Answers(_recorded(_values(body["response"], "response"), scorer.signature), scorer.signature)
    if body.get("request") is None:
        raise Refusal(400, "bad_request", "a truth needs the request or the response it belongs to")
    return scorer.score(read_message(body["request"], scorer.rows, max_rows).columns)


def _recorded(values: list[object], signature: Signature) -> npt.NDArray[np.float32]:
    """The answers of a response, in the shape that the model gives them."""
    width = len(signature.classes)
    values = [_numbers(row, signature.classes) if isinstance(row, dict) else row for row in values]
    try:
        array = np.array(values, dtype=np.float32)
    except (TypeError, ValueError):
        array = np.empty(0, dtype=np.float32)
    if width and array.ndim == 2 and array.shape[1] == width:
        return array
    if not width and array.size == len(values):
        return array.reshape(-1)
    expected = f"rows of {width} probabilities" if width else "one number a row"
    raise Refusal(400, "bad_request", f"response: expected {expected}")


def _numbers(row: dict[str, object], classes: tuple[str, ...]) -> list[object]:
    """The numbers of a row that was answered as a JSON object."""
    if not classes and "prediction" in row:
        return [row["prediction"]]
    found = row.get("probabilities")
    if classes and isinstance(found, dict) and found.keys() == set(classes):
        return [found[label] for label in classes]
    expected = f"probabilities of {', '.join(classes[:20])}" if classes else "a prediction"
    raise Refusal(400, "bad_request", f"response: an object with {sorted(row)[:5]}, expected {expected}")


def _values(message: object, name: str) -> list[object]:
    """The rows of a message that carries truths or answers."""
    if isinstance(message, dict):
        json_data = message.get("jsonData")
        if isinstance(json_data, list) and json_data:
            return json_data
        data = message.get("data")
        if isinstance(data, dict):
            rows = data.get("ndarray")
            if isinstance(rows, list) and rows:
                return rows
            tensor = data.get("tensor")
            if isinstance(tensor, dict):
                return _tensor_rows(tensor, name)
    raise Refusal(
        400, "bad_request", f"{name}: expected a message with data.ndarray, data.tensor or jsonData"
    )


def _tensor_rows(tensor: dict[str, object], name: str) -> list[object]:
    shape: Any = tensor.get("shape")
    try:
        rows: object = np.array(tensor.get("values"), dtype=np.float64).reshape(shape).tolist()
    except (TypeError, ValueError) as error:
        raise Refusal(400, "bad_request", f"{name}: a tensor whose values do not fill its shape") from error
    if not isinstance(rows, list) or not rows:
        raise Refusal(400, "bad_request", f"{name}: a tensor without rows")
    return rows


def _scalar(value: object) -> object:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value


def _number(value: object, row: int) -> float:
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(row, "truth", repr(value)[:80], "a number")
    return float(value)


def _label(value: object, row: int, signature: Signature) -> str:
    """A truth as one of the classes: a label, true or false, or a position if no class is a number."""
    value = _scalar(value)
    classes = signature.classes
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    if text in classes and not isinstance(value, list | dict):
        return text
    named_by_number = any(label.lstrip("-").isdigit() for label in classes)
    if isinstance(value, int) and 0 <= value < len(classes) and not named_by_number:
        return classes[value]
    raise RowError(row, "truth", repr(value)[:80], f"one of {', '.join(classes[:20])}")
