"""bootstrap(): envoy/envoy.yaml for one run of the demo, built from Envoy's own message types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import envoy_data_plane.envoy.config.accesslog.v3 as accesslog
import envoy_data_plane.envoy.config.bootstrap.v3 as bootstrap_v3
import envoy_data_plane.envoy.config.cluster.v3 as cluster_v3
import envoy_data_plane.envoy.config.core.v3 as core
import envoy_data_plane.envoy.config.endpoint.v3 as endpoint_v3
import envoy_data_plane.envoy.config.listener.v3 as listener_v3
import envoy_data_plane.envoy.config.route.v3 as route_v3
import envoy_data_plane.envoy.extensions.access_loggers.grpc.v3 as grpc_log
import envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 as ext_proc
import envoy_data_plane.envoy.extensions.filters.http.router.v3 as router_v3
import envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 as manager_v3
import envoy_data_plane.envoy.extensions.load_balancing_policies.least_request.v3 as least_request
import envoy_data_plane.envoy.extensions.load_balancing_policies.override_host.v3 as override_host
import envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 as previous_hosts
import envoy_data_plane.envoy.extensions.upstreams.http.v3 as upstream_http
import envoy_data_plane.envoy.type.metadata.v3 as metadata_v3
import envoy_data_plane.envoy.type.tracing.v3 as tracing
import envoy_data_plane.envoy.type.v3 as type_v3
from envoy_data_plane.google.protobuf import Any as AnyMessage
from envoy_data_plane.google.protobuf import Struct

from lodestar_extproc import names

POOL = "engines"
LODESTAR = "lodestar"
BUFFER_BYTES = 32 * 2**20  # as in envoy/envoy.yaml
MANY = 65_536  # connections and requests: no limit of Envoy's is to decide a comparison
TAGS = MappingProxyType(
    {
        names.TAG_TTFT: "%COMMON_DURATION(US_TX_BEG:US_RX_BODY_BEG:us)%",
        names.TAG_DURATION: "%COMMON_DURATION(US_TX_BEG:US_RX_END:us)%",
        names.TAG_DECISION: f"%DYNAMIC_METADATA({names.METADATA_NAMESPACE}:{names.DECISION_ID})%",
        names.TAG_STREAM: f"%DYNAMIC_METADATA({names.METADATA_NAMESPACE}:{names.STREAM_ID})%",
        names.TAG_FLAGS: "%RESPONSE_FLAGS%",
    }
)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens, on loopback; 0 for any port; ext_proc may be a socket's path."""

    listener: int
    envoy_admin: int
    ext_proc: int | str
    lodestar_admin: int


def bootstrap(
    ports: Ports, engines: Sequence[tuple[str, str]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The configuration as JSON types.

    Args:
        engines: (`ip:port`, accelerator) of each.
        settings: the pool's block.
    """
    made = bootstrap_v3.Bootstrap(
        node=core.Node(id="lodestar-demo", cluster="lodestar-demo"),
        admin=bootstrap_v3.Admin(address=_address(ports.envoy_admin)),
        static_resources=bootstrap_v3.BootstrapStaticResources(
            listeners=[_listener(ports.listener)],
            clusters=[_engines(engines, settings), _lodestar(ports.ext_proc)],
        ),
    )
    return dict(made.to_dict())


def _listener(port: int) -> listener_v3.Listener:
    manager = manager_v3.HttpConnectionManager(
        stat_prefix="openai",
        always_set_request_id_in_response=True,
        stream_idle_timeout=timedelta(hours=1),
        request_timeout=timedelta(0),
        access_log=[_access_log()],
        route_config=_routes(),
        http_filters=[
            manager_v3.HttpFilter(name="lodestar.decide", typed_config=_any(_decide())),
            manager_v3.HttpFilter(name="lodestar.observe", typed_config=_any(_observe())),
            manager_v3.HttpFilter(
                name="envoy.filters.http.router", typed_config=_any(router_v3.Router())
            ),
        ],
    )
    chain = listener_v3.FilterChain(
        filters=[
            listener_v3.Filter(
                name="envoy.filters.network.http_connection_manager", typed_config=_any(manager)
            )
        ]
    )
    return listener_v3.Listener(
        name="openai",
        address=_address(port),
        per_connection_buffer_limit_bytes=BUFFER_BYTES,
        filter_chains=[chain],
    )


def _access_log() -> accesslog.AccessLog:
    common = grpc_log.CommonGrpcAccessLogConfig(
        log_name="lodestar",
        transport_api_version=core.ApiVersion.V3,
        grpc_service=_grpc(),
        buffer_flush_interval=timedelta(seconds=0.1),
        buffer_size_bytes=16384,
        custom_tags=[tracing.CustomTag(tag=tag, value=value) for tag, value in TAGS.items()],
    )
    config = grpc_log.HttpGrpcAccessLogConfig(common_config=common)
    return accesslog.AccessLog(name="envoy.access_loggers.http_grpc", typed_config=_any(config))


def _routes() -> route_v3.RouteConfiguration:
    retry = route_v3.RetryPolicy(
        retry_on="connect-failure,refused-stream,reset-before-request,retriable-status-codes",
        retriable_status_codes=[503],
        num_retries=2,
        host_selection_retry_max_attempts=5,
        retry_back_off=route_v3.RetryPolicyRetryBackOff(
            base_interval=timedelta(seconds=0.01), max_interval=timedelta(seconds=0.05)
        ),
        retry_host_predicate=[
            route_v3.RetryPolicyRetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=_any(previous_hosts.PreviousHostsPredicate()),
            )
        ],
    )
    route = route_v3.Route(
        match=route_v3.RouteMatch(prefix="/"),
        route=route_v3.RouteAction(cluster=POOL, timeout=timedelta(0), retry_policy=retry),
    )
    host = route_v3.VirtualHost(name="openai", domains=["*"], routes=[route])
    return route_v3.RouteConfiguration(name="openai", virtual_hosts=[host])


def _decide() -> ext_proc.ExternalProcessor:
    mode = ext_proc.ProcessingMode(
        request_header_mode=ext_proc.ProcessingModeHeaderSendMode.SEND,
        request_body_mode=ext_proc.ProcessingModeBodySendMode.BUFFERED,
        response_header_mode=ext_proc.ProcessingModeHeaderSendMode.SKIP,
    )
    return ext_proc.ExternalProcessor(
        grpc_service=_grpc(),
        processing_mode=mode,
        message_timeout=timedelta(seconds=0.5),
        failure_mode_allow=True,
        request_attributes=["xds.cluster_name"],
        route_cache_action=ext_proc.ExternalProcessorRouteCacheAction.RETAIN,
        metadata_options=ext_proc.MetadataOptions(receiving_namespaces=_our_metadata()),
    )


def _observe() -> ext_proc.ExternalProcessor:
    mode = ext_proc.ProcessingMode(
        request_header_mode=ext_proc.ProcessingModeHeaderSendMode.SKIP,
        response_header_mode=ext_proc.ProcessingModeHeaderSendMode.SKIP,
        response_body_mode=ext_proc.ProcessingModeBodySendMode.STREAMED,
    )
    return ext_proc.ExternalProcessor(
        grpc_service=_grpc(),
        processing_mode=mode,
        observability_mode=True,
        failure_mode_allow=True,
        response_attributes=["upstream.address", "response.code"],
        metadata_options=ext_proc.MetadataOptions(forwarding_namespaces=_our_metadata()),
    )


def _our_metadata() -> ext_proc.MetadataOptionsMetadataNamespaces:
    return ext_proc.MetadataOptionsMetadataNamespaces(untyped=[names.METADATA_NAMESPACE])


def _engines(engines: Sequence[tuple[str, str]], settings: Mapping[str, Any]) -> cluster_v3.Cluster:
    check = core.HealthCheck(
        timeout=timedelta(seconds=1),
        interval=timedelta(seconds=2),
        no_traffic_interval=timedelta(seconds=2),
        unhealthy_threshold=2,
        healthy_threshold=1,
        http_health_check=core.HealthCheckHttpHealthCheck(path="/health"),
    )
    limits = cluster_v3.CircuitBreakersThresholds(
        max_connections=MANY, max_pending_requests=MANY, max_requests=MANY, max_retries=256
    )
    return cluster_v3.Cluster(
        name=POOL,
        type=cluster_v3.ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=0.5),
        metadata=core.Metadata(filter_metadata={"lodestar": Struct.from_dict(dict(settings))}),
        load_assignment=_assignment(POOL, [_engine(*engine) for engine in engines]),
        load_balancing_policy=_policy("override_host", _override_host()),
        health_checks=[check],
        circuit_breakers=cluster_v3.CircuitBreakers(thresholds=[limits]),
        # vLLM closes idle connections after 5 s; Envoy closes first.
        typed_extension_protocol_options=_http(
            explicit_http_config=upstream_http.HttpProtocolOptionsExplicitHttpConfig(
                http_protocol_options=core.Http1ProtocolOptions()
            ),
            common_http_protocol_options=core.HttpProtocolOptions(
                idle_timeout=timedelta(seconds=4)
            ),
        ),
    )


def _engine(address: str, accelerator: str) -> endpoint_v3.LbEndpoint:
    about = Struct.from_dict({"accelerator": accelerator})
    return endpoint_v3.LbEndpoint(
        endpoint=endpoint_v3.Endpoint(address=_address(int(address.rpartition(":")[2]))),
        metadata=core.Metadata(filter_metadata={"lodestar": about}),
    )


def _override_host() -> override_host.OverrideHost:
    destination = metadata_v3.MetadataKeyPathSegment(key=names.DESTINATION)
    source = metadata_v3.MetadataKey(key=names.METADATA_NAMESPACE, path=[destination])
    return override_host.OverrideHost(
        override_host_sources=[override_host.OverrideHostOverrideHostSource(metadata=source)],
        fallback_policy=_policy("least_request", least_request.LeastRequest()),
    )


def _policy(name: str, config: Any) -> cluster_v3.LoadBalancingPolicy:
    extension = core.TypedExtensionConfig(
        name=f"envoy.load_balancing_policies.{name}", typed_config=_any(config)
    )
    policy = cluster_v3.LoadBalancingPolicyPolicy(typed_extension_config=extension)
    return cluster_v3.LoadBalancingPolicy(policies=[policy])


def _lodestar(port: int | str) -> cluster_v3.Cluster:
    check = core.HealthCheck(
        timeout=timedelta(seconds=0.3),
        interval=timedelta(seconds=0.5),
        no_traffic_interval=timedelta(seconds=0.5),
        unhealthy_threshold=2,
        healthy_threshold=1,
        grpc_health_check=core.HealthCheckGrpcHealthCheck(),
    )
    limits = cluster_v3.CircuitBreakersThresholds(
        max_connections=1024, max_pending_requests=MANY, max_requests=MANY
    )
    return cluster_v3.Cluster(
        name=LODESTAR,
        type=cluster_v3.ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=0.25),
        load_assignment=_assignment(
            LODESTAR,
            [endpoint_v3.LbEndpoint(endpoint=endpoint_v3.Endpoint(address=_address(port)))],
        ),
        health_checks=[check],
        common_lb_config=cluster_v3.ClusterCommonLbConfig(
            healthy_panic_threshold=type_v3.Percent(value=0)
        ),
        circuit_breakers=cluster_v3.CircuitBreakers(thresholds=[limits]),
        typed_extension_protocol_options=_http(
            explicit_http_config=upstream_http.HttpProtocolOptionsExplicitHttpConfig(
                http2_protocol_options=core.Http2ProtocolOptions()
            )
        ),
    )


def _http(**options: Any) -> dict[str, AnyMessage]:
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {name: _any(upstream_http.HttpProtocolOptions(**options))}


def _assignment(
    name: str, endpoints: list[endpoint_v3.LbEndpoint]
) -> endpoint_v3.ClusterLoadAssignment:
    locality = endpoint_v3.LocalityLbEndpoints(lb_endpoints=endpoints)
    return endpoint_v3.ClusterLoadAssignment(cluster_name=name, endpoints=[locality])


def _grpc() -> core.GrpcService:
    return core.GrpcService(envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=LODESTAR))


def _address(port: int | str) -> core.Address:
    if isinstance(port, str):
        return core.Address(pipe=core.Pipe(path=port))
    return core.Address(socket_address=core.SocketAddress(address="127.0.0.1", port_value=port))


def _any(message: Any) -> AnyMessage:
    return AnyMessage.pack(message)
