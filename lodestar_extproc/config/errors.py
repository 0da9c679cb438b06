"""ConfigError: what is wrong in a configuration file, where, and what would be right."""

from __future__ import annotations


class ConfigError(Exception):
    """A file, or one key in it, that cannot be used.

    Attributes:
        line: counted from 1; 0 where the file as a whole is meant.
        key: dotted, as `clusters[0].metadata`; empty where the file as a whole is meant.
    """

    def __init__(self, problem: str, *, file: str, line: int = 0, key: str = "") -> None:
        place = f"{file}:{line}" if line else file
        super().__init__(f"{place}: {key}: {problem}" if key else f"{place}: {problem}")
        self.problem = problem
        self.file = file
        self.line = line
        self.key = key


class NotEnvoyConfig(ConfigError):  # noqa: N818  (named for the condition)
    """A file that is no Envoy configuration at all."""
