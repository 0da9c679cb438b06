"""Inputs to begin from, built in code from the shapes that Envoy, clients and engines send."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from edge_targets import BETWEEN_MESSAGES, CODINGS, CONTENT_TYPES, KINDS
from file_targets import ENGINE_NAMES, header_for, trained_state
from ruamel.yaml import YAML

from builders import DEFAULT_ENVOY_FILE, a_prompt, a_request
from lodestar_extproc.endpoint import SNAPSHOT_COLUMNS, EndpointMetrics
from lodestar_extproc.features import N_ENGINE, N_FEATURES
from lodestar_extproc.fleet.engine_names import ENGINES
from lodestar_extproc.generated.lodestar.v1.envoy_pb2 import (
    HTTPAccessLogEntry,
    StreamAccessLogsMessage,
)
from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Frame
from lodestar_extproc.journal.entry import header_line
from lodestar_extproc.routing.kept import Kept
from lodestar_extproc.sharing.kept_columns import write_kept
from lodestar_extproc.sharing.outbox import VERSION
from metric_pages import a_vllm_page

TESTS = Path(__file__).parents[1]
CAPTURED = TESTS / "wire" / "captured"
MAX_SEED_BYTES = 16 * 2**10
MESSAGES = [{"role": "user", "content": "the heron " * 40}]
BODIES = (
    {"model": "m", "messages": MESSAGES, "stream": True, "max_tokens": 16},
    {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": 1.0}}}],
    },
    {"model": "m", "prompt": ["a b c", "é\u2028\ud83d\ude00"], "max_tokens": None},
    {"model": "m", "prompt": [1, 2, 3, 2**31], "user": "u", "cache_salt": "s"},
    {"model": "m", "input": [{"role": "user", "content": "hi"}], "previous_response_id": "resp_1"},
    {"model": "m", "input": "hi", "store": True, "background": True, "conversation": {"id": "c"}},
    {"model": "m", "system": [{"type": "text", "text": "s"}], "messages": MESSAGES},
    {"text": "hi", "sampling_params": {"max_new_tokens": 5}, "reasoning": {"effort": "low"}},
    {"inputs": "hi", "parameters": {"max_new_tokens": 5}},
    {"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "truncation": True},
    {"model": "m", "text_1": "q", "text_2": ["a", "b"]},
)
EVENTS = (
    (
        b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
        b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
        b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,'
        b'"prompt_tokens_details":{"cached_tokens":4}}}\n\ndata: [DONE]\n\n'
    ),
    (
        b': keep-alive\r\n\r\nevent: content_block_delta\r\ndata: {"type":"content_block_delta",'
        b'"delta":{"type":"text_delta","text":"a"}}\r\n\r\nevent: message_stop\ndata: {}\n\n'
    ),
    (
        b'data: {"type":"response.created","response":{"id":"resp_1","status":"in_progress"}}\n\n'
        b'data: {"type":"response.output_text.delta","delta":"Hi"}\n\n'
        b'data: {"type":"response.completed","response":{"id":"resp_1","usage":{"input_tokens":3}}}\n\n'
    ),
    b'event: error\ndata: {"error":{"message":"out of memory"}}\n\n',
    b'{"choices":[{"text":"Hi","finish_reason":"stop"}],"usage":{"prompt_tokens":1}}',
    b'{"text":"a","meta_info":{"finish_reason":null}}\n{"text":"b"}\n',
    b'\xef\xbb\xbf{"id":"resp_1","object":"response","status":"queued","background":true}',
    b"<html><body>It works!</body></html>",
    b"data: [DONE]\n\n",
    b"",
)
TAGS = {
    "ttft_us": "203000",
    "e2e_us": "900000",
    "inst": "10.0.0.1:8000",
    "attempts": "2",
    "decision": "pool.1",
    "stream": "abc",
    "flags": "UF,URX",
    "retry_after": "7",
}


def captured(part: str) -> Iterator[list[bytes]]:
    """Every stream, or log, of the captured files."""
    for path in sorted(CAPTURED.glob("*.json")):
        for scenario in json.loads(path.read_text()).values():
            lists = scenario["streams"] if part == "streams" else [scenario["log"]]
            yield from ([base64.b64decode(each) for each in found] for found in lists)


def wire_messages() -> Iterator[bytes]:
    streams = sorted(captured("streams"), key=lambda s: sum(map(len, s)))[:40]
    for number, stream in enumerate(streams):
        yield bytes([255 * (number % 2)]) + BETWEEN_MESSAGES.join(stream)
    for first, second in zip(streams[::3], streams[1::3], strict=False):
        yield b"\0" + BETWEEN_MESSAGES.join([*first, b"", *second])


def bodies() -> Iterator[bytes]:
    for number, fields in enumerate(BODIES):
        for kind in {number % len(KINDS), 0, KINDS.index("unknown")}:
            yield bytes([kind]) + json.dumps(fields).encode()
    yield b"\0" + json.dumps(BODIES[3], ensure_ascii=False).encode("utf-16", "surrogatepass")
    yield b"\0" + json.dumps({"messages": "\\ud800" * 20}).encode()


def answers() -> Iterator[bytes]:
    n_headers = len(CODINGS) * len(CONTENT_TYPES)
    for number, events in enumerate(EVENTS):
        for headers in (0, len(CODINGS) * (1 + number % 4), number % n_headers):
            yield bytes([headers, number]) + events
        yield bytes([1, number]) + gzip.compress(events, mtime=0)
        yield bytes([2, number]) + zlib.compress(events)
        yield bytes([0, number]) + gzip.compress(events, mtime=0)


def metric_page() -> Iterator[bytes]:
    yield bytes([ENGINE_NAMES.index("vllm")]) + a_vllm_page(n_engines=2)[:4000]
    for number, engine in enumerate(ENGINE_NAMES):
        lines = []
        for field in EndpointMetrics._fields:
            for source in filter(None, (getattr(ENGINES[engine], field),)):
                lines += series_lines(source)
        yield bytes([number]) + b"\n".join(lines) + b"\n"


def series_lines(sources: object) -> Iterator[bytes]:
    """A line for each series that an engine's names ask for, whatever they are nested in."""
    if hasattr(sources, "name") and hasattr(sources, "labels"):
        labels = [*sources.labels, *([sources.where[0]] if sources.where else [])]
        named = b",".join(label + b'="1"' for label in labels)
        yield sources.name + b'{engine="0",' + named + b"} 1.0"
    elif isinstance(sources, tuple | list):
        for each in sources:
            yield from series_lines(each)


def access_log() -> Iterator[bytes]:
    for messages in list(captured("log"))[:12]:
        yield BETWEEN_MESSAGES.join(messages)
    entry = HTTPAccessLogEntry()
    for name, value in TAGS.items():
        entry.common_properties.custom_tags.add(key=name.encode(), value=value.encode())
    entry.response.response_code.value = 200
    message = StreamAccessLogsMessage()
    message.http_logs.log_entry.append(entry.SerializeToString())
    yield message.SerializeToString()
    for value in TAGS.values():
        yield message.SerializeToString().replace(value.encode(), b"-" * len(value))


def envoy_config() -> Iterator[bytes]:
    for document in envoy_documents():
        yield json.dumps(document).encode()
    yield b"static_resources: {clusters: [{name: a, metadata: {filter_metadata: {lodestar: {}}}}]}"
    yield b"static_resources: &a {clusters: [*a, {<<: *a}]}"
    yield b"dynamic_resources: {cds_config: {path_config_source: {path: envoy.yaml}}}"
    yield b"--- !!set {a, b}\n...\n---\n? [1]\n: .inf\n"


def envoy_documents() -> Iterator[dict[str, Any]]:
    """The shipped file's parts that are read, each alone: a whole one takes 30 ms a time.

    In one line of JSON, which is YAML, so that its values can be replaced.
    """
    whole = YAML(typ="safe").load(DEFAULT_ENVOY_FILE)
    engines, ours = whole["static_resources"]["clusters"]
    for cluster in (engines, ours):
        for name in ("typed_extension_protocol_options", "circuit_breakers"):
            del cluster[name]
    for name in ("load_balancing_policy", "outlier_detection", "health_checks"):
        del engines[name]
    yield {"static_resources": {"clusters": [engines, ours]}}
    eds = {"eds_config": {"path_config_source": {"path": "eds.yaml"}}, "service_name": "a"}
    by_eds = {"name": "engines", "type": "EDS", "eds_cluster_config": eds}
    by_eds["metadata"] = engines["metadata"]
    by_name = {**engines, "type": "STRICT_DNS", "dns_lookup_family": "V4_ONLY"}
    for cluster in (by_eds, by_name):
        yield {"static_resources": {"clusters": [cluster]}}
    (listener,) = whole["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    for name in ("early_header_mutation_extensions", "access_log"):
        del manager[name]
    yield {"static_resources": {"listeners": [listener], "clusters": [by_eds]}}


def checkpoint() -> Iterator[bytes]:
    yield b"\0" + trained_state()
    yield b"\xff" + header_for(trained_state()) + trained_state()
    yield b"\xff" + header_for(b"{}") + b"{}"
    yield b"\0{}"
    state = orjson.loads(trained_state())
    for name in state:
        yield b"\0" + orjson.dumps({**state, name: None})


def journal() -> Iterator[bytes]:
    written = TESTS / "evaluation" / "journals" / "format_1.jsonl"
    lines = written.read_bytes().splitlines(keepends=True)
    for start in range(1, len(lines), 3):
        yield lines[0] + b"".join(lines[start : start + 2])
    yield header_line(1.0) + b"\n" + lines[1]
    columns = {name: [] for name in SNAPSHOT_COLUMNS}
    yield header_line(1.0) + b"\n" + orjson.dumps({"addresses": [], "snapshot": columns})


def frames() -> Iterator[bytes]:
    rng = random.Random(1)
    for n_sent in (0, 1, 3):
        first, second = a_frame(rng, 1, n_sent), a_frame(rng, 2, 0)
        for number in range(n_sent):
            second.first_tokens.add(key=f"pool.{number}", age_s=0.01, served="10.0.0.1:8000")
            second.ended.add(key=f"pool.{number}", age_s=0.0, prompt_computed=True)
        second.whole = n_sent == 3
        yield BETWEEN_MESSAGES.join(each.SerializeToString() for each in (first, second))
    learned = a_frame(rng, 1, 0)
    learned.learned.add(
        address="10.0.0.1:8000",
        accelerator="default",
        n_samples=3,
        gram=[1.0] * N_ENGINE**2,
        moment=[1.0] * N_ENGINE,
        lowest=[0.0] * N_FEATURES,
        highest=[1.0] * N_FEATURES,
    )
    yield learned.SerializeToString()
    knowing = a_frame(rng, 1, 1)
    knowing.learner = trained_state()
    knowing.cached.add(address="10.0.0.2:8000", block_hashes=[1, 2, 3])
    knowing.knows_nothing = True
    yield knowing.SerializeToString()
    keeping = a_frame(rng, 1, 1)
    for columns in (keeping.kept, keeping.known_kept):
        kept = Kept("10.0.0.1:8000", 0.0, prompt=a_request(a_prompt(100)))
        write_kept(columns, [(1, kept, ""), (2, kept, "pool.0")], [(3, "10.0.0.2:8000")])
    yield keeping.SerializeToString()


def a_frame(rng: random.Random, number: int, n_sent: int) -> Frame:
    frame = Frame(version=VERSION, origin="other", number=number, interval_ms=30)
    for each in range(n_sent):
        sent = frame.sent.add(
            key=f"pool.{each}",
            address=f"10.0.0.{1 + each % 2}:8000",
            age_s=0.01,
            prompt_tokens=500.0,
            prompt_bytes=2000,
            uncached_tokens=300.0,
            service_s=0.2,
            block_hashes=[rng.getrandbits(64) for _ in range(4)],
        )
        sent.missed.add(address="10.0.0.1:8000", tokens=20.0)
    return frame
