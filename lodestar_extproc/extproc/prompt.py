"""The sequences that a body asks an engine to compute, as what its chat template would see.

It knows the shapes of the APIs' JSON: what stands where, what is rendered, and what is not. A
chat's next turn continues this one, so that equal beginnings mean equal work.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, ClassVar

from lodestar_extproc.extproc import keeping
from lodestar_extproc.extproc.canonical import PromptWriter, Source
from lodestar_extproc.extproc.json_text import InvalidRequest
from lodestar_extproc.extproc.messages import MessageWriter
from lodestar_extproc.extproc.tools import has_tools, write_tools
from lodestar_extproc.request import RequestKind

MAX_SEQUENCES = 5_000
"""Prompts of a batch that are read; of the others only the length counts. A judgement."""
_TEXTS = ("text", "text_input", "inputs", "prompt", "input")
_IDS = ("input_ids", "token_ids", "prompt_token_ids")
_AROUND = ("input_prefix", "input_suffix")
_MEDIA = ("image_data", "audio_data", "video_data", "prompt_embeds", "multi_modal_data")
_QUERIES = ("query", "queries", "text_1", "data_1")
_ITEMS = ("documents", "items", "text_2", "data_2", "texts")
_SHAPES = (
    ("messages", RequestKind.CHAT_COMPLETIONS),
    ("prompt", RequestKind.COMPLETIONS),
    *((name, RequestKind.RERANK) for name in _QUERIES),
    *((name, RequestKind.GENERATE) for name in ("text", "text_input", "inputs", *_IDS)),
    ("input", RequestKind.RESPONSES),
)

Work = Generator[None, None, None]
"""Work that may be interrupted where it yields."""


class PromptReader:
    """Reads one body.

    Attributes:
        sequences: those that were read.
        rest_bytes: of text that was counted and not read.
        head: what of the first sequence a template puts before all turns; empty where that is not
            told apart.
    """

    def __init__(self, source: Source) -> None:
        self.sequences: list[PromptWriter] = []
        self.rest_bytes = 0
        self.head = b""
        self._source = source

    def read(self, kind: RequestKind, body: Mapping[str, Any]) -> Work:
        """Read the sequences of *body*, written for the API *kind*.

        Raises:
            InvalidRequest: token ids out of range.
            OverBudget: too many items, or nested too deeply.
        """
        if kind in (RequestKind.INVOCATIONS, RequestKind.UNKNOWN):
            shapes = (kind for name, kind in _SHAPES if body.get(name) is not None)
            kind = next(shapes, RequestKind.RESPONSES)
        return self._READERS[kind](self, body)

    def _chat(self, body: Mapping[str, Any]) -> Work:
        said = body.get("messages")
        if not (isinstance(said, list) and said and isinstance(said[0], list)):
            yield from self._conversation(body, said)
            return
        # vLLM takes several conversations at once, which share their tools.
        self._source.budget.list(min(len(said), MAX_SEQUENCES))
        for each in said[:MAX_SEQUENCES]:
            yield from self._conversation(body, each)
            self._source.budget.step()
            yield
        if len(said) > MAX_SEQUENCES:  # the others are as long as these
            read_bytes = sum(sequence.text_bytes for sequence in self.sequences)
            self.rest_bytes += read_bytes * (len(said) - MAX_SEQUENCES) // MAX_SEQUENCES

    def _conversation(self, body: Mapping[str, Any], said: object) -> Work:
        out = self._messages()
        if has_tools(body):
            yield from write_tools(out.writer, body)
        # Anthropic's system prompt stands beside the messages, OpenAI's is the first of them.
        out.system(body.get("system"))
        yield from out.conversation(said)

    def _ollama(self, body: Mapping[str, Any]) -> Work:
        out = self._messages(has_images=True)
        if has_tools(body):
            yield from write_tools(out.writer, body)
        out.system(body.get("system"))
        yield from out.conversation(body.get("messages"))
        yield from out.parts(body.get("prompt"))
        out.images(body.get("images"))

    def _anthropic(self, body: Mapping[str, Any]) -> Work:
        out = self._messages(drops_billing=True)
        if has_tools(body):
            yield from write_tools(out.writer, body)
        out.system(body.get("system"))
        yield from out.conversation(body.get("messages"))

    def _responses(self, body: Mapping[str, Any]) -> Work:
        out = self._messages()
        if has_tools(body):
            yield from write_tools(out.writer, body)
        out.system(body.get("instructions"))
        self.head = bytes(out.writer.data)
        if keeping.continued_name(body):
            # What is said now follows what an engine keeps, not the head that stands here again.
            out = self._messages()
        given = body.get("input")
        said = [{"role": "user", "content": given}] if isinstance(given, str) else given
        yield from out.conversation(said)

    def _completions(self, body: Mapping[str, Any]) -> Work:
        # Of a gap to be filled llama.cpp computes what stands around it.
        around = [body[name] for name in _AROUND if isinstance(body.get(name), str)]
        if around:
            yield from self._messages().parts(around)
        yield from self._batch(body.get("prompt"))
        self._media(body)

    def _embeddings(self, body: Mapping[str, Any]) -> Work:
        if "messages" in body:
            yield from self._chat(body)
        else:
            given = body.get("input", body.get("content"))  # the latter is llama.cpp's
            yield from self._batch(given, may_be_parts=True)

    def _generate(self, body: Mapping[str, Any]) -> Work:
        given, instances = _said(body), body.get("instances")
        if given is None and isinstance(instances, list):  # as Vertex AI sends them
            given = [_said(each) for each in instances if isinstance(each, dict)]
            given = [each for each in given if each is not None]
        yield from self._batch(given)
        self._media(body)

    def _pairs(self, body: Mapping[str, Any]) -> Work:
        """A query is computed with each of its documents."""
        query = next((body[name] for name in _QUERIES if body.get(name)), None)
        items = next((body[name] for name in _ITEMS if body.get(name)), None)
        if query is None and items is None:
            yield from self._embeddings(body)
            return
        queries, items = _as_list(query), _as_list(items)
        out = self._messages()
        yield from out.parts(queries)
        if len(queries) == 1:
            self.rest_bytes += max(0, len(items) - 1) * out.writer.text_bytes
        yield from out.parts(items)

    def _batch(self, given: object, *, may_be_parts: bool = False) -> Work:
        """A string, a list of token ids, or a batch of either."""
        if isinstance(given, str):
            self._sequence().text(given)
        if not isinstance(given, list) or not given:
            return
        if isinstance(given[0], (int, float)):
            self._sequence().token_ids(given)
            return
        self._source.budget.list(min(len(given), MAX_SEQUENCES))
        for each in given[:MAX_SEQUENCES]:
            if isinstance(each, str):
                self._sequence().text(each)
            elif isinstance(each, list):
                self._sequence().token_ids(each)
            elif may_be_parts and isinstance(each, dict):
                yield from self._messages().parts([each])
            else:
                raise InvalidRequest(
                    "a prompt must be a string, a list of token ids, or a list of those"
                )
            self._source.budget.step()
            yield
        self._count_rest(given[MAX_SEQUENCES:])

    def _count_rest(self, given: list[Any]) -> None:
        """Beyond the limit a string counts by its letters, and a token id as 4 bytes."""
        with suppress(TypeError):  # neither strings nor lists
            each_bytes = 4 if given and isinstance(given[0], list) else 1
            self.rest_bytes += each_bytes * sum(map(len, given))

    def _media(self, body: Mapping[str, Any]) -> None:
        """What stands beside a prompt: an item, or a list of them."""
        for name in _MEDIA:
            for each in filter(None, _as_list(body.get(name))):
                (self.sequences[-1] if self.sequences else self._sequence()).media(each)

    def _messages(self, **ways: bool) -> MessageWriter:
        messages = MessageWriter(self._source, **ways)
        self.sequences.append(messages.writer)
        return messages

    def _sequence(self) -> PromptWriter:
        writer = PromptWriter(self._source)
        self.sequences.append(writer)
        return writer

    _READERS: ClassVar[Mapping[RequestKind, Callable[[PromptReader, Mapping[str, Any]], Work]]] = (
        MappingProxyType(
            {
                RequestKind.CHAT_COMPLETIONS: _chat,
                RequestKind.COMPLETIONS: _completions,
                RequestKind.RESPONSES: _responses,
                RequestKind.EMBEDDINGS: _embeddings,
                RequestKind.MESSAGES: _anthropic,
                RequestKind.GENERATE: _generate,
                RequestKind.GENERATE_STREAM: _generate,
                RequestKind.OLLAMA: _ollama,
                RequestKind.RERANK: _pairs,
                RequestKind.SCORE: _pairs,
                RequestKind.CLASSIFY: _pairs,
                RequestKind.POOLING: _pairs,
            }
        )
    )


def _said(holder: Mapping[str, Any]) -> Any:
    """The text or the ids that *holder* asks for, under whatever name; None for nothing."""
    return next((holder[name] for name in (*_TEXTS, *_IDS) if holder.get(name)), None)


def _as_list(given: object) -> list[Any]:
    return given if isinstance(given, list) else [] if given is None else [given]
