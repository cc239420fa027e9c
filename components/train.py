"""A model found by search, tracked, and sealed as a bundle."""

from kfp import dsl

from canaryflow import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def train(
    train_set: dsl.Input[dsl.Dataset],
    contract: dict,
    name: str,
    estimator: str,
    search_trials: int,
    cv_folds: int,
    seed: int,
    tracking_uri: str,
    model: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Search, cross-validate, fit, and seal a bundle that proves itself wherever it is loaded.

    Args:
        train_set: The rows to learn from, one Parquet file.
        contract: Tells features and target.
        name: The model's name in the registry and in its deployment.
        estimator: hist_gradient_boosting, random_forest, extra_trees, decision_tree, linear, neural_network.
        search_trials: Settings to try; 1 keeps the defaults.
        cv_folds: Folds of the cross-validation.
        seed: Of search, folds and estimator.
        tracking_uri: MLflow's tracking and registry URI.
        model: The bundle, a folder.
        report: Folds, search and importance.
    """
    import shutil
    from pathlib import Path

    from canaryflow.stage import emit, stage

    with stage("train"):
        from canaryflow.data.contract import Contract
        from canaryflow.model.tracking import Tracking
        from canaryflow.model.training import TrainSpec
        from canaryflow.model.training import train as train_model

        rules = Contract.parse(contract, "parameter contract")
        spec = TrainSpec(name, estimator, int(search_trials), int(cv_folds), int(seed))
        tracking = Tracking(tracking_uri, name)
        bundle = train_model(Path(train_set.path), rules, spec, Path(model.path), tracking)
        shutil.copyfile(bundle.path / "report.html", report.path)
        model.metadata.update(framework="onnx", version=bundle.manifest.version)
        emit("trained", version=bundle.manifest.version, report=report.path)
