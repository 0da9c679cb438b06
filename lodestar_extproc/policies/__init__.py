"""How an endpoint is chosen: one file a policy, all behind one protocol."""
