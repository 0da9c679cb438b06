"""KV events: what engines say of every block that their prefix caches take up or give up.

They are an exact source beside the byte index, which they correct; no tokenizer is needed.
"""
