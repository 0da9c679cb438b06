"""The demo: real Envoy, `serve`, simulated engines and load, one policy after another."""
