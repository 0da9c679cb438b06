"""Chats: prompts as text, arriving at fixed times, for load over HTTP.

A mix of three kinds: conversations of several turns under a few shared system prompts, long
documents that are asked about more than once, and short questions. Every arrival is known
beforehand, so that each policy can be given the very same load.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

BYTES_PER_TOKEN = 4  # English text in the tokenizers of Llama 3 and GPT-4, about
WORD_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class ChatKind(StrEnum):
    """What sort of request it is."""

    CHAT = "chat"
    DOCUMENT = "document"
    QUESTION = "question"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to send at *at_s* after the start, whatever became of those before it.

    Attributes:
        session: whose turn it is, where a turn waits for the answer before it; -1 for none.
        turn: which of the session's, from 0.
    """

    at_s: float
    kind: ChatKind
    messages: tuple[tuple[str, str], ...]
    output_tokens: int
    session: int = -1
    turn: int = 0


@dataclass(frozen=True, slots=True)
class ChatMix:
    """What the load is made of; lengths in tokens.

    Attributes:
        rate_per_s: requests a second, all kinds together; Poisson.
        chat_ratio, document_ratio: shares of the requests; the rest are short questions.
        turns: of a conversation, and *think_s* the mean time between two.
    """

    rate_per_s: float = 8.0
    chat_ratio: float = 0.6
    document_ratio: float = 0.15
    n_system_prompts: int = 4
    system_tokens: int = 1200
    turns: int = 4
    think_s: float = 6.0
    turn_tokens: tuple[int, int] = (60, 500)
    document_tokens: tuple[int, int] = (3000, 9000)
    n_documents: int = 6
    question_tokens: tuple[int, int] = (20, 150)
    output_tokens: tuple[int, int] = (20, 100)


MIXES: Mapping[str, ChatMix] = MappingProxyType(
    {
        "mixed": ChatMix(),
        "chats": ChatMix(chat_ratio=1.0, document_ratio=0.0),
        "documents": ChatMix(chat_ratio=0.0, document_ratio=1.0),
        "questions": ChatMix(chat_ratio=0.0, document_ratio=0.0),
    }
)
"""Workloads by name."""


@dataclass(slots=True)
class _Conversation:
    kind: ChatKind
    messages: list[tuple[str, str]]
    turns_left: int


@dataclass(slots=True)
class Chats:
    """The arrivals of one seed, by time.

    Iterating again gives the same arrivals again.
    """

    mix: ChatMix
    seed: int
    duration_s: float
    _rng: random.Random = field(init=False, repr=False)
    _systems: list[str] = field(init=False, repr=False)
    _documents: list[str] = field(init=False, repr=False)

    def __iter__(self) -> Iterator[Arrival]:
        rng = self._rng = random.Random(self.seed)
        mix = self.mix
        self._systems = [text(rng, mix.system_tokens) for _ in range(mix.n_system_prompts)]
        self._documents = [self._document() for _ in range(mix.n_documents)]
        due: list[tuple[float, int, _Conversation]] = []
        # A conversation brings all its turns, so it begins that much more seldom.
        share = mix.chat_ratio / mix.turns + 1.0 - mix.chat_ratio
        begin_rate_per_s = mix.rate_per_s * share
        # Conversations are under way when we begin to watch, as they are on any day.
        n, at_s = 0, -2.0 * mix.turns * mix.think_s
        while True:
            if due and due[0][0] <= at_s:
                turn_s, _, conversation = heapq.heappop(due)
            else:
                turn_s, conversation = at_s, None
                at_s += rng.expovariate(begin_rate_per_s)
            if turn_s > self.duration_s:
                return
            conversation = conversation or self._begin(share)
            arrival = self._ask(turn_s, conversation)
            if turn_s >= 0:
                yield arrival
            if conversation.turns_left > 0:
                n += 1
                heapq.heappush(due, (turn_s + self._think_s(), n, conversation))

    def _begin(self, share: float) -> _Conversation:
        rng, mix = self._rng, self.mix
        draw = rng.random() * share
        if draw < mix.chat_ratio / mix.turns:
            return _Conversation(ChatKind.CHAT, [("system", rng.choice(self._systems))], mix.turns)
        if draw < mix.chat_ratio / mix.turns + mix.document_ratio:
            i = rng.randrange(len(self._documents))
            document = self._documents[i]
            if rng.random() < 0.2:  # documents come and go
                self._documents[i] = self._document()
            return _Conversation(ChatKind.DOCUMENT, [("system", document)], 1)
        return _Conversation(ChatKind.QUESTION, [], 1)

    def _ask(self, at_s: float, conversation: _Conversation) -> Arrival:
        rng, mix = self._rng, self.mix
        is_chat = conversation.kind is ChatKind.CHAT
        sizes = mix.turn_tokens if is_chat else mix.question_tokens
        conversation.messages.append(("user", text(rng, rng.randint(*sizes))))
        conversation.turns_left -= 1
        output_tokens = rng.randint(*mix.output_tokens)
        arrival = Arrival(at_s, conversation.kind, tuple(conversation.messages), output_tokens)
        # What a client sends back as the answer is its own business; the length is what counts.
        conversation.messages.append(("assistant", text(rng, output_tokens)))
        return arrival

    def _think_s(self) -> float:
        return 1.0 + self._rng.expovariate(1.0 / max(self.mix.think_s - 1.0, 0.1))

    def _document(self) -> str:
        return text(self._rng, self._rng.randint(*self.mix.document_tokens))


def text(rng: random.Random, tokens: int) -> str:
    """Words of no meaning, as long as *tokens* tokens of 4 bytes.

    >>> len(text(random.Random(0), 50))
    200
    """
    n_bytes = tokens * BYTES_PER_TOKEN
    letters = rng.choices(WORD_LETTERS, k=n_bytes)
    for i in range(rng.randint(2, 8), n_bytes, 7):
        letters[i] = " "
    return "".join(letters)
