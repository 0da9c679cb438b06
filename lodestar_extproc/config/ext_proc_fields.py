"""What an `ExternalProcessor` says of bodies and namespaces: as it stands, or on a route."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from lodestar_extproc.names import METADATA_NAMESPACE

if TYPE_CHECKING:
    from lodestar_extproc.config.ext_proc_filter import FilterOnRoute
    from lodestar_extproc.config.node import Node

    Fields: TypeAlias = Node | FilterOnRoute
    """What has the fields of an `ExternalProcessor`."""


DEFAULT_MESSAGE_TIMEOUT_S = 0.2
"""Envoy's own, where the filter sets none."""


def likeness_of_choosing(config: Fields) -> tuple[bool, bool]:
    """How much it looks like asking for a choice: its metadata is taken, and it sees the prompt."""
    takes = METADATA_NAMESPACE in receiving_namespaces(config)
    return takes, bool(request_body_mode(config))


def longest_wait_s(config: Fields) -> float:
    """How long Envoy waits for a reply at most, where it is asked to wait longer."""
    stated = (config.get(name).seconds for name in ("message_timeout", "max_message_timeout"))
    return max(DEFAULT_MESSAGE_TIMEOUT_S, *(seconds or 0.0 for seconds in stated))


def request_body_mode(config: Fields) -> str:
    """`BUFFERED`, `STREAMED` ...; empty where no body is sent."""
    return config.get("processing_mode", "request_body_mode").text.removesuffix("NONE")


def response_body_mode(config: Fields) -> str:
    return config.get("processing_mode", "response_body_mode").text.removesuffix("NONE")


def receiving_namespaces(config: Fields) -> tuple[str, ...]:
    """The namespaces of dynamic metadata that Envoy takes from an ext_proc service."""
    names = config.get("metadata_options", "receiving_namespaces", "untyped")
    return tuple(name.text for name in names.items())


def forwarding_namespaces(config: Fields) -> tuple[str, ...]:
    """The namespaces of dynamic metadata that Envoy shows to an ext_proc service."""
    names = config.get("metadata_options", "forwarding_namespaces", "untyped")
    return tuple(name.text for name in names.items())
