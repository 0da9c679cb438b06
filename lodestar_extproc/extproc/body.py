"""From what a client's HTTP request says to an InferenceRequest.

It knows what a body says and what headers ask for; nothing of gRPC, and nothing of who will serve
the request.
"""

from __future__ import annotations

from collections.abc import Callable

import xxhash

from lodestar_extproc.extproc.body_reading import ParsedBody, read
from lodestar_extproc.extproc.scheduling_hints import NO_HINTS, SchedulingHints
from lodestar_extproc.fleet.tokens_per_medium import DEFAULT_TOKENS
from lodestar_extproc.request import InferenceRequest, RequestKind, mixed


def request_of(
    parsed: ParsedBody,
    kind: RequestKind,
    bytes_per_token: Callable[[str], float],
    hints: SchedulingHints = NO_HINTS,
    target_of: Callable[[str], str] = str,
    tokens_per_medium: Callable[[str], float] = lambda _: DEFAULT_TOKENS,
    only_model: str = "",
) -> InferenceRequest:
    """The request that *parsed* is, for the model that the engine will be asked for.

    Args:
        bytes_per_token, tokens_per_medium: learned, by model; above 0.
        hints: what its headers ask for.
        target_of: the model to ask the engine for in place of the one named.
        only_model: what an engine takes where none is named; empty where nobody knows.
    """
    target = target_of(parsed.model)
    model = target or only_model
    # Engines share no cache between models; a LoRA is one.
    seed = xxhash.xxh3_64_intdigest(model.encode("utf-8", "surrogatepass"), parsed.seed)
    tokens = parsed.text_bytes / bytes_per_token(model) + parsed.n_token_ids
    if parsed.n_media:
        tokens += parsed.n_media * tokens_per_medium(model)
    return InferenceRequest(
        model=model,
        kind=kind,
        # The first hash tells the model, and whatever else cannot share a cache.
        block_hashes=mixed(parsed.block_hashes, seed),
        prompt_bytes=parsed.prompt_bytes,
        prompt_tokens=tokens,
        streaming=parsed.streaming,
        max_output_tokens=parsed.max_output_tokens,
        ttft_slo_s=hints.ttft_slo_s,
        tpot_slo_s=hints.tpot_slo_s,
        priority=hints.priority,
        session=_hinted_session(hints) or parsed.session,
        named_model=None if target == parsed.model else parsed.model,
        text_bytes=parsed.text_bytes,
        n_media=parsed.n_media,
        is_plain=parsed.is_plain,
        keeping=parsed.keeping and parsed.keeping._replace(seed=seed),
        reads_cache=parsed.reads_cache,
        n_answers=parsed.n_answers,
    )


def parse(
    body: bytes,
    kind: RequestKind,
    bytes_per_token: Callable[[str], float],
    hints: SchedulingHints = NO_HINTS,
    target_of: Callable[[str], str] = str,
) -> InferenceRequest:
    """Read *body* in one go; arguments and errors as of `reading` and `request_of`."""
    return request_of(read(body, kind), kind, bytes_per_token, hints, target_of)


def unparsed(
    body_bytes: int, bytes_per_token: float, hints: SchedulingHints = NO_HINTS
) -> InferenceRequest:
    """A request known by its size alone; the engine will tell the client what is wrong with it."""
    return InferenceRequest(
        model="",
        kind=RequestKind.UNKNOWN,
        block_hashes=(),
        prompt_bytes=body_bytes,
        prompt_tokens=body_bytes / bytes_per_token,
        streaming=False,
        ttft_slo_s=hints.ttft_slo_s,
        tpot_slo_s=hints.tpot_slo_s,
        priority=hints.priority,
        session=_hinted_session(hints),
        is_plain=False,
    )


def _hinted_session(hints: SchedulingHints) -> int | None:
    return xxhash.xxh3_64_intdigest(hints.session.encode()) if hints.session else None
