"""What a simulated engine goes by unless it is told otherwise: known without loading one."""

from __future__ import annotations

BLOCK_TOKENS = 16  # vLLM's default
DEFAULT_MODEL = "llama-3.1-8b"
