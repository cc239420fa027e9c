import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryflow.bundle.format import MANIFEST, MODEL, PROFILE, SAMPLES, Bundle, Feature, Signature, seal
from canaryflow.errors import BundleError


def edit(path, **changes):
    file = path / MANIFEST
    data = json.loads(file.read_text())
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        place = data
        for parent in parents:
            place = place[parent]
        place[last] = value
    file.write_text(json.dumps(data))


def test_a_sealed_bundle_opens_as_it_was_sealed(sealed):
    for problem, bundle in sealed.items():
        again = Bundle.open(bundle.path)
        assert again.manifest == bundle.manifest
        assert again.signature.problem == problem
        assert set(again.manifest.files) == {MODEL, SAMPLES, PROFILE}


@pytest.mark.parametrize("name", [MODEL, SAMPLES, PROFILE])
@pytest.mark.parametrize("fault", ["missing", "truncated", "altered"])
def test_any_file_that_is_missing_truncated_or_altered_is_named(copy, name, fault):
    path = copy()
    file = path / name
    content = file.read_bytes()
    if fault == "missing":
        file.unlink()
    elif fault == "truncated":
        file.write_bytes(content[:-1])
    else:
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(BundleError, match=name):
        Bundle.open(path)
    assert Bundle.open(path, verify=False).version


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"signature__threshold": 0.9}, "altered: it says version"),
        ({"version": "0" * 12}, "altered: it says version"),
        ({"signature__classes": ["a"]}, "1 classes do not fit a binary problem"),
        ({"signature__problem": "ranking"}, "problem 'ranking'"),
        ({"signature__features": []}, "no features"),
        ({"signature__features": [{"name": "a", "kind": "colour"}]}, "colour"),
        ({"tolerance": -1}, "tolerance"),
        ({"files": {"../../etc/passwd": {"sha256": "", "size": 1}}}, "files"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(copy, changes, message):
    path = copy()
    edit(path, **changes)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_file_outside_of_the_folder_is_never_opened(copy):
    path = copy()
    files = json.loads((path / MANIFEST).read_text())["files"] | {"../x": {"sha256": "", "size": 1}}
    edit(path, files=files)
    with pytest.raises(BundleError, match="outside"):
        Bundle.open(path)


def test_provenance_is_not_part_of_the_version_and_the_threshold_is(sealed, copy):
    path, bundle = copy(), sealed["binary"]
    same = seal(path, "renamed", bundle.signature, 1e-5, {"run_id": "another"})
    assert same.version == bundle.version
    other = Signature("binary", "late", bundle.signature.features, bundle.signature.classes, 0.5)
    assert seal(path, "tiny", other, 1e-5, {}).version != bundle.version


def test_sealing_needs_every_part_and_leaves_nothing_half_written(tmp_path, sealed):
    with pytest.raises(BundleError, match=MODEL):
        seal(tmp_path, "x", sealed["binary"].signature, 1e-5, {})
    for name in (MODEL, SAMPLES, PROFILE):
        (tmp_path / name).write_text("{}")
    with pytest.raises(BundleError, match="not JSON"):
        seal(tmp_path, "x", sealed["binary"].signature, 1e-5, {"score": float("nan")})
    assert not (tmp_path / MANIFEST).exists()
    twice = Signature("regression", "y", (Feature("a", "number"), Feature("a", "number")))
    with pytest.raises(BundleError, match="repeat"):
        seal(tmp_path, "x", twice, 1e-5, {})
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted((MODEL, SAMPLES, PROFILE))


KEYS = st.sampled_from(["schema_version", "name", "signature", "files", "tolerance", "features", "classes"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@given(st.binary(max_size=200) | JSON)
def test_no_manifest_can_do_worse_than_be_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("manifest")
    if isinstance(content, dict):
        content["schema_version"] = 1
    (path / MANIFEST).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(BundleError):
        Bundle.open(path)


def test_the_format_needs_the_standard_library_alone():
    code = "import sys, canaryflow.bundle.format; print({'numpy', 'onnxruntime'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
