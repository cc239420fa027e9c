"""The server needs what its slim image has, and no more."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import sys
bundle, *allowed = sys.argv[1:]
allowed = {*allowed, *sys.stdlib_module_names, "canaryflow", "google"}  # protobuf installs as google

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import canaryflow.serving.__main__, canaryflow.serving.management, canaryflow.serving.wsgi
from canaryflow.bundle.format import Bundle
from canaryflow.bundle.scorer import Scorer
print(Scorer(Bundle.open(bundle)).prove())
"""


def locked():
    text = (ROOT / "requirements" / "serving.txt").read_text()
    return {name.replace("-", "_") for name in re.findall(r"^([a-z0-9_-]+)==", text, re.MULTILINE)}


def test_the_slim_images_requirements_are_enough(bundles):
    assert {"granian", "numpy", "onnxruntime", "orjson"} <= locked()
    command = [sys.executable, "-c", CODE, str(bundles["binary"].path), *locked()]
    done = subprocess.run(command, text=True, cwd=ROOT, capture_output=True, check=False)
    assert done.stdout.strip() == "40", done.stderr


def test_the_first_process_does_not_load_the_model(bundles):
    code = "import sys, canaryflow.serving.__main__; print({'numpy', 'onnxruntime'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).strip() == "set()"


def test_images_run_without_rights_and_install_by_hash():
    for name in ("server", "steps"):
        text = (ROOT / "images" / name / "Dockerfile").read_text()
        assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, re.MULTILINE)
        for line in re.findall(r"^RUN pip install .*-r .*$", text, re.MULTILINE):
            assert "--require-hashes" in line
