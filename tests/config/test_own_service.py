"""Which of the services that an Envoy calls is ours; the others are nobody's business of ours."""

import pytest

from envoy_files import (
    EXTENSIONS,
    MARKED,
    PER_ROUTE,
    bootstrap,
    calls,
    cluster,
    engines,
    ext_proc,
    grpc_cluster,
    grpc_log,
    listener,
    manager,
    route,
    route_table,
    written,
)
from lodestar_extproc.config import ConfigError, read_envoy_config
from lodestar_extproc.service.listen import listen_addresses

GUARD = grpc_cluster("guardrail", 9100)
OURS = grpc_cluster("lodestar", 9002)
TOOLS = {**grpc_cluster("tools", 9200)}


def read(folder, listeners, clusters, listen=()):
    return read_envoy_config(written(folder, bootstrap(listeners, clusters)), listen)


def decide(target="lodestar", name="lodestar.decide", **more):
    return ext_proc(name, target, chooses=True, **more)


def guard(target="guardrail", **more):
    return ext_proc("guardrail", target, failure_mode_allow=False, **more)


def test_guardrail_on_another_listener_is_not_bound(tmp_path):
    guarded = listener(manager(guard(), table=route_table(route("tools"))), "tools")
    config = read(tmp_path, [guarded, listener(manager(decide()))], [engines(), OURS, GUARD, TOOLS])

    assert config.extproc_address == "127.0.0.1:9002"
    assert listen_addresses(config) == ("127.0.0.1:9002",)
    assert [f.name for f in config.own_service.others] == ["guardrail"]


def test_guardrail_before_ours_on_the_same_listener_is_not_bound(tmp_path):
    config = read(tmp_path, [listener(manager(guard(), decide()))], [engines(), OURS, GUARD])

    assert config.extproc_address == "127.0.0.1:9002"
    assert config.sources.request_body_mode == "BUFFERED"


def test_access_log_of_somebody_else_is_neither_bound_nor_read(tmp_path):
    audit = grpc_cluster("audit", 9300)
    config = read(
        tmp_path, [listener(manager(decide(), logs=(grpc_log("audit"),)))], [engines(), OURS, audit]
    )

    assert config.access_log_address is None
    assert config.sources.access_log_tags is None
    assert listen_addresses(config) == ("127.0.0.1:9002",)


def test_our_access_log_is_found_behind_somebody_elses(tmp_path):
    logs = (grpc_log("audit"), grpc_log("lodestar"))
    config = read(
        tmp_path,
        [listener(manager(decide(), logs=logs))],
        [engines(), OURS, grpc_cluster("audit", 9300)],
    )

    assert config.access_log_address == "127.0.0.1:9002"


@pytest.mark.parametrize("more", [{"metadata": MARKED}, {"port": 9002}])
def test_second_cluster_of_ours_is_ours_by_its_mark_or_its_address(tmp_path, more):
    logs = grpc_cluster("log-sink", **{"port": 9005, **more})
    config = read(
        tmp_path,
        [listener(manager(decide(), logs=(grpc_log("log-sink"),)))],
        [engines(), OURS, logs],
    )

    assert config.access_log_address == ("127.0.0.1:9002" if "port" in more else "127.0.0.1:9005")
    assert config.extproc_address == "127.0.0.1:9002"


def test_same_port_on_another_host_is_another_service(tmp_path):
    elsewhere = grpc_cluster("classifier", 9002, host="10.0.0.9")
    config = read(
        tmp_path,
        [listener(manager(ext_proc("classify", "classifier"), decide(target="router")))],
        [engines(), grpc_cluster("router", 9002), elsewhere],
    )

    assert config.extproc_address == "127.0.0.1:9002"
    assert config.own_service.names == {"router"}


def test_two_filters_that_may_choose_are_told_apart_by_our_name_or_not_at_all(tmp_path):
    semantic = grpc_cluster("semantic-router", 9400)
    both = [listener(manager(decide("semantic-router", "semantic"), decide()))]
    config = read(tmp_path, both, [engines(), OURS, semantic])
    assert config.extproc_address == "127.0.0.1:9002"

    alike = [listener(manager(decide("semantic-router", "semantic"), decide("picker", "pick")))]
    config = read(tmp_path, alike, [engines(), semantic, grpc_cluster("picker", 9002)])
    assert config.extproc_address is None
    assert config.sources.request_body_mode == ""


@pytest.mark.parametrize(
    ("listen", "host"),
    [
        ("127.0.0.1:9002", "127.0.0.1"),
        ("0.0.0.0:9002", "127.0.0.1"),
        ("[::]:9002", "10.0.0.5"),
        ("10.0.0.5:9002", "picker.local"),
    ],
)
def test_where_we_listen_tells_who_we_are(tmp_path, listen, host):
    alike = [listener(manager(decide("semantic-router", "semantic"), decide("picker", "pick")))]
    clusters = [
        engines(),
        grpc_cluster("semantic-router", 9400),
        grpc_cluster("picker", 9002, host),
    ]

    config = read(tmp_path, alike, clusters, [listen])

    assert config.own_service.names == {"picker"}
    assert config.extproc_address == f"{host}:9002"


def test_a_mark_tells_who_we_are_and_makes_no_pool(tmp_path):
    alike = [listener(manager(decide("semantic-router", "semantic"), decide("picker", "pick")))]
    picker = grpc_cluster("picker", 9002, metadata=MARKED)
    config = read(tmp_path, alike, [engines(), grpc_cluster("semantic-router", 9400), picker])

    assert config.own_service.names == {"picker"}
    assert [pool.name for pool in config.pools] == ["engines"]


def test_only_filter_is_not_ours_where_nothing_says_so(tmp_path):
    config = read(tmp_path, [listener(manager(guard()))], [engines(), GUARD])

    assert config.extproc_address is None
    with pytest.raises(ValueError, match=r"which ext_proc filter asks Lodestar\?") as refused:
        listen_addresses(config)
    assert "guardrail (line " in str(refused.value)
    assert "filter_metadata: {lodestar: {service: true}}" in str(refused.value)
    assert "--listen" in str(refused.value)


def test_filter_that_may_choose_but_sees_no_pool_is_not_ours(tmp_path):
    other = listener(manager(decide("picker", "pick"), table=route_table(route("tools"))), "other")
    config = read(
        tmp_path,
        [other, listener(manager(guard()))],
        [engines(), GUARD, TOOLS, grpc_cluster("picker")],
    )

    assert config.extproc_address is None
    assert len(config.own_service.others) == 2


def test_ours_on_two_listeners_is_one_service(tmp_path):
    two = [listener(manager(decide()), "a"), listener(manager(decide()), "b")]
    config = read(tmp_path, two, [engines(), OURS])

    assert listen_addresses(config) == ("127.0.0.1:9002",)
    assert not config.own_service.others


def test_service_that_only_a_route_names_is_found(tmp_path):
    override = {"@type": PER_ROUTE, "overrides": {"grpc_service": calls("lodestar")}}
    table = route_table(route(typed_per_filter_config={"gate": override}))
    gate = ext_proc("gate", "guardrail", chooses=True)
    config = read(tmp_path, [listener(manager(gate, table=table))], [engines(), OURS, GUARD])

    assert config.extproc_address == "127.0.0.1:9002"
    assert config.own_service.names == {"lodestar"}


def test_ext_authz_is_no_ext_proc(tmp_path):
    authz = {
        "name": "authz",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "grpc_service": calls("guardrail"),
        },
    }
    config = read(tmp_path, [listener(manager(authz, decide()))], [engines(), OURS, GUARD])

    assert config.own_service.names == {"lodestar"}
    assert not config.own_service.others


def test_abstract_socket_is_no_file(tmp_path):
    pipe = {"endpoint": {"address": {"pipe": {"path": "@lodestar/ext_proc"}}}}
    ours = grpc_cluster("lodestar")
    ours["load_assignment"]["endpoints"] = [{"lb_endpoints": [pipe]}]
    config = read(tmp_path, [listener(manager(decide()))], [engines(), ours])

    assert listen_addresses(config) == ("unix-abstract:lodestar/ext_proc",)


def test_setting_beside_the_mark_is_refused(tmp_path):
    both = {"filter_metadata": {"lodestar": {"service": True, "policy": "random"}}}
    ours = grpc_cluster("lodestar", metadata=both)

    with pytest.raises(ConfigError, match="this cluster is Lodestar itself") as refused:
        read(tmp_path, [listener(manager(decide()))], [engines(), ours])
    assert refused.value.key.endswith("lodestar.policy")


def aggregate(*names):
    kind = f"{EXTENSIONS}.clusters.aggregate.v3.ClusterConfig"
    config = {"@type": kind, "clusters": list(names)}
    made = cluster("all", cluster_type={"name": "aggregate", "typed_config": config})
    del made["type"]
    return made | {"lb_policy": "CLUSTER_PROVIDED"}


def test_filter_in_front_of_an_aggregate_of_pools_is_ours(tmp_path):
    asks = listener(manager(decide("picker", "pick"), table=route_table(route("all"))))
    clusters = [engines(), TOOLS, aggregate("tools", "engines"), grpc_cluster("picker")]
    config = read(tmp_path, [asks], clusters)

    assert config.own_service.names == {"picker"}


def test_filter_in_front_of_an_aggregate_of_others_is_not_ours(tmp_path):
    asks = listener(manager(decide("picker", "pick"), table=route_table(route("all"))))
    config = read(tmp_path, [asks], [engines(), TOOLS, aggregate("tools"), grpc_cluster("picker")])

    assert config.own_service.problem


def test_filter_in_front_of_a_cluster_of_a_control_plane_may_be_ours(tmp_path):
    asks = listener(manager(decide("picker", "pick"), table=route_table(route("from-xds"))))
    config = read(tmp_path, [asks], [engines(), grpc_cluster("picker")])

    assert config.own_service.names == {"picker"}


def test_our_name_alone_is_enough_where_no_route_to_a_pool_is_seen(tmp_path):
    asks = listener(manager(guard(), decide(), table=route_table(route("tools"))))
    config = read(tmp_path, [asks], [engines(), TOOLS, GUARD, OURS])

    assert config.own_service.names == {"lodestar"}
