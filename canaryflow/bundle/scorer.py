"""Inputs to answers: the one scorer of evaluation, the server and monitoring.

One onnxruntime session with one thread: the work of a row is microseconds, and threads only add waiting (and
take the processor from the neighbours). Many rows are scored in batches, so memory stays bounded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# onnxruntime looks at it once, when it is loaded; without it a device id is kept on disk.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from canaryflow.bundle.answers import Answers
from canaryflow.bundle.format import MODEL, SAMPLES, Bundle
from canaryflow.bundle.rows import Columns, RowError, RowReader
from canaryflow.errors import BundleError

__all__ = ["Answers", "Scorer"]

onnxruntime.disable_telemetry_events()

_BATCH_ROWS = 8192
_TENSOR = {"number": "tensor(float)", "boolean": "tensor(float)", "categorical": "tensor(string)"}


class Scorer:
    """Scores rows with a bundle's ONNX model.

    Args:
        bundle: A bundle; `Bundle.open` has verified it.
        threads: Threads of the session; one is right for a server.

    Raises:
        BundleError: The model cannot be loaded, or its inputs and outputs are not those of the signature.
    """

    def __init__(self, bundle: Bundle, threads: int = 1):
        self.bundle = bundle
        self.signature = bundle.signature
        self.rows = RowReader(bundle.signature)
        self._session = _session(bundle, threads)
        _check_inputs(self._session, bundle)
        self._outputs = [self._session.get_outputs()[-1].name]
        self._width = len(bundle.signature.classes)

    def score(self, columns: Columns) -> Answers:
        """Answer for columns as `RowReader` makes them.

        Args:
            columns: One array of shape (n, 1) per feature.

        Raises:
            BundleError: The model fails, or answers in another shape than the signature says.
        """
        size = len(next(iter(columns.values())))
        if size <= _BATCH_ROWS:
            return Answers(self._run(columns, size), self.signature)
        parts = [
            self._run({name: column[start : start + _BATCH_ROWS] for name, column in columns.items()}, None)
            for start in range(0, size, _BATCH_ROWS)
        ]
        return Answers(np.concatenate(parts), self.signature)

    def prove(self) -> int:
        """Score the bundle's samples, one by one and all together, and compare with the recorded answers.

        Returns:
            The number of samples.

        Raises:
            BundleError: There are none, one does not fit the signature, or an answer differs from the
                recorded one by more than ``tolerance * max(1, |recorded|)``.
        """
        inputs, expected = _read_samples(self.bundle)
        try:
            together = self.score(self.rows.from_records(inputs)).values
            alone = [self.score(self.rows.from_records([row])).values for row in inputs]
        except RowError as error:
            raise BundleError(
                f"{self.bundle.path / SAMPLES}: a sample does not fit the signature: {error}"
            ) from error
        for answers, way in ((together, "together"), (np.concatenate(alone), "alone")):
            _compare(answers, expected, self.bundle, way)
        return len(inputs)

    def _run(self, columns: Columns, size: int | None) -> npt.NDArray[np.float32]:
        try:
            values: npt.NDArray[np.float32] = self._session.run(self._outputs, columns)[0]
        except Exception as error:  # onnxruntime has no common base for its errors
            raise BundleError(
                f"{self.bundle.path / MODEL}: the model failed: {_first_line(error)}"
            ) from error
        rows = len(next(iter(columns.values()))) if size is None else size
        expected = (rows, self._width or 1)
        if values.shape != expected:
            shape = list(values.shape)
            raise BundleError(
                f"{self.bundle.path / MODEL}: answers of shape {shape}, expected {list(expected)}"
            )
        return values if self._width else values.reshape(-1)


def _session(bundle: Bundle, threads: int) -> Any:  # noqa: ANN401 - onnxruntime is untyped
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(bundle.file(MODEL)), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(
            f"{bundle.path / MODEL}: onnxruntime cannot load it: {_first_line(error)}"
        ) from error


def _check_inputs(session: Any, bundle: Bundle) -> None:  # noqa: ANN401 - onnxruntime is untyped
    found = {node.name: node.type for node in session.get_inputs()}
    expected = {feature.name: _TENSOR[feature.kind] for feature in bundle.signature.features}
    if found != expected:
        differing = sorted(
            name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
        )
        name = differing[0]
        raise BundleError(
            f"{bundle.path / MODEL}: input {name!r}: the model has {found.get(name, 'none')}, "
            f"the signature expects {expected.get(name, 'none')}"
        )
    output = session.get_outputs()[-1]
    if output.type != "tensor(float)":
        raise BundleError(
            f"{bundle.path / MODEL}: output {output.name!r} is {output.type}, expected tensor(float)"
        )


def _read_samples(bundle: Bundle) -> tuple[list[dict[str, Any]], npt.NDArray[np.float64]]:
    file = bundle.file(SAMPLES)
    try:
        data = json.loads(file.read_bytes())
        inputs, answers = data["inputs"], np.array(data["answers"], dtype=np.float64)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BundleError(f"{file}: not a bundle's samples: {type(error).__name__}: {error}") from error
    classes = len(bundle.signature.classes)
    shape = (len(inputs), classes) if classes else (len(inputs),)
    if not inputs or answers.shape != shape:
        raise BundleError(
            f"{file}: {len(inputs)} inputs and answers of shape {list(answers.shape)}, expected {shape}"
        )
    return inputs, answers


def _compare(
    answers: npt.NDArray[np.float32], expected: npt.NDArray[np.float64], bundle: Bundle, way: str
) -> None:
    allowed = bundle.manifest.tolerance * np.maximum(1.0, np.abs(expected))
    difference = np.abs(answers.astype(np.float64) - expected)
    wrong = ~(difference <= allowed)  # also true for NaN
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise BundleError(
            f"{bundle.path / SAMPLES}: sample {row} (scored {way}) answers {_numbers(answers[row])}, "
            f"recorded {_numbers(expected[row])}, tolerance {bundle.manifest.tolerance:g}"
        )


def _numbers(values: npt.NDArray[Any]) -> str:
    listed: Sequence[float] = np.atleast_1d(values).tolist()
    return "[" + ", ".join(f"{value:.6g}" for value in listed[:8]) + ("]" if len(listed) <= 8 else ", ...]")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
