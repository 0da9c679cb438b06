"""PromptWriter: one prompt in the form that is hashed, written into one buffer.

Texts stand in it as an engine's tokenizer sees them, media as digests, and values in one spelling.
What parts them are bytes that no UTF-8 text has, so nothing a client writes reads like them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import xxhash
from orjson import dumps

from lodestar_extproc.extproc.budget import MAX_NESTING, Budget, Limit, OverBudget
from lodestar_extproc.extproc.json_form import EXACT_BELOW, json_form
from lodestar_extproc.extproc.json_text import InvalidRequest
from lodestar_extproc.extproc.long_strings import MAX_KEPT_BYTES, LongString, LongStrings
from lodestar_extproc.extproc.media import LOOK_BYTES, is_cache_marker, is_encoded, media_payload
from lodestar_extproc.request import BLOCK_BYTES

MESSAGE_END, FIELD, PART_END, MEDIA = b"\xf8", b"\xf9", b"\xfa", b"\xfb"
_KEY, _VALUE, _LIST_END, _SCALAR = (
    b'\xfc, "',
    b'\xfd": "',
    b"\xfe",
    b"\xff",
)  # as long as JSON's own
MEDIA_BYTES = 2304
"""Of a medium in a prompt: 576 tokens at 4 bytes, so that its blocks stand for as many tokens."""
_DIGEST_REPEATS = MEDIA_BYTES // 16  # bytes of an xxh3_128 digest
_MEDIA_ITEMS = 4
"""A medium takes as long as so many other values: 7 µs."""


class Inexact(Exception):  # noqa: N818  (the condition's name)
    """A number may have lost digits: the body is to be read by Python's json."""


def _packed(ids: list[Any]) -> bytes:
    """As pydantic reads them: 5.0 is 5."""
    try:
        return struct.pack(f"<{len(ids)}I", *ids)
    except struct.error:
        whole = (int(n) if isinstance(n, float) and n.is_integer() else n for n in ids)
        return struct.pack(f"<{len(ids)}I", *whole)


@dataclass(slots=True)
class Source:
    """What the writers of one body share.

    Attributes:
        exact: Python's json has read it, so numbers are as they were written.
        left_bytes: that are still kept to be hashed.
    """

    strings: LongStrings
    exact: bool = False
    budget: Budget = field(default_factory=Budget)
    left_bytes: int = MAX_KEPT_BYTES


class PromptWriter:
    """Writes one sequence that an engine computes.

    Attributes:
        text_bytes: what a tokenizer makes tokens of.
        other_bytes: what stands for media and token ids.
        n_media, n_tokens: counted by themselves.
        is_plain: the text is what every template renders, and there are no token ids.
    """

    def __init__(self, source: Source) -> None:
        self.text_bytes = 0
        self.other_bytes = 0
        self.n_media = 0
        self.n_tokens = 0
        self.is_plain = True
        self._data = bytearray()
        self._source = source
        self._budget = source.budget
        self._strings = source.strings

    @property
    def data(self) -> bytearray:
        """What is hashed: the beginning, where a prompt is longer than any context window."""
        return self._data

    def spend(self, n_items: int) -> None:
        """Look at *n_items* more; errors as of `Budget.spend`."""
        self._budget.spend(n_items)

    def items(self, given: object) -> list[Any]:
        """Items of a list, for each of which a step may begin; none of anything else."""
        if not isinstance(given, list):
            return []
        self._budget.list(len(given))
        return given

    def step(self) -> None:
        """Begin a step."""
        self._budget.step()

    def steps(self, given: object) -> Iterator[Any]:
        """Items of a list, each of which is a step; none of anything else."""
        for each in self.items(given):
            self._budget.step()
            yield each

    def mark(self, mark: bytes) -> None:
        """Part what follows from what came before, as a template's separators do."""
        self._add(mark)

    def text(self, text: str) -> None:
        """Text, as it is."""
        long = self._strings.find(text)
        if long is None:
            self._add(text.encode("utf-8", "surrogatepass"))
        else:
            self._add(long.data)
            self._rest_of(long)

    def _rest_of(self, long: LongString) -> None:
        """Of data in a text's place the rest makes a difference, if only one block of it."""
        self.text_bytes += long.n_bytes - len(long.data)
        if long.n_bytes > len(long.data) and self._source.left_bytes > 0:
            self.other_bytes += BLOCK_BYTES
            self._keep(long.digest * (BLOCK_BYTES // len(long.digest)))

    def written(self, form: bytes) -> bool:
        """Take what was written elsewhere in this form; False where long strings belong into it."""
        if self._strings.stand_in(form):
            return False
        self._add(form)
        return True

    def starts_with(self, text: str, beginning: str) -> bool:
        """Whether *text*, perhaps a long one, begins so."""
        long = self._strings.find(text)
        return (
            text.startswith(beginning) if long is None else long.data.startswith(beginning.encode())
        )

    def whole(self, text: str, max_bytes: int) -> str | None:
        """What *text* stands for, where that is at most *max_bytes*."""
        long = self._strings.find(text)
        if long is None:
            return text if len(text) <= max_bytes else None
        return long.data.decode("utf-8", "surrogatepass") if long.n_bytes <= max_bytes else None

    def token_ids(self, ids: list[Any]) -> None:
        """Token ids, as 4 bytes each, little-endian.

        Raises:
            InvalidRequest: one is no integer from 0 to 4294967295.
        """
        try:
            packed = _packed(ids)
        except struct.error:
            raise InvalidRequest("token ids must be integers from 0 to 4294967295") from None
        self.other_bytes += len(packed)
        self._keep(packed)
        self.n_tokens += len(ids)
        self.is_plain = False

    def media(self, payload: object) -> None:
        """An image, sound or file, known by its payload alone."""
        self._budget.spend(_MEDIA_ITEMS)
        self.n_media += 1
        self.other_bytes += len(MEDIA) + MEDIA_BYTES
        self._keep(MEDIA + self._digest(payload) * _DIGEST_REPEATS)

    def value(self, value: object) -> None:
        """A value whose keys a template sees in the order in which they come: a schema."""
        if not isinstance(value, (dict, list)):
            self._scalar(value)
            return
        form = json_form(value)
        if form is None:
            self._walk(value, 0)
            return
        for piece, long in self._strings.spelled(form):
            self._add(piece)
            if long is not None:
                self._add(dumps(long.data.decode("utf-8", "ignore"))[1:-1])
                self._rest_of(long)

    def _walk(self, value: object, depth: int) -> None:
        """A value that has no form of its own in JSON."""
        if isinstance(value, dict):
            self._members(value.items(), depth, self._walk)
        elif isinstance(value, list):
            self._list(value, depth, self._walk)
        else:
            self._scalar(value)

    def sorted_value(self, value: object, depth: int = 0) -> None:
        """A value of unknown shape: the order of its keys is nobody's, and it may hold media."""
        if isinstance(value, dict):
            payload = media_payload(value)
            if payload is not None:
                self.media(payload)
                return
            self._members(sorted(value.items()), depth, self.sorted_value)
        elif isinstance(value, list):
            self._list(value, depth, self.sorted_value)
        elif isinstance(value, str) and self._is_encoded(value):
            self.media(value)
        else:
            self._scalar(value)

    def _members(self, members: Iterable[tuple[str, object]], depth: int, write: Any) -> None:
        self._go_down(depth)
        for key, each in members:
            self._budget.spend(1)
            if is_cache_marker(key, each):
                continue
            self._add(_KEY)
            self.text(key)
            self._add(_VALUE)
            write(each, depth + 1)
        self._add(_LIST_END)

    def _list(self, items: list[Any], depth: int, write: Any) -> None:
        self._go_down(depth)
        self._budget.spend(len(items))
        for each in items:
            write(each, depth + 1)
            self._add(PART_END)
        self._add(_LIST_END)

    def _scalar(self, value: object) -> None:
        if isinstance(value, str):
            self.text(value)
            return
        if isinstance(value, float) and abs(value) >= EXACT_BELOW and not self._source.exact:
            raise Inexact
        self._add(_SCALAR + repr(value).encode())

    def _is_encoded(self, text: str) -> bool:
        long = self._strings.find(text)
        return is_encoded(text if long is None else long.data[:LOOK_BYTES].decode("latin-1"))

    def _digest(self, payload: object) -> bytes:
        if isinstance(payload, str):
            long = self._strings.find(payload)
            if long is not None:
                return long.digest
            return xxhash.xxh3_128_digest(payload.encode("utf-8", "surrogatepass"))
        own = PromptWriter(self._source)
        own.value(sorted(payload.items()) if isinstance(payload, dict) else payload)
        return xxhash.xxh3_128_digest(own.data)

    @staticmethod
    def _go_down(depth: int) -> None:
        if depth >= MAX_NESTING:
            raise OverBudget(Limit.NESTING)

    def _add(self, text: bytes | bytearray) -> None:
        n_bytes = len(text)
        self.text_bytes += n_bytes
        if n_bytes > self._source.left_bytes:
            self._keep(text)
            return
        self._data += text
        self._source.left_bytes -= n_bytes

    def _keep(self, data: bytes | bytearray) -> None:
        left = self._source.left_bytes
        if left > 0:
            self._data += data[:left] if len(data) > left else data
            self._source.left_bytes = left - min(left, len(data))
