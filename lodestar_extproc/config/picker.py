"""PickerConfig: how `serve` runs as a gateway's endpoint picker, beside no Envoy file of its own.

Its settings file, a ConfigMap for instance, holds the block that would stand in the Envoy YAML.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from lodestar_extproc.config.endpoint_settings import EndpointSettings
from lodestar_extproc.config.envoy import TimingSources
from lodestar_extproc.config.holding import with_hold_limit
from lodestar_extproc.config.kubernetes import KubernetesSource, Watched
from lodestar_extproc.config.node import read_node
from lodestar_extproc.config.old_spelling import OldSpelling, old_spellings
from lodestar_extproc.config.pool import Pool
from lodestar_extproc.config.reader import read_settings
from lodestar_extproc.config.settings import PoolSettings

ENDPOINTS_KEY = "endpoints"
"""In the settings file: the settings of every endpoint that says nothing of its own."""
PEER_KIND = "EndpointPickerConfig"
"""What other endpoint pickers are configured by: it says nothing to us."""
GATEWAY_SOURCES = TimingSources(
    request_body_mode="FULL_DUPLEX_STREAMED", response_body_mode="FULL_DUPLEX_STREAMED"
)
"""What Istio and Envoy AI Gateway show an endpoint picker: both bodies, no access log."""
SettingsFile: TypeAlias = tuple[PoolSettings, EndpointSettings, tuple[OldSpelling, ...]]
"""A pool's settings, those of its endpoints under `endpoints`, and names of before."""
LONGEST_WAIT_S = 0.0
"""Nobody tells a picker how long the gateway's filter waits for it."""
_NOTHING_SAID: SettingsFile = (
    with_hold_limit(PoolSettings(), LONGEST_WAIT_S),
    EndpointSettings(),
    (),
)


@dataclass(frozen=True, slots=True)
class PickerConfig:
    """What `serve` needs where a gateway's controller configures Envoy.

    Attributes:
        path: of the settings file; None where there is none.
        pools: the one that is picked from.
        old_spellings: where the file says something by a name of before.
    """

    path: Path | None
    pools: tuple[Pool, ...]
    sources: TimingSources = GATEWAY_SOURCES
    old_spellings: tuple[OldSpelling, ...] = field(default=(), compare=False)

    def pool(self, name: str) -> Pool | None:
        return next((pool for pool in self.pools if pool.name == name), None)

    def read_again(self) -> PickerConfig:
        """The same with the settings that the file holds now.

        Raises:
            ConfigError: the file cannot be read, or a setting in it is wrong.
        """
        (pool,) = self.pools
        assert self.path is not None
        assert pool.kubernetes is not None
        settings, defaults, old = read_settings_file(self.path)
        source = dataclasses.replace(pool.kubernetes, defaults=defaults)
        pool = dataclasses.replace(pool, settings=settings, kubernetes=source)
        return dataclasses.replace(self, pools=(pool,), old_spellings=old)


def read_picker_config(
    watched: Watched, path: Path | None = None, *, access_log: bool = False
) -> PickerConfig:
    """The pool of what is *watched*, with the settings at *path*.

    Args:
        access_log: the gateway is made to send us its access log.

    Raises:
        ConfigError: the file cannot be read, or a setting in it is wrong.
    """
    settings, defaults, old = read_settings_file(path) if path else _NOTHING_SAID
    pool = Pool(
        name=watched.name,
        settings=settings,
        kubernetes=KubernetesSource(watched, defaults),
    )
    tags = frozenset[str]() if access_log else None
    sources = dataclasses.replace(GATEWAY_SOURCES, access_log_tags=tags)
    return PickerConfig(path, (pool,), sources, old)


def read_settings_file(path: Path) -> SettingsFile:
    """What it says.

    Raises:
        ConfigError: the file cannot be read, or a setting in it is wrong.
    """
    root = read_node(path)
    if not root or root.get("kind").text == PEER_KIND:
        return _NOTHING_SAID
    return (
        with_hold_limit(read_settings(root, PoolSettings, apart=ENDPOINTS_KEY), LONGEST_WAIT_S),
        read_settings(root.get(ENDPOINTS_KEY), EndpointSettings),
        tuple(old_spellings(root, PoolSettings)),
    )
