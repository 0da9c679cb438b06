"""What is matched at an endpoint whose engine tells of its cache, beside what it then finds."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
import xxhash

from kv_engine import SIZE, BlockEngine, Running
from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.endpoint import Endpoint, EndpointMetrics
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
    compared: Compared = field(default_factory=Compared)
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self.fleet = Fleet(LiveSettings(PoolSettings(bytes_per_token=WORD_BYTES)), [Endpoint(AT)])
        self.engine = BlockEngine(CACHE_BLOCKS)
        metrics = EndpointMetrics(
            kv_capacity_tokens=CACHE_BLOCKS * SIZE, cache_block_tokens=float(SIZE)
        )
        self.fleet.record_metrics(AT, metrics, 0.0)
        self.tell()
        self.n = 0

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
            *(len(prompt) / WORD_BYTES, True),
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


def compared(at_once: int, **how: bool) -> Compared:
    rng = random.Random(7)
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
    assert counts(world) == (5, 0)
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
