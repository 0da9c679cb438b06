"""Replicas: what they hand to each other, and what they share."""
