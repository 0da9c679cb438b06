"""Configuration: settings, and the Envoy YAML or the settings file they stand in."""

from typing import TypeAlias

from lodestar_extproc.config.endpoint_settings import EndpointSettings
from lodestar_extproc.config.envoy import EnvoyConfig, TimingSources, read_envoy_config
from lodestar_extproc.config.errors import ConfigError, NotEnvoyConfig
from lodestar_extproc.config.kubernetes import (
    InferencePoolRef,
    KubernetesSource,
    PodSelector,
    ServiceRef,
    Watched,
)
from lodestar_extproc.config.member import Member
from lodestar_extproc.config.members import read_eds_members
from lodestar_extproc.config.overrides import RouteOverride
from lodestar_extproc.config.picker import PickerConfig, read_picker_config
from lodestar_extproc.config.pool import EdsFile, Pool, Resolution
from lodestar_extproc.config.setting import Setting, SettingError, settings_of
from lodestar_extproc.config.settings import PoolSettings

Config: TypeAlias = EnvoyConfig | PickerConfig
"""What `serve` runs by."""

__all__ = [
    "Config",
    "ConfigError",
    "EdsFile",
    "EndpointSettings",
    "EnvoyConfig",
    "InferencePoolRef",
    "KubernetesSource",
    "Member",
    "NotEnvoyConfig",
    "PickerConfig",
    "PodSelector",
    "Pool",
    "PoolSettings",
    "Resolution",
    "RouteOverride",
    "ServiceRef",
    "Setting",
    "SettingError",
    "TimingSources",
    "Watched",
    "read_eds_members",
    "read_envoy_config",
    "read_picker_config",
    "settings_of",
]
