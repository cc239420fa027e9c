"""A false gate, as a red run whose report can still be opened."""

from kfp import dsl

from canaryflow import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def fail(report: dsl.Input[dsl.HTML]) -> None:
    """End the run as failed, with the reasons that a gate's report gives.

    Args:
        report: The report of the gate that said no.
    """
    from pathlib import Path

    from canaryflow.errors import GateFailed
    from canaryflow.report import read_verdict
    from canaryflow.stage import stage

    with stage("fail"):
        verdict = read_verdict(Path(report.path))
        raise GateFailed(f"{verdict.gate} failed: {verdict.summary or '; '.join(verdict.reasons)}")
