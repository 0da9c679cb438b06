"""A first Envoy file: written for engines that were asked what they are, and checked."""
