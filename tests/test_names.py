"""One rule for names, and everywhere a name is taken it is the first thing looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from canaryflow.delivery import seldon
from canaryflow.delivery.pod import CONTAINER
from canaryflow.errors import InputError
from canaryflow.model.tracking import Tracking, champion_uri, promote_champion, register
from canaryflow.model.training import TrainSpec
from canaryflow.names import LONGEST_NAME, check_name
from canaryflow.storage import put_bundle

TAKERS: list[Callable[[str], object]] = [
    check_name,
    seldon.check_name,
    TrainSpec,
    lambda name: Tracking("sqlite:///never.db", name),
    lambda name: register(Path("none"), "store", "sqlite:///never.db", name),
    lambda name: champion_uri("sqlite:///never.db", name),
    lambda name: promote_champion("sqlite:///never.db", name, "abcdef012345"),
    lambda name: put_bundle(Path("none"), "store", name),
]


@pytest.mark.parametrize("take", TAKERS)
@pytest.mark.parametrize(
    "name", ["../../etc", "..", "", "/a", "a/b", "A", "a_b", "a.b", "-a", "a-", "a\n", "é", "a" * 49]
)
def test_a_name_that_cannot_be_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take: Callable[[str], object], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"name: found .* expected at most 48 lower-case letters"):
        take(name)
    assert not any(tmp_path.iterdir())


def test_the_longest_name_leaves_room_for_what_kubernetes_appends() -> None:
    check_name("a" * LONGEST_NAME)
    assert len("a" * LONGEST_NAME + f"-{seldon.CANARY}-0-{CONTAINER}") == 63
