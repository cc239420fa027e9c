import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryflow.bundle.format import Feature, Signature
from canaryflow.bundle.rows import RowError, RowReader
from tests.bundle import models

READER = RowReader(models.signature("binary"))
GOOD = {"distance": 500, "temp": 1.5, "carrier": "AA", "origin": "JFK", "holiday": True}


def same(left, right):
    assert list(left) == list(right)
    for name in left:
        assert left[name].dtype == right[name].dtype and left[name].shape == right[name].shape
        np.testing.assert_array_equal(left[name], right[name])


def test_columns_are_what_the_graph_wants():
    columns = READER.from_records([GOOD, GOOD | {"temp": None, "origin": None, "holiday": None}])
    assert {name: (c.dtype.kind, c.shape) for name, c in columns.items()} == {
        "distance": ("f", (2, 1)), "temp": ("f", (2, 1)), "carrier": ("O", (2, 1)),
        "origin": ("O", (2, 1)), "holiday": ("f", (2, 1)),
    }  # fmt: skip
    assert columns["distance"].dtype == np.float32
    assert math.isnan(columns["temp"][1, 0]) and math.isnan(columns["holiday"][1, 0])
    assert columns["origin"][:, 0].tolist() == ["JFK", ""]


@pytest.mark.parametrize("count", [1, 37])
def test_every_way_in_gives_the_same_columns(count):
    rows = models.rows(count)
    expected = READER.from_records(rows)
    names = ["holiday", "carrier", "distance", "origin", "temp"]
    same(READER.from_matrix([list(row.values()) for row in rows]), expected)
    same(READER.from_matrix([[row[name] for name in names] for row in rows], names), expected)
    same(READER.from_table({name: [row[name] for row in rows] for name in GOOD}), expected)
    same(READER.from_table(dict(models.frame(rows).items()) | {"late": np.zeros(count)}), expected)


@pytest.mark.parametrize(
    ("change", "field", "found", "expected"),
    [
        ({"distance": None}, "distance", "null", "a finite number"),
        ({"distance": "far"}, "distance", "'far'", "a finite number"),
        ({"distance": True}, "distance", "true", "a finite number"),
        ({"distance": 1e39}, "distance", "1e+39", "a finite number"),
        ({"distance": math.inf}, "distance", "inf", "a finite number"),
        ({"distance": math.nan}, "distance", "nan", "a finite number"),
        ({"distance": 10**400}, "distance", "1000", "a finite number"),
        ({"temp": [1]}, "temp", "[1]", "a finite number or null"),
        ({"carrier": 5}, "carrier", "5", "text"),
        ({"carrier": None}, "carrier", "null", "text"),
        ({"carrier": ""}, "carrier", "''", "text"),
        ({"holiday": 2}, "holiday", "2", "true or false or null"),
        ({"holiday": "true"}, "holiday", "'true'", "true or false or null"),
        ({"distanc": 1}, "distanc", "an unknown field", "'distance'"),
    ],
)
@pytest.mark.parametrize("before", [0, 3])
def test_a_bad_row_is_named_with_field_found_and_expected(change, field, found, expected, before):
    rows = [GOOD] * before + [GOOD | change, GOOD]
    with pytest.raises(RowError) as caught:
        READER.from_records(rows[: before + 1 + bool(before)])
    error = caught.value
    assert (error.row, error.field, error.expected) == (before, field, expected)
    assert error.found.startswith(found[:20]) and len(error.found) <= 80
    assert f"row {before}" in str(error) and "\n" not in str(error)


def test_a_row_may_leave_out_what_is_nullable_and_nothing_else():
    columns = READER.from_records([{"distance": 1, "carrier": "AA"}])
    assert columns["origin"][0, 0] == ""
    with pytest.raises(RowError, match=r"row 0, field 'carrier': found nothing, expected text"):
        READER.from_records([{"distance": 1}])


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ([[1, 2, "AA", "JFK"]], None, "row 0: found 4 values, expected 5"),
        ([GOOD], None, "row 0: found"),
        ([5], None, "row 0: found 5, expected a list of 5 values"),
        ([[1]], ["distanse"], "expected 'distance'"),
        ([[1, 2]], ["distance", "distance"], "each feature at most once"),
        ([[1]], [7], "expected one of the features"),
        ([[1]], ["distance"], "field 'carrier': found nothing"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(rows, names, message):
    with pytest.raises(RowError, match=message.replace("(", r"\(")):
        READER.from_matrix(rows, names)


NUMERIC = RowReader(Signature("regression", "y", (Feature("a", "number"), Feature("b", "boolean"))))


def test_a_tensor_is_read_by_its_shape():
    columns = NUMERIC.from_tensor([1, 0, 2.5, 1], [2, 2])
    assert columns["a"][:, 0].tolist() == [1, 2.5] and columns["b"][:, 0].tolist() == [0, 1]
    for shape in ([2, 3], [4], [-2, -2], [2, 2.0], ["2", 2], [True, 4]):
        with pytest.raises(RowError, match="shape"):
            NUMERIC.from_tensor([1, 0, 2.5, 1], shape)


def test_a_table_of_any_number_type_gives_float32_and_its_faults_are_named():
    for dtype in ("int8", "uint32", "int64", "float32", "float64"):
        columns = NUMERIC.from_table({"a": np.array([1, 2], dtype), "b": np.array([True, False])})
        assert columns["a"].dtype == np.float32 and columns["a"].shape == (2, 1)
    with pytest.raises(RowError, match=r"row 1, field 'b': found 2"):
        NUMERIC.from_table({"a": np.arange(2.0), "b": np.array([0, 2])})
    with pytest.raises(RowError, match=r"row 0, field 'a': found 1e\+300"):
        NUMERIC.from_table({"a": np.array([1e300]), "b": np.array([0])})
    with pytest.raises(RowError, match=r"row 1, field 'distance': found null"):
        READER.from_table({"distance": np.array([1, np.nan]), "carrier": ["AA", "AA"]})
    with pytest.raises(RowError, match=r"field 'temp': found no column"):
        READER.from_table({name: [GOOD[name]] for name in GOOD if name != "temp"})
    with pytest.raises(RowError, match=r"columns of \[1, 2\] rows"):
        NUMERIC.from_table({"a": [1], "b": [0, 1]})


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_unusual_is_counted_and_let_in(count):
    rows = [GOOD | {"carrier": "QQ", "distance": 6000, "temp": None, "origin": None}] * count
    columns = READER.from_records(rows)
    assert READER.unknown_categories(columns) == {"carrier": count}
    assert READER.out_of_range(columns) == {"distance": count}
    usual = READER.from_records([GOOD] * count)
    assert READER.unknown_categories(usual) == READER.out_of_range(usual) == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from([*GOOD, "x"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(
    st.lists(JSON, min_size=1, max_size=4), st.none() | st.lists(st.sampled_from([*GOOD, "x"]), max_size=5)
)
def test_whatever_comes_is_read_or_refused(rows, names):
    for read in (lambda: READER.from_records(rows), lambda: READER.from_matrix(rows, names)):
        try:
            columns = read()
        except RowError as error:
            assert "\n" not in str(error)
        else:
            assert all(column.shape == (len(rows), 1) for column in columns.values())


@given(st.lists(st.one_of(st.none(), st.floats(-(2.0**100), 2.0**100, width=32)), min_size=1, max_size=20))
def test_numbers_arrive_as_they_were_sent(values):
    column = READER.from_records([GOOD | {"temp": value} for value in values])["temp"][:, 0].tolist()
    assert [None if math.isnan(value) else value for value in column] == values
