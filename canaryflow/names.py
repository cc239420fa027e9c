"""One rule for a model's name, wherever it goes: the store, the registry, the SeldonDeployment."""

from __future__ import annotations

import re

from canaryflow.errors import InputError

LONGEST_NAME = 48
"""Characters: with the longest predictor and container behind it, a name still is a DNS label."""

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def check_name(name: str) -> None:
    """Refuse a name that a store, MLflow or Kubernetes would not take as it is, a path above all.

    Raises:
        InputError: The name is no DNS label, or is too long.
    """
    if not _DNS_LABEL.fullmatch(name) or len(name) > LONGEST_NAME:
        raise InputError(
            f"name: found {name!r}, expected at most {LONGEST_NAME} lower-case letters, digits and '-', "
            "beginning and ending with a letter or digit"
        )
