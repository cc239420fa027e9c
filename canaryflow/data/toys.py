"""Small data sets that come with scikit-learn, to try a pipeline with nothing else at hand."""

from __future__ import annotations

import polars as pl

TOYS = {"iris": "species", "breast_cancer": "diagnosis", "diabetes": "progression", "wine": "cultivar"}
"""The samples' names, and what their target column is called."""


def toy(name: str) -> pl.DataFrame:
    """One of scikit-learn's data sets as a table.

    Args:
        name: One of `TOYS`.

    Returns:
        The features as numbers, names in snake case; at last the target: the class's name, or a number for
        a regression.
    """
    from sklearn import datasets  # seconds, that only these samples should cost

    data = getattr(datasets, f"load_{name}")()
    columns = {
        str(feature).removesuffix(" (cm)").replace(" ", "_").replace("/", "_per_"): data.data[:, index]
        for index, feature in enumerate(data.feature_names)
    }
    target = data.target
    columns[TOYS[name]] = (
        [str(data.target_names[label]) for label in target] if "target_names" in data else target
    )
    return pl.DataFrame(columns)
