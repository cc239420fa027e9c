"""The bundle as a model of MLflow: ``mlflow.pyfunc.load_model`` gives the answers that are served.

The bundle's folder holds an ``MLmodel`` file, so a copy in the store is an MLflow model with a signature.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canaryflow import __version__
from canaryflow.bundle.format import Bundle, Signature
from canaryflow.data.contract import Column, Contract

if TYPE_CHECKING:
    import pandas as pd

_REQUIREMENTS = ("mlflow", "numpy", "onnxruntime")


def write_mlmodel(folder: Path, signature: Signature, contract: Contract, run_id: str | None) -> None:
    """Write ``MLmodel`` and the ``requirements.txt`` it names into a bundle's folder, before it is sealed.

    Args:
        folder: The bundle's folder.
        signature: Becomes MLflow's signature of inputs and outputs.
        contract: Tells integers from other numbers.
        run_id: The run that trained it.
    """
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(_type(contract.features[item.name]), item.name, not item.nullable)
        for item in signature.features
    ]
    answer = "double" if signature.problem == "regression" else "string"
    outputs: list[ColSpec | TensorSpec] = [ColSpec(answer, signature.target)]
    outputs += [ColSpec("double", f"probability_{label}") for label in signature.classes]
    model = Model(run_id=run_id, signature=ModelSignature(Schema(inputs), Schema(outputs)))
    model.add_flavor(
        "python_function",
        loader_module=__name__,
        python_version=".".join(map(str, sys.version_info[:3])),
        env={"virtualenv": "python_env.yaml"},
    )
    model.save(str(folder / "MLmodel"))
    pinned = [f"canaryflow=={__version__}", *(f"{name}=={metadata.version(name)}" for name in _REQUIREMENTS)]
    (folder / "requirements.txt").write_text("\n".join(pinned) + "\n", encoding="utf-8")
    version = ".".join(map(str, sys.version_info[:3]))
    (folder / "python_env.yaml").write_text(
        f"python: {version}\ndependencies:\n  - -r requirements.txt\n", encoding="utf-8"
    )


def _type(column: Column) -> str:
    # pandas has no null among its integers: MLflow would refuse the floats that they become.
    if column.kind == "integer" and not column.nullable:
        return "long"
    return {"categorical": "string", "boolean": "boolean"}.get(column.kind, "double")


class BundleModel:
    """What ``mlflow.pyfunc`` calls.

    Args:
        bundle: A verified bundle.
    """

    def __init__(self, bundle: Bundle):
        from canaryflow.bundle.scorer import Scorer

        self._scorer = Scorer(bundle)

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer for rows.

        Args:
            model_input: A column per feature; null, NaN or a missing column where the signature allows it.
            params: Not used.

        Returns:
            The target's column with the label (or the number), and ``probability_<label>`` per class.

        Raises:
            canaryflow.bundle.rows.RowError: A row does not fit the signature.
        """
        import pandas as pd

        table = {name: model_input[name].astype(object).to_numpy() for name in model_input.columns}
        signature = self._scorer.signature
        for feature in signature.features:
            if feature.nullable:
                table.setdefault(feature.name, np.full(len(model_input), None, dtype=object))
        found = self._scorer.score(self._scorer.rows.from_table(table))
        if signature.problem == "regression":
            return pd.DataFrame({signature.target: found.values}, index=model_input.index)
        columns: dict[str, Any] = {signature.target: found.labels()}
        for index, label in enumerate(signature.classes):
            columns[f"probability_{label}"] = found.values[:, index]
        return pd.DataFrame(columns, index=model_input.index)


def _load_pyfunc(path: str) -> BundleModel:
    return BundleModel(Bundle.open(Path(path)))
