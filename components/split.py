"""A training set and a test set that is newer, or apart."""

from kfp import dsl

from canaryflow import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def split(
    dataset: dsl.Input[dsl.Dataset],
    contract: dict,
    test_fraction: float,
    seed: int,
    train_set: dsl.Output[dsl.Dataset],
    test_set: dsl.Output[dsl.Dataset],
) -> None:
    """Split a table by its time column, or by a digest of each row where it has none.

    Args:
        dataset: The table, one Parquet file.
        contract: Tells kinds and roles; columns it does not name are dropped.
        test_fraction: Share of the rows for the test set, the newest ones where there is a time column.
        seed: Of search, folds and estimator; a row's side never depends on it: a champion's rows would judge.
        train_set: The rows to learn from, one Parquet file.
        test_set: The rows to judge by, one Parquet file.
    """
    from pathlib import Path

    from canaryflow.stage import emit, stage

    with stage("split"):
        from canaryflow.data.contract import Contract
        from canaryflow.data.split import split as split_table

        rules = Contract.parse(contract, "parameter contract")
        summary = split_table(
            Path(dataset.path), rules, test_fraction, int(seed), Path(train_set.path), Path(test_set.path)
        )
        emit(
            "split",
            test=test_set.path,
            target=rules.target[0],
            train_rows=summary.train_rows,
            test_rows=summary.test_rows,
        )
