"""A profile counts every row, says where values lie, and survives JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryflow.data.contract import Column
from canaryflow.data.profile import FeatureProfile, Profile, profile
from canaryflow.data.validation_report import histogram
from canaryflow.errors import InputError

NUMBER, INTEGER = Column(kind="number"), Column(kind="integer")
LABEL, FLAG = Column(kind="categorical"), Column(kind="boolean")


def test_what_a_profile_holds(tmp_path: Path) -> None:
    table = tmp_path / "table"
    generator = np.random.default_rng(0)
    rows = 250_000
    frame = pl.DataFrame(
        {
            "x": generator.normal(size=rows),
            "n": generator.integers(0, 7, rows),
            "c": [f"label {index % 150}" if index % 10 else None for index in range(rows)],
            "b": [index % 4 == 0 for index in range(rows)],
        }
    )
    frame.write_parquet(table)
    result = profile(table, {"x": NUMBER, "n": INTEGER, "c": LABEL, "b": FLAG})
    x, n, c, b = (result.features[name] for name in "xncb")
    assert len(x.edges) == 19
    assert sum(x.counts) == rows
    assert max(abs(count / rows - 0.05) for count in x.counts) < 0.005
    assert (n.edges, n.minimum, n.maximum) == (tuple(range(6)), 0, 6)
    assert list(n.counts) == frame["n"].value_counts().sort("n")["count"].to_list()
    assert c.missing == rows // 10
    assert len(c.categories) == 100
    assert sum(c.categories.values()) + c.other + c.missing == rows
    assert b.categories == {"false": rows * 3 // 4, "true": rows // 4}
    again = Profile.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again == result
    assert len(json.dumps(result.to_dict())) < 10_000


@given(st.lists(st.none() | st.floats(-1e6, 1e6) | st.integers(-3, 3), max_size=60))
def test_bins_count_what_lies_in_them(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None]
) -> None:
    table = tmp_path_factory.mktemp("rows") / "table"
    pl.DataFrame({"x": pl.Series(values, dtype=pl.Float64, strict=False)}).write_parquet(table)
    found = profile(table, {"x": NUMBER}).features["x"]
    there = np.array([value for value in values if value is not None], dtype=float)
    assert found.missing == len(values) - len(there)
    assert list(found.edges) == sorted(set(found.edges))
    assert len(found.edges) <= 20
    bins = np.searchsorted(found.edges, there, side="left")
    assert list(found.counts) == np.bincount(bins, minlength=len(found.edges) + 1).tolist()
    if len(there):
        grid, shares = histogram(found, 30)
        assert shares.sum() == pytest.approx(1)
        assert shares.min() >= -1e-12
        assert grid[0] <= there.min()
        assert grid[-1] >= there.max()


def test_few_whole_numbers_get_a_bar_each() -> None:
    feature = FeatureProfile("integer", 0, edges=(0.0, 1.0), counts=(5, 3, 2), minimum=0, maximum=2)
    grid, shares = histogram(feature, 30)
    assert grid.tolist() == [-0.5, 0.5, 1.5, 2.5]
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2])


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    pl.DataFrame({"x": [1.0]}).write_parquet(tmp_path / "table")
    with pytest.raises(InputError, match='no column "y"'):
        profile(tmp_path / "table", {"y": NUMBER})
