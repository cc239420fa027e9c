"""What users upload is what the sources say, and its form can be filled in without reading the code."""

from pathlib import Path

import pytest
import yaml

from canaryflow import SERVER_IMAGE, STEPS_IMAGE, load_component, pipeline_path
from canaryflow.compile import compile_checkout, compile_pipeline
from canaryflow.errors import InputError

ROOT = Path(__file__).parents[2]
COMPONENTS = ["deploy", "evaluate", "fail", "ingest", "register", "rollout", "split", "train", "validate"]


@pytest.fixture(scope="module")
def texts() -> dict[Path, str]:
    return compile_checkout(ROOT)


@pytest.fixture(scope="module")
def pipeline() -> dict:
    return yaml.safe_load(pipeline_path().read_text())


def test_committed_yaml_is_what_the_sources_compile_to(texts: dict[Path, str]) -> None:
    assert {path.stem for path in texts if path.parts[0] == "components"} == set(COMPONENTS)
    stale = [str(path) for path, text in texts.items() if (ROOT / path).read_text() != text]
    assert stale == [], "run `make compile` and commit the result"


def test_nothing_compiled_is_left_over(texts: dict[Path, str]) -> None:
    committed = {
        path.relative_to(ROOT)
        for folder in ("components/compiled", "pipelines", "manifests/pipelines")
        for path in (ROOT / folder).glob("*.yaml")
    }
    assert committed == set(texts)


def test_every_parameter_has_type_default_and_description(pipeline: dict) -> None:
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert len(parameters) >= 30
    for name, spec in parameters.items():
        assert spec.get("parameterType"), name
        assert spec.get("isOptional") is True, name
        assert len(spec.get("description", "")) > 10, name
        empty = {"STRUCT", "STRING", "LIST"}
        assert "defaultValue" in spec or spec["parameterType"] in empty, name


def test_every_component_input_is_described() -> None:
    for name in COMPONENTS:
        document = yaml.safe_load((ROOT / "components" / "compiled" / f"{name}.yaml").read_text())
        (component,) = document["components"].values()
        for group in component["inputDefinitions"].values():
            for field, spec in group.items():
                assert spec.get("description"), f"{name}.{field}"


def test_no_step_runs_pip_and_all_use_one_image(pipeline: dict) -> None:
    executors = pipeline["deploymentSpec"]["executors"]
    assert len(executors) >= 9
    for name, executor in executors.items():
        container = executor["container"]
        assert container["image"] == STEPS_IMAGE, name
        assert "pip install" not in " ".join(container["command"]), name


def test_steps_with_side_effects_are_never_cached(pipeline: dict) -> None:
    cached = {
        task["taskInfo"]["name"]
        for component in [pipeline["root"], *pipeline["components"].values()]
        for task in component.get("dag", {}).get("tasks", {}).values()
        if task.get("cachingOptions", {}).get("enableCache") and "executor" in str(_target(pipeline, task))
    }
    assert cached == {"Validate (gate)", "Split"}


def _target(pipeline: dict, task: dict) -> object:
    component = pipeline["components"][task["componentRef"]["name"]]
    return "executor" if "executorLabel" in component else "dag"


def test_another_image_reaches_every_step() -> None:
    text = compile_pipeline("train_and_deploy", "registry.example/steps:7")
    executors = yaml.safe_load(text)["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {"registry.example/steps:7"}
    assert SERVER_IMAGE in text


def test_the_form_for_kubectl_holds_the_same_pipeline(texts: dict[Path, str], pipeline: dict) -> None:
    head, version = yaml.safe_load_all(texts[Path("manifests/pipelines/train_and_deploy.yaml")])
    assert (head["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert version["spec"]["pipelineSpec"]["root"] == pipeline["root"]
    assert version["spec"]["pipelineName"] == head["metadata"]["name"]


def test_components_load_by_name_and_an_unknown_one_is_named() -> None:
    assert load_component("train").name == "train"
    with pytest.raises(InputError, match="no component named 'trian'; expected one of: deploy"):
        load_component("trian")
    with pytest.raises(InputError, match="no pipeline named 'x'"):
        pipeline_path("x")
