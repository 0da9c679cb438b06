"""Answers that are damaged, or no answers at all: what is read of them is the same in any pieces."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from lodestar_extproc.completion import AnswerForm
from lodestar_extproc.extproc.answer import AnswerReader

TOKEN = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
PIECES = (1, 2, 3, 64, 10**6)


def read(data: bytes, n_bytes: int, headers: dict[str, str]) -> AnswerReader:
    reader = AnswerReader(headers)
    for start in range(0, len(data), n_bytes):
        reader.feed(data[start : start + n_bytes])
    reader.finish()
    return reader


@pytest.mark.parametrize("n_bytes", PIECES)
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_comes_before_the_damage_is_read_in_any_pieces(coding, n_bytes):
    packer = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
    good = packer.compress(TOKEN) + packer.flush(zlib.Z_SYNC_FLUSH)
    reader = read(good + b"\xff" * 100, n_bytes, {"content-encoding": coding})
    assert reader.first_token
    assert reader.form_at_end is AnswerForm.UNREADABLE


@pytest.mark.parametrize("n_bytes", PIECES)
@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"OggS\0\2" + bytes(200), AnswerForm.UNREADABLE),
        (b"RIFF\x24\x08\0\0WAVEfmt " + bytes(200), AnswerForm.UNREADABLE),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", AnswerForm.UNREADABLE),
        (b"<html>" + b"It works! " * 20 + b"\xff\0", AnswerForm.FOREIGN),
        (b"no", AnswerForm.FOREIGN),
    ],
)
def test_a_page_or_a_binary_is_told_by_its_beginning_in_any_pieces(data, form, n_bytes):
    assert read(data, n_bytes, {}).form_at_end is form


def test_nothing_is_kept_of_what_follows_the_end_of_a_packed_answer():
    reader, more = AnswerReader({"content-encoding": "gzip"}), b"x" * 2**16
    reader.feed(gzip.compress(TOKEN))
    tracemalloc.start()
    try:
        for _ in range(100):
            reader.feed(more)
        held_bytes, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 2**18
    assert reader.first_token
