"""gRPC: the only package that knows it. Codec, status table, and the transports of the data listener."""
