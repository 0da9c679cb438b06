"""What is learned from each first token: predictors of TTFT, and how far to trust them."""
