"""The text format, and how its samples become an arm's counters."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryflow.delivery import dialects
from canaryflow.delivery.dialects import Tally
from canaryflow.delivery.exposition import ExpositionError, Sample, parse

REQUESTS = "envoy_cluster_upstream_rq"
TIMES = "envoy_cluster_upstream_rq_time_bucket"


def one(line: str) -> Sample:
    (sample,) = parse(line + "\n", {"m"})
    return sample


@pytest.mark.parametrize(
    ("line", "labels", "value"),
    [
        ("m 1", {}, 1.0),
        ("m{} 2e3 1700000000000", {}, 2000.0),
        ("  m { } 3", {}, 3.0),
        ('m{a="x",b="",} -0.5', {"a": "x", "b": ""}, -0.5),
        ('m{a="}, b=\\"c\\"\\n\\\\"} +Inf', {"a": '}, b="c"\n\\'}, math.inf),
        ('m{a="x" , b="y"} .5 # {trace="t"} 0.3 1700.5', {"a": "x", "b": "y"}, 0.5),
        ('m{a="äöü 猫"} 7', {"a": "äöü 猫"}, 7.0),
    ],
)
def test_lines_of_the_format(line: str, labels: dict[str, str], value: float) -> None:
    assert one(line) == Sample("m", labels, value)
    assert math.isnan(one("m NaN").value)


@pytest.mark.parametrize(
    "line",
    ["m", "m{", 'm{a="x" 1', 'm{a="x"b="y"} 1', "m{a=x} 1", 'm{a="\\q"} 1', 'm{a="1",a="2"} 1', "m{} 1x",
     "m{}", "m 1_000", "m 0x10", 'm{a="x} 1', "m 1 2 3", "m{} infinity"],
)  # fmt: skip
def test_a_mangled_line_is_refused_and_named(line: str) -> None:
    with pytest.raises(ExpositionError, match="line 2: "):
        list(parse(f"# TYPE m counter\n{line}\n", {"m"}))


def test_a_page_that_was_cut_off_is_refused() -> None:
    with pytest.raises(ExpositionError, match="cut off"):
        list(parse("m 1\nm 1", {"m"}))
    assert list(parse("", {"m"})) == []


def test_only_wanted_lines_are_looked_into() -> None:
    page = 'other{ 1\n# HELP m {"\nmm 3\nm_total 4\n{"m.x"} 5\nm 6\n\n# EOF\n'
    assert [sample.value for sample in parse(page, {"m"})] == [6]


LABELS = st.dictionaries(
    st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    max_size=4,
)


@given(LABELS, st.floats(allow_nan=False))
def test_what_is_written_is_read(labels: dict[str, str], value: float) -> None:
    def escape(text: str) -> str:
        return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

    text = ",".join(f'{name}="{escape(label)}"' for name, label in labels.items())
    (sample,) = parse(f"m{{{text}}} {value!r}\n", {"m"})
    assert (sample.labels, sample.value) == (labels, value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ExpositionError):
        list(parse(f"m{text}\n", {"m"}))


def page(main: int, canary: int | None, errors: int = 0, slow: int = 0) -> list[Sample]:
    """What Envoy says after so many requests."""
    samples = []
    for arm, count in (("main", main), ("canary", canary)):
        if count is None:
            continue
        name = {"envoy_cluster_name": f"default/iris/{arm}"}
        samples += [
            Sample(REQUESTS, name | {"envoy_response_code": "200"}, count - errors),
            Sample(REQUESTS, name | {"envoy_response_code": "503"}, errors),
            Sample(TIMES, name | {"le": "10"}, count - slow),
            Sample(TIMES, name | {"le": "+Inf"}, count),
        ]
    return samples


def test_envoys_names_become_counters() -> None:
    tally = Tally(dialects.envoy("default", "iris"))
    others = [
        Sample(
            REQUESTS, {"envoy_cluster_name": "default/iris/main/service", "envoy_response_code": "500"}, 9
        ),
        Sample(REQUESTS, {"envoy_cluster_name": "default/iris2/main", "envoy_response_code": "500"}, 9),
        Sample(REQUESTS, {"envoy_response_code": "500"}, 9),
    ]
    tally.add(page(1000, 50, errors=3, slow=7) + others)
    assert tally.counts("main") == (1000, 3, ((0.01, 993), (math.inf, 1000)))
    assert tally.counts("canary") == (50, 3, ((0.01, 43), (math.inf, 50)))
    assert Tally(dialects.envoy("default", "iris")).counts("main") is None


def test_counters_never_fall() -> None:
    tally = Tally(dialects.envoy("default", "iris"))
    seen = []
    for main, canary in ((100, None), (150, 10), (20, 30), (30, None), (40, 5)):
        tally.add(page(main, canary))
        counts = tally.counts("canary")
        seen.append((tally.counts("main")[0], counts[0] if counts else None))  # type: ignore[index]
    # 150 -> 20 is a restart; a canary that vanished and came back at 5 was born again.
    assert seen == [(100, None), (150, 10), (170, 30), (180, 30), (190, 35)]


def test_one_of_two_pods_that_restarts_hides_nothing() -> None:
    tally = Tally(dialects.server("default", "iris"))

    def pod(count: int) -> Sample:
        labels = {
            "deployment_name": "iris",
            "predictor_name": "main",
            "service": "predictions",
            "code": "200",
        }
        return Sample("seldon_api_executor_server_requests_seconds_count", labels, count)

    for origin, count in (("a", 1000), ("b", 1000), ("a", 30), ("b", 1040)):
        tally.add([pod(count)], origin)
    assert tally.counts("main") == (2070, 0, ())


def test_series_of_several_status_codes_share_one_histogram() -> None:
    tally = Tally(dialects.istio("default", "iris"))
    base = {
        "destination_service_name": "iris-canary",
        "destination_service_namespace": "default",
        "reporter": "source",
        "destination_workload": "unknown",
    }
    for code, count, under in (("200", 90, 80), ("503", 10, 1), ("404", 5, 5)):
        labels = base | {"response_code": code}
        tally.add([Sample("istio_requests_total", labels, count)])
        for edge, value in (("25", under), ("50", count), ("+Inf", count)):
            tally.add([Sample("istio_request_duration_milliseconds_bucket", labels | {"le": edge}, value)])
    elsewhere = base | {"destination_service_namespace": "other", "response_code": "200"}
    tally.add([Sample("istio_requests_total", elsewhere, 1000)])
    tally.add(
        [Sample("istio_requests_total", base | {"reporter": "destination", "response_code": "200"}, 999)]
    )
    assert tally.counts("canary") == (105, 10, ((0.025, 86), (0.05, 105), (math.inf, 105)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.5])
def test_a_value_that_is_no_count_is_refused_and_leaves_the_tally_as_it_was(value: float) -> None:
    tally = Tally(dialects.envoy("default", "iris"))
    tally.add(page(100, 10))
    broken = page(200, 20)
    broken[-1] = Sample(TIMES, broken[-1].labels, value)
    with pytest.raises(ValueError, match="expected a count"):
        tally.add(broken)
    assert tally.counts("main") == (100, 0, ((0.01, 100), (math.inf, 100)))


def test_a_histogram_that_does_not_rise_or_has_no_edges_is_refused() -> None:
    tally = Tally(dialects.envoy("default", "iris"))
    tally.add(page(100, 10, slow=-5))
    with pytest.raises(ValueError, match="at the edge inf s, expected at least 105"):
        tally.counts("main")
    with pytest.raises(ValueError, match="the label le"):
        tally.add([Sample(TIMES, {"envoy_cluster_name": "default/iris/main"}, 1)])


def test_series_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tally, "MOST_SERIES", 7)
    with pytest.raises(ValueError, match="more than 7 series"):
        Tally(dialects.envoy("default", "iris")).add(page(1, 1))
