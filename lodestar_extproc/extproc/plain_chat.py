"""plain_chat(): a chat of few plain messages, written in one go, as most bodies are.

It writes what `PromptReader` would of a body that says nothing else, and leaves all others to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lodestar_extproc.extproc.plain_message import plain_message

SHORT_BYTES = 512 * 2**10
"""A longer body is read in steps: arguments of calls are read as JSON, 2 to 3 ms of so many."""
FEW_MESSAGES = 64
"""So many take less than a tenth of a millisecond themselves; more are read in steps."""
_FIELDS = frozenset(
    (
        *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens"),
        *("temperature", "top_p", "top_k", "min_p", "seed", "stop", "logit_bias"),
        *("frequency_penalty", "presence_penalty", "repetition_penalty"),
        *("logprobs", "top_logprobs", "parallel_tool_calls"),
    )
)
"""What says nothing of a prompt but model, messages and how to answer them."""


def plain_chat(fields: Mapping[str, Any]) -> bytes | None:
    """The prompt of a chat's *fields* as it is hashed; None where it is to be read in steps."""
    said = fields.get("messages")
    if not isinstance(said, list) or not 0 < len(said) <= FEW_MESSAGES:
        return None
    if not _FIELDS.issuperset(fields):
        return None
    forms: list[bytes] = []
    for message in said:
        form = plain_message(message) if isinstance(message, dict) else None
        if form is None:
            return None
        forms.append(form)
    return b"".join(forms)
