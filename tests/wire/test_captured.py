"""Bytes that real Envoys sent (see capture.py), through our decoder and the whole exchange."""

from __future__ import annotations

import base64
import itertools
import json
import re
from functools import cache
from pathlib import Path

import pytest

import envoy_types
from envoy_json import as_envoy_writes
from extproc_fakes import FakeRouters
from lodestar_extproc.completion import Outcome
from lodestar_extproc.extproc import access_log, wire
from lodestar_extproc.extproc.events import BodyMode
from lodestar_extproc.extproc.exchange import Exchange
from lodestar_extproc.extproc.stream_outcome import StreamOutcome
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2
from lodestar_extproc.request import RequestKind

CAPTURED = Path(__file__).parent / "captured"
FILES = sorted(path.stem for path in CAPTURED.glob("*.json"))
DURATION = re.compile(r"\d+(\.\d+)?s")
CHATS = ("streaming chat", "whole chat", "retried chat", "aborted chat", "keep-alive chat")


@cache
def captured(file: str) -> dict:
    return json.loads((CAPTURED / f"{file}.json").read_text())


def messages(file: str, scenario: str) -> list[list[bytes]]:
    return [[base64.b64decode(m) for m in s] for s in captured(file)[scenario]["streams"]]


def entries(file: str, scenario: str) -> list[envoy_pb2.HTTPAccessLogEntry]:
    found = []
    for message in captured(file)[scenario]["log"]:
        data = envoy_pb2.StreamAccessLogsMessage.FromString(base64.b64decode(message))
        found.extend(map(envoy_pb2.HTTPAccessLogEntry.FromString, data.http_logs.log_entry))
    return found


def replay(file: str, scenario: str) -> tuple[FakeRouters, list[Exchange]]:
    """Every stream of *scenario* through an exchange of its own."""
    routers = FakeRouters(pools=("engines",))
    exchanges = []
    for stream in messages(file, scenario):
        exchange = Exchange(routers, wire.decode_opening(wire.parse(stream[0])))
        for i, data in enumerate(stream):
            exchange.receive(wire.decode(wire.parse(data), float(i)))
        exchange.close(99.0)
        exchanges.append(exchange)
    return routers, exchanges


def contained(part, whole) -> bool:
    """Whether all of *part* stands in *whole*, which may have more fields."""
    if isinstance(part, dict):
        return all(key in whole and contained(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(contained, part, whole))
    if isinstance(part, str) and DURATION.fullmatch(part):
        # The other side keeps microseconds only.
        return float(part[:-1]) == pytest.approx(float(whole[:-1]), abs=1e-6)
    return part == whole


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("scenario", [*CHATS, "models"])
def test_we_read_what_envoys_own_types_read(file, scenario):
    for data in itertools.chain(*messages(file, scenario)):
        theirs = envoy_types.ProcessingRequest.parse(data).to_dict()
        assert contained(as_envoy_writes(wire.parse(data)), theirs)
    for text in captured(file)[scenario]["log"]:
        data = base64.b64decode(text)
        ours = envoy_pb2.StreamAccessLogsMessage.FromString(data)
        theirs = envoy_types.StreamAccessLogsMessage.parse(data).to_dict()
        assert contained(as_envoy_writes(ours), theirs)


@pytest.mark.parametrize("file", FILES)
def test_a_decision_stream_opens_as_expected(file):
    opening = wire.decode_opening(wire.parse(messages(file, "streaming chat")[0][0]))
    assert opening.request_body_mode is BodyMode.BUFFERED
    assert opening.pool == "engines"
    assert not opening.observing
    both = file.startswith("streamed")
    assert opening.response_body_mode is (BodyMode.STREAMED if both else BodyMode.NONE)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("scenario", CHATS)
def test_a_chat_is_decided(file, scenario):
    routers, exchanges = replay(file, scenario)
    assert exchanges[0].outcome is StreamOutcome.ROUTED
    (request,) = routers.routed
    assert request.kind is RequestKind.CHAT_COMPLETIONS
    assert request.model == "m"
    assert request.streaming is (scenario != "whole chat")
    assert len(routers.request_ids[0]) == 36


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("scenario", CHATS)
def test_its_first_token_is_seen_unless_the_client_left(file, scenario):
    routers, _ = replay(file, scenario)
    (end,) = [access_log.completion(e, 0.0) for e in entries(file, scenario)]
    if scenario == "aborted chat":
        assert not routers.first_tokens
        return
    (event,) = routers.first_tokens
    assert event.served == end.served
    assert event.decision_id
    assert event.body_began_before is (scenario == "keep-alive chat")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("scenario", CHATS)
def test_its_end_is_in_the_access_log(file, scenario):
    (end,) = [access_log.completion(e, 0.0) for e in entries(file, scenario)]
    gone = scenario == "aborted chat"
    tags = "1.36" not in file
    assert end.outcome is (Outcome.CLIENT_GONE if gone else Outcome.SERVED)
    assert end.flags == (("DC",) if gone else ())
    assert end.decision_id
    assert end.attempts == (2 if scenario == "retried chat" else 1)
    assert (end.ttft_s is not None) is (tags and not gone)
    assert 0 < end.duration_s < 1
    assert end.served.startswith("127.0.0.1:")


@pytest.mark.parametrize("file", FILES)
def test_what_is_no_inference_is_left_alone(file):
    routers, exchanges = replay(file, "models")
    assert exchanges[0].outcome is StreamOutcome.PASSED
    assert not routers.routed
    assert not routers.first_tokens
    assert [access_log.completion(e, 0.0) for e in entries(file, "models")] == [None]


@pytest.mark.parametrize("file", FILES)
def test_the_captures_show_no_streams_of_ours_left_open(file):
    for scenario in CHATS[:2]:
        _, exchanges = replay(file, scenario)
        assert all(exchange.done for exchange in exchanges)
