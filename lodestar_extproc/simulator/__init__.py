"""Engines that behave like vLLM without a GPU: pure steps, an HTTP server in real time."""
