"""states_page(): docs/reference/ext_proc_states.md, drawn from the tables of `transitions.py`."""

from __future__ import annotations

from collections.abc import Iterator

from lodestar_extproc.extproc.events import MessageKind
from lodestar_extproc.extproc.transitions import (
    ACTIONS,
    NEXT_STATES,
    RESULTS,
    Action,
    ActionResult,
    AnswerMode,
    Row,
    StreamMode,
    StreamState,
)

_INTRO = """\
# States of an ext_proc stream

<!-- Written by `python -m lodestar_extproc.extproc`. Change the tables, not this page. -->

Envoy opens an ext_proc stream for a request, for its answer, or for both, and says in the first \
message how it will send them (`extproc/transitions.py`, `modes_of`).
Each message then has one action, by the state of the stream and the kind of the message; what the \
action comes to leads to the next state.
A message that has no action is a breach of protocol: the stream ends, and Envoy goes on by \
itself.
How each mode is replied to stands in `extproc/modes.py`, what each action does in \
`extproc/exchange.py`.

Trailers and the last part of a body both are an end.
After the end of a request its parts are ignored and counted \
(`lodestar_repeated_messages_total`): Envoy 1.35 to 1.37 can send the last part of a large body \
twice ([envoy#46237](https://github.com/envoyproxy/envoy/issues/46237)).
"""
_DRAWN: tuple[tuple[StreamMode, AnswerMode], ...] = (
    (StreamMode.BUFFERED, AnswerMode.NOT_SENT),
    (StreamMode.OBSERVED, AnswerMode.OBSERVED),
    (StreamMode.FULL_DUPLEX, AnswerMode.FULL_DUPLEX),
    (StreamMode.STREAMED, AnswerMode.SENT),
    (StreamMode.HEADERS_ONLY, AnswerMode.SENT),
)
"""Each way of sending requests, with the answers that `envoy/` and its variants pair it with."""


def states_page() -> str:
    """The page, in Markdown."""
    parts = [_INTRO, *(_diagram(*modes) for modes in _DRAWN), _results(), _actions()]
    return "\n".join(parts)


def _diagram(stream_mode: StreamMode, answer_mode: AnswerMode) -> str:
    """What can happen on a stream of these modes, without what changes no state."""
    lines = [
        f"## Request {stream_mode}, answer {answer_mode}\n",
        "```mermaid",
        "stateDiagram-v2",
        f"    [*] --> {_id(StreamState.IDLE)}",
        *_arrows(stream_mode, answer_mode),
        f"    {_id(StreamState.DONE)} --> [*]",
        "```\n",
        "| state | " + " | ".join(MessageKind) + " |",
        "|---" * (len(MessageKind) + 1) + "|",
        *(
            f"| {state} | " + " | ".join(row.get(kind, "") for kind in MessageKind) + " |"
            for state, row in _reachable(stream_mode, answer_mode)
        ),
        "",
    ]
    return "\n".join(lines)


def _arrows(stream_mode: StreamMode, answer_mode: AnswerMode) -> Iterator[str]:
    """One from each state to each it may lead to, with the results that do."""
    for state, row in _reachable(stream_mode, answer_mode):
        reasons: dict[StreamState, dict[str, None]] = {}
        for action in row.values():
            for result in RESULTS[action]:
                after = NEXT_STATES[answer_mode].get(result)
                if after is not None:
                    reasons.setdefault(after, {})[result] = None
        for after, results in reasons.items():
            yield f"    {_id(state)} --> {_id(after)}: {' or '.join(results)}"


def _id(state: StreamState) -> str:
    """Mermaid's name of *state*, one word."""
    return state.name.lower()


def _reachable(
    stream_mode: StreamMode, answer_mode: AnswerMode
) -> Iterator[tuple[StreamState, Row]]:
    """The states that a stream of these modes can be in before its end, and their rows."""
    rows, next_states = ACTIONS[stream_mode], NEXT_STATES[answer_mode]
    found = [StreamState.IDLE]
    for state in found:  # which grows meanwhile
        results = (result for action in rows[state].values() for result in RESULTS[action])
        after = (next_states.get(result, state) for result in results)
        found.extend(new for new in dict.fromkeys(after) if new not in found)
    return ((state, rows[state]) for state in StreamState if state in found and rows[state])


def _results() -> str:
    head = [
        "## What a result leads to\n",
        "By how Envoy sends the answer's body.\n",
        "| result | " + " | ".join(f"answer {mode}" for mode in AnswerMode) + " |",
        "|---" * (len(AnswerMode) + 1) + "|",
    ]
    rows = (
        f"| {result} | "
        + " | ".join(NEXT_STATES[mode].get(result, "the same state") for mode in AnswerMode)
        + " |"
        for result in ActionResult
    )
    return "\n".join((*head, *rows, ""))


def _actions() -> str:
    head = ["## What an action may come to\n", "| action | results |", "|---|---|"]
    rows = (f"| {action} | {'; '.join(RESULTS[action])} |" for action in Action)
    return "\n".join((*head, *rows, ""))
