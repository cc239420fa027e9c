"""Parameters: what a person wrote wins, in its type, or is refused by name before anything starts."""

from pathlib import Path

import pytest

from canaryflow import pipeline_path
from canaryflow.errors import InputError
from canaryflow.parameters import parameters_of, resolve

PIPELINE = pipeline_path()


def write(folder: Path, text: str, name: str = "params.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "name: flights\nseed: 7\n")
    arguments = resolve(PIPELINE, file, ["seed=8", "alpha=0.05"], name="x", store="here")
    given = {"name": "flights", "seed": 8, "alpha": 0.05, "store": "here"}
    assert {name: arguments[name] for name in given} == given
    assert arguments["cv_folds"] == 3
    assert isinstance(arguments["seed"], int)


def test_every_default_of_the_pipeline_can_be_given_back_to_it() -> None:
    defaults = resolve(PIPELINE)
    assert set(parameters_of(PIPELINE)) - set(defaults) <= {"query_args", "thresholds"}
    assert resolve(PIPELINE, None, [f"{name}={value}" for name, value in defaults.items()]) == defaults
    assert isinstance(defaults["cv_folds"], int) and isinstance(defaults["alpha"], float)


def test_paths_are_relative_to_the_file_they_are_written_in(tmp_path: Path) -> None:
    columns = "{a: {kind: number}, b: {kind: number, role: target}}"
    write(tmp_path, f"version: 1\ncolumns: {columns}\n", "rules.yaml")
    file = write(tmp_path, "source: sqlite:///rows.db\ncontract: rules.yaml\n")
    arguments = resolve(PIPELINE, file)
    assert arguments["source"] == f"sqlite:///{tmp_path}/rows.db"
    assert arguments["contract"]["columns"]["a"] == {"kind": "number"}
    assert resolve(PIPELINE, None, ["source=sample:iris"])["source"] == "sample:iris"
    assert resolve(PIPELINE, None, ["source=s3://bucket/rows"])["source"] == "s3://bucket/rows"
    assert resolve(PIPELINE, None, ["source=/data/rows.csv"])["source"] == "/data/rows.csv"


def test_a_small_number_may_be_written_as_people_write_it(tmp_path: Path) -> None:
    file = write(tmp_path, "error_margin: 1e-3\n")
    arguments = resolve(PIPELINE, file, ["alpha=1e-4"])
    assert (arguments["error_margin"], arguments["alpha"]) == (0.001, 0.0001)


def test_dates_in_structured_values_are_text(tmp_path: Path) -> None:
    file = write(tmp_path, "query_args: {until: 2013-07-01}\n")
    assert resolve(PIPELINE, file)["query_args"] == {"until": "2013-07-01"}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["sed=1"], "-p: unknown parameter 'sed'; did you mean 'seed'?"),
        (["zzz=1"], "-p: unknown parameter 'zzz'; expected one of: alpha, canary_steps"),
        (["seed"], "-p seed: has no '='; expected key=value"),
        (["seed=1.5"], "-p: seed is float 1.5; expected a whole number"),
        (["seed=true"], "-p: seed is bool True; expected a whole number"),
        (["alpha=.nan"], "-p: alpha is float nan; expected a number"),
        (["alpha=high"], "-p: alpha is str 'high'; expected a number"),
        (["canary_steps=5"], "-p: canary_steps is int 5; expected a list"),
        (["thresholds=[1]"], "-p: thresholds is list [1]; expected a mapping"),
        (["thresholds={a"], "-p thresholds: '{a' cannot be read; expected a mapping"),
        (["contract=missing.yaml"], "missing.yaml: found no such file, expected YAML"),
    ],
)
def test_a_wrong_pair_is_one_clear_line(pairs: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(PIPELINE, None, pairs)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam: x\n", "unknown parameter 'nam'; did you mean 'name'?"),
        ("- a\n", "holds list ['a']; expected a mapping of parameters"),
        ("a: [1\n", "in line 2, expected YAML"),
        ("name: x\nname: y\n", 'found the key "name" twice in line 2'),
        ("name: 5\n", "name is int 5; expected text"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        resolve(PIPELINE, file)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_a_wrong_contract_is_named_by_its_file(tmp_path: Path) -> None:
    write(tmp_path, "version: 1\ncolums: {}\n", "rules.yaml")
    with pytest.raises(InputError, match=r'rules\.yaml.*"colums".*"columns"'):
        resolve(PIPELINE, write(tmp_path, "contract: rules.yaml\n"))


def test_a_file_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a compiled pipeline"):
        parameters_of(write(tmp_path, "a: 1\n"))
