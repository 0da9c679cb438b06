"""Makes a random Llama model that any engine loads, without a download.

The weights are random but for two things, so that greedy decoding says a text known in advance:
attention and MLP write little into the residual stream, which thus stays the last token's own
embedding; and the output row of a token's successor equals that token's embedding. The successors
form one cycle over printable tokens, so an answer never ends early and no piece of it is empty,
whatever the batch, the cache or the instance. The work is that of any model of its size.

The tokenizer is byte-level BPE trained on generated words: the same on every Python.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 4096
PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
SPECIAL = (PAD, BEGIN, END, "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
TEMPLATE = (
    "{% if tools %}<|system|>Tools:{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}"
    "<|end|>{% endif %}"
    "{% if documents %}<|system|>Documents:{% for document in documents %}"
    "\n{{ document | tojson }}{% endfor %}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{% set thought = m['reasoning'] or m['reasoning_content'] %}"
    "{% if thought %}<think>\n{{ thought }}\n</think>\n{% endif %}"
    "{{ m['content'] or '' }}"
    "{% for call in m['tool_calls'] or [] %}\n<tool_call>\n{{ call['function'] | tojson }}"
    "\n</tool_call>{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
"""It shows what those of current models do: tools, documents, reasoning of all turns, calls."""
QUIET = 0.02
"""Scale of what attention and MLP write, against the embedding's 1."""


@dataclass(frozen=True)
class Size:
    """Of a model; *inner* is the MLP's width."""

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    positions: int = 16384

    @property
    def head_width(self) -> int:
        return self.width // self.heads


SIZES = {
    "tiny": Size(2, 256, 768, 4, 2),
    "27m": Size(8, 512, 1536, 8, 2),
    "54m": Size(16, 512, 1536, 8, 2),
    # As Llama-3.2-3B, but for its vocabulary.
    "3b": Size(28, 3072, 8192, 24, 8, 32768),
    # As Llama-3.1-8B, likewise.
    "8b": Size(32, 4096, 14336, 32, 8, 32768),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument(
        "--no-weights", action="store_true", help="for engines that make their own dummy weights"
    )
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    write_descriptions(asked.folder, tokenizer, SIZES[asked.size])
    if not asked.no_weights:
        write_weights(asked.folder, tokenizer, SIZES[asked.size])


def words(rng: random.Random) -> Iterator[str]:
    """Lines of made-up words, some of them frequent."""
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    weights = range(len(letters), 0, -1)
    lexicon = ["".join(rng.choices(letters, weights, k=rng.randint(2, 9))) for _ in range(6000)]
    for _ in range(6000):
        yield " ".join(rng.choices(lexicon, k=12))


def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(words(random.Random(0)), trainer)
    return tokenizer


def write_descriptions(folder: Path, tokenizer: Tokenizer, size: Size) -> None:
    """Everything but the weights."""
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": size.positions,
            "pad_token": PAD,
            "bos_token": BEGIN,
            "eos_token": END,
            "clean_up_tokenization_spaces": False,
            "chat_template": TEMPLATE,
        },
    )
    _write(folder / "generation_config.json", ids)
    _write(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "bfloat16",
            "vocab_size": VOCABULARY,
            "num_hidden_layers": size.layers,
            "hidden_size": size.width,
            "intermediate_size": size.inner,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "head_dim": size.head_width,
            "max_position_embeddings": size.positions,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "tie_word_embeddings": False,
            "attention_bias": False,
            "mlp_bias": False,
        }
        | ids,
    )


def _write(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_weights(folder: Path, tokenizer: Tokenizer, size: Size) -> None:
    import torch  # noqa: PLC0415  (not needed for --no-weights)
    from safetensors.torch import save_file  # noqa: PLC0415

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)

    def noise(rows: int, columns: int, scale: float = 1.0) -> torch.Tensor:
        made = torch.randn(rows, columns, generator=generator, device=device) * scale
        return made.to(torch.bfloat16).cpu()

    def matrix(rows: int, columns: int, scale: float = 1.0) -> torch.Tensor:
        return noise(rows, columns, scale / columns**0.5)

    def ones() -> torch.Tensor:
        return torch.ones(size.width, dtype=torch.bfloat16)

    embedding = noise(VOCABULARY, size.width)
    output = torch.zeros_like(embedding)
    for token, following in successors(tokenizer).items():
        output[following] += embedding[token]
    tensors = {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": output,
        "model.norm.weight": ones(),
    }
    keys = size.kv_heads * size.head_width
    for layer in range(size.layers):
        made = {
            "input_layernorm": ones(),
            "post_attention_layernorm": ones(),
            "self_attn.q_proj": matrix(size.width, size.width),
            "self_attn.k_proj": matrix(keys, size.width),
            "self_attn.v_proj": matrix(keys, size.width),
            "self_attn.o_proj": matrix(size.width, size.width, QUIET),
            "mlp.gate_proj": matrix(size.inner, size.width),
            "mlp.up_proj": matrix(size.inner, size.width),
            "mlp.down_proj": matrix(size.width, size.inner, QUIET),
        }
        tensors |= {f"model.layers.{layer}.{name}.weight": t for name, t in made.items()}
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})


def successors(tokenizer: Tokenizer) -> dict[int, int]:
    """What follows each token: one cycle over printable tokens; all others lead into it."""
    size = tokenizer.get_vocab_size()
    text = {token: tokenizer.decode([token]) for token in range(len(SPECIAL), size)}
    printable = [token for token, said in text.items() if said.isascii() and said.isalpha()]
    random.Random(1).shuffle(printable)
    cycle = dict(zip(printable, printable[1:] + printable[:1], strict=True))
    entries = {
        token: printable[token % len(printable)] for token in range(size) if token not in cycle
    }
    return cycle | entries


if __name__ == "__main__":
    main()
