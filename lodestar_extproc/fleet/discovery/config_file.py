"""watch_config(): new versions of the configuration that can be applied while Envoy runs."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from lodestar_extproc.config import (
    Config,
    ConfigError,
    EnvoyConfig,
    Member,
    PickerConfig,
    Pool,
    read_envoy_config,
)
from lodestar_extproc.fleet.discovery.watched_file import contents

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

log = logging.getLogger(__name__)


async def watch_config(
    config: Config, refused: Callable[[], None] = lambda: None
) -> AsyncGenerator[Config, None]:
    """Every change to the file of *config*, if it has one, that says something new and good.

    Envoy reads clusters and their endpoints at start only. So the pools stay as they were, with
    new settings; what would need a restart is logged. A bad file is logged, *refused* called,
    and nothing changes.
    """
    if config.path is None:
        return
    async with aclosing(contents(config.path)) as versions:
        async for _ in versions:
            latest = await _read(config, refused)
            if latest != config:
                config = latest
                log.info("%s: new configuration applied", config.path)
                yield config


async def _read(config: Config, refused: Callable[[], None]) -> Config:
    """The file of *config* as it is now, as far as it can be applied; *config* if it is bad."""
    try:
        if isinstance(config, PickerConfig):
            return await asyncio.to_thread(config.read_again)
        latest = await asyncio.to_thread(read_envoy_config, config.path)
    except ConfigError as error:
        log.error("configuration refused, the old one stays: %s", error)  # noqa: TRY400  (the error says all)
        refused()
        return config
    fixed, latest = fixed_parts(config, latest)
    for part in fixed:
        log.warning("%s: %s; restart Envoy and Lodestar to apply it", config.path, part)
    return latest


def fixed_parts(old: EnvoyConfig, new: EnvoyConfig) -> tuple[list[str], EnvoyConfig]:
    """What of *new* cannot change while Envoy runs, and *new* without that."""
    fixed = []
    names = {pool.name for pool in old.pools}
    fixed += [f"pool {pool.name} is new" for pool in new.pools if pool.name not in names]
    pools = []
    for pool in old.pools:
        latest = new.pool(pool.name)
        if latest is None:
            fixed.append(f"pool {pool.name} is gone")
            pools.append(pool)
        else:
            if _places(latest) != _places(pool):
                fixed.append(f"the endpoints of pool {pool.name} changed")
            pools.append(_with_new_settings(pool, latest))
    if (new.extproc_address, new.access_log_address) != (
        old.extproc_address,
        old.access_log_address,
    ):
        fixed.append("the address of the ext_proc service or the access log changed")
    kept = dataclasses.replace(
        new,
        pools=tuple(pools),
        extproc_address=old.extproc_address,
        access_log_address=old.access_log_address,
    )
    return fixed, kept


def _places(pool: Pool) -> tuple[object, ...]:
    """Where its endpoints are, apart from any setting."""
    return pool.resolution, pool.eds, frozenset(_place(member) for member in pool.members)


def _place(member: Member) -> tuple[str, int]:
    return member.host, member.port


def _with_new_settings(old: Pool, new: Pool) -> Pool:
    latest = {_place(member): member for member in new.members}
    members = tuple(latest.get(_place(member), member) for member in old.members)
    return dataclasses.replace(old, settings=new.settings, members=members)
