"""Gate: the model is good enough, and no worse than the champion."""

from kfp import dsl

from canaryflow import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def evaluate(
    model: dsl.Input[dsl.Model],
    test_set: dsl.Input[dsl.Dataset],
    contract: dict,
    name: str,
    thresholds: dict,
    champion_margin: float,
    max_latency_ms: float,
    tracking_uri: str,
    report: dsl.Output[dsl.HTML],
) -> bool:
    """Judge the bundle by the answers it will serve, on rows that it has not seen.

    Args:
        model: The challenger's bundle.
        test_set: The rows to judge by, one Parquet file.
        contract: Tells features and target.
        name: The model's name in the registry, where the champion is looked up.
        thresholds: Metric names and the values they must reach, such as {"roc_auc": 0.7}.
        champion_margin: By how much the challenger's main metric may be worse than the champion's.
        max_latency_ms: Bound on the 99th percentile of the time to score one row, in the quietest of three
            rounds, milliseconds.
        tracking_uri: MLflow's tracking and registry URI.
        report: Metrics, plots, the comparison with the champion.

    Returns:
        True when every check of severity "error" holds.
    """
    import tempfile
    from pathlib import Path

    from canaryflow.stage import emit, stage

    with stage("evaluate"), tempfile.TemporaryDirectory() as folder:
        from canaryflow.data.contract import Contract
        from canaryflow.model.evaluation import Gates
        from canaryflow.model.evaluation import evaluate as judge
        from canaryflow.model.tracking import Tracking, champion_uri
        from canaryflow.storage import fetch_bundle

        rules = Contract.parse(contract, "parameter contract")
        uri = champion_uri(tracking_uri, name)
        champion = fetch_bundle(uri, Path(folder)) if uri else None
        gates = Gates(thresholds, champion_margin, max_latency_ms)
        tracking = Tracking(tracking_uri, name)
        verdict = judge(
            Path(model.path), Path(test_set.path), rules, champion, gates, Path(report.path), tracking
        )
        emit("verdict", stage="evaluate", report=report.path, **verdict.to_dict())
        return verdict.passed
