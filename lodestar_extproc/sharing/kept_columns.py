"""write_kept(), read_kept(): what engines keep, as columns of a message; write_all(), take_all().

A call for each column, not for each value: a thousand are written in 2 ms, and read in 10.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from lodestar_extproc.completion import KeptState
from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import KeptColumns
from lodestar_extproc.request import HASH_TYPE, InferenceRequest, Keeping, RequestKind
from lodestar_extproc.routing.kept import MAX_KEPT, Kept
from lodestar_extproc.routing.kept_answers import KeptAnswers
from lodestar_extproc.sharing.inbox import LARGEST

MAX_KNOWN_BLOCKS = 200_000
"""Of their prompts together: three million tokens, 1.6 MB; of those beyond, the lengths alone."""
NO_KEEPING = Keeping()


class ToldKept(NamedTuple):
    """One that was read.

    Attributes:
        key: of its name.
    """

    key: int
    kept: Kept


def write_kept(
    columns: KeptColumns,
    known: Iterable[tuple[int, Kept, str]],
    gone: Iterable[tuple[int, str]] = (),
    most_blocks: int = MAX_KNOWN_BLOCKS,
) -> None:
    """Write what is *known* into empty *columns*: keys, with the requests that they stand for.

    Args:
        known: of each, the key of the request in the same origin's `sent`; empty for none.
        gone: what is kept no more, with the endpoints that said so.
        most_blocks: of all prompts; of a prompt beyond, only the lengths are told.
    """
    places: dict[str, int] = {}
    rows = []
    for key, kept, request in known:
        place = places.setdefault(kept.address, len(places))
        hashes = () if kept.prompt is None or request else kept.prompt.block_hashes
        told = hashes if len(hashes) <= most_blocks else ()
        most_blocks -= len(told)
        columns.block_hashes.extend(told)
        rows.append((key, place, request, *_values(kept), len(told)))
    for column, values in zip(_by_row(columns), zip(*rows, strict=True), strict=False):
        column.extend(values)
    for key, address in gone:
        columns.gone.append(key)
        columns.gone_at.append(places.setdefault(address, len(places)))
    columns.addresses.extend(places)


def write_all(columns: KeptColumns, known: Iterable[tuple[int, Kept]]) -> None:
    """All of *known*, the most recently used first, for one who knows nothing."""
    write_kept(columns, ((key, kept, "") for key, kept in known))


def _by_row(columns: KeptColumns) -> tuple[Any, ...]:
    """Those that have a value for each of what is known, in the order of a row."""
    return (
        columns.names,
        columns.at,
        columns.requests,
        columns.running,
        columns.reply_tokens,
        columns.prompt_tokens,
        columns.prompt_bytes,
        columns.seeds,
        columns.head_keys,
        columns.head_bytes,
        columns.head_blocks,
        columns.continues,
        columns.n_blocks,
    )


def _values(kept: Kept) -> tuple[float, ...]:
    """Those of a row that are of the answer and its prompt alone."""
    prompt = kept.prompt
    keeping = NO_KEEPING if prompt is None else prompt.keeping or NO_KEEPING
    return (
        kept.state is KeptState.RUNNING,
        kept.reply_tokens,
        0.0 if prompt is None else prompt.prompt_tokens,
        0 if prompt is None else prompt.prompt_bytes,
        keeping.seed,
        keeping.head_key,
        keeping.head_bytes,
        keeping.head_blocks,
        keeping.continues or 0,
    )


def read_kept(
    columns: KeptColumns, at_s: float, sent: Callable[[str], InferenceRequest | None]
) -> Iterator[ToldKept]:
    """What *columns* tell; nothing where they do not fit each other, or hold what cannot be.

    Args:
        sent: the request of a key among `requests`; None where that did not come.
    """
    told = _by_row(columns)
    if len({len(column) for column in told}) != 1 or len(columns.names) > MAX_KEPT:
        return
    if sum(columns.n_blocks) != len(columns.block_hashes):
        return
    addresses, end = list(columns.addresses), 0
    hashes = array(HASH_TYPE, columns.block_hashes)
    for row in zip(*told, strict=True):
        key, place, request, running, reply_tokens, tokens, n_bytes, *mixed_with, n_blocks = row
        begin, end = end, end + n_blocks
        sensible = 0 <= reply_tokens < LARGEST and 0 <= tokens < LARGEST
        if not (sensible and key and place < len(addresses)):
            continue
        state = KeptState.RUNNING if running else KeptState.ENDED
        kept = Kept(addresses[place], at_s, state, reply_tokens=reply_tokens)
        kept.prompt = _prompt(
            hashes[begin:end], n_bytes, tokens, _keeping(mixed_with), sent(request)
        )
        yield ToldKept(key, kept)


def take_all(columns: KeptColumns, kept: KeptAnswers, at_s: float) -> None:
    """What `write_all` wrote, into *kept*, in the order of its use; what is known there stays."""
    for told in reversed(list(read_kept(columns, at_s, lambda _key: None))):
        if kept.get(told.key) is None:
            kept.take(told.key, told.kept)


def read_gone(columns: KeptColumns) -> Iterator[tuple[int, str]]:
    """Keys of what is kept no more, and the endpoints that said so."""
    addresses = list(columns.addresses)
    if len(columns.gone) == len(columns.gone_at):
        for key, place in zip(columns.gone, columns.gone_at, strict=True):
            if place < len(addresses):
                yield key, addresses[place]


def _keeping(told: list[int]) -> Keeping:
    seed, head_key, head_bytes, head_blocks, continues = told
    return Keeping(
        continues=continues or None,
        keeps_answer=True,
        seed=seed,
        head_key=head_key,
        head_bytes=head_bytes,
        head_blocks=head_blocks,
    )


def _prompt(
    hashes: Sequence[int],
    n_bytes: int,
    tokens: float,
    keeping: Keeping,
    sent: InferenceRequest | None,
) -> InferenceRequest | None:
    """What is kept stands for; None where that was not told."""
    if tokens <= 0:
        return None
    return InferenceRequest(
        model="",
        kind=RequestKind.RESPONSES,
        block_hashes=hashes if sent is None else sent.block_hashes,
        prompt_bytes=n_bytes,
        prompt_tokens=tokens,
        streaming=True,
        keeping=keeping,
    )
