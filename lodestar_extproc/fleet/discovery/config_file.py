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
    EndpointSettings,
    EnvoyConfig,
    Member,
    PickerConfig,
    Pool,
    read_envoy_config,
)
from lodestar_extproc.config.old_spelling import in_words
from lodestar_extproc.config.setting import until_restart
from lodestar_extproc.fleet.discovery.watched_file import contents

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

log = logging.getLogger(__name__)

NOT_ENVOYS = ("name", "settings", "members", "kubernetes", "line")
"""Of a pool: what Envoy does not read, or what is looked at apart. Everything else is its own."""


async def watch_config(
    config: Config,
    told: Callable[[str, str], None] = lambda _, __: None,
    asked: asyncio.Event | None = None,
) -> AsyncGenerator[Config, None]:
    """Every change to the file of *config*, if it has one, that says something new and good.

    Envoy reads clusters and their endpoints at start only. So the pools stay as they were, with
    new settings; what would need a restart is logged. A bad file is logged, and nothing changes.

    Args:
        told: of a change that was `refused` or that `needs_restart`, in part at least; and why.
        asked: set to have the file read again now, whether it has changed or not.
    """
    if config.path is None:
        return
    versions = contents(config.path, asked=asked, beside=lambda: _files_beside(config))
    async with aclosing(versions):
        async for _ in versions:
            latest = await _read(config, told)
            if latest != config:
                config = latest
                log.info("%s: new configuration applied", config.path)
                yield config


async def _read(config: Config, told: Callable[[str, str], None]) -> Config:
    """The file of *config* as it is now, as far as it can be applied; *config* if it is bad."""
    try:
        latest = await asyncio.to_thread(_read_again, config)
    except ConfigError as error:
        told("refused", f"configuration refused, the old one stays: {error}")
        return config
    if latest.old_spellings:
        log.warning("%s: %s", config.path, in_words(latest.old_spellings))
    fixed, latest = fixed_parts(config, latest)
    if fixed:
        told("needs_restart", f"{config.path}: {'; '.join(fixed)}")
    return latest


def _files_beside(config: Config) -> tuple[Path, ...]:
    return config.files if isinstance(config, EnvoyConfig) else ()


def _read_again(config: Config) -> Config:
    if isinstance(config, PickerConfig):
        return config.read_again()
    return read_envoy_config(config.path, config.listen)


def fixed_parts(old: Config, new: Config) -> tuple[list[str], Config]:
    """What of *new* cannot change while we and Envoy run, in words, and *new* without that."""
    fixed = _fixed_in_envoy(old, new)
    pools = []
    for pool in old.pools:
        latest = new.pool(pool.name)
        if latest is None:
            pools.append(pool)
            continue
        changed, settings = until_restart(pool.settings, latest.settings)
        if changed:
            fixed.append(f"pool {pool.name} needs a restart: {', '.join(changed)}")
        pools.append(_with_new_settings(pool, dataclasses.replace(latest, settings=settings)))
    if isinstance(new, EnvoyConfig) and isinstance(old, EnvoyConfig):
        new = dataclasses.replace(
            new,
            extproc_address=old.extproc_address,
            access_log_address=old.access_log_address,
            sources=old.sources,
        )
    return fixed, dataclasses.replace(new, pools=tuple(pools))


def _fixed_in_envoy(old: Config, new: Config) -> list[str]:
    """What Envoy reads at its start only."""
    if not isinstance(new, EnvoyConfig) or not isinstance(old, EnvoyConfig):
        return []
    fixed = [f"pool {pool.name} is new" for pool in new.pools if old.pool(pool.name) is None]
    for pool in old.pools:
        latest = new.pool(pool.name)
        if latest is None:
            fixed.append(f"pool {pool.name} is gone")
        else:
            fixed += _fixed_in_cluster(pool, latest)
    addresses = [(c.extproc_address, c.access_log_address) for c in (old, new)]
    if addresses[0] != addresses[1]:
        fixed.append("the address of the ext_proc service or the access log changed")
    if old.sources != new.sources:
        fixed.append("what Envoy shows of requests and answers changed")
    return [f"{part}; restart Envoy and Lodestar to apply it" for part in fixed]


def _fixed_in_cluster(old: Pool, new: Pool) -> list[str]:
    """What of a pool's cluster changed, apart from any setting, in words."""
    fixed = []
    if _places(old) != _places(new):
        fixed.append(f"the endpoints of pool {old.name} changed")
    names = [each.name for each in dataclasses.fields(Pool) if each.name not in NOT_ENVOYS]
    changed = [name for name in names if getattr(old, name) != getattr(new, name)]
    if changed:
        fixed.append(f"the cluster of pool {old.name} changed ({', '.join(changed)})")
    return fixed


def _places(pool: Pool) -> frozenset[Member]:
    """Its members as Envoy knows them."""
    return frozenset(map(_place, pool.members))


def _place(member: Member) -> Member:
    return dataclasses.replace(member, settings=EndpointSettings())


def _with_new_settings(old: Pool, new: Pool) -> Pool:
    latest = {_place(member): member for member in new.members}
    members = tuple(latest.get(_place(member), member) for member in old.members)
    # Beside an Envoy file the source is an option of the command line: the file has none.
    source = new.kubernetes or old.kubernetes
    return dataclasses.replace(old, settings=new.settings, members=members, kubernetes=source)
