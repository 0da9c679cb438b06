"""Entries of Envoy's access log, with and without our tags."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

import envoy_types
from lodestar_extproc.completion import Completion, Outcome
from lodestar_extproc.extproc.access_log import completion
from lodestar_extproc.extproc.retry_after import retry_after_s
from lodestar_extproc.generated.lodestar.v1.envoy_pb2 import (
    HTTPAccessLogEntry,
    ResponseFlags,
    StreamAccessLogsMessage,
)

TAGS = {
    "ttft_us": "203000",
    "e2e_us": "900000",
    "inst": "10.0.0.1:8000",
    "attempts": "2",
    "decision": "pool.1",
    "stream": "abc",
    "flags": "-",
}
METADATA = {"filterMetadata": {"envoy.lb": {"decision-id": "pool.1", "stream-id": "abc"}}}
ADDRESS = {"socketAddress": {"address": "10.0.0.1", "portValue": 8000}}


def entry(tags=None, *, code=200, request_id="", **common) -> HTTPAccessLogEntry:
    """As Envoy would send it."""
    fields = {
        "commonProperties": {"customTags": tags or {}} | common,
        "request": {"requestId": request_id},
        "response": {"responseCode": code},
    }
    theirs = envoy_types.StreamAccessLogsMessage.from_dict({"httpLogs": {"logEntry": [fields]}})
    message = StreamAccessLogsMessage.FromString(bytes(theirs))
    return HTTPAccessLogEntry.FromString(message.http_logs.log_entry[0])


def tagged_with(tags: dict[bytes, bytes], code: int = 200) -> HTTPAccessLogEntry:
    made = HTTPAccessLogEntry()
    for key, value in tags.items():
        made.common_properties.custom_tags.add(key=key, value=value)
    made.response.response_code.value = code
    return made


def tagged(**changes: str | None) -> HTTPAccessLogEntry:
    return entry({k: v for k, v in (TAGS | changes).items() if v is not None})


WHOLE = Completion(
    at_s=5.0,
    outcome=Outcome.SERVED,
    decision_id="pool.1",
    stream_id="abc",
    served="10.0.0.1:8000",
    attempts=2,
    ttft_s=0.203,
    duration_s=0.9,
    response_code=200,
)


def test_tags_alone_tell_everything():
    assert completion(tagged(), 5.0) == WHOLE


def test_without_tags_all_but_the_ttft_is_known():
    told = completion(
        entry(
            metadata=METADATA,
            upstreamRemoteAddress=ADDRESS,
            upstreamRequestAttemptCount=2,
            timeToFirstUpstreamTxByte="0.010s",
            timeToLastUpstreamRxByte="0.910s",
        ),
        5.0,
    )
    assert told.duration_s == pytest.approx(0.9)
    assert told.ttft_s is None
    assert (told.decision_id, told.stream_id, told.served, told.attempts) == (
        "pool.1",
        "abc",
        "10.0.0.1:8000",
        2,
    )


def test_an_abort_lasted_until_it_happened():
    told = completion(
        entry(
            metadata=METADATA,
            responseFlags={"downstreamConnectionTermination": True},
            timeToFirstUpstreamTxByte="0.010s",
            duration="3.010s",
        ),
        5.0,
    )
    assert told.duration_s == pytest.approx(3.0)
    assert (told.outcome, told.flags) == (Outcome.CLIENT_GONE, ("DC",))


def test_an_ipv6_endpoint_is_written_as_envoy_writes_it():
    address = {"socketAddress": {"address": "fd00::1", "portValue": 8000}}
    told = completion(entry(metadata=METADATA, upstreamRemoteAddress=address), 5.0)
    assert told.served == "[fd00::1]:8000"


@pytest.mark.parametrize("absent", ["-", "", None])
@pytest.mark.parametrize("tag", ["ttft_us", "e2e_us", "inst", "attempts", "flags"])
def test_what_envoy_could_not_tell_is_unknown(tag, absent):
    told = completion(tagged(**{tag: absent}), 5.0)
    field = {
        "ttft_us": "ttft_s",
        "e2e_us": "duration_s",
        "inst": "served",
        "attempts": "attempts",
        "flags": "flags",
    }[tag]
    assert getattr(told, field) == (() if tag == "flags" else None)
    assert told.outcome is Outcome.SERVED


@pytest.mark.parametrize("time", ["-5", "0", "nan", "inf", "1e300", "soon", "1_0e"])
def test_a_time_that_is_none_is_unknown(time):
    assert completion(tagged(ttft_us=time), 5.0).ttft_s is None


@pytest.mark.parametrize("attempts", ["-1", "0", "two", "9" * 50, "1.5"])
def test_a_count_that_is_none_is_unknown(attempts):
    assert completion(tagged(attempts=attempts), 5.0).attempts is None


@pytest.mark.parametrize(
    ("flags", "code", "outcome"),
    [
        ("-", 200, Outcome.SERVED),
        ("-", 404, Outcome.SERVED),
        ("-", 499, Outcome.SERVED),
        ("-", 500, Outcome.FAILED),
        ("-", 503, Outcome.FAILED),
        ("-", 0, Outcome.FAILED),
        ("DC", 0, Outcome.CLIENT_GONE),
        ("DC", 200, Outcome.CLIENT_GONE),
        ("DR,UC", 200, Outcome.CLIENT_GONE),
        ("UC", 200, Outcome.FAILED),
        ("UR", 200, Outcome.FAILED),
        ("URX,UF", 503, Outcome.FAILED),
        ("SI", 200, Outcome.FAILED),
        ("UAEX", 403, Outcome.SERVED),
    ],
)
def test_flags_and_status_tell_the_outcome(flags, code, outcome):
    tags = TAGS | {"flags": flags}
    assert completion(entry(tags, code=code), 5.0).outcome is outcome


@pytest.mark.parametrize("flag", [f.name for f in ResponseFlags.DESCRIPTOR.fields])
def test_every_flag_of_the_message_counts(flag):
    told = completion(entry(metadata=METADATA, responseFlags={flag: True}), 5.0)
    gone = flag.startswith("downstream")
    assert told.outcome is (Outcome.CLIENT_GONE if gone else Outcome.FAILED)
    assert len(told.flags) == 1


@pytest.mark.parametrize("kind", [4, 5, 9])
def test_an_entry_before_the_end_is_none(kind):
    assert completion(entry(TAGS, accessLogType=kind), 5.0) is None


def test_the_end_may_say_so():
    assert completion(entry(TAGS, accessLogType=6), 5.0) == WHOLE


def test_an_entry_of_nobodys_is_none():
    assert completion(entry(), 5.0) is None
    assert completion(HTTPAccessLogEntry(), 5.0) is None


def test_without_a_decision_our_own_id_of_the_stream_joins():
    told = completion(tagged(decision=None), 5.0)
    assert (told.decision_id, told.stream_id) == ("", "abc")


def test_a_request_id_joins_nothing():
    assert completion(entry(request_id="abc"), 5.0) is None


def test_reading_leaves_the_entry_as_it_was():
    given = entry(request_id="abc")
    before = given.SerializeToString()
    completion(given, 5.0)
    assert given.SerializeToString() == before


@given(
    st.dictionaries(st.sampled_from([t.encode() for t in TAGS]), st.binary(max_size=30)),
    st.integers(0, 999),
)
def test_any_tags_are_an_entry(tags, code):
    told = completion(tagged_with({b"stream": b"abc"} | tags, code), 5.0)
    if told is None:
        # Both ids are among those that Envoy had nothing to put into.
        assert {tags.get(b"stream"), tags.get(b"decision", b"")} <= {b"", b"-"}
        return
    assert told.outcome in Outcome
    assert told.ttft_s is None or 0 < told.ttft_s < 1e6


@pytest.mark.parametrize(
    ("value", "expected"),
    [("2", 2.0), ("0.5", 0.5), ("-", None), ("soon", None), ("-3", None), ("9" * 40, None)],
)
def test_what_a_refusal_asks_for_is_told(value, expected):
    assert completion(tagged(retry_after=value), 5.0).retry_after_s == expected


def test_a_date_is_a_time_too():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_s("Thu, 01 Jan 2026 00:00:07 GMT", now) == 7.0
    assert retry_after_s("Wed, 31 Dec 2025 00:00:00 GMT", now) == 0.0


def test_an_answer_without_a_byte_is_told_from_one_of_which_nothing_is_known():
    served = {"metadata": METADATA, "upstreamRemoteAddress": ADDRESS}
    assert completion(entry(**served), 5.0).is_empty
    assert not completion(tagged(), 5.0).is_empty
