"""Rows of any source, as one Parquet file."""

from kfp import dsl

from canaryflow import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def ingest(source: str, query: str, query_args: dict, dataset: dsl.Output[dsl.Dataset]) -> None:
    """Stream a source into Parquet.

    Args:
        source: A path or URI of CSV or Parquet, sqlite:///PATH, or sample:NAME for a built-in sample.
        query: SQL for a database source; names such as :until are bound from query_args.
        query_args: Values for the names in the query.
        dataset: The rows, one Parquet file.
    """
    from pathlib import Path

    from canaryflow.stage import emit, stage

    with stage("ingest"):
        from canaryflow.data.sources import ingest as read_source

        summary = read_source(source, query, query_args, Path(dataset.path))
        dataset.metadata.update(rows=summary.rows, digest=summary.digest)
        emit("ingested", rows=summary.rows)
