"""Gate: real traffic, a few percent at a time, judged by a test that may be watched."""

from kfp import dsl

from canaryflow import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def rollout(
    arm: str,
    bundle_uri: str,
    name: str,
    namespace: str,
    canary_steps: list,
    step_requests: int,
    interval_seconds: float,
    alpha: float,
    error_margin: float,
    latency_objective_ms: float,
    latency_margin: float,
    max_error_rate: float,
    max_minutes: float,
    on_inconclusive: str,
    metrics_url: str,
    tracking_uri: str,
    report: dsl.Output[dsl.HTML],
) -> bool:
    """Promote the canary, or roll it back; the registry's champion moves last, and only on promotion.

    Args:
        arm: What deploy did: "main" (live already) or "canary".
        bundle_uri: The bundle that was deployed.
        name: The SeldonDeployment's name, and the model's in the registry.
        namespace: Its namespace; empty is the step's own.
        canary_steps: The canary's shares of traffic, percent, ascending.
        step_requests: Requests of both arms that a step waits for at least.
        interval_seconds: Time between two looks at the counters.
        alpha: Probability of rolling back a canary that is no worse, for the whole rollout.
        error_margin: Promotion proves that the canary's error rate exceeds main's by less than this.
        latency_objective_ms: A request is slow above this; 0 chooses an edge from main's own histogram.
        latency_margin: Promotion proves that its share of slow requests exceeds main's by less than this.
        max_error_rate: The canary's error rate may not exceed this, whatever main's is.
        max_minutes: Time limit of the whole rollout.
        on_inconclusive: rollback, pause or promote when the time is over.
        metrics_url: Prometheus or a page of metrics; empty is the platform's own gateway.
        tracking_uri: MLflow's registry URI.
        report: The decision, the weights and the evidence over time.

    Returns:
        True when the bundle is what users get now.
    """
    import os
    from pathlib import Path

    from canaryflow.stage import emit, stage

    with stage("rollout"):
        from canaryflow.delivery.cluster import connect
        from canaryflow.delivery.metrics import connect_metrics
        from canaryflow.delivery.rollout import RolloutPlan
        from canaryflow.delivery.rollout import rollout as roll_out
        from canaryflow.model.tracking import promote_champion

        plan = RolloutPlan.from_parameters(
            {
                "canary_steps": canary_steps,
                "step_requests": step_requests,
                "interval_seconds": interval_seconds,
                "alpha": alpha,
                "error_margin": error_margin,
                "latency_objective_ms": latency_objective_ms,
                "latency_margin": latency_margin,
                "max_error_rate": max_error_rate,
                "max_minutes": max_minutes,
                "on_inconclusive": on_inconclusive,
            }
        )
        version = bundle_uri.rstrip("/").rsplit("/", 1)[-1]
        platform = os.environ.get("CANARYFLOW_PLATFORM", "kubernetes")
        cluster = connect(platform, namespace)
        metrics = connect_metrics(metrics_url, platform, cluster.namespace, name)
        outcome = roll_out(
            cluster,
            name,
            plan,
            metrics,
            Path(report.path),
            on_event=lambda event: emit("rollout", text=str(event)),
            version=version,
        )
        if outcome.promoted:
            promote_champion(tracking_uri, name, version)
        emit("verdict", stage="rollout", arm=arm, report=report.path, **outcome.verdict.to_dict())
        return outcome.promoted
