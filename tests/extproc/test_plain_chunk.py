"""plain_chunk(): the short way says what the long way would, or nothing."""

from hypothesis import given
from hypothesis import strategies as st

from lodestar_extproc.extproc import payload
from lodestar_extproc.extproc.plain_chunk import plain_chunk

TEXTS = st.sampled_from(["", "Hi", None, 7, ["Hi"], {"text": "Hi"}, {}])
REASONS = st.sampled_from(
    [None, "stop", "length", "STOP", "null", "", "abort", {"type": "stop"}, 1]
)
DELTAS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("role", "content", "reasoning", "reasoning_content", "tool_calls", "refusal", "audio"),
        TEXTS,
    ),
)
CHOICES = st.fixed_dictionaries(
    {"index": st.just(0)},
    optional={
        "delta": DELTAS | st.none() | st.just("Hi"),
        "text": TEXTS,
        "finish_reason": REASONS,
        "finishReason": REASONS,
        "stop_reason": REASONS,
        "token_ids": st.just([1]),
        "message": DELTAS,
        "error": st.sampled_from([None, {"code": 500}]),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES, max_size=2) | st.none()},
    optional={
        "id": st.sampled_from(["chatcmpl-1", "", 5, None]),
        "object": st.sampled_from(
            ["chat.completion.chunk", "text_completion", "error", "response", None]
        ),
        "usage": st.sampled_from([None, {}, {"prompt_tokens": 3}]),
        "error": st.sampled_from([None, {"message": "no"}]),
        "status": st.sampled_from(["failed", "queued", "completed"]),
        "type": st.sampled_from(["message_stop", "response.failed"]),
        "deleted": st.just(True),
        "done": st.just(True),
        "response": st.just({"status": "failed"}),
        "model": st.just("m"),
    },
)


@given(DOCUMENTS)
def test_it_says_what_the_long_way_says(document):
    says = plain_chunk(document)

    if says is not None:
        assert not payload.is_error(document)
        assert says.is_token == payload.is_token(document)
        assert says.is_end == payload.is_end(document)
        assert says.kept == payload.kept_of(document)


def test_chunks_as_vllm_streams_them_are_plain():
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None}
    token = {"index": 0, "delta": {"content": "Hi"}, "logprobs": None, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": None}
    said = [plain_chunk(head | {"choices": [each]}) for each in (first, token, last)]

    assert [(each.is_token, each.is_end) for each in said if each] == [
        (False, False),
        (True, False),
        (True, True),
    ]
    assert plain_chunk({"id": "cmpl-1", "object": "text_completion", "choices": [{"text": "Hi"}]})
