"""Usual messages are read as the reference reads them: captured ones, made-up ones, mutated ones."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar_extproc.extproc import wire
from lodestar_extproc.extproc.transitions import ProtocolError
from lodestar_extproc.extproc.usual_messages import MAX_TAILS, VIEWED_BYTES, UsualMessages
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2 as pb

CAPTURED = sorted((Path(__file__).parent / "captured").glob("*.json"))
MORE = frozenset(("x-session",))


def messages(path: Path) -> list[bytes]:
    scenarios = json.loads(path.read_text()).values()
    return [base64.b64decode(m) for each in scenarios for s in each["streams"] for m in s]


ALL = [message for path in CAPTURED for message in messages(path)]


def reference(data: bytes):
    try:
        return wire.read(data, 1.0, MORE)
    except ProtocolError:
        return None


def check(reader: UsualMessages, data: bytes) -> bool:
    """Whether *data* was read as a usual message; then as the reference reads it."""
    usual = reader.usual(data, 1.0, MORE)
    assert usual is None or usual == reference(data)
    return usual is not None


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_what_envoys_sent_is_read_alike_and_most_of_it_as_usual(path):
    reader = UsualMessages()
    by_kind = {}
    for data in messages(path):
        message = pb.ProcessingRequest.FromString(data)
        kind = message.WhichOneof("request")
        if kind == "response_body" and not message.response_body.body:
            kind = "empty"
        by_kind.setdefault(kind, []).append(check(reader, data))
    for kind in ("request_headers", "request_body", "response_body"):
        assert all(by_kind.get(kind, ())), kind
    assert not any(any(by_kind.get(kind, ())) for kind in ("response_headers", "request_trailers"))


def test_a_long_body_is_left_where_it_lies():
    for n_bytes in (VIEWED_BYTES - 1, VIEWED_BYTES, 2 * VIEWED_BYTES):
        sent = pb.HttpBody(body=random.Random(n_bytes).randbytes(n_bytes), end_of_stream=True)
        data = pb.ProcessingRequest(request_body=sent).SerializeToString()
        assert check(UsualMessages(), data)
        event, _ = UsualMessages().usual(data, 1.0, MORE)
        copied = isinstance(event.body, bytes)
        assert copied == (n_bytes < VIEWED_BYTES)
        assert copied or event.body.obj is data


def test_mutated_messages_are_read_alike():
    rng, reader = random.Random(1), UsualMessages()
    n_usual = 0
    for _ in range(30_000):
        data = bytearray(rng.choice(ALL))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(4):
                case 0 if at < len(data):
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randint(1, 9)]
                case 2:
                    data[at:at] = rng.randbytes(rng.randint(1, 9))
                case _:  # a field more, or the same once more
                    data += rng.choice(ALL)[: rng.choice((3, 40, 10_000))]
        n_usual += check(reader, bytes(data))
    assert n_usual > 2_000


texts = st.binary(max_size=9) | st.sampled_from([b":path", b"x-session", b"X-Session", b"a,b"])
values = st.builds(pb.Value, string_value=texts, number_value=st.sampled_from([0, 200, 503.0]))
keys = texts | st.sampled_from(
    [
        b"decision-id",
        b"x-gateway-destination-endpoint-served",
        b"response.code",
        b"upstream.address",
    ]
)
entries = st.lists(st.builds(pb.Struct.Entry, key=keys, value=values), max_size=3)
namespaces = st.lists(
    st.builds(
        pb.NamespaceEntry,
        key=st.sampled_from(
            [b"envoy.lb", b"envoy.lb.subset_hint", b"envoy.filters.http.ext_proc", b"other"]
        ),
        value=st.builds(pb.Struct, fields=entries),
    ),
    max_size=3,
)
bodies = st.builds(
    pb.HttpBody,
    body=st.binary(max_size=300),
    end_of_stream=st.booleans(),
    end_of_stream_without_message=st.booleans(),
)
headers = st.builds(
    pb.HttpHeaders,
    headers=st.builds(
        pb.HeaderMap,
        headers=st.lists(st.builds(pb.HeaderValue, key=texts, value=texts, raw_value=texts)),
    ),
    end_of_stream=st.booleans(),
)


def requests():
    beside = {
        "metadata_context": st.none() | st.builds(pb.Metadata, filter_metadata=namespaces),
        "attributes": namespaces,
        "observability_mode": st.booleans(),
    }
    return st.one_of(
        *(
            st.builds(pb.ProcessingRequest, **{name: content}, **beside)
            for name, content in (
                ("request_headers", headers),
                ("request_body", bodies),
                ("response_body", bodies),
            )
        )
    )


@given(requests(), requests())
def test_whatever_stands_beside_a_body_is_read_alike(one, other):
    reader = UsualMessages()
    for data in (one.SerializeToString(), other.SerializeToString()):
        check(reader, data)
        check(reader, data)  # its tail is known by now
    check(reader, one.SerializeToString() + other.SerializeToString())


def test_of_many_tails_few_are_remembered():
    reader = UsualMessages()
    for i in range(3 * MAX_TAILS):
        message = pb.ProcessingRequest(request_body=pb.HttpBody(body=b"a"))
        message.attributes.add(key=str(i).encode())
        assert check(reader, message.SerializeToString())
        assert len(reader._tails) <= MAX_TAILS
