"""InferenceRequest: what routing needs to know of a client's request; Subset: where it may go.

It knows neither HTTP nor JSON (`extproc/body.py` reads those) and never holds prompt text: a prompt
is a chain of block hashes and its length.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from ctypes import addressof, c_char
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

import xxhash

from lodestar_extproc.kernel.compiled import KERNEL, Kernel

BLOCK_BYTES = 64
"""Prompt bytes a block: 16 tokens at 4 bytes a token, vLLM's default block."""
HASH_TYPE = "Q"
"""Of an array of block hashes: eight bytes each, where a tuple of numbers takes forty, which for a
long prompt take longer to make than its hashes to compute."""
MAX_ANSWERS = 256
"""Of one request that are counted, as many as vLLM generates at once unless told otherwise: a
client may ask for any number."""
_BLOCK = struct.Struct(f"{BLOCK_BYTES}s")


class RequestKind(StrEnum):
    """The API a body was written for."""

    CHAT_COMPLETIONS = "chat_completions"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    GENERATE = "generate"
    GENERATE_STREAM = "generate_stream"
    OLLAMA = "ollama"
    INVOCATIONS = "invocations"
    RERANK = "rerank"
    SCORE = "score"
    CLASSIFY = "classify"
    POOLING = "pooling"
    UNKNOWN = "unknown"


class Keeping(NamedTuple):
    """What a request has to do with answers and conversations that one endpoint keeps.

    Attributes:
        continues: key of what its prompt goes on from (see `name_key`); None for nothing.
        is_conversation: what is said now is kept under that name too.
        keeps_answer: the engine keeps the answer, under an id that the answer tells.
        in_background: it is answered before it is computed.
        seed: what its block hashes are mixed with, as those of its model and cache.
        head_key: hash of what a template puts before all turns, as tools; 0 for nothing.
        head_bytes, head_blocks: so much of the prompt the head is; the blocks of a request that
            continues something follow each other anew after it.
        borrowed_head_bytes: of an earlier turn's head, where it names none itself and the engine
            may take that.
    """

    continues: int | None = None
    is_conversation: bool = False
    keeps_answer: bool = False
    in_background: bool = False
    seed: int = 0
    head_key: int = 0
    head_bytes: int = 0
    head_blocks: int = 0
    borrowed_head_bytes: int = 0


class InferenceRequest(NamedTuple):
    """One prompt as the router sees it.

    Attributes:
        model: what the engine is asked for; empty where the body names none.
        block_hashes: the first identifies the first full block of the prompt and its model, and
            together with it hash k identifies the first k+1 (see `hash_blocks`); an array that is
            never changed, for caches keep slices of it.
        prompt_tokens: exact for token lists, media by their own count, and else bytes divided by
            the learned bytes per token.
        max_output_tokens: the client's limit; None where it set none.
        streaming: whether the answer comes as server-sent events, so that a first token is seen.
        ttft_slo_s: the client's bound on TTFT, seconds; None where it set none.
        tpot_slo_s: the same for the time between output tokens.
        priority: of its objective; below 0 it may be refused rather than served too late.
        session: hash of the client's name for its session; None where it has none.
        named_model: what the body named, where the engine is asked for another model.
        text_bytes: of the prompt, what is text; None for all of it.
        n_media: images, sounds and files in it.
        is_plain: whether the rest is text that every template renders, so that an engine's count of
            its tokens says what a token stands for.
        keeping: None where it has nothing to do with what endpoints keep.
        reads_cache: False where the engine computes the whole prompt, whatever it holds of it.
        n_answers: that are generated at once, of one prompt or of several.
    """

    model: str
    kind: RequestKind
    block_hashes: Sequence[int]
    prompt_bytes: int
    prompt_tokens: float
    streaming: bool
    max_output_tokens: int | None = None
    ttft_slo_s: float | None = None
    tpot_slo_s: float | None = None
    priority: int = 0
    session: int | None = None
    named_model: str | None = None
    text_bytes: int | None = None
    n_media: int = 0
    is_plain: bool = True
    keeping: Keeping | None = None
    reads_cache: bool = True
    n_answers: int = 1

    @property
    def is_sheddable(self) -> bool:
        """Whether it may be refused rather than served too late."""
        return self.priority < 0

    @property
    def session_key(self) -> int | None:
        """The session, else the first block: the same beginning is the same conversation."""
        if self.session is not None or not self.block_hashes:
            return self.session
        return self.block_hashes[0]

    @property
    def prompt_key(self) -> int:
        """Tells this prompt from others, of this process; those below a block by their length."""
        last = self.block_hashes[-1] if self.block_hashes else 0
        return hash((self.model, last, self.prompt_bytes))

    @property
    def tokens_per_block(self) -> float:
        """Tokens a full block stands for."""
        if self.prompt_bytes == 0:
            return 0.0
        return self.prompt_tokens * BLOCK_BYTES / self.prompt_bytes


@dataclass(frozen=True, slots=True)
class Subset:
    """The endpoints that a gateway, or a conformance test, allows one request to go to.

    `ip:port` allows one endpoint, `ip` all of that host's; without any, none is allowed.

    >>> "10.0.0.1:8000" in Subset.of(["10.0.0.1:8000, 10.0.0.2", "[fd00::1]"])
    True
    >>> "[fd00::1]:8000" in Subset.of(["[fd00::1]"]), "10.0.0.1:9000" in Subset.of(["10.0.0.1:80"])
    (True, False)
    """

    named: frozenset[str]

    @classmethod
    def of(cls, entries: Iterable[str]) -> Self:
        """Of addresses, or of lists of them parted by commas; blanks mean nothing."""
        parts = (part.strip() for entry in entries for part in entry.split(","))
        return cls(frozenset(part for part in parts if part))

    def __contains__(self, address: str) -> bool:
        host = address.rpartition(":")[0]
        return not self.named.isdisjoint((address, host, host.strip("[]")))


def mixed(hashes: Sequence[int], seed: int) -> Sequence[int]:
    """*hashes* of another prompt: the first tells it, and the others mean nothing without it.

    >>> list(mixed((1, 2, 3), 5))
    [4, 2, 3]
    """
    if not hashes:
        return ()
    other = array(HASH_TYPE, hashes)
    other[0] ^= seed
    return other


def name_key(name: str) -> int:
    """The key of an answer or conversation by the name its engine gave it; never 0.

    >>> name_key("resp_1") == name_key("resp_1"), name_key("resp_1") == name_key("resp_2")
    (True, False)
    """
    return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")) or 1


def hash_blocks(
    prompt: bytes | bytearray | memoryview, seed: int = 0, kernel: Kernel | None = KERNEL
) -> array[int]:
    """Chained XXH3-64 hashes of the full blocks of *prompt*, first block first.

    Each hash is seeded with its predecessor's, so equal hashes mean equal prefixes; the incomplete
    last block is left out. About 0.03 µs a block, and 0.07 without a kernel.

    Args:
        prompt: a view is one of a bytearray.

    >>> a, b = hash_blocks(b"x" * 128), hash_blocks(b"x" * 64 + b"y" * 70)
    >>> a[0] == b[0], a[1] == b[1], len(b)
    (True, False, 2)
    """
    n_blocks = len(prompt) // BLOCK_BYTES
    if kernel is None:
        digest, whole = xxhash.xxh3_64_intdigest, memoryview(prompt)[: n_blocks * BLOCK_BYTES]
        blocks = _BLOCK.iter_unpack(whole)
        return array(HASH_TYPE, [seed := digest(block, seed) for (block,) in blocks])
    hashes = array(HASH_TYPE, bytes(n_blocks * 8))
    if n_blocks:
        # What is being written is read where it lies: the interpreter's lock is held meanwhile.
        at = prompt if isinstance(prompt, bytes) else addressof(c_char.from_buffer(prompt))
        kernel.hash_blocks(at, n_blocks, seed, hashes.buffer_info()[0])
    return hashes
