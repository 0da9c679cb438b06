"""Finish reasons: which ends of a generation are the model's own."""

from __future__ import annotations

_OWN_REASONS = frozenset(
    (
        # OpenAI's chat and completions.
        *("stop", "length", "tool_calls", "function_call", "content_filter"),
        # Its responses, in `incomplete_details`.
        "max_output_tokens",
        # Anthropic's messages.
        *("end_turn", "max_tokens", "tool_use", "stop_sequence", "pause_turn", "refusal"),
        *("model_context_window_exceeded", "compaction"),
        # vLLM's, SGLang's, TGI's, Google's.
        *("repetition", "eos", "eos_token", "stop_str", "stop_token", "max_new_tokens"),
        *("tool_call", "max_length", "safety", "recitation"),
        # Of Gemini's filters, of Mistral, Cohere, Bedrock and llama.cpp.
        *("blocklist", "prohibited_content", "spii", "language", "malformed_function_call"),
        *("model_length", "complete", "error_toxic", "guardrail_intervened", "content_filtered"),
        *("limit", "word"),
        # Ollama's, of a request without a prompt, which asks for a model to come or to go.
        *("load", "unload"),
    )
)
_NONE = ("null", "none", "not_finished")


def is_plain_reason(reason: object) -> bool:
    """Whether it is one of a model's own, as it is usually written."""
    return isinstance(reason, str) and reason in _OWN_REASONS


def says_nothing(reason: object) -> bool:
    """Whether it stands for no reason at all: DashScope writes "null", TensorRT-LLM its word.

    >>> says_nothing("null"), says_nothing(None), says_nothing("stop")
    (True, True, False)
    """
    return not reason or (isinstance(reason, str) and reason.lower() in _NONE)


def is_own_reason(reason: object) -> bool:
    """Whether a model ends so by itself; every other end is the engine's: an abort, an error.

    SGLang says its reason in an object.

    >>> is_own_reason("stop"), is_own_reason("abort"), is_own_reason({"type": "length"})
    (True, False, True)
    """
    if isinstance(reason, dict):
        reason = reason.get("type")
    return isinstance(reason, str) and reason.lower() in _OWN_REASONS
