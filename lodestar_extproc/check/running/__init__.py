"""A running Envoy, as its `/config_dump` shows it: read, put together, and asked for."""
