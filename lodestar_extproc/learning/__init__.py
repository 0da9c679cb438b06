"""What is learned from each first token: models of TTFT, and how far to trust them."""
