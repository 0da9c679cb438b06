"""What a service is to run by: an Envoy file, endpoints to watch, or both, as options name them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lodestar_extproc.config import Config, EnvoyConfig, Watched

_log = logging.getLogger(__name__)


def watched_by(
    inference_pool: str | None,
    service: str | None,
    namespace: str,
    pool_group: str = "",
) -> Watched | None:
    """What options ask to be watched; None for nothing.

    Raises:
        typer.BadParameter: two things.
    """
    from lodestar_extproc.config import InferencePoolRef, ServiceRef  # noqa: PLC0415
    from lodestar_extproc.config.kubernetes import POOL_GROUP  # noqa: PLC0415

    if inference_pool and service:
        raise typer.BadParameter("--inference-pool and --service exclude each other")
    if inference_pool:
        return InferencePoolRef(inference_pool, namespace, pool_group or POOL_GROUP)
    if service:
        name, _, port = service.partition(":")
        return ServiceRef(name, namespace, port)
    return None


def config_of(
    envoy_config: Path | None,
    watched: Watched | None,
    settings: Path | None,
    *,
    access_log: bool,
    listen: Sequence[str] = (),
) -> Config:
    """What to run by.

    Args:
        listen: where we were told to listen, which helps to tell who we are.

    Raises:
        ConfigError: a file cannot be read, or is wrong.
        ValueError: the options do not go together.
    """
    from lodestar_extproc.config import (  # noqa: PLC0415
        KubernetesSource,
        read_envoy_config,
        read_picker_config,
    )
    from lodestar_extproc.config.not_looked_at import ENDPOINTS_OF_XDS  # noqa: PLC0415

    if envoy_config is None:
        if watched is None:
            raise ValueError("name --envoy-config FILE, --inference-pool NAME or --service NAME")
        return read_picker_config(watched, settings, access_log=access_log)
    if settings is not None:
        raise ValueError("the settings stand in --envoy-config: leave out --settings")
    config = read_envoy_config(envoy_config, listen)
    if watched is None:
        return with_endpoints(config)
    if len(config.pools) > 1:
        names = ", ".join(pool.name for pool in config.pools)
        raise ValueError(f"{envoy_config} has the pools {names}: {watched} can be only one's")
    pool = dataclasses.replace(config.pools[0], kubernetes=KubernetesSource(watched))
    left = tuple(part for part in config.not_looked_at if part.what != ENDPOINTS_OF_XDS)
    return dataclasses.replace(config, pools=(pool,), not_looked_at=left)


def warn_of_unread(config: Config) -> None:
    """Say what of the Envoy configuration was not looked at, or not understood."""
    from lodestar_extproc.config import EnvoyConfig  # noqa: PLC0415

    if isinstance(config, EnvoyConfig):
        if config.own_service.problem:
            _log.warning("%s: %s", config.path, config.own_service.problem)
        for part in config.not_looked_at:
            _log.warning("%s", part)


def with_endpoints(config: EnvoyConfig) -> EnvoyConfig:
    """*config*, if it says where every pool's endpoints are.

    Raises:
        ValueError: a control plane tells Envoy alone.
    """
    for pool in config.pools:
        if pool.endpoints_by_xds:
            raise ValueError(
                f"{config.path}:{pool.line}: the endpoints of pool {pool.name} come by xDS, to "
                "Envoy alone: name them with --service or --inference-pool, or write "
                "path_config_source.path: a file"
            )
    return config
