"""What carries gRPC calls: the seam (`calls.py`), and two transports that know no service."""
