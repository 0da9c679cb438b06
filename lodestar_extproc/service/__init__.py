"""The service: what runs around the routers while `serve` runs."""
