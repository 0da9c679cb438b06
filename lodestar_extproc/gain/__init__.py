"""What the decisions gain, estimated while they are made."""
