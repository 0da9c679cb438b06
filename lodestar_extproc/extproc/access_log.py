"""Reads the Completion of a request from an entry of Envoy's access log.

It reads what every Envoy sends first and our custom tags for the times only they have, so an Envoy
without such tags still reports hosts, attempts and ends. It knows no decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lodestar_extproc import names
from lodestar_extproc.completion import Completion, Outcome
from lodestar_extproc.extproc.context import metadata_value, text
from lodestar_extproc.extproc.retry_after import retry_after_s
from lodestar_extproc.generated.lodestar.v1.envoy_pb2 import (
    AccessLogCommon,
    AccessLogType,
    HTTPAccessLogEntry,
)

# https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage
_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "no_healthy_upstream": "UH",
        "upstream_request_timeout": "UT",
        "local_reset": "LR",
        "upstream_remote_reset": "UR",
        "upstream_connection_failure": "UF",
        "upstream_connection_termination": "UC",
        "upstream_overflow": "UO",
        "downstream_connection_termination": "DC",
        "stream_idle_timeout": "SI",
        "duration_timeout": "DT",
        "upstream_protocol_error": "UPE",
        "downstream_remote_reset": "DR",
    }
)
_CLIENT_GONE = frozenset(("DC", "DR"))
_FAILED = frozenset(_FLAGS.values()) - _CLIENT_GONE
_ABSENT = ("", "-")
Tags = Mapping[str, str]
"""Our custom tags, by name."""
MAX_TIME_US = 1e12
"""Eleven days: no request takes as long, so a larger number is garbage."""


def completion(entry: HTTPAccessLogEntry, at_s: float) -> Completion | None:
    """Read a request's end from *entry*; None where it tells no end, or no id.

    A time that Envoy could not take is None: older ones lack the moment, and an aborted request
    never reached it.
    """
    common, tags = entry.common_properties, _tags(entry.common_properties)
    if common.access_log_type not in (AccessLogType.NotSet, AccessLogType.DownstreamEnd):
        return None
    metadata = common.metadata
    decision_id = metadata_value(metadata, names.DECISION_ID) or _tag(tags, names.TAG_DECISION)
    stream_id = metadata_value(metadata, names.STREAM_ID) or _tag(tags, names.TAG_STREAM)
    if not decision_id and not stream_id:
        return None
    flags = _flags(common, tags)
    code = entry.response.response_code.value or None
    return Completion(
        at_s=at_s,
        outcome=_outcome(flags, code),
        decision_id=decision_id,
        stream_id=stream_id,
        served=_served(common, tags),
        attempts=_attempts(common, tags),
        ttft_s=_tag_s(tags, names.TAG_TTFT),
        duration_s=_duration_s(common, tags),
        response_code=code,
        flags=flags,
        is_empty=_is_empty(entry, tags, code),
        answer_bytes=entry.response.response_body_bytes or None,
        retry_after_s=retry_after_s(_tag(tags, names.TAG_RETRY_AFTER)),
    )


def _outcome(flags: tuple[str, ...], code: int | None) -> Outcome:
    if not _CLIENT_GONE.isdisjoint(flags):
        return Outcome.CLIENT_GONE
    if code is None or code >= 500 or not _FAILED.isdisjoint(flags):
        return Outcome.FAILED
    return Outcome.SERVED


def _is_empty(entry: HTTPAccessLogEntry, tags: Tags, code: int | None) -> bool:
    """Whether an endpoint's whole answer had no body: no byte of it, and no time of a first one."""
    timed = _tag(tags, names.TAG_TTFT)
    served = entry.common_properties.HasField("upstream_remote_address")
    return bool(code and served and not timed and entry.response.response_body_bytes == 0)


def _flags(common: AccessLogCommon, tags: Tags) -> tuple[str, ...]:
    tag = _tag(tags, names.TAG_FLAGS)
    if tag:
        return tuple(tag.split(","))
    if not common.HasField("response_flags"):
        return ()
    return tuple(flag for field, flag in _FLAGS.items() if getattr(common.response_flags, field))


def _served(common: AccessLogCommon, tags: Tags) -> str | None:
    if common.HasField("upstream_remote_address"):
        socket = common.upstream_remote_address.socket_address
        address = text(socket.address)
        if address and socket.port_value:
            host = f"[{address}]" if ":" in address else address
            return f"{host}:{socket.port_value}"
    return _tag(tags, names.TAG_SERVED) or None


def _attempts(common: AccessLogCommon, tags: Tags) -> int | None:
    if common.upstream_request_attempt_count:
        return common.upstream_request_attempt_count
    tag = _tag(tags, names.TAG_ATTEMPTS)
    # No attempt at all is nothing to reckon with: as of a log that does not tell.
    return (int(tag) or None) if tag.isdecimal() and len(tag) < 6 else None


def _duration_s(common: AccessLogCommon, tags: Tags) -> float | None:
    """From the upstream request's first byte to the answer's last, or to whatever ended it."""
    tagged = _tag_s(tags, names.TAG_DURATION)
    if tagged is not None or not common.HasField("time_to_first_upstream_tx_byte"):
        return tagged
    end = "time_to_last_upstream_rx_byte"
    if not common.HasField(end):
        end = "duration"
    elapsed_s = _seconds(getattr(common, end)) - _seconds(common.time_to_first_upstream_tx_byte)
    return elapsed_s if elapsed_s > 0 else None


def _seconds(duration: Any) -> float:
    return float(duration.seconds + duration.nanos / 1e9)


def _tags(common: AccessLogCommon) -> Tags:
    return {text(each.key): text(each.value) for each in common.custom_tags}


def _tag(tags: Tags, name: str) -> str:
    """The tag's text; empty where Envoy had nothing to put there."""
    value = tags.get(name, "")
    return "" if value in _ABSENT else value


def _tag_s(tags: Tags, name: str) -> float | None:
    """A time in microseconds, as seconds."""
    try:
        time_us = float(_tag(tags, name))
    except ValueError:
        return None
    return time_us / 1e6 if 0 < time_us < MAX_TIME_US else None
