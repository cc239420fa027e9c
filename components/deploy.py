"""The bundle behind Seldon: live at once where nothing was, else as a canary without traffic."""

from kfp import dsl

from canaryflow import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def deploy(
    bundle_uri: str,
    name: str,
    namespace: str,
    server_image: str,
    min_replicas: int,
    max_replicas: int,
    cpu_target: int,
    memory_target: int,
) -> str:
    """Create or extend the SeldonDeployment, and prove the bundle's samples where it runs.

    Args:
        bundle_uri: The bundle in the store.
        name: The SeldonDeployment's name.
        namespace: Its namespace; empty is the step's own.
        server_image: The image that serves bundles.
        min_replicas: Least replicas of each predictor.
        max_replicas: Most replicas of each predictor.
        cpu_target: Use of the model container's CPU request that the autoscaler aims at, percent.
        memory_target: The same for memory, percent.

    Returns:
        "main" where the bundle is live, "canary" where it waits for its rollout.
    """
    import os
    import tempfile
    from pathlib import Path

    from canaryflow.stage import emit, stage

    with stage("deploy"), tempfile.TemporaryDirectory() as folder:
        from canaryflow import STEPS_IMAGE
        from canaryflow.bundle.format import Bundle
        from canaryflow.delivery.cluster import connect
        from canaryflow.delivery.deploy import deploy as deploy_bundle
        from canaryflow.delivery.seldon import ServerSpec
        from canaryflow.storage import fetch_bundle

        bundle = Bundle.open(fetch_bundle(bundle_uri, Path(folder)))
        spec = ServerSpec(
            image=server_image,
            bundle_uri=bundle_uri,
            version=bundle.manifest.version,
            min_replicas=int(min_replicas),
            max_replicas=int(max_replicas),
            cpu_target=int(cpu_target),
            memory_target=int(memory_target),
            fetch_image=STEPS_IMAGE,  # the server's image is slim: it has no client of S3
        )
        cluster = connect(os.environ.get("CANARYFLOW_PLATFORM", "kubernetes"), namespace)
        deployed = deploy_bundle(
            cluster, name, spec, bundle, on_event=lambda event: emit("rollout", text=str(event))
        )
        emit("deployed", arm=deployed.arm, version=deployed.version)
        return deployed.arm
