"""Where endpoints come from: the Envoy configuration, DNS, watched files."""
