"""Whether a request wants something of each token of its prompt, as its probability.

A cache holds no such thing, so that the engine computes the whole prompt (vLLM's
`skip_reading_prefix_cache`, SGLang's `logprob_start_len`). It knows the names that engines have for
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lodestar_extproc.extproc.json_text import is_true
from lodestar_extproc.request import RequestKind

_FIELDS = frozenset(("prompt_logprobs", "echo", "logprob_start_len", "sampling_params"))
_TOKEN_TASKS = (None, "token_embed", "token_classify", "plugin")
"""Of vLLM's `/pooling`, which takes the first where none is named."""


def reads_cache(fields: Mapping[str, Any], kind: RequestKind) -> bool:
    """Whether what an engine holds of the prompt spares it work."""
    if kind is RequestKind.POOLING:
        return fields.get("task") not in _TOKEN_TASKS
    if _FIELDS.isdisjoint(fields):
        return True
    sampling = fields.get("sampling_params")
    return not (
        _scores_prompt(fields)
        or (isinstance(sampling, dict) and _scores_prompt(sampling))
        or (is_true(fields.get("echo")) and _scores_echo(fields, kind))
    )


def _scores_prompt(fields: Mapping[str, Any]) -> bool:
    """By what is asked for itself."""
    if fields.get("prompt_logprobs") is not None:  # 0 asks for each token's own
        return True
    if is_true(fields.get("skip_reading_prefix_cache")):
        return True
    # SGLang reads as far as the first token to be scored.
    return is_true(fields.get("return_logprob")) and fields.get("logprob_start_len") == 0


def _scores_echo(fields: Mapping[str, Any], kind: RequestKind) -> bool:
    """Whether a prompt that is repeated in the answer is scored; in chats vLLM always does."""
    return kind is RequestKind.CHAT_COMPLETIONS or fields.get("logprobs") is not None
