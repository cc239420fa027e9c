"""Gate: the data meets its contract."""

from kfp import dsl

from canaryflow import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def validate(dataset: dsl.Input[dsl.Dataset], contract: dict, report: dsl.Output[dsl.HTML]) -> bool:
    """Check a table against its contract.

    Args:
        dataset: The table, one Parquet file.
        contract: Columns, kinds, roles and rules that the data must meet.
        report: Data quality: each rule with what was found, each column's profile.

    Returns:
        True when no rule of severity "error" is broken.
    """
    from pathlib import Path

    from canaryflow.stage import emit, stage

    with stage("validate"):
        from canaryflow.data.contract import Contract
        from canaryflow.data.validation import validate as check
        from canaryflow.data.validation_report import write_report

        rules = Contract.parse(contract, "parameter contract")
        validation = check(Path(dataset.path), rules)
        write_report(validation, rules, Path(report.path))
        emit("verdict", stage="validate", report=report.path, **validation.verdict.to_dict())
        return validation.verdict.passed
