"""A server proves itself: the bundle's samples, sent through its own Service, are answered as recorded."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import urllib3

from canaryflow.bundle.format import SAMPLES, Bundle
from canaryflow.errors import BundleError, PlatformError

_TIMEOUT = urllib3.Timeout(connect=3.0, read=20.0)
_LARGEST_ANSWER = 32 * 1024 * 1024


class NotProved(PlatformError):  # noqa: N818 - a state of affairs
    """The server did not answer, or answered otherwise than the bundle records."""


def prove(url: str, bundle: Bundle) -> int:
    """Send the bundle's samples to a server and compare its answers with the recorded ones.

    Args:
        url: The predictor's own Service.
        bundle: What the server should be serving.

    Returns:
        The number of samples that were answered rightly.

    Raises:
        NotProved: There is no answer, it is an error, or a value differs by more than the bundle's tolerance.
        BundleError: The bundle's samples cannot be read.
    """
    file = bundle.path / SAMPLES
    try:
        samples = json.loads(file.read_text(encoding="utf-8"))
        inputs, expected = samples["inputs"], np.asarray(samples["answers"], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file}: cannot be read ({error}); expected samples with their answers") from error
    names = [feature.name for feature in bundle.manifest.signature.features]
    body = {"data": {"names": names, "ndarray": [[row.get(name) for name in names] for row in inputs]}}
    found = _values(url, _post(f"{url}/api/v1.0/predictions", body))
    expected = expected.reshape(len(inputs), -1)
    if found.shape != expected.shape:
        raise NotProved(
            f"{url}: answered in shape {found.shape}, expected {expected.shape} as the bundle records"
        )
    allowed = bundle.manifest.tolerance * np.maximum(1.0, np.abs(expected))
    wrong = ~(np.abs(found - expected) <= allowed)
    if wrong.any():
        row = int(np.argmax(wrong.any(axis=1)))
        raise NotProved(
            f"{url}: sample {row} was answered {found[row].tolist()}, expected {expected[row].tolist()} "
            f"within {bundle.manifest.tolerance:g}"
        )
    return len(inputs)


def _post(url: str, body: object) -> dict[str, Any]:
    try:
        with urllib3.PoolManager(num_pools=1, retries=False, timeout=_TIMEOUT) as pool:
            answer = pool.request(
                "POST",
                url,
                body=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
                preload_content=False,
            )
            data = answer.read(_LARGEST_ANSWER)
            answer.release_conn()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise NotProved(f"{url}: no answer ({error})") from error
    if answer.status != 200:
        raise NotProved(f"{url}: answered {answer.status}: {data[:300].decode(errors='replace')}")
    try:
        parsed = json.loads(data)
    except ValueError as error:
        raise NotProved(f"{url}: answered 200 with no JSON: {data[:100]!r}") from error
    if not isinstance(parsed, dict):
        raise NotProved(f"{url}: answered 200 with {data[:100]!r}, expected a SeldonMessage")
    return parsed


def _values(url: str, answer: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        rows = np.asarray(answer["data"]["ndarray"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise NotProved(
            f"{url}: answered without numbers in data.ndarray: {json.dumps(answer)[:200]}"
        ) from error
    return rows.reshape(len(rows), -1) if rows.size else rows.reshape(0, 0)
