"""The engine again, written with lists for reading, as the oracle of the compiled one (no noise)."""

from __future__ import annotations

import math

BLOCK = 16


class PlainRequest:
    def __init__(self, number, ids, prompt, output, ready_s):
        self.number, self.ids, self.prompt, self.output = number, list(ids), prompt, output
        self.ready_s, self.generated, self.computed, self.cached = ready_s, 0, 0, None
        self.table, self.scheduled = [], 0

    @property
    def total(self):
        return self.prompt + self.generated


class PlainEngine:
    def __init__(self, spec):
        self.spec, self.cost = spec, spec.cost
        self.free = list(range(spec.kv_blocks))
        self.references = [0] * spec.kv_blocks
        self.id_of, self.block_of = {}, {}
        self.pending, self.waiting, self.running = [], [], []
        self.next_s, self.stepping, self.preemptions, self.events = math.inf, False, 0, []

    def submit(self, number, ids, prompt, output, at_s):
        request = PlainRequest(number, ids, prompt, output, at_s + self.spec.api_delay_s)
        self.pending.append(request)
        if not self.stepping:
            self.next_s = min(self.next_s, request.ready_s)

    def advance(self, until_s):
        start = len(self.events)
        while self.next_s <= until_s:
            now = self.next_s
            if self.stepping:
                self.apply(now)
            self.start(now)
        return self.events[start:]

    def apply(self, now):
        for request in list(self.running):
            n, request.scheduled = request.scheduled, 0
            request.computed += n
            if n == 0 or request.computed < request.total:
                continue
            request.generated += 1
            if request.generated == 1:
                self.events.append((0, request.number, now, request.cached))
            if request.generated == request.output:
                self.events.append((1, request.number, now, request.cached))
                self.running.remove(request)
                self.give_back(request)

    def start(self, now):
        while self.pending and self.pending[0].ready_s <= now:
            self.waiting.append(self.pending.pop(0))
        self.prefill, self.decodes, self.pairs, self.context = 0, 0, 0.0, 0.0
        (self.schedule_v1 if self.spec.chunked else self.schedule_v0)()
        self.stepping = self.prefill + self.decodes > 0
        if self.stepping:
            self.next_s = now + self.step_s()
        elif self.waiting or self.running:
            self.next_s = now + 0.005
        else:
            self.next_s = self.pending[0].ready_s if self.pending else math.inf

    def step_s(self):
        c, tokens = self.cost, self.prefill + self.decodes
        prefill_ms = c.per_mpair_ms * self.pairs / 1e6
        decode_ms = c.per_kcontext_ms * self.context / 1e3
        ms = max(c.floor_ms, c.base_ms + c.per_token_ms * tokens)
        ms += prefill_ms + decode_ms + c.per_decode_ms * self.decodes + c.host_ms
        if self.prefill and self.decodes:
            ms += c.mixed_ratio * (prefill_ms + decode_ms)
        return ms / 1e3

    def needed(self, request, tokens):
        return -(-tokens // BLOCK) - len(request.table)

    def schedule_v1(self):
        left, before = self.spec.token_budget, self.preemptions
        for request in list(self.running):
            n = min(request.total - request.computed, left)
            if left == 0 or request not in self.running or not self.make_room(request, n):
                break
            self.grant(request, n)
            left -= n
        while (
            self.preemptions == before
            and left > 0
            and self.waiting
            and len(self.running) < self.spec.max_running
        ):
            request = self.waiting[0]
            hits = self.hits(request) if self.spec.prefix_caching else []
            computed = BLOCK * len(hits)
            n = min(request.total - computed, left)
            idle = sum(self.references[block] == 0 for block in hits)
            if -(-(computed + n) // BLOCK) - len(hits) + idle > len(self.free):
                break
            for block in hits:
                if self.references[block] == 0:
                    self.free.remove(block)
                self.references[block] += 1
            request.table, request.computed = hits, computed
            self.admit()
            self.grant(request, n)
            left -= n

    def schedule_v0(self):
        left = self.spec.token_budget
        while self.waiting and len(self.running) < self.spec.max_running:
            request = self.waiting[0]
            room = len(self.free) - (self.spec.watermark_blocks if self.running else 0)
            if request.total > left or self.needed(request, request.total) > room:
                break
            self.admit()
            self.grant(request, request.total)
            left -= request.total
        if left == self.spec.token_budget:
            for request in list(self.running):
                if request not in self.running or not self.make_room(request, 1):
                    break
                self.grant(request, 1)

    def admit(self):
        request = self.waiting.pop(0)
        self.running.append(request)
        if request.cached is None:
            request.cached = request.computed

    def hits(self, request):
        hits = []
        for block_id in request.ids[: (request.total - 1) // BLOCK]:
            if block_id not in self.block_of:
                break
            hits.append(self.block_of[block_id])
        return hits

    def make_room(self, request, n):
        while self.needed(request, request.computed + n) > len(self.free):
            victim = self.running.pop()
            self.give_back(victim)
            self.waiting.insert(0, victim)
            self.preemptions += 1
            if victim is request:
                return False
        return True

    def grant(self, request, n):
        for _ in range(self.needed(request, request.computed + n)):
            block = self.free.pop(0)
            if block in self.id_of:
                del self.block_of[self.id_of.pop(block)]
            self.references[block] = 1
            request.table.append(block)
        end = request.computed + n
        if self.spec.prefix_caching:
            start = request.computed // BLOCK
            filled = zip(request.table[: end // BLOCK], request.ids, strict=False)
            for block, block_id in list(filled)[start:]:
                if block not in self.id_of and block_id not in self.block_of:
                    self.id_of[block], self.block_of[block_id] = block_id, block
        request.scheduled = n
        if n == 1 and request.computed >= request.prompt:
            self.decodes += 1
            self.context += end
        else:
            self.prefill += n
            self.pairs += n * (request.computed + n / 2)

    def give_back(self, request):
        for block in reversed(request.table):
            self.references[block] -= 1
            if self.references[block] == 0:
                self.free.insert(len(self.free) if block in self.id_of else 0, block)
        request.table, request.computed = [], 0
