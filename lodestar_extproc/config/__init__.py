"""Configuration: settings, and the Envoy YAML they stand in."""

from lodestar_extproc.config.setting import Setting, SettingError, settings_of
from lodestar_extproc.config.settings import EndpointSettings, PoolSettings

__all__ = ["EndpointSettings", "PoolSettings", "Setting", "SettingError", "settings_of"]
