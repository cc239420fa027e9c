from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from canaryflow.bundle.format import MANIFEST, MODEL, PROFILE, SAMPLES, Bundle, Feature, Signature, seal
from canaryflow.delivery.pod import ServerSpec, pod_spec
from canaryflow.errors import BundleError, InputError, PlatformError
from canaryflow.storage import exists, fetch_bundle, main, put_bundle
from tests.storage.s3 import Server, serving


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A sealed folder; storage looks at files, not at what they mean."""
    folder = tmp_path / "made"
    (folder / "extra").mkdir(parents=True)
    for name in (MODEL, SAMPLES, PROFILE, "extra/notes.txt"):
        (folder / name).write_text(f"content of {name}")
    return seal(folder, "m", Signature("regression", "y", (Feature("x", "number"),)), 1e-6, {})


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield server


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_local_store_keeps_a_bundle_by_its_version(bundle: Bundle, tmp_path: Path, prefix: str) -> None:
    store = tmp_path / "store"
    uri = put_bundle(bundle.path, f"{prefix}{store}", "m")
    assert uri == str(store / "m" / bundle.version)
    assert exists(uri)
    assert fetch_bundle(uri, tmp_path / "unused") == Path(uri)
    assert everything(Path(uri)) == everything(bundle.path)
    assert not (tmp_path / "unused").exists()


def test_a_second_copy_is_nothing_to_do(bundle: Bundle, tmp_path: Path) -> None:
    uri = put_bundle(bundle.path, str(tmp_path / "store"), "m")
    before = (Path(uri) / MANIFEST).stat().st_mtime_ns
    assert put_bundle(bundle.path, str(tmp_path / "store"), "m") == uri
    assert (Path(uri) / MANIFEST).stat().st_mtime_ns == before


def test_half_a_copy_is_replaced(bundle: Bundle, tmp_path: Path) -> None:
    uri = Path(put_bundle(bundle.path, str(tmp_path / "store"), "m"))
    (uri / MODEL).write_text("half")
    with pytest.raises(BundleError, match=MODEL):
        fetch_bundle(str(uri), tmp_path)
    assert put_bundle(bundle.path, str(tmp_path / "store"), "m") == str(uri)
    Bundle.open(uri)


def test_a_bundle_that_is_not_whole_is_not_kept(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.path / MODEL).write_text("altered")
    with pytest.raises(BundleError, match=MODEL):
        put_bundle(bundle.path, str(tmp_path / "store"), "m")
    assert not (tmp_path / "store").exists()


def test_many_writers_of_one_bundle_agree(bundle: Bundle, tmp_path: Path) -> None:
    uris: list[str] = []
    threads = [
        threading.Thread(target=lambda: uris.append(put_bundle(bundle.path, str(tmp_path / "store"), "m")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(uris) == 8
    assert len(set(uris)) == 1
    assert [path.name for path in (tmp_path / "store" / "m").iterdir()] == [bundle.version]
    Bundle.open(uris[0])


def test_s3_keeps_and_gives_back(bundle: Bundle, s3: Server, tmp_path: Path) -> None:
    uri = put_bundle(bundle.path, "s3://models/canaryflow/", "m")
    assert uri == f"s3://models/canaryflow/m/{bundle.version}"
    puts = [path for method, path in s3.log if method == "PUT"]
    assert puts[-1].endswith(MANIFEST)
    fetched = fetch_bundle(uri, tmp_path / "here")
    assert everything(fetched) == everything(bundle.path)
    assert Bundle.open(fetched).version == bundle.version
    assert exists(uri)
    assert not exists(uri + "0")

    s3.log.clear()
    assert put_bundle(bundle.path, "s3://models/canaryflow", "m") == uri
    assert "PUT" not in {method for method, _ in s3.log}
    s3.log.clear()
    assert fetch_bundle(uri, tmp_path / "here") == fetched
    assert not s3.log


def test_what_s3_lost_or_altered_is_refused_and_leaves_nothing(
    bundle: Bundle, s3: Server, tmp_path: Path
) -> None:
    uri = put_bundle(bundle.path, "s3://models/canaryflow", "m")
    model = next(path for path in s3.objects if path.endswith(MODEL))
    s3.objects[model] = b"x" * len(s3.objects[model])
    with pytest.raises(BundleError, match=MODEL):
        fetch_bundle(uri, tmp_path / "here")
    del s3.objects[model]
    with pytest.raises(BundleError, match=rf"{MODEL}: no such object"):
        fetch_bundle(uri, tmp_path / "here")
    assert not any((tmp_path / "here").iterdir())


def test_s3_that_refuses_or_is_not_there_is_one_line(
    bundle: Bundle, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.refuse = "AccessDenied"
    with pytest.raises(PlatformError, match=r"^s3://models/c/m/.*: S3 refuses: AccessDenied"):
        put_bundle(bundle.path, "s3://models/c", "m")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(PlatformError, match=r"^s3://models/c/m/[^\n]*: S3 cannot be reached"):
        put_bundle(bundle.path, "s3://models/c", "m")


def fetching(uri: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the init container of a pod runs, with a folder in the place of its mount."""
    (container,) = pod_spec(ServerSpec("server:1", uri, "abc"))["initContainers"]
    assert container["volumeMounts"][0]["mountPath"] == container["command"][-1]
    command = [sys.executable, *container["command"][1:-1], str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("store", ["s3://models/canaryflow", "local"])
def test_a_pod_fetches_into_its_mount(bundle: Bundle, s3: Server, tmp_path: Path, store: str) -> None:
    uri = put_bundle(bundle.path, store.replace("local", str(tmp_path / "store")), "m")
    mount = tmp_path / "mount"
    mount.mkdir()
    inode = mount.stat().st_ino
    (mount / MODEL).write_text("half of an attempt that was killed")
    for _ in range(2):  # a restarted pod does it again
        done = fetching(uri, mount)
        assert (done.returncode, done.stderr) == (0, "")
        assert everything(mount) == everything(bundle.path)
        assert Bundle.open(mount).version == bundle.version
        assert mount.stat().st_ino == inode


def test_a_pod_that_cannot_fetch_says_so_in_one_line(bundle: Bundle, s3: Server, tmp_path: Path) -> None:
    uri = put_bundle(bundle.path, "s3://models/canaryflow", "m")
    model = next(path for path in s3.objects if path.endswith(MODEL))
    s3.objects[model] = b"altered"
    a_file = tmp_path / "file"
    a_file.write_text("")
    for bad, folder, word in [
        (uri, tmp_path / "mount", MODEL),
        (uri + "0", tmp_path / "mount", "no such object"),
        (str(tmp_path / "none"), tmp_path / "mount", "none"),
        ("gs://bucket/x", tmp_path / "mount", "unknown kind of place"),
        (uri, a_file, "expected a folder"),
    ]:
        done = fetching(bad, folder)
        assert (done.returncode, done.stdout) == (2, "")
        assert word in done.stderr and done.stderr.count("\n") == 1
    assert everything(tmp_path / "mount") == set()
    assert main(["fetch"]) == 2
    # A bundle is not lost by being fetched to where it is.
    assert fetching(str(bundle.path), bundle.path).returncode == 0
    assert Bundle.open(bundle.path).version == bundle.version


@pytest.mark.parametrize("store", ["gs://bucket/x", "s3:///nowhere", "http://host/x", ""])
def test_an_unknown_place_is_named(bundle: Bundle, store: str) -> None:
    with pytest.raises(InputError, match="expected a path, file:// or s3://"):
        put_bundle(bundle.path, store, "m")


@pytest.mark.parametrize(
    "bucket", ["Models", "my_models", "ab", "a" * 64, "-ab", "ab.", "a..b", "10.0.0.1", "a@b"]
)
def test_a_bucket_that_cannot_be_is_named(bundle: Bundle, s3: Server, tmp_path: Path, bucket: str) -> None:
    for use in (
        lambda: put_bundle(bundle.path, f"s3://{bucket}/c", "m"),
        lambda: fetch_bundle(f"s3://{bucket}/c/m/abc", tmp_path / "here"),
    ):
        with pytest.raises(InputError, match=rf"^s3://{bucket}/[^\n]*: found bucket '{bucket}', expected"):
            use()
    assert not s3.log


@pytest.mark.parametrize("harm", ["shorter", "altered", "lost", "manifest"])
def test_half_a_copy_in_s3_is_replaced(bundle: Bundle, s3: Server, tmp_path: Path, harm: str) -> None:
    uri = put_bundle(bundle.path, "s3://models/canaryflow", "m")
    before = dict(s3.objects)
    model = next(path for path in before if path.endswith(MODEL))
    manifest = next(path for path in before if path.endswith(MANIFEST))
    if harm == "lost":
        del s3.objects[model]
    elif harm == "manifest":
        s3.objects[manifest] = b"{"
    else:
        s3.objects[model] = b"x" * (len(before[model]) - (harm == "shorter"))
    assert put_bundle(bundle.path, "s3://models/canaryflow", "m") == uri
    assert s3.objects == before
    assert Bundle.open(fetch_bundle(uri, tmp_path / "here")).version == bundle.version
