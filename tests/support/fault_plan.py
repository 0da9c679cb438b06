"""FaultPlan: one of several forms of the service behind Envoy, written down before it runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from certificates import Authority
from envoy_process import cluster_of, connection_manager, envoy_config
from ports import a_port
from process_stack import Service, ServicePort
from redis_process import RedisProcess
from replica_stack import entry_of

ASSIGNMENT_TYPE = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
TLS_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
QUICK = ("--drain", "0.1", "--grace", "1")


class Form(StrEnum):
    """How the service runs, and how it is reached."""

    ONE = "one service, as shipped"
    GRPCIO = "one service, --transport grpcio"
    LOG = "one service, its access log by a connection of its own"
    FILE = "one service, endpoints in a file"
    TLS = "one service, reached by TLS"
    REPLICAS = "two replicas and a Redis"
    WORKERS = "serve --workers 2"


class FaultPlan:
    """The files, ports and commands of *form*.

    Attributes:
        ports: at which the services listen.
        seen_port: at which Envoy finds the only one, where something is between.
    """

    def __init__(
        self, form: Form, folder: Path, engines: Sequence[str], redis: RedisProcess | None
    ) -> None:
        self._form = form
        self._folder = folder
        self._engines = engines
        self._redis = redis
        self.ports = [a_port() for _ in range(2 if form in (Form.REPLICAS, Form.WORKERS) else 1)]
        self.has_way = form in (Form.LOG, Form.TLS)
        self.seen_port = a_port() if self.has_way else self.ports[0]
        self.endpoints_file = folder / "endpoints" / "engines.json" if form is Form.FILE else None
        self.tls_folder = folder / "served" if form is Form.TLS else None
        # Those of workers follow each other.
        self._admin_port = a_port() // 4 * 4

    def config(self, file: str) -> dict[str, Any]:
        """What Envoy and the service read, from the shipped *file*."""
        port = self.seen_port if self._form is Form.TLS else self.ports[0]
        return envoy_config(file, extproc_port=port, engines=self._engines, edit=self._edit)

    def _edit(self, config: dict[str, Any]) -> None:
        engines, ours = cluster_of(config, "engines"), cluster_of(config, "lodestar")
        block = engines["metadata"]["filter_metadata"]["lodestar"]
        if self._redis is not None:
            block["share"] = self._redis.url
        else:
            block |= {"checkpoint_path": str(self._folder / "learned")}
            block |= {"checkpoint_interval_s": 1.0, "journal_path": str(self._folder / "journal")}
        if len(self.ports) > 1:
            entries = [entry_of(port) for port in self.ports]
            ours["load_assignment"]["endpoints"] = [{"lb_endpoints": entries}]
        if self.endpoints_file is not None:
            self.endpoints_file.parent.mkdir()
            assign(self.endpoints_file, self._engines)
            _read_endpoints_from(engines, self.endpoints_file)
        if self.tls_folder is not None:
            ours["transport_socket"] = self._tls_socket(self.tls_folder)
        if self._form is Form.LOG:
            _log_by(config, self.seen_port)

    def _tls_socket(self, folder: Path) -> dict[str, Any]:
        """Has the service's pair written, and says how Envoy trusts it."""
        folder.mkdir()
        write_pair(authority := Authority(self._folder), folder)
        trusted = {"trusted_ca": {"filename": str(authority.certificate)}}
        common = {"alpn_protocols": ["h2"], "validation_context": trusted}
        context = {"@type": TLS_TYPE, "sni": "lodestar", "common_tls_context": common}
        return {"name": "envoy.transport_sockets.tls", "typed_config": context}

    def services(self, config_file: Path) -> list[Service]:
        """Those to be started."""
        if self._form is Form.REPLICAS:
            return [self._replica(config_file, port) for port in self.ports]
        options: tuple[str, ...] = QUICK
        if self._form is Form.WORKERS:
            options += ("--workers", str(len(self.ports)))
        if self._form is Form.GRPCIO:
            options += ("--transport", "grpcio")
        if self.has_way:
            options += ("--listen", f"127.0.0.1:{self.ports[0]}")
        if self.tls_folder is not None:
            options += ("--tls", str(self.tls_folder))
        return [Service(config_file, self._folder, self._admin_port, *options)]

    def _replica(self, config_file: Path, port: int) -> Service:
        own = self._folder / f"replica_{port}"
        own.mkdir()
        return Service(config_file, own, a_port(), "--listen", f"127.0.0.1:{port}", *QUICK)

    def watched(self, services: Sequence[Service]) -> list[ServicePort]:
        """The operators' ports of all who decide."""
        if self._form is not Form.WORKERS:
            return [*services]
        ports = [self._admin_port + i for i in range(len(self.ports))]
        return [ServicePort(f"http://127.0.0.1:{port}") for port in ports]


def assign(file: Path, addresses: Iterable[str]) -> None:
    """Have *file* assign *addresses* to the engines' cluster, by renaming, as Envoy wants it."""
    hosts = [address.rpartition(":") for address in addresses]
    entries = [
        {"endpoint": {"address": {"socket_address": {"address": h, "port_value": int(p)}}}}
        for h, _, p in hosts
    ]
    assignment = {
        "@type": ASSIGNMENT_TYPE,
        "cluster_name": "engines",
        "endpoints": [{"lb_endpoints": entries}] if entries else [],
    }
    replace(file, json.dumps({"version_info": "1", "resources": [assignment]}))


def replace(file: Path, content: str) -> None:
    """Have *file* hold *content*, by renaming."""
    new = file.with_name("new.json")
    new.write_text(content)
    new.replace(file)


def write_pair(authority: Authority, folder: Path) -> None:
    """A new certificate of *authority* for the service, and its key, in *folder*."""
    signed = authority.sign("lodestar", "lodestar")
    (folder / "tls.crt").write_bytes(signed.certificate.read_bytes())
    (folder / "tls.key").write_bytes(signed.key.read_bytes())


def _read_endpoints_from(cluster: dict[str, Any], file: Path) -> None:
    del cluster["load_assignment"]
    source = {"path": str(file), "watched_directory": {"path": str(file.parent)}}
    config = {"path_config_source": source, "resource_api_version": "V3"}
    cluster |= {"type": "EDS", "eds_cluster_config": {"eds_config": config}}
    # As envoy/variants/eds.yaml has it.
    cluster["common_lb_config"] = {"healthy_panic_threshold": {"value": 1}}


def _log_by(config: dict[str, Any], port: int) -> None:
    """The access log goes by a cluster of its own, at *port*."""
    clusters = config["static_resources"]["clusters"]
    own = json.loads(json.dumps(cluster_of(config, "lodestar")))
    own["name"] = "log"
    own["load_assignment"] = {"cluster_name": "log"}
    own["load_assignment"]["endpoints"] = [{"lb_endpoints": [entry_of(port)]}]
    del own["health_checks"]
    clusters.append(own)
    (log,) = connection_manager(config)["access_log"]
    service = log["typed_config"]["common_config"]["grpc_service"]
    service["envoy_grpc"]["cluster_name"] = "log"
