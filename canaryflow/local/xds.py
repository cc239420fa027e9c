"""What Envoy is told, as xDS documents: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Document = dict[str, Any]

ARM_HEADER = "x-canaryflow-predictor"

# Milliseconds. Envoy's upstream_rq_time is a whole number of them, kept in bins of two digits, and an edge
# counts the whole bin that it is in: these edges are the ends of bins, so that every count is exact.
LATENCY_EDGES = (
    0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 11, 13, 15, 18, 21, 25, 30, 35, 40, 50,
    65, 80, 99, 149, 249, 499, 999, 2499, 4999, 9999,
)  # fmt: skip

_TYPE = "type.googleapis.com/envoy."
_ROUTES = "gateway"

# Only what cannot have reached a server is tried again: a request that was begun is never sent twice.
_RETRIES = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 3,
    "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"},
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": _TYPE + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": 3,
}


class Arm(NamedTuple):
    """One predictor of one SeldonDeployment."""

    namespace: str
    name: str
    predictor: str

    @property
    def cluster(self) -> str:
        """The cluster that carries the gateway's traffic: what its statistics are named by."""
        return "/".join(self)

    @property
    def service_cluster(self) -> str:
        """The cluster behind the predictor's own Service, apart: those requests are no users'."""
        return f"{self.cluster}/service"


Weights = Mapping[tuple[str, str], Mapping[str, int]]


def bootstrap(folder: Path, admin_port: int) -> Document:
    """Envoy's own configuration: an admin port, and all else from files."""
    return {
        "node": {"id": "canaryflow", "cluster": "canaryflow"},
        "admin": {"address": _address(admin_port)},
        "dynamic_resources": {
            "lds_config": _file(folder / "lds.json"),
            "cds_config": _file(folder / "cds.json"),
        },
        # Histograms are merged at every flush, counters are read at once: a short interval keeps them close.
        "stats_flush_interval": "0.25s",
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"prefix": "cluster."}, "buckets": [float(e) for e in LATENCY_EDGES]}
            ]
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": _TYPE + "extensions.resource_monitors.downstream_connections.v3."
                        "DownstreamConnectionsConfig",
                        "max_active_downstream_connections": "10000",
                    },
                }
            ]
        },
    }


def listeners(folder: Path, port: int, services: Mapping[Arm, int]) -> list[Document]:
    """The gateway's listener, and one for each predictor's Service."""
    gateway = {"rds": {"route_config_name": _ROUTES, "config_source": _file(folder / "rds.json")}}
    return [
        _listener(_ROUTES, port, gateway),
        *(
            _listener(arm.service_cluster, own, {"route_config": _service_routes(arm)})
            for arm, own in services.items()
        ),
    ]


def clusters(folder: Path, arms: Iterable[Arm]) -> list[Document]:
    """Two clusters for each predictor, with the same endpoints."""
    return [_cluster(name, arm, folder) for arm in arms for name in (arm.cluster, arm.service_cluster)]


def routes(weights: Weights) -> list[Document]:
    """``/seldon/<namespace>/<name>/`` to the predictors by weight, the prefix rewritten to ``/``."""
    found = [
        {
            "match": {"prefix": f"/seldon/{namespace}/{name}/"},
            "route": {
                "weighted_clusters": {
                    "clusters": [
                        {"name": arm.cluster, "weight": weight, "response_headers_to_add": _arm_header(arm)}
                        for predictor, weight in shares.items()
                        if weight > 0 and (arm := Arm(namespace, name, predictor))
                    ]
                },
                "prefix_rewrite": "/",
                "timeout": "30s",
                "retry_policy": _RETRIES,
            },
        }
        for (namespace, name), shares in weights.items()
    ]
    host = {"name": _ROUTES, "domains": ["*"], "routes": found}
    return [{"@type": _TYPE + "config.route.v3.RouteConfiguration", "name": _ROUTES, "virtual_hosts": [host]}]


def endpoints(arm: Arm, ports: Sequence[int]) -> list[Document]:
    """The ready pods of a predictor."""
    pods = [{"endpoint": {"address": _address(port)}} for port in ports]
    return [
        {
            "@type": _TYPE + "config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": arm.cluster,
            "endpoints": [{"lb_endpoints": pods}] if pods else [],
        }
    ]


def endpoints_folder(folder: Path) -> Path:
    """Where the endpoints of all predictors are read from."""
    return folder / "eds"


def endpoints_file(folder: Path, arm: Arm) -> Path:
    """Where a predictor's endpoints are read from."""
    return endpoints_folder(folder) / f"{'.'.join(arm)}.json"


def _address(port: int) -> Document:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _file(path: Path) -> Document:
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


def _arm_header(arm: Arm) -> list[Document]:
    header = {"key": ARM_HEADER, "value": arm.predictor}
    return [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]


def _service_routes(arm: Arm) -> Document:
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": arm.service_cluster, "timeout": "30s", "retry_policy": _RETRIES},
        "response_headers_to_add": _arm_header(arm),
    }
    host = {"name": arm.service_cluster, "domains": ["*"], "routes": [route]}
    return {"name": arm.service_cluster, "virtual_hosts": [host]}


def _listener(name: str, port: int, how_to_route: Document) -> Document:
    manager = {
        "@type": _TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        **how_to_route,
        "http_filters": [
            {"name": "router", "typed_config": {"@type": _TYPE + "extensions.filters.http.router.v3.Router"}}
        ],
        "common_http_protocol_options": {"idle_timeout": "60s"},
        "request_timeout": "30s",
        "request_headers_timeout": "10s",
    }
    return {
        "@type": _TYPE + "config.listener.v3.Listener",
        "name": name,
        "enable_reuse_port": False,
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _cluster(name: str, arm: Arm, folder: Path) -> Document:
    return {
        "@type": _TYPE + "config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "eds_cluster_config": {"eds_config": _file(endpoints_file(folder, arm)), "service_name": arm.cluster},
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 4096,
                    "max_pending_requests": 4096,
                    "max_requests": 4096,
                    "max_retries": 1024,
                }
            ]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                # Well under the time after which a server closes an idle connection: a race loses a request.
                "common_http_protocol_options": {"idle_timeout": "4s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }
