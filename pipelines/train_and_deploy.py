"""From raw data to live traffic: every step may say no, and the last one decides on evidence."""

from kfp import dsl

from canaryflow import SERVER_IMAGE
from components.deploy import deploy
from components.evaluate import evaluate
from components.fail import fail
from components.ingest import ingest
from components.register import register
from components.rollout import rollout
from components.split import split
from components.train import train
from components.validate import validate

IRIS = {
    "version": 1,
    "table": {"min_rows": 100},
    "columns": {
        "sepal_length": {"kind": "number", "min": 0, "max": 20, "unit": "cm"},
        "sepal_width": {"kind": "number", "min": 0, "max": 20, "unit": "cm"},
        "petal_length": {"kind": "number", "min": 0, "max": 20, "unit": "cm"},
        "petal_width": {"kind": "number", "min": 0, "max": 20, "unit": "cm"},
        "species": {"kind": "categorical", "role": "target"},
    },
}


def _fresh(task: dsl.PipelineTask, display_name: str) -> None:
    """Name a step that reads or changes the world: its result of yesterday is never reused."""
    task.set_display_name(display_name)
    task.set_caching_options(False)


@dsl.pipeline(name="train-and-deploy", display_name="Train and deploy")
def train_and_deploy(
    source: str = "sample:iris",
    query: str = "",
    query_args: dict = {},  # noqa: B006 - KFP reads defaults from the signature and never mutates them
    contract: dict = IRIS,
    test_fraction: float = 0.2,
    seed: int = 0,
    name: str = "iris",
    estimator: str = "hist_gradient_boosting",
    search_trials: int = 5,
    cv_folds: int = 3,
    thresholds: dict = {},  # noqa: B006
    champion_margin: float = 0.005,
    max_latency_ms: float = 50.0,
    store: str = "s3://mlpipeline/canaryflow",
    tracking_uri: str = "http://mlflow:5000",
    namespace: str = "",
    server_image: str = SERVER_IMAGE,
    min_replicas: int = 2,
    max_replicas: int = 10,
    cpu_target: int = 70,
    memory_target: int = 80,
    canary_steps: list = [5, 10, 25, 50],  # noqa: B006
    step_requests: int = 1000,
    interval_seconds: float = 10.0,
    alpha: float = 0.01,
    error_margin: float = 0.01,
    latency_objective_ms: float = 0.0,
    latency_margin: float = 0.1,
    max_error_rate: float = 0.05,
    max_minutes: float = 60.0,
    on_inconclusive: str = "rollback",
    metrics_url: str = "",
):
    """Train a model on data that met its contract, and let real traffic decide whether it goes live.

    Args:
        source: Where rows come from: a path or URI of CSV or Parquet, sqlite:///PATH, or sample:iris.
        query: SQL for a database source; names such as :until are bound from query_args.
        query_args: Values for the names in the query.
        contract: Columns with kinds, roles and rules that the data must meet.
        test_fraction: Share of the rows kept for the evaluation, the newest where there is a time column.
        seed: Of search, folds and estimator; a row's side in the split does not depend on it.
        name: The model in the registry, and its SeldonDeployment.
        estimator: hist_gradient_boosting, random_forest, extra_trees, decision_tree, linear, neural_network.
        search_trials: Settings that the search tries; 1 keeps the defaults.
        cv_folds: Folds of the cross-validation.
        thresholds: Metrics that the model must reach, such as {"roc_auc": 0.7, "log_loss": 0.5}.
        champion_margin: By how much the main metric may be worse than the champion's on the same rows.
        max_latency_ms: Bound on the 99th percentile of scoring one row, in the quietest of three rounds, ms.
        store: Folder or s3:// URI that keeps the bundles.
        tracking_uri: MLflow's tracking and registry URI.
        namespace: Of the SeldonDeployment; empty is the pipeline's own.
        server_image: The image that serves bundles.
        min_replicas: Least replicas of each predictor.
        max_replicas: Most replicas of each predictor.
        cpu_target: Use of the requested CPU that the autoscaler aims at, percent.
        memory_target: Use of the requested memory that the autoscaler aims at, percent.
        canary_steps: The canary's shares of traffic, percent, ascending; promotion follows the last.
        step_requests: Requests of both arms that a step waits for at least.
        interval_seconds: Time between two looks at the counters.
        alpha: Probability of rolling back a canary that is no worse, for the whole rollout.
        error_margin: Promotion proves that the canary's error rate exceeds main's by less than this.
        latency_objective_ms: A request is slow above this; 0 chooses from main's own histogram.
        latency_margin: Promotion proves that the share of slow requests exceeds main's by less than this.
        max_error_rate: The canary's error rate may not exceed this, whatever main's is.
        max_minutes: Time limit of the rollout.
        on_inconclusive: rollback, pause or promote when the time is over.
        metrics_url: Prometheus, or a page of metrics; empty is the platform's own gateway.
    """
    ingested = ingest(source=source, query=query, query_args=query_args)
    _fresh(ingested, "Ingest")
    validated = validate(dataset=ingested.outputs["dataset"], contract=contract)
    validated.set_display_name("Validate (gate)")

    with dsl.If(validated.outputs["Output"] == True, name="data-meets-contract"):  # noqa: E712 - KFP builds a condition
        parts = split(
            dataset=ingested.outputs["dataset"], contract=contract, test_fraction=test_fraction, seed=seed
        ).set_display_name("Split")
        trained = train(
            train_set=parts.outputs["train_set"],
            contract=contract,
            name=name,
            estimator=estimator,
            search_trials=search_trials,
            cv_folds=cv_folds,
            seed=seed,
            tracking_uri=tracking_uri,
        )
        _fresh(trained, "Train")
        evaluated = evaluate(
            model=trained.outputs["model"],
            test_set=parts.outputs["test_set"],
            contract=contract,
            name=name,
            thresholds=thresholds,
            champion_margin=champion_margin,
            max_latency_ms=max_latency_ms,
            tracking_uri=tracking_uri,
        )
        _fresh(evaluated, "Evaluate (gate)")

        with dsl.If(evaluated.outputs["Output"] == True, name="model-good-enough"):  # noqa: E712
            registered = register(
                model=trained.outputs["model"], name=name, store=store, tracking_uri=tracking_uri
            )
            _fresh(registered, "Register")
            deployed = deploy(
                bundle_uri=registered.output,
                name=name,
                namespace=namespace,
                server_image=server_image,
                min_replicas=min_replicas,
                max_replicas=max_replicas,
                cpu_target=cpu_target,
                memory_target=memory_target,
            )
            _fresh(deployed, "Deploy")
            rolled_out = rollout(
                arm=deployed.output,
                bundle_uri=registered.output,
                name=name,
                namespace=namespace,
                canary_steps=canary_steps,
                step_requests=step_requests,
                interval_seconds=interval_seconds,
                alpha=alpha,
                error_margin=error_margin,
                latency_objective_ms=latency_objective_ms,
                latency_margin=latency_margin,
                max_error_rate=max_error_rate,
                max_minutes=max_minutes,
                on_inconclusive=on_inconclusive,
                metrics_url=metrics_url,
                tracking_uri=tracking_uri,
            )
            _fresh(rolled_out, "Roll out (gate)")
            with dsl.If(rolled_out.outputs["Output"] == False, name="rolled-back"):  # noqa: E712
                _fresh(fail(report=rolled_out.outputs["report"]), "Rolled back")

        with dsl.Else(name="model-not-good-enough"):
            _fresh(fail(report=evaluated.outputs["report"]), "Model refused")

    with dsl.Else(name="data-breaks-contract"):
        _fresh(fail(report=validated.outputs["report"]), "Data refused")
