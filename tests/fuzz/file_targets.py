"""Metric pages, files and frames, as fuzzing targets: they take any bytes, and check."""

from __future__ import annotations

import math
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import orjson
import xxhash
from edge_targets import BETWEEN_MESSAGES, check_nothing_below_zero

from builders import live_settings
from learning_worlds import LinearWorld
from lodestar_extproc.config import ConfigError, read_envoy_config
from lodestar_extproc.evaluation.replay_reader import NoJournal, ReadCounts, read_journals
from lodestar_extproc.fleet.engine_metrics import PageReader, parse
from lodestar_extproc.fleet.engine_names import ENGINES
from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Frame
from lodestar_extproc.learning.checkpoint import ForeignFile, warm_start, write_checkpoint
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.trust import Trust
from lodestar_extproc.sharing.inbox import MOST_AGE_S, MOST_SILENCE_S
from lodestar_extproc.sharing.sharer import Sharer
from sharing_routers import SharingRouter, Told

ENGINE_NAMES = tuple(sorted(ENGINES))
FRAME_S = 0.03


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="lodestar-fuzz-")


def folder() -> Path:
    """Of this process; `run.py` has it in memory."""
    return Path(_folder().name)


def file_of(data: bytes, name: str) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path


def metric_page(data: bytes) -> None:
    """The first byte names the engine."""
    engine = ENGINE_NAMES[data[0] % len(ENGINE_NAMES)] if data else "vllm"
    page = data[1:]
    metrics, reader = parse(page, engine), PageReader(engine)
    for line in page.split(b"\n"):
        reader.feed(line + b"\n")
    assert reader.metrics() == metrics, "pieces of whole lines change what is read"
    for name, value in metrics._asdict().items():
        if isinstance(value, float):
            assert math.isfinite(value), f"{name}: {value}"
            assert value >= 0, f"{name}: {value}"
    assert metrics.kv_usage_ratio is None or metrics.kv_usage_ratio <= 1
    assert metrics.kv_capacity_tokens is None or metrics.kv_capacity_tokens > 0


def envoy_config(data: bytes) -> None:
    try:
        config = read_envoy_config(file_of(data, "envoy.yaml"), ["127.0.0.1:9002"])
    except ConfigError:
        return
    names = [pool.name for pool in config.pools]
    assert names
    for pool in config.pools:
        assert config.pool(pool.name) is not None
        assert all(endpoint.address for endpoint in pool.endpoints)


@cache
def trained_state() -> bytes:
    learner, world = a_learner(), LinearWorld()
    world.teach(learner, 20)
    return orjson.dumps(learner.state())


def a_learner() -> Learner:
    return Learner(EnginePredictor(), Trust(live_settings()))


def checkpoint(data: bytes) -> None:
    """A state under a header that fits it; or, from 128 on of the first byte, all of the file."""
    whole = data[:1] >= b"\x80"
    written = data[1:] if whole else header_for(data[1:]) + data[1:]
    path, learner = file_of(written, "pool.checkpoint"), a_learner()
    before = orjson.dumps(learner.state())
    try:
        restored = warm_start(path, "engine", learner)
    except ForeignFile:
        assert path.read_bytes() == written, "what is not ours is left"
        restored = False
    finally:
        for each in folder().glob("pool.checkpoint*"):
            each.unlink()
    after = orjson.dumps(learner.state())
    if not restored:
        assert after == before, "used in part"
        return
    check_learner(learner)


@cache
def header_start() -> bytes:
    path = folder() / "sample.checkpoint"
    write_checkpoint(path, "engine", {})
    return path.read_bytes().split(b"\n")[0]


def header_for(payload: bytes) -> bytes:
    fields = orjson.loads(header_start())
    return orjson.dumps(fields | {"digest": xxhash.xxh3_64_hexdigest(payload)}) + b"\n"


def check_learner(learner: Learner) -> None:
    """It predicts finite times, learns on, and its state is one."""
    world = LinearWorld()
    world.teach(learner, 3)
    predicted = learner.predict(world.candidates().features, world.endpoints)
    assert np.isfinite(predicted.ttft_s).all(), predicted
    a_learner().restore(orjson.loads(orjson.dumps(learner.state())))
    assert learner.status().n_samples >= 0


def journal(data: bytes) -> None:
    counts = ReadCounts()
    try:
        found = list(read_journals([file_of(data, "pool.journal.jsonl")], counts))
    except NoJournal:
        return
    assert counts.bytes_read == len(data)
    assert 0 <= counts.bad_lines <= counts.lines <= data.count(b"\n") + 1
    assert len(found) == counts.lines - counts.bad_lines
    for each in found:
        endpoints = each.candidates.snapshot.endpoints
        assert 0 <= each.chosen < len(endpoints)
        assert each.served is None or 0 <= each.served < len(endpoints)
        assert each.address
        assert each.propensity > 0
        assert each.ttft_s is None or each.ttft_s > 0


def frames(data: bytes) -> None:
    """One frame after another of any origin, each a frame later than the last."""
    replica = SharingRouter(1, n_endpoints=2)
    decision = replica.send(at_s=0.5)
    sharer = Sharer("pool", None, replica.shared, Told())
    n_sent, at_s = 0, 1.0
    for message in data.split(BETWEEN_MESSAGES):
        at_s += FRAME_S
        sharer._read(message, at_s)
        with suppress(Exception):
            n_sent += len(Frame.FromString(message).sent)
        replica.shared.inbox.age(at_s)
        check_nothing_below_zero(replica.router, at_s)
        assert sum(replica.in_flight(at_s)) <= 1 + n_sent, "more than was told of"
        replica.shared.frame(at_s).SerializeToString()
    replica.shared.inbox.age(at_s + MOST_SILENCE_S + 1.0)
    assert not replica.shared.inbox.peers
    after_s = at_s + MOST_AGE_S
    assert sum(replica.in_flight(after_s)) == 1, "what silent replicas had is given back"
    replica.end(decision, after_s)
    assert sum(replica.in_flight(after_s)) == 0
    assert np.isfinite(replica.router.learner.generation_s(replica.router.fleet.endpoints)).all()
