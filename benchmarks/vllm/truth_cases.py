"""Bodies of all kinds that an engine reads, to hold our reading of each against its own.

It knows APIs and makes bodies; it asks nobody. Bodies of one case are asked one after another, and
the last one is compared, so that a pair shows what the engine takes for equal.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from engines import MODEL

from lodestar_extproc.evaluation.chats import text

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
PREVIOUS = "<id of the answer before>"
BILLING = "x-anthropic-billing-header: cc_version=2.1; cch="
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
N_WARM_UP = 40
"""Plain chats from which bytes a token are learned."""


@dataclass(frozen=True)
class Case:
    """Bodies to one path.

    Attributes:
        is_text: words of the kind that bytes a token were learned from, rendered by the template
            as they stand, so that the count has to be near.
        pooled: for a server that embeds and scores.
    """

    name: str
    path: str
    bodies: Sequence[bytes]
    is_text: bool = True
    pooled: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class Maker:
    """Makes bodies of words; every case has words of its own, but for what it repeats."""

    def __init__(self, seed: int = 5) -> None:
        self._rng = random.Random(seed)

    def words(self, tokens: int = 400) -> str:
        return text(self._rng, tokens)

    def message(self, role: str = "user", tokens: int = 400) -> dict[str, Any]:
        return {"role": role, "content": self.words(tokens)}

    def tool(self, number: int) -> dict[str, Any]:
        parameters = {
            "type": "object",
            "properties": {
                name: {"type": "string", "description": self.words(12)}
                for name in ("path", "pattern", "limit")
            },
            "required": ["path"],
        }
        return {
            "type": "function",
            "function": {
                "name": f"tool_{number}",
                "description": self.words(60),
                "parameters": parameters,
            },
        }

    def call(self, number: int, arguments: str = '{"path": "a.py", "limit": 3}') -> dict[str, Any]:
        return {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": f"tool_{number}", "arguments": arguments},
        }


def dumped(fields: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"model": MODEL, "temperature": 0} | fields | more).encode()


def chat(*messages: dict[str, Any], **more: Any) -> bytes:
    return dumped({"messages": list(messages), "max_tokens": 2}, **more)


def completion(prompt: object, **more: Any) -> bytes:
    return dumped({"prompt": prompt, "max_tokens": 2}, **more)


def anthropic(*messages: dict[str, Any], **more: Any) -> bytes:
    return dumped({"messages": list(messages), "max_tokens": 2}, **more)


def response(given: object, **more: Any) -> bytes:
    return dumped({"input": given, "max_output_tokens": 16}, **more)


def warm_up(*, pooled: bool = False) -> list[bytes]:
    """Plain words, as chats or to be embedded."""
    make = Maker(1)
    said = [make.message(tokens=400) for _ in range(N_WARM_UP)]
    return [dumped({"input": m["content"]}) if pooled else chat(m) for m in said]


def all_cases() -> list[Case]:
    make = Maker()
    return [
        *_plain_chats(make),
        *_tools(make),
        *_reasoning_and_documents(make),
        *_caches(make),
        *_completions(make),
        *_anthropic(make),
        *_responses(make),
        *_bodies(make),
        # Last, for they teach bytes a token of their own.
        *_writings(make),
        *_pooled(make),
    ]


def _plain_chats(make: Maker) -> Iterator[Case]:
    yield Case("chat: one message", CHAT, [chat(make.message())])
    yield Case("chat: system and user", CHAT, [chat(make.message("system"), make.message())])
    yield Case("chat: developer", CHAT, [chat(make.message("developer"), make.message())])
    turns = [make.message(role, 150) for _ in range(6) for role in ("user", "assistant")]
    yield Case("chat: twelve turns", CHAT, [chat(*turns, make.message())])
    yield Case("chat: the next turn", CHAT, [chat(*turns[:9]), chat(*turns[:11])])
    other = [make.message(tokens=600), make.message(tokens=600)]
    beginning = make.message("system", 800)
    yield Case(
        "chat: another after the same system prompt",
        CHAT,
        [chat(beginning, other[0]), chat(beginning, other[1])],
    )
    yield Case("chat: the same again", CHAT, [chat(beginning, other[0])])
    yield Case("chat: long", CHAT, [chat(make.message(tokens=3000))])
    parts = [{"type": "text", "text": make.words(200)} for _ in range(4)]
    yield Case("chat: text parts", CHAT, [chat({"role": "user", "content": parts})])
    system = {"role": "system", "content": parts[:2]}
    yield Case("chat: system of parts", CHAT, [chat(system, make.message())])
    yield Case("chat: streamed", CHAT, [chat(make.message(), **STREAMED)])
    yield Case("chat: two answers", CHAT, [chat(make.message(), n=2, temperature=1)])
    yield Case("chat: a name beside the role", CHAT, [chat(make.message() | {"name": "ann"})])
    begun = [make.message(), make.message("assistant", 40)]
    go_on = {"continue_final_message": True, "add_generation_prompt": False}
    yield Case("chat: an answer to be continued", CHAT, [chat(*begun, **go_on)])


def _tools(make: Maker) -> Iterator[Case]:
    tools = [make.tool(i) for i in range(12)]
    said = make.message()
    yield Case("tools: twelve", CHAT, [chat(said, tools=tools)], is_text=False)
    turned = [
        {"function": dict(reversed(t["function"].items())), "type": "function"} for t in tools
    ]
    yield Case(
        "tools: the same in another order of keys",
        CHAT,
        [chat(make.message(tokens=20), tools=turned)],
        is_text=False,
    )
    calls = {"role": "assistant", "content": None, "tool_calls": [make.call(1)]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": make.words(600)}
    yield Case("tools: a call and its result", CHAT, [chat(make.message(), calls, result)])
    several = {"role": "assistant", "content": "", "tool_calls": [make.call(i) for i in range(4)]}
    results = [
        {"role": "tool", "tool_call_id": f"call_{i}", "content": make.words(200)} for i in range(4)
    ]
    yield Case("tools: parallel calls", CHAT, [chat(make.message(), several, *results)])
    spaced = {
        "role": "assistant",
        "content": None,
        "tool_calls": [make.call(1, '{ "path":"a.py",\n "limit":3 }')],
    }
    first = make.message()
    yield Case(
        "tools: arguments in other spacing",
        CHAT,
        [chat(first, calls, result), chat(first, spaced, result)],
    )
    parts = [{"type": "text", "text": make.words(300)} for _ in range(2)]
    yield Case(
        "tools: a result of parts",
        CHAT,
        [chat(make.message(), calls, result | {"content": parts})],
    )


def _reasoning_and_documents(make: Maker) -> Iterator[Case]:
    for field_name in ("reasoning_content", "reasoning"):
        thought = make.message("assistant", 100) | {field_name: make.words(1000)}
        yield Case(
            f"reasoning: an earlier turn's, as {field_name}",
            CHAT,
            [chat(make.message(), thought, make.message(tokens=50))],
        )
    first, thought = make.message(), make.message("assistant", 100) | {"reasoning": make.words(600)}
    others = thought | {"reasoning": make.words(600)}
    yield Case(
        "reasoning: other thoughts before the same words",
        CHAT,
        [chat(first, thought, first), chat(first, others, first)],
    )
    documents = [{"title": make.words(6), "text": make.words(300)} for _ in range(4)]
    yield Case("documents: four", CHAT, [chat(make.message(), documents=documents)], is_text=False)
    yield Case(
        "chat_template_kwargs: no thinking",
        CHAT,
        [chat(make.message(), chat_template_kwargs={"enable_thinking": False})],
    )


def _caches(make: Maker) -> Iterator[Case]:
    said = make.message(tokens=700)
    salted = chat(said, cache_salt="salt of one")
    yield Case("cache_salt: the same again", CHAT, [salted, salted])
    yield Case("cache_salt: another", CHAT, [chat(said, cache_salt="salt of another")])
    yield Case("cache_salt: none", CHAT, [chat(said)])
    yield Case(
        "fields that are no prompt",
        CHAT,
        [chat(said), chat(said, seed=5, user="ann", metadata={"a": "b"}, top_p=0.5)],
    )


def _writings(make: Maker) -> Iterator[Case]:
    """Other texts than those learned from: each has bytes a token of its own."""
    written = {
        "accents": "Ä ñandú às vezes façade, œuvre à part. " * 40,
        "Chinese": "海豹在灯光下阅读地图数着每一个浪头。" * 40,
        "emoji": "🦭📜🌊 " * 120,
        "code": "for i in range(10):\n    print(f'{i:>4} {names[i]!r}')\n" * 40,
        "JSON": json.dumps([{"id": i, "ok": True, "at": [i, i + 1]} for i in range(80)]),
        "blank lines": "one\n\n\n\ntwo\t\t three    four\n" * 60,
        "control characters": "a\u0000b\u001fc\u2028d" * 100,
    }
    for name, said in written.items():
        body = chat({"role": "user", "content": said})
        yield Case(f"writing: {name}", CHAT, [body], is_text=False)
    said = {"role": "user", "content": "é" * 300 + make.words(300)}
    plain = json.dumps(
        {"model": MODEL, "messages": [said], "max_tokens": 2}, ensure_ascii=False, indent=2
    )
    yield Case(
        "writing: without escapes, after with them",
        CHAT,
        [chat(said), plain.encode()],
        is_text=False,
    )


def _completions(make: Maker) -> Iterator[Case]:
    yield Case("completion: a text", COMPLETIONS, [completion(make.words())])
    yield Case(
        "completion: a list of texts",
        COMPLETIONS,
        [completion([make.words(200) for _ in range(5)])],
    )
    ids = list(range(100, 900))
    yield Case("completion: token ids", COMPLETIONS, [completion(ids)])
    yield Case(
        "completion: token ids, half of them again",
        COMPLETIONS,
        [completion([*ids[:400], *ids[500:900]])],
    )
    lists = [[n + 7 for n in ids[i * 100 : i * 100 + 150]] for i in range(4)]
    yield Case("completion: lists of token ids", COMPLETIONS, [completion(lists)])
    yield Case("completion: echo", COMPLETIONS, [completion(make.words(), echo=True)])
    said = make.words(900)
    yield Case(
        "completion: the same beginning",
        COMPLETIONS,
        [completion(said + make.words(100)), completion(said + make.words(100))],
    )
    yield Case(
        "completion: the end cut off", COMPLETIONS, [completion(said), completion(said[:2000])]
    )
    yield Case("completion: streamed", COMPLETIONS, [completion(make.words(), **STREAMED)])


def _anthropic(make: Maker) -> Iterator[Case]:
    yield Case(
        "messages: a system text", MESSAGES, [anthropic(make.message(), system=make.words())]
    )
    marked = {"cache_control": {"type": "ephemeral"}}
    system = [{"type": "text", "text": make.words(500)} | marked for _ in range(2)]
    yield Case(
        "messages: a system of parts with marks of a cache",
        MESSAGES,
        [anthropic(make.message(), system=system)],
    )
    unmarked = [{"type": "text", "text": each["text"]} for each in system]
    yield Case(
        "messages: the same without the marks",
        MESSAGES,
        [anthropic(make.message(tokens=20), system=unmarked)],
    )
    said = make.message(tokens=40)
    billed = [
        anthropic(said, system=[{"type": "text", "text": BILLING + digits}, *unmarked])
        for digits in ("a1b2c3;", "d4e5f6;")
    ]
    yield Case("messages: a billing block that changes", MESSAGES, billed)
    tools = [
        {
            "name": f"tool_{i}",
            "description": make.words(60),
            "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}},
        }
        for i in range(6)
    ]
    use = {"type": "tool_use", "id": "t1", "name": "tool_1", "input": {"path": "a.py"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": make.words(600)}
    parts = result | {"content": [{"type": "text", "text": make.words(600)}]}
    history = [make.message(), {"role": "assistant", "content": [use]}]
    yield Case(
        "messages: tools, a use and its result",
        MESSAGES,
        [anthropic(*history, {"role": "user", "content": [result]}, tools=tools)],
        is_text=False,
    )
    yield Case(
        "messages: a result of parts",
        MESSAGES,
        [anthropic(*history, {"role": "user", "content": [parts]}, tools=tools)],
        is_text=False,
    )
    thought = {"type": "thinking", "thinking": make.words(800), "signature": "c2ln" * 20}
    said_so = {"role": "assistant", "content": [thought, {"type": "text", "text": make.words(40)}]}
    yield Case(
        "messages: thinking of an earlier turn",
        MESSAGES,
        [anthropic(make.message(), said_so, make.message(tokens=20))],
    )


def _responses(make: Maker) -> Iterator[Case]:
    yield Case("response: a text", RESPONSES, [response(make.words())])
    yield Case(
        "response: instructions", RESPONSES, [response(make.words(), instructions=make.words())]
    )
    items = [make.message(role, 200) for role in ("user", "assistant", "user")]
    yield Case("response: items", RESPONSES, [response(items)])
    parts = [{"role": "user", "content": [{"type": "input_text", "text": make.words()}]}]
    yield Case("response: items of parts", RESPONSES, [response(parts)])
    call = {
        "type": "function_call",
        "call_id": "c1",
        "name": "tool_1",
        "arguments": '{"path": "a.py"}',
    }
    output = {"type": "function_call_output", "call_id": "c1", "output": make.words(600)}
    yield Case("response: a call and its output", RESPONSES, [response([items[0], call, output])])
    tools = [
        {
            "type": "function",
            "name": f"tool_{i}",
            "description": make.words(60),
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
        }
        for i in range(6)
    ]
    yield Case("response: tools", RESPONSES, [response(make.words(), tools=tools)], is_text=False)
    first = response(make.words(1500))
    yield Case(
        "response: after another, by its id",
        RESPONSES,
        [first, response(make.words(40), previous_response_id=PREVIOUS)],
    )
    yield Case(
        "response: the third of a chain",
        RESPONSES,
        [
            response(make.words(1500)),
            *(response(make.words(40), previous_response_id=PREVIOUS) for _ in range(2)),
        ],
    )
    head = make.words(600)
    yield Case(
        "response: by its id, with the same instructions",
        RESPONSES,
        [
            response(make.words(900), instructions=head),
            response(make.words(40), previous_response_id=PREVIOUS, instructions=head),
        ],
    )
    for name in ("without the instructions before", "the same, after that count was heard"):
        yield Case(
            f"response: by its id, {name}",
            RESPONSES,
            [
                response(make.words(900), instructions=make.words(600)),
                response(make.words(40), previous_response_id=PREVIOUS),
            ],
        )


def _bodies(make: Maker) -> Iterator[Case]:
    said = chat(make.message(tokens=500))
    yield Case("body: a byte order mark", CHAT, [said, b"\xef\xbb\xbf" + said])
    unnamed = json.loads(said)
    del unnamed["model"]
    yield Case("body: no model", CHAT, [json.dumps(unnamed).encode()])
    nothing = json.dumps(unnamed | {"model": None, "stop": None, "tools": None})
    yield Case("body: null for model and tools", CHAT, [nothing.encode()])
    yield Case("body: stream as a text", CHAT, [chat(make.message(), stream="false")])
    twice = b'{"messages": [], ' + said[1:]
    yield Case("body: a key twice", CHAT, [twice])


def _pooled(make: Maker) -> Iterator[Case]:
    def pooled(name: str, path: str, *bodies: dict[str, Any], is_text: bool = True) -> Case:
        return Case(name, path, [dumped(each) for each in bodies], is_text=is_text, pooled=True)

    yield pooled("embeddings: a text", EMBEDDINGS, {"input": make.words()})
    batch = [make.words(100) for _ in range(6)]
    yield pooled("embeddings: a list of texts", EMBEDDINGS, {"input": batch})
    yield pooled("embeddings: token ids", EMBEDDINGS, {"input": list(range(200, 600))})
    yield pooled("embeddings: messages", EMBEDDINGS, {"messages": [make.message()]})
    documents = [make.words(100) for _ in range(6)]
    query = make.words(30)
    yield pooled("rerank: six documents", "/v1/rerank", {"query": query, "documents": documents})
    yield pooled("score: one by many", "/v1/score", {"text_1": query, "text_2": documents})
    yield pooled("score: pairs", "/v1/score", {"text_1": documents, "text_2": batch})
    yield pooled("pooling: a text", "/pooling", {"input": make.words()})
