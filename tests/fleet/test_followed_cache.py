"""What is matched at an endpoint whose engine tells of its cache, beside what it then finds."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
import xxhash

from kv_engine import SIZE, BlockEngine, Running
from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.endpoint import Endpoint, EndpointMetrics
from lodestar_extproc.fleet.bytes_per_token import BytesPerToken
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.fleet.kv_events.engine_blocks import MAX_BLOCKS
from lodestar_extproc.fleet.kv_events.events import AllCleared, BlocksRemoved, BlocksStored
from lodestar_extproc.request import InferenceRequest, RequestKind, hash_blocks

AT = "10.0.0.1:8000"
CACHE_BLOCKS = 800
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORD_BYTES = 5.5
"""Of `words`, with the blank after each."""


def words(rng: random.Random, n: int) -> str:
    return "".join("".join(rng.choices(LETTERS, k=rng.randint(2, 7))) + " " for _ in range(n))


def tokens_of(text: str) -> list[int]:
    """A tokenizer that nobody here asks: each word is one."""
    return [xxhash.xxh3_64_intdigest(word) for word in text.encode().split()]


@dataclass
class Compared:
    """Tokens over all prompts."""

    error: float = 0.0
    prompts: float = 0.0
    found: float = 0.0


@dataclass(eq=False)
class Sent:
    """One request on its way."""

    key: str
    text: str
    tokens: list[int]
    matched: float
    running: Running = field(default_factory=lambda: Running([]))


@dataclass
class OneEngine:
    """A fleet of one endpoint, its engine, and what is in flight between them."""

    rng: random.Random
    with_events: bool = True
    with_usage: bool = True
    bytes_per_token: float = WORD_BYTES
    compared: Compared = field(default_factory=Compared)
    now_s: float = 0.0

    def __post_init__(self) -> None:
        live = LiveSettings(PoolSettings(bytes_per_token=self.bytes_per_token))
        self.fleet = Fleet(live, [Endpoint(AT)])
        self.learned = BytesPerToken(live)
        self.fleet.followed.tell_lengths_to(self.learn)
        self.engine = BlockEngine(CACHE_BLOCKS)
        self.scrape()
        self.tell()
        self.n = 0

    def scrape(self) -> None:
        metrics = EndpointMetrics(
            kv_capacity_tokens=CACHE_BLOCKS * SIZE, cache_block_tokens=float(SIZE)
        )
        self.fleet.record_metrics(AT, metrics, self.now_s)

    def learn(self, request: InferenceRequest, tokens: float) -> None:
        self.learned.learn("m", prompt_bytes=request.prompt_bytes, prompt_tokens=tokens)

    def tell(self) -> None:
        self.now_s += 0.01
        events = self.engine.take_events()
        if self.with_events:
            self.fleet.record_cache_events(AT, events, self.now_s)

    def send(self, text: str) -> Sent:
        """Match and dispatch."""
        self.now_s += 0.01
        prompt = text.encode()
        request = InferenceRequest(
            *("m", RequestKind.COMPLETIONS, hash_blocks(prompt), len(prompt)),
            *(len(prompt) / self.learned.of("m"), True),
        )
        matched = self.fleet.match(request, self.fleet.endpoints).tokens[0]
        self.n += 1
        key = f"d{self.n}"
        self.fleet.dispatch(key, request, AT, uncached_tokens=1.0, at_s=self.now_s)
        return Sent(key, text, tokens_of(text), float(matched))

    def begin(self, sent: Sent) -> None:
        """The engine looks it up when its turn has come."""
        sent.running = self.engine.start(list(sent.tokens))
        self.compared.error += abs(sent.matched - sent.running.cached)
        self.compared.prompts += len(sent.tokens)
        self.compared.found += sent.running.cached

    def end(self, sent: Sent) -> None:
        running, n_prompt = sent.running, len(sent.tokens)
        self.engine.end(running)
        usage = {}
        if self.with_usage:
            usage = {"prompt_tokens": n_prompt, "cached_ratio": running.cached / n_prompt}
        self.fleet.release(sent.key, self.now_s, **usage)

    def serve(self, texts: list[str]) -> None:
        """All at once: prefills one after the other, tokens of answers between their chunks."""
        waiting, decoding, prefill = [self.send(text) for text in texts], [], None
        while waiting or decoding or prefill:
            if prefill is None and waiting:
                prefill = waiting.pop(0)
                self.begin(prefill)
            if prefill is not None:
                self.engine.step(prefill.running, 128)
                if prefill.running.computed == len(prefill.tokens):
                    decoding.append(prefill)
                    prefill = None
            for each in list(decoding):
                if self.rng.random() < 0.97:
                    self.engine.generate(each.running, self.rng.getrandbits(40))
                else:
                    decoding.remove(each)
                    self.end(each)
            self.tell()


def sessions(rng: random.Random, at_once: int, n: int = 128) -> list[list[str]]:
    """Prompts by the groups that are in flight together; sessions share beginnings and grow."""
    systems = [words(rng, rng.randint(100, 300)) for _ in range(3)]
    live = [rng.choice(systems) + words(rng, 60) for _ in range(14)]
    rounds = []
    for _ in range(n // at_once):
        chosen = rng.sample(range(len(live)), at_once)
        for i in chosen:
            live[i] += words(rng, rng.randint(40, 200))
            if len(live[i].split()) > 1800:
                live[i] = rng.choice(systems) + words(rng, 60)
        rounds.append([live[i] for i in chosen])
    return rounds


def compared(at_once: int, seed: int = 7, **how: Any) -> Compared:
    rng = random.Random(seed)
    world = OneEngine(rng, **how)
    for texts in sessions(rng, at_once):
        world.serve(texts)
    assert 0.2 < world.compared.found / world.compared.prompts < 0.9  # some is given up
    return world.compared


@pytest.mark.parametrize("with_usage", [True, False])
@pytest.mark.parametrize("at_once", [1, 4])
def test_what_is_matched_is_what_is_found(at_once, with_usage):
    seen = compared(at_once, with_usage=with_usage)
    without = compared(at_once, with_events=False, with_usage=with_usage)
    print(at_once, with_usage, seen.error / seen.prompts, without.error / without.prompts)
    assert seen.error / seen.prompts <= 0.02
    assert seen.error < without.error / 2


@pytest.mark.parametrize("with_usage", [True, False])
@pytest.mark.parametrize("at_once", [1, 4, 8])
def test_so_it_is_whatever_the_sessions_are(at_once, with_usage):
    runs = [compared(at_once, seed, with_usage=with_usage) for seed in range(8, 14)]
    assert sum(run.error for run in runs) / sum(run.prompts for run in runs) <= 0.02
    assert max(run.error / run.prompts for run in runs) <= 0.04


@pytest.mark.parametrize("off", [0.9, 1.1, 1.25])
def test_what_a_tokens_bytes_are_is_learned_where_no_usage_tells(off):
    told = {"with_usage": False, "bytes_per_token": WORD_BYTES * off}
    runs = [compared(1, seed, **told) for seed in (7, 8, 9)]
    assert sum(run.error for run in runs) / sum(run.prompts for run in runs) <= 0.02

    world = OneEngine(random.Random(3), **told)
    for n in range(40):
        world.serve([words(world.rng, 200 + 10 * n)])
    assert world.learned.of("m") == pytest.approx(WORD_BYTES, rel=0.02)


def matched(world: OneEngine, text: str) -> int:
    """Tokens of *text* that are taken to be there."""
    prompt = text.encode()
    n_tokens = len(prompt) / WORD_BYTES
    request = InferenceRequest(
        *("m", RequestKind.COMPLETIONS, hash_blocks(prompt), len(prompt), n_tokens, True)
    )
    return int(world.fleet.match(request, world.fleet.endpoints).tokens[0])


def counts(world: OneEngine) -> tuple[int, int]:
    told = world.fleet.followed.counts[AT]
    return told.joined, told.unjoined


@pytest.fixture
def world() -> OneEngine:
    return OneEngine(random.Random(3), with_usage=False)


def test_prompts_that_are_computed_in_turns_are_told_apart(world):
    """Five are in flight: their chunks are stored in turns, and they end in another order."""
    for n in (200, 300, 250, 400, 350):
        world.serve([words(world.rng, n)])  # by which it knows what a token's bytes are
    texts = [words(world.rng, n) for n in (300, 500, 320, 800, 400)]
    sent = [world.send(text) for text in texts]
    for each in sent:
        world.begin(each)
    while any(each.running.computed < len(each.tokens) for each in sent):
        for each in sent:
            world.engine.step(each.running, 64)
            world.tell()
    for each in (sent[i] for i in (3, 0, 4, 2, 1)):
        world.end(each)
    assert counts(world) == (10, 0)
    for each in sent:
        before = [matched(world, text) for text in texts]
        gone = each.running.hashes[-5:]
        world.fleet.record_cache_events(AT, [BlocksRemoved(gone[::-1])], world.now_s)
        lost = [n - matched(world, text) for n, text in zip(before, texts, strict=True)]
        own = lost.pop(sent.index(each))
        assert abs(own - len(gone) * SIZE) <= 2 * SIZE
        assert not any(lost)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("with_usage", [True, False])
def test_who_follows_a_prompt_that_is_in_flight_is_told_from_one_as_long(order, with_usage):
    """The second finds the first's beginning, and ends where the third does."""
    world = OneEngine(random.Random(3), with_usage=with_usage)
    first = words(world.rng, 430)
    beginning = "".join(each + " " for each in first.split()[:330])
    texts = [first, beginning + words(world.rng, 70), words(world.rng, 403)]
    sent = [world.send(text) for text in texts]
    for each in (sent[0], sent[2], sent[1]):
        world.begin(each)
        world.engine.step(each.running, 10_000)
        world.tell()
    assert sent[1].running.cached == 330 // SIZE * SIZE
    assert len(sent[1].tokens) // SIZE == len(sent[2].tokens) // SIZE
    for i in order:
        world.end(sent[i])
    assert counts(world) == (3, 0)
    gone = sent[2].running.hashes[-5:]
    before = [matched(world, text) for text in texts]
    world.fleet.record_cache_events(AT, [BlocksRemoved(gone[::-1])], world.now_s)
    lost = [n - matched(world, text) for n, text in zip(before, texts, strict=True)]
    assert lost[0] == lost[1] == 0 < lost[2]


@pytest.mark.parametrize("with_usage", [True, False])
def test_who_was_taken_for_another_has_his_blocks_at_his_next_turn(with_usage):
    """Two of equal length are computed in the order in which they were not sent."""
    world = OneEngine(random.Random(3), with_usage=with_usage)
    for n in (200, 300, 250, 400, 350):
        world.serve([words(world.rng, n)])
    texts = [words(world.rng, 400) for _ in range(2)]
    sent = [world.send(text) for text in texts]
    for each in reversed(sent):
        world.begin(each)
        world.engine.step(each.running, 10_000)
        world.tell()
    for each in sent:
        world.end(each)
    for turn in range(3):
        for i in range(2):
            texts[i] += words(world.rng, 150 + 10 * turn)
            world.serve([texts[i]])
    world.now_s += 10.0
    world.tell()
    assert counts(world) == (13, 0)
    for i in range(2):
        before = [matched(world, text) for text in texts]
        (whole := Running(tokens_of(texts[i]))).hash_blocks()
        gone = whole.hashes[-12:]
        world.fleet.record_cache_events(AT, [BlocksRemoved(gone[::-1])], world.now_s)
        lost = [n - matched(world, text) for n, text in zip(before, texts, strict=True)]
        assert abs(lost[i] - len(gone) * SIZE) <= 2 * SIZE
        assert lost[1 - i] == 0


def test_what_was_to_be_given_up_and_was_not_is_there_again(world):
    old = [words(world.rng, 400) for _ in range(CACHE_BLOCKS * SIZE // 420)]
    for text in old:
        world.serve([text])
    world.scrape()
    first = matched(world, old[0])
    assert first > 300
    # By its bytes it is long, and most of it is one word.
    longish = "x" * 40_000 + " " + words(world.rng, 40)
    sent = world.send(longish)
    assert matched(world, old[0]) < first / 2
    world.begin(sent)
    world.engine.step(sent.running, 10_000)
    world.tell()
    world.end(sent)
    assert matched(world, old[0]) >= first - 4 * SIZE
    assert sum(matched(world, text) for text in old) > 0.95 * first * len(old)


@pytest.mark.parametrize(("with_usage", "most_unjoined"), [(True, 0.08), (False, 0.15)])
def test_in_a_crowd_that_follows_itself_nearly_all_are_joined(with_usage, most_unjoined):
    """Five in flight: each goes on from another, many end at the same block, in any order."""
    rng = random.Random(5)
    world = OneEngine(rng, with_usage=with_usage)
    live, in_flight = [words(rng, 64 * rng.randint(2, 4)) for _ in range(6)], []
    for n in range(400):
        if len(in_flight) == 5 or (in_flight and rng.random() < 0.4):
            world.end(in_flight.pop(rng.randrange(len(in_flight))))
            continue
        before = rng.choice(live).split()
        shared = rng.randint(len(before) // 2, len(before))
        length = (shared // 64 + rng.randint(1, 3)) * 64 + rng.randint(1, 15)
        text = " ".join(before[:shared]) + " " + words(rng, length - shared)
        in_flight.append(world.send(text))
        world.begin(in_flight[-1])
        world.engine.step(in_flight[-1].running, 10_000)
        world.tell()
        live[n % 6] = text if length < 900 else words(rng, 128)
    for each in in_flight:
        world.end(each)
    world.now_s += 10.0
    world.tell()
    joined, unjoined = counts(world)
    assert joined > 150
    assert unjoined <= most_unjoined * (joined + unjoined)


def test_blocks_of_other_clients_are_nobodys(world):
    sent = world.send(words(world.rng, 400))
    for n in (150, 1000, 380):
        foreign = world.engine.start(tokens_of(words(world.rng, n)))
        world.engine.step(foreign, 10_000)
        world.tell()
    world.begin(sent)
    world.engine.step(sent.running, 10_000)
    world.tell()
    world.end(sent)
    assert counts(world) == (1, 0)
    assert abs(matched(world, sent.text) - len(sent.tokens)) <= 2 * SIZE


def test_ends_that_are_heard_before_the_events_are_joined_all_the_same(world):
    sent = world.send(words(world.rng, 400))
    world.begin(sent)
    world.engine.step(sent.running, 10_000)
    world.end(sent)
    assert counts(world) == (0, 0)
    world.tell()
    assert counts(world) == (1, 0)


def test_a_prompt_whose_blocks_never_come_is_left_to_its_index(world):
    text = words(world.rng, 400)
    sent = world.send(text)
    world.begin(sent)
    world.end(sent)
    world.now_s += 10.0
    world.tell()
    assert counts(world) == (0, 1)
    assert matched(world, text) > 300


def test_a_cache_that_was_cleared_holds_nothing(world):
    text = words(world.rng, 400)
    world.serve([text])
    assert matched(world, text) > 300
    world.fleet.record_cache_events(AT, [AllCleared()], world.now_s)
    assert matched(world, text) == 0


def test_an_engine_that_began_anew_holds_nothing_and_what_is_lost_is_guessed(world):
    text = words(world.rng, 400)
    world.serve([text])
    world.fleet.cache_events_lost(AT, restarted=False)
    assert world.fleet.followed.get(AT) is None
    assert matched(world, text) > 300
    world.fleet.cache_events_lost(AT, restarted=True)
    assert matched(world, text) == 0


def test_an_engine_of_too_many_blocks_is_not_followed(world):
    for at in range(0, MAX_BLOCKS + 1024, 1024):
        stored = BlocksStored(range(at, at + 1024), at - 1 if at else None, SIZE)
        world.fleet.record_cache_events(AT, [stored], 0.0)
        if world.fleet.followed.get(AT) is None:
            break
    assert at == MAX_BLOCKS


def test_an_engine_that_has_left_is_forgotten(world):
    world.serve([words(world.rng, 100)])
    world.fleet.set_endpoints([])
    assert not world.fleet.followed
    world.fleet.record_cache_events(AT, [BlocksStored([1], None, SIZE)], 0.0)
    assert not world.fleet.followed
