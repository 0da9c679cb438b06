"""The gRPC edge: protobuf messages in, events and replies between, protobuf messages out."""
