"""What a stream of events costs where most of it says nothing."""

from __future__ import annotations

from lodestar_extproc.extproc.event_stream import EventStream, ServerSentEvent


def test_lines_that_say_nothing_are_passed_over_without_a_step_of_their_own(monkeypatch):
    heeded = []
    end_line = EventStream._end_line

    def counting(self, line):
        heeded.append(line)
        return end_line(self, line)

    monkeypatch.setattr(EventStream, "_end_line", counting)
    stream = EventStream(max_bytes=1000)
    nothing = b": keep-alive\n\nid: 7\nretry: 5\n\n"
    events = list(stream.feed(nothing * 10_000 + b"event: a\ndata: b\n\n" + nothing * 10_000))

    assert events == [ServerSentEvent(b"a", b"b")]
    assert heeded == [b"event: a", b"data: b", b""]


def test_a_field_that_begins_as_another_one_is_none():
    stream = EventStream(max_bytes=1000)

    assert list(stream.feed(b"database: x\neventful: y\ndata\n\n")) == [ServerSentEvent(b"", b"")]
