"""The command `serve`: the external processor, configured from the Envoy YAML."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lodestar_extproc.app import App

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
BAD_CONFIG, CANNOT_LISTEN = 2, 3


def serve(
    *,
    envoy_config: Annotated[Path, typer.Option(help="The Envoy YAML or JSON that Envoy runs.")],
    listen: Annotated[
        list[str] | None,
        typer.Option(help="Address for Envoy instead of the configuration's; may be repeated."),
    ] = None,
    admin: Annotated[
        str, typer.Option(help="Address of metrics, readiness, dashboard and explanations.")
    ] = "127.0.0.1:9090",
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds to serve on once health checks fail.")
    ] = 1.0,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds open streams may take to end.")
    ] = 5.0,
    log_level: Annotated[
        str, typer.Option(help="debug, with a line for each exchange; info; warning; error.")
    ] = "info",
) -> None:
    """Choose an endpoint for every request Envoy asks about, and learn from the answers.

    Pools are the clusters of the Envoy configuration that carry
    metadata.filter_metadata.lodestar; the file is watched, and good changes apply at once.

    Exit status: 0 stopped by a signal, 2 the configuration is wrong, 3 an address is taken.

    Examples:

        lodestar-extproc serve --envoy-config envoy/envoy.yaml

        lodestar-extproc serve --envoy-config /etc/envoy/envoy.yaml --admin 0.0.0.0:9090
    """
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise typer.BadParameter(f"{log_level!r} is none of debug, info, warning, error")
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    logging.getLogger("lodestar_extproc").setLevel(level)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    # Here, so that other commands need not load River and gRPC.
    from lodestar_extproc.app import App, ServeOptions  # noqa: PLC0415
    from lodestar_extproc.config import ConfigError, read_envoy_config  # noqa: PLC0415

    options = ServeOptions(listen=tuple(listen or ()), admin=admin, drain_s=drain, grace_s=grace)
    try:
        app = App(read_envoy_config(envoy_config), options)
        _run(app)
    except (ConfigError, ValueError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(BAD_CONFIG) from None
    except OSError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(CANNOT_LISTEN) from None


def _run(app: App) -> None:
    try:
        import uvloop  # noqa: PLC0415  (there is none for Windows)
    except ImportError:
        asyncio.run(app.run())
    else:
        uvloop.run(app.run())
