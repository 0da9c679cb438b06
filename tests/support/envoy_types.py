"""Envoy's own messages, by an implementation that shares no code with ours: the oracle."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from envoy_data_plane.envoy.service.accesslog.v3 import StreamAccessLogsMessage
    from envoy_data_plane.envoy.service.ext_proc.v3 import ProcessingRequest, ProcessingResponse

__all__ = ["ProcessingRequest", "ProcessingResponse", "StreamAccessLogsMessage"]
