"""Routing: from a request to a decision, and from what became of it to what is learned."""
