"""A bundle in the store, and a version in the registry."""

from kfp import dsl

from canaryflow import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def register(model: dsl.Input[dsl.Model], name: str, store: str, tracking_uri: str) -> str:
    """Copy the bundle into the store under its version, and make it the registry's challenger.

    Args:
        model: The bundle that passed its gates.
        name: The model's name in the registry.
        store: Folder or s3:// URI that keeps the bundles.
        tracking_uri: MLflow's tracking and registry URI.

    Returns:
        The bundle's URI in the store.
    """
    from pathlib import Path

    from canaryflow.stage import emit, stage

    with stage("register"):
        from canaryflow.model.tracking import register as register_bundle

        registered = register_bundle(Path(model.path), store, tracking_uri, name)
        emit("registered", version=registered.version, uri=registered.uri)
        return registered.uri
