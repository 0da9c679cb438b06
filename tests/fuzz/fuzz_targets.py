"""The fuzzing targets by name, and the inputs that they begin from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import edge_targets
import file_targets
import seeds
import transport_targets


class FuzzTarget(NamedTuple):
    """*check* raises for what may not be; *seeds* are inputs of the right shape."""

    check: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


TARGETS = {
    "wire": FuzzTarget(edge_targets.wire_messages, seeds.wire_messages),
    "bodies": FuzzTarget(edge_targets.bodies, seeds.bodies),
    "answers": FuzzTarget(edge_targets.answers, seeds.answers),
    "access_log": FuzzTarget(edge_targets.access_log, seeds.access_log),
    "metric_page": FuzzTarget(file_targets.metric_page, seeds.metric_page),
    "envoy_config": FuzzTarget(file_targets.envoy_config, seeds.envoy_config),
    "checkpoint": FuzzTarget(file_targets.checkpoint, seeds.checkpoint),
    "journal": FuzzTarget(file_targets.journal, seeds.journal),
    "frames": FuzzTarget(file_targets.frames, seeds.frames),
    "http2": FuzzTarget(transport_targets.http2, transport_targets.conversations),
}
