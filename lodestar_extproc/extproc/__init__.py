"""Envoy's gRPC services: protobuf messages in, events and replies between, protobuf out."""
