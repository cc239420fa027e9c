"""What is stored is there after a restart, versions only grow, and a full disk changes nothing."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from canaryflow.local.store import SELDON_DEPLOYMENT, ApiFailure, Store

NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.integers(0, 2)


class AgainstADictionary(RuleBasedStateMachine):
    """The store behaves as a dictionary with versions, over any number of restarts."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.folder.name))
        self.model: dict[str, int] = {}
        self.generations: dict[str, int] = {}
        self.highest = 0

    def see(self, written: dict) -> None:
        version = int(written["metadata"]["resourceVersion"])
        assert version > self.highest
        self.highest = version

    @rule(name=NAMES, value=VALUES)
    def create(self, name: str, value: int) -> None:
        body = {"metadata": {"name": name}, "spec": {"value": value}}
        if name in self.model:
            with pytest.raises(ApiFailure) as refused:
                self.store.create(SELDON_DEPLOYMENT, "default", body)
            assert refused.value.code == 409
            return
        self.see(self.store.create(SELDON_DEPLOYMENT, "default", body))
        self.model[name], self.generations[name] = value, 1

    @rule(name=NAMES, value=VALUES, stale=st.booleans())
    def replace(self, name: str, value: int, stale: bool) -> None:
        if name not in self.model:
            return
        body = self.store.get(SELDON_DEPLOYMENT, "default", name)
        body["spec"] = {"value": value}
        if stale:
            body["metadata"]["resourceVersion"] = "1"
            with pytest.raises(ApiFailure) as refused:
                self.store.replace(SELDON_DEPLOYMENT, "default", name, body)
            assert refused.value.code == 409
            return
        written = self.store.replace(SELDON_DEPLOYMENT, "default", name, body)
        if value != self.model[name]:
            self.see(written)
            self.generations[name] += 1
        self.model[name] = value

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if name in self.model:
            self.store.delete(SELDON_DEPLOYMENT, "default", name)
            del self.model[name]

    @rule()
    def restart(self) -> None:
        self.store = Store(Path(self.folder.name))

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "store"):
            return
        found = {item["metadata"]["name"]: item for item in self.store.list(SELDON_DEPLOYMENT)}
        assert {name: item["spec"]["value"] for name, item in found.items()} == self.model
        for name, item in found.items():
            assert item["metadata"]["generation"] == self.generations[name]

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestStore = AgainstADictionary.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_a_write_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    body = store.create(SELDON_DEPLOYMENT, "default", {"metadata": {"name": "a"}, "spec": {"value": 1}})
    body["spec"] = {"value": 2}

    # Root may write anywhere, so a full disk is the one fault that has to be played.
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ApiFailure) as refused:
        store.replace(SELDON_DEPLOYMENT, "default", "a", body)
    monkeypatch.undo()
    assert refused.value.code == 500
    assert refused.value.message.endswith("a.json: No space left on device")
    assert store.get(SELDON_DEPLOYMENT, "default", "a")["spec"] == {"value": 1}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [json.loads(path.read_text())["spec"] for path in files] == [{"value": 1}]
    assert [path.name for path in files] == ["a.json"]
