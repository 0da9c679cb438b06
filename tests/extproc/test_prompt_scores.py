"""What wants a score of each token of its prompt is computed whole."""

from __future__ import annotations

import pytest
from test_prompt import read, user

from lodestar_extproc.request import RequestKind

CHAT, TEXT, POOL = RequestKind.CHAT_COMPLETIONS, RequestKind.COMPLETIONS, RequestKind.POOLING
GENERATE = RequestKind.GENERATE
SAID = {"messages": [user("hello")]}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (TEXT, {"prompt": "a", "prompt_logprobs": 0}),
        (CHAT, SAID | {"prompt_logprobs": 1}),
        (CHAT, SAID | {"echo": True}),
        (TEXT, {"prompt": "a", "echo": True, "logprobs": 0}),
        (GENERATE, {"token_ids": [1], "sampling_params": {"prompt_logprobs": -1}}),
        (GENERATE, {"token_ids": [1], "sampling_params": {"skip_reading_prefix_cache": True}}),
        (GENERATE, {"text": "a", "return_logprob": True, "logprob_start_len": 0}),
        (POOL, {"input": "a"}),
        (POOL, {"input": "a", "task": "token_classify"}),
    ],
)
def test_a_prompt_that_is_scored_reads_no_cache(kind, body):
    assert not read(body, kind).reads_cache


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CHAT, SAID),
        (CHAT, SAID | {"prompt_logprobs": None, "logprobs": True, "top_logprobs": 5}),
        (CHAT, SAID | {"echo": False}),
        (TEXT, {"prompt": "a", "echo": True}),
        (TEXT, {"prompt": "a", "logprobs": 3}),
        (GENERATE, {"text": "a", "return_logprob": True, "logprob_start_len": -1}),
        (GENERATE, {"text": "a", "logprob_start_len": 0}),
        (GENERATE, {"text": "a", "sampling_params": [{"prompt_logprobs": None}]}),
        (POOL, {"input": "a", "task": "embed"}),
    ],
)
def test_all_else_reads_it(kind, body):
    assert read(body, kind).reads_cache
