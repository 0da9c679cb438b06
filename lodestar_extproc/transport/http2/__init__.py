"""HTTP/2 as a server of gRPC speaks it, without a socket: bytes in, bytes out, calls."""
