"""The command `serve`: the external processor, configured from the Envoy YAML or for a gateway."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar_extproc.commands.access_options import (
    AdminClientCaOption,
    AdminHostOption,
    AdminTlsOption,
    AdminTokenOption,
    ClientCaOption,
    TlsOption,
    admin_access_of,
    tls_of,
)
from lodestar_extproc.commands.configuration import config_of, warn_of_unread, watched_by
from lodestar_extproc.commands.log_format import FORMATS, configure_logging
from lodestar_extproc.commands.option_values import listen_address, listen_addresses
from lodestar_extproc.commands.run_workers import keep_workers
from lodestar_extproc.commands.say import complain
from lodestar_extproc.service.worker import own_place
from lodestar_extproc.transport.choice import DEFAULT_TRANSPORT

if TYPE_CHECKING:
    from lodestar_extproc.config import Config
    from lodestar_extproc.service.app import App
    from lodestar_extproc.service.options import ServeOptions

log = logging.getLogger(__name__)

BAD_CONFIG, CANNOT_LISTEN = 2, 3  # exit statuses
MAX_WORKERS = 64
"""A judgement: what one adds is taken by what each hears of all others long before."""
SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


_EnvoyConfig = Annotated[Path | None, typer.Option(help="The Envoy YAML or JSON that Envoy runs.")]
_InferencePool = Annotated[
    str | None, typer.Option(help="Take the endpoints from this InferencePool.")
]
_PoolGroup = Annotated[
    str,
    typer.Option(
        help="The pool's API group; inference.networking.x-k8s.io for v1alpha2.  "
        "[default: inference.networking.k8s.io]"
    ),
]
_Service = Annotated[
    str | None,
    typer.Option(help="Take the endpoints from this Kubernetes Service, NAME or NAME:PORT."),
]
_Namespace = Annotated[
    str, typer.Option(help="Of the pool or the Service.  [default: the one we run in]")
]
_Settings = Annotated[
    Path | None,
    typer.Option(help="YAML with the pool's settings, where there is no Envoy configuration."),
]
_AccessLog = Annotated[
    bool, typer.Option(help="Without an Envoy configuration: its access log is sent to us.")
]
_Listen = Annotated[
    list[str] | None,
    typer.Option(
        help="Address for Envoy instead of the configuration's; may be repeated.",
        callback=listen_addresses,
    ),
]
_Transport = Annotated[
    str,
    typer.Option(
        help="What carries gRPC: asyncio, an HTTP/2 server of our own, or grpcio, gRPC's own "
        "library, which takes twice the CPU."
    ),
]
_Health = Annotated[
    list[str] | None,
    typer.Option(
        help="Further address for gRPC health checks alone; may be repeated.",
        callback=listen_addresses,
    ),
]
_Admin = Annotated[
    str,
    typer.Option(
        help="Address of metrics, readiness, dashboard and explanations.", callback=listen_address
    ),
]
_Peer = Annotated[
    list[str] | None,
    typer.Option(
        help="HOST:PORT of other replicas, beside those in Envoy's cluster for us; a name stands "
        "for all its addresses. May be repeated."
    ),
]
_AliasMetrics = Annotated[
    bool, typer.Option(help="Show metrics under the names of other endpoint pickers, too.")
]
_Tracing = Annotated[
    bool,
    typer.Option(help="Send spans by OTLP, where OTEL_EXPORTER_OTLP_ENDPOINT says."),
]
_Workers = Annotated[
    int,
    typer.Option(
        min=1,
        max=MAX_WORKERS,
        help="Processes on the same addresses, each on a core of its own; --admin counts up from "
        "its port. They share what they know; with as many addresses as workers each has its own.",
    ),
]
_Drain = Annotated[float, typer.Option(min=0, help="Seconds to serve on once health checks fail.")]
_Grace = Annotated[float, typer.Option(min=0, help="Seconds open streams may take to end.")]
_LogLevel = Annotated[
    str, typer.Option(help="debug, with a line for each exchange; info; warning; error.")
]

_LogFormat = Annotated[str, typer.Option(help="text, or json: one object a line.")]


def serve(  # noqa: PLR0913  (the command's options)
    *,
    envoy_config: _EnvoyConfig = None,
    inference_pool: _InferencePool = None,
    pool_group: _PoolGroup = "",
    service: _Service = None,
    namespace: _Namespace = "",
    settings: _Settings = None,
    access_log: _AccessLog = False,
    listen: _Listen = None,
    tls: TlsOption = "off",
    tls_client_ca: ClientCaOption = None,
    transport: _Transport = DEFAULT_TRANSPORT,
    health: _Health = None,
    peer: _Peer = None,
    admin: _Admin = "127.0.0.1:9090",
    admin_tls: AdminTlsOption = None,
    admin_client_ca: AdminClientCaOption = None,
    admin_token: AdminTokenOption = None,
    admin_host: AdminHostOption = None,
    alias_metrics: _AliasMetrics = False,
    tracing: _Tracing = False,
    workers: _Workers = 1,
    drain: _Drain = 1.0,
    grace: _Grace = 5.0,
    log_level: _LogLevel = "info",
    log_format: _LogFormat = "text",
) -> None:
    """Choose an endpoint for every request Envoy asks about, and learn from the answers.

    With --envoy-config, pools are the clusters of the Envoy configuration that carry
    metadata.filter_metadata.lodestar. With --inference-pool or --service, endpoints come from
    Kubernetes; alone, for a gateway that configures its own Envoys, or beside --envoy-config.
    Files are watched, and good changes apply at once.

    Exit status: 0 stopped by a signal, 2 the configuration is wrong, 3 an address is taken,
    4 stopped by a signal, but something hung and was left.

    Examples:

        lodestar-extproc serve --envoy-config envoy/envoy.yaml

        lodestar-extproc serve --envoy-config /etc/envoy/envoy.yaml --service vllm:http

        lodestar-extproc serve --inference-pool vllm --settings settings.yaml --tls self-signed

        lodestar-extproc serve --envoy-config envoy/envoy.yaml --workers 4
    """
    watched = watched_by(inference_pool, service, namespace or own_namespace(), pool_group)

    def configure() -> tuple[Config, ServeOptions]:
        from lodestar_extproc.service.options import ServeOptions  # noqa: PLC0415  (loads gRPC)

        options = ServeOptions(
            listen=tuple(listen or ()),
            tls=tls_of(tls, tls_client_ca),
            transport=transport,
            health=tuple(health or ()),
            peers=tuple(peer or ()),
            admin=admin,
            admin_access=admin_access_of(admin_tls, admin_client_ca, admin_token, admin_host or ()),
            alias_metrics=alias_metrics,
            tracing=tracing,
            drain_s=drain,
            grace_s=grace,
        )
        at = options.listen
        return config_of(envoy_config, watched, settings, access_log=access_log, listen=at), options

    run(configure, log_level, log_format, workers)


def run(
    configure: Callable[[], tuple[Config, ServeOptions]],
    log_level: str = "info",
    log_format: str = "text",
    n_workers: int = 1,
) -> None:
    """Serve as *configure* says, until a signal; what is wrong ends the process with a word."""
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise typer.BadParameter(f"{log_level!r} is none of debug, info, warning, error")
    if log_format not in FORMATS:
        raise typer.BadParameter(f"{log_format!r} is none of {', '.join(FORMATS)}")
    place = own_place()
    configure_logging(level, log_format, None if place is None else place.number)
    # Until the service heeds it: its default would end us while we start.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from lodestar_extproc.allocator import give_back_long_memory  # noqa: PLC0415
    from lodestar_extproc.config import ConfigError  # noqa: PLC0415
    from lodestar_extproc.fleet.discovery import NotConnected  # noqa: PLC0415
    from lodestar_extproc.kernel.compiled import FOUND  # noqa: PLC0415
    from lodestar_extproc.service.app import App  # noqa: PLC0415
    from lodestar_extproc.service.exit_deadline import MARGIN_S, exit_within  # noqa: PLC0415
    from lodestar_extproc.service.file_limit import raise_file_limit  # noqa: PLC0415

    raise_file_limit()
    give_back_long_memory()
    try:
        if FOUND.is_missed:
            raise ValueError(FOUND.words)  # noqa: TRY301  (as any other wrong configuration)
        config, options = configure()
        if place is None:  # else our parent has said so
            warn_of_unread(config)
            if n_workers > 1:
                raise typer.Exit(keep_workers(n_workers, config, options))
        within_s = options.drain_s + options.grace_s + MARGIN_S
        _run(App(config, replace(options, worker=place), stopping=lambda: exit_within(within_s)))
    except (ConfigError, NotConnected, ValueError) as error:
        complain(f"error: {error}")
        raise typer.Exit(BAD_CONFIG) from None
    except OSError as error:
        complain(f"error: {error}")
        raise typer.Exit(CANNOT_LISTEN) from None


def own_namespace() -> str:
    """The namespace we run in, as the downward API or the service account tells it."""
    try:
        return os.environ.get("NAMESPACE") or SERVICE_ACCOUNT_NAMESPACE.read_text().strip()
    except OSError:
        return "default"


def _run(app: App) -> None:
    try:
        import uvloop  # noqa: PLC0415  (there is none for Windows)
    except ImportError:
        asyncio.run(app.run())
    else:
        uvloop.run(app.run())
